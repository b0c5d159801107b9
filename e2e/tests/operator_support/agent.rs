//! Statuses as a brick-agent writes them, by the test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, PostParams};
use nearbrick_crds::meta::agent_manager;
use nearbrick_crds::{Brick, WorkstationVolume};
use nearbrick_e2e::fleet;
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
    bricks: Arc<tokio::sync::Mutex<BTreeMap<String, Value>>>,
    task: JoinHandle<()>,
}

impl Agent {
    /// Starts to report, with an empty brick of `volume`. Waits until the brick exists.
    pub async fn start(ns: &Namespace, volume: &str, node: &str) -> Self {
        let bricks: Arc<tokio::sync::Mutex<BTreeMap<String, Value>>> = Arc::default();
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
                    // Kept while it is written, so that no older report comes after a newer one.
                    let bricks = known.lock().await;
                    for (brick, status) in &*bricks {
                        let status = &with_trigger(&client, &namespace, brick, status).await;
                        let _ = fleet::report_brick(&client, &namespace, &node, brick, status).await;
                    }
                    drop(bricks);
                    let _ = fleet::report_workstation(&client, &node, 1).await;
                }
            }
        });
        let agent = Self { client, namespace, node: name, bricks, task };
        agent.report(&brick, json!({ "pendingIn": { "files": 0, "bytes": 0 } })).await;
        agent
    }

    /// Reports this of a brick, now and with each heartbeat, besides what a brick in use always says.
    pub async fn report(&self, brick: &str, status: Value) {
        let all = fleet::brick(&status);
        let mut bricks = self.bricks.lock().await;
        let said = with_trigger(&self.client, &self.namespace, brick, &all).await;
        bricks.insert(brick.to_string(), all);
        // The brick may be gone at the end of a test: here, and with each beat.
        match fleet::report_brick(&self.client, &self.namespace, &self.node, brick, &said).await {
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 404 => {
                panic!("a report of {brick} is refused: {status:?}")
            }
            _ => {}
        }
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

/// The status with the volume's trigger, as an agent repeats it that has looked since.
async fn with_trigger(client: &Client, namespace: &str, brick: &str, status: &Value) -> Value {
    let api: Api<WorkstationVolume> = Api::namespaced(client.clone(), namespace);
    let volume = brick.split('.').next().unwrap_or_default();
    let trigger = api.get(volume).await.ok().and_then(|v| v.spec.trigger);
    let mut status = status.clone();
    if let Some(trigger) = trigger {
        status["lastTrigger"] = json!(trigger);
    }
    status
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}
