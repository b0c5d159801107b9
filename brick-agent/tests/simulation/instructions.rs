//! What calls of a volume cost, as numbers of instructions: they do not depend on what else the machine does, so that a test sees when a
//! call comes to cost more. Counted by `valgrind --tool=callgrind`, in the calling thread, on the simulated disk and index, because
//! valgrind does not know all calls that the real ones make.
//!
//! `instructions.txt` has what each workload costs, and the reason of its last change. One that costs a tenth more fails here: whoever
//! finds that it has to writes the new number there, with the reason.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nearbrick_agent::peer::Served;
use nearbrick_agent::volume::Volume;
use nearbrick_core::Entry;

use super::chance::Chance;
use super::steps::Transfer;
use super::support;
use super::support::fs::{Fs, ROOT, me, write_all};
use super::world::World;
use crate::needs;

/// Which workload this program is to run, where it was started to be counted.
const WORKLOAD: &str = "NEARBRICK_COUNTED";
/// Files of a workload.
const FILES: usize = 200;
/// The bytes of each.
const BYTES: [u8; 1000] = [7; 1000];

fn name_of(n: usize) -> Vec<u8> {
    format!("file-{n:05}").into_bytes()
}

fn world(members: usize) -> World {
    let mut world = World::new(members, &mut Chance::new(1), false, false).unwrap();
    world.hold_all_everywhere();
    world
}

/// The first member has written all files.
fn filled(members: usize) -> World {
    let world = world(members);
    let volume = world.volume(0).unwrap();
    let fs = Fs::new(&volume);
    for n in 0..FILES {
        fs.write_file(&[name_of(n)], &BYTES).unwrap();
    }
    drop(fs);
    world.time.pass(Duration::from_secs(1));
    while volume.work() {}
    assert_eq!(volume.status().dirty_files, 0);
    world
}

/// Makes files.
#[inline(never)]
fn counted_creates(volume: &Volume) {
    for n in 0..FILES {
        let (stat, opened) = volume.create(me(), ROOT, &name_of(n), 0o644, libc::O_RDWR).unwrap();
        write_all(volume, opened.handle, 0, &BYTES).unwrap();
        volume.release(opened.handle);
        volume.forget(stat.node, 1);
    }
}

/// Opens files for reading, reads them, and closes them.
#[inline(never)]
fn counted_opens(volume: &Volume, nodes: &[u64]) {
    let mut bytes = Vec::new();
    for node in nodes {
        let opened = volume.open_file(*node, libc::O_RDONLY).unwrap();
        bytes.clear();
        volume.read(opened.handle, 0, BYTES.len(), &mut bytes).unwrap();
        assert_eq!(bytes, BYTES);
        volume.release(opened.handle);
    }
}

/// Lists a directory, and looks all of its names up.
#[inline(never)]
fn counted_lookups(volume: &Volume) {
    let fs = Fs::new(volume);
    let listed = fs.list(ROOT, 100).unwrap();
    assert_eq!(listed.len(), FILES);
    for entry in listed {
        fs.stat(&[entry.name]).unwrap();
    }
}

/// Takes what another member says of its files, and makes stubs of them.
#[inline(never)]
fn counted_entries(world: &World, said: Vec<Entry>) {
    let took = world.volume(1).unwrap().absorb(World::brick(0), said).unwrap();
    assert!(took >= FILES, "{took}");
}

/// Brings files from another member.
#[inline(never)]
fn counted_heals(world: &mut World) {
    assert_eq!(world.heal(1, Transfer::Good).unwrap().files_done, FILES as u64);
}

fn run(workload: &str) {
    match workload {
        "creates" => counted_creates(&world(1).volume(0).unwrap()),
        "opens" => {
            let volume = filled(1).volume(0).unwrap();
            let fs = Fs::new(&volume);
            let nodes: Vec<_> = (0..FILES).map(|n| fs.stat(&[name_of(n)]).unwrap().node).collect();
            counted_opens(&volume, &nodes);
        }
        "lookups" => counted_lookups(&filled(1).volume(0).unwrap()),
        "entries" => {
            let world = filled(2);
            let said =
                world.volume(0).unwrap().entries_after(&world.volume(1).unwrap().heads(), 1 << 20).unwrap();
            counted_entries(&world, said);
        }
        "heals" => {
            let mut world = filled(2);
            world.pull(1, 0).unwrap();
            counted_heals(&mut world);
        }
        other => panic!("no workload {other}"),
    }
}

fn kept_in() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/instructions.txt")
}

/// What a workload costs, and why, by its line: NAME NUMBER REASON.
fn kept(workload: &str) -> (u64, String) {
    let text = std::fs::read_to_string(kept_in()).unwrap();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, rest) =
        lines.find(|(name, _)| *name == workload).unwrap_or_else(|| panic!("nothing is kept of {workload}"));
    let (number, reason) = rest.trim().split_once(' ').unwrap_or_else(|| panic!("{workload} has no reason"));
    (
        number.parse().unwrap_or_else(|_| panic!("{workload} has no number: {number:?}")),
        reason.trim().to_owned(),
    )
}

/// Instructions of a workload for each of its files.
fn count(workload: &str) -> u64 {
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect=*counted_{workload}*"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("instructions::{workload}_cost_what_they_did"), "--test-threads=1"])
        .env(WORKLOAD, workload)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stdout));
    let number = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    number.unwrap_or_else(|| panic!("callgrind says no number: {said}")) / FILES as u64
}

fn costs_what_it_did(workload: &str) {
    if std::env::var_os(WORKLOAD).is_some_and(|counted| counted == workload) {
        return run(workload);
    }
    needs!(Valgrind);
    let (before, reason) = kept(workload);
    let now = count(workload);
    println!("{workload}: {now} instructions for each file; {before} are kept ({reason})");
    assert!(now > 0, "nothing of {workload} was counted");
    assert!(
        now <= before + before / 10,
        "{workload} cost {now} instructions for each file, and {before} when they were counted last: if that has to be, write it to {}, \
         with the reason",
        kept_in().display()
    );
}

#[test]
fn creates_cost_what_they_did() {
    costs_what_it_did("creates");
}

#[test]
fn opens_cost_what_they_did() {
    costs_what_it_did("opens");
}

#[test]
fn lookups_cost_what_they_did() {
    costs_what_it_did("lookups");
}

#[test]
fn entries_cost_what_they_did() {
    costs_what_it_did("entries");
}

#[test]
fn heals_cost_what_they_did() {
    costs_what_it_did("heals");
}
