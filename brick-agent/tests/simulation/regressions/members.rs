//! What members hear late, from few, or of none.

use nearbrick_agent::brick::mark::Origin;

use super::super::cases::{ALL, FLIPS_AND_CUTS, NONE, quiet};
use super::super::machine::End;
use super::super::run::{Plan, after};
use super::super::shrink;
use super::super::steps::{Action, Faults, How, Mass, Transfer, What};
use super::{does, pull, stays_mended, step};

/// Each waited for another that still had an index, and nobody had.
#[test]
fn t03_members_that_all_lost_their_indexes_go_on() {
    let mut steps = vec![
        does(0, Action::Mkdir { dir: 0 }),
        does(0, Action::Put { path: 0, len: 900, sync: true }),
        does(0, Action::Put { path: 3, len: 300, sync: true }),
        pull(1, 0),
        pull(2, 0),
        step(What::Heal { member: 1, fault: Transfer::Good }),
        // Newer at one, and new at another.
        does(1, Action::Put { path: 0, len: 700, sync: true }),
        does(2, Action::Save { path: 1, len: 500, sync: true }),
        does(2, Action::Rename { from: 3, to: 4 }),
    ];
    for member in 0..3 {
        steps.push(step(What::End { member, how: End::Kill, after: None }));
        steps.push(step(What::LoseIndex { member }));
    }
    for seed in 0..30 {
        let plan = Plan { seed, ..quiet(steps.clone()) };
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
    }
}

/// A program had a file open for writing and wrote nothing: after a while that made a version of it, which was in conflict with
/// what was written elsewhere; and who wanted its bytes meanwhile got none.
#[test]
fn t11_a_file_that_is_only_open_for_writing_is_what_it_was() {
    let world = after(&quiet(vec![
        does(0, Action::Save { path: 1, len: 144, sync: true }),
        step(What::Pass { ms: 1000 }),
        step(What::Work { member: 0 }),
        pull(2, 0),
        does(0, Action::Open { path: 1, slot: 1, how: How::Write }),
        step(What::Pass { ms: 40_000 }),
        step(What::Work { member: 0 }),
        pull(2, 0),
        does(2, Action::Truncate { path: 1, size: 3000 }),
    ]));
    let world = world.unwrap();
    let found = world.machines[0].disk.file_at(&[b"b".to_vec()]).unwrap();
    let object = world.machines[0].index().object(found.mark.unwrap().file).unwrap().unwrap();
    let written: u64 = object.head().unwrap().version.iter().map(|(_, count)| count).sum();
    assert_eq!(written, 1);
    assert_eq!(world.machines[2].disk.file_at(&[b"b".to_vec()]).unwrap().bytes.len(), 3000);
}

/// A file that was removed and came back, as another went on writing it, was not looked at again where it had been gone: its replica
/// set stayed as it was, and each thought that it was another's turn to change it.
#[test]
fn t26_a_file_that_comes_back_gets_the_set_that_is_wanted() {
    for seed in (0..20).chain([16683]) {
        let plan = quiet(vec![
            does(1, Action::Save { path: 0, len: 1197, sync: true }),
            pull(2, 1),
            pull(0, 1),
            does(0, Action::Save { path: 0, len: 913, sync: false }),
            does(2, Action::Put { path: 0, len: 359, sync: false }),
            pull(1, 0),
        ]);
        assert_eq!(Plan { seed, faults: NONE, ..plan }.run(false).failure, None, "seed {seed}");
    }
}

/// A person had said what is to become of removals before a member heard of them: it held them back, and waited for ever.
#[test]
fn a_word_on_removals_that_are_heard_of_later_is_followed() {
    for right in [true, false] {
        let plan = quiet(vec![
            step(What::Mass { member: 0, mass: Mass::Make }),
            pull(1, 0),
            pull(2, 0),
            step(What::Mass { member: 0, mass: Mass::Remove }),
            pull(1, 0),
            step(What::Decide { right }),
        ]);
        assert_eq!(Plan { faults: NONE, ..plan }.run(false).failure, None, "{right}");
    }
}

