//! The controller of heal policies: says whether a policy can be followed, who uses it, and when it
//! acts next.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use nearbrick_crds::condition::{self, Finding, Status};
use nearbrick_crds::meta::{OPERATOR_MANAGER, now};
use nearbrick_crds::timetable::Timetable;
use nearbrick_crds::unacted::Unacted;
use nearbrick_crds::verifying::Verifying;
use nearbrick_crds::{HealPolicy, HealPolicyStatus, Time, WorkstationVolume};

use crate::context::{Context, News};
use crate::error::Error;
use crate::patch::{Owned, apply_status};
use crate::plan::volume::unacted_finding;
use crate::stores::Stores;

const OWNED: Owned = Owned {
    manager: OPERATOR_MANAGER,
    fields: &["schedule", "volumes", "volumeNames", "lastRun", "nextRun", "observedGeneration"],
    conditions: &[condition::READY, condition::SPEC_ACTED_ON],
};

/// Brings a policy's status in line with what is.
pub async fn reconcile(policy: Arc<HealPolicy>, context: Arc<Context>) -> Result<Action, Error> {
    let before = policy.status.clone().unwrap_or_default();
    let volumes = volumes_of(&context.stores, &policy);
    // What it says does not depend on the volume.
    let parsed = Timetable::of(Some(&policy.spec), Timestamp::UNIX_EPOCH, "");
    let verifying = Verifying::of(Some(&policy.spec), Timestamp::UNIX_EPOCH, "");
    let error =
        parsed.as_ref().err().cloned().or_else(|| Some(format!("verifySchedule: {}", verifying.err()?)));
    let findings = [ready(&policy, error.as_ref()), unacted_finding(&policy.spec.unacted())];
    let mut names: Vec<String> = volumes.iter().map(|v| v.name_any()).collect();
    names.sort();
    names.truncate(10);
    let status = HealPolicyStatus {
        schedule: parsed.as_ref().ok().map(Timetable::describe),
        volumes: Some(u32::try_from(volumes.len()).unwrap_or(u32::MAX)),
        volume_names: names,
        // A job that was deleted since does not make the last run unknown.
        last_run: last_run(&context.stores, &volumes).max(before.last_run),
        next_run: volumes.iter().filter_map(|v| v.status.as_ref()?.next_heal_time.clone()).min(),
        observed_generation: policy.metadata.generation,
        conditions: condition::conditions(&before.conditions, &findings, policy.metadata.generation, &now()),
    };
    let api: Api<HealPolicy> =
        Api::namespaced(context.client.clone(), &policy.namespace().unwrap_or_default());
    if apply_status(&api, &policy, &status, &OWNED).await? {
        context.metrics.wrote("policy");
        let [ready, _] = &findings;
        let known = condition::find(&before.conditions, condition::READY)
            .is_some_and(|c| c.reason == ready.reason && c.message == ready.message);
        if ready.reason == "InvalidSchedule" && !known {
            let note = ready.message.clone();
            let news = News { warning: true, reason: ready.reason, action: "Schedule", note, related: None };
            context.tell(&policy.object_ref(&()), news).await;
        }
    }
    Ok(Action::await_change())
}

fn ready(policy: &HealPolicy, error: Option<&String>) -> Finding {
    let finding = |status, reason, line: &str| Finding::new(condition::READY, status, reason, line);
    match error {
        Some(line) => finding(Status::False, "InvalidSchedule", line),
        None if policy.spec.paused => finding(
            Status::False,
            "Paused",
            "spec.paused is true: heals by schedule are held back until it is false",
        ),
        None => finding(Status::True, "Scheduled", "the schedule is followed"),
    }
}

fn volumes_of(stores: &Stores, policy: &HealPolicy) -> Vec<Arc<WorkstationVolume>> {
    let (namespace, name) = (policy.namespace(), policy.name_any());
    stores.volumes.state_filter(|v| {
        v.namespace() == namespace && v.spec.heal_policy_ref.as_ref().is_some_and(|r| r.name == name)
    })
}

/// When a job was last made by the policy for one of these volumes.
fn last_run(stores: &Stores, volumes: &[Arc<WorkstationVolume>]) -> Option<Time> {
    stores
        .jobs
        .state_filter(|j| {
            j.spec.reason.is_by_policy()
                && volumes.iter().any(|v| {
                    v.metadata.namespace == j.metadata.namespace
                        && v.metadata.name.as_deref() == Some(&j.spec.volume_ref.name)
                })
        })
        .iter()
        .filter_map(|j| j.creation_timestamp())
        .max()
}
