//! The controller of conflicts: makes, deletes and describes the `FileConflict`s of a volume, as its bricks report. What a
//! person chooses there, agents carry out; this one only says how far that is.

mod apply;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use nearbrick_crds::condition::{READY, find};
use nearbrick_crds::{BrickState, FileConflict, WorkstationVolume};

use crate::context::Context;
use crate::error::Error;
use crate::plan::conflict::{Report, Volume, plan};
use crate::world::{BrickEntry, World};

/// All of it is derived again after this time, so that a lost event heals.
const AGAIN: Duration = Duration::from_secs(600);
/// How long versions are kept where the volume does not say it.
const RETENTION: SignedDuration = SignedDuration::from_hours(168);

/// Brings the objects of one volume in line with what its bricks report.
pub async fn reconcile(volume: Arc<WorkstationVolume>, context: Arc<Context>) -> Result<Action, Error> {
    if volume.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (volume.namespace().unwrap_or_default(), volume.name_any());
    let world = World::collect(&context.stores, &namespace, &name, &volume.uid().unwrap_or_default());
    let objects = context.stores.conflicts.state_filter(|c| {
        c.spec.volume_ref.name == name && c.metadata.namespace.as_deref() == Some(&namespace)
    });
    let reports: Vec<Report> = world.bricks.values().filter_map(report).collect();
    let known: Vec<&FileConflict> = objects.iter().map(AsRef::as_ref).collect();
    let view = Volume { namespace: &namespace, name: &name, retention: retention(&volume) };
    let todo = plan(&view, &reports, &known);
    apply::apply(&context, &volume, &objects, &todo).await?;
    status::write(&context, &objects, &todo.say).await?;
    Ok(Action::requeue(AGAIN))
}

/// What a brick says at present; none: it is not known.
fn report(entry: &BrickEntry) -> Option<Report<'_>> {
    let status = entry.brick.status.as_ref()?;
    let in_use = matches!(status.state, Some(BrickState::Ready | BrickState::Degraded));
    // An index that is being made anew does not know of all conflicts.
    let judging = find(&status.conditions, READY).is_some_and(|c| c.reason == "IndexLost");
    let open = status.conflicts.filter(|_| in_use && !judging && entry.agent.online)?;
    Some(Report { node: &entry.brick.spec.node, open, list: &status.conflict_list })
}

fn retention(volume: &WorkstationVolume) -> SignedDuration {
    let said = volume.spec.version_retention.as_deref();
    let parsed = said.and_then(|text| text.parse::<kube::core::Duration>().ok());
    parsed.and_then(|d| SignedDuration::try_from(Duration::from(d)).ok()).unwrap_or(RETENTION)
}
