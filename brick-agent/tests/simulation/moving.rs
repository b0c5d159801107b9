//! One person who moves from workstation to workstation, all of which reach each other: whatever is left open behind, settled or not, nobody
//! but this person has changed anything, so there is never a conflict, and each workstation shows what was done last (T08).

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::chance::Chance;
use super::run::{comes_to_rest, one};
use super::steps::{Action, How, PATHS, Step, What};
use super::support::fs::{Fs, path};
use super::support::tree;
use super::world::World;

/// Seeds of the ordinary run.
const CASES: u64 = 300;
/// Paths that are used.
const USED: usize = 3;
const MEMBERS: usize = 3;

/// What the person sees: the bytes of each file.
type Seen = BTreeMap<usize, Vec<u8>>;

/// What a member shows of a path. Who reads waits for nobody who writes: so it may be older, but where it was written.
fn look(world: &World, member: usize, at: usize) -> Result<Option<Vec<u8>>, String> {
    let volume = world.volume(member).expect("it is up");
    match Fs::new(&volume).read_file(&path(PATHS[at])) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(format!("{} cannot read {}: {error}", World::name(member), PATHS[at])),
    }
}

/// What the files are after that.
fn expect(world: &World, member: usize, action: &Action, seen: &mut Seen) -> Result<(), String> {
    match action {
        Action::Put { path, .. } | Action::Save { path, .. } => {
            seen.extend(look(world, member, *path)?.map(|bytes| (*path, bytes)));
        }
        Action::Open { path, how: How::Create, .. } => drop(seen.insert(*path, Vec::new())),
        Action::Rename { from, to } => {
            let moved = seen.remove(from).expect("it was there");
            seen.insert(*to, moved);
        }
        Action::Unlink { path } => drop(seen.remove(path)),
        _ => {}
    }
    Ok(())
}

/// Who appends has appended to all that was there.
fn appended(world: &World, member: usize, at: usize, len: usize, seen: &mut Seen) -> Result<(), String> {
    let before = seen.get(&at).cloned().unwrap_or_default();
    let now = look(world, member, at)?.unwrap_or_default();
    if now.len() != before.len() + len || !now.starts_with(&before) {
        let (now, before, name) = (now.len(), before.len(), World::name(member));
        return Err(format!("{name} appended {len} bytes to {} of {before}: that gave {now}", PATHS[at]));
    }
    seen.insert(at, now);
    Ok(())
}

/// What is done next, where so much is there.
fn next(chance: &mut Chance, seen: &Seen, slot: usize) -> Vec<Action> {
    let (at, to) = (chance.below(USED), chance.below(USED));
    let len = chance.between(1, 2000);
    let size = seen.get(&at).map(|bytes| bytes.len() as u64);
    match chance.below(8) {
        // Closed, or left open behind.
        0..=2 => {
            let end = chance.one_in(2).then_some(Action::Close { slot });
            let how = if size.is_some() { How::Write } else { How::Create };
            let open = Action::Open { path: at, slot, how };
            [open, Action::Write { slot, at: size.unwrap_or(0), len }].into_iter().chain(end).collect()
        }
        3 => vec![Action::Put { path: at, len, sync: chance.one_in(2) }],
        4 | 5 => vec![Action::Save { path: at, len, sync: chance.one_in(2) }],
        6 if at != to && size.is_some() => vec![Action::Rename { from: at, to }],
        _ if size.is_some() => vec![Action::Unlink { path: at }],
        _ => vec![],
    }
}

fn moves(seed: u64, says: bool) -> Result<(), String> {
    let chance = &mut Chance::new(seed);
    let mut world = World::new(MEMBERS, &mut Chance::of(seed, &[2]), false, says)?;
    let (mut seen, mut at) = (Seen::new(), 0);
    let mut n = 0;
    let mut does = |world: &mut World, what| {
        n += 1;
        one(world, n, &Step { salt: n as u64, what }, &mut Chance::new(n as u64))
    };
    for _ in 0..chance.between(4, 14) {
        // What was left open there is closed before anything else is done.
        for slot in 0..2 {
            does(&mut world, What::Program { member: at, action: Action::Close { slot } })?;
        }
        let slot = chance.below(2);
        let mut open = None;
        for action in next(chance, &seen, slot) {
            does(&mut world, What::Program { member: at, action: action.clone() })?;
            expect(&world, at, &action, &mut seen)?;
            match action {
                Action::Open { path, .. } => open = Some(path),
                Action::Write { len, .. } => appended(&world, at, open.expect("it is open"), len, &mut seen)?,
                _ => {}
            }
        }
        let before = at;
        at = chance.below(MEMBERS);
        // It takes milliseconds until others hear that something is being written; settled it is later, or not.
        if chance.one_in(3) {
            does(&mut world, What::Pass { ms: 15 })?;
            does(&mut world, What::Work { member: before })?;
        }
        for to in (0..MEMBERS).filter(|m| *m != before) {
            does(&mut world, What::Pull { to, from: before })?;
        }
        if chance.one_in(4) {
            let member = chance.below(MEMBERS);
            does(&mut world, What::Heal { member, fault: super::steps::Transfer::Good })?;
        }
        let wanted: Vec<usize> = seen.keys().copied().collect();
        if names(&world, at) != wanted {
            // What was removed elsewhere stays where a program has it open, until that closes it.
            for slot in 0..2 {
                does(&mut world, What::Program { member: at, action: Action::Close { slot } })?;
            }
            does(&mut world, What::Pass { ms: 15 })?;
            does(&mut world, What::Work { member: at })?;
        }
        let there = names(&world, at);
        if there != wanted {
            return Err(format!("{} shows {there:?}, and not {wanted:?}", World::name(at)));
        }
    }
    comes_to_rest(&mut world, &mut Chance::new(seed))?;
    for member in 0..MEMBERS {
        let volume = world.volume(member).expect("it is up");
        let conflicts = volume.status().conflicts;
        let files = tree::of_volume(&volume, 20).0.len();
        let mut shown = Seen::new();
        for at in 0..USED {
            shown.extend(look(&world, member, at)?.map(|bytes| (at, bytes)));
        }
        if conflicts > 0 || files != seen.len() || shown != seen {
            return Err(format!("{}: {conflicts} conflicts, {files} files", World::name(member)));
        }
    }
    Ok(())
}

/// Which of the paths are there.
fn names(world: &World, member: usize) -> Vec<usize> {
    let volume = world.volume(member).expect("it is up");
    let fs = Fs::new(&volume);
    (0..USED).filter(|n| fs.stat(&path(PATHS[*n])).is_ok()).collect()
}

#[test]
fn t08_one_person_who_moves_never_makes_a_conflict() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(seed) = number("NEARBRICK_SEED") {
        return moves(seed, true).unwrap();
    }
    let first = number("NEARBRICK_FIRST").unwrap_or(0);
    for seed in first..first + number("NEARBRICK_CASES").unwrap_or(CASES) {
        if let Err(why) = moves(seed, false) {
            panic!(
                "{why}\nto see it again:\n  NEARBRICK_SEED={seed} cargo test --test simulation t08_one_person -- --nocapture"
            );
        }
    }
}
