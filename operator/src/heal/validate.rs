//! Second step: one typed value from the spec, the policy and the jobs.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::ResourceExt;
use nearbrick_crds::condition::{self, Finding, Status};
use nearbrick_crds::timetable::{LastRun, Speed, Timetable, Waiting};
use nearbrick_crds::{
    Brick, BrickState, HealOrder, HealPolicySpec, HistoryLimits, JobPhase, MigrationPhase, Retry,
    WorkstationVolume,
};

use super::dereference::Found;
use crate::error::Error;
use crate::plan::due::Input;
use crate::plan::history::Ended;
use crate::plan::pending::{Target, waiting};
use crate::plan::{limits, speed};
use crate::world::{World, is_active};

/// Annotation on a job: the trigger for which it was made.
pub const TRIGGER: &str = "nearbrick.io/trigger";

/// What the decision and the later steps rest on.
pub struct Valid {
    /// The volume's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The generation of the spec that was read.
    pub generation: Option<i64>,
    /// The policy's times, if they can be followed.
    timetable: Option<Timetable>,
    /// Whether heals by the policy are held back.
    paused: bool,
    /// The condition Scheduled.
    pub scheduled: Finding,
    /// The condition LossBounded, where the policy sets limits.
    pub bounded: Option<Finding>,
    /// When `maxPendingAge` ends for what waits, if that is still to come.
    pub too_old_at: Option<Timestamp>,
    /// `spec.trigger`, unless it was acted on.
    pub trigger: Option<String>,
    /// Whether a job was made for it.
    pub trigger_has_job: bool,
    /// Whether all agents that are not silent have reported since.
    pub reported_since_trigger: bool,
    /// Agents that are silent, for messages.
    pub silent: Vec<String>,
    /// The last job that was made, and the last that ended.
    pub last: LastRun,
    /// When a job was last made by the policy.
    pub last_schedule: Option<Timestamp>,
    /// How fast jobs were.
    speed: Speed,
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
    /// Bricks that are to hold files that move.
    pub joining: BTreeSet<String>,
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
            timetable: self.timetable.as_ref().filter(|_| !self.paused),
            trigger: self.trigger.as_deref(),
            trigger_has_job: self.trigger_has_job,
            reported_since_trigger: self.reported_since_trigger,
            last: self.last,
            speed: self.speed,
            active: self.active,
            targets: &self.targets,
            bricks: &self.bricks,
            joining: &self.joining,
        }
    }
}

