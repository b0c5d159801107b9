//! Conflicts under each policy, and what is kept in `versions/`: several members in one process.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, SystemTime};

use nearbrick_agent::config::ConflictRule;
use nearbrick_agent::volume::types::{SetAttr, SetTime};
use nearbrick_agent::volume::{KeptVersion, RestoreError, Why};
use nearbrick_core::BrickId;
use nearbrick_core::conflict::Policy;
use support::fs::{Fs, path};
use support::members::Lab;
use support::tree::{self, What};
use support::wait;

/// All files that one member shows, with their bytes, by name.
fn files(lab: &Lab, n: usize) -> Vec<(String, Vec<u8>)> {
    let of = |(path, e): (Vec<Vec<u8>>, tree::Entry)| match e.what {
        What::File(bytes) => Some((String::from_utf8_lossy(&path.join(&b'/')).into_owned(), bytes)),
        _ => None,
    };
    tree::of_volume(lab.volume(n), 20).0.into_iter().filter_map(of).collect()
}

fn rule(paths: &[&str], policy: Policy) -> ConflictRule {
    ConflictRule { paths: paths.iter().map(|p| (*p).to_owned()).collect(), policy }
}

/// One edit by each member, apart, with modification times that many seconds after 2001.
fn edit_apart(lab: &Lab, at: &str, edits: &[(&[u8], u64)]) {
    Fs::new(lab.volume(0)).write_file(&path(at), b"what all had").unwrap();
    lab.converge();
    for (n, (bytes, seconds)) in edits.iter().enumerate() {
        let fs = Fs::new(lab.volume(n));
        let (stat, opened) = fs.open(&path(at), libc::O_WRONLY | libc::O_TRUNC, 0).unwrap();
        support::fs::write_all(lab.volume(n), opened.handle, 0, bytes).unwrap();
        let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds);
        let set = SetAttr { mtime: Some(SetTime::At(mtime)), ..SetAttr::default() };
        lab.volume(n).setattr(stat.node, None, &set).unwrap();
        lab.volume(n).release(opened.handle);
        lab.settle(n);
    }
}

/// Bytes of all versions that are kept by any member.
fn kept_bytes(lab: &Lab) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..lab.count())
        .flat_map(|n| std::fs::read_dir(lab.brick_dir(n).join(".nearbrick/versions")).unwrap())
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    all.sort();
    all
}

fn kept(lab: &Lab, n: usize, at: &str) -> Vec<KeptVersion> {
    lab.volume(n).kept_versions(Some(at.as_bytes())).unwrap()
}

#[test]
fn t08_under_each_policy_all_have_the_same_winner_and_the_losers_are_kept() {
    needs!(Root);
    let edits: [(&[u8], u64); 3] =
        [(b"the longest of the three", 10), (b"the newest", 30), (b"of the third", 20)];
    let third = Policy::Brick(BrickId([3; 16]));
    for (policy, winner) in [(Policy::Largest, 0), (Policy::Newest, 1), (third, 2)] {
        let mut lab = Lab::new(3, 2);
        lab.configure(|config| config.conflicts = vec![rule(&[], policy)]);
        edit_apart(&lab, "d.txt", &edits);
        lab.converge();
        lab.one_tree();
        for n in 0..3 {
            assert_eq!(files(&lab, n), [("d.txt".to_owned(), edits[winner].0.to_vec())], "{policy:?}");
            assert_eq!(lab.volume(n).status().conflicts, 0, "{policy:?}");
        }
        let kept = kept_bytes(&lab);
        for (n, (bytes, _)) in edits.iter().enumerate() {
            assert_eq!(kept.iter().any(|k| k == bytes), n != winner, "{policy:?}: {n}");
        }
    }
}

#[test]
fn the_first_rule_whose_globs_match_decides() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    let rules = vec![rule(&["notes/*.txt"], Policy::Newest), rule(&["notes/**"], Policy::Largest)];
    lab.configure(|config| config.conflicts = rules.clone());
    Fs::new(lab.volume(0)).mkdir(&path("notes")).unwrap();
    let edits: [(&[u8], u64); 2] = [(b"longer", 1), (b"newer", 2)];
    for at in ["notes/a.txt", "notes/b.odt", "c.txt"] {
        edit_apart(&lab, at, &edits);
    }
    lab.converge();
    lab.one_tree();
    let shown = files(&lab, 1);
    let of = |at: &str| shown.iter().find(|(name, _)| name == at).map(|(_, bytes)| bytes.as_slice());
    assert_eq!(of("notes/a.txt"), Some(&b"newer"[..]));
    assert_eq!(of("notes/b.odt"), Some(&b"longer"[..]));
    // No rule: both are kept in the tree.
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert!(shown.iter().any(|(name, _)| name.starts_with("c (conflict, ws-")));
}

