//! When a file is settled: T11 and T12, through real mounts, with passthrough and without.
//!
//! A heal never puts another file in the place of one that a program here can still
//! change, and what a program changes late reaches the other members.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::channel;

use nearbrick_core::heal::Reason;

use support::leave;
use support::mapping::SharedMapping;
use support::mounts::MountedLab;
use support::{LIMIT, wait};

const A: usize = 0;
const B: usize = 1;

fn both(work: impl Fn(&MountedLab)) {
    for passthrough in [true, false] {
        println!("passthrough wanted: {passthrough}");
        work(&MountedLab::new(2, 2, passthrough));
    }
}

fn open(path: impl AsRef<std::path::Path>) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// What is on the brick's disk.
fn on_brick(m: &MountedLab, n: usize, name: &str) -> Vec<u8> {
    fs::read(m.lab.data(n).join(name)).unwrap()
}

/// Nothing is pending, nothing dirty, and both show and hold these bytes.
fn assert_both_hold(m: &MountedLab, name: &str, bytes: &[u8]) {
    m.lab.converge();
    for n in [A, B] {
        assert_eq!(fs::read(m.path(n, name)).unwrap(), bytes, "mount of member {n}");
        assert_eq!(on_brick(m, n, name), bytes, "brick of member {n}");
    }
}

#[test]
fn t11_a_source_that_is_still_written_is_followed_to_its_end() {
    needs!(Fuse);
    both(|m| {
        let file = open(m.path(A, "log"));
        file.write_all_at(b"first ", 0).unwrap();
        for round in 0..3 {
            m.lab.exchange();
            let healed = m.lab.heal(B);
            assert_eq!(healed.failures.keys().filter(|r| **r != Reason::Busy).count(), 0, "{healed:?}");
            file.write_all_at(b"more  ", 6 * (round + 1)).unwrap();
        }
        // It is open for writing: never settled, never said to be healed.
        let status = m.lab.volume(A).status();
        assert_eq!(status.dirty_files, 1);
        drop(file);
        assert_both_hold(m, "log", b"first more  more  more  ");
    });
}

#[test]
fn t11_a_heal_spares_a_file_that_is_open_for_writing_here() {
    needs!(Fuse);
    both(|m| {
        fs::write(m.path(A, "f"), b"version one").unwrap();
        assert_both_hold(m, "f", b"version one");
        // Opened at B before A's next version is known there.
        let file = open(m.path(B, "f"));
        m.lab.net.set_cut(m.lab.brick(B), true);
        fs::write(m.path(A, "f"), b"version two of A").unwrap();
        m.lab.settle(A);
        m.lab.net.set_cut(m.lab.brick(B), false);
        m.lab.exchange();
        let healed = m.lab.heal(B);
        assert_eq!(healed.files_done, 0, "{healed:?}");
        file.write_all_at(b"late", 0).unwrap();
        let mut seen = [0; 4];
        file.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"late");
        assert_eq!(&on_brick(m, B, "f")[..4], b"late");
        drop(file);
        m.lab.settle(B);
        m.lab.exchange();
        // Both edited it: a conflict, after which both versions live on at both.
        m.lab.converge();
        for n in [A, B] {
            let mut seen: Vec<_> =
                fs::read_dir(m.path(n, "")).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap()).collect();
            seen.sort();
            assert_eq!(seen, [&b"lateion one"[..], b"version two of A"], "member {n}");
            assert_eq!(m.lab.volume(n).status().conflicts, 1, "member {n}");
        }
    });
}

#[test]
fn t11_a_writer_that_comes_while_the_heal_runs_is_spared() {
    needs!(Fuse);
    both(|m| {
        let before = vec![1u8; 300_000];
        fs::write(m.path(A, "f"), &before).unwrap();
        assert_both_hold(m, "f", &before);
        fs::write(m.path(A, "f"), vec![2u8; 400_000]).unwrap();
        m.lab.settle(A);
        // A program opens the file while the heal is in the middle of it: what it is given is brought first.
        let (opened, file) = channel();
        let path = m.path(B, "f");
        let mut once = Some(move || opened.send(open(path)).unwrap());
        m.lab.exchange();
        *m.lab.net.on_chunk.lock().unwrap() = Some(Box::new(move |n| {
            if n == 2
                && let Some(open) = once.take()
            {
                open();
            }
        }));
        m.lab.heal(B);
        let file = file.recv_timeout(LIMIT).unwrap();
        *m.lab.net.on_chunk.lock().unwrap() = None;
        file.write_all_at(b"late", 0).unwrap();
        drop(file);
        m.lab.settle(B);
        m.lab.exchange();
        // Whatever the program was given when it opened the file, its bytes are not lost.
        assert_eq!(&fs::read(m.path(B, "f")).unwrap()[..4], b"late");
        assert_eq!(&on_brick(m, B, "f")[..4], b"late");
    });
}

