//! `minSyncCopies`: what `fsync` says is on other bricks is there.

#![allow(clippy::unwrap_used)]

mod support;

use nearbrick_agent::volume::types::Opened;
use rustix::io::Errno;

use support::fs::{Fs, path, write_all};
use support::members::Lab;

/// Opens a file for writing, made if it is not there.
fn open(fs: &Fs, name: &str) -> Opened {
    fs.open(&path(name), libc::O_RDWR | libc::O_CREAT, 0o644).unwrap().1
}

fn on_brick(lab: &Lab, n: usize, name: &str) -> Vec<u8> {
    std::fs::read(lab.data(n).join(name)).unwrap_or_default()
}

#[test]
fn fsync_returns_when_another_brick_has_what_was_written_also_while_the_file_is_open() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    lab.set_sync_copies(2);
    let fs = Fs::new(lab.volume(0));
    let opened = open(&fs, "f");
    let mut bytes = Vec::new();
    for n in 0..5u8 {
        write_all(lab.volume(0), opened.handle, bytes.len() as u64, &[n; 1000]).unwrap();
        bytes.extend([n; 1000]);
        assert_ne!(on_brick(&lab, 1, "f"), bytes, "nobody waits for a write");
        lab.volume(0).fsync(opened.handle, n % 2 == 0).unwrap();
        assert_eq!(on_brick(&lab, 1, "f"), bytes, "fsync {n}");
    }
    // Nothing new: nothing moves.
    let moved = lab.net.bytes.load(std::sync::atomic::Ordering::Relaxed);
    lab.volume(0).fsync(opened.handle, false).unwrap();
    assert_eq!(lab.net.bytes.load(std::sync::atomic::Ordering::Relaxed), moved);
    lab.volume(0).release(opened.handle);
    drop(fs);
    lab.converge();
    lab.one_tree();
    assert_eq!(on_brick(&lab, 1, "f"), bytes);
    assert_eq!(lab.volume(0).status().conflicts, 0);
}

#[test]
fn fsync_says_so_when_too_few_bricks_have_it_and_is_right_again_afterwards() {
    needs!(Root);
    let mut lab = Lab::new(3, 3);
    lab.set_sync_copies(2);
    let fs = Fs::new(lab.volume(0));
    let opened = open(&fs, "f");
    write_all(lab.volume(0), opened.handle, 0, b"one").unwrap();
    // One of two others is enough.
    lab.net.set_cut(lab.brick(1), true);
    lab.volume(0).fsync(opened.handle, false).unwrap();
    assert_eq!(on_brick(&lab, 2, "f"), b"one");
    lab.net.set_cut(lab.brick(2), true);
    // That version is there; a new one is not.
    lab.volume(0).fsync(opened.handle, false).unwrap_err();
    write_all(lab.volume(0), opened.handle, 0, b"two").unwrap();
    assert_eq!(lab.volume(0).fsync(opened.handle, false), Err(Errno::IO));
    assert_eq!(on_brick(&lab, 0, "f"), b"two", "it is here nevertheless");
    let status = lab.volume(0).status();
    assert_eq!(status.sync_failures, 2);
    let (_, line, _) = status.last_error.unwrap();
    assert!(line.contains("fsync of f failed") && line.contains("ws-b: Unreachable"), "{line}");
    lab.net.set_cut(lab.brick(1), false);
    lab.volume(0).fsync(opened.handle, false).unwrap();
    assert_eq!(on_brick(&lab, 1, "f"), b"two");
    lab.net.set_cut(lab.brick(2), false);
    lab.volume(0).release(opened.handle);
    drop(fs);
    lab.converge();
    lab.one_tree();
}

#[test]
fn a_replica_set_that_is_too_small_and_a_brick_that_is_writing_it_are_said() {
    needs!(Root);
    let mut lab = Lab::new(2, 1);
    lab.set_sync_copies(2);
    let fs = Fs::new(lab.volume(0));
    let opened = open(&fs, "alone");
    write_all(lab.volume(0), opened.handle, 0, b"x").unwrap();
    assert_eq!(lab.volume(0).fsync(opened.handle, false), Err(Errno::IO));
    let (_, line, _) = lab.volume(0).status().last_error.unwrap();
    assert!(line.contains("its replica set has 1 of the 2 bricks"), "{line}");
    // A file that has no name any more is nobody else's.
    fs.unlink(&path("alone")).unwrap();
    lab.volume(0).fsync(opened.handle, false).unwrap();
    lab.volume(0).release(opened.handle);

    let mut lab = Lab::new(2, 2);
    lab.set_sync_copies(2);
    let (a, b) = (Fs::new(lab.volume(0)), Fs::new(lab.volume(1)));
    a.write_file(&path("f"), b"base").unwrap();
    lab.converge();
    let at_b = open(&b, "f");
    let at_a = open(&a, "f");
    write_all(lab.volume(0), at_a.handle, 0, b"more").unwrap();
    // What programs are writing at the other brick is not replaced, not even for this.
    assert_eq!(lab.volume(0).fsync(at_a.handle, false), Err(Errno::IO));
    let (_, line, _) = lab.volume(0).status().last_error.unwrap();
    assert!(line.contains("ws-b: Busy"), "{line}");
    lab.volume(1).release(at_b.handle);
    lab.settle(1);
    lab.volume(0).fsync(at_a.handle, false).unwrap();
    assert_eq!(on_brick(&lab, 1, "f"), b"more");
    lab.volume(0).release(at_a.handle);
}
