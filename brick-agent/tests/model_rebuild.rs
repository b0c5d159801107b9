//! Bricks whose index is lost, or comes back from a backup, and bricks that come back as they once were.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use nearbrick_agent::peer::Served;
use rustix::io::Errno;
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

fn names(lab: &Lab, n: usize) -> Vec<String> {
    let all = tree::of_volume(lab.volume(n), 20).0;
    all.into_keys().map(|p| String::from_utf8_lossy(&p.join(&b'/')).into_owned()).collect()
}

/// Copies a folder with everything, as a backup does.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg("--preserve=all").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn lose_index(lab: &Lab, n: usize) {
    std::fs::remove_dir_all(lab.brick_dir(n).join(".nearbrick/index")).unwrap();
}

/// As far as the identity tells, the machine went down while the brick was in use.
fn lose_power(lab: &Lab, n: usize) {
    let at = lab.brick_dir(n).join(".nearbrick/identity");
    let mut identity: serde_json::Value = serde_json::from_slice(&std::fs::read(&at).unwrap()).unwrap();
    assert_eq!(identity["state"], "closed");
    identity["state"] = "the machine's last boot".into();
    std::fs::write(at, serde_json::to_vec(&identity).unwrap()).unwrap();
}

/// Other bytes in place, and the inode as it was, as when they did not reach the disk.
fn tear(at: &Path) {
    let file = File::options().write(true).open(at).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[0; 4], 4).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

/// Found by the simulation: half of a copy was read, and held as its version, where the index had gone with the power.
#[test]
fn t03_half_of_a_copy_is_neither_read_nor_held_where_the_index_went_with_the_power() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    for name in ["torn file", "whole", "mine", "mine-torn"] {
        write(&lab, usize::from(name.starts_with('m')), name, name.as_bytes());
    }
    lab.converge();
    lab.close(1);
    lose_index(&lab, 1);
    lose_power(&lab, 1);
    tear(&lab.data(1).join("torn file"));
    tear(&lab.data(1).join("mine-torn"));
    lab.net.set_cut(lab.brick(0), true);
    lab.open(1);
    // Also where the agent ended before all were heard.
    lab.reopen(1);
    assert!(lab.volume(1).is_rebuilding());
    assert_eq!(Fs::new(lab.volume(1)).read_file(&path("torn file")), Err(Errno::IO));
    for name in ["whole", "mine"] {
        assert_eq!(read(&lab, 1, name), name.as_bytes());
    }
    lab.net.set_cut(lab.brick(0), false);
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        assert_eq!(names(&lab, n), ["mine", "mine-torn", "torn file", "whole"], "member {n}");
        for name in ["torn file", "whole", "mine", "mine-torn"] {
            assert_eq!(read(&lab, n, name), name.as_bytes(), "member {n}");
        }
    }
    // What was torn is there for a person, and what was whole was not brought again.
    let kept = std::fs::read_dir(lab.brick_dir(1).join(".nearbrick/versions")).unwrap();
    let mut kept: Vec<_> = kept.map(|kept| std::fs::read(kept.unwrap().path()).unwrap()).collect();
    kept.sort();
    assert_eq!(kept, [b"mine\0\0\0\0n".to_vec(), b"torn\0\0\0\0e".to_vec()]);
}

/// It would be read as something else, or as damaged.
#[test]
fn an_index_of_another_version_is_refused_with_a_line_and_made_anew_where_a_person_says_so() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    write(&lab, 0, "f", b"bytes");
    lab.converge();
    lab.close(0);
    let index = lab.index(0);
    let mut batch = index.batch();
    batch.meta("format", b"1");
    batch.commit().unwrap();
    index.persist().unwrap();
    drop(index);
    let why = lab.try_open(0).err().unwrap();
    assert!(
        why.contains("made by another version of the agent") && why.contains("move the folder away"),
        "{why}"
    );
    let at = lab.brick_dir(0).join(".nearbrick/index");
    std::fs::rename(&at, lab.brick_dir(0).join("moved-away")).unwrap();
    lab.open(0);
    lab.converge();
    lab.one_tree();
    assert_eq!(read(&lab, 0, "f"), b"bytes");
}