#[test]
fn t11_a_writer_that_begins_anew_while_the_heal_runs_is_spared() {
    needs!(Fuse);
    both(|m| {
        fs::write(m.path(A, "f"), vec![1u8; 300_000]).unwrap();
        m.lab.converge();
        fs::write(m.path(A, "f"), vec![2u8; 400_000]).unwrap();
        m.lab.settle(A);
        m.lab.exchange();
        // Truncating needs nothing from the others, so the program has its file before the heal ends.
        let (opened, file) = channel();
        let path = m.path(B, "f");
        let mut once = Some(move || opened.send(File::create(path).unwrap()).unwrap());
        *m.lab.net.on_chunk.lock().unwrap() = Some(Box::new(move |n| {
            if n == 2
                && let Some(open) = once.take()
            {
                open();
            }
        }));
        let healed = m.lab.heal(B);
        *m.lab.net.on_chunk.lock().unwrap() = None;
        assert_eq!(healed.failures.keys().collect::<Vec<_>>(), [&Reason::Busy], "{healed:?}");
        let file = file.recv_timeout(LIMIT).unwrap();
        file.write_all_at(b"mine", 0).unwrap();
        drop(file);
        m.lab.settle(B);
        assert_both_hold(m, "f", b"mine");
    });
}

#[test]
fn t11_readers_keep_what_they_opened() {
    needs!(Fuse);
    both(|m| {
        fs::write(m.path(A, "f"), b"version one").unwrap();
        assert_both_hold(m, "f", b"version one");
        let reader = File::open(m.path(B, "f")).unwrap();
        fs::write(m.path(A, "f"), b"and the second version").unwrap();
        assert_both_hold(m, "f", b"and the second version");
        let mut bytes = [0; 11];
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"version one");
        assert_eq!(fs::read(m.path(B, "f")).unwrap(), b"and the second version");
    });
}

#[test]
fn t12_a_mapping_that_outlives_its_descriptor_is_followed() {
    needs!(Fuse);
    both(|m| {
        let page = vec![b'.'; 8192];
        fs::write(m.path(A, "mapped"), &page).unwrap();
        assert_both_hold(m, "mapped", &page);

        let file = open(m.path(A, "mapped"));
        let mapping = SharedMapping::new(&file, 8192).unwrap();
        drop(file);
        mapping.write(10, b"first");
        mapping.sync();
        assert_eq!(m.lab.volume(A).status().dirty_files, 1, "dirty while it is mapped");
        // A heal now may bring a snapshot, or wait: it must not end the matter.
        m.lab.exchange();
        m.lab.heal(B);
        m.lab.exchange();
        assert_ne!(leave::reason(&m.lab, A), "AllCopied", "a program can still change it unseen");
        mapping.write(5000, b"second");
        mapping.sync();
        assert_eq!(m.lab.volume(A).status().dirty_files, 1, "dirty while it is mapped");
        mapping.write(8000, b"third");
        drop(mapping);

        let mut expected = page.clone();
        expected[10..15].copy_from_slice(b"first");
        expected[5000..5006].copy_from_slice(b"second");
        expected[8000..8005].copy_from_slice(b"third");
        assert_both_hold(m, "mapped", &expected);
    });
}

#[test]
fn t12_a_heal_spares_a_file_that_is_only_mapped_here() {
    needs!(Fuse);
    both(|m| {
        let page = vec![b'.'; 4096];
        fs::write(m.path(A, "mapped"), &page).unwrap();
        assert_both_hold(m, "mapped", &page);
        let file = open(m.path(B, "mapped"));
        let mapping = SharedMapping::new(&file, 4096).unwrap();
        drop(file);
        m.lab.net.set_cut(m.lab.brick(B), true);
        fs::write(m.path(A, "mapped"), b"A's").unwrap();
        m.lab.settle(A);
        m.lab.net.set_cut(m.lab.brick(B), false);
        m.lab.exchange();
        assert_eq!(m.lab.heal(B).files_done, 0);
        mapping.write(0, b"late");
        drop(mapping);
        m.lab.settle(B);
        assert_eq!(&on_brick(m, B, "mapped")[..5], b"late.");
    });
}

#[test]
fn a_stat_after_a_write_through_a_mapping_shows_its_time() {
    needs!(Fuse);
    both(|m| {
        let path = m.path(A, "f");
        fs::write(&path, vec![0; 4096]).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        m.lab.settle(A);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), long_ago);
        let file = open(&path);
        let mapping = SharedMapping::new(&file, 4096).unwrap();
        mapping.write(0, b"x");
        mapping.sync();
        drop(mapping);
        drop(file);
        wait("the time is shown", || fs::metadata(&path).unwrap().modified().unwrap() > long_ago);
    });
}

