//! Looks through a brick: what was changed past the mount is taken over, and what the disk damaged is brought again.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearbrick_agent::brick::mark::{Mark, XATTR};
use nearbrick_agent::heal::limit::{Limiter, Throttle, Timer};
use nearbrick_core::FileId;
use nearbrick_core::heal::Reason;
use support::fs::{Fs, path, read_all};
use support::members::{Lab, print_of};
use support::tree;

fn write(lab: &Lab, n: usize, at: &str, bytes: &[u8]) {
    Fs::new(lab.volume(n)).write_file(&path(at), bytes).unwrap();
    lab.settle(n);
}

fn read(lab: &Lab, n: usize, at: &str) -> Vec<u8> {
    Fs::new(lab.volume(n)).read_file(&path(at)).unwrap()
}

/// The bytes of all files that a member shows, sorted.
fn contents(lab: &Lab, n: usize) -> Vec<Vec<u8>> {
    let bytes = |e: tree::Entry| match e.what {
        tree::What::File(bytes) => Some(bytes),
        _ => None,
    };
    let mut all: Vec<_> = tree::of_volume(lab.volume(n), 50).0.into_values().filter_map(bytes).collect();
    all.sort();
    all
}

fn file_at(at: &Path) -> FileId {
    let mut value = vec![0; 4096];
    let len = rustix::fs::getxattr(at, XATTR, &mut value[..]).unwrap();
    Mark::from_bytes(&value[..len]).unwrap().file
}

/// The disk turns bytes of a file: its times are as they were.
fn rot(lab: &mut Lab, n: usize, name: &str, bytes: &[u8]) {
    let at = lab.data(n).join(name);
    lab.close(n);
    File::options().write(true).open(&at).unwrap().write_all_at(bytes, 0).unwrap();
    lab.say_local(n, file_at(&at), |local| local.print = Some(print_of(&at)));
    lab.open(n);
}

fn set_aside(lab: &Lab, n: usize) -> Vec<Vec<u8>> {
    let kept = fs::read_dir(lab.brick_dir(n).join(".nearbrick/versions")).unwrap();
    kept.map(|e| fs::read(e.unwrap().path()).unwrap()).collect()
}

#[test]
fn t25_what_was_changed_in_the_brick_is_found_and_healed() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    write(&lab, 0, "edited", b"one");
    write(&lab, 0, "same", b"same");
    write(&lab, 0, "touched", b"touched");
    lab.converge();
    assert_eq!(lab.scrub(1).files, 3);
    fs::write(lab.data(1).join("edited"), b"two, past the mount").unwrap();
    // Only its times.
    File::options()
        .write(true)
        .open(lab.data(1).join("touched"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    let pass = lab.scrub(1);
    assert_eq!((pass.files, pass.edited, pass.damaged, pass.left), (2, 1, 0, 0));
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        assert_eq!(read(&lab, n, "edited"), b"two, past the mount");
        let pass = lab.scrub(n);
        assert_eq!((pass.files, pass.bytes, pass.edited), (3, 30, 0));
        assert_eq!(lab.unrepaired(n), 0);
        assert_eq!(lab.volume(n).status().conflicts, 0);
    }
}

#[test]
fn t25_an_edit_in_the_brick_and_a_newer_version_elsewhere_are_both_kept() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    write(&lab, 0, "f", b"one");
    lab.converge();
    write(&lab, 0, "f", b"two, elsewhere");
    lab.exchange();
    fs::write(lab.data(1).join("f"), b"two, past the mount").unwrap();
    assert_eq!(lab.scrub(1).edited, 1);
    lab.converge();
    lab.one_tree();
    assert_eq!(contents(&lab, 0), [&b"two, elsewhere"[..], b"two, past the mount"]);
}

