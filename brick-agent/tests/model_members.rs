//! Several members in one process: whatever each does, and in whatever order they hear
//! of each other, after a heal all show one tree and every file is where it must be.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;

use nearbrick_agent::config::ConflictRule;
use nearbrick_core::conflict::Policy;
use nearbrick_core::{BrickId, Entry};
use support::clock::next_millisecond;
use support::disk::Disk;
use support::drive::{self, Slots};
use support::fs::{Fs, ROOT, path, read_all};
use support::members::Lab;
use support::ops::{Op, member_op};
use support::random::{caught, runner};
use support::tree::{self, Tree, What};

/// A step of a run.
#[derive(Clone, Debug)]
enum Step {
    /// A member's program does something.
    Do(usize, Op),
    /// One member pulls from another.
    Pull(usize, usize),
    /// The same entries twice, and in a mixed order.
    PullMixed(usize, usize, u64),
    /// One member heals what it lacks.
    Heal(usize),
    /// One member is closed and opened again.
    Reopen(usize),
    /// Two tell each other what all have heard.
    Gossip(usize, usize),
    /// One gives up what it knows all to have heard.
    Compact(usize),
    /// One gives up everything: the others were away for too long.
    CompactAlone(usize),
}

fn steps(members: usize, len: usize) -> impl Strategy<Value = Vec<Step>> {
    let m = 0..members;
    let step = prop_oneof![
        12 => (m.clone(), member_op()).prop_map(|(n, op)| Step::Do(n, op)),
        3 => (m.clone(), m.clone()).prop_map(|(to, from)| Step::Pull(to, from)),
        2 => (m.clone(), m.clone(), any::<u64>()).prop_map(|(to, from, mix)| Step::PullMixed(to, from, mix)),
        2 => m.clone().prop_map(Step::Heal),
        1 => m.clone().prop_map(Step::Reopen),
        2 => (m.clone(), m.clone()).prop_map(|(a, b)| Step::Gossip(a, b)),
        1 => m.clone().prop_map(Step::Compact),
        1 => m.prop_map(Step::CompactAlone),
    ];
    prop::collection::vec(step, 1..len)
}

/// A fixed shuffle.
fn mixed(mut entries: Vec<Entry>, mut seed: u64) -> Vec<Entry> {
    entries.extend(entries.clone());
    for i in (1..entries.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        entries.swap(i, (seed >> 33) as usize % (i + 1));
    }
    entries
}

struct World {
    lab: Lab,
    slots: Vec<Slots>,
}

impl World {
    fn new(members: usize, replicas: usize) -> Self {
        World { lab: Lab::new(members, replicas), slots: (0..members).map(|_| Slots::default()).collect() }
    }

    fn step(&mut self, step: &Step) {
        match step {
            // What the program is told is looked at elsewhere: here any answer goes.
            Step::Do(n, op) => drop(drive::apply(self.lab.volume(*n), &mut self.slots[*n], op)),
            Step::Pull(to, from) if to != from => {
                self.lab.pull(*to, *from);
            }
            Step::PullMixed(to, from, _) if to != from && self.lab.is_behind(*to, *from) => {
                self.lab.pull(*to, *from);
            }
            Step::PullMixed(to, from, mix) if to != from => {
                let entries = mixed(self.lab.lacking(*to, *from), *mix);
                self.lab.volume(*to).absorb(self.lab.brick(*from), entries).unwrap();
            }
            Step::Pull(..) | Step::PullMixed(..) => {}
            Step::Heal(n) => drop(self.lab.heal(*n)),
            Step::Gossip(a, b) if a != b => self.lab.gossip(*a, *b),
            Step::Gossip(..) => {}
            Step::Compact(n) => {
                self.lab.volume(*n).compact(std::time::Duration::MAX).unwrap();
            }
            Step::CompactAlone(n) => {
                self.lab.compact_alone(*n);
            }
            Step::Reopen(n) => {
                self.slots[*n].close_all(self.lab.volume(*n));
                self.lab.reopen(*n);
            }
        }
    }

    fn close_all(&mut self) {
        for (n, slots) in self.slots.iter_mut().enumerate() {
            slots.close_all(self.lab.volume(n));
            self.lab.settle(n);
        }
    }
}

/// Every file's bytes are on at least `copies` disks, whole.
fn assert_copies(lab: &Lab, shown: &Tree, copies: usize) {
    let disks: Vec<_> = (0..lab.count()).map(|n| tree::of_disk(&lab.data(n))).collect();
    for (path, entry) in &shown.0 {
        if !matches!(entry.what, What::File(_)) {
            continue;
        }
        let whole = disks.iter().filter(|d| d.0.get(path).is_some_and(|e| e.what == entry.what)).count();
        assert!(whole >= copies, "{} is whole on {whole} disks only", tree::shown(path));
    }
}

