//! `Brick`: one workstation's store for one volume.
//!
//! The operator makes it; the agent of its node writes the status. One that is deleted stays until nothing has to be held there
//! any more (a finalizer). The data on disk outlives the object, unless the volume's `deletionPolicy` is `Delete`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conflict::ConflictReport;
use crate::meta::LocalRef;
use crate::pending::Pending;

/// One workstation's store for one volume; made by the operator.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nearbrick.io",
    version = "v1alpha1",
    kind = "Brick",
    plural = "bricks",
    shortname = "wsb",
    category = "nearbrick",
    namespaced,
    status = "BrickStatus",
    derive = "PartialEq",
    selectable = ".spec.node",
    selectable = ".spec.volumeRef.name",
    doc = "One workstation's store for one volume; made by the operator.",
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volumeRef.name", description = "The volume"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node", description = "The workstation"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "What its agent says of it"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether it can be used; Unknown while its agent is silent"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.files", description = "Files in the tree as this brick knows it"),
    printcolumn(name = "Stubs", type_ = "integer", json_path = ".status.stubs", priority = 1, description = "Files without their data here"),
    printcolumn(name = "Pending-Out", type_ = "integer", json_path = ".status.pending.files", description = "Files whose newest data is here and that others lack"),
    printcolumn(name = "Pending-Bytes", type_ = "integer", json_path = ".status.pending.bytes", description = "Bytes that others lack"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.pending.size", description = "The bytes that others lack, as a person reads them"),
    printcolumn(name = "Oldest", type_ = "date", json_path = ".status.pending.oldestSince", description = "Age of the oldest file that others lack"),
    printcolumn(name = "Pending-In", type_ = "integer", json_path = ".status.pendingIn.files", description = "Files that this brick must hold and lacks"),
    printcolumn(name = "In-Set", type_ = "integer", json_path = ".status.inSet.files", priority = 1, description = "Files that this brick must hold"),
    printcolumn(name = "Unplaced", type_ = "integer", json_path = ".status.unplaced.files", priority = 1, description = "Files of the volume that are not held yet by just the bricks that are to hold them"),
    printcolumn(name = "Conflicts", type_ = "integer", json_path = ".status.conflicts", description = "Open conflicts"),
    printcolumn(name = "Seen", type_ = "date", json_path = ".status.heartbeat", description = "Time since its agent last wrote this: up to five minutes while nothing is new"),
    printcolumn(name = "Verified", type_ = "date", json_path = ".status.lastVerifiedTime", priority = 1, description = "Time since all that is here was last read and compared"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes", priority = 1, description = "Sum of the sizes of these files"),
    printcolumn(name = "Free", type_ = "integer", json_path = ".status.freeBytes", priority = 1, description = "Free bytes of its file system"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address", priority = 1, description = "Where its agent is reached"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1, description = "What its agent says, in one line"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Age of the object"),
    validation = Rule::new("self.metadata.name == self.spec.volumeRef.name + '.' + self.spec.node").message("a Brick is named VOLUME.NODE; bricks are made by the operator: change the WorkstationVolume's members instead"),
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.uuid == oldSelf.uuid",
        "message": "uuid of a Brick cannot be changed: it is the identity of the data on disk",
        "fieldPath": ".uuid"
    },
    {
        "rule": "self.node == oldSelf.node",
        "message": "node of a Brick cannot be changed: add the node to the volume's members to get a brick there",
        "fieldPath": ".node"
    },
    {
        "rule": "self.volumeRef == oldSelf.volumeRef",
        "message": "volumeRef of a Brick cannot be changed",
        "fieldPath": ".volumeRef"
    },
    {
        "rule": "self.volumeUuid == oldSelf.volumeUuid",
        "message": "volumeUuid of a Brick cannot be changed: it says to which volume the data on disk belongs",
        "fieldPath": ".volumeUuid"
    }
]))]
pub struct BrickSpec {
    /// The volume.
    pub volume_ref: LocalRef,
    /// The volume's `metadata.uid`: an agent refuses data of another one.
    #[schemars(length(min = 36, max = 36), regex(pattern = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))]
    pub volume_uuid: String,
    /// The workstation.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Directory on the workstation. The agent's own choice if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = [{
        "rule": "self.startsWith('/') && !self.split('/').exists(c, c == '..')",
        "message": "path of a Brick is absolute and has no '..'"
    }]))]
    pub path: Option<String>,
    /// Random identity of this brick, given once by the operator.
    #[schemars(length(min = 36, max = 36), regex(pattern = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))]
    pub uuid: String,
}

