//! The end of a brick whose files are to be deleted.

#![allow(clippy::unwrap_used)]

mod support;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use nearbrick_agent::brick::empty::{empty, has_begun};
use nearbrick_agent::brick::machine::MachineDisk;
use nearbrick_core::BrickId;
use support::fs::{Fs, path};
use support::members::Lab;
use uuid::Uuid;

/// A brick with files, closed; and the UUID of its volume.
fn brick(depth: usize) -> (Lab, Uuid) {
    let mut lab = Lab::new(1, 1);
    (0..30).for_each(|n| Fs::new(lab.volume(0)).write_file(&path(&format!("file-{n}")), b"bytes").unwrap());
    lab.settle(0);
    lab.close(0);
    let identity = fs::read_to_string(lab.brick_dir(0).join(".nearbrick/identity")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&identity).unwrap();
    let mut deep = lab.data(0);
    (0..depth).for_each(|_| deep.push("d"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("last"), "x").unwrap();
    fs::write(lab.dir.path().join("outside"), "stays").unwrap();
    symlink(lab.dir.path().join("outside"), lab.data(0).join("link")).unwrap();
    symlink(lab.dir.path(), lab.data(0).join("dirlink")).unwrap();
    fs::write(lab.brick_dir(0).join("not-ours"), "stays").unwrap();
    (lab, identity["volume"].as_str().unwrap().parse().unwrap())
}

fn names(lab: &Lab) -> Vec<String> {
    let list = fs::read_dir(lab.brick_dir(0)).unwrap();
    let mut names: Vec<_> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_brick_is_emptied_and_nothing_beside_it() {
    needs!(Root);
    let (lab, volume) = brick(600);
    let gone = Cell::new(0);
    let count = || gone.set(gone.get() + 1);
    let never = AtomicBool::new(false);
    empty(&MachineDisk, lab.brick_dir(0), volume, lab.brick(0), &count, &never).unwrap();
    assert_eq!(names(&lab), ["not-ours"]);
    assert!(gone.get() > 630, "{} names", gone.get());
    assert_eq!(fs::read_to_string(lab.dir.path().join("outside")).unwrap(), "stays");
    // Done is done.
    empty(&MachineDisk, lab.brick_dir(0), volume, lab.brick(0), &count, &never).unwrap();
    assert!(!has_begun(&MachineDisk, lab.brick_dir(0), volume, lab.brick(0)));
}

#[test]
fn another_brick_and_a_directory_that_is_none_stay_as_they_are() {
    needs!(Root);
    let (lab, volume) = brick(2);
    let never = AtomicBool::new(false);
    for (v, b) in [(Uuid::new_v4(), lab.brick(0)), (volume, BrickId([9; 16]))] {
        let refused = empty(&MachineDisk, lab.brick_dir(0), v, b, &|| {}, &never).unwrap_err().to_string();
        assert!(refused.contains("has another identity"), "{refused}");
    }
    fs::rename(lab.brick_dir(0).join(".nearbrick"), lab.dir.path().join("moved")).unwrap();
    let refused = empty(&MachineDisk, lab.brick_dir(0), volume, lab.brick(0), &|| {}, &never).unwrap_err();
    assert!(refused.to_string().contains("or none; nothing was changed"), "{refused}");
    fs::rename(lab.dir.path().join("moved"), lab.brick_dir(0).join(".nearbrick")).unwrap();
    assert_eq!(fs::read(lab.data(0).join("file-7")).unwrap(), b"bytes");
    lab.try_open(0).unwrap().close();
}

/// Whatever ends in the middle: it is never opened as a brick again, and the same call goes on.
#[test]
fn what_was_begun_is_gone_on_with_and_never_a_brick_again() {
    needs!(Root);
    let (lab, volume) = brick(5);
    for at in [0, 1, 10, 20] {
        let (stop, gone) = (AtomicBool::new(at == 0), Cell::new(0));
        let count = || {
            gone.set(gone.get() + 1);
            stop.store(gone.get() >= at, Ordering::Relaxed);
        };
        let stopped = empty(&MachineDisk, lab.brick_dir(0), volume, lab.brick(0), &count, &stop);
        assert_eq!(stopped.unwrap_err().to_string(), "stopped");
        assert!(has_begun(&MachineDisk, lab.brick_dir(0), volume, lab.brick(0)));
        let refused = lab.try_open(0).err().unwrap();
        assert!(refused.contains("are being deleted"), "{refused}");
    }
    // Also when the identity is gone already.
    fs::remove_file(lab.brick_dir(0).join(".nearbrick/identity")).unwrap();
    assert!(lab.try_open(0).is_err());
    empty(&MachineDisk, lab.brick_dir(0), volume, lab.brick(0), &|| {}, &AtomicBool::new(false)).unwrap();
    assert_eq!(names(&lab), ["not-ours"]);
}
