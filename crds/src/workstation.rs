//! `Workstation`: a cluster node with a brick-agent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pending::Pending;
use crate::schedule::TimeWindow;

/// A cluster node with a brick-agent; made by the operator for each member of a volume.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nearbrick.io",
    version = "v1alpha1",
    kind = "Workstation",
    plural = "workstations",
    shortname = "wsn",
    category = "nearbrick",
    status = "WorkstationStatus",
    derive = "PartialEq",
    doc = "A cluster node with a brick-agent; made by the operator for each member of a volume.",
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "Online, Away or Lost"
    ),
    printcolumn(
        name = "Safe-To-Leave",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"SafeToLeave\")].status",
        description = "Whether it can be switched off without taking the only copy of anything with it"
    ),
    printcolumn(
        name = "Last-Seen",
        type_ = "date",
        json_path = ".status.lastSeen",
        description = "Time since its agent last reported"
    ),
    printcolumn(
        name = "Bricks",
        type_ = "integer",
        json_path = ".status.bricks",
        description = "Bricks in use there"
    ),
    printcolumn(
        name = "Pending-Out",
        type_ = "integer",
        json_path = ".status.pendingOut.files",
        description = "Files whose newest data others still lack"
    ),
    printcolumn(
        name = "Pending-Bytes",
        type_ = "integer",
        json_path = ".status.pendingOut.bytes",
        description = "Bytes that others still lack"
    ),
    printcolumn(
        name = "Size",
        type_ = "string",
        json_path = ".status.pendingOut.size",
        description = "The bytes that others still lack, as a person reads them"
    ),
    printcolumn(
        name = "Oldest",
        type_ = "date",
        json_path = ".status.pendingOut.oldestSince",
        description = "Age of the oldest file that others still lack"
    ),
    printcolumn(
        name = "Evicted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Evicted\")].status",
        priority = 1,
        description = "Whether nothing has to be held there any more; only where an eviction is requested"
    ),
    printcolumn(
        name = "Online",
        type_ = "string",
        json_path = ".status.onlineShare.shown",
        priority = 1,
        description = "How much of the time it is online, when it last came or went"
    ),
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".status.address",
        priority = 1,
        description = "Where its agent is reached"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.agentVersion",
        priority = 1,
        description = "Version of its agent"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Age of the object"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct WorkstationSpec {
    /// A person's word that this workstation will not return: what it had to hold is held by others instead. If it returns
    /// all the same, nothing of it is lost: set it to false then.
    #[serde(default)]
    pub lost: bool,
    /// Asks that nothing has to be held by this workstation any more; the condition Evicted says when that is so.
    #[serde(default)]
    pub eviction_requested: bool,
    /// When it is expected to be off: then its silence is no reason for an alarm, nor to make its copies elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub expected_offline: Vec<TimeWindow>,
    /// Set it to any new value to have its agent report at once; `status.lastTrigger` shows the last value after which it has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub trigger: Option<String>,
}

/// How much of the time a workstation is online.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OnlineShare {
    /// Of a thousand; what was a week ago counts half.
    #[schemars(range(max = 1000))]
    pub per_mille: u32,
    /// The same as a person reads it, for example `83 %`.
    pub shown: String,
    /// When that was so: when it last came or went. Since then it has been what `state` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
}

/// What is known of a workstation: its agent's report, and the operator's judgement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkstationStatus {
    /// The operator's judgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<WorkstationState>,
    /// How much of the time it is online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online_share: Option<OnlineShare>,
    /// When its agent last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// The last `spec.trigger` that its agent had seen when it looked at its bricks for this report: what it says is so since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_trigger: Option<String>,
    /// `host:port` of its agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Version of its agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// Bricks in use there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bricks: Option<u32>,
    /// What others still lack, over all its bricks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_out: Option<Pending>,
    /// The spec's generation to which this status refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, SafeToLeave (agent; Unknown by the operator while the agent is silent), Evicted, SpecActedOn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The operator's judgement of a workstation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkstationState {
    /// Its agent reports.
    Online,
    /// Its agent is silent; it is expected to return.
    Away,
    /// A person said that it will not return: its copies are made elsewhere.
    Lost,
}
