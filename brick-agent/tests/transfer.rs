//! Large files on their way: only what lacks comes, what has come is not lost, and the source may change.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nearbrick_agent::heal::HealRequest;
use nearbrick_agent::peer::Served;
use nearbrick_core::heal::Reason;
use nearbrick_core::{FileId, VersionVector};
use support::fs::{Fs, path, write_all};
use support::members::Lab;

const MIB: usize = 1 << 20;

fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Members, and a file of this content that is everywhere.
fn with_file(members: usize, bytes: &[u8]) -> Lab {
    let lab = Lab::new(members, members);
    Fs::new(lab.volume(0)).write_file(&path("big"), bytes).unwrap();
    lab.converge();
    lab
}

/// Writes into the file at the first member, as a program does that opens it for that.
fn change(lab: &Lab, offset: u64, bytes: &[u8]) {
    let fs = Fs::new(lab.volume(0));
    let (_, opened) = fs.open(&path("big"), libc::O_RDWR, 0).unwrap();
    write_all(lab.volume(0), opened.handle, offset, bytes).unwrap();
    lab.volume(0).release(opened.handle);
    drop(fs);
    lab.settle(0);
    lab.exchange();
}

fn on_disk(lab: &Lab, n: usize) -> Vec<u8> {
    std::fs::read(lab.data(n).join("big")).unwrap()
}

fn file_id(lab: &Lab, n: usize) -> FileId {
    let mut mark = [0; 4096];
    let len = rustix::fs::getxattr(lab.data(n).join("big"), "trusted.nearbrick", &mut mark[..]).unwrap();
    nearbrick_agent::brick::mark::Mark::from_bytes(&mark[..len]).unwrap().file
}

fn moved(lab: &Lab) -> u64 {
    lab.net.bytes.swap(0, Ordering::Relaxed)
}

