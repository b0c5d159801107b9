//! `FileConflict`: versions of a file neither of which includes the other.
//!
//! The operator makes and deletes the objects, from what agents report in the status of their `Brick`s
//! ([`ConflictReport`]); a person sets `resolution`, and an agent carries it out. Agents write nothing here.

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

/// The name of the `FileConflict` of a file: that of its volume, which has no dot, and the file's id, 32
/// hexadecimal digits. So all who know of the conflict mean one object.
pub fn conflict_object_name(volume: &str, file: &str) -> String {
    format!("{volume}.{file}")
}

/// How many `FileConflict`s a volume has at most that are open, and as many that are resolved.
pub const MOST_OBJECTS: usize = 100;

/// Versions of a file neither of which includes the other. Made by the operator: at most 100 of a volume that are open, and
/// 100 that are resolved; the count in the volume's status has no bound.
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
    selectable = ".spec.volumeRef.name",
    doc = "Versions of a file neither of which includes the other. Made by the operator: at most 100 of a volume that are open, and 100 that are resolved; the count in the volume's status has no bound.",
    printcolumn(
        name = "Volume",
        type_ = "string",
        json_path = ".spec.volumeRef.name",
        description = "The volume"
    ),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path", description = "The file"),
    printcolumn(
        name = "Versions",
        type_ = "string",
        json_path = ".status.summary",
        description = "Who wrote them, and how large they are"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Whether it is open, waits for a resolution to be carried out, or is resolved"
    ),
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
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Resolved\")].message",
        priority = 1,
        description = "What was done, or what to do"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Age of the object"
    ),
    validation = Rule::new("self.metadata.name.startsWith(self.spec.volumeRef.name + '.') && self.metadata.name.matches('[.][0-9a-f]{32}$')").message("a FileConflict is named VOLUME.FILE-ID; they are made by the operator: kubectl get wfc lists them, and only spec.resolution is yours to set"),
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.volumeRef == oldSelf.volumeRef && self.path == oldSelf.path",
    "message": "volumeRef and path of a FileConflict cannot be changed: only resolution can"
}]))]
pub struct FileConflictSpec {
    /// The volume.
    pub volume_ref: LocalRef,
    /// The file as it was called when the object was made, from the volume's root, without a leading slash.
    #[schemars(length(min = 1, max = 4096))]
    pub path: String,
    /// What is done: `KeepBoth`, `Newest`, `Largest`, or `Brick/NAME` for the version that was written at that brick, or on
    /// that workstation. Another value later takes another version, as long as it is kept (the volume's
    /// `versionRetention`); without a value what was done stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 260), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^(KeepBoth|Newest|Largest|Brick/.+)$')",
        "message": "resolution is KeepBoth, Newest, Largest or Brick/NAME"
    }]))]
    pub resolution: Option<String>,
}

/// How far a conflict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConflictPhase {
    /// A person is to choose.
    Open,
    /// A resolution is to be carried out; the condition `Resolved` says what it waits for.
    Resolving,
    /// It was carried out.
    Resolved,
}

/// What is known of a conflict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FileConflictStatus {
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<ConflictPhase>,
    /// The versions, for `kubectl get`: who wrote them, and how large they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The versions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<FileVersion>,
    /// When it was resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Time>,
    /// The resolution that was carried out last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// The brick that carried it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    /// The spec's generation to which this status refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Resolved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One version of a file in conflict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FileVersion {
    /// Name of a brick that holds it: of the one on which it was written, if that does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brick: Option<String>,
    /// Where it is in the tree, if it is not the one that has the file's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its modification time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<Time>,
    /// BLAKE3, in hexadecimal digits, once somebody has read all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The workstation on which it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// That a person chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<bool>,
}

/// What one agent says of one conflict, in the status of its `Brick`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["file"]))]
pub struct ConflictReport {
    /// The file's id: 32 hexadecimal digits.
    pub file: String,
    /// The file, from the volume's root.
    pub path: String,
    /// Whether it is open.
    pub open: bool,
    /// The versions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<FileVersion>,
    /// The last resolution that was carried out on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carried_out: Option<CarriedOut>,
    /// Why the one that is wanted is not, as far as this agent tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hindrance: Option<String>,
}

/// A resolution that was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["made", "generation"]))]
pub struct CarriedOut {
    /// When the `FileConflict` was made: seconds since 1970.
    pub made: i64,
    /// The generation of its spec.
    pub generation: i64,
    /// What it said.
    pub resolution: String,
    /// By the agent of this brick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

impl FileConflict {
    /// The file's id, as its name has it: 32 hexadecimal digits.
    pub fn file(&self) -> Option<&str> {
        let name = self.metadata.name.as_deref()?;
        let file = name.strip_prefix(&self.spec.volume_ref.name)?.strip_prefix('.')?;
        (file.len() == 32 && file.bytes().all(|b| b.is_ascii_hexdigit())).then_some(file)
    }

    /// When it was made: seconds since 1970. One that was made anew is another.
    pub fn made(&self) -> Option<i64> {
        self.metadata.creation_timestamp.as_ref().map(|at| at.0.as_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_object_says_which_file_it_is() {
        let file = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        let spec = FileConflictSpec { volume_ref: LocalRef::new("home"), ..FileConflictSpec::default() };
        let of = |name: &str| FileConflict::new(name, spec.clone());
        assert_eq!(of(&conflict_object_name("home", file)).file(), Some(file));
        for other in ["home", "home.", "home.1", "homes.0f1e2d3c4b5a69788796a5b4c3d2e1f0", "c1"] {
            assert_eq!(of(other).file(), None, "{other}");
        }
    }
}
