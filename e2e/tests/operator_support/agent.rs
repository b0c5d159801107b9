//! Statuses as a brick-agent writes them, by the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use nearbrick_crds::meta::agent_manager;
use nearbrick_crds::{Brick, Workstation};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Namespace, ago, eventually, write_status};

/// Nodes of one test.
pub struct Nodes {
    client: Client,
    /// Their names.
    pub names: Vec<String>,
}

impl Nodes {
    /// Makes nodes whose names begin with the namespace's, and end with these letters.
    pub async fn new(ns: &Namespace, letters: &[&str]) -> Self {
        let mut nodes = Self { client: ns.client.clone(), names: vec![] };
        for letter in letters {
            nodes.add(&format!("{}-{letter}", ns.name), json!({})).await;
        }
        nodes
    }

    /// One more, with labels.
    pub async fn add(&mut self, name: &str, labels: Value) {
        let node: Node =
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap();
        let api: Api<Node> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &node).await.unwrap();
        self.names.push(name.to_string());
    }
}

/// The agent of one node: reports each second until it is dropped.
pub struct Agent {
    client: Client,
    namespace: String,
    /// Its node.
    pub node: String,
    bricks: Arc<Mutex<BTreeMap<String, Value>>>,
    task: JoinHandle<()>,
}

impl Agent {
    /// Starts to report, with an empty brick of `volume`. Waits until the brick exists.
    pub async fn start(ns: &Namespace, volume: &str, node: &str) -> Self {
        let bricks: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
        let (client, namespace, name) = (ns.client.clone(), ns.name.clone(), node.to_string());
        let brick = format!("{volume}.{node}");
        let api: Api<Brick> = ns.api();
        eventually(&format!("Brick {brick}"), || async { api.get(&brick).await.ok() }).await;
        let known = bricks.clone();
        let task = tokio::spawn({
            let (client, namespace, node) = (client.clone(), namespace.clone(), name.clone());
            async move {
                let mut tick = tokio::time::interval(Duration::from_secs(1));
                loop {
                    tick.tick().await;
                    let bricks = known.lock().unwrap().clone();
                    for (brick, status) in bricks {
                        write_brick(&client, &namespace, &node, &brick, status).await;
                    }
                    beat(&client, &node).await;
                }
            }
        });
        let agent = Self { client, namespace, node: name, bricks, task };
        agent.report(&brick, json!({ "pendingIn": { "files": 0, "bytes": 0 } })).await;
        agent
    }

    /// Reports this of a brick, now and with each heartbeat, besides what a brick in use always says.
    pub async fn report(&self, brick: &str, status: Value) {
        let mut all = json!({
            "state": "Ready", "message": "mounted", "files": 10, "bytes": 1000, "stubs": 0, "conflicts": 0,
            "conditions": ready(),
        });
        for (key, value) in status.as_object().unwrap() {
            all[key] = value.clone();
        }
        self.bricks.lock().unwrap().insert(brick.to_string(), all.clone());
        write_brick(&self.client, &self.namespace, &self.node, brick, all).await;
    }

    /// Says that `brick` lacks files, for this long.
    pub async fn lacks(&self, brick: &str, files: u64, seconds: i64) {
        let pending = json!({ "files": files, "bytes": files * 1024, "oldestSince": ago(seconds) });
        self.report(brick, json!({ "pendingIn": pending })).await;
    }

    /// Writes this agent's part of a job.
    pub async fn transfer(&self, job: &str, transfer: Value) {
        let api = Api::<nearbrick_crds::HealJob>::namespaced(self.client.clone(), &self.namespace);
        write_status(&api, job, &agent_manager(&self.node), &json!({ "transfers": [transfer] })).await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ready() -> Value {
    let since = "2026-01-01T00:00:00Z";
    json!([{ "type": "Ready", "status": "True", "reason": "Mounted", "message": "m", "lastTransitionTime": since }])
}

async fn write_brick(client: &Client, namespace: &str, node: &str, brick: &str, mut status: Value) {
    status["heartbeat"] = json!(ago(0));
    let body = json!({
        "apiVersion": "nearbrick.io/v1alpha1", "kind": "Brick", "metadata": { "name": brick }, "status": status,
    });
    let api: Api<Brick> = Api::namespaced(client.clone(), namespace);
    // The brick may be gone at the end of a test.
    let params = PatchParams::apply(&agent_manager(node)).force();
    let _ = api.patch_status(brick, &params, &Patch::Apply(&body)).await;
}

async fn beat(client: &Client, node: &str) {
    let safe = json!({
        "type": "SafeToLeave", "status": "True", "reason": "AllCopied", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let mut conditions = ready();
    conditions.as_array_mut().unwrap().push(safe);
    let status = json!({
        "lastSeen": ago(0), "address": "10.0.0.1:7443", "agentVersion": "0.1.0", "bricks": 1,
        "conditions": conditions,
    });
    let body = json!({
        "apiVersion": "nearbrick.io/v1alpha1", "kind": "Workstation", "metadata": { "name": node },
        "status": status,
    });
    let api: Api<Workstation> = Api::all(client.clone());
    let params = PatchParams::apply(&agent_manager(node)).force();
    let _ = api.patch_status(node, &params, &Patch::Apply(&body)).await;
}