/// Members that hear of each change before the next one is made: no conflicts.
fn run_in_touch(members: usize, replicas: usize, steps: &[Step]) {
    let mut world = World::new(members, replicas);
    for step in steps {
        world.step(step);
        if let Step::Do(n, _) = step {
            // One writer at a time: what it has open is closed before another begins.
            world.slots[*n].close_all(world.lab.volume(*n));
            world.lab.settle(*n);
            world.lab.exchange();
        }
    }
    world.close_all();
    world.lab.converge();
    let shown = world.lab.one_tree();
    assert_copies(&world.lab, &shown, replicas);
    if members == replicas {
        for n in 0..members {
            tree::assert_same("what is shown", &shown, "a brick", &tree::of_disk(&world.lab.data(n)));
        }
    }
    for n in 0..members {
        assert_eq!(world.lab.volume(n).status().conflicts, 0);
    }
}

/// Members that do not hear of each other while they work.
fn run_apart(members: usize, replicas: usize, policy: Policy, steps: &[Step]) {
    let mut world = World::new(members, replicas);
    world.lab.configure(|config| config.conflicts = vec![ConflictRule { paths: Vec::new(), policy }]);
    steps.iter().for_each(|step| world.step(step));
    world.close_all();
    world.lab.converge();
    let shown = world.lab.one_tree();
    assert_copies(&world.lab, &shown, replicas);
    let conflicts: Vec<_> = (0..members).map(|n| world.lab.volume(n).status().conflicts).collect();
    assert!(conflicts.windows(2).all(|w| w[0] == w[1]), "conflicts: {conflicts:?}");
}

/// Found by the soak: a file was replaced elsewhere, and a program here opened what the kernel had looked up just before. It had been a
/// stub, and its holes were read.
#[test]
fn t08_a_stub_that_lost_its_name_is_not_opened_any_more() {
    needs!(Root);
    for how in ["replaced", "removed", "replaced here"] {
        let lab = Lab::new(2, 1);
        let there = Fs::new(lab.volume(0));
        there.write_file(&path("f"), b"bytes").unwrap();
        lab.settle(0);
        lab.pull(1, 0);
        let here = Fs::new(lab.volume(1));
        let node = here.stat(&path("f")).unwrap().node;
        match how {
            "replaced" => {
                there.write_file(&path("new"), b"other").unwrap();
                there.rename(&path("new"), &path("f")).unwrap();
            }
            "removed" => there.unlink(&path("f")).unwrap(),
            _ => {
                here.write_file(&path("new"), b"other").unwrap();
                here.rename(&path("new"), &path("f")).unwrap();
            }
        }
        lab.settle(0);
        lab.settle(1);
        lab.pull(1, 0);
        let opened = lab.volume(1).open_file(node, libc::O_RDONLY);
        assert_eq!(
            opened.map(|o| read_all(lab.volume(1), o.handle)).err(),
            Some(rustix::io::Errno::STALE),
            "{how}"
        );
    }
}

#[test]
fn two_members_in_touch_become_equal() {
    needs!(Root);
    if let Err(error) = runner(24).run(&steps(2, 40), |steps| caught(|| run_in_touch(2, 2, &steps))) {
        panic!("{error}");
    }
}

#[test]
fn three_members_in_touch_with_two_copies_each_become_equal() {
    needs!(Root);
    if let Err(error) = runner(16).run(&steps(3, 40), |steps| caught(|| run_in_touch(3, 2, &steps))) {
        panic!("{error}");
    }
}

#[test]
fn two_members_apart_show_one_tree_in_the_end() {
    needs!(Root);
    if let Err(error) =
        runner(32).run(&steps(2, 40), |steps| caught(|| run_apart(2, 2, Policy::KeepBoth, &steps)))
    {
        panic!("{error}");
    }
}

#[test]
fn three_members_apart_show_one_tree_in_the_end() {
    needs!(Root);
    if let Err(error) =
        runner(24).run(&steps(3, 50), |steps| caught(|| run_apart(3, 2, Policy::KeepBoth, &steps)))
    {
        panic!("{error}");
    }
}

#[test]
fn t15_members_apart_show_one_tree_in_the_end_whatever_the_policy() {
    needs!(Root);
    for policy in [Policy::Newest, Policy::Largest, Policy::Brick(BrickId([2; 16]))] {
        let run = |steps: Vec<Step>| caught(|| run_apart(3, 2, policy, &steps));
        if let Err(error) = runner(10).run(&steps(3, 40), run) {
            panic!("{policy:?}: {error}");
        }
    }
}

/// All files that one member shows, with their bytes.
fn files(lab: &Lab, n: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let of = |(path, e): (Vec<Vec<u8>>, tree::Entry)| match e.what {
        What::File(bytes) => Some((path.join(&b'/'), bytes)),
        _ => None,
    };
    tree::of_volume(lab.volume(n), 20).0.into_iter().filter_map(of).collect()
}

