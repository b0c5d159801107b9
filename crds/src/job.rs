//! `HealJob`: one run of copying what is pending in a volume.
//!
//! The operator writes the aggregate; each target's agent writes its own entry of `transfers`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::LocalRef;
use crate::policy::{HealOrder, Retry};

/// One run of copying what is pending in a volume; made by the operator, or by a person.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nearbrick.io",
    version = "v1alpha1",
    kind = "HealJob",
    plural = "healjobs",
    shortname = "whj",
    category = "nearbrick",
    namespaced,
    status = "HealJobStatus",
    derive = "PartialEq",
    selectable = ".spec.volumeRef.name",
    doc = "One run of copying what is pending in a volume; made by the operator, or by a person.",
    printcolumn(
        name = "Volume",
        type_ = "string",
        json_path = ".spec.volumeRef.name",
        description = "The volume that is healed"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".spec.reason",
        description = "Why the job was made"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "How far it is"
    ),
    printcolumn(
        name = "Done",
        type_ = "integer",
        json_path = ".status.files.done",
        description = "Files copied"
    ),
    printcolumn(
        name = "Total",
        type_ = "integer",
        json_path = ".status.files.total",
        description = "Files to copy"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.files.failed",
        description = "Files that could not be copied"
    ),
    printcolumn(
        name = "Bytes-Done",
        type_ = "integer",
        json_path = ".status.bytes.done",
        description = "Bytes copied"
    ),
    printcolumn(
        name = "Bytes-Total",
        type_ = "integer",
        json_path = ".status.bytes.total",
        description = "Bytes to copy"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress",
        description = "Bytes and rate as a person reads them"
    ),
    printcolumn(
        name = "ETA-Seconds",
        type_ = "integer",
        json_path = ".status.etaSeconds",
        description = "Seconds that are left at the present rate"
    ),
    printcolumn(
        name = "Failures",
        type_ = "string",
        json_path = ".status.failures",
        description = "Why files could not be copied: how many for each reason"
    ),
    printcolumn(
        name = "Started",
        type_ = "date",
        json_path = ".status.startedAt",
        description = "Time since it started"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1,
        description = "What happened, in one line"
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
    "rule": "self.volumeRef == oldSelf.volumeRef",
    "message": "volumeRef of a HealJob cannot be changed: make a new HealJob",
    "fieldPath": ".volumeRef"
}]))]
pub struct HealJobSpec {
    /// The volume.
    pub volume_ref: LocalRef,
    /// Why the job was made.
    #[serde(default)]
    pub reason: JobReason,
    /// Names of the bricks that receive. All bricks that lack something, if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-validations" = [{
            "rule": "self == oldSelf",
            "message": "targetBricks of a HealJob cannot be changed: make a new HealJob"
        }])
    )]
    pub target_bricks: Vec<String>,
    /// Name of the only brick to copy from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub source_brick: Option<String>,
    /// When it stops, whatever is left then: the end of the policy's window. As long as it takes if it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Globs of the only paths to copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub paths: Vec<String>,
    /// Most bytes in a second that each target takes, for example `50Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        "message": "write bytes in a second, such as 50Mi"
    }]))]
    pub bandwidth: Option<String>,
    /// Most streams side by side to each target; 4 if it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<u32>,
    /// Which files come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<HealOrder>,
    /// When failed files are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// Why a job was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JobReason {
    /// By the policy's schedule.
    Scheduled,
    /// By the policy: nothing was written for as long as its `whenSettled` says.
    Settled,
    /// By the policy, early: its `maxPendingAge` would not hold otherwise.
    MaxPendingAge,
    /// By the policy, early: its `maxPendingBytes` would not hold otherwise.
    MaxPendingBytes,
    /// By a new value of the volume's `spec.trigger`.
    Trigger,
    /// By a `ReplicaMigration`: the brick that joins receives its files.
    Migration,
    /// By a person who made the object.
    #[default]
    Manual,
}

impl JobReason {
    /// Whether the policy made it, and nobody asked for it.
    pub fn is_by_policy(self) -> bool {
        match self {
            Self::Scheduled | Self::Settled | Self::MaxPendingAge | Self::MaxPendingBytes => true,
            Self::Trigger | Self::Migration | Self::Manual => false,
        }
    }

    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Settled => "Settled",
            Self::MaxPendingAge => "MaxPendingAge",
            Self::MaxPendingBytes => "MaxPendingBytes",
            Self::Trigger => "Trigger",
            Self::Migration => "Migration",
            Self::Manual => "Manual",
        }
    }
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HealJobStatus {
    /// How far it is; written by the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<JobPhase>,
    /// The bricks for which the job waits, as the operator found them when it first saw the job.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Sum over the transfers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<JobFiles>,
    /// Sum over the transfers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<JobBytes>,
    /// Sum of the running transfers' rates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Longest of the running transfers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// Bytes and rate as a person reads them: `12.0 MiB of 214.3 MiB, 80.1 MiB/s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Why files could not be copied, how many for each reason: `2 NoSpace, 1 Busy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<String>,
    /// When the first transfer started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the job ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// What happened, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// One entry for each target; each written by the agent of that target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["target"]))]
    pub transfers: Vec<Transfer>,
    /// The spec's generation to which this status refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// SpecActedOn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JobPhase {
    /// No transfer has started.
    #[default]
    Pending,
    /// At least one transfer has started, and not all have ended.
    Running,
    /// All transfers have ended, and something was copied or nothing was left to copy.
    Completed,
    /// All transfers have ended, and nothing was copied.
    Failed,
}

impl JobPhase {
    /// Whether nothing more will happen.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// Counts of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobFiles {
    /// Copied.
    pub done: u64,
    /// To copy.
    pub total: u64,
    /// Could not be copied.
    pub failed: u64,
}

/// Counts of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobBytes {
    /// Copied.
    pub done: u64,
    /// To copy.
    pub total: u64,
}

/// What one target receives; written by its agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["target"]))]
pub struct Transfer {
    /// Name of the receiving brick.
    pub target: String,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<TransferPhase>,
    /// Files to copy.
    pub files_total: u64,
    /// Files copied.
    pub files_done: u64,
    /// Files that could not be copied.
    pub files_failed: u64,
    /// Bytes to copy.
    pub bytes_total: u64,
    /// Bytes copied.
    pub bytes_done: u64,
    /// Present rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Seconds that are left at this rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// Failures, one entry for each reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<TransferFailure>,
    /// When it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransferPhase {
    /// It copies.
    #[default]
    Running,
    /// It ended, with or without failures.
    Completed,
    /// It ended without having copied anything that it should.
    Failed,
}

/// Failures of one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TransferFailure {
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// How many files.
    pub count: u64,
    /// One example, in one line.
    pub message: String,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Time>,
}

/// Why a file was not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum FailureReason {
    /// No holder could be reached, or the target was away.
    Unreachable,
    /// The target's disk is full.
    NoSpace,
    /// The target may not write it.
    Permission,
    /// Both sides changed it.
    Conflict,
    /// It is open for writing at the target.
    Busy,
    /// It changed at the source while it was read.
    SourceChanged,
    /// What arrived does not have the right hash.
    Corrupt,
}

impl FailureReason {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::NoSpace => "NoSpace",
            Self::Permission => "Permission",
            Self::Conflict => "Conflict",
            Self::Busy => "Busy",
            Self::SourceChanged => "SourceChanged",
            Self::Corrupt => "Corrupt",
        }
    }
}