/// Checks.
pub fn validate(volume: &WorkstationVolume, found: Found, now: Timestamp) -> Result<Valid, Error> {
    let name = volume.name_any();
    let missing = |what| Error::Incomplete(format!("WorkstationVolume {name}"), what);
    let namespace = volume.namespace().ok_or_else(|| missing("namespace"))?;
    let uid = volume.uid().ok_or_else(|| missing("uid"))?;
    let anchor = volume.creation_timestamp().ok_or_else(|| missing("creationTimestamp"))?.0;
    let status = volume.status.clone().unwrap_or_default();
    let Found { policy, world } = found;

    let policy = policy.as_ref().map(|p| &p.spec);
    let paused = policy.is_some_and(|p| p.paused);
    let (timetable, scheduled) = timetable(volume, policy, anchor, &uid);
    let trigger = volume.spec.trigger.clone().filter(|t| Some(t) != status.last_trigger.as_ref());
    let has_trigger = |j: &&std::sync::Arc<nearbrick_crds::HealJob>| {
        trigger.is_some() && j.annotations().get(TRIGGER) == trigger.as_ref()
    };
    let made = |j: &&std::sync::Arc<nearbrick_crds::HealJob>| j.creation_timestamp().map(|t| t.0);
    let scheduled_jobs = world.jobs.iter().filter(|j| j.spec.reason.is_by_policy());
    // Also of a job that somebody has deleted since.
    let last_schedule =
        scheduled_jobs.filter_map(|j| made(&j)).chain(status.last_schedule_time.as_ref().map(|t| t.0)).max();
    let began = world.jobs.iter().filter_map(|j| made(&j)).chain(last_schedule).max();
    let ended: Vec<Ended> = world.jobs.iter().filter_map(|j| ended(j)).collect();
    let last_heal = ended.iter().map(|e| e.at).chain(status.last_heal_time.as_ref().map(|t| t.0)).max();
    let active = world.jobs.iter().any(|j| is_active(j));
    let targets = world.targets();
    let bricks: BTreeMap<String, bool> = world
        .bricks
        .iter()
        .map(|(name, e)| {
            let state = e.brick.status.as_ref().and_then(|s| s.state);
            let works = matches!(state, Some(BrickState::Ready | BrickState::Degraded));
            (name.clone(), works && e.agent.online)
        })
        .collect();
    let waits: Waiting = waiting(targets.values().map(|t| t.all));
    let away: Vec<String> =
        targets.keys().filter(|t| !bricks.get(*t).copied().unwrap_or(false)).cloned().collect();
    let bounded = timetable.as_ref().and_then(|timetable| {
        limits::bounded(&limits::Input { timetable, waiting: &waits, away: &away, active, paused, now })
    });
    Ok(Valid {
        too_old_at: timetable.as_ref().and_then(|t| t.too_old_at(&waits)).filter(|at| *at >= now),
        bounded,
        generation: volume.metadata.generation,
        timetable,
        paused,
        scheduled,
        trigger_has_job: world.jobs.iter().any(|j| has_trigger(&j)),
        reported_since_trigger: trigger.as_ref().is_none_or(|t| all_have_looked_since(&world, t)),
        silent: world
            .bricks
            .values()
            .filter(|e| !e.agent.online)
            .map(|e| e.brick.spec.node.clone())
            .collect(),
        trigger,
        last: LastRun { began, ended: last_heal },
        last_schedule,
        speed: speed::of(world.jobs.iter().map(|j| &**j)),
        last_heal,
        active,
        ended,
        limits: policy.map(|p| p.history_limits.clone()).unwrap_or_default(),
        how: policy.map(How::of).unwrap_or_default(),
        targets,
        bricks,
        joining: world
            .migrations
            .iter()
            .filter_map(|m| m.status.as_ref())
            .filter(|s| matches!(s.phase, Some(MigrationPhase::Adding | MigrationPhase::Dropping)))
            .flat_map(|s| s.bricks.iter().cloned())
            .collect(),
        name,
        namespace,
    })
}

/// The times in force, and what the condition says of them.
fn timetable(
    volume: &WorkstationVolume,
    policy: Option<&HealPolicySpec>,
    anchor: Timestamp,
    uid: &str,
) -> (Option<Timetable>, Finding) {
    let finding = |status, reason, line: String| Finding::new(condition::SCHEDULED, status, reason, line);
    if let (Some(wanted), None) = (&volume.spec.heal_policy_ref, policy) {
        let line = format!(
            "HealPolicy {} does not exist in this namespace: make it, or remove healPolicyRef for a heal every 10m; until then only a trigger heals",
            wanted.name
        );
        return (None, finding(Status::False, "HealPolicyNotFound", line));
    }
    match Timetable::of(policy, anchor, uid) {
        Err(line) => {
            let line = format!("{line}; until then only a trigger heals");
            (None, finding(Status::False, "InvalidSchedule", line))
        }
        Ok(timetable) if policy.is_some_and(|p| p.paused) => {
            let line = "the HealPolicy is paused: only a trigger heals".to_string();
            (Some(timetable), finding(Status::False, "Paused", line))
        }
        Ok(timetable) => {
            let line = format!("{}, where something is pending", timetable.describe());
            (Some(timetable), finding(Status::True, "Scheduled", line))
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

/// Whether every agent that is not silent has looked at its brick since it saw the trigger. No clock is asked: they may be apart.
fn all_have_looked_since(world: &World, trigger: &str) -> bool {
    let looked = |b: &Brick| b.status.as_ref().and_then(|s| s.last_trigger.as_deref()) == Some(trigger);
    world.bricks.values().filter(|e| e.agent.online).all(|e| looked(&e.brick))
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
        let bounds = HealPolicySpec {
            max_pending_age: Some("1h".into()),
            max_pending_bytes: Some("1Gi".into()),
            jitter: Some("1m".into()),
            starting_deadline: Some("1m".into()),
            when_settled: Some("5s".into()),
            windows: vec![nearbrick_crds::TimeWindow::default()],
            ..policy
        };
        assert_eq!(bounds.unacted(), [""; 0]);
    }
}
