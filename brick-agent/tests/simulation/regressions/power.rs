//! Power that fails, and starts after it that are cut short.

use super::super::cases::{FLIPS_AND_CUTS, NONE, quiet};
use super::super::chance::Chance;
use super::super::machine::End;
use super::super::run::{Plan, after, comes_to_rest, verdict};
use super::super::steps::{Action, How, Mass, Step, Transfer, What};
use super::super::world::World;
use super::{does, pull, stays_mended, step};

/// The mark of a stub says that its bytes are elsewhere. A program emptied this one, wrote another version, and had it synced; that
/// was not settled yet when the agent was killed, and the index was lost with it.
#[test]
fn t03_what_was_written_over_a_stub_and_synced_outlives_the_index() {
    let plan = quiet(vec![
        does(0, Action::Put { path: 1, len: 300, sync: true }),
        step(What::Pass { ms: 1000 }),
        step(What::Work { member: 0 }),
        pull(1, 0),
        does(1, Action::Put { path: 1, len: 437, sync: true }),
        step(What::End { member: 1, how: End::Kill, after: None }),
        step(What::LoseIndex { member: 1 }),
    ]);
    verdict(&plan, |_| {}).unwrap();
}

/// An attribute came to the disk just before the power was lost, and not to the index.
#[test]
fn t18_an_attribute_of_which_only_the_disk_knows_is_said() {
    for salt in 0..30 {
        let with = |what| Step { salt, what };
        let plan = quiet(vec![
            does(0, Action::Put { path: 2, len: 300, sync: true }),
            pull(1, 0),
            with(What::End { member: 0, how: End::PowerCut, after: Some(2) }),
            does(0, Action::Xattr { path: 2, value: Some(162) }),
            step(What::Work { member: 0 }),
        ]);
        assert_eq!(plan.run(false).failure, None, "salt {salt}");
    }
}

/// A program had bytes made durable that another, at another workstation, had replaced knowing them: they are older than what that one
/// made of them, and nothing that the check may ask for.
#[test]
fn t01_bytes_that_were_replaced_before_their_fsync_are_given_up() {
    for seed in 0..30 {
        let synced = Plan {
            seed,
            ..quiet(vec![
                does(1, Action::Put { path: 0, len: 1132, sync: true }),
                does(1, Action::Open { path: 0, slot: 1, how: How::Write }),
                pull(0, 1),
                does(0, Action::Put { path: 0, len: 810, sync: false }),
                does(1, Action::Sync { slot: 1 }),
            ])
        };
        assert_eq!(synced.run(false).failure, None, "seed {seed}");
        let brought = Plan {
            seed,
            ..quiet(vec![
                does(0, Action::Save { path: 1, len: 6336, sync: false }),
                pull(1, 0),
                does(1, Action::Open { path: 1, slot: 2, how: How::Write }),
                does(0, Action::Put { path: 1, len: 1216, sync: false }),
                does(1, Action::Sync { slot: 2 }),
            ])
        };
        assert_eq!(brought.run(false).failure, None, "seed {seed}");
    }
}

/// The start after a power cut found that a file was gone, and ended itself before it had said so: nothing told the next one, and
/// the file was being written for ever.
#[test]
fn t01_what_a_start_found_missing_and_did_not_say_is_found_by_the_next() {
    let plan = |first, second| {
        let cut = |salt| Step { salt, what: What::End { member: 0, how: End::PowerCut, after: None } };
        let steps = vec![
            does(0, Action::Mkdir { dir: 1 }),
            does(0, Action::Put { path: 5, len: 648, sync: false }),
            cut(first),
            step(What::Start { member: 0 }),
            does(0, Action::Rmdir { dir: 1 }),
            cut(second),
        ];
        Plan { seed: 2212, faults: NONE, ..quiet(steps) }
    };
    assert_eq!(plan(2004509861360049691, 6098528626350112500).run(false).failure, None);
    for salt in 0..100 {
        assert_eq!(plan(salt, salt + 1).run(false).failure, None, "salt {salt}");
    }
}

