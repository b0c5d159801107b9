//! The operator's part of a workstation's status; and of its bricks', while the agent is silent.
//!
//! The agent writes Ready and SafeToLeave itself. When it falls silent, the operator takes these over
//! and says Unknown; the agent's next report takes them back.

use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use nearbrick_crds::condition::{self, Finding, Status};
use nearbrick_crds::meta::{OPERATOR_MANAGER, now};
use nearbrick_crds::pending::human_files;
use nearbrick_crds::times::Expected;
use nearbrick_crds::unacted::Unacted;
use nearbrick_crds::{Brick, BrickStatus, Condition, Workstation, WorkstationState, WorkstationStatus};
use serde_json::json;

use crate::context::{Context, News};
use crate::error::{Error, is_not_found};
use crate::patch::{Owned, apply_status};
use crate::plan::volume::unacted_finding;
use crate::plan::{evict, share};
use crate::stores::volume_ref;

const ONLINE: Owned = Owned {
    manager: OPERATOR_MANAGER,
    fields: &["state", "onlineShare", "observedGeneration"],
    conditions: &[condition::SPEC_ACTED_ON, condition::EVICTED],
};

const SILENT: Owned = Owned {
    conditions: &[condition::SPEC_ACTED_ON, condition::EVICTED, condition::READY, condition::SAFE_TO_LEAVE],
    ..ONLINE
};

/// Writes it, if it says something new.
pub async fn write(
    context: &Context,
    ws: &Workstation,
    state: WorkstationState,
    expected: &Result<Expected, String>,
) -> Result<(), Error> {
    let before = ws.status.clone().unwrap_or_default();
    let generation = ws.metadata.generation;
    let mut findings = vec![acted_on(ws, expected)];
    if is_to_leave(ws) {
        findings.push(eviction(context, ws, state));
    }
    let silent = state != WorkstationState::Online;
    if silent {
        let (reason, line) = why(&before, state, expected);
        for type_ in [condition::READY, condition::SAFE_TO_LEAVE] {
            findings.push(Finding::new(type_, Status::Unknown, reason, line.clone()));
        }
    }
    // Written when it comes or goes, and not with each report.
    let was_online = before.state == Some(WorkstationState::Online);
    let online_share = match &before.online_share {
        Some(share) if before.state == Some(state) => share.clone(),
        share => share::folded(share.as_ref(), was_online, Timestamp::now()),
    };
    let status = WorkstationStatus {
        state: Some(state),
        online_share: Some(online_share),
        observed_generation: generation,
        conditions: condition::conditions(&before.conditions, &findings, generation, &now()),
        ..WorkstationStatus::default()
    };
    let api: Api<Workstation> = Api::all(context.client.clone());
    let owned = if silent { SILENT } else { ONLINE };
    if apply_status(&api, ws, &status, &owned).await? {
        context.metrics.wrote("workstation");
        tell(context, ws, &before, state, expected).await;
    }
    if silent {
        mark_bricks(context, ws, state, expected).await?;
    }
    Ok(())
}

/// Whether the spec can be followed.
fn acted_on(ws: &Workstation, expected: &Result<Expected, String>) -> Finding {
    match expected {
        Ok(_) => unacted_finding(&ws.spec.unacted()),
        Err(line) => {
            let line = format!("expectedOffline: {line}; until then no time counts as expected");
            Finding::new(condition::SPEC_ACTED_ON, Status::False, "InvalidSchedule", line)
        }
    }
}

/// Whether nothing is to be held there any more: a person asked for that, or deleted the object.
pub fn is_to_leave(ws: &Workstation) -> bool {
    ws.spec.eviction_requested || ws.metadata.deletion_timestamp.is_some()
}

/// How far the eviction is that a person asked for.
fn eviction(context: &Context, ws: &Workstation, state: WorkstationState) -> Finding {
    let node = ws.name_any();
    if state == WorkstationState::Lost {
        let line = "what it held is not waited for: take the node out of the volumes' members, and delete its Bricks";
        return Finding::new(condition::EVICTED, Status::True, "NothingHeld", line);
    }
    if state != WorkstationState::Online {
        let line = "its agent is silent, so what it still holds is not known: switch it on, or set lost";
        return Finding::new(condition::EVICTED, Status::Unknown, "AgentSilent", line);
    }
    let bricks = context.stores.bricks_of_node(&node);
    let views: Vec<evict::View> = bricks
        .iter()
        .map(|brick| {
            let name = brick.name_any();
            let volume =
                context.stores.volumes.get(&volume_ref(brick.namespace(), &brick.spec.volume_ref.name));
            let rules = volume.as_ref().and_then(|v| v.status.as_ref()).map(|s| s.placement.as_slice());
            evict::View::of(&name, &brick.status.clone().unwrap_or_default(), rules.unwrap_or_default())
        })
        .collect();
    evict::evicted(&views)
}

