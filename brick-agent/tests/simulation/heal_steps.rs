//! One heal of all kinds of files, in which the target ends at each of its steps.

use std::collections::{BTreeMap, BTreeSet};

use nearbrick_core::FileId;
use rustix::io::Errno;

use super::chance::Chance;
use super::machine::End;
use super::run::comes_to_rest;
use super::steps::Transfer;
use super::support::fs::{Fs, Name, path, write_all};
use super::support::tree;
use super::world::World;

const SOURCE: usize = 0;
const TARGET: usize = 1;
/// Long enough to come by chunks where something of it is here.
const LARGE: usize = (1 << 20) + 70_000;
/// What a power cut leaves is different each time.
const CUTS: u64 = 4;

/// What the files were when the target had all of them, and what they are now.
#[derive(Default)]
struct Files {
    old: BTreeMap<Vec<Name>, Vec<u8>>,
    new: BTreeMap<Vec<Name>, Vec<u8>>,
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut chance = Chance::new(seed);
    (0..len.div_ceil(8)).flat_map(|_| chance.next().to_le_bytes()).take(len).collect()
}

fn files() -> Files {
    let mut all = Files::default();
    let large = bytes(1, LARGE);
    let mut changed = large.clone();
    changed[300_000..304_096].copy_from_slice(&bytes(2, 4096));
    all.old.insert(path("large"), large);
    all.new.insert(path("large"), changed);
    for (name, old, new) in [("dir/replaced", 900, 1300), ("linked", 600, 700), ("dir/shorter", 5000, 20)] {
        all.old.insert(path(name), bytes(3, old));
        all.new.insert(path(name), bytes(4, new));
    }
    for (n, len) in [700, 0, 4500, 1].into_iter().enumerate() {
        all.new.insert(path(&format!("small-{n}")), bytes(5 + n as u64, len));
    }
    let second = all.new[&path("linked")].clone();
    all.new.insert(path("dir/second"), second);
    all.old.insert(path("dir/second"), bytes(3, 600));
    all
}

fn exchange(world: &mut World) {
    for n in [SOURCE, TARGET] {
        world.time.pass(std::time::Duration::from_secs(1));
        world.work(n);
    }
    world.pull(TARGET, SOURCE).unwrap();
    world.pull(SOURCE, TARGET).unwrap();
}

/// The target knows of all, and has the older versions, for good.
fn before_the_heal(files: &Files) -> World {
    let mut world = World::new(2, &mut Chance::new(1), false, false).unwrap();
    world.hold_all_everywhere();
    files.old.values().chain(files.new.values()).for_each(|bytes| world.oracle.saw(bytes));
    let volume = world.volume(SOURCE).unwrap();
    let fs = Fs::new(&volume);
    fs.mkdir(&path("dir")).unwrap();
    for (at, bytes) in files.old.iter().filter(|(at, _)| **at != path("dir/second")) {
        fs.write_file(at, bytes).unwrap();
    }
    let linked = fs.stat(&path("linked")).unwrap().node;
    let (dir, name) = (fs.stat(&path("dir")).unwrap().node, b"second");
    fs.counted(&volume.link(linked, dir, name).unwrap());
    volume.setxattr(linked, b"user.note", b"one", 0).unwrap();
    exchange(&mut world);
    world.heal(TARGET, Transfer::Good).unwrap();
    exchange(&mut world);
    assert_eq!(world.volume(TARGET).unwrap().status().pending_in.files, 0);
    for (at, bytes) in files.new.iter().filter(|(at, _)| **at != path("dir/second")) {
        if *at == path("large") {
            let (_, open) = fs.open(at, libc::O_RDWR, 0).unwrap();
            write_all(&volume, open.handle, 300_000, &bytes[300_000..304_096]).unwrap();
            volume.release(open.handle);
        } else {
            fs.write_file(at, bytes).unwrap();
        }
    }
    volume.setxattr(linked, b"user.note", b"two", 0).unwrap();
    drop(fs);
    exchange(&mut world);
    for machine in &world.machines {
        machine.disk.write_back();
        machine.stores.write_back();
    }
    world
}

/// What the target shows of itself, with nobody to ask.
fn shown(world: &World, at: &[Name]) -> Result<Vec<u8>, Errno> {
    Fs::new(&world.volume(TARGET).unwrap()).read_file(at)
}

fn on_disk(world: &World, at: &[Name]) -> Vec<u8> {
    world.machines[TARGET].disk.file_at(at).map(|found| found.bytes).unwrap_or_default()
}

