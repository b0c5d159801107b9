//! `WorkstationVolume`: one shared tree on every member workstation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::LocalRef;
use crate::pending::Pending;

/// One shared tree on every member workstation: writes go to the local disk, the other copies follow
/// by heal jobs.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nearbrick.io",
    version = "v1alpha1",
    kind = "WorkstationVolume",
    plural = "workstationvolumes",
    shortname = "wsv",
    category = "nearbrick",
    namespaced,
    status = "WorkstationVolumeStatus",
    derive = "PartialEq",
    doc = "One shared tree on every member workstation: writes go to the local disk, the other copies follow by heal jobs.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Whether the volume can be used as its spec asks"),
    printcolumn(name = "Health", type_ = "string", json_path = ".status.health", description = "Whether all copies are there: Protected, Pending, Healing, Conflicted, Degraded or Unknown"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas", description = "Copies that each file must have"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.files", description = "Files in the tree"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pending.files", description = "Copies of files that are still to be made"),
    printcolumn(name = "Pending-Bytes", type_ = "integer", json_path = ".status.pending.bytes", description = "Bytes that are still to be copied"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.pending.size", description = "The pending bytes as a person reads them"),
    printcolumn(name = "Oldest", type_ = "date", json_path = ".status.pending.oldestSince", description = "Age of the oldest pending file"),
    printcolumn(name = "Conflicts", type_ = "integer", json_path = ".status.conflicts", description = "Open conflicts"),
    printcolumn(name = "Placed", type_ = "string", json_path = ".status.conditions[?(@.type==\"Placed\")].status", priority = 1, description = "Whether every file is held by just the bricks that are to hold it"),
    printcolumn(name = "Last-Heal", type_ = "date", json_path = ".status.lastHealTime", description = "Time since the last heal ended"),
    printcolumn(name = "Next-Heal", type_ = "string", json_path = ".status.nextHealTime", priority = 1, description = "When the next heal is due"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes", priority = 1, description = "Bytes in the tree"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Age of the object"),
    validation = Rule::new("!self.metadata.name.contains('.') && size(self.metadata.name) <= 63").message("a WorkstationVolume's name has no dot and at most 63 characters, because bricks are named VOLUME.NODE: choose another name"),
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.members.nodes) || self.replicas <= self.members.nodes.size()",
        "message": "replicas is more than the nodes that members.nodes lists: add nodes or lower replicas",
        "fieldPath": ".replicas"
    },
    {
        "rule": "!has(self.members.nodes) || !has(self.replicaSets) || self.replicaSets.all(s, s.nodes.all(n, n in self.members.nodes))",
        "message": "a replica set names a node that is not in members.nodes: add the node to members.nodes or take it out of replicaSets",
        "fieldPath": ".replicaSets"
    },
    {
        "rule": "!has(self.replicaSets) || self.replicaSets.all(s, s.nodes.size() >= self.replicas)",
        "message": "a replica set has fewer nodes than replicas: add nodes to it or lower replicas",
        "fieldPath": ".replicaSets"
    },
    {
        "rule": "!has(self.minSyncCopies) || self.minSyncCopies <= self.replicas",
        "message": "minSyncCopies is more than replicas: lower it or raise replicas",
        "fieldPath": ".minSyncCopies"
    }
]))]
pub struct WorkstationVolumeSpec {
    /// The workstations on which the tree is mounted.
    pub members: Members,
    /// How many bricks must hold each file's newest data. A change goes for files that exist too.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: u32,
    /// Explicit groups of nodes. The first one that contains a file's home (the node on which it was made) and matches the
    /// path is its replica set; otherwise that is the home and the best other members. A change goes for files that exist too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub replica_sets: Vec<ReplicaSet>,
    /// After how long without a report of a workstation its copies are made elsewhere, for example `72h`. Never if not set: only
    /// a person's word (`lost` of the Workstation) does it then. Windows in which it is expected to be off do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",
        "message": "write a duration such as 72h"
    }]))]
    pub replace_after: Option<String>,
    /// When and how this volume is healed. Every ten minutes if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heal_policy_ref: Option<LocalRef>,
    /// Set it to any new value to heal at once; `status.lastTrigger` shows the last value that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub trigger: Option<String>,
    /// What a read does where the newest version is known but cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_reads: Option<StaleReads>,
    /// What happens to concurrent versions of a file: `KeepBoth` (one keeps the name, the other becomes a file beside
    /// it; this is the default), `Newest`, `Largest`, `Brick/NAME` (the version written there wins), or `Manual` (a
    /// person decides).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 260), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^(KeepBoth|Newest|Largest|Manual|Brick/.+)$')",
        "message": "conflicts is KeepBoth, Newest, Largest, Manual or Brick/NAME"
    }]))]
    pub conflicts: Option<String>,
    /// Other policies for some paths: the first entry that matches decides; otherwise it is `conflicts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub conflict_rules: Vec<ConflictRule>,
    /// How long losers of conflicts and deleted files are kept on the bricks, for example `168h`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",
        "message": "write a duration such as 168h"
    }]))]
    pub version_retention: Option<String>,
    /// Whether and when copies move towards the workstation that uses them. They stay where they are if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
    /// Globs of paths that are not replicated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub ignore: Vec<String>,
    /// How many bricks of a file's replica set must hold the data before `fsync` returns. 1 if not set: the local brick.
    /// If there are too few within 20 seconds, `fsync` fails with an input/output error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub min_sync_copies: Option<u32>,
    /// Most bytes that the tree may hold, for example `500Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        "message": "write a capacity such as 500Gi"
    }]))]
    pub capacity: Option<String>,
    /// What happens to the data when the volume is deleted. `Retain` if not set: the directories stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

