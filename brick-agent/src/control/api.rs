//! Access to the API server: the client, server-side apply of a status, and
//! whether the server answers, said once when that changes.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use nearbrick_crds::meta::agent_manager;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// Why the API cannot be used: for the start of the agent.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {0}: {1}")]
    Kubeconfig(String, String),
    /// There is none, and this is no pod.
    #[error("no --kubeconfig is given and this is no pod with a service account: {0}")]
    InCluster(String),
}

/// How a write ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// It is there.
    Done,
    /// The object is not there.
    Gone,
    /// It is to be tried again.
    Failed,
}

/// The API server, as one agent sees it.
#[derive(Clone)]
pub struct ApiServer {
    /// For watches.
    pub client: Client,
    /// The name under which this agent writes.
    pub manager: String,
    state: Arc<State>,
    returns: watch::Sender<u64>,
}

/// What was counted.
#[derive(Debug, Default)]
pub struct State {
    down: AtomicBool,
    /// Writes that arrived.
    pub writes: AtomicU64,
    /// Writes that did not.
    pub failed_writes: AtomicU64,
}

impl State {
    /// Whether the server answered last time.
    pub fn is_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }
}

impl ApiServer {
    /// From a kubeconfig, or as a pod's service account. Asks nothing of the server yet.
    ///
    /// # Errors
    /// One clear line.
    pub async fn connect(kubeconfig: Option<&Path>, node: &str) -> Result<Self, ApiError> {
        let (mut config, what) = match kubeconfig {
            Some(path) => {
                let what = path.display().to_string();
                let bad = |e: &dyn Display| ApiError::Kubeconfig(what.clone(), one_line(&e.to_string()));
                let file = Kubeconfig::read_from(path).map_err(|e| bad(&e))?;
                let own_proxy =
                    file.clusters.iter().any(|c| c.cluster.as_ref().is_some_and(|c| c.proxy_url.is_some()));
                let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                    .await
                    .map_err(|e| bad(&e))?;
                if !own_proxy {
                    // What the environment says of proxies is not meant for this.
                    config.proxy_url = None;
                }
                (config, what)
            }
            None => {
                let config =
                    Config::incluster().map_err(|e| ApiError::InCluster(one_line(&e.to_string())))?;
                (config, "of the service account".to_owned())
            }
        };
        config.connect_timeout = Some(Duration::from_secs(5));
        let client =
            Client::try_from(config).map_err(|e| ApiError::Kubeconfig(what, one_line(&e.to_string())))?;
        Ok(Self::with_client(client, node))
    }

    /// By this client.
    pub fn with_client(client: Client, node: &str) -> Self {
        let (state, returns) = (Arc::default(), watch::Sender::new(0));
        ApiServer { client, manager: agent_manager(node), state, returns }
    }

    /// What was counted.
    pub fn state(&self) -> Arc<State> {
        self.state.clone()
    }

    /// Ticks when the server answers after it did not. Watches start anew then: a
    /// connection that a cut left behind may otherwise be silent for minutes.
    pub fn returns(&self) -> watch::Receiver<u64> {
        self.returns.subscribe()
    }

    /// The server answered.
    pub fn up(&self) {
        if self.state.down.swap(false, Ordering::Relaxed) {
            tracing::info!("the API server answers again");
            self.returns.send_modify(|n| *n += 1);
        }
    }

    /// The server did not answer.
    pub fn down(&self, why: &dyn Display) {
        if !self.state.down.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the API server cannot be reached, local work goes on: {}",
                one_line(&why.to_string())
            );
        }
    }

    /// Applies the status of an object of this agent.
    pub async fn apply_status<K>(&self, api: &Api<K>, object: &Meta<'_>, status: &impl Serialize) -> Written
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let mut metadata = serde_json::json!({ "name": object.name });
        if let Some(namespace) = object.namespace {
            metadata["namespace"] = namespace.into();
        }
        let patch = serde_json::json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": metadata,
            "status": status,
        });
        let params = PatchParams::apply(&self.manager).force();
        let patch = Patch::Apply(&patch);
        let result = tokio::time::timeout(REQUEST, api.patch_status(object.name, &params, &patch)).await;
        let written = match result {
            Ok(Ok(_)) => {
                self.up();
                Written::Done
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Written::Gone,
            Ok(Err(error @ kube::Error::Api(_))) => {
                // It answers, but not to our liking: worth a line each time it is tried.
                self.up();
                tracing::warn!("{} {}: {}", K::kind(&()), object.name, one_line(&error.to_string()));
                Written::Failed
            }
            Ok(Err(error)) => {
                self.down(&error);
                Written::Failed
            }
            Err(_) => {
                self.down(&format_args!("no answer within {REQUEST:?}"));
                Written::Failed
            }
        };
        let counter = if written == Written::Done { &self.state.writes } else { &self.state.failed_writes };
        counter.fetch_add(1, Ordering::Relaxed);
        written
    }

    /// The objects of a namespace.
    pub fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Which object a status is of.
#[derive(Debug)]
pub struct Meta<'a> {
    /// Its namespace, if its kind has one.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
}

/// An error's text without line breaks.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