#[test]
fn with_manual_each_keeps_what_it_has_until_the_policy_is_another_one() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    lab.configure(|config| config.conflicts = vec![rule(&[], Policy::Manual)]);
    edit_apart(&lab, "d.txt", &[(b"of a", 1), (b"of b", 2)]);
    for _ in 0..3 {
        lab.exchange();
        (0..2).for_each(|n| drop(lab.heal(n)));
    }
    for (n, bytes) in [b"of a", b"of b"].iter().enumerate() {
        assert_eq!(files(&lab, n), [("d.txt".to_owned(), bytes.to_vec())]);
        assert_eq!(lab.volume(n).status().conflicts, 1);
    }
    lab.configure(|config| config.conflicts = vec![rule(&[], Policy::Newest)]);
    wait("the conflict is decided", || {
        lab.exchange();
        (0..2).all(|n| lab.volume(n).status().conflicts == 0)
    });
    lab.converge();
    lab.one_tree();
    assert_eq!(files(&lab, 0), [("d.txt".to_owned(), b"of b".to_vec())]);
    assert_eq!(kept_bytes(&lab), [b"of a"]);
}

#[test]
fn copies_of_equal_losers_are_one() {
    needs!(Root);
    for policy in [Policy::KeepBoth, Policy::Newest] {
        let mut lab = Lab::new(4, 2);
        lab.configure(|config| config.conflicts = vec![rule(&[], policy)]);
        // Two and two alike, all of one size.
        edit_apart(&lab, "d.txt", &[(b"same", 1), (b"also", 2), (b"same", 3), (b"also", 4)]);
        lab.converge();
        lab.one_tree();
        let shown = files(&lab, 0);
        let wanted = if policy == Policy::KeepBoth { 2 } else { 1 };
        assert_eq!(shown.len(), wanted, "{policy:?}: {shown:?}");
        if policy == Policy::Newest {
            assert_eq!(shown[0].1, b"also");
            assert!(kept_bytes(&lab).contains(&b"same".to_vec()));
        }
    }
}

#[test]
fn a_loser_that_was_kept_before_is_not_kept_twice() {
    needs!(Root);
    let lab = Lab::new(3, 3);
    edit_apart(&lab, "d.txt", &[(b"one", 1), (b"two", 2)]);
    // The third was away, and had the thought that has lost meanwhile.
    let third = Fs::new(lab.volume(2));
    let loser: &[u8] = {
        wait("the first two agree", || {
            lab.pull(0, 1);
            lab.pull(1, 0);
            drop((lab.heal(0), lab.heal(1)));
            files(&lab, 0).len() == 2 && lab.volume(0).status().pending_in.files == 0
        });
        let shown = files(&lab, 0);
        if shown.iter().any(|(name, bytes)| name == "d.txt" && bytes == b"one") { b"two" } else { b"one" }
    };
    third.write_file(&path("d.txt"), loser).unwrap();
    lab.converge();
    lab.one_tree();
    let shown = files(&lab, 0);
    assert_eq!(shown.len(), 2, "{shown:?}");
}

