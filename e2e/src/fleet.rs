//! Agents without a disk: statuses as a brick-agent writes them, made up. For tests of the operator on a real API server, and for
//! loads that no one machine has the workstations for.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use nearbrick_crds::jiff::Timestamp;
use nearbrick_crds::meta::agent_manager;
use nearbrick_crds::{Brick, Workstation};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A time in the past, as the API writes it.
pub fn ago(seconds: i64) -> String {
    let now = Timestamp::now();
    let at = Timestamp::from_second(now.as_second() - seconds).unwrap_or(now);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn condition(type_: &str, reason: &str) -> Value {
    json!({
        "type": type_, "status": "True", "reason": reason, "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// What a brick in use always says, and `more`.
pub fn brick(more: &Value) -> Value {
    let mut all = json!({
        "state": "Ready", "message": "mounted", "files": 10, "bytes": 1000, "stubs": 0, "conflicts": 0,
        "conditions": [condition("Ready", "Mounted")],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    all
}

/// What an agent says of its workstation when all is well.
pub fn workstation(bricks: usize) -> Value {
    json!({
        "lastSeen": ago(0), "address": "10.0.0.1:7443", "agentVersion": "0.1.0", "bricks": bricks,
        "conditions": [condition("Ready", "AllMounted"), condition("SafeToLeave", "AllCopied")],
    })
}

/// Applies a status under a field manager, as an agent does.
///
/// # Errors
/// What the API server says.
pub async fn apply_status<K>(api: &Api<K>, name: &str, manager: &str, status: &Value) -> kube::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let body = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": { "name": name }, "status": status,
    });
    let params = PatchParams::apply(manager).force();
    api.patch_status(name, &params, &Patch::Apply(&body)).await.map(drop)
}

/// Writes the status of a brick with a heartbeat of now.
///
/// # Errors
/// What the API server says.
pub async fn report_brick(
    client: &Client,
    namespace: &str,
    node: &str,
    name: &str,
    status: &Value,
) -> kube::Result<()> {
    let mut status = status.clone();
    status["heartbeat"] = json!(ago(0));
    let api: Api<Brick> = Api::namespaced(client.clone(), namespace);
    apply_status(&api, name, &agent_manager(node), &status).await
}

/// Writes the status of a workstation.
///
/// # Errors
/// What the API server says.
pub async fn report_workstation(client: &Client, node: &str, bricks: usize) -> kube::Result<()> {
    let api: Api<Workstation> = Api::all(client.clone());
    apply_status(&api, node, &agent_manager(node), &workstation(bricks)).await
}
