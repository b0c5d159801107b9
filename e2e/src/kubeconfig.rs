//! Kubeconfig files and clients made from them.

use std::path::Path;

use k8s_openapi::ByteString;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::error::{Context, Result};
use crate::pki::{Pair, write_file};

/// Writes a kubeconfig that holds all it needs.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, server: &str, ca: &str, user: &str, pair: &Pair) -> Result<()> {
    let data = |text: &str| ByteString(text.as_bytes().to_vec());
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {
            "server": server, "certificate-authority-data": data(ca),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": data(&pair.cert), "client-key-data": data(&pair.key),
        }}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
        "current-context": "lab",
    });
    let text = serde_norway::to_string(&config).context("cannot write a kubeconfig")?;
    write_file(path, &text, 0o600)
}

/// A client of the API server that a kubeconfig names, never through a proxy. It belongs to the
/// runtime in which it is made.
///
/// # Errors
/// The file cannot be used.
pub async fn client(path: &Path) -> Result<Client> {
    let what = format!("cannot use the kubeconfig {}", path.display());
    let file = Kubeconfig::read_from(path).context(&what)?;
    let mut config =
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.context(&what)?;
    config.proxy_url = None;
    config.connect_timeout = Some(std::time::Duration::from_secs(5));
    Client::try_from(config).context(&what)
}
