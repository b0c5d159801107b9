//! Directories with files that become bricks: alone, and where other members have the volume already.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::Ordering;

use nearbrick_agent::config::Adopt;
use rustix::io::Errno;
use support::disk::Disk;
use support::fs::{Fs, path};
use support::members::Lab;
use support::tree;

fn write(lab: &Lab, n: usize, at: &str, bytes: &[u8]) {
    Fs::new(lab.volume(n)).write_file(&path(at), bytes).unwrap();
    lab.settle(n);
}

fn read(lab: &Lab, n: usize, at: &str) -> Vec<u8> {
    Fs::new(lab.volume(n)).read_file(&path(at)).unwrap()
}

/// Puts files in the directory of a brick that is not made yet.
fn put(lab: &Lab, n: usize, files: &[(&str, &str)]) {
    for (name, bytes) in files {
        let at = lab.brick_dir(n).join(name);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, bytes).unwrap();
    }
}

/// The names of all files that a member shows, with their bytes.
fn files(lab: &Lab, n: usize) -> Vec<(String, String)> {
    let of = |(path, e): (Vec<Vec<u8>>, tree::Entry)| match e.what {
        tree::What::File(bytes) => {
            Some((String::from_utf8(path.join(&b'/')).unwrap(), String::from_utf8(bytes).unwrap()))
        }
        _ => None,
    };
    tree::of_volume(lab.volume(n), 50).0.into_iter().filter_map(of).collect()
}

fn pairs(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(name, bytes)| ((*name).to_owned(), (*bytes).to_owned())).collect()
}

#[test]
fn t24_a_directory_with_files_is_refused_until_a_person_says_so_and_then_becomes_a_brick() {
    needs!(Root);
    let mut lab = Lab::unopened(Disk::Here, 2, 2).unwrap();
    // One of them is called like the brick's own folder.
    let all = [("data/inside", "1"), ("dir/sub/file", "2"), ("top", "3")];
    put(&lab, 0, &all);
    symlink("top", lab.brick_dir(0).join("link")).unwrap();
    fs::set_permissions(lab.brick_dir(0).join("top"), fs::Permissions::from_mode(0o640)).unwrap();
    let refused = lab.try_open(0).unwrap_err();
    assert!(refused.contains("nearbrick.io/adopt=yes"), "{refused}");
    assert!(!lab.brick_dir(0).join(".nearbrick").exists());
    lab.configure(|config| config.upkeep.adopt = Adopt::First);
    lab.open(0);
    lab.settle(0);
    assert!(!lab.volume(0).is_rebuilding(), "nobody is to be asked");
    assert_eq!(files(&lab, 0), pairs(&all));
    assert_eq!(Fs::new(lab.volume(0)).stat(&path("top")).unwrap().perm, 0o640);
    lab.open(1);
    lab.converge();
    assert!(lab.one_tree().0.contains_key(&path("link")));
    assert_eq!(files(&lab, 1), pairs(&all));
    assert_eq!(lab.scrub(0).names, 0);
    // It is a brick like any other from then on: what is not there is a disk that is not mounted.
    lab.reopen(0);
    lab.close(0);
    fs::rename(lab.brick_dir(0), lab.dir.path().join("elsewhere")).unwrap();
    put(&lab, 0, &[("another", "disk")]);
    let refused = lab.try_open(0).unwrap_err();
    assert!(refused.contains("is no brick"), "{refused}");
    assert!(!lab.brick_dir(0).join(".nearbrick").exists());
}

#[test]
fn equal_files_are_the_same_others_are_both_kept_and_nothing_is_deleted() {
    needs!(Root);
    let same = "the same bytes ".repeat(10_000);
    let mut lab = Lab::unopened(Disk::Here, 2, 2).unwrap();
    lab.open(0);
    let fs0 = Fs::new(lab.volume(0));
    fs0.mkdir(&path("dir")).unwrap();
    fs0.symlink(&path("link"), b"same").unwrap();
    for (name, bytes) in [("same", &*same), ("dir/same", "and here"), ("dir/other", "of the volume")] {
        write(&lab, 0, name, bytes.as_bytes());
    }
    // Says the hashes.
    assert_eq!(lab.scrub(0).files, 3);
    write(&lab, 0, "unproven", b"no hash is known");
    write(&lab, 0, "there", b"only there");
    let node = fs0.stat(&path("dir/same")).unwrap().node;
    drop(fs0);
    put(
        &lab,
        1,
        &[
            ("same", &same),
            ("dir/same", "and here"),
            ("dir/other", "of the folder"),
            ("dir/here", "only here"),
            ("unproven", "no hash is known"),
            ("new/file", "new"),
        ],
    );
    symlink("same", lab.brick_dir(1).join("link")).unwrap();
    lab.configure(|config| config.upkeep.adopt = Adopt::Yes);
    lab.open(1);
    // Until somebody was asked, it can be read, and not changed.
    for _ in 0..2 {
        assert!(lab.volume(1).is_rebuilding());
        assert!(lab.volume(1).status().adopting);
        assert_eq!(read(&lab, 1, "dir/other"), b"of the folder");
        let refused = Fs::new(lab.volume(1)).write_file(&path("more"), b"x");
        assert_eq!(refused, Err(Errno::ROFS));
        lab.reopen(1);
    }
    lab.exchange();
    assert!(!lab.volume(1).is_rebuilding());
    // What is proven to be the same is here already.
    for name in ["same", "dir/same"] {
        assert_eq!(read(&lab, 1, name), read(&lab, 0, name));
    }
    lab.converge();
    lab.one_tree();
    let sent = lab.net.bytes.load(Ordering::Relaxed);
    assert!(sent < 10_000, "nothing is sent of what is the same, and {sent} bytes were");
    for n in 0..2 {
        assert_eq!(Fs::new(lab.volume(n)).stat(&path("dir/same")).unwrap().node, node, "one file");
        let mut all = files(&lab, n);
        let beside = all.iter().position(|(name, _)| name.starts_with("dir/other (conflict, ")).unwrap();
        let beside = all.remove(beside).1;
        let other = all.iter().position(|(name, _)| name == "dir/other").unwrap();
        let mut both = [all.remove(other).1, beside];
        both.sort();
        assert_eq!(both, ["of the folder", "of the volume"]);
        let rest = [
            ("dir/here", "only here"),
            ("dir/same", "and here"),
            ("new/file", "new"),
            ("same", &same),
            ("there", "only there"),
            ("unproven", "no hash is known"),
        ];
        assert!(
            all == pairs(&rest),
            "member {n}: {:?}",
            all.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
    }
    lab.reopen(1);
    assert!(!lab.volume(1).is_rebuilding());
    assert_eq!(lab.scrub(1).damaged, 0);
    lab.converge();
    lab.one_tree();
}
