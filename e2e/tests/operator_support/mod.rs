//! What the tests of the API and of the operator share: a control plane, a namespace for each test,
//! waiting for a condition, and writing statuses as an agent would.
//!
//! No sleeps: everything waits for something, with a limit.

#![allow(dead_code)]

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource};
pub use nearbrick_e2e::fleet::ago;
use nearbrick_e2e::{ControlPlane, fleet, kube_api};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub mod agent;
pub mod operator;

/// The longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How to reach the control plane as its administrator. All tests of a binary share one, and everything
/// in it goes with the binary's process.
pub async fn config() -> Config {
    let file = ControlPlane::shared().await.unwrap().kubeconfig();
    let kubeconfig = Kubeconfig::read_from(file).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// A client of the control plane, for this test: each test has a runtime of its own.
pub async fn client() -> Client {
    let client = Client::try_from(config().await).unwrap();
    kube_api::install_crds(&client).await.unwrap();
    client
}

/// Calls `probe` until it gives something. Fails after a limit, with the name of what did not come.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let said = || {
        let found = probe();
        async { found.await.ok_or_else(|| "it did not come".to_owned()) }
    };
    kube_api::eventually(what, LIMIT, said).await.unwrap()
}

/// A namespace of one test.
pub struct Namespace {
    /// A client.
    pub client: Client,
    /// The namespace's name.
    pub name: String,
}

impl Namespace {
    /// A new one.
    pub async fn new(prefix: &str) -> Self {
        let client = client().await;
        let plane = ControlPlane::shared().await.unwrap();
        let name = plane.namespace(&client, prefix).await.unwrap();
        Self { client, name }
    }

    /// The objects of one kind in it.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Makes an object from JSON without apiVersion and kind.
    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + Debug,
    {
        let mut object = object;
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(K::kind(&()));
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Merges a patch into an object.
    pub async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Waits until `check` finds what it wants in the object called `name`.
    pub async fn until<K, T>(&self, what: &str, name: &str, check: impl Fn(&K) -> Option<T>) -> T
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + Debug,
    {
        let api = self.api::<K>();
        let probe = || async {
            let object = api.get(name).await.map_err(|e| e.to_string())?;
            check(&object)
                .ok_or_else(|| format!("at the end it is {}", serde_json::to_string(&object).unwrap()))
        };
        kube_api::eventually(&format!("{name}: {what}"), LIMIT, probe).await.unwrap()
    }
}

/// Applies a status under a field manager, as an agent does.
pub async fn write_status<K>(api: &Api<K>, name: &str, manager: &str, status: &Value)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    fleet::apply_status(api, name, manager, status).await.unwrap();
}
