//! Everyday dealings with the API server: is it ready, apply files, wait for a condition.

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::{ClusterResourceScope, GroupVersionKind};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

/// The lab's field manager.
pub const MANAGER: &str = "nearbrick-lab";

const POLL: Duration = Duration::from_millis(100);

/// Whether the API server says that it is ready.
pub async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok_and(|text| text.trim() == "ok")
}

/// Installs the definitions of Nearbrick's kinds and waits until they are served.
///
/// # Errors
/// The API server refuses one.
pub async fn install_crds(client: &Client) -> Result<()> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definitions = nearbrick_crds::schema::all().context("cannot make the definitions")?;
    for definition in &definitions {
        let name = definition.name_any();
        api.patch(&name, &params(), &Patch::Apply(definition))
            .await
            .context(format!("cannot apply {name}"))?;
    }
    for definition in &definitions {
        let name = definition.name_any();
        wait_for(&api, &name, "Established", Duration::from_secs(30), |crd: &CustomResourceDefinition| {
            let conditions = crd.status.as_ref().and_then(|s| s.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Established" && c.status == "True"))
        })
        .await?;
    }
    Ok(())
}

fn params() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

/// Applies each object of a YAML file by server-side apply; their kinds and names.
///
/// # Errors
/// The file cannot be read, or an object is refused.
pub async fn apply_file(client: &Client, file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).context(format!("cannot read {}", file.display()))?;
    apply(client, &text).await.context(format!("cannot apply {}", file.display()))
}

/// Applies each object of a YAML text by server-side apply; their kinds and names.
///
/// # Errors
/// The text is not YAML, or an object is refused.
pub async fn apply(client: &Client, yaml: &str) -> Result<Vec<String>> {
    let mut applied = Vec::new();
    for document in serde_norway::Deserializer::from_str(yaml) {
        let value = serde_json::Value::deserialize(document).context("not YAML")?;
        if value.is_null() {
            continue;
        }
        let object: DynamicObject = serde_json::from_value(value).context("not an object of Kubernetes")?;
        applied.push(apply_object(client, &object).await?);
    }
    Ok(applied)
}

async fn apply_object(client: &Client, object: &DynamicObject) -> Result<String> {
    let types = object.types.clone().unwrap_or_default();
    let kind = GroupVersionKind::try_from(&types).context("an object without apiVersion and kind")?;
    let name = object.name_any();
    let what = format!("{} {name}", kind.kind);
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    api.patch(&name, &params(), &Patch::Apply(object)).await.context(&what)?;
    Ok(what)
}

/// Applies a typed object that belongs to no namespace.
///
/// # Errors
/// The API server refuses it.
pub async fn apply_typed<K>(client: &Client, object: &K) -> Result<()>
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    let name = object.name_any();
    let api: Api<K> = Api::all(client.clone());
    api.patch(&name, &params(), &Patch::Apply(object)).await.context(format!("{} {name}", K::kind(&())))?;
    Ok(())
}

/// Waits until an object is there and `ready` says yes; the object.
///
/// # Errors
/// `limit` passes; the line has the object's last status. An error of the API server does not end the
/// waiting.
pub async fn wait_for<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    limit: Duration,
    mut ready: impl FnMut(&K) -> bool,
) -> Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let start = Instant::now();
    loop {
        let last = match api.get_opt(name).await {
            Ok(Some(object)) if ready(&object) => return Ok(object),
            Ok(Some(object)) => {
                let value = serde_json::to_value(&object).unwrap_or_default();
                format!("its status is {}", value["status"])
            }
            Ok(None) => "it is not there".to_owned(),
            Err(error) => error.to_string(),
        };
        if start.elapsed() > limit {
            crate::fail!("{name}: {what}: not within {} s; {last}", limit.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until `ready` gives a value.
///
/// # Errors
/// `limit` passes; the line has what `ready` said last.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut ready: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = std::result::Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match ready().await {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() > limit => {
                crate::fail!("{what}: not within {} s; {last}", limit.as_secs());
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
