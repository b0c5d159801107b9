//! Third step: makes the job, and deletes those that are no longer kept.

use jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Resource, ResourceExt};
use nearbrick_crds::meta::{LABEL_VOLUME, OPERATOR_MANAGER, whole_second};
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{HealJob, HealJobSpec, JobReason, LocalRef, WorkstationVolume};

use super::validate::{How, TRIGGER, Valid};
use crate::context::{Context, News};
use crate::error::{Error, is_conflict, is_not_found};
use crate::plan::due::Action;
use crate::plan::history::to_delete;
use crate::world::is_active;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether the trigger was acted on.
    pub trigger_done: bool,
    /// When a job was made by the policy, if one was.
    pub scheduled: Option<Timestamp>,
}

impl Applied {
    const NOTHING: Self = Self { trigger_done: false, scheduled: None };
    const TRIGGER: Self = Self { trigger_done: true, scheduled: None };
}

/// Carries the decision out.
pub async fn apply(
    context: &Context,
    volume: &WorkstationVolume,
    valid: &Valid,
    action: &Action,
) -> Result<Applied, Error> {
    match action {
        Action::Wait => Ok(Applied::NOTHING),
        Action::Acknowledge { nothing_pending } => {
            if *nothing_pending {
                let mut note = "the trigger found nothing pending: no heal job was made".to_string();
                if !valid.silent.is_empty() {
                    note.push_str(&format!("; no report from {}", valid.silent.join(", ")));
                }
                let news = News { reason: "NothingPending", action: "Trigger", note, ..News::default() };
                context.tell(&volume.object_ref(&()), news).await;
            }
            Ok(Applied::TRIGGER)
        }
        Action::Create { reason, targets, not_after } => {
            create(context, volume, valid, *reason, targets, *not_after).await
        }
    }
}

async fn create(
    context: &Context,
    volume: &WorkstationVolume,
    valid: &Valid,
    reason: JobReason,
    targets: &[String],
    not_after: Option<Timestamp>,
) -> Result<Applied, Error> {
    let api: Api<HealJob> = Api::namespaced(context.client.clone(), &valid.namespace);
    let trigger = valid.trigger.as_deref().filter(|_| reason == JobReason::Trigger);
    // The store may be a moment behind a job that this process, or the operator before it, has made:
    // ask the API server itself. This happens only when a job is about to be made.
    let only = ListParams::default().fields(&format!("spec.volumeRef.name={}", valid.name));
    let jobs = api.list(&only).await.map_err(Error::api(format!("list the heal jobs of {}", valid.name)))?;
    if trigger.is_some() && jobs.iter().any(|j| j.annotations().get(TRIGGER).map(String::as_str) == trigger) {
        return Ok(Applied::TRIGGER);
    }
    if jobs.iter().any(is_active) {
        return Ok(Applied::NOTHING);
    }
    let newest = jobs.iter().filter_map(|j| j.creation_timestamp()).map(|t| t.0).max();
    if reason.is_by_policy() && newest > valid.last.began {
        // That job is the one that was due.
        return Ok(Applied::NOTHING);
    }

    let How { bandwidth, concurrency, order, retry } = valid.how.clone();
    let spec = HealJobSpec {
        volume_ref: LocalRef::new(&valid.name),
        reason,
        target_bricks: targets.to_vec(),
        source_brick: None,
        paths: vec![],
        not_after: not_after.map(whole_second),
        bandwidth,
        concurrency,
        order,
        retry,
    };
    let params = PostParams { field_manager: Some(OPERATOR_MANAGER.to_string()), ..PostParams::default() };
    let mut job = HealJob::new(&job_name(&valid.name, Timestamp::now(), None), spec);
    job.metadata.namespace = Some(valid.namespace.clone());
    job.metadata.owner_references = volume.controller_owner_ref(&()).map(|o| vec![o]);
    job.metadata.labels = Some([(LABEL_VOLUME.to_string(), valid.name.clone())].into());
    job.metadata.annotations = trigger.map(|t| [(TRIGGER.to_string(), t.to_string())].into());
    let made = match api.create(&params, &job).await {
        Err(error) if is_conflict(&error) => {
            job.metadata.name = Some(job_name(&valid.name, Timestamp::now(), Some(rand::random())));
            api.create(&params, &job).await
        }
        other => other,
    };
    let made = made.map_err(Error::api(format!("make a heal job for {}", valid.name)))?;
    context.metrics.job_created(reason.as_str());

    let (files, bytes) = targets
        .iter()
        .filter_map(|t| valid.targets.get(t))
        .fold((0u64, 0u64), |(f, b), t| (f.saturating_add(t.all.files), b.saturating_add(t.all.bytes)));
    let note = format!(
        "{}: {} ({}) to copy to {}",
        made.name_any(),
        human_files(files),
        human_bytes(bytes),
        targets.join(", ")
    );
    tracing::info!("{}/{note}", valid.namespace);
    let related = Some(made.object_ref(&()));
    let news = News { reason: "HealStarted", action: reason.as_str(), note, related, warning: false };
    context.tell(&volume.object_ref(&()), news).await;
    let scheduled = made.creation_timestamp().map(|t| t.0).filter(|_| reason.is_by_policy());
    Ok(Applied { trigger_done: trigger.is_some(), scheduled })
}

/// `VOLUME-YYYYMMDD-HHMMSS` in UTC; with four more digits where that is taken.
fn job_name(volume: &str, at: Timestamp, chance: Option<u16>) -> String {
    let time = at.strftime("%Y%m%d-%H%M%S");
    match chance {
        None => format!("{volume}-{time}"),
        Some(n) => format!("{volume}-{time}-{n:04x}"),
    }
}

/// Deletes the ended jobs that are no longer kept.
pub async fn prune(context: &Context, valid: &Valid) -> Result<(), Error> {
    let api: Api<HealJob> = Api::namespaced(context.client.clone(), &valid.namespace);
    for name in to_delete(valid.ended.clone(), &valid.limits) {
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => tracing::debug!("deleted HealJob {}/{name}", valid.namespace),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(Error::api(format!("delete HealJob {name}"))(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time() {
        let at = "2026-11-23T12:15:02Z".parse().unwrap();
        assert_eq!(job_name("home", at, None), "home-20261123-121502");
        assert_eq!(job_name("home", at, Some(10)), "home-20261123-121502-000a");
    }
}
