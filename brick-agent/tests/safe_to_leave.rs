//! `SafeToLeave`, both ways: what it says is tried out by taking the machine away.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};

use nearbrick_agent::peer::Served;
use nearbrick_agent::peer::wire::Heads;
use nearbrick_core::op;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use support::drive::{self, Slots};
use support::fs::{Fs, path};
use support::leave::{reason, says};
use support::members::Lab;
use support::ops::{Op, member_op};
use support::{tree, wait};

#[test]
fn what_nobody_else_has_heard_of_holds_back_until_one_has() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    Fs::new(lab.volume(0)).write_file(&path("f"), b"bytes").unwrap();
    assert_eq!(reason(&lab, 1), "AllCopied", "who did nothing is safe");
    lab.converge();
    assert_eq!(reason(&lab, 0), "AllCopied");
    let done: [fn(&Fs); 4] = [
        |fs| fs.mkdir(&path("empty")).unwrap(),
        |fs| fs.rename(&path("f"), &path("g")).unwrap(),
        |fs| fs.chmod(&path("g"), 0o600).unwrap(),
        |fs| fs.rmdir(&path("empty")).unwrap(),
    ];
    for (n, work) in done.iter().enumerate() {
        work(&Fs::new(lab.volume(0)));
        assert_eq!(reason(&lab, 0), "NotHeard", "step {n}");
        if n == 1 {
            // Nor does it forget that when it starts again.
            lab.reopen(0);
            assert_eq!(reason(&lab, 0), "NotHeard");
        }
        // One has asked, and not yet said that it has what it got: then it has, and that is enough.
        lab.pull(2, 0);
        assert_eq!(reason(&lab, 0), "AllCopied", "step {n}");
    }
    lab.reopen(0);
    lab.pull(1, 0);
    assert_eq!(reason(&lab, 0), "AllCopied");
}

#[test]
fn a_copy_that_a_heal_brought_holds_nobody_back() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    Fs::new(lab.volume(0)).write_file(&path("f"), b"bytes").unwrap();
    lab.settle(0);
    lab.exchange();
    assert_eq!(reason(&lab, 0), "Pending");
    lab.heal(1);
    // That it has a copy now nobody has heard; who misses that only copies once more.
    assert_eq!(reason(&lab, 1), "AllCopied");
    assert_eq!(reason(&lab, 0), "Pending", "it has not heard of the copy");
    lab.pull(0, 1);
    assert_eq!(reason(&lab, 0), "AllCopied");
}

#[test]
fn a_file_whose_replica_set_is_this_brick_alone_holds_back_until_another_has_it() {
    needs!(Root);
    let lab = Lab::new(2, 1);
    Fs::new(lab.volume(0)).write_file(&path("f"), b"bytes").unwrap();
    lab.settle(0);
    assert_eq!(reason(&lab, 0), "OnlyHere");
    lab.exchange();
    assert_eq!(reason(&lab, 0), "OnlyHere");
    assert_eq!(lab.volume(0).status().only_here.bytes, 5);
    // A copy that was only read is one too.
    assert_eq!(Fs::new(lab.volume(1)).read_file(&path("f")).unwrap(), b"bytes");
    wait("the copy is durable, and others hear of it", || {
        lab.exchange();
        reason(&lab, 0) == "AllCopied"
    });
    Fs::new(lab.volume(0)).write_file(&path("f"), b"more").unwrap();
    lab.settle(0);
    lab.exchange();
    assert_eq!(reason(&lab, 0), "OnlyHere");
    Fs::new(lab.volume(0)).unlink(&path("f")).unwrap();
    lab.exchange();
    assert_eq!(reason(&lab, 0), "AllCopied");
}

#[test]
fn a_version_in_conflict_that_is_only_here_holds_back() {
    needs!(Root);
    let lab = Lab::new(3, 1);
    Fs::new(lab.volume(0)).write_file(&path("f"), b"base").unwrap();
    lab.converge();
    // Both edit a copy; neither is in the other's replica set.
    for n in [0, 1] {
        Fs::new(lab.volume(n)).write_file(&path("f"), format!("of member {n}").as_bytes()).unwrap();
        lab.settle(n);
    }
    for n in [0, 1] {
        assert_ne!(reason(&lab, n), "AllCopied");
    }
    lab.exchange();
    for n in [0, 1] {
        assert_ne!(reason(&lab, n), "AllCopied", "each has what nobody else has");
    }
}

/// A step of a run.
#[derive(Clone, Debug)]
enum Step {
    Do(usize, Op),
    Pull(usize, usize),
    Heal(usize),
    Reopen(usize),
    Gossip(usize, usize),
    Compact(usize),
    /// A member goes, if it says that it may.
    Leave(usize),
}

fn steps(members: usize, len: usize) -> impl Strategy<Value = Vec<Step>> {
    let m = 0..members;
    let step = prop_oneof![
        10 => (m.clone(), member_op()).prop_map(|(n, op)| Step::Do(n, op)),
        4 => (m.clone(), m.clone()).prop_map(|(to, from)| Step::Pull(to, from)),
        3 => m.clone().prop_map(Step::Heal),
        1 => m.clone().prop_map(Step::Reopen),
        1 => (m.clone(), m.clone()).prop_map(|(a, b)| Step::Gossip(a, b)),
        1 => m.clone().prop_map(Step::Compact),
        4 => m.prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 1..len)
}

