//! `FileConflict`: two versions of a file neither of which includes the other.
//!
//! Not acted on yet: the operator says so in the condition `SpecActedOn` of each object.

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::LocalRef;

/// What happens to versions of a file neither of which includes the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConflictPolicy {
    /// One keeps the name, the others become files beside it.
    #[default]
    KeepBoth,
    /// The one with the latest modification time wins.
    Newest,
    /// The longest one wins.
    Largest,
    /// The one that was written at this brick, or on this workstation, wins.
    Brick(String),
    /// A person decides.
    Manual,
}

impl FromStr for ConflictPolicy {
    /// One line for a person.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "KeepBoth" => Ok(Self::KeepBoth),
            "Newest" => Ok(Self::Newest),
            "Largest" => Ok(Self::Largest),
            "Manual" => Ok(Self::Manual),
            _ => match text.strip_prefix("Brick/").filter(|name| !name.is_empty()) {
                Some(name) => Ok(Self::Brick(name.to_owned())),
                None => {
                    let text: String = text.chars().take(80).collect();
                    Err(format!(
                        "{text:?} is no policy: write KeepBoth, Newest, Largest, Manual or Brick/NAME"
                    ))
                }
            },
        }
    }
}

/// Two versions of a file neither of which includes the other. Not acted on yet.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nearbrick.io",
    version = "v1alpha1",
    kind = "FileConflict",
    plural = "fileconflicts",
    shortname = "wfc",
    category = "nearbrick",
    namespaced,
    status = "FileConflictStatus",
    derive = "PartialEq",
    doc = "Two versions of a file neither of which includes the other. Not acted on yet.",
    printcolumn(
        name = "Volume",
        type_ = "string",
        json_path = ".spec.volumeRef.name",
        description = "The volume"
    ),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path", description = "The file"),
    printcolumn(
        name = "Resolution",
        type_ = "string",
        json_path = ".spec.resolution",
        description = "What a person chose"
    ),
    printcolumn(
        name = "Resolved",
        type_ = "date",
        json_path = ".status.resolvedAt",
        description = "Time since it was resolved"
    ),
    printcolumn(
        name = "Acted-On",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"SpecActedOn\")].status",
        description = "Whether this version acts on it"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Age of the object"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.volumeRef == oldSelf.volumeRef && self.path == oldSelf.path",
    "message": "volumeRef and path of a FileConflict cannot be changed: only resolution can"
}]))]
pub struct FileConflictSpec {
    /// The volume.
    pub volume_ref: LocalRef,
    /// The file, from the volume's root, without a leading slash.
    #[schemars(length(min = 1, max = 4096))]
    pub path: String,
    /// What is done: `KeepBoth`, `Newest`, `Largest`, or `Brick/NAME` for the version of that brick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 260), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^(KeepBoth|Newest|Largest|Brick/.+)$')",
        "message": "resolution is KeepBoth, Newest, Largest or Brick/NAME"
    }]))]
    pub resolution: Option<String>,
}

/// What is known of a conflict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FileConflictStatus {
    /// The versions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<FileVersion>,
    /// When it was resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Time>,
    /// The spec's generation to which this status refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// SpecActedOn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One version of a file in conflict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FileVersion {
    /// Name of the brick that holds it.
    pub brick: String,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its modification time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<Time>,
    /// BLAKE3, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The workstation on which it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
}