#[test]
fn what_comes_from_a_peer_is_seen_at_once() {
    needs!(Fuse);
    both(|m| {
        // Names and attributes that B's kernel has, and will be told to forget.
        fs::create_dir(m.path(A, "d")).unwrap();
        fs::write(m.path(A, "d/f"), b"one").unwrap();
        m.lab.converge();
        assert_eq!(fs::read(m.path(B, "d/f")).unwrap(), b"one");
        assert_eq!(fs::read_dir(m.path(B, "d")).unwrap().count(), 1);
        assert!(!m.path(B, "d/new").exists());

        fs::write(m.path(A, "d/f"), b"number two").unwrap();
        fs::write(m.path(A, "d/new"), b"n").unwrap();
        fs::rename(m.path(A, "d"), m.path(A, "e")).unwrap();
        m.lab.settle(A);
        m.lab.exchange();
        wait("the new tree is seen at B", || {
            m.path(B, "e/new").exists()
                && !m.path(B, "d").exists()
                && fs::metadata(m.path(B, "e/f")).is_ok_and(|meta| meta.len() == 10)
        });
        // Not healed yet: read remotely.
        assert_eq!(fs::read(m.path(B, "e/f")).unwrap(), b"number two");
        assert_eq!(fs::read_dir(m.path(B, "e")).unwrap().count(), 2);
        m.lab.converge();
        assert_eq!(fs::read(m.path(B, "e/f")).unwrap(), b"number two");
        assert_eq!(on_brick(m, B, "e/f"), b"number two");

        fs::remove_dir_all(m.path(A, "e")).unwrap();
        m.lab.exchange();
        wait("it is gone at B", || !m.path(B, "e").exists());
    });
}

/// The names in a directory, once more by a reader that begins anew.
fn listed(dir: &std::path::Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_listing_that_the_kernel_keeps_follows_what_peers_do() {
    needs!(Fuse);
    both(|m| {
        fs::create_dir(m.path(A, "d")).unwrap();
        let mut expected = BTreeSet::new();
        for n in 0..300 {
            fs::write(m.path(A, format!("d/{n}")), b"x").unwrap();
            expected.insert(n.to_string());
        }
        m.lab.converge();
        let dir = m.path(B, "d");
        let keeps = || {
            let before = m.mounted(B).listings();
            assert_eq!(listed(&dir), expected);
            m.mounted(B).listings() == before
        };
        wait("the kernel lists from its memory", keeps);
        assert!(keeps(), "and once more");

        // What peers do is seen, also by a reader who has it open, and so is what is done here.
        let mut open = rustix::fs::Dir::read_from(File::open(&dir).unwrap()).unwrap();
        let mut again = || {
            open.rewind();
            open.by_ref()
                .map(|e| e.unwrap().file_name().to_str().unwrap().to_owned())
                .filter(|n| !n.starts_with('.'))
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(again(), expected);
        fs::rename(m.path(A, "d/17"), m.path(A, "d/renamed")).unwrap();
        fs::remove_file(m.path(A, "d/18")).unwrap();
        fs::write(m.path(A, "d/new"), b"new").unwrap();
        expected.retain(|name| name != "17" && name != "18");
        expected.extend(["renamed".to_owned(), "new".to_owned()]);
        m.lab.settle(A);
        m.lab.exchange();
        assert_eq!(listed(&dir), expected, "an open after the change is told the truth at once");
        wait("a reader that has it open sees it", || again() == expected);
        fs::write(dir.join("here"), b"here").unwrap();
        fs::remove_file(dir.join("19")).unwrap();
        expected.remove("19");
        expected.insert("here".to_owned());
        assert_eq!((listed(&dir), again()), (expected.clone(), expected.clone()));
    });
}

#[test]
fn a_stub_is_read_remotely_and_then_written_here() {
    needs!(Fuse);
    for passthrough in [true, false] {
        // C is in no replica set of A's files.
        let m = MountedLab::new(3, 2, passthrough);
        let bytes: Vec<u8> = (0..500_000u32).map(|i| (i / 3) as u8).collect();
        fs::write(m.path(A, "f"), &bytes).unwrap();
        m.lab.settle(A);
        m.lab.exchange();
        wait("it is seen at C", || m.path(2, "f").exists());
        let reader = File::open(m.path(2, "f")).unwrap();
        let mut part = vec![0; 1000];
        reader.read_exact_at(&mut part, 250_000).unwrap();
        assert_eq!(part, bytes[250_000..251_000]);
        // A writer comes while the stub is open, and both see one file.
        let writer = open(m.path(2, "f"));
        writer.write_all_at(b"from C", 250_000).unwrap();
        reader.read_exact_at(&mut part, 250_000).unwrap();
        assert_eq!(&part[..6], b"from C");
        drop((reader, writer));
        let mut expected = bytes.clone();
        expected[250_000..250_006].copy_from_slice(b"from C");
        m.lab.converge();
        for n in 0..3 {
            assert!(fs::read(m.path(n, "f")).unwrap() == expected, "member {n}");
        }
        let volume = Arc::clone(m.lab.volume(A));
        assert_eq!(volume.status().conflicts, 0);
    }
}
