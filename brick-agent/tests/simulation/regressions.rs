//! What seeds found once, each under the name of what must hold.

use super::cases::{NONE, quiet};
use super::disk::Trouble;
use super::machine::End;
use super::run::{Plan, after, verdict};
use super::steps::{Action, Faults, How, Step, Transfer, What};

fn step(what: What) -> Step {
    Step { salt: 1, what }
}

fn does(member: usize, action: Action) -> Step {
    step(What::Program { member, action })
}

fn pull(to: usize, from: usize) -> Step {
    step(What::Pull { to, from })
}

/// It was removed by who had heard of its name and not of its bytes, and waited in `staging/`, out of the way of
/// what was renamed over it, until it was settled: then it was shown everywhere but where it was written.
#[test]
fn t09_a_file_that_made_way_while_it_was_written_comes_back() {
    let plan = quiet(vec![
        does(0, Action::Put { path: 1, len: 522, sync: true }),
        pull(2, 0),
        does(2, Action::Save { path: 1, len: 171, sync: true }),
        pull(0, 2),
    ]);
    verdict(&plan, |_| {}).unwrap();
}

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

/// What could not be removed from a disk that was read-only for a while stood in the way of the file that took its name.
#[test]
fn t23_a_file_that_could_not_be_removed_is_removed_later() {
    let plan = quiet(vec![
        does(0, Action::Save { path: 2, len: 1383, sync: true }),
        pull(1, 0),
        step(What::Disk { member: 1, trouble: Trouble::ReadOnly }),
        does(0, Action::Save { path: 2, len: 374, sync: true }),
        pull(1, 0),
    ]);
    verdict(&plan, |_| {}).unwrap();
}