fn staged(lab: &Lab, n: usize) -> Vec<String> {
    let dir = std::fs::read_dir(lab.brick_dir(n).join(".nearbrick/staging")).unwrap();
    dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// Cuts the second member off at the data chunk with this number.
fn cut_at(lab: &Lab, number: u64) {
    let (net, brick) = (Arc::downgrade(&lab.net), lab.brick(1));
    *lab.net.on_chunk.lock().unwrap() = Some(Box::new(move |n| {
        if n == number
            && let Some(net) = net.upgrade()
        {
            net.set_cut(brick, true);
        }
    }));
}

fn join_again(lab: &Lab) {
    *lab.net.on_chunk.lock().unwrap() = None;
    lab.net.set_cut(lab.brick(1), false);
}

#[test]
fn a_change_in_one_place_costs_its_chunk_and_the_list() {
    needs!(Root);
    let mut bytes = noise(64 * MIB, 1);
    let lab = with_file(2, &bytes);
    moved(&lab);
    // 4 KiB in 64 MiB: within a quarter of 1 MiB, as 1 MiB for 1 GiB.
    let new = noise(4096, 2);
    bytes[20_000_000..20_004_096].copy_from_slice(&new);
    change(&lab, 20_000_000, &new);
    assert_eq!(lab.heal(1).files_done, 1);
    let cost = moved(&lab);
    assert!(cost <= (MIB / 4) as u64, "{cost} bytes");
    assert!(on_disk(&lab, 1) == bytes);
    // Bytes that moved are found too.
    bytes.splice(0..0, noise(1000, 3));
    Fs::new(lab.volume(0)).write_file(&path("big"), &bytes).unwrap();
    lab.settle(0);
    lab.exchange();
    assert_eq!(lab.heal(1).files_done, 1);
    let cost = moved(&lab);
    assert!(cost <= (MIB / 4) as u64, "{cost} bytes");
    assert!(on_disk(&lab, 1) == bytes);
    // And a chunk that is there more than once comes once.
    let again = [bytes.clone(), noise(3 * MIB, 9), noise(3 * MIB, 9), noise(3 * MIB, 9)].concat();
    Fs::new(lab.volume(0)).write_file(&path("big"), &again).unwrap();
    lab.settle(0);
    lab.exchange();
    assert_eq!(lab.heal(1).files_done, 1);
    let cost = moved(&lab);
    assert!(cost <= 4 * MIB as u64, "{cost} bytes");
    assert!(on_disk(&lab, 1) == again);
    lab.converge();
    lab.one_tree();
    assert_eq!(staged(&lab, 1), [""; 0]);
}

#[test]
fn t22_a_transfer_that_is_cut_at_any_chunk_goes_on_where_it_was() {
    needs!(Root);
    let size = 3 * MIB;
    let lab = with_file(2, &noise(size, 0));
    let chunks = (size / (64 << 10)) as u64;
    for n in 0..chunks {
        let (old, new) = (on_disk(&lab, 1), noise(size, n + 1));
        change(&lab, 0, &new);
        moved(&lab);
        cut_at(&lab, n);
        let outcome = lab.heal(1);
        assert_eq!((outcome.files_failed, outcome.files_done), (1, 0), "{outcome:?}");
        assert!(outcome.failures.contains_key(&Reason::Unreachable), "{outcome:?}");
        assert!(on_disk(&lab, 1) == old, "cut at {n}: no reader sees half a file");
        join_again(&lab);
        let first = moved(&lab);
        assert_eq!(lab.heal(1).files_done, 1);
        assert!(on_disk(&lab, 1) == new, "cut at {n}");
        let second = moved(&lab);
        // Of what had come more than 1 MiB was kept: at most a chunk of it comes again, and a list each time.
        let kept = if n >= 20 { n * (64 << 10) - (128 << 10) } else { 0 };
        assert!(second <= size as u64 - kept + (16 << 10), "cut at {n}: {first} and {second} bytes");
    }
    assert_eq!(staged(&lab, 1), [""; 0]);
    lab.converge();
    lab.one_tree();
}

#[test]
fn t22_a_first_copy_goes_on_too_and_from_another_holder() {
    needs!(Root);
    let lab = Lab::new(3, 3);
    let bytes = noise(8 * MIB, 5);
    Fs::new(lab.volume(0)).write_file(&path("big"), &bytes).unwrap();
    lab.settle(0);
    lab.exchange();
    assert_eq!(lab.heal(2).files_done, 1);
    lab.exchange();
    moved(&lab);
    // The holder that it comes from first is cut off in the middle; the other goes on.
    let net = Arc::downgrade(&lab.net);
    let first = Arc::new(std::sync::Mutex::new(None));
    let begun = first.clone();
    *lab.net.on_stream.lock().unwrap() = Some(Arc::new(move |brick| {
        begun.lock().unwrap().get_or_insert(brick);
    }));
    *lab.net.on_chunk.lock().unwrap() = Some(Box::new(move |n| {
        if n == 100
            && let (Some(net), Some(brick)) = (net.upgrade(), *first.lock().unwrap())
        {
            net.set_cut(brick, true);
        }
    }));
    let outcome = lab.heal(1);
    assert_eq!((outcome.files_done, outcome.files_failed), (1, 0), "{outcome:?}");
    assert!(on_disk(&lab, 1) == bytes);
    let cost = moved(&lab);
    assert!(cost <= (8 * MIB + MIB / 2) as u64, "{cost} bytes");
}

#[test]
fn t22_a_wrong_byte_costs_its_chunk_and_never_gets_in() {
    needs!(Root);
    let size = 4 * MIB;
    let lab = with_file(2, &noise(size, 0));
    for n in [0, 5, 63] {
        let (old, new) = (on_disk(&lab, 1), noise(size, n + 1));
        change(&lab, 0, &new);
        *lab.net.damage.lock().unwrap() = Some(n);
        let outcome = lab.heal(1);
        assert_eq!(outcome.files_failed, 1, "{outcome:?}");
        assert!(outcome.failures.contains_key(&Reason::Corrupt), "{outcome:?}");
        assert!(on_disk(&lab, 1) == old);
        moved(&lab);
        assert_eq!(lab.heal(1).files_done, 1);
        assert!(on_disk(&lab, 1) == new);
        let cost = moved(&lab);
        assert!(cost <= 128 << 10, "{cost} bytes");
    }
    // Also in a file that comes for the first time, as one stream.
    let bytes = noise(size, 99);
    Fs::new(lab.volume(0)).write_file(&path("new"), &bytes).unwrap();
    lab.settle(0);
    lab.exchange();
    *lab.net.damage.lock().unwrap() = Some(7);
    let outcome = lab.heal(1);
    assert!(outcome.failures.contains_key(&Reason::Corrupt), "{outcome:?}");
    moved(&lab);
    // The next try of one job asks again by itself.
    *lab.net.damage.lock().unwrap() = Some(0);
    let outcome = lab.heal_as(1, &HealRequest { tries: Some(3), ..HealRequest::default() });
    assert_eq!((outcome.files_done, outcome.files_failed), (1, 0), "{outcome:?}");
    assert_eq!(std::fs::read(lab.data(1).join("new")).unwrap(), bytes);
    let cost = moved(&lab);
    assert!(cost <= 256 << 10, "{cost} bytes");
}

#[test]
fn t22_the_source_changes_while_it_is_read() {
    needs!(Root);
    let size = 4 * MIB;
    let lab = with_file(2, &noise(size, 0));
    for n in [0, 20, 60] {
        change(&lab, 0, &noise(size, n + 1));
        let newest = noise(size, n + 1000);
        let (volume, bytes) = (lab.volume(0).clone(), newest.clone());
        *lab.net.on_chunk.lock().unwrap() = Some(Box::new(move |at| {
            if at == n {
                Fs::new(&volume).write_file(&path("big"), &bytes).unwrap();
            }
        }));
        let outcome = lab.heal(1);
        *lab.net.on_chunk.lock().unwrap() = None;
        assert_eq!(outcome.files_done, 0, "{outcome:?}");
        lab.converge();
        assert!(on_disk(&lab, 1) == newest);
    }
    lab.one_tree();
}

#[test]
fn t02_after_a_restart_staging_has_what_is_to_be_gone_on_with_and_no_more() {
    needs!(Root);
    let size = 8 * MIB;
    let mut lab = with_file(2, &noise(size, 0));
    let cut_and_restart = |lab: &mut Lab, seed: u64| {
        change(lab, 0, &noise(size, seed));
        cut_at(lab, 100);
        assert_eq!(lab.heal(1).files_failed, 1);
        assert_eq!(staged(lab, 1).len(), 1, "{:?}", staged(lab, 1));
        std::fs::write(lab.brick_dir(1).join(".nearbrick/staging/heal-x-1"), b"rest").unwrap();
        lab.reopen(1);
    };
    cut_and_restart(&mut lab, 1);
    let left = staged(&lab, 1);
    assert!(left.len() == 1 && left[0].starts_with("part-"), "{left:?}");
    join_again(&lab);
    moved(&lab);
    assert_eq!(lab.heal(1).files_done, 1);
    assert!(on_disk(&lab, 1) == noise(size, 1));
    let cost = moved(&lab);
    assert!(cost < 3 * MIB as u64, "{cost} bytes");
    assert_eq!(staged(&lab, 1), [""; 0]);
    // A newer version came another way: a program here wrote it anew.
    cut_and_restart(&mut lab, 2);
    join_again(&lab);
    Fs::new(lab.volume(1)).write_file(&path("big"), b"short").unwrap();
    lab.settle(1);
    lab.reopen(1);
    assert_eq!(staged(&lab, 1), [""; 0]);
    lab.converge();
    // The file is gone.
    Fs::new(lab.volume(0)).write_file(&path("big"), &noise(size, 3)).unwrap();
    lab.converge();
    cut_and_restart(&mut lab, 4);
    join_again(&lab);
    let fs = Fs::new(lab.volume(0));
    lab.volume(0).unlink(support::fs::ROOT, b"big").unwrap();
    drop(fs);
    lab.exchange();
    lab.heal(1);
    assert_eq!(staged(&lab, 1), [""; 0]);
}

#[test]
fn t17_of_a_sparse_file_only_the_data_moves() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    let (apparent, data) = (4u64 << 30, noise(3 * MIB, 1));
    let fs = Fs::new(lab.volume(0));
    let (_, opened) = fs.open(&path("big"), libc::O_RDWR | libc::O_CREAT, 0o600).unwrap();
    let write = |at, bytes: &[u8]| write_all(lab.volume(0), opened.handle, at, bytes).unwrap();
    write(apparent - data.len() as u64, &data);
    write(1 << 30, &data);
    lab.volume(0).release(opened.handle);
    drop(fs);
    lab.settle(0);
    lab.exchange();
    assert_eq!(lab.heal(1).files_done, 1);
    let cost = moved(&lab);
    assert!(cost <= 7 * MIB as u64, "{cost} bytes");
    // Changed: by chunks, the same.
    change(&lab, 2 << 30, &data[..MIB]);
    lab.heal(1);
    let cost = moved(&lab);
    assert!(cost <= 3 * MIB as u64 / 2, "{cost} bytes");
    let file = std::fs::File::open(lab.data(1).join("big")).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), apparent);
    assert!(meta.blocks() * 512 <= 8 * MIB as u64, "{} blocks", meta.blocks());
    let mut got = vec![1; data.len()];
    for (at, wanted) in
        [(1 << 30, &data[..]), (apparent - data.len() as u64, &data), (3 << 30, &vec![0; data.len()])]
    {
        file.read_exact_at(&mut got, at).unwrap();
        assert!(got == wanted, "at {at}");
    }
    file.read_exact_at(&mut got[..MIB], 2 << 30).unwrap();
    assert!(got[..MIB] == data[..MIB]);
}