fn staged(world: &World) -> BTreeSet<String> {
    let names = world.machines[TARGET].disk.names_in(&[b".nearbrick", b"staging"]);
    names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
}

/// The target ended there, and is back.
fn after_the_end(world: &mut World, files: &Files, how: End, large: FileId, what: &str) {
    world.net.part(World::brick(SOURCE), World::brick(TARGET));
    world.start(TARGET).unwrap();
    let wanted = BTreeSet::from([format!("part-{large}")]);
    assert!(staged(world).is_subset(&wanted), "{what}: {:?}", staged(world));
    let mut lacking = BTreeSet::new();
    for (at, new) in &files.new {
        let (name, old) = (tree::shown(at), files.old.get(at));
        match shown(world, at) {
            Ok(bytes) if bytes == *new => {}
            Ok(bytes) if Some(&bytes) == old => {}
            // What is not here, or is known to be damaged.
            Err(Errno::IO) if old.is_none() || how == End::PowerCut => {}
            Ok(bytes) => {
                panic!("{what}: {name} is neither the old file nor the new one, {} bytes", bytes.len())
            }
            Err(error) => panic!("{what}: {name} cannot be read: {error}"),
        }
        let there = world.machines[TARGET].disk.file_at(at).unwrap_or_else(|| panic!("{what}: no {name}"));
        if there.bytes != *new {
            lacking.insert(there.ino);
        }
    }
    let pending = world.volume(TARGET).unwrap().status().pending_in.files;
    assert!(pending >= lacking.len() as u64, "{what}: {pending} pending, and {} lack", lacking.len());
    world.net.join_pairs();
}

fn all_is_healed(world: &World, files: &Files, how: End, what: &str) {
    let volume = world.volume(TARGET).unwrap();
    let shown = tree::of_volume(&volume, 50);
    let names: BTreeSet<_> = shown.0.keys().cloned().collect();
    let wanted: BTreeSet<_> = files.new.keys().cloned().chain([path("dir")]).collect();
    assert_eq!(names, wanted, "{what}");
    for (at, new) in &files.new {
        assert!(on_disk(world, at) == *new, "{what}: {} is not the new file", tree::shown(at));
    }
    let ino = |at: &str| world.machines[TARGET].disk.file_at(&path(at)).map(|found| found.ino);
    assert_eq!(ino("linked"), ino("dir/second"), "{what}");
    assert_eq!(shown.0[&path("linked")].xattrs[&b"user.note"[..]], b"two", "{what}");
    assert_eq!(staged(world), BTreeSet::new(), "{what}");
    let kept = world.machines[TARGET].disk.names_in(&[b".nearbrick", b"versions"]);
    assert!(how == End::PowerCut || kept.is_empty(), "{what}: {kept:?}");
    let status = volume.status();
    let pending = (status.pending_in.files, status.pending_out.len(), status.pending.files, status.conflicts);
    assert_eq!(pending, (0, 0, 0, 0), "{what}");
}

#[test]
fn t02_a_heal_that_is_cut_at_any_step_leaves_each_file_old_or_new_and_is_gone_on_with() {
    let files = files();
    let mut world = before_the_heal(&files);
    let large = world.machines[TARGET].disk.file_at(&path("large")).unwrap().mark.unwrap().file;
    let began = world.machines[TARGET].life.spent();
    let healed = world.heal(TARGET, Transfer::Good).unwrap();
    let steps = world.machines[TARGET].life.spent() - began;
    assert_eq!((healed.files_done, healed.files_total), (8, 8), "{:?}", healed.failures);
    assert!(steps > 60, "{steps} steps");
    all_is_healed(&world, &files, End::Kill, "without an end");
    for step in 0..steps {
        for (how, salt) in [(End::Kill, 0)].into_iter().chain((0..CUTS).map(|salt| (End::PowerCut, salt))) {
            let what = format!("{how:?} at step {step} of {steps}, {salt}");
            let mut world = before_the_heal(&files);
            let chance = &mut Chance::of(step, &[salt]);
            world.machines[TARGET].doom = how;
            world.machines[TARGET].life.end_after(step);
            world.heal(TARGET, Transfer::Good);
            world.look_after(chance).unwrap();
            assert!(!world.machines[TARGET].is_up(), "{what}: it has not ended");
            after_the_end(&mut world, &files, how, large, &what);
            comes_to_rest(&mut world, chance).unwrap_or_else(|why| panic!("{what}: {why}"));
            all_is_healed(&world, &files, how, &what);
        }
    }
}