fn why(
    before: &WorkstationStatus,
    state: WorkstationState,
    expected: &Result<Expected, String>,
) -> (&'static str, String) {
    if state == WorkstationState::Lost {
        let line = "spec.lost is true: what it had to hold is held by others; what only it held is gone";
        return ("WorkstationLost", line.to_string());
    }
    let until = expected.as_ref().ok().and_then(|e| e.until);
    if let (Some(until), Some(_)) = (until, &before.last_seen) {
        let line = format!("it is expected to be off until {}", until.strftime("%Y-%m-%dT%H:%M:%SZ"));
        return ("ExpectedOffline", line);
    }
    match &before.last_seen {
        None => ("NeverReported", "no report from its brick-agent yet: is it running there?".to_string()),
        Some(at) => (
            "AgentSilent",
            format!(
                "no report since {}: switch it on, or see its brick-agent's log",
                at.0.strftime("%Y-%m-%dT%H:%M:%SZ")
            ),
        ),
    }
}

/// A workstation that leaves with data that nobody else has is a warning; one that goes home is not.
async fn tell(
    context: &Context,
    ws: &Workstation,
    before: &WorkstationStatus,
    state: WorkstationState,
    expected: &Result<Expected, String>,
) {
    if before.state == Some(state) || (before.state.is_none() && state != WorkstationState::Lost) {
        return;
    }
    let expected = expected.as_ref().is_ok_and(|e| e.until.is_some());
    let alone = before.pending_out.as_ref().map_or(0, |p| p.files);
    let (warning, reason, note) = match state {
        WorkstationState::Online => (false, "WorkstationOnline", "its agent reports again".to_string()),
        WorkstationState::Away if expected => {
            (false, "WorkstationAway", "its agent is silent, as is expected at this time".to_string())
        }
        WorkstationState::Away if alone > 0 => (
            true,
            "WorkstationAway",
            format!("it went away with {} that others still lack", human_files(alone)),
        ),
        WorkstationState::Away => (false, "WorkstationAway", "its agent is silent".to_string()),
        WorkstationState::Lost => {
            let line = "a person said that it will not return: its copies are made elsewhere";
            (true, "WorkstationLost", line.to_string())
        }
    };
    let news = News { warning, reason, action: "Watch", note, related: None };
    context.tell(&ws.object_ref(&()), news).await;
}

/// Says Ready Unknown on each of its bricks.
async fn mark_bricks(
    context: &Context,
    ws: &Workstation,
    state: WorkstationState,
    expected: &Result<Expected, String>,
) -> Result<(), Error> {
    let node = ws.name_any();
    let before = ws.status.clone().unwrap_or_default();
    let (reason, line) = why(&before, state, expected);
    let finding = Finding::new(condition::READY, Status::Unknown, reason, line);
    for brick in context.stores.bricks_of_node(&node) {
        let old: &[Condition] = brick.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        if condition::find(old, condition::READY).is_some_and(|c| c.status == "Unknown" && c.reason == reason)
        {
            continue;
        }
        let condition = condition::condition(old, &finding, brick.metadata.generation, &now());
        let status = BrickStatus { conditions: vec![condition], ..BrickStatus::default() };
        let name = brick.name_any();
        let body = json!({
            "apiVersion": Brick::api_version(&()),
            "kind": Brick::kind(&()),
            "status": status,
        });
        let api: Api<Brick> = Api::namespaced(context.client.clone(), &brick.namespace().unwrap_or_default());
        match api
            .patch_status(&name, &PatchParams::apply(OPERATOR_MANAGER).force(), &Patch::Apply(&body))
            .await
        {
            Ok(_) => context.metrics.wrote("workstation"),
            // It went in the meantime.
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(Error::api(format!("write the status of Brick {name}"))(error)),
        }
    }
    Ok(())
}