/// A brick took back that it holds a version, as it was open for writing when the power was lost, and did not say it again when nothing
/// was written: so of two versions in conflict one was nobody's, and nobody kept it.
#[test]
fn t08_what_was_open_when_the_power_was_lost_and_is_as_it_was_is_held_again() {
    let plan = |one, other| {
        let cut = |salt, member, after| Step { salt, what: What::End { member, how: End::PowerCut, after } };
        let last = Action::Save { path: 2, len: 122, sync: true };
        let steps = vec![
            does(2, Action::Save { path: 0, len: 131, sync: true }),
            pull(0, 2),
            cut(1, 2, Some(5)),
            does(0, Action::Open { path: 0, slot: 1, how: How::Write }),
            does(0, Action::Mkdir { dir: 0 }),
            cut(1, 0, Some(12)),
            does(0, Action::Put { path: 4, len: 96, sync: false }),
            Step {
                salt: one,
                what: What::Program { member: 0, action: Action::Put { path: 3, len: 1499, sync: false } },
            },
            Step { salt: other, what: What::Program { member: 2, action: last } },
        ];
        Plan { seed: 3071, faults: NONE, ..quiet(steps) }
    };
    assert_eq!(plan(5839514289628133424, 14552885347711683083).run(false).failure, None);
    for salt in 0..100 {
        assert_eq!(plan(salt, salt + 1).run(false).failure, None, "salt {salt}");
    }
}

/// As above, where a version of what is being written was there before the `fsync`.
#[test]
fn t01_bytes_of_a_snapshot_that_were_replaced_before_their_fsync_are_given_up() {
    for (seed, sync) in (0..30).flat_map(|seed| [(seed, false), (seed, true)]) {
        let plan = quiet(vec![
            does(1, Action::Open { path: 1, slot: 0, how: How::Create }),
            does(1, Action::Put { path: 1, len: 1179, sync }),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 1 }),
            pull(0, 1),
            does(0, Action::Put { path: 1, len: 792, sync: true }),
            does(1, Action::Sync { slot: 0 }),
        ]);
        assert_eq!(Plan { seed, ..plan }.run(false).failure, None, "seed {seed}, {sync}");
    }
}

/// A start that missed a file made a stub in its place, and lost what it had said of that to another power cut: the index had the file,
/// and the holes of the stub passed for its bytes.
#[test]
fn t01_a_stub_that_the_index_does_not_know_of_is_no_edit() {
    let plan = |first, second| {
        let cut = |salt| Step { salt, what: What::End { member: 2, how: End::PowerCut, after: None } };
        let steps = vec![
            does(2, Action::Put { path: 0, len: 1306, sync: false }),
            step(What::Work { member: 2 }),
            cut(first),
            step(What::Start { member: 2 }),
            does(2, Action::Mkdir { dir: 1 }),
            cut(second),
        ];
        Plan { seed: 10406, faults: NONE, ..quiet(steps) }
    };
    assert_eq!(plan(6985401632518840828, 741945510248661751).run(false).failure, None);
    for salt in 0..100 {
        assert_eq!(plan(salt, salt + 1).run(false).failure, None, "salt {salt}");
    }
}

/// A directory had made way for another, and waited in `staging/`, when the power was lost: on the disk it was nowhere. What had been in
/// it was not missed, and was never put into the other one.
#[test]
fn t01_what_was_in_a_directory_that_made_way_is_missed() {
    for salt in 0..20 {
        for after in [20, 22, 24, 26, 28] {
            let cut = What::End { member: 2, how: End::PowerCut, after: Some(after) };
            let plan = quiet(vec![
                does(2, Action::Mkdir { dir: 0 }),
                does(0, Action::Mkdir { dir: 0 }),
                Step { salt, what: cut },
                does(2, Action::Mkdir { dir: 2 }),
                pull(2, 0),
            ]);
            let plan = Plan { seed: salt, faults: NONE, ..plan };
            assert_eq!(plan.run(false).failure, None, "seed {salt}, after {after}");
        }
    }
}