/// The newest version could not be had, and the older one that is here was read: from then on the file had the size of that one here, also
/// when the newest could be had again.
#[test]
fn a_file_of_which_an_older_version_was_read_has_the_size_of_the_newest() {
    for seed in 0..40 {
        let plan = quiet(vec![
            does(0, Action::Put { path: 0, len: 619, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            pull(2, 0),
            does(1, Action::Read { path: 0 }),
            does(2, Action::Read { path: 0 }),
            does(0, Action::Put { path: 0, len: 61, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            pull(2, 0),
            step(What::Part { a: 0, b: 1 }),
            step(What::Part { a: 0, b: 2 }),
            does(1, Action::Read { path: 0 }),
            does(2, Action::Read { path: 0 }),
        ]);
        assert_eq!(Plan { seed, faults: NONE, ..plan }.run(false).failure, None, "seed {seed}");
    }
}

/// As above, where the agent was killed while the older one was open: the next one did not know that it was shown.
#[test]
fn a_file_of_which_an_older_version_was_open_at_a_kill_has_the_size_of_the_newest() {
    for seed in 0..40 {
        let plan = quiet(vec![
            does(0, Action::Put { path: 0, len: 619, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            does(1, Action::Read { path: 0 }),
            does(0, Action::Put { path: 0, len: 61, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            step(What::Part { a: 0, b: 1 }),
            does(1, Action::Open { path: 0, slot: 0, how: How::Read }),
            step(What::End { member: 1, how: End::Kill, after: None }),
        ]);
        assert_eq!(Plan { seed, faults: NONE, ..plan }.run(false).failure, None, "seed {seed}");
    }
}

/// A version was made of what a program was writing, of which the disk keeps no copy: who read it got what the file was by then, as is said,
/// and the check did not expect that.
#[test]
fn a_version_of_a_file_that_is_being_written_is_read_as_it_is_now() {
    for seed in 0..20 {
        let plan = quiet(vec![
            does(0, Action::Open { path: 2, slot: 2, how: How::Create }),
            does(0, Action::Put { path: 2, len: 940, sync: true }),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            does(0, Action::Write { slot: 2, at: 782, len: 458 }),
            does(1, Action::Read { path: 2 }),
        ]);
        assert_eq!(Plan { seed, faults: NONE, ..plan }.run(false).failure, None, "seed {seed}");
    }
}

/// A program emptied a file and its agent was killed in that, after it had asked the file's writer for the newest version: that was replaced,
/// as is said, and the check did not expect it since the call had failed.
#[test]
fn t28_what_an_agent_heard_in_the_call_in_which_it_was_killed_is_replaced() {
    for (seed, changes) in (0..8).flat_map(|seed| (0..10).map(move |changes| (seed, changes))) {
        let plan = quiet(vec![
            does(1, Action::Put { path: 2, len: 1460, sync: true }),
            pull(0, 1),
            does(0, Action::Open { path: 2, slot: 1, how: How::Write }),
            pull(2, 0),
            step(What::End { member: 2, how: End::Kill, after: Some(changes) }),
            does(0, Action::Put { path: 2, len: 1096, sync: true }),
            does(2, Action::Put { path: 2, len: 417, sync: true }),
        ]);
        let plan = Plan { seed, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}, after {changes}");
    }
}

/// A mark says of a copy that it is one, also when it was only open; and not of what a program wrote over it, when its last version was
/// made while it was still open.
#[test]
fn a_mark_says_of_a_copy_alone_that_it_is_one() {
    let origin = |steps: Vec<What>| {
        let mut all = vec![
            does(0, Action::Put { path: 1, len: 300, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            does(1, Action::Open { path: 1, slot: 0, how: How::Write }),
        ];
        all.extend(steps.into_iter().map(step));
        all.extend([
            does(1, Action::Chmod { path: 1, mode: 0o600 }),
            does(1, Action::Close { slot: 0 }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 1 }),
        ]);
        let world = after(&quiet(all)).unwrap();
        let found = world.machines[1].disk.file_at(&[b"b".to_vec()]).unwrap();
        found.mark.unwrap().origin
    };
    assert_eq!(origin(vec![]), Origin::Copied);
    let write = What::Program { member: 1, action: Action::Write { slot: 0, at: 0, len: 20 } };
    let snapshot = vec![write.clone(), What::Pass { ms: 40_000 }, What::Work { member: 1 }];
    assert_eq!(origin(snapshot), Origin::Here);
    assert_eq!(origin(vec![write]), Origin::Here);
}

/// A brick lost a file with its journal, after one member had compared itself with it. Of the journal that had set the file's replica set nobody heard
/// any more, so nobody was known to have heard of the set, and the file never came to be where it was wanted. As the seed had it.
#[test]
fn t26_a_replica_set_that_no_journal_tells_any_more_is_said_again() {
    let faults = Faults { kills: true, power: true, compaction: true, rules: true, ..NONE };
    stays_mended(2_401_602, faults, "5,36,45,51,72-73,79");
}

/// A member deleted a file, gave up what it knew of it, and heard of it again from one who had edited it: others still believed that it held what
/// it had held before. As the seed had it.
#[test]
fn t07_what_was_said_of_a_file_that_was_deleted_and_came_back_is_made_true() {
    stays_mended(2_480_101, FLIPS_AND_CUTS, "6,9,16,19,21,30,41,48,52-53,63,67,71,84,87,109");
}

/// Others set an attribute of a file and removed it, while it was being written here. The edit brought it back, at this member without the
/// attribute. As the seeds had it.
#[test]
fn t07_a_file_that_an_edit_brings_back_has_the_attributes_that_others_set() {
    let power = Faults { kills: true, power: true, compaction: true, ..NONE };
    for (seed, faults, keep) in [
        (2_482_414, power, "52,60-61,64,105,107"),
        (2_480_071, ALL, "0,8,13,49,70"),
        (2_482_414, Faults { rules: true, ..power }, "53,61-62,65,107,109"),
    ] {
        let plan = Plan::new(seed, faults).keeping(&shrink::read(keep));
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
    }
}

/// The same, of a file that the member was writing when it deleted it: all waited for what would come of that, for ever. As the seed had it.
#[test]
fn t07_who_deleted_a_file_is_not_writing_it_when_it_comes_back() {
    let faults = Faults { kills: true, flips: true, compaction: true, ..NONE };
    stays_mended(2_601_756, faults, "5,11,17,59,63-66,71,86");
}
