//! Many seeds; and that the checks see what they are there for.

use std::collections::BTreeMap;

use super::machine::End;
use super::run::{Plan, after, verdict};
use super::shrink;
use super::steps::{Action, Faults, Step, What};

/// Bits turn, agents are killed, and the power fails.
pub const FLIPS_AND_CUTS: Faults = Faults { kills: true, power: true, flips: true, compaction: true, ..NONE };

/// All that can go wrong.
pub const ALL: Faults = Faults {
    kills: true,
    power: true,
    disks: true,
    flips: false,
    clocks: true,
    indexes: true,
    compaction: true,
    rules: false,
    large: false,
    brakes: false,
};
/// Only the network.
pub const NONE: Faults = Faults {
    kills: false,
    power: false,
    disks: false,
    flips: false,
    clocks: false,
    indexes: false,
    compaction: false,
    rules: false,
    large: false,
    brakes: false,
};

/// Seeds of each test in the ordinary run.
const CASES: u64 = 100;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a plan that must not fail; says how to see it again if it does.
fn must_pass(test: &str, plan: &Plan) {
    let ran = plan.run(false);
    let Some(why) = ran.failure else { return };
    let keep = shrink::shrink(plan, &why);
    let small = plan.keeping(&keep).run(false);
    panic!(
        "{why}\nwith fewer steps: {}\n{}\nto see it again:\n  NEARBRICK_SEED={} NEARBRICK_KEEP={} cargo test \
         --test simulation {test} -- --nocapture\n",
        small.failure.as_deref().unwrap_or("passes"),
        small.trace.join("\n"),
        plan.seed,
        shrink::written(&keep),
    );
}

/// One seed with all that happens in it, or many.
fn seeds(test: &str, faults: Faults) {
    if let Some(seed) = number("NEARBRICK_SEED") {
        let mut plan = Plan::new(seed, faults);
        if let Ok(keep) = std::env::var("NEARBRICK_KEEP") {
            plan = plan.keeping(&shrink::read(&keep));
        }
        let log = tracing_subscriber::fmt().with_test_writer().with_max_level(tracing::Level::DEBUG);
        let _ = log.without_time().try_init();
        if let Some(why) = plan.run(true).failure {
            panic!("{why}");
        }
        return;
    }
    let first = number("NEARBRICK_FIRST").unwrap_or(0);
    let all = first..first + number("NEARBRICK_CASES").unwrap_or(CASES);
    let mut failed = BTreeMap::new();
    for seed in all.clone() {
        if let Some(why) = Plan::new(seed, faults).run(false).failure {
            failed.insert(seed, why.lines().next().unwrap_or_default().to_owned());
        }
    }
    println!("{} seeds, {} failed", all.count(), failed.len());
    for (seed, why) in &failed {
        println!("  {seed}: {why}");
    }
    if let Some(seed) = failed.keys().next() {
        must_pass(test, &Plan::new(*seed, faults));
    }
    assert!(failed.is_empty());
}

#[test]
fn t14_t15_members_whose_clocks_jump_by_years_agree() {
    seeds("t14_t15", Faults { clocks: true, compaction: true, ..NONE });
}

#[test]
fn t28_agents_killed_at_any_step_lose_nothing() {
    seeds("t28", Faults { kills: true, compaction: true, ..NONE });
}

#[test]
fn t01_t02_power_cut_at_any_step_loses_nothing_acknowledged() {
    seeds("t01_t02", Faults { kills: true, power: true, compaction: true, ..NONE });
}

#[test]
fn t23_disks_that_are_full_failing_or_read_only_lose_nothing_acknowledged() {
    seeds("t23", Faults { disks: true, compaction: true, ..NONE });
}

#[test]
fn t22_large_files_come_whole_whatever_happens() {
    seeds("t22", Faults { kills: true, power: true, disks: true, compaction: true, large: true, ..NONE });
}

#[test]
fn t25_bits_that_a_disk_turns_are_found_and_neither_lost_nor_spread() {
    seeds("t25", Faults { kills: true, flips: true, compaction: true, ..NONE });
}

#[test]
fn t01_t25_bits_that_turn_where_the_power_fails_too_lose_nothing() {
    seeds("t01_t25", FLIPS_AND_CUTS);
}

#[test]
fn removals_of_many_files_are_held_back_and_then_what_a_person_says() {
    seeds("removals", Faults { kills: true, power: true, compaction: true, brakes: true, ..NONE });
}

#[test]
fn t26_sets_that_change_while_agents_and_machines_end_lose_nothing_acknowledged() {
    seeds("t26", Faults { kills: true, power: true, compaction: true, rules: true, ..NONE });
}

#[test]
fn p01_whatever_happens_nothing_is_lost_and_pending_is_true() {
    seeds("p01", ALL);
}

#[test]
fn one_seed_is_one_trace() {
    for seed in 0..20 {
        let plan = Plan::new(seed, ALL);
        let (one, other) = (plan.run(false), plan.run(false));
        for (n, (a, b)) in one.trace.iter().zip(&other.trace).enumerate() {
            assert_eq!(a, b, "seed {seed}, line {n}");
        }
        assert_eq!(one.trace.len(), other.trace.len());
    }
}

fn put(member: usize, path: usize) -> Step {
    Step { salt: 1, what: What::Program { member, action: Action::Put { path, len: 700, sync: true } } }
}

/// A run of three members.
pub fn quiet(steps: Vec<Step>) -> Plan {
    Plan { seed: 1, members: 3, faults: ALL, steps }
}

#[test]
fn the_checks_see_a_file_that_is_not_what_a_program_left() {
    let plan = quiet(vec![put(0, 0), put(1, 1)]);
    verdict(&plan, |_| {}).unwrap();
    let spoiled = verdict(&plan, |world| world.machines[0].disk.damage(&[b"a".to_vec()]));
    spoiled.unwrap_err();
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_may_lose_the_rest() {
    let (mut lost, mut kept) = (0, 0);
    for salt in 0..50 {
        let end = Step { salt, what: What::End { member: 0, how: End::PowerCut, after: None } };
        let unsynced = What::Program { member: 0, action: Action::Put { path: 1, len: 700, sync: false } };
        let world = after(&quiet(vec![put(0, 0), Step { salt: 1, what: unsynced }, end])).unwrap();
        let bytes = |name: &[u8]| world.machines[0].disk.file_at(&[name.to_vec()]).map(|f| f.bytes.len());
        assert_eq!(bytes(b"a"), Some(700));
        if bytes(b"b") == Some(700) { kept += 1 } else { lost += 1 }
    }
    assert!(lost > 5 && kept > 5, "lost {lost}, kept {kept}");
}
