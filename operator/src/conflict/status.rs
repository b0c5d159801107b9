//! What each object says, and an Event where a person must notice a change.

use std::sync::Arc;

use kube::api::Api;
use kube::{Resource, ResourceExt};
use nearbrick_crds::condition::{self, Finding};
use nearbrick_crds::meta::{OPERATOR_MANAGER, now};
use nearbrick_crds::{Condition, FileConflict, FileConflictStatus};

use crate::context::{Context, News};
use crate::error::{Error, is_not_found};
use crate::patch::{Owned, apply_status};
use crate::plan::conflict::Said;

const OWNED: Owned = Owned {
    manager: OPERATOR_MANAGER,
    fields: &["phase", "summary", "versions", "resolvedAt", "resolution", "resolvedBy", "observedGeneration"],
    conditions: &[condition::RESOLVED],
};

/// Writes what is new.
pub async fn write(
    context: &Context,
    objects: &[Arc<FileConflict>],
    say: &[(String, Said)],
) -> Result<(), Error> {
    for (name, said) in say {
        let Some(object) = objects.iter().find(|o| o.name_any() == *name) else { continue };
        let namespace = object.namespace().unwrap_or_default();
        let before = object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let generation = object.metadata.generation;
        let carried = said.carried_out.as_ref();
        let status = FileConflictStatus {
            phase: Some(said.phase),
            summary: Some(said.summary.clone()).filter(|summary| !summary.is_empty()),
            versions: said.versions.clone(),
            resolved_at: said.resolved_at(),
            resolution: carried.map(|c| c.resolution.clone()),
            resolved_by: carried.and_then(|c| c.by.clone()),
            observed_generation: generation,
            conditions: vec![condition::condition(before, &said.finding, generation, &now())],
        };
        let api: Api<FileConflict> = Api::namespaced(context.client.clone(), &namespace);
        match apply_status(&api, object.as_ref(), &status, &OWNED).await {
            Ok(true) => {
                context.metrics.wrote("conflict");
                if let Some(news) = news(before, &said.finding, &object.spec.path) {
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

/// That a resolution was carried out, and that one cannot be.
fn news(before: &[Condition], finding: &Finding, path: &str) -> Option<News<'static>> {
    let old = condition::find(before, condition::RESOLVED);
    let (warning, reason) = match finding.reason {
        "Resolved" => (false, "ConflictResolved"),
        "Waiting" => (true, "ResolutionWaits"),
        "NoSuchVersion" => (true, "NoSuchVersion"),
        _ => return None,
    };
    if old.is_some_and(|old| old.reason == finding.reason && old.message == finding.message) {
        return None;
    }
    let note = format!("{path}: {}", finding.message);
    Some(News { warning, reason, action: "Resolve", note, related: None })
}
