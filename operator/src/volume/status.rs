//! Last step: the status, and an Event where a person must notice a change.

use kube::Resource;
use kube::api::Api;
use nearbrick_crds::condition::{self, Finding, Status};
use nearbrick_crds::meta::{OPERATOR_MANAGER, now};
use nearbrick_crds::{Condition, Time, WorkstationVolume, WorkstationVolumeStatus};

use super::build::Built;
use super::validate::Valid;
use crate::context::{Context, News};
use crate::error::Error;
use crate::patch::{Owned, apply_status};

const OWNED: Owned = Owned {
    manager: OPERATOR_MANAGER,
    fields: &[
        "phase",
        "health",
        "files",
        "bytes",
        "pending",
        "conflicts",
        "usedOn",
        "lastVerifiedTime",
        "placement",
        "observedGeneration",
    ],
    conditions: &[
        condition::READY,
        condition::PROTECTED,
        condition::PLACED,
        condition::CONVERGED,
        condition::CONFLICT_FREE,
        condition::VERIFIED,
        condition::SPACE_LEFT,
        condition::RELEASED,
        condition::SPEC_ACTED_ON,
    ],
};

/// Writes it, if it says something new.
pub async fn write(
    context: &Context,
    volume: &WorkstationVolume,
    valid: &Valid,
    built: &Built,
) -> Result<(), Error> {
    let before: &[Condition] = volume.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let summary = &built.summary;
    let status = WorkstationVolumeStatus {
        phase: Some(summary.phase),
        health: Some(summary.health),
        files: summary.files,
        bytes: summary.bytes,
        pending: summary.pending.map(|p| p.to_api()),
        conflicts: summary.conflicts,
        used_on: built.used_on.clone(),
        last_verified_time: summary.last_verified.map(Time),
        placement: built.placement.clone(),
        observed_generation: valid.generation,
        conditions: condition::conditions(before, &summary.findings, valid.generation, &now()),
        // Written by the heal controller, under its own field manager.
        last_heal_time: None,
        last_schedule_time: None,
        next_heal_time: None,
        last_trigger: None,
    };
    let api: Api<WorkstationVolume> = Api::namespaced(context.client.clone(), &valid.namespace);
    if apply_status(&api, volume, &status, &OWNED).await? {
        context.metrics.wrote("volume");
        for finding in &summary.findings {
            if is_news(before, finding) {
                let news = News {
                    warning: finding.status != Status::True,
                    reason: finding.reason,
                    action: "Reconcile",
                    note: format!("{}: {}", finding.type_, finding.message),
                    related: None,
                };
                context.tell(&volume.object_ref(&()), news).await;
            }
        }
    }
    Ok(())
}

/// What a person must notice: that a volume cannot be used as asked, and that this is over; that a
/// conflict came up; that a copy is damaged; that a field is not acted on. That copies are pending is everyday life.
fn is_news(before: &[Condition], finding: &Finding) -> bool {
    let old = condition::find(before, finding.type_);
    let changed = old.is_none_or(|o| o.status != finding.status.as_str() || o.reason != finding.reason);
    let was_bad = old.is_some_and(|o| o.status == "False");
    let quiet = matches!(finding.reason, "BrickStarting");
    match finding.type_ {
        condition::READY | condition::CONFLICT_FREE | condition::VERIFIED | condition::SPACE_LEFT => {
            changed
                && !quiet
                && (finding.status == Status::False || (was_bad && finding.status == Status::True))
        }
        condition::SPEC_ACTED_ON => changed && finding.status == Status::False,
        _ => false,
    }
}
