//! Whether a heal job has to be made for a volume now, and for which bricks.
//!
//! Invariants:
//! - nothing pending: no job, whatever the schedule says;
//! - never a second job while one has not ended;
//! - what became pending after the last time of the schedule waits for the next one, and the answer
//!   needs no memory of times at which nothing was pending;
//! - a clock that is wrong on some workstation neither stops heals nor makes more than one in each
//!   interval.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nearbrick_crds::JobReason;
use nearbrick_crds::timetable::{LastRun, Speed, Timetable, Why};

use super::pending::{Target, waiting};

/// What the decision rests on.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The operator's clock.
    pub now: Timestamp,
    /// The policy's times, if they can be followed and it is not paused.
    pub timetable: Option<&'a Timetable>,
    /// `spec.trigger`, unless `status.lastTrigger` says the same.
    pub trigger: Option<&'a str>,
    /// Whether a job for this trigger exists already.
    pub trigger_has_job: bool,
    /// Whether every agent that is not silent has reported since the trigger was seen first.
    pub reported_since_trigger: bool,
    /// The last job of this volume.
    pub last: LastRun,
    /// How fast its jobs were.
    pub speed: Speed,
    /// Whether a job of this volume has not ended.
    pub active: bool,
    /// What each brick lacks.
    pub targets: &'a BTreeMap<String, Target>,
    /// All bricks of the volume, and whether each can work at present.
    pub bricks: &'a BTreeMap<String, bool>,
    /// Bricks that are to hold files that move.
    pub joining: &'a BTreeSet<String>,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Wait,
    /// A job for these bricks.
    Create {
        /// Why.
        reason: JobReason,
        /// For whom; not empty.
        targets: Vec<String>,
        /// When the policy's window closes, if it has windows.
        not_after: Option<Timestamp>,
    },
    /// The trigger was acted on: write it to `lastTrigger`.
    Acknowledge {
        /// Whether it is acknowledged because nothing was pending.
        nothing_pending: bool,
    },
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What has to be done now.
    pub action: Action,
    /// When the next job is due by the policy, if what is pending now is still pending then.
    pub next: Option<Timestamp>,
}

/// Decides.
pub fn decide(input: &Input) -> Decision {
    let reachable = reachable_targets(input);
    let due = match input.timetable {
        Some(timetable) if !reachable.is_empty() && !input.active => {
            let waiting = waiting(reachable.values().map(|t| t.fresh));
            timetable.next(&waiting, input.last, input.speed, input.now)
        }
        _ => None,
    };
    let next = due.map(|due| due.at);

    if input.trigger.is_some() {
        if input.trigger_has_job {
            return Decision { action: Action::Acknowledge { nothing_pending: false }, next };
        }
        // A person who asks is told of every brick that lacks something, also of those that are away.
        let targets: Vec<String> =
            input.targets.keys().filter(|t| input.bricks.contains_key(*t)).cloned().collect();
        let action = if input.active {
            Action::Wait
        } else if !targets.is_empty() {
            Action::Create { reason: JobReason::Trigger, targets, not_after: None }
        } else if input.reported_since_trigger {
            Action::Acknowledge { nothing_pending: true }
        } else {
            Action::Wait
        };
        return Decision { action, next };
    }
    // A brick that joins receives its files at once, within the windows; what a job left over waits its time as always.
    let joins: Vec<String> =
        reachable.keys().filter(|t| input.joining.contains(**t)).map(|t| (*t).to_string()).collect();
    if let Some(timetable) =
        input.timetable.filter(|t| !joins.is_empty() && !input.active && t.is_open(input.now))
    {
        let not_after = timetable.closes(input.now);
        return Decision {
            action: Action::Create { reason: JobReason::Migration, targets: joins, not_after },
            next,
        };
    }
    if let Some(due) = due.filter(|due| due.at <= input.now) {
        let reason = match due.why {
            Why::Schedule => JobReason::Scheduled,
            Why::Settled => JobReason::Settled,
            Why::Age => JobReason::MaxPendingAge,
            Why::Bytes => JobReason::MaxPendingBytes,
        };
        let targets = reachable.keys().map(|t| (*t).to_string()).collect();
        let not_after = input.timetable.and_then(|t| t.closes(input.now));
        return Decision { action: Action::Create { reason, targets, not_after }, next };
    }
    Decision { action: Action::Wait, next }
}