#[test]
fn t03_a_lost_index_is_made_anew_and_nothing_is_lost_doubled_or_older() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    let fs = Fs::new(lab.volume(0));
    fs.mkdir(&path("dir")).unwrap();
    for name in ["same", "edited", "changed", "moved", "deleted", "deleted-edited", "dir/inside"] {
        fs.write_file(&path(name), name.as_bytes()).unwrap();
    }
    let node = fs.stat(&path("same")).unwrap().node;
    let dir = fs.stat(&path("dir")).unwrap().node;
    fs.counted(&lab.volume(0).link(node, dir, b"hard").unwrap());
    fs.symlink(&path("sym"), b"dir/inside").unwrap();
    drop(fs);
    write(&lab, 1, "of-b", b"made at b, and a stub at a");
    lab.converge();
    // What only this brick knows.
    lab.net.set_cut(lab.brick(0), true);
    for _ in 0..3 {
        write(&lab, 0, "edited", b"an edit that nobody has heard of");
    }
    write(&lab, 0, "deleted-edited", b"edited here, deleted there");
    write(&lab, 0, "dir/new", b"a file that nobody has heard of");
    // What only the others know.
    let fs = Fs::new(lab.volume(1));
    fs.write_file(&path("changed"), b"changed at b").unwrap();
    fs.rename(&path("moved"), &path("dir/is-here")).unwrap();
    fs.unlink(&path("deleted")).unwrap();
    fs.unlink(&path("deleted-edited")).unwrap();
    drop(fs);
    lab.settle(1);
    lab.pull(2, 1);
    let before = lab.volume(0).status().incarnation;
    lab.close(0);
    lose_index(&lab, 0);
    lab.open(0);
    assert_ne!(lab.volume(0).status().incarnation, before);
    // Until someone can be asked, all is shown, and nothing can be changed.
    assert!(lab.volume(0).is_rebuilding());
    assert_eq!(read(&lab, 0, "edited"), b"an edit that nobody has heard of");
    assert_eq!(read(&lab, 0, "dir/hard"), b"same");
    let fs = Fs::new(lab.volume(0));
    assert_eq!(fs.write_file(&path("same"), b"x"), Err(Errno::ROFS));
    assert_eq!(fs.write_file(&path("other"), b"x"), Err(Errno::ROFS));
    assert_eq!(fs.unlink(&path("same")), Err(Errno::ROFS));
    assert_eq!(fs.rename(&path("same"), &path("other")), Err(Errno::ROFS));
    drop(fs);
    assert!(lab.volume(0).heads().is_empty());
    // An end in between: it begins again, under yet another number.
    let waiting = lab.volume(0).status().incarnation;
    lab.reopen(0);
    assert!(lab.volume(0).is_rebuilding());
    assert_ne!(lab.volume(0).status().incarnation, waiting);
    lab.net.set_cut(lab.brick(0), false);
    lab.converge();
    assert!(!lab.volume(0).is_rebuilding());
    lab.one_tree();
    let expected = [
        "changed",
        "deleted-edited",
        "dir",
        "dir/hard",
        "dir/inside",
        "dir/is-here",
        "dir/new",
        "edited",
        "of-b",
        "same",
        "sym",
    ];
    for n in 0..3 {
        assert_eq!(names(&lab, n), expected, "member {n}");
        assert_eq!(read(&lab, n, "edited"), b"an edit that nobody has heard of");
        assert_eq!(read(&lab, n, "changed"), b"changed at b");
        assert_eq!(read(&lab, n, "deleted-edited"), b"edited here, deleted there");
        assert_eq!(read(&lab, n, "of-b"), b"made at b, and a stub at a");
        assert_eq!(lab.volume(n).status().conflicts, 0);
    }
    let fs = Fs::new(lab.volume(0));
    assert_eq!(fs.stat(&path("same")).unwrap().node, fs.stat(&path("dir/hard")).unwrap().node);
    drop(fs);
    // It goes on as before.
    write(&lab, 0, "same", b"written after all that");
    write(&lab, 2, "edited", b"and this");
    lab.converge();
    lab.one_tree();
    assert_eq!(read(&lab, 1, "dir/hard"), b"written after all that");
}

#[test]
fn t03_an_index_from_an_old_backup_is_not_believed() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    write(&lab, 0, "f", b"one");
    write(&lab, 0, "gone", b"to be deleted");
    lab.converge();
    lab.close(0);
    let index = lab.brick_dir(0).join(".nearbrick/index");
    copy(&index, &lab.brick_dir(0).join("backup"));
    lab.open(0);
    write(&lab, 0, "f", b"two");
    Fs::new(lab.volume(0)).unlink(&path("gone")).unwrap();
    lab.converge();
    write(&lab, 0, "f", b"three");
    lab.close(0);
    std::fs::remove_dir_all(&index).unwrap();
    std::fs::rename(lab.brick_dir(0).join("backup"), &index).unwrap();
    lab.open(0);
    assert!(lab.volume(0).is_rebuilding());
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        assert_eq!(names(&lab, n), ["f"]);
        assert_eq!(read(&lab, n, "f"), b"three");
    }
}

