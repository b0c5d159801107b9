//! What a power cut left of copies: who reads it, what it gives way to, and for whose word it waits.

use super::super::cases::{ALL, FLIPS_AND_CUTS, NONE, quiet};
use super::super::chance::Chance;
use super::super::machine::End;
use super::super::run::{Plan, after, comes_to_rest};
use super::super::steps::{Action, Faults, Mass, Step, Transfer, What};
use super::{does, pull, stays_mended, step};

/// A power cut took from the index of a brick that it had ever heard of a file, and from the disk what a copy of it was made of. What was
/// left passed for a file of its own, and stood beside the whole one.
#[test]
fn t01_what_is_left_of_a_copy_of_which_the_index_does_not_know_is_no_side_of_a_conflict() {
    let (apart, alone) = ([What::Part { a: 0, b: 1 }, What::Part { a: 1, b: 2 }], What::Start { member: 1 });
    let cut = |salt, member| Step { salt, what: What::End { member, how: End::PowerCut, after: None } };
    for salt in 0..40 {
        let copied = vec![
            step(What::WriteBack { member: 1 }),
            does(0, Action::Put { path: 0, len: 1297, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            does(1, Action::Read { path: 0 }),
            cut(salt, 1),
        ];
        // Others are heard at once; or only when what is left has become a version.
        let mut late = copied.clone();
        late.extend(apart.iter().cloned().map(step));
        late.extend([step(alone.clone()), step(What::Pass { ms: 61_000 }), step(What::Work { member: 1 })]);
        // A program goes on with it.
        let mut written = late.clone();
        written.push(does(1, Action::Put { path: 0, len: 700, sync: true }));
        for (n, steps) in [copied, late, written].into_iter().enumerate() {
            let plan = Plan { seed: salt % 8, faults: NONE, ..quiet(steps) };
            assert_eq!(plan.run(false).failure, None, "seed {}, salt {salt}, {n}", plan.seed);
        }
    }
}

/// The same, where the other brick loses the file too: what is left is all that there is, and stays: in `versions/`, if it is half of a
/// version that somebody knows.
#[test]
fn t01_what_is_left_of_the_last_copy_stays() {
    let (mut left, mut set_aside) = (0, 0);
    for salt in 0..120 {
        let cut = |salt, member| Step { salt, what: What::End { member, how: End::PowerCut, after: None } };
        let plan = quiet(vec![
            step(What::WriteBack { member: 0 }),
            step(What::WriteBack { member: 1 }),
            does(0, Action::Put { path: 0, len: 1297, sync: false }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            does(1, Action::Read { path: 0 }),
            cut(salt, 1),
            cut(salt + 1, 0),
        ]);
        let mut world = after(&Plan { seed: salt % 8, faults: NONE, ..plan }).unwrap();
        let mark = |n: usize| world.machines[n].disk.file_at(&[b"a".to_vec()]).and_then(|found| found.mark);
        let is_unknown = mark(1).is_some_and(|mark| {
            mark.version.is_some() && world.machines[1].index().object(mark.file).unwrap().is_none()
        });
        if !is_unknown || mark(0).is_some() {
            continue;
        }
        let found = world.machines[1].disk.file_at(&[b"a".to_vec()]).unwrap();
        let (bytes, mark) = (found.bytes, found.mark.unwrap());
        let torn = mark.is_of_others(blake3::hash(&bytes).as_bytes());
        // The check may not expect what is left of it.
        let _ = comes_to_rest(&mut world, &mut Chance::new(salt));
        let disk = &world.machines[1].disk;
        let stays = disk.file_at(&[b"a".to_vec()]).is_some_and(|found| found.bytes == bytes);
        let mut kept = disk.files_below(&[b".nearbrick", b"versions"]).into_iter();
        // A person may still take it from there.
        assert!(stays || torn && kept.any(|found| found.bytes == bytes), "salt {salt}");
        *(if stays { &mut left } else { &mut set_aside }) += 1;
    }
    assert!(left > 1 && set_aside > 1, "{left}, {set_aside}");
}

/// What a power cut left of a copy was found, and before anybody was heard the power failed again: that took what was found from the mark,
/// and left it in the index, or the other way round.
#[test]
fn t01_what_is_left_of_a_copy_is_not_read_after_a_second_cut() {
    for salt in 0..1000 {
        let cut = |salt| Step { salt, what: What::End { member: 1, how: End::PowerCut, after: None } };
        let plan = quiet(vec![
            step(What::WriteBack { member: 1 }),
            does(0, Action::Put { path: 0, len: 1297, sync: false }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            does(1, Action::ReadAll),
            cut(salt),
            step(What::Start { member: 1 }),
            cut(salt + 1),
            step(What::Start { member: 1 }),
            does(1, Action::ReadAll),
        ]);
        let plan = Plan { seed: salt % 8, faults: NONE, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {}, salt {salt}", plan.seed);
    }
}

/// What a power cut had left of a copy gave way when others were heard, and what came in its place was read; the next cut took that from
/// the index, which had the file as remains. It was taken for what a program was writing, and half a file was read; and where it had got
/// but one of the file's two names on the disk, its stub passed for a new file.
#[test]
fn t01_what_came_in_the_place_of_remains_is_a_copy_to_an_index_that_knows_the_remains() {
    let cut = |salt, member| Step { salt, what: What::End { member, how: End::PowerCut, after: None } };
    let put = |path, len, sync| Action::Put { path, len, sync };
    let many = vec![
        step(What::Mass { member: 0, mass: Mass::Make }),
        step(What::Work { member: 0 }),
        pull(2, 0),
        does(1, put(2, 417, true)),
        does(1, put(0, 646, false)),
        step(What::Pass { ms: 40_000 }),
        step(What::Work { member: 0 }),
        pull(2, 1),
        cut(13_181_821_972_792_542_140, 0),
        step(What::Start { member: 0 }),
        does(2, put(1, 204, false)),
        step(What::Heal { member: 2, fault: Transfer::Good }),
        pull(2, 0),
        does(2, Action::ReadAll),
        cut(3_203_231_026_120_791_140, 2),
        step(What::Start { member: 2 }),
        step(What::Work { member: 0 }),
        pull(2, 0),
        does(2, Action::ReadAll),
        cut(13_050_387_037_110_070_116, 2),
        step(What::Start { member: 2 }),
        does(2, Action::ReadAll),
    ];
    let plan = Plan { seed: 1_300_263, faults: NONE, ..quiet(many) };
    assert_eq!(plan.run(false).failure, None);
    for (first, second) in
        [1, 3, 11, 42, 54, 57].into_iter().flat_map(|first| (0..60).map(move |second| (first, second)))
    {
        let one = vec![
            does(0, put(0, 300, false)),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(2, 0),
            does(2, Action::ReadAll),
            cut(first, 2),
            step(What::Start { member: 2 }),
            pull(2, 0),
            does(2, Action::ReadAll),
            cut(second, 2),
            step(What::Start { member: 2 }),
            does(2, Action::ReadAll),
        ];
        let plan = Plan { seed: 1_002_063, faults: NONE, ..quiet(one) };
        assert_eq!(plan.run(false).failure, None, "salts {first}, {second}");
    }
}

/// A member said how far it had heard, and lost that to a power cut before anybody else knew it. What another power cut had left of a copy waited
/// for it for ever. As the seed had it.
#[test]
fn p01_what_a_member_lost_after_it_said_so_is_not_waited_for() {
    stays_mended(2_401_184, ALL, "18,24,29,31,35,42-45,64,66,72-73,75,88,93,95,111,115");
}

/// A power cut left half of a copy, and then the index was lost, and what was noted of the half with it: it was read as it was, as a copy. As
/// the seed had it.
#[test]
fn p01_half_of_a_copy_is_not_read_where_the_index_is_lost_after_the_power() {
    stays_mended(2_623_052, ALL, "10,14,16,19,44-47,54,57,91,99-101");
}

/// A file that a program had synced was deleted elsewhere, and kept in `versions/`. Two power cuts took from the index that it ever heard that, and
/// left half of an older copy in its place: it passed for what the program had written. As the seed had it.
#[test]
fn t01_half_of_a_copy_in_the_place_of_a_file_that_was_being_written_is_not_read() {
    stays_mended(2_641_618, FLIPS_AND_CUTS, "7,14,60,85,90,96,130-134,163-164");
}

/// One power cut left half of a copy, and another took from its maker that it had made that version: nobody knew it any more, so the half was
/// a version like any other, and was read beside the whole file that its maker still had. As the seed had it.
#[test]
fn t01_half_of_a_copy_of_a_version_that_nobody_knows_any_more_is_not_read() {
    let faults = Faults { kills: true, power: true, compaction: true, ..NONE };
    stays_mended(
        2_443_815,
        faults,
        "3,6,8,15,18,20,24,30-31,34,37,43,66-67,70,72,76,78-79,101,105,107,109,112,118-120,123,125",
    );
}

/// The maker of files lost them all before they were durable; one member had whole copies of them, which it had not said yet, and another what a
/// power cut had left: that was read, as no other brick was known to hold them. As the seed had it.
#[test]
fn t01_half_of_a_copy_is_not_read_though_nobody_says_that_it_holds_it() {
    let faults = Faults { kills: true, power: true, compaction: true, brakes: true, ..NONE };
    stays_mended(2_440_721, faults, "0,3-4,8-11,24,27,38,63,66,76-77");
}