#[test]
fn t18_owner_mode_times_xattrs_and_links_are_kept_by_chunks_too() {
    needs!(Root);
    let lab = with_file(2, &noise(2 * MIB, 0));
    let fs = Fs::new(lab.volume(0));
    let stat = fs.stat(&path("big")).unwrap();
    lab.volume(0).link(stat.node, support::fs::ROOT, b"other").map(|s| fs.counted(&s)).unwrap();
    lab.volume(0).setxattr(stat.node, b"user.note", b"kept", 0).unwrap();
    let attr = nearbrick_agent::volume::types::SetAttr {
        mode: Some(0o640),
        uid: Some(1234),
        gid: Some(4321),
        ..Default::default()
    };
    lab.volume(0).setattr(stat.node, None, &attr).unwrap();
    drop(fs);
    lab.converge();
    moved(&lab);
    change(&lab, 1000, b"changed in one place");
    lab.converge();
    assert!(moved(&lab) < MIB as u64);
    lab.one_tree();
    let (a, b) = (lab.data(1).join("big"), lab.data(1).join("other"));
    let (a, b) = (std::fs::metadata(a).unwrap(), std::fs::metadata(b).unwrap());
    assert_eq!((a.ino(), a.uid(), a.gid(), a.mode() & 0o7777), (b.ino(), 1234, 4321, 0o640));
}