#[test]
fn t25_names_made_moved_and_removed_in_the_brick_are_found() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    let fs0 = Fs::new(lab.volume(0));
    for dir in ["a", "b", "gone"] {
        fs0.mkdir(&path(dir)).unwrap();
    }
    for file in ["a/moved", "a/removed", "gone/inside", "swapped"] {
        write(&lab, 0, file, file.as_bytes());
    }
    lab.converge();
    let node = fs0.stat(&path("a/moved")).unwrap().node;
    let data = lab.data(1);
    fs::rename(data.join("a/moved"), data.join("b/here")).unwrap();
    fs::remove_file(data.join("a/removed")).unwrap();
    fs::remove_dir_all(data.join("gone")).unwrap();
    fs::create_dir(data.join("new")).unwrap();
    fs::write(data.join("new/file"), b"new").unwrap();
    symlink("file", data.join("new/link")).unwrap();
    fs::hard_link(data.join("new/file"), data.join("new/second")).unwrap();
    fs::remove_file(data.join("swapped")).unwrap();
    symlink("a", data.join("swapped")).unwrap();
    // No name of a volume.
    fs::write(data.join(".nearbrick"), b"not in the root").unwrap();
    let pass = lab.scrub(1);
    assert_eq!(pass.names, 7, "{pass:?}");
    assert_eq!(pass.damaged, 0);
    lab.converge();
    let tree = lab.one_tree();
    assert!(!tree.0.contains_key(&path(".nearbrick")));
    // Moved, and not made anew.
    assert_eq!(Fs::new(lab.volume(0)).stat(&path("b/here")).unwrap().node, node);
    assert!(Fs::new(lab.volume(0)).stat(&path("a/moved")).is_err());
    for n in 0..2 {
        assert_eq!(read(&lab, n, "b/here"), b"a/moved");
        assert_eq!(read(&lab, n, "new/file"), b"new");
        assert_eq!(Fs::new(lab.volume(n)).stat(&path("new/second")).unwrap().nlink, 2);
        // What is gone is lacking here, and removed nowhere.
        assert_eq!(read(&lab, n, "a/removed"), b"a/removed");
        assert_eq!(read(&lab, n, "gone/inside"), b"gone/inside");
        assert_eq!(read(&lab, n, "swapped"), b"swapped");
    }
    assert_eq!(lab.scrub(1).names, 0);
}

#[test]
fn t25_a_file_put_in_the_place_of_a_stub_is_an_edit() {
    needs!(Root);
    let lab = Lab::new(2, 1);
    write(&lab, 0, "f", b"of the other brick");
    lab.exchange();
    let outside = lab.dir.path().join("outside");
    fs::write(&outside, b"past the mount").unwrap();
    fs::rename(&outside, lab.data(1).join("f")).unwrap();
    assert_eq!(lab.scrub(1).edited, 1);
    lab.converge();
    lab.one_tree();
    assert_eq!(contents(&lab, 0), [&b"of the other brick"[..], b"past the mount"]);
}

/// Where a symbolic link of a member leads.
fn target(lab: &Lab, n: usize, at: &str) -> Vec<u8> {
    match &tree::of_volume(lab.volume(n), 50).0[&path(at)].what {
        tree::What::Symlink(target) => target.clone(),
        other => panic!("{at} is a {other:?}"),
    }
}

#[test]
fn t25_another_symbolic_link_in_the_place_of_one_is_an_edit() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    let fs0 = Fs::new(lab.volume(0));
    for name in ["link", "same", "second"] {
        fs0.symlink(&path(name), b"one").unwrap();
    }
    let second = fs0.stat(&path("second")).unwrap().node;
    fs0.counted(&lab.volume(0).link(second, support::fs::ROOT, b"third").unwrap());
    lab.converge();
    let data = lab.data(1);
    for (name, target) in [("link", "two"), ("same", "one"), ("second", "three")] {
        fs::remove_file(data.join(name)).unwrap();
        symlink(target, data.join(name)).unwrap();
    }
    // The old one is gone, and the new one came.
    assert_eq!(lab.scrub(1).names, 4);
    lab.converge();
    let tree = lab.one_tree();
    assert_eq!(tree.0.len(), 4, "{tree:?}");
    for n in 0..2 {
        for (name, to) in [("link", "two"), ("same", "one"), ("second", "three"), ("third", "one")] {
            assert_eq!(target(&lab, n, name), to.as_bytes(), "{name} of member {n}");
            assert_eq!(fs::read_link(lab.data(n).join(name)).unwrap(), Path::new(to));
        }
        assert_eq!(lab.scrub(n).names, 0);
    }
}

const STUB: usize = 300 << 10;

/// A file at the first member, of which the second has a stub, with what was read of it.
fn lab_with_stub(read: usize) -> (Lab, Vec<u8>) {
    let lab = Lab::new(2, 1);
    let bytes: Vec<u8> = (0..STUB).map(|n| (n % 251) as u8).collect();
    write(&lab, 0, "f", &bytes);
    lab.exchange();
    if read > 0 {
        let fs1 = Fs::new(lab.volume(1));
        let (_, open) = fs1.open(&path("f"), libc::O_RDONLY, 0).unwrap();
        lab.volume(1).read(open.handle, 0, read, &mut Vec::new()).unwrap();
        lab.volume(1).release(open.handle);
    }
    assert_eq!(lab.volume(1).status().stubs, 1);
    (lab, bytes)
}

