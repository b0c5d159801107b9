//! `ReplicaMigration`: a move of a group of files towards the workstation that uses them.
//!
//! The operator makes them where the volume's `migration` says so; a person may make one too, which is carried out whatever the use
//! of the files. Deleting one that has not come to `Dropping` takes it back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::LocalRef;
use crate::pending::Pending;

/// A move of a group of files from one brick to another.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nearbrick.io",
    version = "v1alpha1",
    kind = "ReplicaMigration",
    plural = "replicamigrations",
    shortname = "wrm",
    category = "nearbrick",
    namespaced,
    status = "ReplicaMigrationStatus",
    derive = "PartialEq",
    doc = "A move of a group of files from one brick to another.",
    printcolumn(
        name = "Volume",
        type_ = "string",
        json_path = ".spec.volumeRef.name",
        description = "The volume"
    ),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.to", description = "The brick that joins"),
    printcolumn(
        name = "From",
        type_ = "string",
        json_path = ".status.from",
        description = "The brick that leaves"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "How far it is"
    ),
    printcolumn(
        name = "Files",
        type_ = "integer",
        json_path = ".status.group.files",
        description = "Files of the group"
    ),
    printcolumn(
        name = "Size",
        type_ = "string",
        json_path = ".status.group.size",
        description = "Their bytes, as a person reads them"
    ),
    printcolumn(
        name = "Left",
        type_ = "integer",
        json_path = ".status.left.files",
        description = "Files for which this step is still to be done"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "What it waits for, or why it was made or refused"
    ),
    printcolumn(
        name = "Paths",
        type_ = "string",
        json_path = ".spec.paths",
        priority = 1,
        description = "The files that move"
    ),
    printcolumn(
        name = "Evidence",
        type_ = "string",
        json_path = ".status.evidence",
        priority = 1,
        description = "Who uses the files"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Age of the object"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.volumeRef == oldSelf.volumeRef",
        "message": "volumeRef of a ReplicaMigration cannot be changed: make a new one",
        "fieldPath": ".volumeRef"
    },
    {
        "rule": "self.paths == oldSelf.paths && self.to == oldSelf.to && has(self.from) == has(oldSelf.from) && (!has(self.from) || self.from == oldSelf.from)",
        "message": "what a ReplicaMigration moves, and where to, cannot be changed: make a new one",
        "fieldPath": ".paths"
    },
    {
        "rule": "!has(self.from) || self.from != self.to",
        "message": "from and to are the same brick: name two bricks",
        "fieldPath": ".from"
    }
]))]
pub struct ReplicaMigrationSpec {
    /// The volume.
    pub volume_ref: LocalRef,
    /// Globs of the paths that move.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub paths: Vec<String>,
    /// Name of the brick that joins the replica set.
    #[schemars(length(min = 1, max = 253))]
    pub to: String,
    /// Name of the brick that leaves it. If not set, the one where the files are used least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub from: Option<String>,
    /// Shows what would be done, and does nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// How far a move is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaMigrationStatus {
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<MigrationPhase>,
    /// What it waits for, or why it was made, or refused, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who uses the files, in one line; as it was when that was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Name of the brick that leaves the set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Names of the bricks that are to hold the files in the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bricks: Vec<String>,
    /// The files of the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Pending>,
    /// Those for which the present step is still to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Pending>,
    /// When files began to move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was done or refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// The spec's generation to which this status refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Moved, SpecActedOn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum MigrationPhase {
    /// Nothing has been done.
    Proposed,
    /// The target receives the data.
    Adding,
    /// Hashes are compared.
    Verifying,
    /// The old brick leaves the set.
    Dropping,
    /// Done.
    Done,
    /// It will not be done; the message says why.
    Refused,
}

impl MigrationPhase {
    /// Whether nothing more comes of it.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Refused)
    }

    /// Whether files are moving.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Adding | Self::Verifying | Self::Dropping)
    }

    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "Proposed",
            Self::Adding => "Adding",
            Self::Verifying => "Verifying",
            Self::Dropping => "Dropping",
            Self::Done => "Done",
            Self::Refused => "Refused",
        }
    }
}
