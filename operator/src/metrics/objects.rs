//! Gauges of what the objects say, taken from them at each scrape, so that what was deleted is gone.
//!
//! Labels are names of namespaces, volumes and nodes, and types of conditions that this version knows: a type that
//! somebody else writes into a status makes no series.

use jiff::Timestamp;
use kube::ResourceExt;
use nearbrick_crds::condition;
use nearbrick_crds::{
    Brick, Condition, HealPolicySpec, Workstation, WorkstationState, WorkstationVolume, quantity,
};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::stores::Stores;

/// Labels: which volume.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VolumeLabels {
    namespace: String,
    volume: String,
}

/// Labels: which condition of which volume.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VolumeConditionLabels {
    namespace: String,
    volume: String,
    condition: &'static str,
}

/// Labels: which condition of which brick.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BrickConditionLabels {
    namespace: String,
    volume: String,
    node: String,
    condition: &'static str,
}

/// Labels: which condition of which workstation.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WorkstationConditionLabels {
    node: String,
    condition: &'static str,
}

/// Label: a workstation's state.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

const OF_VOLUMES: &[&str] = &[
    condition::READY,
    condition::PROTECTED,
    condition::PLACED,
    condition::CONVERGED,
    condition::CONFLICT_FREE,
    condition::VERIFIED,
    condition::SPACE_LEFT,
    condition::SCHEDULED,
    condition::LOSS_BOUNDED,
    condition::RELEASED,
    condition::SPEC_ACTED_ON,
];

const OF_BRICKS: &[&str] = &[
    condition::READY,
    condition::REMOVALS_FOLLOWED,
    condition::JOURNALS_FOLLOWED,
    condition::SPACE_LEFT,
    condition::RELEASED,
];

const OF_WORKSTATIONS: &[&str] =
    &[condition::READY, condition::SAFE_TO_LEAVE, condition::EVICTED, condition::SPEC_ACTED_ON];

/// The reason of `Verified` where a brick did not look in time.
const OVERDUE: &str = "Overdue";

