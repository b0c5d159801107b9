//! The volume as a library, without FUSE, against a plain file system in memory:
//! random operations give the same results, and leave the same tree, also on
//! the brick's disk and after the volume was closed and opened again.
//!
//! The seed of a run is printed; `NEARBRICK_SEED=N` repeats it, `NEARBRICK_CASES=N`
//! makes it longer. Each failure that was found stays below as a test with a name.

#![allow(clippy::unwrap_used)]

mod support;

use nearbrick_agent::volume::Volume;
use proptest::prelude::*;

use support::drive::{self, Slots, time};
use support::fs::{Fs, path};
use support::members::Lab;
use support::ops::{Op, op};
use support::random::{caught, runner};
use support::reference::Reference;
use support::tree;

/// Compares everything that can be seen.
fn compare(volume: &Volume, reference: &Reference, page: usize) {
    tree::assert_same("the reference", &reference.tree(), "the volume", &tree::of_volume(volume, page));
    let fs = Fs::new(volume);
    for (path, mtime, names) in reference.facts() {
        let stat = fs.stat(&path).unwrap();
        if let Some(mtime) = mtime {
            assert_eq!(stat.mtime, time(mtime), "mtime of {}", tree::shown(&path));
        }
        if let Some(names) = names {
            assert_eq!(stat.nlink, names, "names of {}", tree::shown(&path));
        }
    }
}

/// Does the operations to both.
fn run(ops: &[Op]) {
    let mut lab = Lab::new(1, 1);
    let mut reference = Reference::new();
    let mut slots = Slots::default();
    for (n, op) in ops.iter().enumerate() {
        let expected = reference.apply(op);
        if *op == Op::Reopen {
            slots.close_all(lab.volume(0));
            lab.reopen(0);
            compare(lab.volume(0), &reference, 7);
            continue;
        }
        let got = drive::apply(lab.volume(0), &mut slots, op);
        assert_eq!(got, expected, "operation {n}: {op:?}");
    }
    compare(lab.volume(0), &reference, 3);
    slots.close_all(lab.volume(0));
    lab.settle(0);
    compare(lab.volume(0), &reference, 1000);
    // The brick is the user's own files.
    tree::assert_same("the reference", &reference.tree(), "the brick", &tree::of_disk(&lab.data(0)));
    lab.reopen(0);
    compare(lab.volume(0), &reference, 2);
    let status = lab.volume(0).status();
    assert_eq!((status.dirty_files, status.pending.files, status.conflicts), (0, 0, 0));
}

#[test]
fn random_operations_leave_what_the_reference_has() {
    needs!(Root);
    let ops = prop::collection::vec(op(), 1..60);
    if let Err(error) = runner(96).run(&ops, |ops| caught(|| run(&ops))) {
        panic!("{error}");
    }
}

#[test]
fn a_directory_of_thousands_is_listed_in_pages_while_it_changes() {
    needs!(Root);
    let lab = Lab::new(1, 1);
    let volume = lab.volume(0);
    let fs = Fs::new(volume);
    let made = volume.mkdir(support::fs::me(), support::fs::ROOT, b"many", 0o755).unwrap();
    fs.counted(&made);
    for n in 0..3000 {
        fs.write_file(&path(&format!("many/f{n}")), b"").unwrap();
    }
    // What is there all the time is listed exactly once, whatever comes and goes.
    let handle = volume.opendir(made.node).unwrap();
    let mut seen = Vec::new();
    let (mut offset, mut round) = (0, 0);
    loop {
        let page = volume.readdir(handle, offset, 100).unwrap();
        let Some(last) = page.last() else { break };
        offset = last.offset;
        seen.extend(page.into_iter().map(|e| String::from_utf8(e.name).unwrap()));
        volume.unlink(made.node, format!("f{}", 2900 + round).as_bytes()).unwrap();
        fs.write_file(&path(&format!("many/new{round}")), b"").unwrap();
        round += 1;
    }
    volume.releasedir(handle);
    seen.retain(|name| name.strip_prefix('f').and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n < 2900));
    let listed = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((listed, seen.len()), (2900, 2900));
}

/// A change of the owner takes setuid and setgid away, not only from files.
#[test]
fn regression_a_pipe_loses_setuid_with_its_owner() {
    needs!(Root);
    let path = path("b");
    run(&[Op::Fifo { path: path.clone(), mode: 0o4755 }, Op::Chown { path, uid: 0, gid: 0 }]);
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    needs!(Root);
    run(&[
        Op::WriteFile { path: path("a"), len: 5000, byte: 1 },
        Op::Open { path: path("a"), slot: 0, mode: 0, truncate: false, exclusive: false, create: false },
        Op::Unlink { path: path("a") },
        Op::Write { slot: 0, at: 10, len: 100, byte: 2 },
        Op::Read { slot: 0, at: 0, len: 9000 },
        Op::WriteFile { path: path("a"), len: 3, byte: 3 },
        Op::Read { slot: 0, at: 0, len: 9000 },
        Op::Close { slot: 0 },
    ]);
}

#[test]
fn a_rename_over_an_open_file_keeps_it_for_who_has_it_open() {
    needs!(Root);
    run(&[
        Op::WriteFile { path: path("a"), len: 50, byte: 1 },
        Op::WriteFile { path: path("b"), len: 60, byte: 2 },
        Op::Open { path: path("b"), slot: 1, mode: 0, truncate: false, exclusive: false, create: false },
        Op::Rename { from: path("a"), to: path("b"), flags: 0 },
        Op::Write { slot: 1, at: 60, len: 10, byte: 3 },
        Op::Read { slot: 1, at: 0, len: 100 },
        Op::ReadFile { path: path("b") },
        Op::Close { slot: 1 },
        Op::Reopen,
    ]);
}

#[test]
fn directories_swap_and_nest() {
    needs!(Root);
    run(&[
        Op::Mkdir { path: path("a"), mode: 0o755 },
        Op::Mkdir { path: path("b"), mode: 0o700 },
        Op::WriteFile { path: path("a/c"), len: 10, byte: 1 },
        Op::Rename { from: path("a"), to: path("b"), flags: libc::RENAME_EXCHANGE },
        Op::Rename { from: path("a"), to: path("b/a"), flags: 0 },
        Op::Rename { from: path("b"), to: path("b/a/b"), flags: 0 },
        Op::Reopen,
        Op::Link { from: path("b/c"), to: path("b/a/c") },
        Op::Unlink { path: path("b/c") },
        Op::Rmdir { path: path("b") },
    ]);
}
