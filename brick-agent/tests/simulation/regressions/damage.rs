//! Bits that disks turn.

use super::super::cases::{FLIPS_AND_CUTS, NONE, quiet};
use super::super::chance::Chance;
use super::super::machine::End;
use super::super::run::{Plan, after};
use super::super::steps::{Action, Faults, How, Step, Transfer, What};
use super::super::support::fs::{Fs, path};
use super::super::world::World;
use super::{does, pull, stays_mended, step};

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

/// The agent was killed when it had just given a damaged copy another mode, which moved the inode's time: so the damage was an edit, and
/// newer than the whole copies.
#[test]
fn t25_damage_is_no_edit_because_the_agent_changed_the_inode() {
    for (seed, changes, here) in (0..6)
        .flat_map(|seed| (1..8).flat_map(move |changes| [(seed, changes, false), (seed, changes, true)]))
    {
        let mut steps = vec![
            does(0, Action::Put { path: 2, len: 67, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            step(What::Heal { member: 1, fault: Transfer::Good }),
            pull(0, 1),
            step(What::Flip { member: 1, file: 0 }),
        ];
        let kill = step(What::End { member: 1, how: End::Kill, after: Some(changes) });
        let chmod = |member| does(member, Action::Chmod { path: 2, mode: 0o640 });
        steps.extend(if here { vec![kill, chmod(1)] } else { vec![chmod(0), kill, pull(1, 0)] });
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..quiet(steps) };
        assert_eq!(plan.run(false).failure, None, "seed {seed}, after {changes}, {here}");
    }
}

/// As above, where it had given it the time of modification that another version brought.
#[test]
fn t25_damage_is_no_edit_because_the_agent_set_its_time() {
    for (seed, changes) in (0..10).flat_map(|seed| (1..8).map(move |changes| (seed, changes))) {
        let plan = quiet(vec![
            does(1, Action::Put { path: 2, len: 752, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 1 }),
            pull(0, 1),
            pull(2, 1),
            does(2, Action::Put { path: 2, len: 15, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 2 }),
            pull(1, 2),
            step(What::Heal { member: 1, fault: Transfer::Good }),
            pull(2, 1),
            step(What::WriteBack { member: 1 }),
            step(What::WriteBack { member: 2 }),
            step(What::Flip { member: 2, file: 0 }),
            does(0, Action::Put { path: 2, len: 1458, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            step(What::End { member: 2, how: End::Kill, after: Some(changes) }),
            pull(2, 0),
        ]);
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}, after {changes}");
    }
}

/// A damaged copy was open for writing when the power was lost, and nobody had written to it: taken for an edit, the damage replaced the
/// whole copies.
#[test]
fn t25_damage_is_no_edit_because_the_file_was_open_when_the_power_was_lost() {
    for salt in 0..40 {
        let plan = quiet(vec![
            does(0, Action::Put { path: 2, len: 545, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 0 }),
            pull(1, 0),
            step(What::Heal { member: 1, fault: Transfer::Good }),
            pull(0, 1),
            step(What::WriteBack { member: 0 }),
            step(What::WriteBack { member: 1 }),
            step(What::Flip { member: 1, file: 0 }),
            does(1, Action::Open { path: 2, slot: 0, how: How::Write }),
            // With that the word that it is open is durable.
            does(1, Action::Put { path: 0, len: 5, sync: true }),
            Step { salt, what: What::End { member: 1, how: End::PowerCut, after: None } },
        ]);
        let plan = Plan { seed: salt % 8, faults: Faults { flips: true, power: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {}, salt {salt}", salt % 8);
    }
}

/// Of a file of which a copy was damaged a program removed the whole one, and another had moved it apart and later: so the name came back, and
/// the damage is all that is left. Nobody can mend that, and the check expected it.
#[test]
fn t25_the_last_whole_copy_may_be_removed_by_a_program() {
    for seed in 0..15 {
        let plan = quiet(vec![
            does(0, Action::Put { path: 2, len: 607, sync: true }),
            does(1, Action::Put { path: 0, len: 576, sync: true }),
            step(What::Pass { ms: 1000 }),
            step(What::Work { member: 1 }),
            pull(0, 1),
            step(What::Heal { member: 0, fault: Transfer::Good }),
            pull(1, 0),
            step(What::WriteBack { member: 0 }),
            step(What::WriteBack { member: 1 }),
            step(What::Flip { member: 0, file: 0 }),
            does(1, Action::Unlink { path: 0 }),
            step(What::Pass { ms: 1000 }),
            does(0, Action::Exchange { a: 2, b: 0 }),
        ]);
        let plan = Plan { seed, faults: Faults { flips: true, ..NONE }, ..plan };
        assert_eq!(plan.run(false).failure, None, "seed {seed}");
    }
}

/// A stub had been filled when the agent was killed. The next one found by the hash that a whole copy is here, and did not say so: when the
/// others were damaged nobody knew that there is one. As the seed had it, since it takes what comes to rest.
#[test]
fn t25_a_copy_that_a_start_finds_is_said() {
    let faults = Faults { kills: true, flips: true, compaction: true, ..NONE };
    stays_mended(762_302, faults, "6,12-13,48,57,67-72,75-76,78,98,112,115,132,136,149,169");
}

/// The copy of the brick that was asked first was damaged, and nobody had seen that yet. What came from it had not the hash that all know, and
/// the whole copy of another was not asked for.
#[test]
fn p02_what_is_damaged_at_one_holder_comes_from_another() {
    // Whole, and by chunks, as an older version is here.
    for (older, size) in [(0, 700), (1 << 20, (1 << 20) + 5000)] {
        let mut world = World::new(3, &mut Chance::new(1), false, false).unwrap();
        world.hold_all_everywhere();
        let write = |world: &World, len: usize| {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 7 % 251) as u8).collect();
            Fs::new(&world.volume(0).unwrap()).write_file(&path("f"), &bytes).unwrap();
            bytes
        };
        let exchange = |world: &mut World, healed: &[usize]| {
            world.time.pass(std::time::Duration::from_secs(1));
            world.work(0);
            for n in healed {
                world.pull(*n, 0).unwrap();
                world.heal(*n, Transfer::Good);
                (0..3).filter(|m| m != n).for_each(|m| assert!(world.pull(m, *n).is_ok()));
            }
        };
        if older > 0 {
            write(&world, older);
            exchange(&mut world, &[1, 2]);
        }
        let bytes = write(&world, size);
        exchange(&mut world, &[1]);
        world.machines[0].disk.damage(&[b"f".to_vec()]);
        let healed = world.heal(2, Transfer::Good).unwrap();
        assert_eq!((healed.files_done, healed.files_total), (1, 1), "{size}: {:?}", healed.failures);
        let there = world.machines[2].disk.file_at(&[b"f".to_vec()]).unwrap().bytes;
        assert!(there == bytes, "{size}");
    }
}

/// The newest version was lost with the power, and the brick that was to say the one before it again had a damaged copy of that: it was said
/// as a new version, and was nobody's damage any more.
#[test]
fn t25_a_damaged_copy_is_not_said_again() {
    let plan = |first, second, flip| {
        let cut = |salt, member| Step { salt, what: What::End { member, how: End::PowerCut, after: None } };
        let steps = vec![
            does(1, Action::Put { path: 0, len: 1484, sync: true }),
            does(4, Action::Put { path: 1, len: 192, sync: true }),
            step(What::Work { member: 1 }),
            step(What::Work { member: 4 }),
            pull(0, 1),
            pull(0, 4),
            step(What::Heal { member: 0, fault: Transfer::Good }),
            pull(3, 0),
            step(What::Pass { ms: 40_000 }),
            does(3, Action::Truncate { path: 0, size: 700 }),
            step(What::Work { member: 3 }),
            step(What::Work { member: 1 }),
            cut(first, 3),
            step(What::Start { member: 3 }),
            pull(1, 3),
            cut(second, 1),
            step(What::Start { member: 1 }),
            Step { salt: flip, what: What::Flip { member: 1, file: 14 } },
            step(What::Work { member: 1 }),
            pull(0, 1),
            step(What::Pass { ms: 40_000 }),
        ];
        let faults = Faults { power: true, flips: true, ..NONE };
        Plan { seed: 1_000_920, members: 5, faults, ..quiet(steps) }
    };
    let found = plan(1_410_227_197_386_455_630, 17_463_929_150_512_280_973, 3_531_706_994_780_641_457);
    assert_eq!(found.run(false).failure, None);
    for salt in 0..100 {
        assert_eq!(plan(salt, salt + 1, salt).run(false).failure, None, "salt {salt}");
    }
}

/// What the disk had damaged was set aside at a start after a power cut; the next cut left of that only the one more name, which moves the
/// inode's time. So it passed for an edit of the version that it was damaged from, and replaced that on all bricks.
#[test]
fn t01_a_start_that_sets_a_copy_aside_and_is_cut_makes_no_edit_of_it() {
    let cut = |salt| Step { salt, what: What::End { member: 3, how: End::PowerCut, after: None } };
    let plan = |flip, second| {
        let steps = vec![
            does(3, Action::Put { path: 0, len: 1074, sync: true }),
            does(4, Action::Put { path: 2, len: 192, sync: true }),
            step(What::Work { member: 3 }),
            step(What::Work { member: 4 }),
            pull(4, 3),
            step(What::Heal { member: 4, fault: Transfer::Good }),
            pull(3, 4),
            step(What::Pass { ms: 40_000 }),
            step(What::Work { member: 3 }),
            step(What::Work { member: 4 }),
            step(What::WriteBack { member: 3 }),
            Step { salt: flip, what: What::Flip { member: 3, file: 12 } },
            does(3, Action::Open { path: 0, slot: 2, how: How::Create }),
            cut(6_546_967_688_128_657_029),
            step(What::Start { member: 3 }),
            does(3, Action::ReadAll),
            cut(second),
        ];
        let faults = Faults { power: true, flips: true, ..NONE };
        Plan { seed: 1_501_103, members: 5, faults, ..quiet(steps) }
    };
    for salt in (0..300).chain([3_823_883_421_185_754_808]) {
        assert_eq!(plan(207_076_255_442_620_049, salt).run(false).failure, None, "salt {salt}");
    }
}

/// The only holder in reach had given damaged bytes, and was not asked again: not even later, when its copy was whole again, and the other
/// holder gone.
#[test]
fn t25_who_gave_damaged_bytes_once_is_asked_again_when_the_file_is_opened_anew() {
    let steps = vec![
        does(0, Action::Put { path: 1, len: 1276, sync: true }),
        step(What::Work { member: 0 }),
        pull(1, 0),
        does(1, Action::ReadAll),
        step(What::Pass { ms: 40_000 }),
        step(What::Work { member: 0 }),
        step(What::Work { member: 1 }),
        pull(0, 1),
        step(What::WriteBack { member: 0 }),
        step(What::WriteBack { member: 1 }),
        step(What::Flip { member: 0, file: 0 }),
        pull(2, 0),
        step(What::End { member: 1, how: End::Kill, after: None }),
        // It gets damaged bytes, and the other one cannot be reached.
        does(2, Action::ReadAll),
    ];
    let faults = Faults { kills: true, flips: true, ..NONE };
    let mut world = after(&Plan { faults, ..quiet(steps) }).unwrap();
    let at = [b"b".to_vec()];
    let whole = world.machines[1].disk.file_at(&at).unwrap().bytes;
    assert_ne!(world.machines[0].disk.file_at(&at).unwrap().bytes, whole);
    world.start(1).unwrap();
    world.scrub(0);
    world.heal(0, Transfer::Good);
    assert_eq!(world.machines[0].disk.file_at(&at).unwrap().bytes, whole);
    world.net.part(World::brick(2), World::brick(1));
    let volume = world.volume(2).unwrap();
    assert_eq!(Fs::new(&volume).read_file(at.as_ref()).unwrap(), whole);
}

/// The only copy of an older version that was known of was damaged when the newer one was lost: it was said again as the newest. As the seed
/// had it.
#[test]
fn t25_the_only_copy_is_not_said_again_if_it_is_damaged() {
    stays_mended(
        1_701_963,
        FLIPS_AND_CUTS,
        "4,6-7,10,14,26,52,56-57,63,71,73-75,77,84,88-89,92-93,95-97,100,108,110-111,118,130,133,136,139,146,150,163,165,187,206,209,212,228,\
         231",
    );
}

/// An edit brought a file back that another had deleted, and with it what a third one had kept of an older version that the deleter had seen.
/// That one took itself for the holder of the newest version, and said it again beside the edit. As the seed had it.
#[test]
fn t07_what_a_deletion_had_seen_is_not_said_again_when_an_edit_brings_the_file_back() {
    stays_mended(1_702_937, FLIPS_AND_CUTS, "9,14,40,107,133-136,140,145,155,231-232,237,250");
}

/// A kill came when a version in conflict had been replaced here by the one that won, and that was not said: a start took the older word for
/// enough, as neither includes the other, and all believed in the loser here. As the seed had it.
#[test]
fn t28_a_winner_that_a_kill_kept_from_being_said_is_said() {
    let faults = Faults { kills: true, flips: true, compaction: true, ..NONE };
    assert_eq!(Plan::new(1_801_999, faults).run(false).failure, None);
}

/// A start found a stub that an earlier end had left where files wait for their places. It was in the way of what was kept of the file, when that
/// was to come back: the file was missing at that member for good. As the seed had it.
#[test]
fn t28_a_stub_that_an_end_left_in_staging_is_not_in_the_way_for_ever() {
    assert_eq!(Plan::new(1_805_679, FLIPS_AND_CUTS).run(false).failure, None);
}

/// Copies that had not been durable when a program began to write were brought again after a power cut, and torn by the next, which left the
/// index as it was before: they passed for what the program wrote. And a damaged file that was open, of a version that had been replaced
/// elsewhere, for an edit. As the seeds had it.
#[test]
fn t01_what_the_index_has_as_being_written_may_be_a_copy_that_came_later() {
    for seed in [1_800_953, 1_804_155, 1_805_763] {
        assert_eq!(Plan::new(seed, FLIPS_AND_CUTS).run(false).failure, None, "seed {seed}");
    }
}

/// A program had a file open for writing and wrote nothing; the disk turned a bit of it, others gave it another name, and the power was lost.
/// By its new name it seemed to have been written to: the damage was an edit, and took the place of the good copy. As the seed had it.
#[test]
fn t25_damage_of_a_file_that_was_open_and_got_another_name_is_no_edit() {
    stays_mended(
        2_401_126,
        FLIPS_AND_CUTS,
        "6-7,10,13,25,41,43,46-47,58-59,74,80,115,117-118,143,154,159,170,174,177,243-244",
    );
}

/// A member had read a file from a holder whose disk had damaged it, and had not said that it had a copy when it heard of the hash: it read the damage
/// again. As the seed had it.
#[test]
fn p02_a_copy_that_was_not_said_yet_is_compared_when_its_hash_is_heard() {
    stays_mended(2_481_128, FLIPS_AND_CUTS, "7,10,13,36,38,72,92,94,96,102,131,133,141,156,205,225");
}

/// A heal had just kept a damaged file in `versions/`, to put another in its place, when the agent was killed: by its one more name it seemed to
/// have been written to. As the seed had it.
#[test]
fn t25_damage_is_no_edit_because_a_heal_was_about_to_replace_it() {
    let faults = Faults { kills: true, flips: true, compaction: true, ..NONE };
    stays_mended(
        2_500_179,
        faults,
        "5,7-8,10,13,19,41,52-53,86-91,100,104,107-108,117,121,124,140,148-149,167-168,171,175,179,187,201,214,218",
    );
}

/// A holder had given wrong bytes to an open that failed, as the other one was down. It was whole again when the file was read next, and
/// was not asked: the read failed. As the seed had it.
#[test]
fn t25_who_gave_wrong_bytes_to_an_open_that_failed_is_asked_by_the_next() {
    let faults = Faults { kills: true, flips: true, compaction: true, ..NONE };
    stays_mended(2_521_182, faults, "6,13,67,69,72,74,80,116,164,194,197,202,205,207,230");
}

/// A copy was brought from a damaged one before anybody had said a hash, and a program opened it for writing. Then the hash was heard, and who read the
/// file was given the damage all the same, as a program had it open. As the seed had it.
#[test]
fn t25_damage_is_not_read_because_a_program_has_the_file_open_for_writing() {
    stays_mended(2_674_067, FLIPS_AND_CUTS, "7,33,92,95,98,105,109-110,113,119,126,128,132,134,138,147-149");
}

/// The only one that had a version lost it with its power, and had not said yet that it had the older one; then the disks of the others damaged theirs.
/// When it had said it, nobody came back to that: the file was lacking for good. As the seed had it.
#[test]
fn t01_t25_the_last_whole_copy_of_an_older_version_is_said_again() {
    stays_mended(2_702_249, FLIPS_AND_CUTS, "5,9,11,16-17,19,22,26,28-32,118,132-133,135,187");
}