#[derive(Clone, Default)]
pub(super) struct Objects {
    pending_files: Family<VolumeLabels, Gauge>,
    pending_bytes: Family<VolumeLabels, Gauge>,
    oldest_pending: Family<VolumeLabels, Gauge>,
    max_pending_age: Family<VolumeLabels, Gauge>,
    max_pending_bytes: Family<VolumeLabels, Gauge>,
    conflicts: Family<VolumeLabels, Gauge>,
    last_heal: Family<VolumeLabels, Gauge>,
    last_verified: Family<VolumeLabels, Gauge>,
    overdue: Family<VolumeLabels, Gauge>,
    volumes: Family<VolumeConditionLabels, Gauge>,
    bricks: Family<BrickConditionLabels, Gauge>,
    workstation: Family<WorkstationConditionLabels, Gauge>,
    workstations: Family<StateLabel, Gauge>,
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// As a number: 1 it holds, 0 it does not, -1 it is not known.
fn holds(condition: &Condition) -> i64 {
    match condition.status.as_str() {
        "True" => 1,
        "False" => 0,
        _ => -1,
    }
}

fn known<'a>(
    conditions: &'a [Condition],
    types: &'static [&'static str],
) -> impl Iterator<Item = (&'static str, i64)> + 'a {
    types.iter().filter_map(|t| Some((*t, holds(condition::find(conditions, t)?))))
}

impl Objects {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("volume_pending_files", "Copies that are still to be made", self.pending_files.clone());
        let bytes = |r: &mut Registry, name, help, family: &Family<VolumeLabels, Gauge>| {
            r.register_with_unit(name, help, Unit::Bytes, family.clone());
        };
        let seconds = |r: &mut Registry, name, help, family: &Family<VolumeLabels, Gauge>| {
            r.register_with_unit(name, help, Unit::Seconds, family.clone());
        };
        bytes(r, "volume_pending", "Bytes that are still to be copied", &self.pending_bytes);
        seconds(r, "volume_oldest_pending", "Age of the oldest pending file", &self.oldest_pending);
        seconds(r, "volume_max_pending_age", "maxPendingAge of the policy", &self.max_pending_age);
        bytes(r, "volume_max_pending", "maxPendingBytes of the policy", &self.max_pending_bytes);
        r.register("volume_conflicts", "Open conflicts", self.conflicts.clone());
        seconds(r, "volume_last_heal_timestamp", "When the last heal job ended, since 1970", &self.last_heal);
        seconds(
            r,
            "volume_last_verified_timestamp",
            "Since when at the latest all bytes are known to be right, since 1970",
            &self.last_verified,
        );
        r.register(
            "volume_verification_overdue",
            "1 if a brick did not look through what it holds in time",
            self.overdue.clone(),
        );
        r.register(
            "volume_condition",
            "Conditions of volumes: 1 True, 0 False, -1 Unknown",
            self.volumes.clone(),
        );
        r.register(
            "brick_condition",
            "Conditions of bricks: 1 True, 0 False, -1 Unknown",
            self.bricks.clone(),
        );
        r.register(
            "workstation_condition",
            "Conditions of workstations: 1 True, 0 False, -1 Unknown",
            self.workstation.clone(),
        );
        r.register("workstations", "Workstations, by state", self.workstations.clone());
    }

    pub(super) fn clear(&self) {
        for family in [
            &self.pending_files,
            &self.pending_bytes,
            &self.oldest_pending,
            &self.max_pending_age,
            &self.max_pending_bytes,
            &self.conflicts,
            &self.last_heal,
            &self.last_verified,
            &self.overdue,
        ] {
            family.clear();
        }
        self.volumes.clear();
        self.bricks.clear();
        self.workstation.clear();
        self.workstations.clear();
    }

    pub(super) fn fill(&self, stores: &Stores, now: Timestamp) {
        for volume in stores.volumes.state() {
            self.volume(&volume, stores.policy_of(&volume).as_deref().map(|p| &p.spec), now);
        }
        for brick in stores.bricks.state() {
            self.brick(&brick);
        }
        for workstation in stores.workstations.state() {
            self.workstation(&workstation);
        }
    }

    fn volume(&self, volume: &WorkstationVolume, policy: Option<&HealPolicySpec>, now: Timestamp) {
        let labels =
            VolumeLabels { namespace: volume.namespace().unwrap_or_default(), volume: volume.name_any() };
        let set = |family: &Family<VolumeLabels, Gauge>, value| {
            family.get_or_create(&labels).set(value);
        };
        // What cannot be read is said by the condition Scheduled, and is no limit.
        let age = policy.and_then(|p| p.max_pending_age.as_deref()?.parse::<kube::core::Duration>().ok());
        if let Some(age) = age {
            set(&self.max_pending_age, int(std::time::Duration::from(age).as_secs()));
        }
        if let Some(bytes) = policy.and_then(|p| quantity::bytes(p.max_pending_bytes.as_deref()?)) {
            set(&self.max_pending_bytes, int(bytes));
        }
        let Some(status) = &volume.status else { return };
        if let Some(p) = &status.pending {
            set(&self.pending_files, int(p.files));
            set(&self.pending_bytes, int(p.bytes));
            let oldest = p.oldest_since.as_ref();
            let age = oldest.map_or(0, |t| now.as_second().saturating_sub(t.0.as_second()).max(0));
            set(&self.oldest_pending, age);
        }
        if let Some(conflicts) = status.conflicts {
            set(&self.conflicts, int(conflicts));
        }
        if let Some(at) = &status.last_heal_time {
            set(&self.last_heal, at.0.as_second());
        }
        if let Some(at) = &status.last_verified_time {
            set(&self.last_verified, at.0.as_second());
        }
        if let Some(verified) = condition::find(&status.conditions, condition::VERIFIED) {
            let overdue = verified.status == "False" && verified.reason == OVERDUE;
            set(&self.overdue, i64::from(overdue));
        }
        for (condition, value) in known(&status.conditions, OF_VOLUMES) {
            let VolumeLabels { namespace, volume } = labels.clone();
            self.volumes.get_or_create(&VolumeConditionLabels { namespace, volume, condition }).set(value);
        }
    }

    fn brick(&self, brick: &Brick) {
        let Some(status) = &brick.status else { return };
        for (condition, value) in known(&status.conditions, OF_BRICKS) {
            let labels = BrickConditionLabels {
                namespace: brick.namespace().unwrap_or_default(),
                volume: brick.spec.volume_ref.name.clone(),
                node: brick.spec.node.clone(),
                condition,
            };
            self.bricks.get_or_create(&labels).set(value);
        }
    }

    fn workstation(&self, workstation: &Workstation) {
        let status = workstation.status.as_ref();
        let state = match status.and_then(|s| s.state) {
            Some(WorkstationState::Online) => "Online",
            Some(WorkstationState::Away) => "Away",
            Some(WorkstationState::Lost) => "Lost",
            None => "Unknown",
        };
        self.workstations.get_or_create(&StateLabel { state }).inc();
        for (condition, value) in known(status.map_or(&[], |s| &s.conditions), OF_WORKSTATIONS) {
            let labels = WorkstationConditionLabels { node: workstation.name_any(), condition };
            self.workstation.get_or_create(&labels).set(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use serde_json::{Value, json};

    use super::*;

    fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: Value, status: Value) -> K {
        serde_json::from_value(json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": kind,
            "metadata": { "name": name, "namespace": "lab" }, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn said(type_: &str, status: &str, reason: &str) -> Value {
        json!({ "type": type_, "status": status, "reason": reason, "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
    }

    fn text(objects: &Objects) -> String {
        let mut registry = Registry::with_prefix("nearbrick_operator");
        objects.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn ages_are_of_now_beside_the_limits_of_the_policy() {
        let objects = Objects::default();
        let status = json!({
            "pending": { "files": 2, "bytes": 10, "oldestSince": "2026-01-01T00:00:00Z" }, "conflicts": 1,
            "lastVerifiedTime": "1970-01-01T00:01:00Z",
            "conditions": [said("Verified", "False", "Overdue"), said("Protected", "Unknown", "AgentSilent")],
        });
        let volume = object("WorkstationVolume", "home", json!({ "members": { "nodes": ["a"] } }), status);
        let policy = HealPolicySpec {
            max_pending_age: Some("1h".into()),
            max_pending_bytes: Some("1Ki".into()),
            ..HealPolicySpec::default()
        };
        objects.volume(&volume, Some(&policy), "2026-01-01T02:00:00Z".parse().unwrap());
        let of = r#"{namespace="lab",volume="home"}"#;
        let text = text(&objects);
        for line in [
            format!("nearbrick_operator_volume_oldest_pending_seconds{of} 7200"),
            format!("nearbrick_operator_volume_max_pending_age_seconds{of} 3600"),
            format!("nearbrick_operator_volume_max_pending_bytes{of} 1024"),
            format!("nearbrick_operator_volume_pending_bytes{of} 10"),
            format!("nearbrick_operator_volume_last_verified_timestamp_seconds{of} 60"),
            format!("nearbrick_operator_volume_verification_overdue{of} 1"),
            r#"nearbrick_operator_volume_condition{namespace="lab",volume="home",condition="Protected"} -1"#
                .into(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn conditions_that_nobody_knows_and_objects_that_are_gone_make_no_series() {
        let objects = Objects::default();
        let conditions = json!([said("SpaceLeft", "False", "DiskFull"), said("../secret.txt", "True", "x")]);
        let spec = json!({ "volumeRef": { "name": "home" }, "volumeUuid": "v", "node": "ws-a", "uuid": "u" });
        objects.brick(&object("Brick", "home.ws-a", spec, json!({ "conditions": conditions })));
        objects.workstation(&object(
            "Workstation",
            "ws-a",
            json!({}),
            json!({ "state": "Away", "conditions": [said("SafeToLeave", "True", "AllCopied")] }),
        ));
        let full = text(&objects);
        for line in [
            r#"nearbrick_operator_brick_condition{namespace="lab",volume="home",node="ws-a",condition="SpaceLeft"} 0"#,
            r#"nearbrick_operator_workstation_condition{node="ws-a",condition="SafeToLeave"} 1"#,
            r#"nearbrick_operator_workstations{state="Away"} 1"#,
        ] {
            assert!(full.lines().any(|l| l == line), "{line} is not in\n{full}");
        }
        assert!(!full.contains("secret"), "{full}");
        objects.clear();
        assert_eq!(text(&objects), "# EOF\n");
    }
}