#[test]
fn t08_concurrent_edits_are_both_kept_under_the_same_names_everywhere() {
    needs!(Root);
    let lab = Lab::new(3, 2);
    Fs::new(lab.volume(0)).write_file(&path("report.txt"), b"first draft").unwrap();
    lab.converge();
    let edits: [&[u8]; 3] = [b"by the first", b"and the second", b"the third's"];
    for (n, edit) in edits.iter().enumerate() {
        Fs::new(lab.volume(n)).write_file(&path("report.txt"), edit).unwrap();
        lab.settle(n);
    }
    lab.converge();
    lab.one_tree();
    let shown = files(&lab, 0);
    let names: Vec<_> = shown.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect();
    assert_eq!(shown.len(), 3, "{names:?}");
    for edit in edits {
        assert_eq!(shown.iter().filter(|(_, bytes)| bytes == edit).count(), 1, "{names:?}");
    }
    assert_eq!(names.iter().filter(|n| n.contains("report (conflict, ws-")).count(), 2, "{names:?}");
    // Of one file; open until a person decides: by another name, or by removing it.
    for n in 0..3 {
        assert_eq!(lab.volume(n).status().conflicts, 1, "member {n}");
    }
    let losers: Vec<_> = shown.iter().map(|(path, _)| path.clone()).filter(|p| *p != b"report.txt").collect();
    lab.volume(1).rename(ROOT, &losers[0], ROOT, b"mine.txt", 0).unwrap();
    lab.volume(1).unlink(ROOT, &losers[1]).unwrap();
    lab.converge();
    for n in 0..3 {
        assert_eq!(lab.volume(n).status().conflicts, 0, "member {n}");
    }
    lab.one_tree();
}

#[test]
fn t08_the_name_of_a_kept_loser_never_overwrites_a_file() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    let (a, b) = (Fs::new(lab.volume(0)), Fs::new(lab.volume(1)));
    a.write_file(&path("f"), b"base").unwrap();
    lab.converge();
    let apart = || {
        a.write_file(&path("f"), b"of a").unwrap();
        b.write_file(&path("f"), b"of b").unwrap();
        (0..2).for_each(|n| lab.settle(n));
    };
    apart();
    lab.converge();
    // The name that the next loser would have is taken by a person's file in the meantime.
    let kept = files(&lab, 0).into_iter().find(|(p, _)| p != b"f").unwrap();
    assert!(kept.1 == b"of a" || kept.1 == b"of b");
    apart();
    lab.converge();
    let shown = files(&lab, 1);
    assert_eq!(shown.len(), 3);
    assert!(shown.contains(&kept));
    lab.one_tree();
}

#[test]
fn t01_a_copy_that_a_power_cut_damaged_is_brought_again_and_is_no_edit() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    let bytes = vec![7; 100_000];
    Fs::new(lab.volume(0)).write_file(&path("kept"), &bytes).unwrap();
    Fs::new(lab.volume(0)).write_file(&path("whole"), b"untouched").unwrap();
    lab.converge();
    for n in 0..2 {
        let incarnation = lab.volume(n).status().incarnation;
        lab.close(n);
        lab.lose_power(n);
        // As XFS leaves a file whose size reached the disk before its bytes.
        std::fs::File::options().write(true).open(lab.data(n).join("kept")).unwrap().set_len(10).unwrap();
        lab.open(n);
        assert_ne!(lab.volume(n).status().incarnation, incarnation, "no counter is used twice");
        lab.converge();
        for other in 0..2 {
            assert!(std::fs::read(lab.data(other).join("kept")).unwrap() == bytes, "brick {other}");
        }
        let shown = files(&lab, n);
        assert_eq!(shown.len(), 2);
        assert_eq!(lab.volume(n).status().conflicts, 0);
        // The damaged bytes are not thrown away.
        let kept = std::fs::read_dir(lab.brick_dir(n).join(".nearbrick/versions")).unwrap();
        let kept: Vec<_> = kept.map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect();
        assert_eq!(kept, [vec![7; 10]]);
    }
    lab.one_tree();
}

#[test]
fn t01_the_only_copy_is_never_set_aside() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    Fs::new(lab.volume(0)).write_file(&path("f"), b"the only copy").unwrap();
    lab.settle(0);
    lab.close(0);
    lab.lose_power(0);
    std::fs::write(lab.data(0).join("f"), b"the only cop?").unwrap();
    lab.open(0);
    lab.converge();
    assert_eq!(files(&lab, 1), [(b"f".to_vec(), b"the only cop?".to_vec())]);
    lab.one_tree();
}