#[test]
fn a_deleted_file_is_kept_by_those_who_hear_of_it_and_comes_back_with_all_that_it_had() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    {
        let fs = Fs::new(lab.volume(0));
        fs.mkdir(&path("a")).unwrap();
        fs.write_file(&path("a/report"), b"a year of work").unwrap();
        fs.chmod(&path("a/report"), 0o640).unwrap();
        let node = fs.stat(&path("a/report")).unwrap().node;
        lab.volume(0).setxattr(node, b"user.kind", b"draft", 0).unwrap();
        fs.write_file(&path("a/empty"), b"").unwrap();
    }
    lab.converge();
    let mtime = Fs::new(lab.volume(0)).stat(&path("a/report")).unwrap().mtime;
    {
        let fs = Fs::new(lab.volume(0));
        fs.unlink(&path("a/report")).unwrap();
        fs.unlink(&path("a/empty")).unwrap();
        fs.rmdir(&path("a")).unwrap();
    }
    lab.converge();
    assert!(files(&lab, 1).is_empty());
    // Also after a restart with another index: all is in the folder itself.
    lab.close(1);
    std::fs::remove_dir_all(lab.brick_dir(1).join(".nearbrick/index")).unwrap();
    lab.open(1);
    lab.converge();
    let [version] = &kept(&lab, 1, "a/report")[..] else { panic!("{:?}", kept(&lab, 1, "a/report")) };
    assert_eq!((version.why, version.size, version.mtime.0 > 0), (Why::Deleted, 14, true));
    assert_eq!(version.path.as_deref(), Some(&b"a/report"[..]));
    assert_eq!(version.writer, Some(lab.brick(0)));
    assert_eq!(kept(&lab, 1, "a"), kept(&lab, 1, "a/report"), "also by the folder");
    assert_eq!(kept(&lab, 1, "a/rep"), []);
    assert_eq!(lab.volume(1).restore(&version.id, None), Ok(b"a/report".to_vec()));
    lab.converge();
    lab.one_tree();
    for n in 0..2 {
        let fs = Fs::new(lab.volume(n));
        assert_eq!(fs.read_file(&path("a/report")).unwrap(), b"a year of work");
        let stat = fs.stat(&path("a/report")).unwrap();
        assert_eq!((stat.perm, stat.mtime), (0o640, mtime), "brick {n}");
        assert_eq!(lab.volume(n).getxattr(stat.node, b"user.kind").unwrap(), b"draft");
    }
    // It stays kept, and comes back elsewhere as well.
    assert_eq!(lab.volume(1).restore(&version.id, Some(b"again")), Ok(b"again".to_vec()));
    assert_eq!(Fs::new(lab.volume(1)).read_file(&path("again")).unwrap(), b"a year of work");
}

#[test]
fn t16_a_deleted_file_with_two_names_is_kept_once_and_shares_nothing_with_the_tree() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    let fs = Fs::new(lab.volume(0));
    fs.write_file(&path("one"), b"one file").unwrap();
    let node = fs.stat(&path("one")).unwrap().node;
    fs.counted(&lab.volume(0).link(node, support::fs::ROOT, b"two").unwrap());
    lab.converge();
    fs.unlink(&path("one")).unwrap();
    lab.converge();
    assert!(kept_bytes(&lab).is_empty(), "it has another name");
    fs.unlink(&path("two")).unwrap();
    lab.converge();
    let versions = lab.volume(1).kept_versions(None).unwrap();
    assert_eq!(versions.len(), 1, "{versions:?}");
    let on_disk = lab.brick_dir(1).join(".nearbrick/versions").join(&versions[0].id);
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(on_disk).unwrap()), 1);
}

#[test]
fn a_restore_is_an_edit_and_what_it_replaces_is_kept() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    lab.configure(|config| config.conflicts = vec![rule(&[], Policy::Newest)]);
    edit_apart(&lab, "d.txt", &[(b"the older one", 1), (b"the newer", 2)]);
    lab.converge();
    let [version] = &kept(&lab, 0, "d.txt")[..] else { panic!("{:?}", kept(&lab, 0, "d.txt")) };
    assert_eq!((version.why, version.size), (Why::Lost, 13));
    lab.volume(0).restore(&version.id, None).unwrap();
    lab.converge();
    lab.one_tree();
    assert_eq!(files(&lab, 1), [("d.txt".to_owned(), b"the older one".to_vec())]);
    assert_eq!(lab.volume(1).status().conflicts, 0);
    let replaced: Vec<_> = kept(&lab, 0, "d.txt").into_iter().filter(|k| k.why == Why::Replaced).collect();
    assert_eq!(replaced.len(), 1);
    lab.volume(0).restore(&replaced[0].id, None).unwrap();
    lab.converge();
    assert_eq!(files(&lab, 1), [("d.txt".to_owned(), b"the newer".to_vec())]);
}

