//! The controllers of kinds that are in the API and not acted on yet: each object says so.

use std::fmt::Debug;
use std::sync::Arc;

use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use nearbrick_crds::condition;
use nearbrick_crds::meta::{OPERATOR_MANAGER, now};
use nearbrick_crds::unacted::Unacted;
use nearbrick_crds::{Condition, ReplicaMigration};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::context::Context;
use crate::error::Error;
use crate::patch::{Owned, apply_status};
use crate::plan::volume::unacted_finding;

const OWNED: Owned = Owned {
    manager: OPERATOR_MANAGER,
    fields: &["observedGeneration"],
    conditions: &[condition::SPEC_ACTED_ON],
};

/// A kind that is not acted on.
pub trait UnactedKind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The conditions that the object has.
    fn conditions(&self) -> &[Condition];
    /// What is set and not acted on.
    fn unacted_fields(&self) -> Vec<&'static str>;
}

impl UnactedKind for ReplicaMigration {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default()
    }
    fn unacted_fields(&self) -> Vec<&'static str> {
        self.spec.unacted()
    }
}

/// Says so.
pub async fn reconcile<K: UnactedKind>(object: Arc<K>, context: Arc<Context>) -> Result<Action, Error> {
    let generation = object.meta().generation;
    let finding = unacted_finding(&object.unacted_fields());
    let condition = condition::condition(object.conditions(), &finding, generation, &now());
    let status = json!({ "observedGeneration": generation, "conditions": [condition] });
    let api: Api<K> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    if apply_status(&api, &*object, &status, &OWNED).await? {
        context.metrics.wrote("unacted");
    }
    Ok(Action::await_change())
}