fn default_replicas() -> u32 {
    2
}

/// The workstations of a volume: named, or chosen by label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.nodes) != has(self.nodeSelector)",
    "message": "set either members.nodes (names) or members.nodeSelector (labels), exactly one of them"
}]))]
pub struct Members {
    /// The names of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub nodes: Option<Vec<String>>,
    /// Every node with these labels. An empty selector selects all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
}

/// An explicit group of nodes that hold files together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSet {
    /// The nodes, each once.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-validations" = [{
            "rule": "self.all(n, self.exists_one(m, m == n))",
            "message": "a replica set names a node twice: name each node once"
        }])
    )]
    pub nodes: Vec<String>,
    /// Globs on the path from the volume's root, without a leading slash. All paths if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)))]
    pub paths: Vec<String>,
}

/// What a read does where the newest version is known but cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StaleReads {
    /// Reads the version that is here, and counts it.
    #[default]
    Allow,
    /// Reads the version that is here, and makes an Event.
    Warn,
    /// Fails with an input/output error.
    Fail,
}

/// What happens to concurrent versions of files on some paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConflictRule {
    /// Globs on the path from the volume's root, without a leading slash.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 256)))]
    pub paths: Vec<String>,
    /// As `conflicts` of the volume.
    #[schemars(length(min = 1, max = 260), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^(KeepBoth|Newest|Largest|Manual|Brick/.+)$')",
        "message": "policy is KeepBoth, Newest, Largest, Manual or Brick/NAME"
    }]))]
    pub policy: String,
}

/// Whether and when copies move towards the workstation that uses them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// Whether they do.
    pub mode: MigrationMode,
    /// Which files move together. `Project` if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub related: Option<RelatedFiles>,
    /// How many times as much a group must be used there as at the brick that would give up its copy. 3 if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub factor: Option<u32>,
    /// How many uses (opens of files, of which each counts half after four hours) a move needs at least. 10 if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_uses: Option<u32>,
    /// For how long that must be so before anything moves. `30m` if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",
        "message": "write a duration such as 30m"
    }]))]
    pub dwell: Option<String>,
    /// For how long a group that moved, or was refused, stays where it is. `1h` if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",
        "message": "write a duration such as 1h"
    }]))]
    pub cool_down: Option<String>,
    /// Most bytes of the volume that begin to move within an hour. `50Gi` if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        "message": "write bytes such as 50Gi"
    }]))]
    pub bytes_per_hour: Option<String>,
}

