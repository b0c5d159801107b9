//! What power cuts leave of files that nobody had synced, of copies that came between two cuts, and of words that all have forgotten.

use super::super::cases::{NONE, quiet};
use super::super::machine::End;
use super::super::run::{Plan, after, verdict};
use super::super::steps::{Action, Faults, How, Step, Transfer, What};
use super::{does, pull, step};

/// Found on real nodes: files were written and healed, and no program had them synced; the power failed within seconds, and the index had
/// lost that there was a version. What was left, often nothing, became a version of a new life, in conflict with the one that the
/// other brick held, and could have the name.
#[test]
fn t01_what_is_left_of_a_version_that_was_healed_and_never_synced_is_no_conflict() {
    let (mut lost, mut kept) = (0, 0);
    for salt in 0..300 {
        for before in [false, true] {
            let put = |len, sync| does(0, Action::Put { path: 0, len, sync });
            let earlier = [
                put(5000, true),
                step(What::Pass { ms: 31_000 }),
                step(What::Work { member: 0 }),
                pull(1, 0),
                pull(2, 0),
                step(What::Heal { member: 1, fault: Transfer::Good }),
                step(What::Heal { member: 2, fault: Transfer::Good }),
                pull(0, 1),
                pull(0, 2),
            ];
            let later = [
                put(9000, false),
                step(What::Pass { ms: 1000 }),
                step(What::Work { member: 0 }),
                pull(1, 0),
                pull(2, 0),
                step(What::Heal { member: 1, fault: Transfer::Good }),
                step(What::Heal { member: 2, fault: Transfer::Good }),
                Step { salt, what: What::End { member: 0, how: End::PowerCut, after: None } },
                step(What::Start { member: 0 }),
                step(What::Work { member: 0 }),
            ];
            let first = if before { &earlier[..] } else { &[] };
            let steps = first.iter().cloned().chain(later).collect();
            let plan = Plan { faults: NONE, ..quiet(steps) };
            let left = after(&plan).unwrap().machines[0].disk.files_below(&[b"data"]);
            let whole = left.iter().any(|found| found.bytes.len() == 9000);
            if whole {
                kept += 1
            } else {
                lost += 1
            }
            verdict(&plan, |world| {
                for machine in &world.machines {
                    let status = machine.volume().unwrap().status();
                    assert_eq!(status.conflicts, 0, "salt {salt}, before: {before}");
                    let all = machine.disk.files_below(&[b"data"]);
                    let lens: Vec<_> = all.iter().map(|f| f.bytes.len()).collect();
                    assert_eq!(lens, [9000], "salt {salt}, before: {before}");
                }
            })
            .unwrap_or_else(|why| panic!("salt {salt}, before: {before}: {why}"));
        }
    }
    assert!(lost > 50 && kept > 50, "the cut takes it and leaves it: {lost}, {kept}");
}

/// A program had emptied a stub, which a power cut undid on the disk; what came there then was a copy of a newer version, and torn by the next
/// cut, which left the index as it was before. That had the file as one that a program was writing, and half a file was read.
#[test]
fn t01_a_copy_that_is_newer_than_what_the_index_has_as_being_written_is_a_copy() {
    let cut = |salt| Step { salt, what: What::End { member: 2, how: End::PowerCut, after: None } };
    let plan = |first, second| {
        let put = |path, len| Action::Put { path, len, sync: true };
        let steps = vec![
            does(1, put(0, 1011)),
            step(What::Work { member: 1 }),
            does(0, put(2, 563)),
            pull(2, 0),
            does(2, Action::Open { path: 2, slot: 1, how: How::Truncate }),
            pull(0, 2),
            does(1, put(2, 974)),
            does(0, put(2, 1306)),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 0 }),
            step(What::Work { member: 2 }),
            pull(0, 1),
            pull(2, 0),
            cut(first),
            step(What::Start { member: 2 }),
            does(2, Action::ReadAll),
            cut(second),
            step(What::Start { member: 2 }),
            does(2, Action::ReadAll),
        ];
        Plan { seed: 1_600_999, faults: NONE, ..quiet(steps) }
    };
    let found = (17_529_069_655_723_046_153, 11_996_599_316_396_093_135);
    let more = (0..20).flat_map(|first| (0..20).map(move |second| (first, second)));
    for (first, second) in more.chain([found]) {
        assert_eq!(plan(first, second).run(false).failure, None, "salts {first}, {second}");
    }
}

/// A file that a program had synced, and that was of no version yet, was replaced by another member, and made way for that. A power cut undid
/// that on the disk, and not in the index: it passed for one whose removal the disk had not kept up with, and was removed.
#[test]
fn t01_what_made_way_while_it_was_being_changed_is_not_removed_where_the_disk_forgot_that() {
    let cut = |salt| Step { salt, what: What::End { member: 0, how: End::PowerCut, after: None } };
    for salt in (0..100).chain([906_933_215_792_392_211]) {
        let steps = vec![
            does(0, Action::Put { path: 0, len: 948, sync: true }),
            pull(2, 0),
            cut(14_123_684_470_165_779_505),
            step(What::Start { member: 0 }),
            does(2, Action::Save { path: 0, len: 1069, sync: false }),
            pull(0, 2),
            cut(salt),
        ];
        assert_eq!(Plan { faults: NONE, ..quiet(steps) }.run(false).failure, None, "salt {salt}");
    }
}

/// Of a change of mode and an attribute after it the disk had kept both, and the index only that there is the file. The mode was set back, and the
/// attribute stayed where it was, and was said to nobody.
#[test]
fn t18_an_attribute_of_which_only_the_disk_knows_is_said_where_the_mode_is_another_too() {
    for salt in (0..60).chain([16_170_800_696_520_401_697]) {
        let steps = vec![
            step(What::End { member: 0, how: End::PowerCut, after: None }),
            step(What::Start { member: 0 }),
            does(0, Action::Open { path: 0, slot: 2, how: How::Create }),
            does(0, Action::Chmod { path: 0, mode: 384 }),
            does(0, Action::Xattr { path: 0, value: Some(249) }),
            Step { salt, what: What::End { member: 0, how: End::PowerCut, after: None } },
        ];
        assert_eq!(Plan { seed: 2_000_447, ..quiet(steps) }.run(false).failure, None, "salt {salt}");
    }
}

/// A file was heard of, with its size, and its maker lost the word of that with its power; who had heard of it lost its index. Of the version
/// nobody knew any more, and the holes of its stub were taken for an edit. As the seed had it.
#[test]
fn t03_a_stub_of_a_version_that_all_have_forgotten_is_no_edit() {
    let faults = Faults {
        kills: true,
        power: true,
        disks: true,
        clocks: true,
        indexes: true,
        compaction: true,
        ..NONE
    };
    assert_eq!(Plan::new(2_101_941, faults).run(false).failure, None);
}
