//! Names that go, come back, and stand in each other's way.

use super::super::cases::{ALL, NONE, quiet};
use super::super::machine::End;
use super::super::run::{Plan, verdict};
use super::super::steps::{Action, Faults, How, Transfer, What};
use super::{does, pull, stays_mended, step};

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

/// A file that was deleted was live, as somebody had edited it who did not know of that; then it got one more name there. That took the
/// reason away why the first one was live: it was gone from the others' trees, and stayed in that one.
#[test]
fn t09_a_name_that_an_edit_kept_stays_when_the_file_gets_another() {
    for (seed, other) in (0..20).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut steps = vec![
            does(0, Action::Mkdir { dir: 0 }),
            does(0, Action::Put { path: 2, len: 132, sync: true }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            does(0, Action::Unlink { path: 2 }),
            does(1, Action::Put { path: 2, len: 989, sync: true }),
            step(What::Work { member: 1 }),
        ];
        if other {
            // Who wants the name too gets it: it was there before.
            steps.extend([
                does(0, Action::Put { path: 2, len: 206, sync: true }),
                step(What::Work { member: 0 }),
            ]);
        }
        steps.extend([pull(1, 0), does(1, Action::Link { from: 2, to: 4 })]);
        let plan = Plan { seed, faults: NONE, ..quiet(steps) };
        assert_eq!(plan.run(false).failure, None, "seed {seed}, {other}");
        verdict(&plan, |world| {
            for machine in &world.machines {
                let len = |at: &[&[u8]]| {
                    let at: Vec<_> = at.iter().map(|name| name.to_vec()).collect();
                    machine.disk.file_at(&at).map(|found| found.bytes.len())
                };
                assert_eq!(len(&[b"p", b"b"]), Some(989), "seed {seed}, {other}");
                assert_eq!(len(&[b"c"]), Some(if other { 206 } else { 989 }), "seed {seed}, {other}");
            }
        })
        .unwrap();
    }
}

/// As above, where the agent is killed before it says that there is one more name.
#[test]
fn t09_a_name_that_an_edit_kept_stays_when_another_is_found() {
    for (seed, changes) in (0..10).flat_map(|seed| (0..6).map(move |changes| (seed, changes))) {
        let plan = quiet(vec![
            does(0, Action::Mkdir { dir: 0 }),
            does(0, Action::Put { path: 2, len: 132, sync: true }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            does(0, Action::Unlink { path: 2 }),
            does(1, Action::Put { path: 2, len: 989, sync: true }),
            step(What::Work { member: 1 }),
            pull(1, 0),
            step(What::End { member: 1, how: End::Kill, after: Some(changes) }),
            does(1, Action::Link { from: 2, to: 4 }),
        ]);
        let plan = Plan { seed, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}, after {changes}");
    }
}

/// Who replaced or removed a file asked the one who was writing it, and heard that it was removed there: so its name went to the file that was
/// beside it, and that one was replaced, of which the program did not know.
#[test]
fn t09_what_gets_a_name_while_its_writer_is_asked_is_not_removed() {
    let last = [Action::Save { path: 2, len: 50, sync: true }, Action::Unlink { path: 2 }];
    for (seed, last) in (0..20).flat_map(|seed| last.clone().map(|last| (seed, last))) {
        let plan = quiet(vec![
            does(1, Action::Open { path: 2, slot: 1, how: How::Truncate }),
            does(0, Action::Save { path: 2, len: 361, sync: true }),
            pull(0, 1),
            does(1, Action::Save { path: 2, len: 1379, sync: false }),
            does(0, last),
        ]);
        let plan = Plan { seed, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
    }
}

/// A file that stood beside another of its name was made anew from the disk when the index was lost, as a file of the name that it had there.
/// When its first name was heard of it wanted that same name for another reason, and took it for another's: only there it had one more.
#[test]
fn t03_a_file_beside_another_has_one_name_everywhere_after_a_lost_index() {
    for seed in (0..40).chain([1_009_688]) {
        let plan = quiet(vec![
            does(2, Action::Save { path: 2, len: 5620, sync: true }),
            does(1, Action::Put { path: 0, len: 290, sync: true }),
            does(0, Action::Open { path: 2, slot: 2, how: How::Exclusive }),
            pull(0, 2),
            pull(2, 0),
            step(What::Close { member: 0 }),
            step(What::LoseIndex { member: 0 }),
        ]);
        assert_eq!(Plan { seed, ..plan }.run(false).failure, None, "seed {seed}");
    }
}

/// Two directories were one, and a file in it had a name beside its own because of one in the other. They came apart, and that one left with its
/// directory: the other one kept the name beside its own, at the member that saw both at once. As the seed had it.
#[test]
fn t07_who_leaves_a_merged_directory_leaves_its_name_to_who_wants_it() {
    let faults = Faults { kills: true, power: true, compaction: true, ..NONE };
    assert_eq!(Plan::new(2_201_569, faults).run(false).failure, None);
}

/// A file of which the index was lost was taken as what others have at its path. An attribute of which only its disk knew stayed there alone. As
/// the seed had it.
#[test]
fn t18_an_attribute_of_what_is_taken_for_another_file_is_said() {
    stays_mended(2_560_179, ALL, "17,26,64,110,117");
}
