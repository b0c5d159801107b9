//! Power cuts, of which each leaves another mixture of the index, the marks, the inodes and the bytes: what they
//! damaged never replaces good bytes elsewhere, and what only this brick has stays.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;
mod unproven;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nearbrick_agent::brick::mark::{Mark, XATTR};
use nearbrick_agent::volume::{Later, VolumeOptions};
use nearbrick_core::FileId;
use support::clock::AheadClock;
use support::fs::{Fs, path, write_all};
use support::members::{Lab, print_of};
use support::tree;

const ONE: &[u8] = b"the first version ";
const TWO: &[u8] = b"the second version";

fn write(lab: &Lab, n: usize, at: &str, bytes: &[u8]) {
    Fs::new(lab.volume(n)).write_file(&path(at), bytes).unwrap();
    lab.settle(n);
}

fn read(lab: &Lab, n: usize, at: &str) -> Vec<u8> {
    Fs::new(lab.volume(n)).read_file(&path(at)).unwrap()
}

/// All files that a member shows, with their bytes.
fn files(lab: &Lab, n: usize) -> Vec<(String, Vec<u8>)> {
    let of = |(path, e): (Vec<Vec<u8>>, tree::Entry)| match e.what {
        tree::What::File(bytes) => Some((String::from_utf8(path.join(&b'/')).unwrap(), bytes)),
        _ => None,
    };
    tree::of_volume(lab.volume(n), 20).0.into_iter().filter_map(of).collect()
}

fn mark_of(at: &Path) -> Mark {
    let mut value = vec![0; 4096];
    let len = rustix::fs::getxattr(at, XATTR, &mut value[..]).unwrap();
    Mark::from_bytes(&value[..len]).unwrap()
}

fn set_mark(at: &Path, mark: &Mark) {
    rustix::fs::setxattr(at, XATTR, &mark.to_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
}

/// Bytes in place, as a disk that has the rest of the inode already.
fn overwrite(at: &Path, bytes: &[u8]) {
    File::options().write(true).open(at).unwrap().write_all_at(bytes, 0).unwrap();
}

/// What was set aside.
fn damaged(lab: &Lab, n: usize) -> Vec<Vec<u8>> {
    let kept = std::fs::read_dir(lab.brick_dir(n).join(".nearbrick/versions")).unwrap();
    kept.map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect()
}

/// The file was written twice here, and the second time just before the power was cut.
/// `known`: the other brick has that, and this one knows it.
fn written_twice(known: bool) -> (Lab, PathBuf) {
    let mut lab = Lab::new(2, 2);
    write(&lab, 0, "f", ONE);
    lab.converge();
    write(&lab, 0, "f", TWO);
    lab.exchange();
    if known {
        lab.converge();
    }
    lab.keep_index(0);
    lab.cut_power(0);
    let at = lab.data(0).join("f");
    (lab, at)
}

#[test]
fn t01_times_that_reached_the_disk_without_the_bytes_are_no_version() {
    needs!(Root);
    for left in [&[0; 18][..], ONE, b"the second versi\0\0"] {
        let (mut lab, at) = written_twice(true);
        overwrite(&at, left);
        // The inode is as it was.
        lab.say_local(0, mark_of(&at).file, |local| local.print = Some(print_of(&at)));
        lab.open(0);
        lab.converge();
        lab.one_tree();
        for n in 0..2 {
            assert_eq!(files(&lab, n), [("f".to_owned(), TWO.to_vec())], "member {n}");
            assert_eq!(lab.volume(n).status().conflicts, 0);
        }
        assert_eq!(damaged(&lab, 0), [left]);
    }
}

#[test]
fn t01_damage_is_no_edit_of_a_version_of_which_only_others_know_that_it_was_copied() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    write(&lab, 0, "f", ONE);
    lab.converge();
    write(&lab, 0, "f", TWO);
    // The other one has it; that did not reach the index before the power was cut.
    lab.pull(1, 0);
    lab.keep_index(0);
    assert_eq!(lab.heal(1).files_done, 1);
    lab.cut_power(0);
    let at = lab.data(0).join("f");
    let mtime = std::fs::metadata(&at).unwrap().modified().unwrap();
    overwrite(&at, &[0; 18]);
    File::options().write(true).open(&at).unwrap().set_modified(mtime).unwrap();
    lab.say_local(0, mark_of(&at).file, |local| local.print = Some(print_of(&at)));
    lab.open(0);
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        assert_eq!(files(&lab, n), [("f".to_owned(), TWO.to_vec())], "the good copy stays");
        assert_eq!(lab.volume(n).status().conflicts, 0);
    }
    assert_eq!(damaged(&lab, 0), [[0; 18]], "and what only the damaged brick has");
}

