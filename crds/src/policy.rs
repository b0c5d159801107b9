//! `HealPolicy`: when and how volumes are healed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schedule::{CronSchedule, TimeWindow};

/// The interval of a policy that sets neither interval nor cron, and of a volume without a policy.
pub const DEFAULT_INTERVAL: &str = "10m";

/// When and how the volumes that refer to it are healed.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nearbrick.io",
    version = "v1alpha1",
    kind = "HealPolicy",
    plural = "healpolicies",
    shortname = "whp",
    category = "nearbrick",
    namespaced,
    status = "HealPolicyStatus",
    derive = "PartialEq",
    doc = "When and how the volumes that refer to it are healed.",
    printcolumn(
        name = "Schedule",
        type_ = "string",
        json_path = ".status.schedule",
        description = "The schedule in force"
    ),
    printcolumn(
        name = "Paused",
        type_ = "boolean",
        json_path = ".spec.paused",
        description = "Whether heals are held back"
    ),
    printcolumn(
        name = "Volumes",
        type_ = "integer",
        json_path = ".status.volumes",
        description = "Volumes that refer to it"
    ),
    printcolumn(
        name = "Last-Run",
        type_ = "date",
        json_path = ".status.lastRun",
        description = "Time since a job was last made by it"
    ),
    printcolumn(
        name = "Next-Run",
        type_ = "string",
        json_path = ".status.nextRun",
        description = "When the next job is due, if something is pending then"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether its schedule can be followed"
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
        "rule": "!(has(self.interval) && has(self.cron))",
        "message": "set either interval or cron, not both: remove one of them"
    },
    {
        "rule": "!has(self.interval) || !has(self.jitter) || duration(self.jitter) <= duration(self.interval)",
        "message": "jitter is longer than the interval: lower it",
        "fieldPath": ".jitter"
    }
]))]
pub struct HealPolicySpec {
    /// Time between heals, for example `10m`. This is the default, where `cron` is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s')",
        "message": "write an interval of at least one second, such as 30s, 10m or 1h30m"
    }]))]
    pub interval: Option<String>,
    /// Times of heals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<CronSchedule>,
    /// Spreads the heals of several volumes: each volume's times are later than the schedule's by a fixed part of
    /// this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",
        "message": "write a duration such as 30s, 10m or 1h30m"
    }]))]
    pub jitter: Option<String>,
    /// How late a time of the schedule may be kept, if it was missed because no operator was there, or no window
    /// open; after that the next one is waited for. Any time late if it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('10s')",
        "message": "write a deadline of at least ten seconds, such as 30s, 10m or 1h30m"
    }]))]
    pub starting_deadline: Option<String>,
    /// Heals also as soon as nothing was written for this long, for example `5s`; what is written without a
    /// pause is healed at the times of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')",
        "message": "write a pause of one second to one hour, such as 5s"
    }]))]
    pub when_settled: Option<String>,
    /// Holds back heals by this policy. A trigger, and a job made by a person, still run.
    #[serde(default)]
    pub paused: bool,
    /// How many ended jobs are kept for each volume.
    #[serde(default)]
    pub history_limits: HistoryLimits,
    /// How long a file may be pending. A heal starts so early that it is done by then, at the rate of earlier heals;
    /// not while all windows are closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",
        "message": "write a duration such as 30s, 10m or 1h30m"
    }]))]
    pub max_pending_age: Option<String>,
    /// How many bytes may be pending, over all bricks, for example `10Gi`. A heal starts so early that there are not
    /// more, at the rate at which they came; not while all windows are closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        "message": "write a number of bytes such as 10Gi"
    }]))]
    pub max_pending_bytes: Option<String>,
    /// When heals by this policy run: only while one of these is open. What is not copied when it closes waits for the
    /// next. A trigger, and a job made by a person, run at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<TimeWindow>,
    /// Most bytes in a second that each brick takes in a heal, for example `50Mi`; at least 16Ki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        "message": "write bytes in a second, such as 50Mi"
    }]))]
    pub bandwidth: Option<String>,
    /// Most streams that each brick takes side by side in a heal; 4 if it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<u32>,
    /// Which files come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<HealOrder>,
    /// When failed files are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// When each brick looks through all that it holds: whether bytes are as they were written, and whether all holders have
    /// the same. Once a week if it is not set; not while `paused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_schedule: Option<CronSchedule>,
}

/// How many ended jobs are kept for each volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HistoryLimits {
    /// Jobs that completed.
    #[schemars(range(min = 0, max = 100))]
    pub successful: u32,
    /// Jobs that failed.
    #[schemars(range(min = 0, max = 100))]
    pub failed: u32,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { successful: 3, failed: 3 }
    }
}

/// Which files come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HealOrder {
    /// What has waited longest.
    #[default]
    OldestFirst,
    /// What was written last.
    NewestFirst,
    /// The smallest.
    SmallestFirst,
}

/// When failed files are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Tries of a file within one job; 3 if it is not set.
    #[schemars(range(min = 1, max = 100))]
    pub limit: u32,
}

/// What is known of a policy; written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HealPolicyStatus {
    /// The schedule in force, in words: `every 10m`, or the cron fields with the time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// How many volumes refer to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<u32>,
    /// Names of these volumes: the first ten.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_names: Vec<String>,
    /// When a job was last made by it for one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<Time>,
    /// When the next job is due for one of them, if something is pending then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_run: Option<Time>,
    /// The spec's generation to which this status refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, SpecActedOn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