/// The index took nothing when a file had just been put in its place: then it stood in its own way.
#[test]
fn t23_a_place_of_which_nothing_could_be_said_is_found_later() {
    let plan = quiet(vec![
        does(0, Action::Open { path: 1, slot: 2, how: How::Exclusive }),
        step(What::Disk { member: 1, trouble: Trouble::Full }),
        does(0, Action::Put { path: 0, len: 1277, sync: true }),
        does(1, Action::Mkdir { dir: 0 }),
        pull(1, 0),
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

/// A damaged copy was opened for writing, and nothing was written to it. What that made a version of was the damage.
#[test]
fn t25_damage_is_no_version_because_a_file_is_open() {
    for seed in 0..30 {
        let plan = quiet(vec![
            does(0, Action::Put { path: 2, len: 344, sync: true }),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            step(What::Heal { member: 1, fault: Transfer::Good }),
            step(What::WriteBack { member: 1 }),
            step(What::Flip { member: 1, file: 0 }),
            does(0, Action::Put { path: 2, len: 0, sync: true }),
            does(1, Action::Open { path: 2, slot: 1, how: How::Write }),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 1 }),
        ]);
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
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

/// A damaged copy was being put aside when the agent was killed. One more name had moved the inode's times: so the damage was an edit.
#[test]
fn t25_damage_that_was_being_put_aside_is_no_edit() {
    for (seed, changes) in (0..10).flat_map(|seed| (0..12).map(move |changes| (seed, changes))) {
        let plan = quiet(vec![
            does(0, Action::Put { path: 2, len: 67, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            pull(2, 1),
            step(What::Heal { member: 1, fault: Transfer::Good }),
            step(What::End { member: 1, how: End::Kill, after: Some(changes) }),
            step(What::Flip { member: 1, file: 0 }),
            step(What::Scrub { member: 1 }),
            does(2, Action::Put { path: 2, len: 1369, sync: true }),
        ]);
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}, after {changes}");
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

/// Its newest version was removed here, and an edit elsewhere brought the name back: the stub was made as large as the version that nobody
/// held any more.
#[test]
fn t09_a_name_that_comes_back_is_as_large_as_what_is_held() {
    for seed in (0..30).chain([767]) {
        let plan = quiet(vec![
            does(2, Action::Put { path: 2, len: 651, sync: true }),
            pull(0, 2),
            pull(1, 2),
            does(1, Action::Open { path: 2, slot: 0, how: How::Write }),
            does(0, Action::Put { path: 2, len: 510, sync: true }),
            step(What::Work { member: 0 }),
            does(0, Action::Save { path: 2, len: 0, sync: true }),
            pull(0, 2),
            pull(1, 0),
        ]);
        let plan = Plan { seed, members: 4, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
    }
}

/// A program was to empty a stub, and the disk did not do it: the holes of the stub passed for what it had written, everywhere.
#[test]
fn t23_a_stub_that_could_not_be_emptied_is_a_stub_still() {
    for salt in 0..120 {
        let plan = quiet(vec![
            does(0, Action::Put { path: 1, len: 373, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(2, 0),
            Step { salt, ..step(What::Disk { member: 2, trouble: Trouble::Failing }) },
            Step { salt, ..does(2, Action::Put { path: 1, len: 0, sync: false }) },
        ]);
        let plan = Plan { seed: salt, members: 4, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed and salt {salt}");
    }
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

/// Two directories were shown as one when a program removed it: the other was then shown in one that was gone, and so was
/// what somebody had made in it.
#[test]
fn t09_what_is_made_in_a_removed_directory_that_was_two_is_shown() {
    let plan = quiet(vec![
        does(1, Action::Mkdir { dir: 0 }),
        does(0, Action::Mkdir { dir: 0 }),
        pull(1, 0),
        does(0, Action::Save { path: 4, len: 670, sync: true }),
        does(1, Action::Rmdir { dir: 0 }),
    ]);
    assert_eq!(plan.run(false).failure, None);
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

/// Of two versions in conflict only the hash of one was known: copies of the other could not be compared with anything, so a damaged one was
/// handed on.
#[test]
fn t25_damage_of_either_side_of_a_conflict_is_seen() {
    for seed in 0..15 {
        let plan = quiet(vec![
            does(0, Action::Put { path: 1, len: 408, sync: true }),
            pull(1, 0),
            pull(2, 1),
            does(1, Action::Open { path: 1, slot: 0, how: How::Truncate }),
            does(2, Action::Put { path: 1, len: 898, sync: true }),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 1 }),
            step(What::Work { member: 2 }),
            pull(1, 2),
            pull(0, 1),
            step(What::Heal { member: 0, fault: Transfer::Good }),
            step(What::WriteBack { member: 0 }),
            step(What::Flip { member: 0, file: 13 }),
        ]);
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
    }
}

/// A damaged copy was open for writing when its name went elsewhere: it made way in `staging/`, which moved the inode's time, and so
/// the damage became a version, and was shown beside what somebody else had written.
#[test]
fn t25_damage_is_no_version_because_a_file_that_is_open_made_way() {
    for seed in 0..15 {
        let plan = quiet(vec![
            does(2, Action::Put { path: 0, len: 707, sync: true }),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 2 }),
            pull(0, 2),
            pull(1, 0),
            step(What::Heal { member: 0, fault: Transfer::Good }),
            step(What::WriteBack { member: 0 }),
            step(What::WriteBack { member: 2 }),
            step(What::Flip { member: 0, file: 9 }),
            does(1, Action::Save { path: 0, len: 811, sync: true }),
            does(0, Action::Open { path: 0, slot: 0, how: How::Create }),
            does(2, Action::Put { path: 0, len: 668, sync: true }),
            pull(0, 1),
        ]);
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
    }
}

/// Whoever deleted a file had seen one of two versions; the other one brought it back. The one that was deleted came back beside
/// it, from a brick that still had it, and that was damaged.
#[test]
fn t09_a_version_that_was_deleted_does_not_come_back_beside_another() {
    for seed in 0..15 {
        let steps = vec![
            does(1, Action::Put { path: 1, len: 1290, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 1 }),
            pull(0, 1),
            pull(2, 1),
            does(0, Action::Put { path: 1, len: 35, sync: true }),
            does(2, Action::Put { path: 1, len: 799, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 2 }),
            pull(1, 2),
            step(What::Heal { member: 1, fault: Transfer::Good }),
            step(What::WriteBack { member: 1 }),
            step(What::Flip { member: 1, file: 2 }),
            does(2, Action::Unlink { path: 1 }),
            pull(2, 0),
        ];
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..quiet(steps) };
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
        verdict(&plan, |world| {
            let all = world.machines[0].disk.files_below(&[b"data"]);
            assert_eq!(all.iter().map(|f| f.bytes.len()).collect::<Vec<_>>(), [35], "seed {seed}");
        })
        .unwrap();
    }
}

/// A person had said what is to become of removals before a member heard of them: it held them back, and waited for ever.
#[test]
fn a_word_on_removals_that_are_heard_of_later_is_followed() {
    use super::steps::Mass;
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

/// A stub had been filled when the agent was killed, and nobody knew the version's hash yet by which that could be told at the start: it
/// stayed unknown that a whole copy is here, also when the only other one was damaged.
#[test]
fn t25_a_copy_of_which_nobody_knows_is_found() {
    for (seed, changes) in (0..5).flat_map(|seed| (4..10).map(move |changes| (seed, changes))) {
        let plan = quiet(vec![
            does(0, Action::Put { path: 2, len: 315, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(2, 0),
            step(What::End { member: 2, how: End::Kill, after: Some(changes) }),
            does(2, Action::Open { path: 2, slot: 2, how: How::Create }),
        ]);
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}, after {changes}");
    }
}

/// A file had another name on a full disk than the index could note, when it was to be settled: that was never tried again.
#[test]
fn t23_a_file_that_moved_while_the_index_took_nothing_is_settled_later() {
    for salt in 0..50 {
        let plan = quiet(vec![
            does(0, Action::Put { path: 1, len: 0, sync: false }),
            does(0, Action::Put { path: 2, len: 300, sync: false }),
            step(What::Disk { member: 0, trouble: Trouble::Full }),
            Step { salt, ..does(0, Action::Exchange { a: 2, b: 1 }) },
            Step { salt, ..does(0, Action::Save { path: 3, len: 134, sync: true }) },
            Step { salt, ..does(0, Action::Save { path: 0, len: 134, sync: true }) },
        ]);
        assert_eq!(
            Plan { seed: salt, faults: NONE, ..plan }.run(false).failure,
            None,
            "seed and salt {salt}"
        );
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

/// A damaged copy had been put aside when a power cut undid all of that but its name in `versions/`: when it was put aside again, in the same
/// moment, the name was taken, and the brick did not start.
#[test]
fn t25_a_damaged_copy_is_put_aside_twice() {
    for salt in 0..40 {
        let cut = What::End { member: 1, how: End::PowerCut, after: Some(6 + salt % 8) };
        let plan = quiet(vec![
            does(0, Action::Put { path: 0, len: 253, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            step(What::Heal { member: 1, fault: Transfer::Good }),
            step(What::WriteBack { member: 0 }),
            step(What::WriteBack { member: 1 }),
            step(What::Flip { member: 1, file: 14 }),
            Step { salt, what: cut },
            step(What::Scrub { member: 1 }),
        ]);
        let plan = Plan { seed: salt, faults: Faults { flips: true, power: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {salt}");
    }
}

/// A program emptied a file of which a version had been made while another had it open: who read that version got the first bytes of what came
/// in its place.
#[test]
fn t22_a_version_that_a_program_emptied_is_given_to_nobody() {
    for seed in 0..30 {
        let plan = quiet(vec![
            does(2, Action::Open { path: 0, slot: 0, how: How::Create }),
            does(2, Action::Put { path: 0, len: 175, sync: true }),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 2 }),
            pull(0, 2),
            pull(1, 0),
            does(2, Action::Put { path: 0, len: 250, sync: true }),
            does(0, Action::Read { path: 0 }),
            does(1, Action::Read { path: 0 }),
        ]);
        assert_eq!(Plan { seed, faults: NONE, ..plan }.run(false).failure, None, "seed {seed}");
    }
}

/// A brick outside the replica set still had a version that had lost a conflict, and was kept beside by others: when that copy was damaged, it
/// counted for ever as the only one of something that lacks.
#[test]
fn t25_damage_of_what_lost_a_conflict_is_put_aside() {
    for seed in 0..20 {
        let plan = quiet(vec![
            does(0, Action::Put { path: 1, len: 545, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            pull(2, 0),
            does(1, Action::Put { path: 1, len: 1068, sync: true }),
            does(2, Action::Put { path: 1, len: 994, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 1 }),
            step(What::Work { member: 2 }),
            pull(0, 1),
            pull(2, 1),
            step(What::Heal { member: 0, fault: Transfer::Good }),
            step(What::Heal { member: 2, fault: Transfer::Good }),
            pull(1, 0),
            pull(1, 2),
            step(What::WriteBack { member: 0 }),
            step(What::WriteBack { member: 1 }),
            step(What::WriteBack { member: 2 }),
            step(What::Flip { member: 1, file: 5 }),
        ]);
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
    }
}

/// Who had not heard of a version's hash read a damaged copy of it, and said the hash of that. Of the two the greater one counted: so
/// the damage was taken for right, and the whole copies for damaged.
#[test]
fn t25_of_two_hashes_the_one_that_was_said_first_counts() {
    for seed in 0..20 {
        let plan = quiet(vec![
            does(2, Action::Put { path: 1, len: 1269, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 2 }),
            pull(0, 2),
            pull(1, 2),
            step(What::Heal { member: 0, fault: Transfer::Good }),
            pull(2, 0),
            step(What::WriteBack { member: 0 }),
            step(What::WriteBack { member: 2 }),
            step(What::Flip { member: 2, file: 4 }),
            step(What::Part { a: 0, b: 1 }),
            does(1, Action::Read { path: 1 }),
        ]);
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
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

/// A directory was removed and forgotten by one, and another had made something in it. Of the removal by a third one came only that,
/// after what is in it: that was taken for all there is to know of the directory, and so nothing in it was ever shown.
#[test]
fn t07_a_forgotten_directory_in_which_something_is_comes_back() {
    for seed in 0..10 {
        let plan = quiet(vec![
            does(0, Action::Mkdir { dir: 0 }),
            pull(2, 0),
            pull(1, 0),
            does(1, Action::Mkdir { dir: 2 }),
            does(2, Action::Rmdir { dir: 0 }),
            step(What::Compact { member: 2, alone: true }),
            does(0, Action::Put { path: 0, len: 1196, sync: true }),
            does(1, Action::Put { path: 1, len: 991, sync: true }),
        ]);
        for members in [3, 4, 5] {
            let plan = Plan { seed, members, faults: NONE, ..plan.clone() };
            assert_eq!(plan.run(false).failure, None, "seed {seed}, {members} members");
        }
    }
}
