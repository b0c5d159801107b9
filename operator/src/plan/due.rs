//! Whether a heal job has to be made for a volume now, and for which bricks.
//!
//! Invariants:
//! - nothing pending: no job, whatever the schedule says;
//! - never a second job while one has not ended;
//! - what became pending after the last time of the schedule waits for the next one, and the answer
//!   needs no memory of times at which nothing was pending;
//! - a clock that is wrong on some workstation neither stops heals nor makes more than one in each
//!   interval.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nearbrick_crds::JobReason;

use super::pending::Target;
use super::schedule::Schedule;

/// What the decision rests on.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The operator's clock.
    pub now: Timestamp,
    /// Where intervals are counted from.
    pub anchor: Timestamp,
    /// The schedule, if there is one that can be followed and it is not paused.
    pub schedule: Option<&'a Schedule>,
    /// `spec.trigger`, unless `status.lastTrigger` says the same.
    pub trigger: Option<&'a str>,
    /// Whether a job for this trigger exists already.
    pub trigger_has_job: bool,
    /// Whether every agent that is not silent has reported since the trigger was seen first.
    pub reported_since_trigger: bool,
    /// When the last job of this volume was made or ended.
    pub last_run: Option<Timestamp>,
    /// Whether a job of this volume has not ended.
    pub active: bool,
    /// What each brick lacks.
    pub targets: &'a BTreeMap<String, Target>,
    /// All bricks of the volume, and whether each can work at present.
    pub bricks: &'a BTreeMap<String, bool>,
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
    /// When the next job is due by schedule, if what is pending now is still pending then.
    pub next: Option<Timestamp>,
}

/// Decides.
pub fn decide(input: &Input) -> Decision {
    let reachable = reachable_targets(input);
    let oldest = reachable.values().filter_map(|t| t.fresh.oldest).min();
    // Neither a job nor a file from the future may hold back the schedule.
    let since = [oldest, input.last_run].into_iter().flatten().max().map(|t| t.min(input.now));
    let next = match input.schedule {
        Some(schedule) if !reachable.is_empty() && !input.active => match since {
            Some(since) => schedule.next_after(since, input.anchor),
            None => Some(input.now),
        },
        _ => None,
    };

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
            Action::Create { reason: JobReason::Trigger, targets }
        } else if input.reported_since_trigger {
            Action::Acknowledge { nothing_pending: true }
        } else {
            Action::Wait
        };
        return Decision { action, next };
    }
    if next.is_some_and(|n| n <= input.now) {
        let targets = reachable.keys().map(|t| (*t).to_string()).collect();
        return Decision { action: Action::Create { reason: JobReason::Scheduled, targets }, next };
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
        let c = Counts { files, bytes: files, oldest: Some(at(oldest)) };
        Target { all: c, fresh: c, has_source: true }
    }

    struct World {
        targets: BTreeMap<String, Target>,
        bricks: BTreeMap<String, bool>,
        schedule: Schedule,
    }

    impl World {
        fn new(targets: &[(&str, Target)]) -> Self {
            Self {
                targets: targets.iter().map(|(n, t)| ((*n).to_string(), *t)).collect(),
                bricks: ["v.a", "v.b", "v.c"].into_iter().map(|b| (b.to_string(), true)).collect(),
                schedule: Schedule::parse(None).unwrap(),
            }
        }

        fn input(&self, now: i64) -> Input<'_> {
            Input {
                now: at(now),
                anchor: at(0),
                schedule: Some(&self.schedule),
                trigger: None,
                trigger_has_job: false,
                reported_since_trigger: true,
                last_run: None,
                active: false,
                targets: &self.targets,
                bricks: &self.bricks,
            }
        }
    }

    fn create(reason: JobReason, targets: &[&str]) -> Action {
        Action::Create { reason, targets: targets.iter().map(|t| (*t).to_string()).collect() }
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
        i.last_run = Some(at(20 * MINUTE));
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
        i.schedule = None;
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

    #[test]
    fn a_pending_file_from_the_future_does_not_stop_heals() {
        let w = World::new(&[("v.b", lacks(3, 1_000_000_000))]);
        assert_eq!(decide(&w.input(5 * MINUTE)).next, Some(at(10 * MINUTE)));
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
                active, last_run: last_run.map(at), trigger: triggered.then_some("x"),
                trigger_has_job: has_job, reported_since_trigger: reported, ..w.input(now)
            };
            let d = decide(&i);
            if let Action::Create { targets, .. } = &d.action {
                prop_assert!(!active);
                prop_assert!(!targets.is_empty());
                prop_assert!(targets.iter().all(|t| w.targets.contains_key(t) && w.bricks.contains_key(t)));
                // Once it is made, the next by schedule is in the future.
                let after = decide(&Input { last_run: Some(at(now)), trigger: None, ..i.clone() });
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
