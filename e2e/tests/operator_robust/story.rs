//! What an operator has to bring to its end, whatever happens to it: a volume is made, a brick lacks files and is healed, a group of files
//! that is used elsewhere moves there. The agents are the test's: each reports what a good agent would.

use std::collections::BTreeMap;

use kube::api::ListParams;
use nearbrick_crds::{
    Brick, HealJob, HealPolicy, JobPhase, MigrationPhase, PlacementRule, ReplicaMigration, WorkstationVolume,
    placement_name,
};
use nearbrick_e2e::fleet;
use serde_json::{Value, json};

use crate::support::Namespace;
use crate::support::agent::Nodes;

/// How far the story is.
pub struct Story {
    ns: Namespace,
    nodes: Nodes,
    /// By brick: its UUID as it was first seen.
    uuids: BTreeMap<String, String>,
    /// Whether the files that one brick lacked at first were brought.
    healed: bool,
    /// Since when it lacks them.
    since: String,
    /// By job: how often its target did its part.
    pub done: BTreeMap<String, u32>,
}

const NONE: fn() -> Value = || json!({ "files": 0, "bytes": 0 });

impl Story {
    /// Three nodes, a policy, and a volume on them.
    pub async fn begin(name: &str) -> Self {
        let ns = Namespace::new(name).await;
        let nodes = Nodes::new(&ns, &["a", "b", "c"]).await;
        ns.create::<HealPolicy>(json!({ "metadata": { "name": "p" }, "spec": { "interval": "1s" } })).await;
        let spec = json!({
            "members": { "nodes": nodes.names }, "healPolicyRef": { "name": "p" },
            "migration": { "mode": "Automatic", "dwell": "1s" },
        });
        ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
        Self {
            ns,
            nodes,
            uuids: BTreeMap::new(),
            healed: false,
            since: crate::support::ago(60),
            done: BTreeMap::new(),
        }
    }

    fn brick(&self, n: usize) -> String {
        format!("home.{}", self.nodes.names[n])
    }

    /// Each agent reports once, and does what it is to do. Whether the end has come.
    pub async fn step(&mut self) -> bool {
        let volume = self.ns.api::<WorkstationVolume>().get("home").await.unwrap();
        let rules = volume.status.clone().unwrap_or_default().placement;
        let bricks = self.ns.api::<Brick>().list(&ListParams::default()).await.unwrap().items;
        let jobs = self.ns.api::<HealJob>().list(&ListParams::default()).await.unwrap().items;
        let moves = self.ns.api::<ReplicaMigration>().list(&ListParams::default()).await.unwrap().items;
        self.look(&bricks, &jobs, &moves, &rules);
        for job in &jobs {
            self.work_on(job).await;
        }
        let client = self.ns.client.clone();
        for n in 0..self.nodes.names.len() {
            if !bricks.iter().any(|b| b.metadata.name.as_ref() == Some(&self.brick(n))) {
                continue;
            }
            let status = fleet::brick(&self.says(n, &rules, &moves));
            let (node, name) = (&self.nodes.names[n], self.brick(n));
            let _ = fleet::report_brick(&client, &self.ns.name, node, &name, &status).await;
            let _ = fleet::report_workstation(&client, node, 1).await;
        }
        let is_done =
            |m: &ReplicaMigration| m.status.as_ref().and_then(|s| s.phase) == Some(MigrationPhase::Done);
        let protected = volume.status.as_ref().is_some_and(|s| {
            nearbrick_crds::condition::find(&s.conditions, "Protected").is_some_and(|c| c.status == "True")
        });
        self.healed && protected && !moves.is_empty() && moves.iter().all(is_done)
    }

    /// What must hold at any time.
    fn look(
        &mut self,
        bricks: &[Brick],
        jobs: &[HealJob],
        moves: &[ReplicaMigration],
        rules: &[PlacementRule],
    ) {
        for brick in bricks {
            let name = brick.metadata.name.clone().unwrap();
            let uuid = self.uuids.entry(name).or_insert_with(|| brick.spec.uuid.clone());
            assert_eq!(*uuid, brick.spec.uuid, "the identity of a brick is given once");
        }
        assert!(self.uuids.len() <= 3, "{:?}", self.uuids);
        let active = jobs.iter().filter(|j| !phase(j).is_some_and(JobPhase::is_ended)).count();
        assert!(active <= 1, "never two jobs at once: {jobs:?}");
        assert!(moves.len() <= 1, "one move is proposed once: {moves:?}");
        for rule in rules {
            assert!(rule.bricks.len() >= 2, "never fewer copies than the volume asks for: {rules:?}");
        }
    }

    /// The target of a job has done its part at once.
    async fn work_on(&mut self, job: &HealJob) {
        let name = job.metadata.name.clone().unwrap();
        if phase(job).is_some_and(JobPhase::is_ended) || self.done.contains_key(&name) {
            return;
        }
        for (n, node) in self.nodes.names.iter().enumerate() {
            let brick = self.brick(n);
            if !job.spec.target_bricks.is_empty() && !job.spec.target_bricks.contains(&brick) {
                continue;
            }
            let transfer = json!({
                "target": brick, "phase": "Completed", "filesTotal": 3, "filesDone": 3, "filesFailed": 0,
                "bytesTotal": 3072, "bytesDone": 3072, "bytesPerSecond": 512,
            });
            let manager = nearbrick_crds::meta::agent_manager(node);
            let api = self.ns.api::<HealJob>();
            fleet::apply_status(&api, &name, &manager, &json!({ "transfers": [transfer] })).await.unwrap();
        }
        self.healed = true;
        *self.done.entry(name).or_default() += 1;
    }

    /// What the agent of a brick reports.
    fn says(&self, n: usize, rules: &[PlacementRule], moves: &[ReplicaMigration]) -> Value {
        let mut all = json!({ "pendingIn": NONE(), "unplaced": NONE() });
        if !rules.is_empty() {
            all["placement"] = json!(placement_name(rules));
        }
        if n == 1 && !self.healed {
            all["pendingIn"] = json!({ "files": 3, "bytes": 3072, "oldestSince": self.since });
        }
        if n == 2 && self.healed {
            all["hottest"] = json!([{
                "path": "engine", "below": true, "local": 0, "cached": 0, "remote": 40, "writes": 0, "files": 10,
                "bytes": 4096, "awayFiles": 10, "awayBytes": 4096, "bricks": [self.brick(0), self.brick(1)],
            }]);
            let read = json!({ "files": 10, "bytes": 4096, "damaged": 0, "left": 0 });
            let found = |m: &ReplicaMigration| json!({ "migration": m.metadata.name, "files": 0, "bytes": 0, "busy": 0, "verified": read });
            all["moves"] = Value::Array(moves.iter().map(found).collect());
        }
        all
    }
}

fn phase(job: &HealJob) -> Option<JobPhase> {
    job.status.as_ref().and_then(|s| s.phase)
}