fn write_past_the_mount(lab: &Lab, at: u64) {
    let stub = File::options().write(true).open(lab.data(1).join("f")).unwrap();
    stub.write_all_at(b"past the mount", at).unwrap();
}

/// What a member shows has both: the bytes of the other brick, and those that were written into the stub.
fn both_are_kept(lab: &Lab, bytes: &[u8], at: usize) {
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        let all = contents(lab, n);
        assert_eq!(all.len(), 2, "member {n}");
        assert!(all.iter().any(|b| b == bytes), "member {n}");
        let written = |b: &Vec<u8>| b.len() == STUB && b[at..].starts_with(b"past the mount");
        assert!(all.iter().any(written), "member {n}");
    }
}

#[test]
fn t25_bytes_written_into_a_stub_are_an_edit_and_both_are_kept() {
    needs!(Root);
    for (read, at) in [(0, 1000), (4096, 200_000), (4096, 1000)] {
        let (lab, bytes) = lab_with_stub(read);
        // What the agent reads into it is no edit.
        assert_eq!(lab.scrub(1).edited, 0, "{read}");
        write_past_the_mount(&lab, at);
        assert_eq!(lab.scrub(1).edited, 1, "{read}, {at}");
        both_are_kept(&lab, &bytes, at as usize);
    }
}

#[test]
fn t25_bytes_written_into_a_stub_are_not_thrown_away_before_they_are_found() {
    needs!(Root);
    // A newer version comes, a program opens it, or it is deleted elsewhere.
    let (lab, _) = lab_with_stub(0);
    write_past_the_mount(&lab, 1000);
    let newer: Vec<u8> = (0..STUB).map(|n| (n % 7) as u8).collect();
    write(&lab, 0, "f", &newer);
    both_are_kept(&lab, &newer, 1000);
    let (lab, bytes) = lab_with_stub(4096);
    write_past_the_mount(&lab, 1000);
    let _ = Fs::new(lab.volume(1)).read_file(&path("f"));
    both_are_kept(&lab, &bytes, 1000);
    let (lab, _) = lab_with_stub(0);
    write_past_the_mount(&lab, 1000);
    Fs::new(lab.volume(0)).unlink(&path("f")).unwrap();
    lab.converge();
    lab.one_tree();
    let all = contents(&lab, 0);
    assert!(all.len() == 1 && all[0][1000..].starts_with(b"past the mount"));
}

#[test]
fn t25_a_stub_of_which_only_the_inode_was_changed_or_that_was_emptied_is_a_stub() {
    needs!(Root);
    for read in [0, 4096] {
        let (lab, bytes) = lab_with_stub(read);
        let stub = lab.data(1).join("f");
        let mode = fs::metadata(&stub).unwrap().permissions();
        fs::set_permissions(&stub, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(lab.scrub(1).edited, 0);
        assert_eq!(fs::metadata(&stub).unwrap().permissions(), mode, "set back");
        File::options().write(true).open(&stub).unwrap().set_len(0).unwrap();
        assert_eq!(lab.scrub(1).edited, 0);
        assert_eq!(Fs::new(lab.volume(1)).read_file(&path("f")).unwrap(), bytes);
        assert_eq!(lab.volume(1).status().conflicts, 0);
    }
}

#[test]
fn t25_what_the_disk_damaged_is_no_edit_and_is_brought_again() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    write(&lab, 0, "f", b"the right bytes");
    lab.converge();
    rot(&mut lab, 0, "f", b"the wrong bytes");
    let pass = lab.scrub(0);
    assert_eq!((pass.files, pass.edited, pass.damaged), (0, 0, 1));
    let status = lab.volume(0).status();
    assert_eq!((status.dirty_files, status.pending_in.files, status.scrub.set_aside), (0, 1, 1));
    assert!(matches!(status.last_error, Some((Reason::Corrupt, _, _))), "{:?}", status.last_error);
    // Kept for as long as nothing better is here, however long that is.
    lab.configure(|config| config.retention_ms = 0);
    lab.volume(0).tidy_versions().unwrap();
    assert_eq!(set_aside(&lab, 0), [b"the wrong bytes"]);
    assert_eq!(lab.unrepaired(0), 1);
    lab.reopen(0);
    assert_eq!(lab.unrepaired(0), 1, "remembered");
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        assert_eq!(read(&lab, n, "f"), b"the right bytes");
        assert_eq!(lab.volume(n).status().conflicts, 0);
    }
    assert_eq!((lab.unrepaired(0), lab.scrub(0).files), (0, 1));
    assert_eq!(lab.volume(0).tidy_versions().unwrap(), 1);
}