#[test]
fn t31_heals_follow_a_log_that_is_always_appended_to_and_end() {
    needs!(Root);
    let lab = with_file(2, &noise(4 * MIB, 0));
    let fs = Fs::new(lab.volume(0));
    let (_, opened) = fs.open(&path("big"), libc::O_RDWR, 0).unwrap();
    let end = AtomicU64::new(4 * MIB as u64);
    let volume = lab.volume(0).clone();
    let append = move |end: &AtomicU64, len: usize| {
        let at = end.fetch_add(len as u64, Ordering::Relaxed);
        write_all(&volume, opened.handle, at, &noise(len, at)).unwrap();
    };
    let append = Arc::new(append);
    let end = Arc::new(end);
    for round in 0..5u64 {
        append(&end, 100_000);
        // As a peer that wants to have it: what is written for long gets a version then.
        lab.volume(0).source(file_id(&lab, 0), &VersionVector::new()).unwrap();
        lab.exchange();
        // Also while it is read.
        let (more, to) = (append.clone(), end.clone());
        *lab.net.on_chunk.lock().unwrap() = Some(Box::new(move |_| more(&to, 5_000)));
        moved(&lab);
        lab.heal(1);
        *lab.net.on_chunk.lock().unwrap() = None;
        lab.exchange();
        let cost = moved(&lab);
        assert!(cost < 2 * MIB as u64, "round {round}: {cost} bytes");
        let there = on_disk(&lab, 1).len() as u64;
        assert!(there > 4 * MIB as u64 + round * 100_000, "round {round}: {there} bytes");
    }
    lab.volume(0).release(opened.handle);
    drop(fs);
    lab.converge();
    assert_eq!(on_disk(&lab, 1).len() as u64, end.load(Ordering::Relaxed));
    lab.one_tree();
}

#[test]
fn p02_a_slow_holder_does_not_hold_up_the_files_of_others() {
    needs!(Root);
    let lab = Lab::new(3, 3);
    for n in 0..2 {
        for k in 0..20 {
            let name = format!("of-{n}-{k}");
            Fs::new(lab.volume(n)).write_file(&path(&name), name.as_bytes()).unwrap();
        }
        lab.settle(n);
    }
    // The third hears of both; the first two do not heal.
    lab.exchange();
    let slow = lab.brick(0);
    let (target, root) = (lab.volume(2).clone(), lab.data(2));
    *lab.net.on_stream.lock().unwrap() = Some(Arc::new(move |brick| {
        if brick == slow {
            support::wait("the files of the other holder", || {
                (0..20)
                    .all(|k| std::fs::metadata(root.join(format!("of-1-{k}"))).is_ok_and(|m| m.blocks() > 0))
            });
            // Only then does the slow one answer.
            let _ = target.status();
        }
    }));
    let outcome = lab.heal_as(2, &HealRequest { concurrency: Some(2), ..HealRequest::default() });
    assert_eq!((outcome.files_done, outcome.files_failed), (40, 0), "{outcome:?}");
}