#[test]
fn what_cannot_be_restored_says_why() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    let fs = Fs::new(lab.volume(0));
    fs.write_file(&path("f"), b"bytes").unwrap();
    fs.write_file(&path("g"), b"others").unwrap();
    fs.mkdir(&path("dir")).unwrap();
    lab.converge();
    fs.unlink(&path("f")).unwrap();
    lab.converge();
    let id = kept(&lab, 1, "f").remove(0).id;
    let restore = |id: &str, to: &[u8]| lab.volume(1).restore(id, Some(to)).unwrap_err();
    assert_eq!(restore("../../identity", b"x"), RestoreError::NotKept("../../identity".to_owned()));
    assert_eq!(restore("nothing", b"x"), RestoreError::NotKept("nothing".to_owned()));
    for bad in [&b""[..], b"/", b"a/../b", b".nearbrick/identity", b"a/."] {
        assert!(matches!(restore(&id, bad), RestoreError::BadPath(_)), "{bad:?}");
    }
    assert_eq!(restore(&id, b"dir"), RestoreError::NotAFile("dir".to_owned()));
    assert_eq!(restore(&id, b"g/x"), RestoreError::NotAFile("g/x".to_owned()));
    let there = Fs::new(lab.volume(1));
    let (_, opened) = there.open(&path("g"), libc::O_RDWR, 0).unwrap();
    assert_eq!(restore(&id, b"g"), RestoreError::Busy("g".to_owned()));
    lab.volume(1).release(opened.handle);
}

#[test]
fn what_is_too_old_is_given_up() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    let fs = |n| Fs::new(lab.volume(n));
    fs(0).write_file(&path("f"), b"bytes").unwrap();
    lab.converge();
    fs(0).unlink(&path("f")).unwrap();
    lab.converge();
    assert_eq!(lab.volume(1).tidy_versions(), Ok(0));
    assert_eq!(kept(&lab, 1, "f").len(), 1);
    lab.configure(|config| config.retention_ms = 0);
    wait("its time has come", || lab.volume(1).tidy_versions() == Ok(1));
    assert_eq!(kept(&lab, 1, "f"), []);
    assert!(kept_bytes(&lab).is_empty());
}

/// The second member has heard that the first has the file open for writing, and not what is written.
struct Moving {
    lab: Lab,
    opened: nearbrick_agent::volume::types::Opened,
}

fn moving() -> Moving {
    let lab = Lab::new(2, 2);
    Fs::new(lab.volume(0)).write_file(&path("f"), b"what all had").unwrap();
    lab.converge();
    let (_, opened) = Fs::new(lab.volume(0)).open(&path("f"), libc::O_RDWR, 0).unwrap();
    lab.pull(1, 0);
    support::fs::write_all(lab.volume(0), opened.handle, 12, b", and more").unwrap();
    Moving { lab, opened }
}

impl Moving {
    /// The first closes it, without another change; then all agree, and there is this one file.
    fn ends_with(self, bytes: &[u8]) {
        let Moving { lab, opened } = self;
        lab.volume(0).release(opened.handle);
        lab.converge();
        lab.one_tree();
        assert_eq!(files(&lab, 0), [("f".to_owned(), bytes.to_vec())]);
        assert_eq!((0..2).map(|n| lab.volume(n).status().conflicts).sum::<u64>(), 0);
    }
}

fn append(lab: &Lab, n: usize, at: u64, bytes: &[u8]) {
    let (_, opened) = Fs::new(lab.volume(n)).open(&path("f"), libc::O_WRONLY, 0).unwrap();
    support::fs::write_all(lab.volume(n), opened.handle, at, bytes).unwrap();
    lab.volume(n).release(opened.handle);
    lab.settle(n);
}

#[test]
fn t08_a_second_writer_goes_on_with_what_the_first_wrote_and_still_has_open() {
    needs!(Root);
    let m = moving();
    append(&m.lab, 1, 22, b"; by the second");
    m.ends_with(b"what all had, and more; by the second");
}

#[test]
fn t08_a_second_writer_goes_on_with_what_the_first_has_just_closed() {
    needs!(Root);
    let Moving { lab, opened } = moving();
    lab.volume(0).release(opened.handle);
    // Whether it has settled or not, the second has not heard of that.
    append(&lab, 1, 22, b"; by the second");
    lab.converge();
    lab.one_tree();
    assert_eq!(files(&lab, 0), [("f".to_owned(), b"what all had, and more; by the second".to_vec())]);
    assert_eq!(lab.volume(1).status().conflicts, 0);
}