/// Two bricks hold `f`, of which one has a damaged copy; the third has a stub.
fn with_damaged_copy(bad: usize, bytes: &[u8]) -> Lab {
    let mut lab = Lab::new(3, 2);
    write(&lab, 0, "f", bytes);
    lab.converge();
    rot(&mut lab, bad, "f", b"the wrong bytes");
    lab
}

/// Whether somebody gave the member wrong bytes, and it saw that.
fn saw_wrong_bytes(lab: &Lab, n: usize) -> bool {
    matches!(lab.volume(n).status().last_error, Some((Reason::Corrupt, _, _)))
}

#[test]
fn p02_a_reader_gets_what_is_damaged_at_one_holder_from_another() {
    needs!(Root);
    let mut came_wrong = 0;
    for (bad, writes) in [(0, false), (1, false), (0, true), (1, true)] {
        let lab = with_damaged_copy(bad, b"the right bytes, all of them");
        if writes {
            let fs = Fs::new(lab.volume(2));
            let (_, opened) = fs.open(&path("f"), libc::O_RDWR, 0).unwrap();
            lab.volume(2).release(opened.handle);
        }
        assert_eq!(read(&lab, 2, "f"), b"the right bytes, all of them", "member {bad} has a damaged copy");
        came_wrong += usize::from(saw_wrong_bytes(&lab, 2));
    }
    assert_eq!(came_wrong, 2, "one of the two is asked first");
}

/// Who got wrong bytes before anybody could see that they are does not get right ones after them, and who opens the file next does.
#[test]
fn p02_who_reads_on_after_wrong_bytes_is_told_and_the_next_one_gets_the_right_ones() {
    needs!(Root);
    let bytes: Vec<u8> = (0..900_000u32).flat_map(u32::to_le_bytes).collect();
    let mut came_wrong = 0;
    for bad in 0..2 {
        let lab = with_damaged_copy(bad, &bytes);
        let fs = Fs::new(lab.volume(2));
        let (_, opened) = fs.open(&path("f"), libc::O_RDONLY, 0).unwrap();
        let got = read_all(lab.volume(2), opened.handle);
        if saw_wrong_bytes(&lab, 2) {
            came_wrong += 1;
            assert_eq!(got, Err(rustix::io::Errno::IO));
            assert_eq!(read_all(lab.volume(2), opened.handle), Err(rustix::io::Errno::IO), "it stays so");
        } else {
            assert!(got.is_ok_and(|got| got == bytes));
        }
        assert!(read(&lab, 2, "f") == bytes, "member {bad} has a damaged copy");
        lab.volume(2).release(opened.handle);
        assert!(read(&lab, 2, "f") == bytes, "member {bad} has a damaged copy");
    }
    assert_eq!(came_wrong, 1, "one of the two is asked first");
}

/// A member took a copy whose holder's disk had damaged it, and heard of the version's hash, which another had said, only later. Who opens
/// the file from then on, also after an end without notice, gets the right bytes, and edits them.
#[test]
fn p02_a_copy_that_came_damaged_is_neither_read_nor_edited_once_its_hash_is_heard() {
    needs!(Root);
    for (writes, cut) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut lab = Lab::new(3, 3);
        write(&lab, 0, "f", b"older bytes");
        lab.converge();
        write(&lab, 0, "f", b"the right bytes");
        lab.pull(1, 0);
        lab.pull(2, 0);
        assert_eq!(lab.heal(1).files_done, 1);
        rot(&mut lab, 0, "f", b"the wrong");
        assert_eq!(read(&lab, 2, "f"), b"the wrong bytes", "nothing tells yet that they are wrong");
        lab.pull(2, 1);
        assert_eq!(lab.volume(2).status().scrub.disagreements, 1);
        if cut {
            lab.keep_index(2);
            lab.remount(2);
            lab.open(2);
        }
        if writes {
            let fs = Fs::new(lab.volume(2));
            let (_, opened) = fs.open(&path("f"), libc::O_RDWR, 0).unwrap();
            assert_eq!(lab.volume(2).write(opened.handle, 15, b", edited"), Ok(8));
            lab.volume(2).release(opened.handle);
            lab.settle(2);
            assert_eq!(read(&lab, 2, "f"), b"the right bytes, edited");
        } else {
            assert_eq!(read(&lab, 2, "f"), b"the right bytes");
        }
        assert_eq!(lab.volume(2).status().scrub.disagreements, 0);
        assert_eq!(set_aside(&lab, 2).iter().filter(|kept| *kept == b"the wrong bytes").count(), 1);
    }
}

