//! The API server, asked and told with the person's own rights.

use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Client, Config, Resource, ResourceExt};
use nearbrick_crds::{Brick, FileConflict, HealJob, ReplicaMigration, Workstation, WorkstationVolume};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Error;

/// A connection.
pub struct Cluster {
    client: Client,
    namespace: String,
}

/// Which namespaces are meant; none: all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(pub Option<String>);

impl Scope {
    /// As the command line says.
    pub fn of(cluster: &Cluster, namespace: Option<String>, all: bool) -> Self {
        Scope((!all).then(|| namespace.unwrap_or_else(|| cluster.namespace.clone())))
    }

    /// In words.
    pub fn say(&self) -> String {
        match &self.0 {
            Some(namespace) => format!("in namespace {namespace}"),
            None => "in any namespace".to_owned(),
        }
    }
}

/// A trigger that nobody else gives.
fn new_trigger() -> String {
    format!("kubectl-{}-{}", jiff::Timestamp::now().as_microsecond(), std::process::id())
}

fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
    let what = what.into();
    move |error| {
        let why = match error {
            kube::Error::Api(status) if status.code == 404 && status.message.contains("could not find") => {
                "the cluster does not know Nearbrick's kinds: is it installed there?".to_owned()
            }
            kube::Error::Api(status) => status.message.clone(),
            error => error.to_string(),
        };
        Error::Api { what, why: why.replace('\n', " ") }
    }
}