struct World {
    lab: Lab,
    slots: Vec<Slots>,
}

impl World {
    /// Says whether a member has left: what was read then, without it, is the end of the run.
    fn step(&mut self, step: &Step) -> bool {
        match step {
            Step::Do(n, op) => {
                drop(drive::apply(self.lab.volume(*n), &mut self.slots[*n], op));
                if !matches!(op, Op::Open { .. } | Op::Write { .. }) {
                    self.slots[*n].close_all(self.lab.volume(*n));
                }
            }
            Step::Pull(to, from) if to != from => drop(self.lab.pull(*to, *from)),
            Step::Gossip(a, b) if a != b => self.lab.gossip(*a, *b),
            Step::Pull(..) | Step::Gossip(..) => {}
            Step::Heal(n) => drop(self.lab.heal(*n)),
            Step::Compact(n) => drop(self.lab.volume(*n).compact(std::time::Duration::MAX).unwrap()),
            Step::Reopen(n) => {
                self.slots[*n].close_all(self.lab.volume(*n));
                self.lab.reopen(*n);
            }
            Step::Leave(n) => return self.leave(*n),
        }
        false
    }

    /// If the member says that it may go, the others have heard of all that it did, and read every file without it,
    /// none of them in an older version.
    fn leave(&mut self, n: usize) -> bool {
        if reason(&self.lab, n) != "AllCopied" {
            return false;
        }
        let lab = &self.lab;
        lab.net.set_cut(lab.brick(n), true);
        let others: Vec<usize> = (0..lab.count()).filter(|o| *o != n).collect();
        for o in &others {
            self.slots[*o].close_all(lab.volume(*o));
            lab.settle(*o);
        }
        for (to, from) in others.iter().flat_map(|to| others.iter().map(move |from| (*to, *from))) {
            if to != from {
                lab.pull(to, from);
            }
        }
        let mut heads = Heads::new();
        for (origin, seq) in others.iter().flat_map(|o| lab.volume(*o).heads()) {
            let known = heads.entry(origin).or_insert(0);
            *known = seq.max(*known);
        }
        let own = lab.volume(n).status().incarnation;
        for entry in lab.volume(n).entries_after(&heads, usize::MAX).unwrap() {
            let harmless = matches!(
                entry.op,
                op::Op::Have { .. }
                    | op::Op::Drop { .. }
                    | op::Op::Dirty { .. }
                    | op::Op::Clean { .. }
                    | op::Op::Content { .. }
            );
            assert!(
                entry.origin != own || harmless,
                "{n} said that it may go, and nobody knows of {entry:?}"
            );
        }
        for o in &others {
            let before = lab.volume(*o).status().stale_reads;
            // It panics where a file cannot be read.
            tree::of_volume(lab.volume(*o), 100);
            let after = lab.volume(*o).status().stale_reads;
            assert_eq!(after, before, "{n} said that it may go, and {o} reads older versions");
        }
        lab.net.set_cut(lab.brick(n), false);
        true
    }
}

fn caught(work: impl FnOnce()) -> Result<(), TestCaseError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        TestCaseError::fail(text.unwrap_or_else(|| "a panic".to_owned()))
    })
}

/// Says whether a member left on the way.
fn run(members: usize, replicas: usize, steps: &[Step]) -> bool {
    let lab = Lab::new(members, replicas);
    let mut world = World { lab, slots: (0..members).map(|_| Slots::default()).collect() };
    let left = steps.iter().any(|step| world.step(step));
    for (n, slots) in world.slots.iter_mut().enumerate() {
        slots.close_all(world.lab.volume(n));
    }
    // And never needlessly no: when all is copied and heard, everybody may go.
    world.lab.converge();
    world.lab.exchange();
    for n in 0..members {
        assert_eq!(reason(&world.lab, n), "AllCopied", "member {n} at rest: {:?}", says(&world.lab, n));
    }
    left
}

#[test]
fn who_may_go_has_nothing_that_the_others_lack_and_at_rest_all_may_go() {
    needs!(Root);
    let env = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = env("NEARBRICK_SEED").unwrap_or_else(rand::random);
    let cases = env("NEARBRICK_CASES").map_or(24, |n: u64| n as u32);
    println!("seed: NEARBRICK_SEED={seed}");
    for (members, replicas) in [(3, 2), (2, 2)] {
        let config = Config {
            cases,
            rng_seed: RngSeed::Fixed(seed),
            failure_persistence: None,
            max_shrink_iters: 500,
            ..Config::default()
        };
        let left = AtomicU32::new(0);
        let result = TestRunner::new(config).run(&steps(members, 50), |steps| {
            caught(|| {
                left.fetch_add(u32::from(run(members, replicas, &steps)), Ordering::Relaxed);
            })
        });
        if let Err(error) = result {
            panic!("{error}");
        }
        let left = left.into_inner();
        assert!(left >= cases / 4, "only in {left} of {cases} runs somebody said that it may go");
    }
}
