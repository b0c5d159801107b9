//! The controller of heal jobs: sums up what the targets' agents report, and ends the job.

mod dereference;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::controller::Action;
use nearbrick_crds::{HealJob, JobPhase};

use crate::context::Context;
use crate::error::Error;
use crate::plan::job;

/// All of it is derived again after this time, so that a lost event heals.
const AGAIN: Duration = Duration::from_secs(300);

/// Brings a job's status in line with its transfers. What has ended does not change any more.
pub async fn reconcile(job: Arc<HealJob>, context: Arc<Context>) -> Result<Action, Error> {
    let before = job.status.clone().unwrap_or_default();
    if before.phase.is_some_and(JobPhase::is_ended) || job.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    let found = dereference::dereference(&context.stores, &job);
    let Some(volume) = &found.volume else {
        status::refuse(&context, &job, now).await?;
        return Ok(Action::await_change());
    };
    dereference::adopt(&context, &job, volume).await?;
    let progress = job::progress(
        found.turn,
        now,
        before.started_at.as_ref().map(|t| t.0),
        &found.targets,
        &before.transfers,
        &context.settings.job_limits,
        job.spec.not_after.as_ref().map(|t| t.0),
    );
    status::write(&context, &job, volume, &found, &progress).await?;
    let wait = progress.again_at.map_or(AGAIN, |at| {
        let left = at.as_millisecond().saturating_sub(now.as_millisecond()).max(100);
        Duration::from_millis(left.unsigned_abs())
    });
    Ok(Action::requeue(wait.min(AGAIN)))
}
