//! The policy's window of loss under load: writers that never pause, heals that take their time, and the worst age
//! and amount ever seen, against what the policy allows.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use nearbrick_crds::HealPolicySpec;
use nearbrick_crds::timetable::{LastRun, Speed, Timetable};
use nearbrick_operator::plan::due::{Action, Input, decide};
use nearbrick_operator::plan::pending::{Counts, Target};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

#[derive(Debug, Default)]
struct Worst {
    age: i64,
    bytes: u64,
    jobs: u32,
}

/// A brick that lacks what is written elsewhere, in steps of one second.
struct Load<'a> {
    timetable: &'a Timetable,
    /// Bytes that are copied in a second.
    rate: u64,
    /// Bytes that are written in each second of a period, over and over.
    writes: &'a [u64],
    seconds: i64,
}

fn run(load: &Load) -> Worst {
    let Load { timetable, rate, writes, seconds } = *load;
    let bricks = BTreeMap::from([("v.a".to_string(), true), ("v.b".to_string(), true)]);
    // When each was written, and how large it is; the first of them are in the job that runs.
    let mut waiting: VecDeque<(i64, u64)> = VecDeque::new();
    let mut job: Option<(i64, usize)> = None;
    let mut last = LastRun::default();
    let mut reported = Counts::default();
    let mut worst = Worst::default();
    for now in 0..seconds {
        let bytes = writes[usize::try_from(now).unwrap() % writes.len()];
        if bytes > 0 {
            waiting.push_back((now, bytes));
        }
        if let Some((end, files)) = job
            && end <= now
        {
            waiting.drain(..files);
            job = None;
            last.ended = Some(at(now));
        }
        worst.age = worst.age.max(waiting.front().map_or(0, |(since, _)| now - since));
        worst.bytes = worst.bytes.max(waiting.iter().map(|(_, bytes)| bytes).sum());
        // Decided by what was reported a second ago.
        let targets = match reported.files {
            0 => BTreeMap::new(),
            _ => BTreeMap::from([(
                "v.b".to_string(),
                Target { all: reported, fresh: reported, has_source: true },
            )]),
        };
        let decision = decide(&Input {
            now: at(now),
            timetable: Some(timetable),
            trigger: None,
            trigger_has_job: false,
            reported_since_trigger: true,
            last,
            speed: Speed { bytes: Some(rate), files: None },
            active: job.is_some(),
            targets: &targets,
            bricks: &bricks,
            joining: &BTreeSet::new(),
        });
        if let Action::Create { .. } = decision.action {
            let all: u64 = waiting.iter().map(|(_, bytes)| bytes).sum();
            // Two seconds until the agent has begun, and one in which its end is noticed.
            let takes = i64::try_from(all.div_ceil(rate)).unwrap() + 3;
            job = Some((now + takes, waiting.len()));
            last.began = Some(at(now));
            worst.jobs += 1;
        }
        reported = Counts {
            files: waiting.len() as u64,
            bytes: waiting.iter().map(|(_, bytes)| bytes).sum(),
            oldest: waiting.front().map(|(since, _)| at(*since)),
            newest: waiting.back().map(|(since, _)| at(*since)),
        };
    }
    worst
}

fn policy(max_age: i64, max_bytes: Option<u64>) -> Timetable {
    let policy = HealPolicySpec {
        cron: Some(nearbrick_crds::CronSchedule { schedule: "@yearly".into(), time_zone: None }),
        max_pending_age: Some(format!("{max_age}s")),
        max_pending_bytes: max_bytes.map(|n| n.to_string()),
        ..HealPolicySpec::default()
    };
    Timetable::of(Some(&policy), at(0), "uid").unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_is_pending_for_longer_than_the_policy_allows_under_load(
        max_age in 40i64..3_000,
        rate in 1u64..200,
        percent in 1u64..45,
        bursts in prop::collection::vec(0u64..100, 1..40),
    ) {
        let rate = rate * MIB;
        // Bursts of any shape that are this share of the rate in the mean.
        let sum: u64 = bursts.iter().sum::<u64>().max(1);
        let all = rate * percent / 100 * bursts.len() as u64;
        let writes: Vec<u64> = bursts.iter().map(|n| all / sum * n).collect();
        let timetable = policy(max_age, None);
        let seconds = 10 * max_age;
        let worst = run(&Load { timetable: &timetable, rate, writes: &writes, seconds });
        prop_assert!(worst.age <= max_age, "{:?} of {}", worst, max_age);
        // And there are not more heals than that takes.
        let burst = i64::try_from(writes.iter().max().unwrap().div_ceil(rate)).unwrap();
        let least = (max_age / 3 - 3 * burst - 10).max(3);
        prop_assert!(i64::from(worst.jobs) <= seconds / least + 2, "{:?} in {} s of {}", worst, seconds, max_age);
    }

    #[test]
    fn no_more_is_pending_than_the_policy_allows_under_load(
        rate in 10u64..200,
        percent in 1u64..45,
        spare in 2u64..20,
    ) {
        let rate = rate * MIB;
        let writes = [rate * percent / 100];
        // What comes until a heal has begun is at least to be allowed.
        let max = writes[0] * 12 * spare + MIB;
        let timetable = policy(100_000, Some(max));
        let worst = run(&Load { timetable: &timetable, rate, writes: &writes, seconds: 5_000 });
        prop_assert!(worst.bytes <= max, "{:?} of {}", worst, max);
    }
}