#[test]
fn t01_what_is_whole_after_the_cut_makes_no_conflict() {
    needs!(Root);
    // The other one has it or not, and this one knows that or not; and the index kept the settling or not.
    for (copied, heard, settled) in [
        (true, true, true),
        (true, false, true),
        (false, false, true),
        (true, false, false),
        (false, false, false),
    ] {
        let mut lab = Lab::new(2, 2);
        write(&lab, 0, "f", ONE);
        lab.converge();
        let fs = Fs::new(lab.volume(0));
        let (_, opened) = fs.open(&path("f"), libc::O_WRONLY, 0).unwrap();
        write_all(lab.volume(0), opened.handle, 0, TWO).unwrap();
        lab.volume(0).fsync(opened.handle, false).unwrap();
        if !settled {
            lab.keep_index(0);
        }
        lab.volume(0).release(opened.handle);
        drop(fs);
        lab.settle(0);
        lab.pull(1, 0);
        if settled && !heard {
            lab.keep_index(0);
        }
        if copied {
            assert_eq!(lab.heal(1).files_done, 1);
            lab.pull(0, 1);
        }
        if heard {
            lab.keep_index(0);
        }
        lab.cut_power(0);
        lab.open(0);
        lab.converge();
        lab.one_tree();
        for n in 0..2 {
            let what = format!("member {n}: {copied} {heard} {settled}");
            assert_eq!(files(&lab, n), [("f".to_owned(), TWO.to_vec())], "{what}");
            assert_eq!(lab.volume(n).status().conflicts, 0, "{what}");
        }
    }
}

/// Found by the soak: a disk was cut off, and mounted again on a machine that ran on. That passed for a kill of the agent, after which all
/// that was written is there: the holes of stubs that the index had not heard of became new files, and replaced what was written elsewhere.
#[test]
fn t01_a_stub_of_which_the_index_knows_nothing_is_no_new_file_whatever_ended() {
    needs!(Root);
    for disk_stayed in [true, false] {
        let mut lab = Lab::new(2, 2);
        write(&lab, 0, "f", ONE);
        lab.converge();
        lab.keep_index(1);
        write(&lab, 0, "new", TWO);
        lab.pull(1, 0);
        assert_eq!(mark_of(&lab.data(1).join("new")).version, None, "a stub is there");
        lab.remount(1);
        let volume = lab.open_in(1, VolumeOptions { disk_stayed, ..VolumeOptions::default() }).unwrap();
        assert!(!lab.data(1).join("new").exists(), "others will tell it again");
        volume.close();
        drop(volume);
        lab.open(1);
        lab.converge();
        lab.one_tree();
        for n in 0..2 {
            let all = [("f".to_owned(), ONE.to_vec()), ("new".to_owned(), TWO.to_vec())];
            assert_eq!(files(&lab, n), all, "member {n}, {disk_stayed}");
            assert_eq!(lab.volume(n).status().conflicts, 0);
        }
    }
}

/// Found by the test of spoiled marks: one of a whole file had become that of a stub of a file that nobody knows, and after a power cut
/// the file was taken for such a stub and removed. It was the only copy.
#[test]
fn t25_bytes_under_a_mark_that_the_disk_spoiled_are_kept_whatever_ended() {
    needs!(Root);
    for power in [true, false] {
        let mut lab = Lab::new(1, 1);
        write(&lab, 0, "f", ONE);
        write(&lab, 0, "g", TWO);
        lab.close(0);
        for name in ["f", "g"] {
            set_mark(&lab.data(0).join(name), &Mark::new(FileId([9; 16]), None));
        }
        if power {
            lab.lose_power(0)
        } else {
            lab.only_killed(0)
        }
        lab.open(0);
        let mut kept = damaged(&lab, 0);
        kept.sort();
        assert_eq!(kept, [ONE, TWO], "power cut: {power}");
    }
}

