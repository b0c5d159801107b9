//! Last step: the heal's part of the volume's status, under a field manager of its own.

use kube::Resource;
use kube::api::Api;
use nearbrick_crds::condition::{self, Finding, Status};
use nearbrick_crds::meta::{now, whole_second};
use nearbrick_crds::{Condition, WorkstationVolume, WorkstationVolumeStatus};

use super::apply::Applied;
use super::validate::Valid;
use crate::context::{Context, News};
use crate::error::Error;
use crate::patch::{Owned, apply_status};
use crate::plan::due::{Action, Decision};

const OWNED: Owned = Owned {
    manager: "nearbrick-operator-heal",
    fields: &["lastHealTime", "lastScheduleTime", "nextHealTime", "lastTrigger"],
    conditions: &[condition::SCHEDULED, condition::LOSS_BOUNDED],
};

/// Writes it, if it says something new.
pub async fn write(
    context: &Context,
    volume: &WorkstationVolume,
    valid: &Valid,
    decision: &Decision,
    applied: Applied,
) -> Result<(), Error> {
    let before: &[Condition] = volume.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let last_trigger = if applied.trigger_done {
        valid.trigger.clone()
    } else {
        volume.status.as_ref().and_then(|s| s.last_trigger.clone())
    };
    let findings: Vec<Finding> = std::iter::once(&valid.scheduled).chain(&valid.bounded).cloned().collect();
    let status = WorkstationVolumeStatus {
        last_schedule_time: applied.scheduled.max(valid.last_schedule).map(whole_second),
        last_heal_time: valid.last_heal.map(whole_second),
        // While a job is being made for it, the time that has come is not the next one.
        next_heal_time: decision
            .next
            .filter(|_| !matches!(decision.action, Action::Create { .. }))
            .map(whole_second),
        last_trigger,
        conditions: condition::conditions(before, &findings, valid.generation, &now()),
        ..WorkstationVolumeStatus::default()
    };
    let api: Api<WorkstationVolume> = Api::namespaced(context.client.clone(), &valid.namespace);
    if apply_status(&api, volume, &status, &OWNED).await? {
        context.metrics.wrote("heal");
        for Finding { reason, message, .. } in findings.iter().filter(|f| is_news(before, f)) {
            let news =
                News { warning: true, reason, action: "Schedule", note: message.clone(), related: None };
            context.tell(&volume.object_ref(&()), news).await;
        }
    }
    Ok(())
}

/// That heals stopped is news, unless a person paused them; and that more may be lost than the policy allows.
fn is_news(before: &[Condition], finding: &Finding) -> bool {
    let old = condition::find(before, finding.type_);
    finding.status == Status::False
        && finding.reason != "Paused"
        && old.is_none_or(|o| o.reason != finding.reason)
}