#[test]
fn p02_what_is_damaged_at_all_holders_is_not_read() {
    needs!(Root);
    let mut lab = with_damaged_copy(0, b"the right bytes, all of them");
    rot(&mut lab, 1, "f", b"other wrong bytes");
    for _ in 0..2 {
        let got = Fs::new(lab.volume(2)).read_file(&path("f"));
        assert_eq!(got, Err(rustix::io::Errno::IO));
    }
}

#[test]
fn t25_the_only_copy_stays_however_damaged_it_is() {
    needs!(Root);
    let mut lab = Lab::new(2, 1);
    write(&lab, 0, "f", b"the right bytes");
    // The first look says what the bytes are.
    assert_eq!(lab.scrub(0).files, 1);
    rot(&mut lab, 0, "f", b"the wrong bytes");
    for _ in 0..2 {
        let pass = lab.scrub(0);
        assert_eq!((pass.files, pass.edited, pass.damaged), (0, 0, 1));
        let status = lab.volume(0).status();
        assert_eq!((status.dirty_files, status.stubs, status.scrub.only_copies), (0, 0, 1));
        assert!(matches!(status.last_error, Some((Reason::Corrupt, _, _))));
    }
    assert_eq!(read(&lab, 0, "f"), b"the wrong bytes");
    assert_eq!(lab.unrepaired(0), 1);
    // Nobody else takes it for the version.
    lab.exchange();
    assert!(Fs::new(lab.volume(1)).read_file(&path("f")).is_err());
    write(&lab, 0, "f", b"written anew");
    assert_eq!(lab.unrepaired(0), 0);
}

#[test]
fn t11_a_file_that_is_open_for_writing_is_left_to_its_programs() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    write(&lab, 0, "f", b"one");
    lab.converge();
    let fs0 = Fs::new(lab.volume(0));
    let (_, open) = fs0.open(&path("f"), libc::O_RDWR, 0).unwrap();
    lab.volume(0).write(open.handle, 0, b"two").unwrap();
    let pass = lab.scrub(0);
    assert_eq!((pass.files, pass.edited, pass.damaged, pass.left), (0, 0, 0, 1));
    lab.volume(0).release(open.handle);
    lab.converge();
    assert_eq!(read(&lab, 1, "f"), b"two");
}

/// Time passes when somebody sleeps; after so many times it is enough.
struct Enough {
    slept: Mutex<Duration>,
    left: Mutex<usize>,
    stop: Arc<AtomicBool>,
}

impl Timer for Enough {
    fn now(&self) -> Duration {
        *self.slept.lock().unwrap()
    }

    fn sleep(&self, time: Duration) {
        *self.slept.lock().unwrap() += time;
        let mut left = self.left.lock().unwrap();
        *left -= 1;
        if *left == 0 {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_pass_that_was_cut_goes_on_after_a_restart_and_reads_nothing_twice() {
    needs!(Root);
    const FILES: u64 = 150;
    let mut lab = Lab::new(1, 1);
    for n in 0..FILES {
        Fs::new(lab.volume(0)).write_file(&path(&format!("f{n}")), b"bytes").unwrap();
    }
    lab.settle(0);
    let stop = Arc::new(AtomicBool::new(false));
    let timer = Enough { slept: Mutex::default(), left: Mutex::new(200), stop: stop.clone() };
    // Each file costs some 0.25 s of 16 KiB/s, slept in parts of 50 ms.
    let slow = Throttle::new(Some(Limiter::new(16 << 10, Arc::new(timer))), None);
    assert!(!lab.volume(0).scrub(&slow, &stop).unwrap());
    let cut = lab.volume(0).scrub_status().running.unwrap();
    assert!(cut.files > 0 && cut.files < FILES, "{cut:?}");
    lab.reopen(0);
    assert_eq!(lab.volume(0).scrub_status().running, Some(cut.clone()));
    let pass = lab.scrub(0);
    assert_eq!((pass.began_ms, pass.files, pass.left), (cut.began_ms, FILES, 0));
    assert!(pass.ended_ms.is_some() && lab.volume(0).scrub_status().running.is_none());
}