#[test]
fn t03_without_another_member_the_files_are_judged_by_themselves() {
    needs!(Root);
    let mut lab = Lab::new(1, 1);
    write(&lab, 0, "f", b"bytes");
    Fs::new(lab.volume(0)).mkdir(&path("d")).unwrap();
    write(&lab, 0, "d/g", b"more");
    lab.close(0);
    lose_index(&lab, 0);
    lab.open(0);
    assert!(!lab.volume(0).is_rebuilding());
    lab.settle(0);
    assert_eq!(names(&lab, 0), ["d", "d/g", "f"]);
    write(&lab, 0, "f", b"again");
    assert_eq!(read(&lab, 0, "f"), b"again");
}

#[test]
fn t03_a_lost_index_with_an_empty_brick_deletes_nothing() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    write(&lab, 0, "f", b"bytes");
    lab.converge();
    lab.close(1);
    lose_index(&lab, 1);
    std::fs::remove_file(lab.data(1).join("f")).unwrap();
    lab.open(1);
    lab.converge();
    lab.one_tree();
    assert_eq!(std::fs::read(lab.data(1).join("f")).unwrap(), b"bytes");
}

#[test]
fn t27_a_brick_that_comes_back_as_it_once_was_goes_on_under_a_new_incarnation() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    write(&lab, 0, "f", b"one");
    write(&lab, 0, "gone", b"to be deleted");
    lab.converge();
    lab.close(0);
    let (brick, backup) = (lab.brick_dir(0).to_owned(), lab.dir.path().join("image"));
    copy(&brick, &backup);
    lab.open(0);
    let old = lab.volume(0).status().incarnation;
    write(&lab, 0, "f", b"two");
    write(&lab, 0, "new", b"made after the copy");
    Fs::new(lab.volume(0)).unlink(&path("gone")).unwrap();
    lab.converge();
    lab.compact();
    lab.close(0);
    std::fs::remove_dir_all(&brick).unwrap();
    std::fs::rename(&backup, &brick).unwrap();
    lab.open(0);
    assert_eq!(lab.volume(0).status().incarnation, old, "nothing on the disk says so");
    // It even writes before it hears of that.
    write(&lab, 0, "apart", b"written as the old one");
    lab.volume(0).hinted(lab.brick(1), &lab.volume(1).heads());
    assert!(lab.volume(0).must_reopen());
    lab.reopen(0);
    assert_ne!(lab.volume(0).status().incarnation, old);
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        assert_eq!(names(&lab, n), ["apart", "f", "new"], "member {n}");
        assert_eq!(read(&lab, n, "f"), b"two");
        assert_eq!(read(&lab, n, "apart"), b"written as the old one");
    }
}

#[test]
fn t34_a_brick_that_is_reborn_many_times_does_not_make_vectors_grow() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    let mut lives = std::collections::BTreeSet::new();
    for life in 0..8 {
        assert!(lives.insert(lab.volume(0).status().incarnation), "no identity is used twice");
        // The others hear of the new life, and say what they have of the last one.
        lab.converge();
        lab.compact();
        write(&lab, 0, "f", format!("written in life {life}").as_bytes());
        lab.converge();
        lab.compact();
        let longest = lab.volume(0).longest_vector().unwrap();
        assert!(longest <= 2, "life {life}: {longest} counters");
        lab.close(0);
        match life % 2 {
            0 => lab.lose_power(0),
            _ => lose_index(&lab, 0),
        }
        lab.open(0);
    }
    lab.converge();
    lab.one_tree();
    assert_eq!(read(&lab, 1, "f"), b"written in life 7");
    assert_eq!(lab.volume(1).status().conflicts, 0);
}

#[test]
fn an_empty_root_where_files_were_removes_nothing_elsewhere() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    for n in 0..20 {
        write(&lab, 0, &format!("f{n}"), b"bytes");
    }
    lab.converge();
    lab.close(1);
    lab.lose_power(1);
    for entry in std::fs::read_dir(lab.data(1)).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    lab.open(1);
    lab.exchange();
    assert_eq!(lab.volume(0).status().files, 20);
    lab.converge();
    lab.one_tree();
    assert_eq!(std::fs::read_dir(lab.data(1)).unwrap().count(), 20);
}