/// Found by the soak: the loser of a conflict was on this brick alone when the file was deleted elsewhere. It was moved to `versions/`, the power
/// was lost before that reached the disk, and at the start the last copy was removed from the tree, where it was still.
#[test]
fn t28_what_was_kept_of_a_deleted_file_stays_kept_though_the_disk_lags_behind() {
    needs!(Root);
    for cut in [true, false] {
        let mut lab = Lab::new(2, 2);
        write(&lab, 0, "f", ONE);
        lab.converge();
        Fs::new(lab.volume(0)).unlink(&path("f")).unwrap();
        lab.pull(1, 0);
        let id = lab.volume(1).kept_versions(Some(b"f")).unwrap().remove(0).id;
        let kept = lab.brick_dir(1).join(".nearbrick/versions").join(&id);
        lab.close(1);
        std::fs::rename(&kept, lab.data(1).join("f")).unwrap();
        if cut {
            lab.lose_power(1)
        } else {
            lab.only_killed(1)
        }
        lab.open(1);
        assert!(!lab.data(1).join("f").exists());
        assert_eq!(lab.volume(1).kept_versions(Some(b"f")).unwrap()[0].id, id, "{cut}");
        assert_eq!(std::fs::read(&kept).unwrap(), ONE);
        lab.converge();
        lab.one_tree();
    }
}

/// What it said before the disk went away may be lost: it must not say other things under the same numbers.
#[test]
fn t01_a_brick_whose_disk_went_away_begins_a_new_life_on_a_machine_that_runs_on() {
    needs!(Root);
    for disk_stayed in [true, false] {
        let mut lab = Lab::new(2, 2);
        write(&lab, 0, "f", ONE);
        let before = lab.volume(0).status().incarnation;
        lab.close(0);
        lab.only_killed(0);
        let volume = lab.open_in(0, VolumeOptions { disk_stayed, ..VolumeOptions::default() }).unwrap();
        assert_eq!(volume.status().incarnation == before, disk_stayed);
        volume.close();
    }
}

#[test]
fn t01_a_stub_whose_bytes_were_lost_is_a_stub_again() {
    needs!(Root);
    for dirty in [false, true] {
        let mut lab = Lab::new(2, 2);
        write(&lab, 0, "f", TWO);
        lab.exchange();
        let (at, aside) = (lab.data(1).join("f"), lab.brick_dir(1).join("stub"));
        std::fs::hard_link(&at, &aside).unwrap();
        assert_eq!(lab.heal(1).files_done, 1);
        if dirty {
            // A program has it open for writing, and wrote nothing that it synced.
            let fs = Fs::new(lab.volume(1));
            let (_, opened) = fs.open(&path("f"), libc::O_WRONLY, 0).unwrap();
            lab.keep_index(1);
            lab.volume(1).release(opened.handle);
        } else {
            lab.keep_index(1);
        }
        lab.cut_power(1);
        // The index has the copy, and the disk lost its rename.
        std::fs::rename(&aside, &at).unwrap();
        assert_eq!(mark_of(&at).version, None);
        lab.say_local(1, mark_of(&at).file, |local| local.synced = None);
        lab.open(1);
        lab.converge();
        lab.one_tree();
        for n in 0..2 {
            assert_eq!(files(&lab, n), [("f".to_owned(), TWO.to_vec())], "member {n}");
            assert_eq!(std::fs::read(lab.data(n).join("f")).unwrap(), TWO);
            assert_eq!(lab.volume(n).status().conflicts, 0);
        }
    }
}

#[test]
fn t01_ranges_of_a_stub_are_not_believed_after_a_cut() {
    needs!(Root);
    let mut lab = Lab::new(2, 1);
    let bytes: Vec<u8> = (0..600_000u32).map(|i| (i / 7) as u8).collect();
    write(&lab, 0, "f", &bytes);
    lab.exchange();
    let fs = Fs::new(lab.volume(1));
    let (_, opened) = fs.open(&path("f"), libc::O_RDONLY, 0).unwrap();
    let mut buf = Vec::new();
    lab.volume(1).read(opened.handle, 0, 1000, &mut buf).unwrap();
    lab.volume(1).release(opened.handle);
    drop(fs);
    lab.keep_index(1);
    lab.cut_power(1);
    let at = lab.data(1).join("f");
    let file = mark_of(&at).file;
    assert!(!lab.index(1).local(file).unwrap().unwrap().filled.is_empty(), "some of it was read");
    overwrite(&at, &[0; 2000]);
    lab.open(1);
    assert!(read(&lab, 1, "f") == bytes);
}