/// What an agent says of its brick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BrickStatus {
    /// Whether it is in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<BrickState>,
    /// Why, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The brick's present incarnation, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// `host:port` of its agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Size of its file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_bytes: Option<u64>,
    /// Free bytes of its file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Regular files in the tree as this brick knows it, with and without their data here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Sum of the sizes of these files, with and without their data here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many of these files have no data, or not all of it, here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stubs: Option<u64>,
    /// A number that follows from all that this brick knows of the volume's names, versions and attributes: the same on two bricks that
    /// know the same. Absent while that changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree_sum: Option<String>,
    /// Files that were changed here and have not settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirty_files: Option<u64>,
    /// Since when the oldest of them has been changing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_dirty_since: Option<Time>,
    /// What this brick must hold: it is in the replica set of these files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_set: Option<Pending>,
    /// What no other brick holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_here: Option<Pending>,
    /// Files of the volume whose replica set is not yet as the placement wants it; absent until all files were looked at by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unplaced: Option<Pending>,
    /// What these wait for, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unplaced_because: Option<String>,
    /// The placement by which all files were looked at: a number that follows from its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
    /// What this brick must hold and lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_in: Option<Pending>,
    /// What others must hold and lack, and this brick has: one entry for each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["brick"]))]
    pub pending_out: Vec<PendingOut>,
    /// All that others lack and this brick has, each file once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Open conflicts: files of which there are several versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<u64>,
    /// The first hundred of them by the file's id, and the last hundred that were resolved within the volume's
    /// `versionRetention`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["file"]))]
    pub conflict_list: Vec<ConflictReport>,
    /// When the last look through the whole brick ended, in which all bytes here were read and compared with their hashes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_verified_time: Option<Time>,
    /// What that found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// How far the look is that is under way; its counts are as of the last report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verifying: Option<Verification>,
    /// Files of which a copy was found damaged, or two bricks say different hashes, and that are not repaired yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unrepaired_files: Option<u64>,
    /// The groups of files that are used most at this workstation, hottest first; at most sixteen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub hottest: Vec<HotGroup>,
    /// What is left to do here for `ReplicaMigration`s under way: one entry for each of them of which there are rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["migration"]))]
    pub moves: Vec<Move>,
    /// The last error that a person should know of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Messages from peers that were dropped because they made no sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_messages: Option<u64>,
    /// When the agent last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Time>,
    /// The last `spec.trigger` of the volume that the agent had seen when it looked at the brick for this report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_trigger: Option<String>,
    /// The spec's generation to which this status refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Whether a brick is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BrickState {
    /// Mounted and in use.
    Ready,
    /// Being opened.
    Starting,
    /// The agent does not use what it found; the message says why.
    Refused,
    /// In use, with a fault; the message says which.
    Degraded,
    /// Its object is being deleted, and its files are.
    Emptying,
    /// Its files were deleted.
    Emptied,
}

/// A group of related files that is used at a workstation. Opens are counted, because reads and writes of open files go past the
/// agent; each counts half after four hours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["path"]))]
pub struct HotGroup {
    /// The directory, from the volume's root and without a leading slash.
    pub path: String,
    /// Whether all below it belongs to the group, or the files in it alone.
    pub below: bool,
    /// Other directories of the group, the files in them alone: those that are used in the same sessions of work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15))]
    pub with: Vec<String>,
    /// Opens for reading of files that this brick must hold.
    pub local: u64,
    /// Opens for reading of cached copies.
    pub cached: u64,
    /// Opens for reading of files whose data was not, or not wholly, here.
    pub remote: u64,
    /// Files that were made or opened for writing.
    pub writes: u64,
    /// Files of the group.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of these files this brick need not hold.
    pub away_files: u64,
    /// Their bytes.
    pub away_bytes: u64,
    /// The bricks that must hold most of them, by name: those of the commonest replica set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bricks: Vec<String>,
}

impl BrickStatus {
    /// Uses of all groups of files that it names.
    pub fn uses(&self) -> u64 {
        self.hottest.iter().map(HotGroup::uses).fold(0, u64::saturating_add)
    }
}

impl HotGroup {
    /// All uses.
    pub fn uses(&self) -> u64 {
        [self.cached, self.remote, self.writes].into_iter().fold(self.local, u64::saturating_add)
    }
}

/// What is left to do for a move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["migration"]))]
pub struct Move {
    /// Name of the `ReplicaMigration`.
    pub migration: String,
    /// Files that are not yet as this step of it wants, and that nobody writes.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are being written, or in conflict: they follow when that is over.
    pub busy: u64,
    /// What this brick read once more of what it must hold, when it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

/// What was read once more and compared with its hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Verified {
    /// Files whose bytes are what they should be.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that the disk had damaged; they are repaired from another brick.
    pub damaged: u64,
    /// Files that programs were writing.
    pub left: u64,
}

/// What one other brick must hold and lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["brick"]))]
pub struct PendingOut {
    /// Name of the brick that lacks it.
    pub brick: String,
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// Since when the oldest of them has been waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_since: Option<Time>,
}

/// A look through the whole brick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Verification {
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Files whose bytes are what they should be.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Names that were made, moved or removed past the mount.
    pub names: u64,
    /// Files that were changed past the mount.
    pub edited: u64,
    /// Files that the disk had damaged.
    pub damaged: u64,
    /// Files that could not be looked at, mostly because programs were writing them.
    pub left: u64,
}

/// An error that a person should know of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LastError {
    /// One word.
    pub reason: String,
    /// One line: what, where, what to do.
    pub message: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}
