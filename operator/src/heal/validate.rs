//! Second step: one typed value from the spec, the policy and the jobs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use nearbrick_crds::condition::{self, Finding, Status};
use nearbrick_crds::{
    BrickState, HealOrder, HealPolicySpec, HistoryLimits, JobPhase, Retry, WorkstationVolume,
};

use super::dereference::Found;
use crate::context::Context;
use crate::error::Error;
use crate::plan::due::Input;
use crate::plan::history::Ended;
use crate::plan::pending::Target;
use crate::plan::schedule::Schedule;
use crate::world::{World, is_active};

/// Annotation on a job: the trigger for which it was made.
pub const TRIGGER: &str = "nearbrick.io/trigger";

/// What the decision and the later steps rest on.
pub struct Valid {
    /// The volume's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// The generation of the spec that was read.
    pub generation: Option<i64>,
    /// Where intervals are counted from.
    pub anchor: Timestamp,
    /// The schedule, if it can be followed and is not paused.
    pub schedule: Option<Schedule>,
    /// The condition Scheduled.
    pub scheduled: Finding,
    /// `spec.trigger`, unless it was acted on.
    pub trigger: Option<String>,
    /// Whether a job was made for it.
    pub trigger_has_job: bool,
    /// Whether all agents that are not silent have reported since.
    pub reported_since_trigger: bool,
    /// Agents that are silent, for messages.
    pub silent: Vec<String>,
    /// When the last job was made or ended.
    pub last_run: Option<Timestamp>,
    /// When the last job ended.
    pub last_heal: Option<Timestamp>,
    /// Whether a job has not ended.
    pub active: bool,
    /// Jobs that have.
    pub ended: Vec<Ended>,
    /// How many of them are kept.
    pub limits: HistoryLimits,
    /// How the policy wants it done.
    pub how: How,
    /// What each brick lacks.
    pub targets: BTreeMap<String, Target>,
    /// Whether each brick can work at present.
    pub bricks: BTreeMap<String, bool>,
}

/// What a job takes over from the policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct How {
    /// Most bytes in a second.
    pub bandwidth: Option<String>,
    /// Most streams side by side.
    pub concurrency: Option<u32>,
    /// Which files come first.
    pub order: Option<HealOrder>,
    /// When failed files are tried again.
    pub retry: Option<Retry>,
}

impl How {
    /// As this policy says.
    fn of(policy: &HealPolicySpec) -> Self {
        How {
            bandwidth: policy.bandwidth.clone(),
            concurrency: policy.concurrency,
            order: policy.order,
            retry: policy.retry.clone(),
        }
    }
}

impl Valid {
    /// For the decision.
    pub fn input(&self, now: Timestamp) -> Input<'_> {
        Input {
            now,
            anchor: self.anchor,
            schedule: self.schedule.as_ref(),
            trigger: self.trigger.as_deref(),
            trigger_has_job: self.trigger_has_job,
            reported_since_trigger: self.reported_since_trigger,
            last_run: self.last_run,
            active: self.active,
            targets: &self.targets,
            bricks: &self.bricks,
        }
    }
}