#[test]
fn t01_a_whole_file_of_which_the_index_does_not_know_is_held() {
    needs!(Root);
    for killed in [false, true] {
        let mut lab = Lab::new(3, 3);
        write(&lab, 0, "f", TWO);
        lab.exchange();
        assert_eq!(lab.heal(2).files_done, 1);
        lab.exchange();
        lab.keep_index(1);
        assert_eq!(lab.heal(1).files_done, 1);
        lab.cut_power(1);
        if killed {
            lab.only_killed(1);
        }
        let before = lab.net.bytes.load(std::sync::atomic::Ordering::Relaxed);
        lab.open(1);
        lab.converge();
        lab.one_tree();
        assert_eq!(lab.net.bytes.load(std::sync::atomic::Ordering::Relaxed), before, "nothing had to come");
        assert_eq!(files(&lab, 1), [("f".to_owned(), TWO.to_vec())]);
        assert_eq!(lab.volume(1).status().conflicts, 0);
    }
}

#[test]
fn t01_a_version_that_no_one_has_any_more_gives_way() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    write(&lab, 0, "f", ONE);
    lab.converge();
    let at = lab.data(0).join("f");
    let old = mark_of(&at);
    write(&lab, 0, "f", TWO);
    lab.exchange();
    lab.keep_index(0);
    lab.cut_power(0);
    // The bytes, the mark and the times are those of before: only the index knows of the second version.
    overwrite(&at, ONE);
    set_mark(&at, &old);
    lab.open(0);
    lab.converge();
    lab.one_tree();
    for n in 0..3 {
        assert_eq!(files(&lab, n), [("f".to_owned(), ONE.to_vec())], "member {n}");
        assert_eq!(lab.volume(n).status().conflicts, 0);
    }
    // It goes on.
    write(&lab, 1, "f", TWO);
    lab.converge();
    assert_eq!(read(&lab, 2, "f"), TWO);
}

#[test]
fn t01_a_file_that_is_gone_gives_way_to_what_another_brick_has() {
    needs!(Root);
    let (mut lab, at) = written_twice(false);
    std::fs::remove_file(&at).unwrap();
    lab.open(0);
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        assert_eq!(files(&lab, n), [("f".to_owned(), ONE.to_vec())], "member {n}");
        assert_eq!(lab.volume(n).status().conflicts, 0);
    }
}

#[test]
fn t01_a_new_file_that_its_program_synced_is_there_settled_or_not() {
    needs!(Root);
    for settled in [false, true] {
        let mut lab = Lab::new(2, 2);
        let fs = Fs::new(lab.volume(0));
        let (_, opened) = fs.open(&path("f"), libc::O_WRONLY | libc::O_CREAT, 0o644).unwrap();
        write_all(lab.volume(0), opened.handle, 0, TWO).unwrap();
        lab.volume(0).fsync(opened.handle, false).unwrap();
        if !settled {
            lab.keep_index(0);
        }
        lab.volume(0).release(opened.handle);
        drop(fs);
        lab.settle(0);
        if settled {
            lab.keep_index(0);
        }
        lab.exchange();
        lab.cut_power(0);
        let at = lab.data(0).join("f");
        // Its mark was set after that, and did not reach the disk.
        set_mark(&at, &Mark::new(mark_of(&at).file, None));
        lab.open(0);
        lab.converge();
        lab.one_tree();
        for n in 0..2 {
            assert_eq!(files(&lab, n), [("f".to_owned(), TWO.to_vec())], "member {n}, settled: {settled}");
            assert_eq!(lab.volume(n).status().conflicts, 0);
        }
    }
}

#[test]
fn t01_what_is_synced_is_noted_and_believed() {
    needs!(Root);
    let mut lab = Lab::new(1, 1);
    write(&lab, 0, "f", ONE);
    lab.close(0);
    let file = mark_of(&lab.data(0).join("f")).file;
    let local = lab.index(0).local(file).unwrap().unwrap();
    assert!(local.have.is_some() && local.synced == local.have);
    lab.lose_power(0);
    lab.open(0);
    assert_eq!(lab.volume(0).status().dirty_files, 0, "it is no edit");
    assert_eq!(read(&lab, 0, "f"), ONE);
}

