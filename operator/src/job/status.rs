//! Last step: the operator's part of the job's status, and an Event when the job ends.

use jiff::Timestamp;
use kube::api::Api;
use kube::{Resource, ResourceExt};
use nearbrick_crds::condition;
use nearbrick_crds::meta::{OPERATOR_MANAGER, now, whole_second};
use nearbrick_crds::unacted::Unacted;
use nearbrick_crds::{HealJob, HealJobStatus, JobPhase, WorkstationVolume};

use super::dereference::Found;
use crate::context::{Context, News};
use crate::error::Error;
use crate::patch::{Owned, apply_status};
use crate::plan::job::{Progress, in_words};
use crate::plan::volume::unacted_finding;

const OWNED: Owned = Owned {
    manager: OPERATOR_MANAGER,
    fields: &[
        "phase",
        "targets",
        "files",
        "bytes",
        "bytesPerSecond",
        "etaSeconds",
        "progress",
        "failures",
        "startedAt",
        "completedAt",
        "message",
        "observedGeneration",
    ],
    conditions: &[condition::SPEC_ACTED_ON],
};

fn api(context: &Context, job: &HealJob) -> Api<HealJob> {
    Api::namespaced(context.client.clone(), &job.namespace().unwrap_or_default())
}

/// Writes it, if it says something new.
pub async fn write(
    context: &Context,
    job: &HealJob,
    volume: &WorkstationVolume,
    found: &Found,
    progress: &Progress,
) -> Result<(), Error> {
    let status = HealJobStatus {
        phase: Some(progress.phase),
        targets: found.targets.iter().map(|t| t.brick.clone()).collect(),
        files: Some(progress.files),
        bytes: Some(progress.bytes),
        bytes_per_second: progress.bytes_per_second,
        eta_seconds: progress.eta_seconds,
        progress: in_words(progress),
        failures: progress.failures.clone(),
        started_at: progress.started_at.map(whole_second),
        completed_at: progress.completed_at.map(whole_second),
        message: Some(progress.message.clone()),
        ..common(job)
    };
    if apply_status(&api(context, job), job, &status, &OWNED).await? {
        context.metrics.wrote("job");
        if progress.phase.is_ended() {
            let clean = progress.phase == JobPhase::Completed && progress.files.failed == 0;
            let news = News {
                warning: !clean,
                reason: if progress.phase == JobPhase::Failed { "HealFailed" } else { "HealCompleted" },
                action: job.spec.reason.as_str(),
                note: format!("{}: {}", job.name_any(), progress.message),
                related: Some(job.object_ref(&())),
            };
            tracing::info!("{}/{}", job.namespace().unwrap_or_default(), news.note);
            context.tell(&volume.object_ref(&()), news).await;
        }
    }
    Ok(())
}

/// Ends a job whose volume does not exist.
pub async fn refuse(context: &Context, job: &HealJob, at: Timestamp) -> Result<(), Error> {
    let line = format!(
        "WorkstationVolume {} does not exist in this namespace: correct volumeRef in a new HealJob",
        job.spec.volume_ref.name
    );
    let status = HealJobStatus {
        phase: Some(JobPhase::Failed),
        completed_at: Some(whole_second(at)),
        message: Some(line.clone()),
        ..common(job)
    };
    if apply_status(&api(context, job), job, &status, &OWNED).await? {
        context.metrics.wrote("job");
        let news =
            News { warning: true, reason: "VolumeNotFound", action: "Heal", note: line, related: None };
        context.tell(&job.object_ref(&()), news).await;
    }
    Ok(())
}

fn common(job: &HealJob) -> HealJobStatus {
    let before = job.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let finding = unacted_finding(&job.spec.unacted());
    HealJobStatus {
        observed_generation: job.metadata.generation,
        conditions: vec![condition::condition(before, &finding, job.metadata.generation, &now())],
        ..HealJobStatus::default()
    }
}
