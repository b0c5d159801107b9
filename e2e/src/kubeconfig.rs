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
    let login = json!({ "client-certificate-data": data(&pair.cert), "client-key-data": data(&pair.key) });
    write_with(path, server, ca, user, &login)
}

/// Writes a kubeconfig whose user has a token, in a file that is read anew now and then.
///
/// # Errors
/// The file cannot be written.
pub fn write_with_token(path: &Path, server: &str, ca: &str, user: &str, token: &Path) -> Result<()> {
    write_with(path, server, ca, user, &json!({ "tokenFile": token }))
}

fn data(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

fn write_with(path: &Path, server: &str, ca: &str, user: &str, login: &serde_json::Value) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {
            "server": server, "certificate-authority-data": data(ca),
        }}],
        "users": [{"name": user, "user": login}],
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
    client_at(path, None).await
}

/// The same, at another address of the API server.
///
/// # Errors
/// The file cannot be used.
pub async fn client_at(path: &Path, server: Option<&str>) -> Result<Client> {
    let what = format!("cannot use the kubeconfig {}", path.display());
    let mut file = Kubeconfig::read_from(path).context(&what)?;
    if let Some(server) = server {
        let clusters = file.clusters.iter_mut().filter_map(|c| c.cluster.as_mut());
        clusters.for_each(|c| c.server = Some(server.to_owned()));
    }
    let mut config =
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.context(&what)?;
    config.proxy_url = None;
    config.connect_timeout = Some(std::time::Duration::from_secs(5));
    Client::try_from(config).context(&what)
}
