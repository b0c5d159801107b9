//! Removals of so much that a person is asked first.

#![allow(clippy::unwrap_used)]

mod support;

use support::fs::{Fs, path};
use support::members::Lab;

fn many(lab: &Lab, n: usize, range: std::ops::Range<usize>) {
    let fs = Fs::new(lab.volume(n));
    for i in range {
        fs.write_file(&path(&format!("f{i}")), b"bytes").unwrap();
    }
    lab.settle(n);
}

fn remove(lab: &Lab, n: usize, range: std::ops::Range<usize>) {
    let fs = Fs::new(lab.volume(n));
    range.for_each(|i| fs.unlink(&path(&format!("f{i}"))).unwrap());
}

fn on_disk(lab: &Lab, n: usize) -> usize {
    std::fs::read_dir(lab.data(n)).unwrap().count()
}

fn exists(lab: &Lab, n: usize, name: &str) -> bool {
    Fs::new(lab.volume(n)).stat(&path(name)).is_ok()
}

#[test]
fn removals_of_most_files_are_held_back_until_a_person_releases_them() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    many(&lab, 0, 0..150);
    lab.converge();
    remove(&lab, 0, 0..120);
    Fs::new(lab.volume(0)).write_file(&path("new"), b"goes on").unwrap();
    lab.settle(0);
    lab.pull(1, 0);
    // The names and the bytes stay; all else is followed.
    assert_eq!(on_disk(&lab, 1), 151);
    assert!(exists(&lab, 1, "f0") && exists(&lab, 1, "new"));
    let held = lab.volume(1).status().held;
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].brake.files, held[0].brake.of), (120, 150));
    assert_eq!(held[0].id.origin, lab.volume(0).status().incarnation);
    // An edit of what was removed beats the removal, as ever.
    Fs::new(lab.volume(1)).write_file(&path("f1"), b"still needed").unwrap();
    lab.settle(1);
    // It holds over a restart, and over a compaction.
    lab.reopen(1);
    lab.converge();
    lab.compact();
    assert_eq!(on_disk(&lab, 1), 151);
    assert_eq!(lab.volume(1).status().held.len(), 1);
    assert!(exists(&lab, 0, "f1") && !exists(&lab, 0, "f2") && exists(&lab, 1, "f2"));
    // A word about something else does nothing.
    let id = held[0].id;
    let earlier = nearbrick_core::brake::HeldId { seq: id.seq - 1, ..id };
    lab.say(1, Some(&earlier.to_string()), None);
    lab.say(1, Some("nonsense"), None);
    assert_eq!(lab.volume(1).status().held.len(), 1);
    lab.say(1, Some(&id.to_string()), None);
    assert!(lab.volume(1).status().held.is_empty());
    assert_eq!(on_disk(&lab, 1), 32);
    lab.converge();
    lab.one_tree();
    // The next accident is not released with it.
    many(&lab, 0, 200..330);
    lab.converge();
    remove(&lab, 0, 200..330);
    lab.pull(1, 0);
    assert_eq!(lab.volume(1).status().held.len(), 1);
    assert_eq!(on_disk(&lab, 1), 162);
}

#[test]
fn removals_that_were_wrong_are_taken_back_for_everyone() {
    needs!(Root);
    let mut lab = Lab::new(3, 3);
    many(&lab, 0, 0..130);
    lab.converge();
    remove(&lab, 0, 0..130);
    lab.exchange();
    assert_eq!((on_disk(&lab, 0), on_disk(&lab, 1), on_disk(&lab, 2)), (0, 130, 130));
    let id = lab.volume(1).status().held[0].id.to_string();
    for n in 1..3 {
        lab.say(n, None, Some(&id));
        assert!(lab.volume(n).status().held.is_empty());
    }
    lab.converge();
    let shown = lab.one_tree();
    assert_eq!(shown.0.len(), 130);
    for n in 0..3 {
        assert_eq!(on_disk(&lab, n), 130);
        assert_eq!(Fs::new(lab.volume(n)).read_file(&path("f7")).unwrap(), b"bytes");
    }
}

#[test]
fn few_removals_and_replaced_files_are_followed_at_once() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    many(&lab, 0, 0..150);
    lab.converge();
    remove(&lab, 0, 0..40);
    lab.exchange();
    assert_eq!(on_disk(&lab, 1), 110);
    // As a program that replaces a tree does.
    remove(&lab, 0, 40..150);
    many(&lab, 0, 40..150);
    lab.converge();
    assert_eq!(on_disk(&lab, 1), 110);
    assert!(lab.volume(1).status().held.is_empty());
    lab.one_tree();
}

#[test]
fn what_a_comparison_would_remove_is_held_back_too() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    many(&lab, 0, 0..150);
    lab.converge();
    lab.close(1);
    remove(&lab, 0, 0..140);
    lab.compact_alone(0);
    lab.open(1);
    assert!(lab.is_behind(1, 0));
    lab.pull(1, 0);
    assert_eq!(on_disk(&lab, 1), 150);
    let held = lab.volume(1).status().held;
    assert_eq!(held.len(), 1);
    lab.say(1, Some(&held[0].id.to_string()), None);
    assert_eq!(on_disk(&lab, 1), 10);
    lab.converge();
    lab.one_tree();
}