#[test]
fn t01_a_file_that_peers_heard_of_and_the_index_lost_has_one_name() {
    needs!(Root);
    for renamed in [false, true] {
        let mut lab = Lab::new(2, 2);
        write(&lab, 0, "other", ONE);
        lab.converge();
        lab.keep_index(0);
        write(&lab, 0, "f", TWO);
        Fs::new(lab.volume(0)).mkdir(&path("d")).unwrap();
        write(&lab, 0, "d/g", TWO);
        if renamed {
            Fs::new(lab.volume(0)).rename(&path("f"), &path("d/f")).unwrap();
        }
        lab.exchange();
        lab.cut_power(0);
        lab.open(0);
        lab.converge();
        lab.one_tree();
        let f = if renamed { "d/f" } else { "f" };
        let mut expected = vec![("d/g", TWO), (f, TWO), ("other", ONE)];
        expected.sort_unstable();
        for n in 0..2 {
            let all = files(&lab, n);
            let all: Vec<_> = all.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
            assert_eq!(all, expected, "member {n}");
            assert_eq!(lab.volume(n).status().conflicts, 0);
        }
    }
}

#[test]
fn t01_what_a_former_life_said_of_itself_is_righted() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    write(&lab, 0, "written", ONE);
    write(&lab, 0, "held", ONE);
    lab.converge();
    write(&lab, 1, "stub", ONE);
    lab.exchange();
    lab.keep_index(0);
    // The other one hears that it is being written, and that there are a newer version and a copy.
    let fs = Fs::new(lab.volume(0));
    let (_, opened) = fs.open(&path("written"), libc::O_WRONLY, 0).unwrap();
    fs.write_file(&path("held"), TWO).unwrap();
    let (held, stub) = (lab.data(0).join("held"), lab.data(0).join("stub"));
    let aside = lab.brick_dir(0).join("aside");
    std::fs::hard_link(&stub, &aside).unwrap();
    wait_until_written(&lab, &held);
    assert_eq!(lab.heal(0).files_failed, 0);
    lab.exchange();
    lab.volume(0).release(opened.handle);
    drop(fs);
    lab.cut_power(0);
    std::fs::remove_file(&held).unwrap();
    std::fs::rename(&aside, &stub).unwrap();
    lab.open(0);
    lab.exchange();
    let status = lab.volume(1).status();
    assert!(status.pending_out.get(&lab.brick(0)).is_some_and(|c| c.files >= 1), "{status:?}");
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        for name in ["held", "stub", "written"] {
            assert_eq!(std::fs::read(lab.data(n).join(name)).unwrap(), ONE, "{name} of member {n}");
        }
        assert_eq!(lab.volume(n).status().conflicts, 0);
    }
}

fn wait_until_written(lab: &Lab, at: &Path) {
    // One file stays open; the other is settled.
    support::wait("it is settled", || {
        mark_of(at).version.is_some() && lab.volume(0).status().dirty_files == 1
    });
}

#[test]
fn t01_who_deleted_a_file_that_lives_on_elsewhere_is_no_holder() {
    needs!(Root);
    let lab = Lab::new(3, 3);
    write(&lab, 0, "f", ONE);
    lab.converge();
    // Deleted at one, edited at another, and the third hears of both.
    write(&lab, 1, "f", TWO);
    Fs::new(lab.volume(0)).unlink(&path("f")).unwrap();
    lab.pull(2, 0);
    assert!(!lab.data(2).join("f").exists());
    lab.pull(2, 1);
    lab.exchange();
    for n in [0, 2] {
        assert!(lab.volume(n).status().pending_in.files == 1, "member {n} has nothing of it");
    }
    lab.converge();
    lab.one_tree();
    assert_eq!(read(&lab, 0, "f"), TWO);
}