/// The start after a power cut was killed. The next one took it for a kill alone, after which all that was written is there: a stub of which the
/// index had not kept that it was made passed for a new file.
#[test]
fn t01_a_start_that_was_killed_leaves_the_power_cut_to_the_next() {
    for (salt, changes) in (0..12).flat_map(|salt| (10..34).step_by(3).map(move |changes| (salt, changes))) {
        let plan = quiet(vec![
            does(2, Action::Put { path: 1, len: 1087, sync: true }),
            does(2, Action::Mkdir { dir: 0 }),
            step(What::WriteBack { member: 2 }),
            does(0, Action::Save { path: 2, len: 807, sync: false }),
            does(2, Action::Put { path: 2, len: 1240, sync: false }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(2, 0),
            Step { salt, what: What::End { member: 2, how: End::PowerCut, after: None } },
            step(What::End { member: 2, how: End::Kill, after: Some(changes) }),
            step(What::Start { member: 2 }),
        ]);
        let plan = Plan { seed: salt, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {salt}, after {changes}");
    }
}

/// A file had made way when a power cut put it back under its old name, without its bytes: it was looked for where the index had it, and so
/// was not judged.
#[test]
fn t01_a_file_that_made_way_and_is_back_is_judged() {
    for (salt, after) in (0..15).flat_map(|salt| (6..16).map(move |after| (salt, after))) {
        let plan = quiet(vec![
            does(1, Action::Put { path: 0, len: 0, sync: false }),
            does(2, Action::Save { path: 0, len: 1369, sync: false }),
            step(What::Work { member: 2 }),
            Step { salt, what: What::End { member: 2, how: End::PowerCut, after: Some(after) } },
            pull(2, 1),
            does(2, Action::Mkdir { dir: 0 }),
            does(2, Action::Mkdir { dir: 1 }),
        ]);
        assert_eq!(
            Plan { seed: salt, faults: NONE, ..plan }.run(false).failure,
            None,
            "{salt}, after {after}"
        );
    }
}

/// A program had emptied a stub, and the power cut left only that. The start after it said that nothing of the file is here, and ended
/// before it made it a stub again: nothing told the next one, and the file was shown as an empty one, whatever was in it.
#[test]
fn t01_a_stub_that_a_start_did_not_come_to_make_is_made_by_the_next() {
    for (salt, changes) in (0..40).flat_map(|salt| (24..27).map(move |changes| (salt, changes))) {
        let plan = quiet(vec![
            does(1, Action::Put { path: 2, len: 856, sync: true }),
            step(What::Work { member: 1 }),
            pull(2, 1),
            step(What::WriteBack { member: 2 }),
            does(2, Action::Put { path: 2, len: 825, sync: false }),
            Step { salt, what: What::End { member: 2, how: End::PowerCut, after: None } },
            step(What::End { member: 2, how: End::Kill, after: Some(changes) }),
            step(What::Start { member: 2 }),
        ]);
        let plan = Plan { seed: salt, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {salt}, after {changes}");
    }
}

/// A heal was given what a program was writing, as a version of which its target had not heard; a power cut at the source undid the word of
/// that. The target had bytes that nobody else knew, and waited for ever for what came in their place.
#[test]
fn t01_a_version_is_heard_of_before_it_is_taken() {
    for (salt, changes) in (0..10).flat_map(|salt| (0..12).map(move |changes| (salt, changes))) {
        let after = Some(changes).filter(|changes| *changes > 0);
        let steps = |sync| {
            vec![
                does(0, Action::Put { path: 1, len: 300, sync: true }),
                step(What::Pass { ms: 1000 }),
                step(What::Work { member: 0 }),
                pull(1, 0),
                does(0, Action::Put { path: 1, len: 200, sync }),
                Step { salt, what: What::End { member: 0, how: End::PowerCut, after } },
                step(What::Heal { member: 1, fault: Transfer::Good }),
                Step { salt, what: What::End { member: 0, how: End::PowerCut, after: None } },
            ]
        };
        // Either before, or after it has given the bytes.
        for sync in [false, true] {
            let mut steps = steps(sync);
            if after.is_none() {
                steps.remove(5);
            }
            let plan = Plan { seed: salt, faults: NONE, ..quiet(steps) };
            assert_eq!(plan.run(false).failure, None, "seed {salt}, {sync}, after {changes}");
        }
    }
}

/// A program wrote as many bytes as there were before into a file that was durable. Of the power cut its times were lost, and not what it had
/// written: as the file looked as before, it counted as opened only, and those bytes as the version that it had been.
#[test]
fn t01_what_was_being_written_is_not_what_it_was_because_it_looks_so() {
    for salt in 0..60 {
        let plan = quiet(vec![
            does(0, Action::Put { path: 1, len: 20, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            step(What::Heal { member: 1, fault: Transfer::Good }),
            pull(0, 1),
            step(What::WriteBack { member: 1 }),
            does(1, Action::Open { path: 1, slot: 0, how: How::Write }),
            // With that the word that it is open is durable.
            does(1, Action::Put { path: 0, len: 5, sync: true }),
            does(1, Action::Write { slot: 0, at: 0, len: 20 }),
            Step { salt, what: What::End { member: 1, how: End::PowerCut, after: None } },
        ]);
        let plan = Plan { seed: salt % 8, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {}, salt {salt}", salt % 8);
    }
}

/// A file was brought when a program opened it for writing, and the power cut left it in part: that is the edit of a file that was being
/// written, as is said, and the check did not expect that as the program had not come to write.
#[test]
fn t01_what_was_open_for_writing_may_be_there_in_part() {
    for salt in 0..60 {
        let plan = quiet(vec![
            does(1, Action::Put { path: 1, len: 599, sync: true }),
            pull(2, 1),
            does(2, Action::Open { path: 1, slot: 0, how: How::Create }),
            Step { salt, what: What::End { member: 2, how: End::PowerCut, after: None } },
        ]);
        let plan = Plan { seed: salt % 8, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {}, salt {salt}", salt % 8);
    }
}

/// A version that others had healed was lost by its writer, with one that came after it, while the file was in conflict: nobody looked at it
/// again when the conflict was over, and it stayed pending where it was.
#[test]
fn p01_what_fell_while_it_was_in_conflict_is_said_again() {
    for salt in 0..60 {
        let plan = quiet(vec![
            does(1, Action::Put { path: 2, len: 1363, sync: true }),
            pull(3, 1),
            does(3, Action::Put { path: 2, len: 1241, sync: false }),
            does(1, Action::Put { path: 2, len: 0, sync: false }),
            step(What::Compare { to: 2, from: 3, answers: 100 }),
            step(What::Heal { member: 2, fault: Transfer::Good }),
            Step { salt, what: What::End { member: 1, how: End::PowerCut, after: None } },
        ]);
        let plan = Plan { seed: 781_325 + salt % 4, members: 4, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {}, salt {salt}", plan.seed);
    }
}

/// The index of a brick lost that it had heard of a version, and knew the file still: the stub had the size of that version, and its holes
/// passed for the bytes of a file of which there was none yet.
#[test]
fn t01_a_stub_of_a_version_that_the_index_forgot_is_empty() {
    for salt in 0..60 {
        let plan = quiet(vec![
            does(1, Action::Put { path: 1, len: 6333, sync: false }),
            pull(2, 1),
            step(What::WriteBack { member: 2 }),
            step(What::Close { member: 1 }),
            step(What::Start { member: 1 }),
            pull(2, 1),
            Step { salt, what: What::End { member: 2, how: End::PowerCut, after: None } },
            step(What::Start { member: 2 }),
            does(2, Action::ReadAll),
        ]);
        let plan = Plan { seed: salt % 8, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {}, salt {salt}", plan.seed);
    }
}

/// A brick had brought a newer version than the one that it had said it holds, and the power failed before it said so: others did not hear of
/// that copy, and it was of no use to anybody when theirs were damaged.
#[test]
fn t01_a_newer_copy_that_was_not_said_is_said_after_the_cut() {
    for salt in 0..10 {
        let steps = vec![
            does(4, Action::Put { path: 1, len: 1460, sync: true }),
            pull(2, 4),
            does(2, Action::Put { path: 1, len: 1106, sync: true }),
            pull(0, 4),
            pull(3, 2),
            does(3, Action::Truncate { path: 1, size: 3000 }),
            pull(5, 0),
            does(5, Action::ReadAll),
            step(What::Work { member: 3 }),
            pull(4, 3),
            step(What::Heal { member: 4, fault: Transfer::Good }),
            pull(3, 4),
            pull(5, 4),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 3 }),
            step(What::Work { member: 5 }),
            step(What::WriteBack { member: 3 }),
            does(5, Action::ReadAll),
            Step { salt, what: What::End { member: 5, how: End::PowerCut, after: None } },
        ];
        let plan = Plan { seed: 1_001_030, members: 6, faults: NONE, ..quiet(steps) };
        assert_eq!(plan.run(false).failure, None, "salt {salt}");
    }
}

/// A copy had been read from the only brick that had the version, which lost it then; and it was not said yet when the index was lost. Others
/// did not hear of it after that either, so that nobody kept that side of the conflict.
#[test]
fn t03_a_copy_that_was_not_said_is_said_after_a_lost_index() {
    // Of that power cut the names are left, and the index, and not the bytes.
    let cut = Step {
        salt: 14_990_570_894_970_024_159,
        what: What::End { member: 0, how: End::PowerCut, after: None },
    };
    let plan = quiet(vec![
        does(0, Action::Save { path: 1, len: 1197, sync: false }),
        step(What::Work { member: 0 }),
        pull(2, 0),
        does(2, Action::ReadAll),
        cut,
        step(What::Close { member: 2 }),
        step(What::LoseIndex { member: 2 }),
    ]);
    assert_eq!(Plan { seed: 1_002_063, faults: NONE, ..plan }.run(false).failure, None);
}

/// What a program had saved was gone from its maker's disk after a power cut, whose index knew it by the name before the last one, and
/// said that it was removed. The only other member that had it had lost its index, and made an edit of it, which brought that older name back
/// for all others: there it went on being shown under the name that its disk told.
#[test]
fn t03_an_edit_that_brings_an_older_name_back_is_shown_under_it_where_it_is_made() {
    let names = |world: &World, n: usize| {
        [b"b".to_vec(), b"b~".to_vec()].map(|name| world.machines[n].disk.file_at(&[name]).is_some())
    };
    let (mut brought_back, mut while_open) = (0, 0);
    for salt in 0..60 {
        let saved = vec![
            does(0, Action::Save { path: 1, len: 1197, sync: false }),
            step(What::Work { member: 0 }),
            pull(2, 0),
            does(2, Action::ReadAll),
            Step { salt, what: What::End { member: 0, how: End::PowerCut, after: None } },
            step(What::Close { member: 2 }),
            step(What::LoseIndex { member: 2 }),
        ];
        let plan = Plan { seed: 1_002_063, faults: NONE, ..quiet(saved.clone()) };
        let mut world = after(&plan).unwrap();
        comes_to_rest(&mut world, &mut Chance::new(salt)).unwrap_or_else(|why| panic!("salt {salt}: {why}"));
        brought_back += usize::from(names(&world, 2) == [false, true]);
        // The same while a program goes on writing to it: then the version is one of a moment.
        let written = [
            step(What::Start { member: 0 }),
            step(What::Start { member: 2 }),
            step(What::Compare { to: 2, from: 0, answers: 100 }),
            does(2, Action::Open { path: 1, slot: 0, how: How::Write }),
            does(2, Action::Write { slot: 0, at: 0, len: 100 }),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 2 }),
            step(What::Pass { ms: 61_000 }),
            step(What::Work { member: 2 }),
            pull(0, 2),
        ];
        let plan = Plan { steps: saved.into_iter().chain(written).collect(), ..plan };
        let mut world = after(&plan).unwrap();
        assert_eq!(names(&world, 0), names(&world, 2), "salt {salt}, while it is open");
        while_open += usize::from(names(&world, 2) == [false, true]);
        comes_to_rest(&mut world, &mut Chance::new(salt)).unwrap_or_else(|why| panic!("salt {salt}: {why}"));
    }
    assert!(brought_back > 0 && while_open > 0, "{brought_back}, {while_open}");
}

/// An agent was killed while it took over a directory of which it had heard after a file in it: the directory was there, the file was not
/// looked at any more, and never came.
#[test]
fn t28_what_is_in_a_directory_that_came_late_comes_too_after_a_kill() {
    for (maker, writer) in [(0, 1), (1, 0)] {
        let mut steps = vec![
            does(maker, Action::Mkdir { dir: 1 }),
            pull(writer, maker),
            does(writer, Action::Save { path: 5, len: 425, sync: true }),
            step(What::Work { member: writer }),
        ];
        // More than is taken over at a time, so that the file is looked at before its directory comes.
        for len in 0..40 {
            steps.push(does(writer, Action::Put { path: 2, len, sync: false }));
            steps.push(step(What::Pass { ms: 1000 }));
            steps.push(step(What::Work { member: writer }));
        }
        steps.push(pull(maker, writer));
        for n in 1..80 {
            let kill = [
                step(What::End { member: 2, how: End::Kill, after: Some(n) }),
                pull(2, maker),
                step(What::Start { member: 2 }),
            ];
            let plan = quiet(steps.iter().cloned().chain(kill).collect());
            assert_eq!(plan.run(false).failure, None, "member {maker} made it, killed at {n}");
        }
    }
}

/// A power cut took a directory and all in it, and the index noted that their names were gone; it kept no more than that of the start, as
/// the next cut came. By then they were on the disk again, with what had been read of them, and those copies were damaged: what was
/// in a directory that came back with its files was not looked at, and the damaged copies went out as newer versions.
#[test]
fn t01_what_comes_back_in_a_directory_that_was_gone_is_judged() {
    let cut = |salt| Step { salt, what: What::End { member: 2, how: End::PowerCut, after: None } };
    let plan = |second| {
        let steps = vec![
            step(What::Mass { member: 0, mass: Mass::Make }),
            step(What::Pass { ms: 10 }),
            step(What::Work { member: 0 }),
            pull(2, 0),
            does(2, Action::ReadAll),
            // The disk keeps nothing of it, the index all.
            cut(6_778_941_415_950_542_889),
            step(What::Start { member: 2 }),
            does(2, Action::ReadAll),
            cut(second),
        ];
        Plan { seed: 1_300_045, faults: NONE, ..quiet(steps) }
    };
    for second in (0..30).chain([6_155_877_743_254_711_830]) {
        assert_eq!(plan(second).run(false).failure, None, "salt {second}");
    }
}

/// A power cut left a directory where files wait for their places, of which the index did not know any more. It was in the way when that
/// directory, told again by others, was to wait there once more: two directories of one name never came to rest, and no look through
/// the brick to its end. As the seed had it.
#[test]
fn t01_what_waits_for_its_place_and_is_known_no_more_is_in_nobodys_way() {
    stays_mended(
        2_400_440,
        FLIPS_AND_CUTS,
        "6-8,10,14,16,19,24,26,54,68,74,78-79,82,85,89,91-93,114,118,122,133",
    );
}

/// A power cut left a file where it had waited for its place, and the index had it in that place. A start took note that it was not there, and
/// was killed; the next one knew of no place that it was missing from, and took it for lost. As the seed had it.
#[test]
fn t01_what_waits_for_its_place_is_found_by_the_second_start_too() {
    stays_mended(2_480_761, FLIPS_AND_CUTS, "45,67,69,71,78,109,116,124,128");
}
