//! `ReplicaMigration`: a move of a group of files towards the workstation that uses them.
//!
//! Not acted on yet: the operator says so in the condition `SpecActedOn` of each object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::LocalRef;

/// A move of a group of files from one brick to another. Not acted on yet.
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
    doc = "A move of a group of files from one brick to another. Not acted on yet.",
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
        json_path = ".spec.from",
        description = "The brick that leaves"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "How far it is"
    ),
    printcolumn(
        name = "Acted-On",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"SpecActedOn\")].status",
        description = "Whether this version acts on it"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1,
        description = "The reason, in one line"
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
    /// Name of the brick that leaves it.
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
    /// The reason, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The spec's generation to which this status refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// SpecActedOn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