/// Its index never heard of the file, and what is there of the copy may be torn: nobody reads that before others were heard.
#[test]
fn t01_what_a_power_cut_left_of_a_copy_is_not_read_before_others_are_heard() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    lab.keep_index(1);
    write(&lab, 0, "f", TWO);
    lab.exchange();
    assert_eq!(lab.heal(1).files_done, 1);
    lab.cut_power(1);
    std::fs::write(lab.data(1).join("f"), vec![0; TWO.len()]).unwrap();
    lab.open(1);
    let read = Fs::new(lab.volume(1)).read_file(&path("f"));
    assert_eq!(read.unwrap_err(), rustix::io::Errno::IO);
    // As soon as they were, who opens it gets what they have.
    lab.exchange();
    assert_eq!(Fs::new(lab.volume(1)).read_file(&path("f")).unwrap(), TWO);
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        assert_eq!(files(&lab, n), [("f".to_owned(), TWO.to_vec())], "member {n}");
        assert_eq!(lab.volume(n).status().conflicts, 0);
    }
}

/// A member with a file of its own, and with what a power cut left of a copy of `f`, of which only its maker and this one ever heard. The
/// clock is the member's.
fn with_remains() -> (Lab, Arc<AheadClock>) {
    let mut lab = Lab::new(3, 2);
    write(&lab, 1, "own", ONE);
    write(&lab, 2, "other", ONE);
    lab.exchange();
    lab.keep_index(1);
    write(&lab, 0, "f", TWO);
    lab.pull(1, 0);
    assert_eq!(lab.heal(1).files_done, 1);
    lab.cut_power(1);
    std::fs::write(lab.data(1).join("f"), vec![0; TWO.len()]).unwrap();
    let clock = Arc::new(AheadClock::default());
    lab.open_with(
        1,
        VolumeOptions { clock: clock.clone(), later: Later::Called, ..VolumeOptions::default() },
    );
    (lab, clock)
}

/// An hour goes by, and what is due in it is done.
fn an_hour_passes(lab: &Lab, clock: &AheadClock) {
    an_hour_passes_at(lab, clock, 1);
}

fn an_hour_passes_at(lab: &Lab, clock: &AheadClock, n: usize) {
    clock.pass(Duration::from_secs(3600));
    while lab.volume(n).work() {}
}

/// Time says nothing of what is whole, nor does a member that never heard of it.
#[test]
fn t01_what_a_power_cut_left_of_a_copy_is_not_read_until_who_may_know_it_was_heard() {
    needs!(Root);
    let (lab, clock) = with_remains();
    let is_refused = || {
        let read = Fs::new(lab.volume(1)).read_file(&path("f"));
        assert_eq!(read.unwrap_err(), rustix::io::Errno::IO);
        assert_eq!(read_own(&lab), ONE, "what was made here is read all the time");
    };
    an_hour_passes(&lab, &clock);
    is_refused();
    lab.pull(1, 2);
    an_hour_passes(&lab, &clock);
    is_refused();
    lab.pull(1, 0);
    an_hour_passes(&lab, &clock);
    assert_eq!(read(&lab, 1, "f"), TWO);
    assert_eq!(read_own(&lab), ONE);
}

fn read_own(lab: &Lab) -> Vec<u8> {
    read(lab, 1, "own")
}

/// Nobody else has it, and nobody else will: it is all that there is of it.
#[test]
fn t01_what_a_power_cut_left_of_a_copy_is_read_when_no_other_member_is_left() {
    needs!(Root);
    let (mut lab, clock) = with_remains();
    let me = lab.brick(1);
    lab.configure(|config| config.members.retain(|member| member.brick == me));
    assert_eq!(read(&lab, 1, "f"), vec![0; TWO.len()]);
    an_hour_passes(&lab, &clock);
    assert_eq!(lab.volume(1).status().dirty_files, 0);
}

/// An agent that ends in order makes no version of it either, nor does one that begins anew; and no peer gets it.
#[test]
fn t01_what_a_power_cut_left_of_a_copy_stays_that_when_the_agent_ends() {
    needs!(Root);
    let (mut lab, clock) = with_remains();
    lab.close(1);
    lab.open_with(
        1,
        VolumeOptions { clock: clock.clone(), later: Later::Called, ..VolumeOptions::default() },
    );
    an_hour_passes(&lab, &clock);
    let refused = Fs::new(lab.volume(1)).read_file(&path("f"));
    assert_eq!(refused.unwrap_err(), rustix::io::Errno::IO);
    // Who hears of its name from here gets nothing of it.
    lab.pull(2, 1);
    assert_eq!(read(&lab, 2, "f"), b"");
}