impl Cluster {
    /// As the kubeconfig says, or from within a pod.
    ///
    /// # Errors
    /// There is no usable configuration.
    pub async fn connect(context: Option<&str>, as_user: Option<String>) -> Result<Self, Error> {
        let wrong = |why: String| Error::Config(why);
        let mut config = match context {
            None => Config::infer().await.map_err(|e| wrong(e.to_string()))?,
            Some(context) => {
                let file = Kubeconfig::read().map_err(|e| wrong(e.to_string()))?;
                let options = KubeConfigOptions { context: Some(context.to_owned()), ..Default::default() };
                Config::from_custom_kubeconfig(file, &options).await.map_err(|e| wrong(e.to_string()))?
            }
        };
        if as_user.is_some() {
            config.auth_info.impersonate = as_user;
        }
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|e| wrong(e.to_string()))?;
        Ok(Cluster { client, namespace })
    }

    /// With a client that is there already.
    pub fn new(client: Client, namespace: &str) -> Self {
        Cluster { client, namespace: namespace.to_owned() }
    }

    /// The connection itself.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    async fn list<K>(&self, scope: &Scope, params: &ListParams) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = match &scope.0 {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let list = api.list(params).await.map_err(failed(format!("list {}", K::plural(&()))))?;
        Ok(list.items)
    }

    /// The volumes.
    ///
    /// # Errors
    /// The request.
    pub async fn volumes(&self, scope: &Scope) -> Result<Vec<WorkstationVolume>, Error> {
        self.list(scope, &ListParams::default()).await
    }

    /// One volume.
    ///
    /// # Errors
    /// The request; there is none.
    pub async fn volume(&self, namespace: &str, name: &str) -> Result<WorkstationVolume, Error> {
        let api: Api<WorkstationVolume> = Api::namespaced(self.client.clone(), namespace);
        api.get(name).await.map_err(failed(format!("read volume {namespace}/{name}")))
    }

    /// The bricks.
    ///
    /// # Errors
    /// The request.
    pub async fn bricks(&self, scope: &Scope) -> Result<Vec<Brick>, Error> {
        self.list(scope, &ListParams::default()).await
    }

    /// The bricks of a workstation, in all namespaces.
    ///
    /// # Errors
    /// The request.
    pub async fn bricks_of(&self, node: &str) -> Result<Vec<Brick>, Error> {
        self.list(&Scope(None), &ListParams::default().fields(&format!("spec.node={node}"))).await
    }

    /// The heal jobs of a volume.
    ///
    /// # Errors
    /// The request.
    pub async fn jobs(&self, namespace: &str, volume: &str) -> Result<Vec<HealJob>, Error> {
        let params = ListParams::default().fields(&format!("spec.volumeRef.name={volume}"));
        self.list(&Scope(Some(namespace.to_owned())), &params).await
    }

    /// The conflicts.
    ///
    /// # Errors
    /// The request.
    pub async fn conflicts(&self, scope: &Scope) -> Result<Vec<FileConflict>, Error> {
        self.list(scope, &ListParams::default()).await
    }

    /// The workstations.
    ///
    /// # Errors
    /// The request.
    pub async fn workstations(&self) -> Result<Vec<Workstation>, Error> {
        let api: Api<Workstation> = Api::all(self.client.clone());
        Ok(api.list(&ListParams::default()).await.map_err(failed("list workstations"))?.items)
    }

    /// One workstation, if there is one.
    ///
    /// # Errors
    /// The request.
    pub async fn workstation(&self, name: &str) -> Result<Option<Workstation>, Error> {
        let api: Api<Workstation> = Api::all(self.client.clone());
        api.get_opt(name).await.map_err(failed(format!("read workstation {name}")))
    }

    /// Asks for a report of a workstation's agent; gives the trigger.
    ///
    /// # Errors
    /// The request.
    pub async fn ask(&self, node: &str) -> Result<String, Error> {
        let trigger = new_trigger();
        let api: Api<Workstation> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "spec": { "trigger": trigger } }));
        let done = api.patch(node, &PatchParams::default(), &patch).await;
        done.map_err(failed(format!("ask workstation {node} what it holds now")))?;
        Ok(trigger)
    }

    /// Asks for a heal of a volume; gives the trigger.
    ///
    /// # Errors
    /// The request.
    pub async fn trigger(&self, namespace: &str, volume: &str) -> Result<String, Error> {
        let trigger = new_trigger();
        let spec = json!({ "trigger": trigger });
        self.patch::<WorkstationVolume>(namespace, volume, &spec).await?;
        Ok(trigger)
    }

    /// The moves of a volume.
    ///
    /// # Errors
    /// The request.
    pub async fn migrations(&self, namespace: &str, volume: &str) -> Result<Vec<ReplicaMigration>, Error> {
        let all: Vec<ReplicaMigration> =
            self.list(&Scope(Some(namespace.to_owned())), &ListParams::default()).await?;
        Ok(all.into_iter().filter(|m| m.spec.volume_ref.name == volume).collect())
    }

    /// One move.
    ///
    /// # Errors
    /// The request; there is none.
    pub async fn migration(&self, namespace: &str, name: &str) -> Result<ReplicaMigration, Error> {
        let api: Api<ReplicaMigration> = Api::namespaced(self.client.clone(), namespace);
        api.get(name).await.map_err(failed(format!("read move {namespace}/{name}")))
    }

    /// Asks for a move; gives its name, which begins with `prefix`.
    ///
    /// # Errors
    /// The request.
    pub async fn migrate(&self, namespace: &str, prefix: &str, spec: &Value) -> Result<String, Error> {
        let object = json!({
            "apiVersion": ReplicaMigration::api_version(&()), "kind": ReplicaMigration::kind(&()),
            "metadata": { "generateName": prefix }, "spec": spec,
        });
        let object: ReplicaMigration =
            serde_json::from_value(object).map_err(|e| Error::Said(e.to_string()))?;
        let api: Api<ReplicaMigration> = Api::namespaced(self.client.clone(), namespace);
        let made = api.create(&PostParams::default(), &object).await;
        Ok(made.map_err(failed(format!("ask for a move in {namespace}")))?.name_any())
    }

    /// Says what becomes of a conflict.
    ///
    /// # Errors
    /// The request.
    pub async fn resolve(&self, namespace: &str, name: &str, resolution: &str) -> Result<(), Error> {
        self.patch::<FileConflict>(namespace, name, &json!({ "resolution": resolution })).await
    }

    async fn patch<K>(&self, namespace: &str, name: &str, spec: &Value) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({ "spec": spec });
        let what = format!("change {} {namespace}/{name}", K::kind(&()));
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop).map_err(failed(what))
    }
}
