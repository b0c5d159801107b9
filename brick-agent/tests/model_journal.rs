//! Members whose journals are compacted, and members that come back after that.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use nearbrick_agent::peer::Served;
use nearbrick_agent::peer::compare::Compare;
use nearbrick_core::FileId;
use support::fs::{Fs, ROOT, path};
use support::members::Lab;
use support::tree;

fn write(lab: &Lab, n: usize, at: &str, bytes: &[u8]) {
    Fs::new(lab.volume(n)).write_file(&path(at), bytes).unwrap();
    lab.settle(n);
}

fn names(lab: &Lab, n: usize) -> Vec<String> {
    let all = tree::of_volume(lab.volume(n), 20).0;
    all.into_keys().map(|p| String::from_utf8_lossy(&p.join(&b'/')).into_owned()).collect()
}

fn many(lab: &Lab, n: usize, count: usize) {
    let fs = Fs::new(lab.volume(n));
    for i in 0..count {
        fs.write_file(&path(&format!("f{i}")), format!("file {i}").as_bytes()).unwrap();
    }
    lab.settle(n);
}

/// Entries that a journal still has.
fn entries(lab: &Lab, n: usize) -> usize {
    let volume = lab.volume(n);
    let floor = volume.heads().keys().map(|origin| (*origin, 0)).collect();
    match volume.is_behind(&floor) {
        true => 0,
        false => volume.entries_after(&floor, usize::MAX).unwrap().len(),
    }
}

#[test]
fn what_all_members_have_is_compacted_and_nothing_else() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    many(&lab, 0, 5);
    lab.converge();
    // Not before all have said that they have it.
    assert_eq!(lab.volume(0).compact(Duration::MAX).unwrap().entries, 0);
    let done = lab.compact();
    assert!(done.entries > 0, "{done:?}");
    for n in 0..3 {
        assert_eq!(entries(&lab, n), 0, "member {n}");
    }
    // A member that is away is waited for.
    lab.close(2);
    write(&lab, 0, "later", b"while one is away");
    lab.pull(1, 0);
    assert_eq!(lab.compact().entries, 0);
    lab.open(2);
    lab.converge();
    assert!(lab.compact().entries > 0);
    for n in 0..3 {
        lab.reopen(n);
    }
    write(&lab, 2, "f1", b"after all that");
    lab.converge();
    lab.one_tree();
}

#[test]
fn t07_a_member_that_returns_after_the_tombstones_are_gone_brings_nothing_back() {
    needs!(Root);
    let mut lab = Lab::new(3, 3);
    let fs = Fs::new(lab.volume(0));
    fs.write_file(&path("gone"), b"to be deleted").unwrap();
    fs.write_file(&path("edited"), b"deleted, and edited apart").unwrap();
    fs.write_file(&path("kept"), b"kept").unwrap();
    fs.mkdir(&path("dir")).unwrap();
    fs.write_file(&path("dir/inside"), b"inside").unwrap();
    fs.mkdir(&path("used")).unwrap();
    fs.write_file(&path("used/old"), b"old").unwrap();
    drop(fs);
    lab.settle(0);
    lab.converge();
    lab.net.set_cut(lab.brick(2), true);
    let a = Fs::new(lab.volume(0));
    for name in ["gone", "edited", "dir/inside", "used/old"] {
        a.unlink(&path(name)).unwrap();
    }
    a.rmdir(&path("dir")).unwrap();
    a.rmdir(&path("used")).unwrap();
    drop(a);
    lab.pull(1, 0);
    lab.pull(0, 1);
    // The others have waited long enough.
    let done = [lab.compact_alone(0), lab.compact_alone(1)];
    assert!(done.iter().all(|d| d.objects >= 6), "{done:?}");
    // Meanwhile, at the one that is away.
    write(&lab, 2, "edited", b"an edit that nobody has heard of");
    write(&lab, 2, "used/new", b"a new file in a directory that is gone");
    Fs::new(lab.volume(2)).chmod(&path("gone"), 0o600).unwrap();
    lab.reopen(2);
    lab.net.set_cut(lab.brick(2), false);
    assert!(lab.is_behind(2, 0));
    lab.converge();
    lab.one_tree();
    for n in 0..3 {
        assert_eq!(names(&lab, n), ["edited", "kept", "used", "used/new"], "member {n}");
    }
    let bytes = std::fs::read(lab.data(0).join("edited")).unwrap();
    assert_eq!(bytes, b"an edit that nobody has heard of");
    // And nothing is left of it anywhere, once all have heard.
    lab.compact();
    lab.compact();
    lab.converge();
    assert_eq!(names(&lab, 1), ["edited", "kept", "used", "used/new"]);
}

