//! What a power cut leaves of files that were written here, copied elsewhere, and synced by nobody.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use nearbrick_agent::volume::{Later, VolumeOptions};

use super::support::clock::AheadClock;
use super::support::fs::{Fs, path, write_all};
use super::support::members::Lab;
use super::{ONE, TWO, an_hour_passes_at, damaged, files, mark_of, read, set_mark, support, write};
use crate::needs;

/// How much of what the first member did came into its index before the power was cut.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    /// Nothing of the file.
    Nothing,
    /// That it was made, and is being written.
    Made,
    /// The version that it got, and not that another brick has it.
    Version,
}

/// A file that the first member made and did not make durable, and that the second holds. `left` is what the disk kept of its bytes, `marked`
/// whether it kept that it was given a version. The first member's clock was an hour ahead.
fn unsynced(members: usize, kept: Kept, left: &[u8], marked: bool) -> (Lab, Arc<AheadClock>) {
    let mut lab = Lab::new(members, 2);
    let clock = Arc::new(AheadClock::default());
    clock.pass(Duration::from_secs(3600));
    let surroundings = || VolumeOptions { clock: clock.clone(), ..VolumeOptions::default() };
    lab.close(0);
    lab.open_with(0, surroundings());
    write(&lab, 0, "other", ONE);
    lab.converge();
    if kept == Kept::Nothing {
        lab.keep_index(0);
    }
    let fs = Fs::new(lab.volume(0));
    let (_, opened) = fs.open(&path("f"), libc::O_CREAT | libc::O_WRONLY, 0o644).unwrap();
    write_all(lab.volume(0), opened.handle, 0, TWO).unwrap();
    if kept == Kept::Made {
        lab.keep_index(0);
    }
    let before = mark_of(&lab.data(0).join("f"));
    lab.volume(0).release(opened.handle);
    drop(fs);
    lab.settle(0);
    if kept == Kept::Version {
        lab.keep_index(0);
    }
    lab.pull(1, 0);
    assert_eq!(lab.heal(1).files_failed, 0);
    lab.cut_power(0);
    let at = lab.data(0).join("f");
    let mtime = std::fs::metadata(&at).unwrap().modified().unwrap();
    std::fs::write(&at, left).unwrap();
    if !marked {
        set_mark(&at, &before);
    }
    File::options().write(true).open(&at).unwrap().set_modified(mtime).unwrap();
    let later = Later::Called;
    lab.open_with(0, VolumeOptions { later, ..surroundings() });
    (lab, clock)
}

fn work(lab: &Lab, n: usize) {
    while lab.volume(n).work() {}
}

/// The version that it told others of, and that one of them holds, is the file.
#[test]
fn t01_what_a_power_cut_left_of_a_version_that_others_hold_is_no_side_of_a_conflict() {
    needs!(Root);
    let lefts: [&[u8]; 4] = [b"", ONE, b"the second versi\0\0", TWO];
    for kept in [Kept::Nothing, Kept::Made, Kept::Version] {
        for (left, marked) in lefts.iter().flat_map(|left| [(*left, true), (*left, false)]) {
            let what = format!("{kept:?}, {left:?}, marked: {marked}");
            let (lab, clock) = unsynced(2, kept, left, marked);
            // Time alone makes nothing of it, and it can be read.
            an_hour_passes_at(&lab, &clock, 0);
            assert_eq!(read(&lab, 0, "f"), left, "{what}");
            assert!(lab.volume(0).status().dirty_files > 0, "{what}");
            lab.exchange();
            clock.pass(Duration::from_secs(1));
            work(&lab, 0);
            lab.converge();
            lab.one_tree();
            for n in 0..2 {
                let expected = [("f".to_owned(), TWO.to_vec()), ("other".to_owned(), ONE.to_vec())];
                assert_eq!(files(&lab, n), expected, "member {n}, {what}");
                assert_eq!(lab.volume(n).status().conflicts, 0);
            }
            let kept_aside = if left.is_empty() || left == TWO { vec![] } else { vec![left.to_vec()] };
            assert_eq!(damaged(&lab, 0), kept_aside, "{what}");
        }
    }
}

/// Who writes to it, or has it made durable, before others were heard makes an edit of it.
#[test]
fn t01_what_a_program_makes_of_what_a_power_cut_left_is_kept() {
    needs!(Root);
    for synced in [false, true] {
        let (lab, clock) = unsynced(2, Kept::Made, ONE, false);
        let fs = Fs::new(lab.volume(0));
        let (_, opened) = fs.open(&path("f"), libc::O_RDWR, 0).unwrap();
        let wanted = if synced {
            lab.volume(0).fsync(opened.handle, false).unwrap();
            ONE.to_vec()
        } else {
            write_all(lab.volume(0), opened.handle, ONE.len() as u64, b"and more").unwrap();
            [ONE, b"and more"].concat()
        };
        lab.volume(0).release(opened.handle);
        drop(fs);
        clock.pass(Duration::from_secs(1));
        work(&lab, 0);
        lab.exchange();
        clock.pass(Duration::from_secs(60));
        work(&lab, 0);
        lab.converge();
        lab.one_tree();
        let mut all: Vec<_> = files(&lab, 1).into_iter().map(|(_, bytes)| bytes).collect();
        all.sort();
        let mut expected = vec![ONE.to_vec(), TWO.to_vec(), wanted];
        expected.sort();
        assert_eq!(all, expected, "synced: {synced}");
    }
}

/// A member that is away holds up what is here for a minute, and no longer.
#[test]
fn t01_what_a_power_cut_left_is_an_edit_a_minute_after_somebody_was_heard() {
    needs!(Root);
    let (lab, clock) = unsynced(3, Kept::Nothing, ONE, true);
    an_hour_passes_at(&lab, &clock, 0);
    lab.pull(0, 2);
    work(&lab, 0);
    assert_eq!(lab.volume(0).status().dirty_files, 1, "the other one may know of it");
    clock.pass(Duration::from_secs(61));
    work(&lab, 0);
    clock.pass(Duration::from_secs(61));
    work(&lab, 0);
    assert_eq!(lab.volume(0).status().dirty_files, 0);
    support::wait("both are kept", || {
        lab.exchange();
        clock.pass(Duration::from_secs(1));
        work(&lab, 0);
        let mut all: Vec<_> = files(&lab, 1).into_iter().map(|(_, bytes)| bytes).collect();
        all.sort();
        all == [ONE.to_vec(), ONE.to_vec(), TWO.to_vec()]
    });
}

/// It stays what it is when the agent ends, in order or not.
#[test]
fn t01_what_a_power_cut_left_waits_also_after_a_restart() {
    needs!(Root);
    for killed in [false, true] {
        let (mut lab, clock) = unsynced(2, Kept::Made, ONE, false);
        lab.close(0);
        if killed {
            lab.only_killed(0);
        }
        let later = Later::Called;
        lab.open_with(0, VolumeOptions { clock: clock.clone(), later, ..VolumeOptions::default() });
        an_hour_passes_at(&lab, &clock, 0);
        assert_eq!(lab.volume(0).status().dirty_files, 1);
        lab.exchange();
        clock.pass(Duration::from_secs(1));
        work(&lab, 0);
        lab.converge();
        lab.one_tree();
        assert_eq!(files(&lab, 1).len(), 2, "killed: {killed}");
        assert_eq!(read(&lab, 0, "f"), TWO);
    }
}