#[test]
fn t08_equal_edits_are_no_conflict() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    Fs::new(lab.volume(0)).write_file(&path("f"), b"base").unwrap();
    lab.converge();
    for n in 0..2 {
        Fs::new(lab.volume(n)).write_file(&path("f"), b"the same thought").unwrap();
        lab.settle(n);
    }
    lab.converge();
    assert_eq!(files(&lab, 0), [(b"f".to_vec(), b"the same thought".to_vec())]);
    lab.one_tree();
    assert_eq!(lab.volume(0).status().conflicts, 0);
}

#[test]
fn a_third_member_reads_what_it_does_not_hold() {
    needs!(Root);
    // Disks of their own: of one that is nearly full, nothing is kept that is cached.
    let Some(mut lab) = Lab::on(Disk::Xfs, 3, 2) else { return };
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
    for name in ["read", "unread"] {
        Fs::new(lab.volume(0)).write_file(&path(name), &bytes).unwrap();
    }
    lab.settle(0);
    lab.exchange();
    assert!(Fs::new(lab.volume(2)).read_file(&path("read")).unwrap() == bytes, "read remotely");
    lab.converge();
    assert_eq!(lab.volume(2).status().files, 2);
    let moved = lab.net.bytes.load(std::sync::atomic::Ordering::Relaxed);
    assert!(moved >= 3 * bytes.len() as u64, "one copy of each at its second brick, and one that was read");
    // The holders are gone for now: names stay, what was read is here, and another read says that it cannot.
    lab.close(0);
    lab.close(1);
    let fs = Fs::new(lab.volume(2));
    assert_eq!(fs.stat(&path("unread")).unwrap().size, bytes.len() as u64);
    assert!(fs.read_file(&path("read")).unwrap() == bytes, "a cached copy");
    assert_eq!(fs.read_file(&path("unread")).unwrap_err(), rustix::io::Errno::IO);
}

#[test]
fn p02_an_outcome_says_what_could_not_be_healed_and_does_the_rest() {
    needs!(Root);
    let lab = Lab::new(3, 2);
    // Of A on A and B; of C on C and A.
    Fs::new(lab.volume(0)).write_file(&path("of-a"), b"aaa").unwrap();
    Fs::new(lab.volume(2)).write_file(&path("of-c"), b"ccc").unwrap();
    (0..3).for_each(|n| lab.settle(n));
    lab.exchange();
    assert_eq!(lab.volume(0).status().pending_in.files, 1);
    assert_eq!(lab.volume(1).status().pending_in.files, 1);
    assert_eq!(lab.volume(0).status().pending_out.get(&lab.brick(1)).unwrap().files, 1);
    lab.net.set_cut(lab.brick(2), true);
    let failed = lab.heal(0);
    assert_eq!((failed.files_done, failed.files_failed), (0, 1), "{failed:?}");
    assert!(failed.failures.contains_key(&nearbrick_core::heal::Reason::Unreachable), "{failed:?}");
    let done = lab.heal(1);
    assert_eq!((done.files_done, done.files_failed, done.bytes_done), (1, 0, 3), "{done:?}");
    lab.net.set_cut(lab.brick(2), false);
    lab.converge();
    assert_eq!(std::fs::read(lab.data(0).join("of-c")).unwrap(), b"ccc");
    assert_eq!(std::fs::read(lab.data(1).join("of-a")).unwrap(), b"aaa");
}

/// One deletes a file, and another, apart, moves it later: all who held it had put its bytes aside by then.
#[test]
fn t09_a_move_that_beats_a_deletion_brings_the_bytes_back() {
    needs!(Root);
    for restart in [false, true] {
        let mut lab = Lab::new(3, 2);
        Fs::new(lab.volume(0)).write_file(&path("report"), b"a year of work").unwrap();
        lab.converge();
        let held: Vec<usize> = (0..3).filter(|n| lab.volume(*n).status().stubs == 0).collect();
        let away = (0..3).find(|n| !held.contains(n)).unwrap();
        Fs::new(lab.volume(held[0])).unlink(&path("report")).unwrap();
        lab.pull(held[1], held[0]);
        assert_eq!(lab.volume(held[1]).kept_versions(None).unwrap().len(), 1);
        next_millisecond();
        Fs::new(lab.volume(away)).rename(&path("report"), &path("thesis")).unwrap();
        if restart {
            lab.close(held[1]);
            lab.lose_power(held[1]);
            lab.open(held[1]);
        }
        lab.converge();
        lab.one_tree();
        for n in 0..3 {
            let fs = Fs::new(lab.volume(n));
            assert_eq!(fs.read_file(&path("thesis")).unwrap(), b"a year of work", "{n}");
            assert!(fs.read_file(&path("report")).is_err());
        }
        assert_eq!(lab.volume(held[1]).kept_versions(None).unwrap(), [], "it is back in the tree");
    }
}
