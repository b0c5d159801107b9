//! Objects that this version cannot read.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use nearbrick_crds::WorkstationVolume;
use nearbrick_e2e::kube_api;
use serde_json::{Value, json};

use crate::support::agent::{Agent, Nodes};
use crate::support::operator::Operator;
use crate::support::{Namespace, eventually};

/// Makes an object past the schema: as one that an older version has left.
async fn past_the_schema(ns: &Namespace, kind: &str, plural: &str, object: Value) {
    let crds: Api<CustomResourceDefinition> = Api::all(ns.client.clone());
    let name = format!("{plural}.nearbrick.io");
    // Fields that can be selected have to be in the schema.
    let loose = json!([
        { "op": "add", "path": "/spec/versions/0/selectableFields", "value": [] },
        { "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
          "value": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
    ]);
    let patch = Patch::<Value>::Json(serde_json::from_value(loose).unwrap());
    crds.patch(&name, &PatchParams::default(), &patch).await.unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("nearbrick.io", "v1alpha1", kind));
    let api: Api<DynamicObject> = match kind {
        "Workstation" => Api::all_with(ns.client.clone(), &resource),
        _ => Api::namespaced_with(ns.client.clone(), &ns.name, &resource),
    };
    let mut object = object;
    object["apiVersion"] = json!("nearbrick.io/v1alpha1");
    object["kind"] = json!(kind);
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    // The new schema takes a moment.
    eventually(&format!("an odd {kind}"), || async {
        api.create(&PostParams::default(), &object).await.ok()
    })
    .await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_stalls_none_of_the_others() {
    let _alone = crate::ALONE.lock().await;
    let ns = Namespace::new("invalid").await;
    let nodes = Nodes::new(&ns, &["a", "b"]).await;
    let odd = |spec: Value| json!({ "metadata": { "name": "odd" }, "spec": spec });
    past_the_schema(&ns, "HealPolicy", "healpolicies", odd(json!({ "interval": 5 }))).await;
    past_the_schema(&ns, "WorkstationVolume", "workstationvolumes", odd(json!({ "members": "all" }))).await;
    past_the_schema(&ns, "Brick", "bricks", odd(json!({ "node": ["a", "b"] }))).await;
    past_the_schema(&ns, "HealJob", "healjobs", odd(json!({ "volumeRef": "home" }))).await;
    past_the_schema(&ns, "ReplicaMigration", "replicamigrations", odd(json!({ "paths": 1 }))).await;
    past_the_schema(&ns, "FileConflict", "fileconflicts", odd(json!({ "path": {} }))).await;
    let of_a_node =
        json!({ "metadata": { "name": format!("{}-odd", ns.name) }, "spec": { "lost": "maybe" } });
    past_the_schema(&ns, "Workstation", "workstations", of_a_node).await;
    kube_api::install_crds(&ns.client).await.unwrap();

    let operator = Operator::start("invalid").await;
    let spec = json!({ "members": { "nodes": nodes.names } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let _a = Agent::start(&ns, "home", &nodes.names[0]).await;
    let _b = Agent::start(&ns, "home", &nodes.names[1]).await;
    ns.until("Protected", "home", |v: &WorkstationVolume| {
        let conditions = &v.status.as_ref()?.conditions;
        (nearbrick_crds::condition::find(conditions, "Protected")?.status == "True").then_some(())
    })
    .await;
    operator.stop().await.unwrap();
}