#[test]
fn t08_what_the_second_empties_or_replaces_is_what_the_first_wrote() {
    needs!(Root);
    let m = moving();
    Fs::new(m.lab.volume(1)).write_file(&path("f"), b"anew").unwrap();
    m.lab.settle(1);
    m.ends_with(b"anew");
    let m = moving();
    {
        // As most editors save.
        let fs = Fs::new(m.lab.volume(1));
        fs.write_file(&path("f.tmp"), b"saved").unwrap();
        fs.rename(&path("f.tmp"), &path("f")).unwrap();
        m.lab.settle(1);
    }
    m.ends_with(b"saved");
    // The first, which has it open still, hears of that, and moves it out of the way.
    let m = moving();
    {
        let fs = Fs::new(m.lab.volume(1));
        fs.write_file(&path("f.tmp"), b"saved").unwrap();
        fs.rename(&path("f.tmp"), &path("f")).unwrap();
        m.lab.settle(1);
        m.lab.exchange();
    }
    m.ends_with(b"saved");
    let Moving { lab, opened } = moving();
    Fs::new(lab.volume(1)).unlink(&path("f")).unwrap();
    lab.volume(0).release(opened.handle);
    lab.converge();
    lab.one_tree();
    assert!(files(&lab, 0).is_empty());
}

#[test]
fn t08_there_and_back_again_makes_no_conflict() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    Fs::new(lab.volume(0)).write_file(&path("f"), b"").unwrap();
    lab.converge();
    let mut wanted = Vec::new();
    for round in 0..6u8 {
        let n = usize::from(round % 2);
        let (_, opened) = Fs::new(lab.volume(n)).open(&path("f"), libc::O_WRONLY, 0).unwrap();
        // The other hears that it is open; of what is written it hears when it asks.
        lab.pull(1 - n, n);
        support::fs::write_all(lab.volume(n), opened.handle, wanted.len() as u64, &[b'0' + round]).unwrap();
        lab.volume(n).release(opened.handle);
        wanted.push(b'0' + round);
    }
    lab.converge();
    lab.one_tree();
    assert_eq!(files(&lab, 0), [("f".to_owned(), wanted)]);
    assert_eq!(lab.volume(0).status().conflicts, 0);
}

#[test]
fn t08_what_the_first_writes_afterwards_is_a_conflict_and_both_are_kept() {
    needs!(Root);
    let Moving { lab, opened } = moving();
    append(&lab, 1, 22, b"; by the second");
    support::fs::write_all(lab.volume(0), opened.handle, 0, b"WHAT").unwrap();
    lab.volume(0).release(opened.handle);
    lab.converge();
    lab.one_tree();
    let mut all: Vec<_> = files(&lab, 0).into_iter().map(|(_, bytes)| bytes).collect();
    all.sort();
    assert_eq!(all, [&b"WHAT all had, and more"[..], b"what all had, and more; by the second"]);
}

#[test]
fn a_writer_that_is_out_of_reach_is_not_waited_for() {
    needs!(Root);
    let m = moving();
    m.lab.net.set_cut(m.lab.brick(0), true);
    append(&m.lab, 1, 12, b"; apart");
    m.lab.net.set_cut(m.lab.brick(0), false);
    m.lab.volume(0).release(m.opened.handle);
    m.lab.converge();
    m.lab.one_tree();
    assert_eq!(files(&m.lab, 0).len(), 2);
}

#[test]
fn t08_who_opens_a_new_file_before_its_bytes_are_heard_of_and_writes_nothing_makes_no_version() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    let (_, new) = Fs::new(lab.volume(0)).open(&path("f"), libc::O_CREAT | libc::O_RDWR, 0o644).unwrap();
    lab.pull(1, 0);
    // So the one who writes it cannot be asked.
    lab.net.part(lab.brick(0), lab.brick(1));
    let (_, opened) = Fs::new(lab.volume(1)).open(&path("f"), libc::O_RDWR, 0).unwrap();
    lab.volume(1).release(opened.handle);
    lab.settle(1);
    support::fs::write_all(lab.volume(0), new.handle, 0, b"the first bytes").unwrap();
    lab.volume(0).release(new.handle);
    lab.settle(0);
    lab.net.join_pairs();
    lab.converge();
    for n in [0, 1] {
        assert_eq!(files(&lab, n), [("f".to_owned(), b"the first bytes".to_vec())], "member {n}");
        assert_eq!(lab.volume(n).status().conflicts, 0);
    }
}
