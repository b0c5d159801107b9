//! Operators, in this process, each with a runtime of its own; with the rights of the ServiceAccount
//! that the chart makes, and no others.

use std::net::{SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use nearbrick_operator::plan::job::Limits;
use nearbrick_operator::{Options, Settings, lease, shutdown};
use serde_json::json;

/// Where the operator's lease is.
pub const SYSTEM: &str = "nearbrick-system";
/// Silence after which an agent is away, in these tests.
pub const AWAY_AFTER: Duration = Duration::from_secs(4);

/// An operator that runs.
pub struct Operator {
    trigger: shutdown::Trigger,
    kill: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<Result<(), String>>,
    /// Where its metrics and health are.
    pub address: SocketAddr,
}

impl Operator {
    /// Starts one. The control plane must have the definitions.
    pub async fn start(identity: &str) -> Self {
        let config = service_account(&super::client().await).await;
        Self::start_on(config, identity, |_| {})
    }

    /// Starts one that reaches the control plane so, with other times for the lease.
    pub fn start_on(config: Config, identity: &str, patience: impl FnOnce(&mut lease::Config)) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut lease = lease::Config::new(SYSTEM.into(), "nearbrick-operator".into(), identity.to_string());
        lease.retry = Duration::from_millis(300);
        patience(&mut lease);
        let options = Options {
            certificates: false,
            files: None,
            listen: address,
            lease,
            settings: Settings {
                away_after: AWAY_AFTER,
                job_limits: Limits {
                    unreachable_after: Duration::from_secs(2),
                    start_within: Duration::from_secs(30),
                },
            },
        };
        let (trigger, shutdown) = shutdown::channel();
        let (kill, killed) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            let result = runtime.block_on(async {
                let killed = async {
                    if killed.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    result = nearbrick_operator::run(config, options, shutdown) => result,
                    () = killed => Err("killed".to_owned()),
                }
            });
            // As the kernel would: nobody is waited for.
            runtime.shutdown_background();
            result
        });
        Self { trigger, kill, thread, address }
    }

    /// Ends it as SIGTERM does, and waits.
    pub async fn stop(self) -> Result<(), String> {
        self.trigger.fire();
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap()
    }

    /// Ends it as SIGKILL does, wherever it is.
    pub async fn kill(self) {
        let _ = self.kill.send(());
        let _ = tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
    }

    /// The body of one of its pages.
    pub async fn page(&self, path: &str) -> Option<String> {
        page(self.address, path).await
    }
}

/// The body of a page over plain HTTP.
pub async fn page(address: SocketAddr, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: operator\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_string())
}

/// The one operator of all tests of this binary; it ends with the process, and holds nothing that has
/// to be cleaned up.
pub async fn shared() -> SocketAddr {
    static SHARED: tokio::sync::OnceCell<SocketAddr> = tokio::sync::OnceCell::const_new();
    static KEPT: OnceLock<Operator> = OnceLock::new();
    *SHARED
        .get_or_init(|| async {
            let operator = Operator::start("shared").await;
            let address = operator.address;
            let _ = KEPT.set(operator);
            address
        })
        .await
}

/// Applies the chart's RBAC, and returns how to reach the control plane as the operator.
pub async fn service_account(client: &Client) -> Config {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let params = PatchParams::apply("test").force();
    let body = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SYSTEM } });
    namespaces.patch(SYSTEM, &params, &Patch::Apply(&body)).await.unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/nearbrick/files/rbac.yaml");
    nearbrick_e2e::kube_api::apply_file(client, std::path::Path::new(file)).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SYSTEM);
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: vec![], ..Default::default() },
        ..Default::default()
    };
    let token = accounts
        .create_token_request("nearbrick-operator", &PostParams::default(), &request)
        .await
        .unwrap()
        .status
        .unwrap()
        .token;
    let mut config = super::config().await;
    config.auth_info = kube::config::AuthInfo { token: Some(token.into()), ..Default::default() };
    config
}