/// Checks.
pub fn validate(
    context: &Context,
    volume: &WorkstationVolume,
    found: Found,
    now: Timestamp,
) -> Result<Valid, Error> {
    let name = volume.name_any();
    let missing = |what| Error::Incomplete(format!("WorkstationVolume {name}"), what);
    let namespace = volume.namespace().ok_or_else(|| missing("namespace"))?;
    let uid = volume.uid().ok_or_else(|| missing("uid"))?;
    let anchor = volume.creation_timestamp().ok_or_else(|| missing("creationTimestamp"))?.0;
    let status = volume.status.clone().unwrap_or_default();
    let Found { policy, world } = found;

    let (schedule, scheduled) = schedule(volume, policy.as_ref().map(|p| &p.spec));
    let trigger = volume.spec.trigger.clone().filter(|t| Some(t) != status.last_trigger.as_ref());
    let since = match &trigger {
        Some(t) => Some(context.trigger_seen(&uid, t, now)),
        None => {
            context.trigger_done(&uid);
            None
        }
    };
    let has_trigger = |j: &&std::sync::Arc<nearbrick_crds::HealJob>| {
        trigger.is_some() && j.annotations().get(TRIGGER) == trigger.as_ref()
    };
    let made = world.jobs.iter().filter_map(|j| j.creation_timestamp()).map(|t| t.0).max();
    let ended: Vec<Ended> = world.jobs.iter().filter_map(|j| ended(j)).collect();
    let last_heal = ended.iter().map(|e| e.at).chain(status.last_heal_time.as_ref().map(|t| t.0)).max();
    Ok(Valid {
        generation: volume.metadata.generation,
        anchor,
        schedule,
        scheduled,
        trigger_has_job: world.jobs.iter().any(|j| has_trigger(&j)),
        reported_since_trigger: since.is_none_or(|s| all_reported_since(&world, s)),
        silent: world
            .bricks
            .values()
            .filter(|e| !e.agent.online)
            .map(|e| e.brick.spec.node.clone())
            .collect(),
        trigger,
        last_run: [made, last_heal].into_iter().flatten().max(),
        last_heal,
        active: world.jobs.iter().any(|j| is_active(j)),
        ended,
        limits: policy.as_ref().map(|p| p.spec.history_limits.clone()).unwrap_or_default(),
        how: policy.as_ref().map(|p| How::of(&p.spec)).unwrap_or_default(),
        targets: world.targets(),
        bricks: world
            .bricks
            .iter()
            .map(|(name, e)| {
                let state = e.brick.status.as_ref().and_then(|s| s.state);
                let works = matches!(state, Some(BrickState::Ready | BrickState::Degraded));
                (name.clone(), works && e.agent.online)
            })
            .collect(),
        name,
        namespace,
        uid,
    })
}

/// The schedule in force, and what the condition says of it.
fn schedule(volume: &WorkstationVolume, policy: Option<&HealPolicySpec>) -> (Option<Schedule>, Finding) {
    let finding = |status, reason, line: String| Finding::new(condition::SCHEDULED, status, reason, line);
    if let (Some(wanted), None) = (&volume.spec.heal_policy_ref, policy) {
        let line = format!(
            "HealPolicy {} does not exist in this namespace: make it, or remove healPolicyRef for a heal every 10m; until then only a trigger heals",
            wanted.name
        );
        return (None, finding(Status::False, "HealPolicyNotFound", line));
    }
    match Schedule::parse(policy) {
        Err(line) => {
            let line = format!("{line}; until then only a trigger heals");
            (None, finding(Status::False, "InvalidSchedule", line))
        }
        Ok(_) if policy.is_some_and(|p| p.paused) => {
            let line = "the HealPolicy is paused: only a trigger heals".to_string();
            (None, finding(Status::False, "Paused", line))
        }
        Ok(schedule) => {
            let line = format!("{}, where something is pending", schedule.describe());
            (Some(schedule), finding(Status::True, "Scheduled", line))
        }
    }
}

fn ended(job: &nearbrick_crds::HealJob) -> Option<Ended> {
    let status = job.status.as_ref()?;
    let phase = status.phase.filter(|p| JobPhase::is_ended(*p))?;
    // A job that is being deleted already counts for nothing.
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let at = status.completed_at.as_ref().or(job.metadata.creation_timestamp.as_ref())?.0;
    Some(Ended { name: job.name_any(), phase, at })
}

/// Whether every agent that is not silent has reported after `since`. Each agent's own clock is not
/// compared with ours for more than this: one that runs behind only makes the answer late, and the
/// workstation's silence, which is by our clock, ends the wait.
fn all_reported_since(world: &World, since: Timestamp) -> bool {
    world.bricks.values().filter(|e| e.agent.online).all(|e| {
        let brick = e.brick.status.as_ref().and_then(|s| s.heartbeat.as_ref()).map(|t| t.0);
        brick.or(e.agent.last_seen).is_some_and(|at| at > since)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_crds::unacted::Unacted;

    #[test]
    fn a_job_is_done_as_the_policy_says() {
        let policy = HealPolicySpec {
            bandwidth: Some("50Mi".into()),
            concurrency: Some(2),
            order: Some(HealOrder::SmallestFirst),
            retry: Some(Retry { limit: 5 }),
            ..HealPolicySpec::default()
        };
        let how = How {
            bandwidth: Some("50Mi".into()),
            concurrency: Some(2),
            order: Some(HealOrder::SmallestFirst),
            retry: Some(Retry { limit: 5 }),
        };
        assert_eq!(How::of(&policy), how);
        assert_eq!(policy.unacted(), [""; 0]);
    }
}