/// Bricks that lack something, can work, and have somebody to copy from. A brick that is away waits
/// until it returns: a job for it would only fail, again at every time of the schedule.
fn reachable_targets<'a>(input: &Input<'a>) -> BTreeMap<&'a str, &'a Target> {
    let works = |brick: &str| input.bricks.get(brick).copied().unwrap_or(false);
    input
        .targets
        .iter()
        .filter(|(name, target)| {
            let somebody_else = || input.bricks.iter().any(|(b, works)| *works && b != *name);
            target.fresh.files > 0 && works(name) && (target.has_source || somebody_else())
        })
        .map(|(name, target)| (name.as_str(), target))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::pending::Counts;
    use proptest::prelude::*;

    const MINUTE: i64 = 60;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn lacks(files: u64, oldest: i64) -> Target {
        let c = Counts { files, bytes: files, oldest: Some(at(oldest)), newest: Some(at(oldest)) };
        Target { all: c, fresh: c, has_source: true }
    }

    struct World {
        targets: BTreeMap<String, Target>,
        bricks: BTreeMap<String, bool>,
        joining: BTreeSet<String>,
        timetable: Timetable,
    }

    impl World {
        fn new(targets: &[(&str, Target)]) -> Self {
            Self {
                targets: targets.iter().map(|(n, t)| ((*n).to_string(), *t)).collect(),
                bricks: ["v.a", "v.b", "v.c"].into_iter().map(|b| (b.to_string(), true)).collect(),
                joining: BTreeSet::new(),
                timetable: Timetable::of(None, at(0), "uid").unwrap(),
            }
        }

        fn input(&self, now: i64) -> Input<'_> {
            Input {
                now: at(now),
                timetable: Some(&self.timetable),
                trigger: None,
                trigger_has_job: false,
                reported_since_trigger: true,
                last: LastRun::default(),
                speed: Speed::default(),
                active: false,
                targets: &self.targets,
                bricks: &self.bricks,
                joining: &self.joining,
            }
        }
    }

    fn create(reason: JobReason, targets: &[&str]) -> Action {
        let targets = targets.iter().map(|t| (*t).to_string()).collect();
        Action::Create { reason, targets, not_after: None }
    }

    #[test]
    fn nothing_pending_no_job_and_no_next_time() {
        let w = World::new(&[]);
        assert_eq!(decide(&w.input(100 * MINUTE)), Decision { action: Action::Wait, next: None });
    }

    #[test]
    fn pending_waits_for_the_first_time_after_it_came_up() {
        let w = World::new(&[("v.b", lacks(3, 12 * MINUTE))]);
        let next = Some(at(20 * MINUTE));
        assert_eq!(decide(&w.input(12 * MINUTE)), Decision { action: Action::Wait, next });
        assert_eq!(decide(&w.input(20 * MINUTE - 1)), Decision { action: Action::Wait, next });
        let due = Decision { action: create(JobReason::Scheduled, &["v.b"]), next };
        assert_eq!(decide(&w.input(20 * MINUTE)), due);
        // An operator that was down at that time makes up for it.
        assert_eq!(decide(&w.input(55 * MINUTE)), due);
    }

    #[test]
    fn what_a_job_left_over_waits_for_the_next_time() {
        let w = World::new(&[("v.b", lacks(3, 0))]);
        let mut i = w.input(21 * MINUTE);
        i.last = LastRun { began: Some(at(20 * MINUTE)), ended: Some(at(20 * MINUTE + 9)) };
        assert_eq!(decide(&i), Decision { action: Action::Wait, next: Some(at(30 * MINUTE)) });
    }

    #[test]
    fn no_second_job_while_one_has_not_ended() {
        let w = World::new(&[("v.b", lacks(3, 0))]);
        let mut i = w.input(100 * MINUTE);
        i.active = true;
        assert_eq!(decide(&i), Decision { action: Action::Wait, next: None });
        i.trigger = Some("now");
        assert_eq!(decide(&i).action, Action::Wait);
    }

    #[test]
    fn paused_holds_back_the_schedule_but_not_a_trigger() {
        let w = World::new(&[("v.b", lacks(3, 0))]);
        let mut i = w.input(100 * MINUTE);
        i.timetable = None;
        assert_eq!(decide(&i), Decision { action: Action::Wait, next: None });
        i.trigger = Some("now");
        assert_eq!(decide(&i).action, create(JobReason::Trigger, &["v.b"]));
    }

    #[test]
    fn a_brick_that_is_away_waits_but_a_trigger_names_it() {
        let mut w = World::new(&[("v.b", lacks(3, 0)), ("v.c", lacks(1, 0))]);
        w.bricks.insert("v.b".into(), false);
        assert_eq!(decide(&w.input(100 * MINUTE)).action, create(JobReason::Scheduled, &["v.c"]));
        let mut i = w.input(100 * MINUTE);
        i.trigger = Some("now");
        assert_eq!(decide(&i).action, create(JobReason::Trigger, &["v.b", "v.c"]));
    }

    #[test]
    fn nobody_to_copy_from_no_job() {
        let mut w = World::new(&[("v.b", lacks(3, 0))]);
        w.targets.get_mut("v.b").unwrap().has_source = false;
        w.bricks = BTreeMap::from([("v.a".into(), false), ("v.b".into(), true)]);
        assert_eq!(decide(&w.input(100 * MINUTE)), Decision { action: Action::Wait, next: None });
    }

    #[test]
    fn a_trigger_with_nothing_pending_is_acknowledged_once_all_have_reported() {
        let w = World::new(&[]);
        let mut i = w.input(MINUTE);
        i.trigger = Some("now");
        i.reported_since_trigger = false;
        assert_eq!(decide(&i).action, Action::Wait);
        i.reported_since_trigger = true;
        assert_eq!(decide(&i).action, Action::Acknowledge { nothing_pending: true });
    }

    #[test]
    fn a_trigger_whose_job_was_made_before_a_crash_is_acknowledged() {
        let w = World::new(&[("v.b", lacks(3, 0))]);
        let mut i = w.input(MINUTE);
        i.trigger = Some("now");
        i.trigger_has_job = true;
        i.active = true;
        assert_eq!(decide(&i).action, Action::Acknowledge { nothing_pending: false });
    }

    fn under(fields: &str, targets: &[(&str, Target)]) -> World {
        let policy = serde_json::from_str(fields).unwrap();
        World { timetable: Timetable::of(Some(&policy), at(0), "uid").unwrap(), ..World::new(targets) }
    }

    #[test]
    fn a_job_says_why_it_was_made_and_ends_with_its_window() {
        let lacks = lacks(3, 12 * MINUTE);
        let w = under(r#"{"interval": "10m", "whenSettled": "5s"}"#, &[("v.b", lacks)]);
        assert_eq!(decide(&w.input(12 * MINUTE + 4)).action, Action::Wait);
        assert_eq!(decide(&w.input(12 * MINUTE + 5)).action, create(JobReason::Settled, &["v.b"]));
        let w = under(r#"{"interval": "24h", "maxPendingAge": "3m"}"#, &[("v.b", lacks)]);
        assert_eq!(decide(&w.input(15 * MINUTE)).action, create(JobReason::MaxPendingAge, &["v.b"]));
        let w = under(r#"{"interval": "24h", "maxPendingBytes": "3"}"#, &[("v.b", lacks)]);
        assert_eq!(decide(&w.input(13 * MINUTE)).action, create(JobReason::MaxPendingBytes, &["v.b"]));

        let window =
            r#"{"interval": "10m", "windows": [{"start": {"schedule": "0 1 * * *"}, "duration": "2h"}]}"#;
        let w = under(window, &[("v.b", lacks)]);
        let closed = decide(&w.input(30 * MINUTE));
        assert_eq!(closed, Decision { action: Action::Wait, next: Some(at(60 * MINUTE)) });
        let Action::Create { reason, not_after, .. } = decide(&w.input(70 * MINUTE)).action else { panic!() };
        assert_eq!((reason, not_after), (JobReason::Scheduled, Some(at(180 * MINUTE))));
        // A person who asks is not held back.
        let asked = Input { trigger: Some("now"), ..w.input(30 * MINUTE) };
        assert_eq!(decide(&asked).action, create(JobReason::Trigger, &["v.b"]));
    }

    proptest! {
        #[test]
        fn jobs_are_only_for_what_is_pending_and_never_two_at_once(
            now in 0i64..100_000,
            pending in proptest::collection::btree_map("v\\.[abcd]", (0u64..3, 0i64..100_000, any::<bool>()), 0..4),
            works in proptest::collection::btree_map("v\\.[abc]", any::<bool>(), 0..4),
            last_run in proptest::option::of(0i64..100_000),
            active: bool, triggered: bool, has_job: bool, reported: bool,
        ) {
            let mut w = World::new(&[]);
            w.targets = pending.iter().filter(|(_, p)| p.0 > 0).map(|(n, (files, oldest, source))| {
                (n.clone(), Target { has_source: *source, ..lacks(*files, *oldest) })
            }).collect();
            w.bricks = works;
            let i = Input {
                active, last: LastRun { began: last_run.map(at), ended: None }, trigger: triggered.then_some("x"),
                trigger_has_job: has_job, reported_since_trigger: reported, ..w.input(now)
            };
            let d = decide(&i);
            if let Action::Create { targets, .. } = &d.action {
                prop_assert!(!active);
                prop_assert!(!targets.is_empty());
                prop_assert!(targets.iter().all(|t| w.targets.contains_key(t) && w.bricks.contains_key(t)));
                // Once it is made, the next by schedule is in the future.
                let last = LastRun { began: Some(at(now)), ended: Some(at(now)) };
                let after = decide(&Input { last, trigger: None, ..i.clone() });
                prop_assert!(after.next.is_none_or(|n| n > at(now)));
                prop_assert_eq!(after.action, Action::Wait);
            }
            if active || w.targets.is_empty() {
                prop_assert_eq!(d.next, None);
            }
            if !triggered {
                let acknowledged = matches!(d.action, Action::Acknowledge { .. });
                prop_assert!(!acknowledged);
            }
        }
    }
}
