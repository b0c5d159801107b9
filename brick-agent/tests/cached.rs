//! Files whose bytes are elsewhere: how they are read, fetched ahead, and emptied again; and what a peer
//! gets of a file that is being written.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nearbrick_agent::heal::chunk::read_exact;
use nearbrick_agent::peer::{Served, Source, SourceKind};
use nearbrick_core::heal::Reason;
use nearbrick_core::{FileId, VersionVector};
use support::disk::Disk;
use support::fs::{Fs, path, read_node, write_all};
use support::members::Lab;

const MIB: u64 = 1 << 20;

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 11) as u8).collect()
}

/// Files that only the first member holds. On disks of their own: of a disk that is nearly full, nothing is kept
/// that is cached.
fn with_files(members: usize, files: &[(&str, Vec<u8>)]) -> Option<Lab> {
    let lab = Lab::on(Disk::Xfs, members, 1)?;
    for (name, bytes) in files {
        Fs::new(lab.volume(0)).write_file(&path(name), bytes).unwrap();
    }
    lab.settle(0);
    lab.exchange();
    Some(lab)
}

fn moved(lab: &Lab) -> u64 {
    lab.net.bytes.swap(0, Ordering::Relaxed)
}

fn bytes_on_disk(lab: &Lab, n: usize, name: &str) -> u64 {
    std::fs::metadata(lab.data(n).join(name)).unwrap().blocks() * 512
}

fn file_id(lab: &Lab, n: usize, name: &str) -> FileId {
    let mut mark = [0; 4096];
    let len = rustix::fs::getxattr(lab.data(n).join(name), "trusted.nearbrick", &mut mark[..]).unwrap();
    nearbrick_agent::brick::mark::Mark::from_bytes(&mark[..len]).unwrap().file
}