/// Which files move together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RelatedFiles {
    /// All below the nearest directory above them that holds a project's marker, such as `.git` or `Cargo.toml`; files that are in
    /// no project as with `Directory`.
    #[default]
    Project,
    /// The files of one directory, without those in directories below it.
    Directory,
    /// The files of directories that are used in the same sessions of work, wherever they are.
    CoAccess,
}

/// Whether copies move towards the workstation that uses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationMode {
    /// They stay where they are.
    #[default]
    Off,
    /// Moves are proposed as `ReplicaMigration` objects, and not made.
    Propose,
    /// Moves are made.
    Automatic,
}

/// What happens to the data when the volume is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The bricks' directories stay as they are.
    #[default]
    Retain,
    /// The bricks' directories are emptied, and the object stays until they are. So is that of a single `Brick` that is deleted, once
    /// nothing has to be held there any more.
    Delete,
}

/// What is known of a volume; written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkstationVolumeStatus {
    /// Whether the volume can be used as its spec asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<VolumePhase>,
    /// One word for "are all copies there?".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<VolumeHealth>,
    /// Files in the tree, as the best informed brick counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Bytes in the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Copies that are still to be made: a file that two bricks lack counts twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Open conflicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<u64>,
    /// Workstations on which its files were used lately, the most used first: where pods with a claim for it are asked to go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub used_on: Vec<String>,
    /// When the last heal job ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heal_time: Option<Time>,
    /// Since when at the latest all bytes of all bricks are known to be as they were written: the oldest of the bricks' own
    /// times. Not set while a brick never looked, or its agent is silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_verified_time: Option<Time>,
    /// When a job was last made by the policy; it stays when the job is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When the next one is due, if something is pending then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_heal_time: Option<Time>,
    /// The last `spec.trigger` that was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_trigger: Option<String>,
    /// The replica sets of files, by their home: the first entry whose `creator` is the node of the first brick of a file's set
    /// and whose `paths` match decides. Agents act on it, for new files and for those that exist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placement: Vec<PlacementRule>,
    /// The spec's generation to which this status refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Protected, Placed, Converged, ConflictFree, Verified, SpaceLeft, Scheduled, LossBounded, SpecActedOn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Identifies rules: the same text for the same rules, in every version of these programs.
pub fn placement_name(rules: &[PlacementRule]) -> String {
    // Nothing in a rule can fail to be written.
    let text = serde_json::to_string(rules).unwrap_or_default();
    format!("{:016x}", crate::times::spread(&text))
}

/// The replica set of files of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementRule {
    /// The node whose files they are: on which they are created. It may have left, or be about to. Files of all nodes if empty.
    pub creator: String,
    /// Globs on the path; all paths if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Names of the bricks that must hold the file; the creator's own is the first of them, unless it has left or is to leave.
    pub bricks: Vec<String>,
    /// The `ReplicaMigration` by which these files moved, or move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<String>,
    /// How far that is, while the bricks that hold the files are to go on doing so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joining: Option<Joining>,
    /// Bricks of this rule whose disks are full, each with the one that takes what it does not hold yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["full"]))]
    pub stand_ins: Vec<StandIn>,
}

/// A brick that takes files in the place of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["full", "brick"]))]
pub struct StandIn {
    /// Name of the brick whose disk is full.
    pub full: String,
    /// Name of the one that takes its place.
    pub brick: String,
}

/// What bricks of a rule do that join those which hold the files already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Joining {
    /// They receive the files.
    Adding,
    /// The same, and they read what they have once more, and compare it with its hashes.
    Verifying,
}

/// Whether the volume can be used as its spec asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumePhase {
    /// Not every brick has reported yet.
    Pending,
    /// Every member has its brick in use, or is away after having had it.
    Ready,
    /// The spec asks for something that this cluster cannot give; the condition Ready says what.
    Invalid,
    /// It is being deleted.
    Terminating,
}

/// One word for "are all copies there?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeHealth {
    /// Every brick in each file's replica set holds its newest data.
    Protected,
    /// Copies are still to be made.
    Pending,
    /// Copies are being made.
    Healing,
    /// Everything is copied, and conflicts are open.
    Conflicted,
    /// A brick cannot be used; its object says why.
    Degraded,
    /// An agent is silent: what it has not sent yet is not known.
    Unknown,
}