#[test]
fn t29_a_cursor_that_is_too_old_falls_back_to_the_comparison() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    many(&lab, 0, 20);
    lab.converge();
    lab.close(2);
    let a = Fs::new(lab.volume(0));
    a.rename(&path("f1"), &path("renamed")).unwrap();
    a.unlink(&path("f2")).unwrap();
    drop(a);
    write(&lab, 0, "f3", b"changed");
    write(&lab, 1, "new", b"new");
    lab.pull(1, 0);
    lab.pull(0, 1);
    lab.compact_alone(0);
    lab.compact_alone(1);
    lab.open(2);
    assert!(lab.is_behind(2, 0) && lab.is_behind(2, 1));
    lab.converge();
    let shown = lab.one_tree();
    assert_eq!(shown.0.len(), 20);
    // So does one that is new.
    let heads = lab.volume(2).heads();
    assert!(!lab.is_behind(2, 0), "{heads:?}");
}

#[test]
fn t29_a_comparison_that_is_cut_raises_no_heads_and_goes_on() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    many(&lab, 0, 30);
    lab.converge();
    lab.close(1);
    for i in 0..30 {
        write(&lab, 0, &format!("f{i}"), b"changed while the other was away");
    }
    lab.compact_alone(0);
    lab.open(1);
    let whole = {
        // Cut after each question in turn.
        let mut cut_after = 1;
        loop {
            let before = lab.volume(1).heads();
            let mut comparison = lab.volume(1).comparison(lab.brick(0));
            let mut asked = 0;
            while let Some(request) = comparison.request().filter(|_| asked < cut_after) {
                comparison.answer(lab.volume(0).compared(&request).unwrap()).unwrap();
                asked += 1;
            }
            if comparison.request().is_none() {
                break asked;
            }
            drop(comparison);
            assert_eq!(lab.volume(1).heads(), before, "cut after {asked} questions");
            assert!(lab.is_behind(1, 0));
            if cut_after == 2 {
                lab.reopen(1);
            }
            cut_after += 1;
        }
    };
    assert!(whole >= 4, "{whole}");
    assert!(!lab.is_behind(1, 0));
    lab.converge();
    lab.one_tree();
}

#[test]
fn p04_a_machine_that_slept_catches_up_by_what_differs() {
    needs!(Root);
    let mut lab = Lab::new(2, 1);
    many(&lab, 0, 1000);
    lab.exchange();
    lab.compact();
    lab.close(1);
    for i in 0..10 {
        write(&lab, 0, &format!("f{i}"), b"at night");
    }
    // With the journal: as many entries as there were changes, and no more.
    lab.open(1);
    let lacking = lab.lacking(1, 0).len();
    assert!((10..=30).contains(&lacking), "{lacking} entries");
    // And without it: the hashes that lead there, and the objects that changed.
    lab.close(1);
    lab.compact_alone(0);
    lab.open(1);
    let bytes = lab.compare(1, 0);
    let all: usize = {
        let everything = lab.volume(1).compared(&nearbrick_agent::peer::compare::CompareRequest::Leaves {
            leaves: (0..=255).flat_map(|a| (0..=255).map(move |b| [a, b])).collect(),
            after: None,
        });
        let nearbrick_agent::peer::compare::CompareReply::Leaves { objects, .. } = everything.unwrap() else {
            panic!("a list")
        };
        let ids: Vec<FileId> = objects.into_iter().map(|(file, _)| file).collect();
        let states = lab.volume(1).compared(&nearbrick_agent::peer::compare::CompareRequest::Objects(ids));
        nearbrick_agent::peer::wire::encode(&states.unwrap()).len()
    };
    assert!(bytes < 10 * 8192 + 16384 && bytes < all, "{bytes} of {all} bytes");
    assert_eq!(lab.compare(1, 0), lab.compare(1, 0), "nothing differs now");
    assert!(lab.compare(1, 0) < 8192);
    lab.converge();
    lab.one_tree();
}

#[test]
fn t04_a_rename_while_a_peer_is_down_leaves_only_the_new_name() {
    needs!(Root);
    for compacted in [false, true] {
        let mut lab = Lab::new(2, 2);
        let fs = Fs::new(lab.volume(0));
        fs.mkdir(&path("d")).unwrap();
        fs.write_file(&path("d/old"), b"bytes").unwrap();
        fs.mkdir(&path("was")).unwrap();
        fs.write_file(&path("was/x"), b"x").unwrap();
        drop(fs);
        lab.converge();
        lab.close(1);
        let fs = Fs::new(lab.volume(0));
        fs.rename(&path("d/old"), &path("new")).unwrap();
        fs.rename(&path("was"), &path("is")).unwrap();
        drop(fs);
        if compacted {
            lab.compact_alone(0);
        }
        lab.open(1);
        assert_eq!(lab.is_behind(1, 0), compacted);
        lab.converge();
        lab.one_tree();
        for n in 0..2 {
            assert_eq!(names(&lab, n), ["d", "is", "is/x", "new"]);
            let disk: Vec<_> = tree::of_disk(&lab.data(n)).0.into_keys().map(|p| p.join(&b'/')).collect();
            assert_eq!(disk, [&b"d"[..], b"is", b"is/x", b"new"]);
        }
    }
}

