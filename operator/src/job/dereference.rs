//! First step: the job's volume and targets, from the stores; and whose the job is.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use nearbrick_crds::meta::LABEL_VOLUME;
use nearbrick_crds::{HealJob, WorkstationVolume};
use serde_json::json;

use crate::context::Context;
use crate::error::Error;
use crate::plan::job::TargetView;
use crate::stores::Stores;
use crate::world::{World, is_active};

/// What was found.
pub struct Found {
    /// The volume, if it exists.
    pub volume: Option<Arc<WorkstationVolume>>,
    /// The bricks for which the job waits.
    pub targets: Vec<TargetView>,
    /// When the job's turn came; `None` while a job before it has not ended.
    pub turn: Option<Timestamp>,
}

/// Looks it up. The targets are those that the status or the spec names; a job without any waits for
/// the bricks that lack something when it is first seen.
pub fn dereference(stores: &Stores, job: &HealJob) -> Found {
    let namespace = job.namespace().unwrap_or_default();
    let name = &job.spec.volume_ref.name;
    let Some(volume) = stores.volumes.get(&ObjectRef::new(name).within(&namespace)) else {
        return Found { volume: None, targets: vec![], turn: None };
    };
    let world = World::collect(stores, &namespace, name, &volume.uid().unwrap_or_default());
    let pending = world.targets();
    let decided = job.status.as_ref().map(|s| s.targets.clone()).unwrap_or_default();
    let names: Vec<String> = if !decided.is_empty() {
        decided
    } else if !job.spec.target_bricks.is_empty() {
        job.spec.target_bricks.clone()
    } else {
        pending.keys().filter(|t| world.bricks.contains_key(*t)).cloned().collect()
    };
    let targets = names
        .into_iter()
        .map(|brick| {
            let entry = world.bricks.get(&brick);
            TargetView {
                node: entry.map_or_else(|| brick.clone(), |e| e.brick.spec.node.clone()),
                exists: entry.is_some(),
                away_since: entry
                    .filter(|e| !e.agent.online)
                    .map(|e| e.agent.silent_since.unwrap_or(Timestamp::UNIX_EPOCH)),
                lacks: pending.get(&brick).map(|t| t.all).unwrap_or_default(),
                brick,
            }
        })
        .collect();
    Found { volume: Some(volume), targets, turn: turn(job, &world.jobs) }
}

/// Agents run the jobs of a volume one at a time, the oldest first.
fn turn(job: &HealJob, all: &[Arc<HealJob>]) -> Option<Timestamp> {
    let order = |j: &HealJob| (j.creation_timestamp().map(|t| t.0), j.name_any());
    let before = |j: &&Arc<HealJob>| order(j) < order(job);
    if all.iter().filter(before).any(|j| is_active(j)) {
        return None;
    }
    let ended = all.iter().filter(before).filter_map(|j| j.status.as_ref()?.completed_at.as_ref());
    ended.map(|t| t.0).chain(job.creation_timestamp().map(|t| t.0)).max()
}

/// A job that a person made belongs to the volume as well, and goes with it.
pub async fn adopt(context: &Context, job: &HealJob, volume: &WorkstationVolume) -> Result<(), Error> {
    if job.owner_references().iter().any(|o| Some(&o.uid) == volume.metadata.uid.as_ref()) {
        return Ok(());
    }
    let name = job.name_any();
    let body = json!({
        "apiVersion": HealJob::api_version(&()),
        "kind": HealJob::kind(&()),
        "metadata": {
            "labels": { LABEL_VOLUME: volume.name_any() },
            "ownerReferences": volume.owner_ref(&()).into_iter().collect::<Vec<_>>(),
        },
    });
    let api: Api<HealJob> = Api::namespaced(context.client.clone(), &job.namespace().unwrap_or_default());
    let params = PatchParams::apply(nearbrick_crds::meta::OPERATOR_MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&body))
        .await
        .map_err(Error::api(format!("adopt HealJob {name}")))?;
    Ok(())
}
