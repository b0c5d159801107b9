//! Finalizers: put on and taken off one at a time, and never over a change that was not seen.

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::{Error, is_conflict, is_not_found};

/// Puts it on, unless it is there. Says whether it did.
pub async fn add<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    if object.finalizers().iter().any(|f| f == finalizer) {
        return Ok(false);
    }
    let mut all = object.finalizers().to_vec();
    all.push(finalizer.to_owned());
    set(api, object, &all).await
}

/// Takes it off, if it is there. Says whether it did.
pub async fn remove<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let rest: Vec<String> = object.finalizers().iter().filter(|f| *f != finalizer).cloned().collect();
    if rest.len() == object.finalizers().len() {
        return Ok(false);
    }
    set(api, object, &rest).await
}

async fn set<K>(api: &Api<K>, object: &K, all: &[String]) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let name = object.name_any();
    let patch =
        json!({ "metadata": { "resourceVersion": object.meta().resource_version, "finalizers": all } });
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(true),
        // It changed meanwhile, or is gone: the next event brings it here again.
        Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(false),
        Err(error) => Err(Error::api(format!("change the finalizers of {} {name}", K::kind(&())))(error)),
    }
}