/// Found by the soak: each of the two directories was taken to be in the other one, and the volume hung.
#[test]
fn t21_of_two_directories_that_are_one_the_other_keeps_the_name_when_the_first_comes_to_want_it_later() {
    needs!(Root);
    let lab = Lab::new(4, 4);
    let fs = |n: usize| Fs::new(lab.volume(n));
    fs(0).mkdir(&path("d")).unwrap();
    write(&lab, 0, "d/x", b"in the first directory");
    lab.pull(2, 0);
    fs(1).mkdir(&path("d")).unwrap();
    write(&lab, 1, "d/y", b"in the second directory");
    lab.pull(0, 1);
    lab.pull(1, 0);
    // One that knows of the first only renames it, and back.
    fs(2).rename(&path("d"), &path("e")).unwrap();
    fs(2).rename(&path("e"), &path("d")).unwrap();
    for (n, name) in [(2, "d/u"), (1, "d/v"), (1, "d/w")] {
        write(&lab, n, name, b"made later");
    }
    lab.pull(3, 2);
    lab.pull(3, 1);
    lab.pull(0, 3);
    lab.pull(1, 3);
    lab.converge();
    lab.one_tree();
    for n in 0..4 {
        assert_eq!(names(&lab, n), ["d", "d/u", "d/v", "d/w", "d/x", "d/y"], "member {n}");
    }
}

#[test]
fn t21_types_and_names_that_swap_while_apart() {
    needs!(Root);
    for compacted in [false, true] {
        let lab = Lab::new(3, 3);
        let fs = Fs::new(lab.volume(0));
        fs.write_file(&path("file"), b"a file").unwrap();
        fs.mkdir(&path("dir")).unwrap();
        fs.write_file(&path("one"), b"1").unwrap();
        fs.write_file(&path("two"), b"2").unwrap();
        for dir in ["A", "B", "up", "up/down"] {
            fs.mkdir(&path(dir)).unwrap();
        }
        fs.write_file(&path("A/a"), b"in A").unwrap();
        fs.write_file(&path("B/b"), b"in B").unwrap();
        drop(fs);
        lab.converge();
        let (a, b) = (Fs::new(lab.volume(0)), Fs::new(lab.volume(1)));
        // A file becomes a directory, a directory a symlink.
        a.unlink(&path("file")).unwrap();
        a.mkdir(&path("file")).unwrap();
        a.write_file(&path("file/inside"), b"inside").unwrap();
        a.rmdir(&path("dir")).unwrap();
        a.symlink(&path("dir"), b"file").unwrap();
        // Two names swap.
        a.rename(&path("one"), &path("three")).unwrap();
        a.rename(&path("two"), &path("one")).unwrap();
        a.rename(&path("three"), &path("two")).unwrap();
        // A into B here, B into A there; and a directory into its own child.
        a.rename(&path("A"), &path("B/A")).unwrap();
        b.rename(&path("B"), &path("A/B")).unwrap();
        a.rename(&path("up/down"), &path("down")).unwrap();
        b.rename(&path("A"), &path("up/down/A")).unwrap();
        drop((a, b));
        if compacted {
            for n in 0..2 {
                lab.compact_alone(n);
            }
        }
        lab.converge();
        let shown = lab.one_tree();
        let find = |name: &[u8]| {
            let hits: Vec<_> = shown.0.keys().filter(|p| p.last().is_some_and(|n| n == name)).collect();
            assert_eq!(hits.len(), 1, "{}: {hits:?}", String::from_utf8_lossy(name));
        };
        for name in [&b"a"[..], b"b", b"inside", b"file", b"dir", b"one", b"two", b"down", b"A", b"B"] {
            find(name);
        }
        for n in 0..3 {
            let fs = Fs::new(lab.volume(n));
            assert_eq!(fs.read_file(&path("one")).unwrap(), b"2");
            assert_eq!(fs.read_file(&path("two")).unwrap(), b"1");
            lab.volume(n).lookup(ROOT, b"dir").unwrap();
        }
    }
}