#[test]
fn a_reader_in_order_asks_seldom_and_one_that_jumps_gets_little() {
    needs!(Root);
    let bytes = pattern(20 << 20, 1);
    let Some(lab) = with_files(2, &[("f", bytes.clone())]) else { return };
    let fs = Fs::new(lab.volume(1));
    let node = fs.stat(&path("f")).unwrap().node;
    let opened = lab.volume(1).open_file(node, libc::O_RDONLY).unwrap();
    let mut buffer = Vec::new();
    for at in [15 * MIB, 3 * MIB, 9 * MIB] {
        lab.volume(1).read(opened.handle, at, 100, &mut buffer).unwrap();
        assert!(buffer == bytes[at as usize..at as usize + 100]);
    }
    assert!(moved(&lab) <= 3 * (128 << 10));
    lab.volume(1).release(opened.handle);
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    *lab.net.on_chunk.lock().unwrap() = Some(Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    assert!(read_node(lab.volume(1), node).unwrap() == bytes);
    // What was there is not asked for again: that makes some more pieces.
    assert!(moved(&lab) <= 20 * MIB - 3 * (128 << 10));
    // How many depends on how fast they are answered; without growing blocks it would be 160.
    assert!(asked.load(Ordering::Relaxed) <= 100, "{asked:?} requests");
    *lab.net.on_chunk.lock().unwrap() = None;
    assert_eq!(lab.volume(1).status().stubs, 0);
}

#[test]
fn the_rest_of_a_directory_comes_before_it_is_asked_for() {
    needs!(Root);
    let names: Vec<_> = (0..40).map(|n| format!("d/{n:02}")).collect();
    let Some(lab) = Lab::on(Disk::Xfs, 2, 1) else { return };
    let fs = Fs::new(lab.volume(0));
    let made = lab.volume(0).mkdir(support::fs::me(), support::fs::ROOT, b"d", 0o755).unwrap();
    fs.counted(&made);
    for name in &names {
        fs.write_file(&path(name), name.as_bytes()).unwrap();
    }
    fs.write_file(&path("d/30-large"), &pattern(MIB as usize, 1)).unwrap();
    drop(fs);
    lab.settle(0);
    lab.exchange();
    let fs = Fs::new(lab.volume(1));
    let ahead = lab.volume(1).ahead();
    for name in &names[..3] {
        assert!(!ahead.borrow().is_some());
        assert_eq!(fs.read_file(&path(name)).unwrap(), name.as_bytes());
    }
    assert!(ahead.borrow().is_some());
    assert_eq!(lab.volume(1).fetch_ahead(), 37);
    assert_eq!(lab.volume(1).fetch_ahead(), 0);
    lab.net.set_cut(lab.brick(0), true);
    for name in &names {
        assert_eq!(fs.read_file(&path(name)).unwrap(), name.as_bytes());
    }
    assert!(fs.read_file(&path("d/30-large")).is_err());
}

#[test]
fn a_cached_copy_is_emptied_and_read_again() {
    needs!(Root);
    let (a, b) = (pattern(3 << 20, 1), pattern(2 << 20, 2));
    let Some(mut lab) = with_files(3, &[("a", a.clone()), ("b", b.clone())]) else { return };
    let read = |lab: &Lab, name: &str| Fs::new(lab.volume(1)).read_file(&path(name)).unwrap();
    assert!(read(&lab, "a") == a && read(&lab, "b") == b);
    lab.exchange();
    assert_eq!(lab.volume(1).status().stubs, 0);
    // The holder of the replica set empties nothing, and nothing is emptied that is open.
    assert_eq!(lab.volume(0).empty_cached(u64::MAX), 0);
    let fs = Fs::new(lab.volume(1));
    let open: Vec<_> =
        ["a", "b"].map(|name| fs.open(&path(name), libc::O_RDONLY, 0).unwrap().1.handle).into();
    assert_eq!(lab.volume(1).empty_cached(u64::MAX), 0);
    open.into_iter().for_each(|handle| lab.volume(1).release(handle));
    drop(fs);
    // Nor when nobody else answers.
    lab.net.set_cut(lab.brick(0), true);
    assert_eq!(lab.volume(1).empty_cached(u64::MAX), 0);
    assert!(read(&lab, "a") == a);
    lab.net.set_cut(lab.brick(0), false);
    // As much as is needed.
    assert!(lab.volume(1).empty_cached(1) >= 2 * MIB);
    assert_eq!(lab.volume(1).status().stubs, 1);
    assert!(lab.volume(1).empty_cached(u64::MAX) >= 2 * MIB);
    assert_eq!((bytes_on_disk(&lab, 1, "a"), bytes_on_disk(&lab, 1, "b")), (0, 0));
    lab.exchange();
    // Others hear that it is not there any more: the third reads from the first alone.
    lab.net.set_cut(lab.brick(0), true);
    assert!(Fs::new(lab.volume(2)).read_file(&path("a")).is_err());
    lab.net.set_cut(lab.brick(0), false);
    lab.reopen(1);
    assert_eq!(lab.volume(1).status().stubs, 2);
    assert!(read(&lab, "a") == a && read(&lab, "b") == b);
    lab.converge();
    lab.one_tree();
}

#[test]
fn what_was_read_of_a_stub_is_emptied_too() {
    needs!(Root);
    let bytes = pattern(8 << 20, 1);
    let Some(lab) = with_files(2, &[("f", bytes.clone())]) else { return };
    let fs = Fs::new(lab.volume(1));
    let shown = fs.stat(&path("f")).unwrap();
    let read_some = || {
        let (_, opened) = fs.open(&path("f"), libc::O_RDONLY, 0).unwrap();
        let mut buffer = Vec::new();
        lab.volume(1).read(opened.handle, 0, 4096, &mut buffer).unwrap();
        lab.volume(1).release(opened.handle);
        assert!(bytes_on_disk(&lab, 1, "f") >= 128 << 10);
    };
    for _ in 0..2 {
        read_some();
        assert!(lab.volume(1).empty_cached(1) >= 128 << 10);
        assert_eq!(bytes_on_disk(&lab, 1, "f"), 0);
    }
    // Programs see nothing of all that.
    read_some();
    let again = fs.stat(&path("f")).unwrap();
    assert_eq!((again.size, again.mtime, again.perm), (shown.size, shown.mtime, shown.perm));
    assert!(fs.read_file(&path("f")).unwrap() == bytes);
}

#[test]
fn a_copy_that_was_changed_here_is_not_emptied() {
    needs!(Root);
    let Some(lab) = with_files(2, &[("f", pattern(100_000, 1))]) else { return };
    Fs::new(lab.volume(1)).read_file(&path("f")).unwrap();
    // Past the mount: found out before the bytes go.
    std::fs::write(lab.data(1).join("f"), b"an edit").unwrap();
    assert_eq!(lab.volume(1).empty_cached(u64::MAX), 0);
    lab.converge();
    assert_eq!(std::fs::read(lab.data(0).join("f")).unwrap(), b"an edit");
    // And through it.
    let mine = pattern(100_000, 2);
    Fs::new(lab.volume(1)).write_file(&path("f"), &mine).unwrap();
    lab.settle(1);
    assert_eq!(lab.volume(1).empty_cached(u64::MAX), 0);
    lab.converge();
    assert!(std::fs::read(lab.data(0).join("f")).unwrap() == mine);
}

fn bytes_of(source: &Source) -> Vec<u8> {
    let mut bytes = vec![0; source.size as usize];
    read_exact(&*source.file, &mut bytes, 0).unwrap();
    bytes
}

/// A file that a program is writing, and the version that a peer gets of it.
fn while_it_is_written(disk: Disk, check: impl FnOnce(&Lab, FileId, &Source, &dyn Fn(&[u8]))) {
    let Some(lab) = Lab::on(disk, 2, 2) else { return };
    let before = pattern(MIB as usize, 1);
    let fs = Fs::new(lab.volume(0));
    let (_, opened) = fs.open(&path("f"), libc::O_RDWR | libc::O_CREAT, 0o600).unwrap();
    let write = |bytes: &[u8]| write_all(lab.volume(0), opened.handle, 0, bytes).unwrap();
    write(&before);
    let file = file_id(&lab, 0, "f");
    let source = lab.volume(0).source(file, &VersionVector::new()).unwrap();
    assert!(bytes_of(&source) == before);
    check(&lab, file, &source, &write);
    // The last version is what everybody gets in the end.
    let last = pattern(MIB as usize + 1, 3);
    write(&last);
    lab.volume(0).release(opened.handle);
    drop(fs);
    lab.converge();
    let there = std::fs::read(lab.data(1).join("f")).unwrap();
    assert!(there.starts_with(&last) && there == std::fs::read(lab.data(0).join("f")).unwrap());
    assert_eq!(lab.volume(0).exactly(file, &source.version).unwrap_err(), Reason::SourceChanged);
}

#[test]
fn t22_where_blocks_can_be_shared_a_version_is_of_one_moment() {
    needs!(Root);
    while_it_is_written(Disk::Xfs, |lab, file, source, write| {
        assert_eq!(source.kind, SourceKind::Copy);
        let before = bytes_of(source);
        write(&pattern(MIB as usize / 2, 2));
        let again = lab.volume(0).exactly(file, &source.version).unwrap();
        assert!(bytes_of(&again) == before && bytes_of(source) == before);
        // Who asks for the newest gets a new one, and then only that is kept.
        let newer = lab.volume(0).source(file, &source.version).unwrap();
        assert!(newer.version != source.version && newer.version.includes(&source.version));
        assert_eq!(lab.volume(0).exactly(file, &source.version).unwrap_err(), Reason::SourceChanged);
        lab.exchange();
        assert_eq!(lab.heal(1).files_done, 1);
        assert!(std::fs::read(lab.data(1).join("f")).unwrap() == bytes_of(&newer));
    });
}

#[test]
fn elsewhere_a_version_is_given_out_up_to_its_size_until_there_is_a_newer_one() {
    needs!(Root);
    while_it_is_written(Disk::Ext4, |lab, file, source, write| {
        assert_eq!(source.kind, SourceKind::Live);
        write(&pattern(2 * MIB as usize, 2));
        let again = lab.volume(0).exactly(file, &source.version).unwrap();
        assert_eq!((again.kind, again.size), (SourceKind::Live, MIB));
        lab.volume(0).source(file, &source.version).unwrap();
        assert_eq!(lab.volume(0).exactly(file, &source.version).unwrap_err(), Reason::SourceChanged);
    });
}
