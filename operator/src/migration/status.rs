//! What each move says, and an Event where a person must notice a change.

use std::sync::Arc;

use kube::api::Api;
use kube::{Resource, ResourceExt};
use nearbrick_crds::condition::{self, Finding, Status};
use nearbrick_crds::meta::{OPERATOR_MANAGER, now, whole_second};
use nearbrick_crds::unacted::Unacted;
use nearbrick_crds::{MigrationPhase, Pending, ReplicaMigration, ReplicaMigrationStatus};

use crate::context::{Context, News};
use crate::error::{Error, is_not_found};
use crate::patch::{Owned, apply_status};
use crate::plan::migrate::Said;
use crate::plan::volume::unacted_finding;

const OWNED: Owned = Owned {
    manager: OPERATOR_MANAGER,
    fields: &[
        "phase",
        "message",
        "evidence",
        "from",
        "bricks",
        "group",
        "left",
        "startedAt",
        "completedAt",
        "observedGeneration",
    ],
    conditions: &[condition::MOVED, condition::SPEC_ACTED_ON],
};

/// Writes what is new.
pub async fn write(
    context: &Context,
    objects: &[Arc<ReplicaMigration>],
    say: &[(String, Said)],
) -> Result<(), Error> {
    for (name, said) in say {
        let Some(object) = objects.iter().find(|o| o.name_any() == *name) else { continue };
        let before = object.status.clone().unwrap_or_default();
        let generation = object.metadata.generation;
        let view = &said.view;
        let phase = view.phase.unwrap_or(MigrationPhase::Proposed);
        let moved = match phase {
            MigrationPhase::Done => Status::True,
            _ => Status::False,
        };
        let findings = [
            Finding::new(condition::MOVED, moved, said.reason, said.message.clone()),
            unacted_finding(&object.spec.unacted()),
        ];
        let pending = |(files, bytes): (u64, u64)| Pending::new(files, bytes, None);
        let status = ReplicaMigrationStatus {
            phase: Some(phase),
            message: Some(said.message.clone()),
            evidence: view.evidence.clone(),
            from: view.leaves.clone(),
            bricks: view.bricks.clone(),
            group: view.group.map(pending),
            left: said.left.map(pending),
            started_at: view.started.map(whole_second),
            completed_at: view.completed.map(whole_second),
            observed_generation: generation,
            conditions: condition::conditions(&before.conditions, &findings, generation, &now()),
        };
        let api: Api<ReplicaMigration> =
            Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
        match apply_status(&api, object.as_ref(), &status, &OWNED).await {
            Ok(true) => {
                context.metrics.wrote("migration");
                if before.phase != Some(phase)
                    && let Some(reason) = reason(phase)
                {
                    let note = format!("{}: {}", object.spec.paths.join(", "), said.message);
                    let warning = phase == MigrationPhase::Refused;
                    let news = News { warning, reason, action: "Migrate", note, related: None };
                    context.tell(&object.object_ref(&()), news).await;
                }
            }
            Ok(false) => {}
            // A person, or the end of its volume, was faster.
            Err(Error::Api { source, .. }) if is_not_found(&source) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn reason(phase: MigrationPhase) -> Option<&'static str> {
    match phase {
        MigrationPhase::Adding => Some("MigrationStarted"),
        MigrationPhase::Done => Some("MigrationDone"),
        MigrationPhase::Refused => Some("MigrationRefused"),
        _ => None,
    }
}
