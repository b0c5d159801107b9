//! Replica sets of files that exist follow the placement rules: copies are added before others are given up, whatever ends in the
//! middle. An observer counts the copies on the bricks' disks after each step.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nearbrick_agent::config::PlacementRule;
use nearbrick_agent::heal::limit::Throttle;
use nearbrick_agent::peer::Served;
use nearbrick_agent::peer::compare::{CompareReply, CompareRequest};
use nearbrick_agent::peer::wire::Acks;
use nearbrick_agent::volume::{Later, Unplaced, VolumeOptions};
use nearbrick_core::replace::{Obstacle, same_set};
use nearbrick_core::{BrickId, FileId, Object};
use nearbrick_crds::{Joining, RelatedFiles};
use support::clock::AheadClock;
use support::fs::{Fs, path};
use support::members::Lab;
use support::{wait, wait_for};

fn file_id(lab: &Lab, n: usize, name: &str) -> FileId {
    let mut mark = [0; 4096];
    let len = rustix::fs::getxattr(lab.data(n).join(name), "trusted.nearbrick", &mut mark[..]).unwrap();
    nearbrick_agent::brick::mark::Mark::from_bytes(&mark[..len]).unwrap().file
}

fn object(lab: &Lab, n: usize, file: FileId) -> Object {
    match lab.volume(n).compared(&CompareRequest::Objects(vec![file])).unwrap() {
        CompareReply::Objects { objects, .. } => {
            objects.into_iter().next().map(|(_, o)| o).unwrap_or_default()
        }
        other => panic!("{other:?}"),
    }
}

/// A file, as one sees it who has heard these members and looks at all disks.
struct Seen {
    set: Vec<BrickId>,
    /// How many bricks of the set have these bytes on their disks.
    copies: usize,
}

fn see(lab: &Lab, heard: &[usize], name: &str, bytes: &[u8]) -> Seen {
    let file = file_id(lab, heard[0], name);
    let mut all = Object::default();
    heard.iter().for_each(|n| all.merge(object(lab, *n, file)));
    let set = all.replica_set().to_vec();
    let has = |n: usize| std::fs::read(lab.data(n).join(name)).is_ok_and(|found| found == bytes);
    let copies = (0..lab.count()).filter(|n| set.contains(&lab.brick(*n)) && has(*n)).count();
    Seen { set, copies }
}

fn bricks(lab: &Lab, list: &[usize]) -> Vec<BrickId> {
    list.iter().map(|n| lab.brick(*n)).collect()
}

fn files(count: usize) -> BTreeMap<String, Vec<u8>> {
    (0..count)
        .map(|n| (format!("f{n}"), format!("the bytes of {n} ").repeat(n * 50 + 1).into_bytes()))
        .collect()
}

fn write(lab: &Lab, n: usize, files: &BTreeMap<String, Vec<u8>>) {
    files.iter().for_each(|(name, bytes)| Fs::new(lab.volume(n)).write_file(&path(name), bytes).unwrap());
}

/// These members hear of each other all that there is.
fn exchange(lab: &Lab, who: &[usize]) {
    while who.iter().any(|to| who.iter().filter(|from| *from != to).any(|from| lab.pull(*to, *from) > 0)) {}
    for a in who {
        who.iter().filter(|b| *b != a).for_each(|b| lab.gossip(*a, *b));
    }
}

/// What is left of these members' work is done, until each file has the set that is wanted for it, and is held by all of it.
/// `observe` looks after each step.
fn until_placed(
    lab: &Lab,
    who: &[usize],
    files: &BTreeMap<String, Vec<u8>>,
    wanted: &[usize],
    mut observe: impl FnMut(&str),
) {
    let set = bricks(lab, wanted);
    wait("all files are where they are to be", || {
        who.iter().for_each(|n| while lab.volume(*n).work() {});
        observe("the members' own work");
        exchange(lab, who);
        observe("an exchange");
        for n in who {
            lab.heal(*n);
            observe("a heal");
        }
        exchange(lab, who);
        let right = |seen: Seen| same_set(&seen.set, &set) && seen.copies == wanted.len();
        files.iter().all(|(name, bytes)| right(see(lab, who, name, bytes)))
            && who.iter().all(|n| {
                let placing = lab.volume(*n).status().placing;
                placing.looked_by.is_some() && placing.unplaced.is_empty()
            })
    });
}

/// All files have at least so many copies.
fn at_least<'a>(
    lab: &'a Lab,
    heard: &'a [usize],
    files: &'a BTreeMap<String, Vec<u8>>,
    copies: usize,
) -> impl FnMut(&str) + 'a {
    move |after| {
        for (name, bytes) in files {
            let seen = see(lab, heard, name, bytes);
            assert!(seen.copies >= copies, "{name} has {} copies after {after}: {:?}", seen.copies, seen.set);
        }
    }
}

#[test]
fn t26_copies_are_added_and_given_up_while_a_program_writes() {
    needs!(Root);
    let mut lab = Lab::new(4, 1);
    let all = [0, 1, 2, 3];
    let files = files(12);
    write(&lab, 0, &files);
    lab.settle(0);
    exchange(&lab, &all);
    let mut before = 1;
    let mut busy = Vec::new();
    for wanted in [&[0, 1][..], &[0, 1, 2], &[0, 3], &[0]] {
        lab.place(&format!("{wanted:?}"), &[(0, &[], wanted)]);
        let least = before.min(wanted.len());
        let mut round = 0u32;
        let mut look = at_least(&lab, &all, &files, least);
        until_placed(&lab, &all, &files, wanted, |after| {
            round += 1;
            // A file that is always written would never be given up by anyone.
            if round <= 12 {
                busy.extend_from_slice(format!("{wanted:?} {round} {after}\n").as_bytes());
                Fs::new(lab.volume(0)).write_file(&path("busy"), &busy).unwrap();
            }
            look(after);
        });
        // What was written on the way follows when the program is done.
        lab.settle(0);
        let busy = BTreeMap::from([("busy".to_owned(), busy.clone())]);
        until_placed(&lab, &all, &busy, wanted, |_| ());
        before = wanted.len();
    }
    lab.one_tree();
    for n in all {
        assert_eq!(lab.volume(n).status().conflicts, 0);
        assert_eq!(lab.volume(n).status().in_set.files, if n == 0 { 13 } else { 0 });
    }
}

#[test]
fn files_that_were_made_before_any_placement_was_known_get_it_afterwards() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    lab.configure(|config| config.placement.clear());
    let files = files(3);
    write(&lab, 0, &files);
    lab.settle(0);
    exchange(&lab, &[0, 1]);
    assert_eq!(see(&lab, &[0, 1], "f1", &files["f1"]).set, bricks(&lab, &[0]));
    assert_eq!(lab.volume(0).status().placing, Default::default());
    lab.place("both", &[(0, &[], &[0, 1]), (1, &[], &[1, 0])]);
    until_placed(&lab, &[0, 1], &files, &[0, 1], at_least(&lab, &[0, 1], &files, 1));
    assert_eq!(see(&lab, &[0, 1], "f1", &files["f1"]).set, bricks(&lab, &[0, 1]), "the home stays the first");
}

#[test]
fn t26_files_of_a_node_that_left_go_to_its_heir() {
    needs!(Root);
    let mut lab = Lab::new(4, 2);
    let (all, mine) = ([0, 1, 2, 3], files(5));
    write(&lab, 1, &mine);
    lab.converge();
    // Of the second member's files on it and the third: it is to hold nothing any more.
    lab.place("gone", &[(0, &[], &[0, 3]), (1, &[], &[2, 3]), (2, &[], &[2, 3]), (3, &[], &[3, 0])]);
    until_placed(&lab, &all, &mine, &[2, 3], at_least(&lab, &all, &mine, 2));
    assert_eq!(lab.volume(1).status().in_set.files, 0);
    // It is a member all the same: what is made there is held by others too, and then by them alone.
    let new = BTreeMap::from([("new".to_owned(), b"made there".to_vec())]);
    write(&lab, 1, &new);
    lab.settle(1);
    until_placed(&lab, &all, &new, &[2, 3], at_least(&lab, &all, &mine, 2));
    assert_eq!(see(&lab, &all, "new", b"made there").set[0], lab.brick(2), "the heir is the home now");
    lab.one_tree();
}

/// Members whose work is done when the test says so, by a clock that it puts forward.
fn slowly(lab: &mut Lab, who: &[usize]) -> Arc<AheadClock> {
    let clock = Arc::new(AheadClock::default());
    for n in who {
        lab.close(*n);
        let options =
            VolumeOptions { clock: clock.clone(), later: Later::Called, ..VolumeOptions::default() };
        lab.open_with(*n, options);
    }
    clock
}

fn work(lab: &Lab, n: usize) {
    while lab.volume(n).work() {}
}

#[test]
fn t26_a_lost_member_is_replaced_by_another_and_loses_nothing_when_it_returns() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    let files = files(4);
    write(&lab, 0, &files);
    lab.converge();
    let clock = slowly(&mut lab, &[1, 2]);
    // The first goes, with an edit that nobody has heard of.
    Fs::new(lab.volume(0)).write_file(&path("f3"), b"edited before it went").unwrap();
    lab.settle(0);
    lab.close(0);
    lab.place("lost", &[(0, &[], &[1, 2]), (1, &[], &[1, 2]), (2, &[], &[2, 1])]);
    let rest = [1, 2];
    rest.iter().for_each(|n| work(&lab, *n));
    exchange(&lab, &rest);
    let waits =
        |lab: &Lab| lab.volume(1).status().placing.unplaced.get(&Unplaced::AnothersTurn).map(|c| c.files);
    assert_eq!(waits(&lab), None, "who is to leave is not waited for");
    {
        let mut look = at_least(&lab, &rest, &files, 1);
        until_placed(&lab, &rest, &files, &[1, 2], |after| {
            clock.pass(Duration::from_secs(30));
            look(after);
        });
    }
    // It was not lost after all.
    lab.open(0);
    lab.converge();
    let shown = Fs::new(lab.volume(2)).read_file(&path("f3")).unwrap();
    assert_eq!(shown, b"edited before it went");
    let back = BTreeMap::from([("f3".to_owned(), shown), ("f0".to_owned(), files["f0"].clone())]);
    until_placed(&lab, &[0, 1, 2], &back, &[1, 2], |_| ());
    assert_eq!(lab.volume(1).status().conflicts, 0);
    lab.place("back", &[(0, &[], &[0, 1]), (1, &[], &[1, 2]), (2, &[], &[2, 1])]);
    until_placed(&lab, &[0, 1, 2], &back, &[1, 2], |_| ());
    lab.one_tree();
}

#[test]
fn t26_two_agents_that_act_at_once_end_in_the_wanted_set() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    let all = [0, 1, 2];
    let files = files(6);
    write(&lab, 0, &files);
    lab.converge();
    let clock = slowly(&mut lab, &all);
    lab.place("other", &[(0, &[], &[0, 2]), (1, &[], &[1, 2]), (2, &[], &[2, 0])]);
    // Each takes the step by itself, having heard of nobody: to add, and later to give up.
    for _ in 0..2 {
        for _ in 0..2 {
            all.iter().for_each(|n| work(&lab, *n));
            clock.pass(Duration::from_secs(300));
        }
        let sets: Vec<_> = all.iter().map(|n| see(&lab, &[*n], "f2", &files["f2"]).set.len()).collect();
        assert!(sets.windows(2).all(|s| s[0] == s[1]), "{sets:?}");
        let look = || at_least(&lab, &all, &files, 2)("each did it");
        look();
        exchange(&lab, &all);
        look();
        all.iter().for_each(|n| drop(lab.heal(*n)));
        exchange(&lab, &all);
        look();
    }
    until_placed(&lab, &all, &files, &[0, 2], at_least(&lab, &all, &files, 2));
    lab.one_tree();
}

#[test]
fn t26_agents_that_are_killed_on_the_way_leave_no_copy_fewer() {
    needs!(Root);
    let mut lab = Lab::new(4, 2);
    let all = [0, 1, 2, 3];
    let files = files(8);
    write(&lab, 0, &files);
    lab.converge();
    lab.place("far", &[(0, &[], &[0, 2, 3])]);
    let set = bricks(&lab, &[0, 2, 3]);
    let mut turn = 0;
    // Some step of one, then one of them is killed, then again.
    let mut step = |lab: &mut Lab| {
        let n = all[turn % all.len()];
        match turn % 3 {
            0 => exchange(lab, &all),
            1 => drop(lab.heal(n)),
            _ => all.iter().for_each(|m| {
                if *m != n {
                    lab.gossip(n, *m)
                }
            }),
        }
        lab.close(n);
        lab.only_killed(n);
        lab.open(n);
        turn += 1;
        at_least(lab, &all, &files, 2)("a kill");
        let right = |(name, bytes): (&String, &Vec<u8>)| {
            let seen = see(lab, &all, name, bytes);
            same_set(&seen.set, &set) && seen.copies == 3
        };
        files.iter().all(right)
    };
    wait("all files are where they are to be", || step(&mut lab));
    until_placed(&lab, &all, &files, &[0, 2, 3], at_least(&lab, &all, &files, 2));
    lab.one_tree();
}

#[test]
fn paths_decide_also_after_a_rename() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    let all = [0, 1, 2];
    let clock = slowly(&mut lab, &all);
    let rules: &[(usize, &[&str], &[usize])] =
        &[(0, &["src/**"], &[0, 2]), (0, &[], &[0, 1]), (1, &[], &[1, 0]), (2, &[], &[2, 0])];
    lab.place("paths", rules);
    let fs = |n: usize| Fs::new(lab.volume(n));
    let bytes = |text: &str| text.as_bytes().to_vec();
    fs(0).mkdir(&path("src")).unwrap();
    fs(0).mkdir(&path("dir")).unwrap();
    fs(0).write_file(&path("src/a"), b"a").unwrap();
    fs(0).write_file(&path("b"), b"b").unwrap();
    fs(0).write_file(&path("dir/c"), b"c").unwrap();
    clock.pass(Duration::from_secs(1));
    let one = |name: &str, text: &str| BTreeMap::from([(name.to_owned(), bytes(text))]);
    until_placed(&lab, &all, &one("src/a", "a"), &[0, 2], |_| clock.pass(Duration::from_secs(1)));
    until_placed(&lab, &all, &one("b", "b"), &[0, 1], |_| ());
    // A file that moves, at once; and all that is below a directory that moves, a little later.
    fs(1).rename(&path("b"), &path("src/b")).unwrap();
    until_placed(&lab, &all, &one("src/b", "b"), &[0, 2], |_| clock.pass(Duration::from_secs(10)));
    fs(1).rename(&path("dir"), &path("src/dir")).unwrap();
    until_placed(&lab, &all, &one("src/dir/c", "c"), &[0, 2], |_| clock.pass(Duration::from_secs(10)));
    lab.one_tree();
}

#[test]
fn who_does_not_hear_the_operator_changes_no_set() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    let files = files(2);
    write(&lab, 0, &files);
    lab.converge();
    lab.volume(0).set_led(false);
    lab.volume(1).set_led(false);
    lab.place("one", &[(0, &[], &[0]), (1, &[], &[1])]);
    let why = |n: usize| -> Option<Vec<Unplaced>> {
        let placing = lab.volume(n).status().placing;
        (placing.looked_by.is_some() && !placing.unplaced.is_empty())
            .then(|| placing.unplaced.into_keys().collect())
    };
    exchange(&lab, &[0, 1]);
    let told = |n: usize| wait_for("it has looked", || why(n));
    for n in [0, 1] {
        wait("it is not led", || {
            exchange(&lab, &[0, 1]);
            told(n) == [Unplaced::NotLed]
        });
    }
    assert_eq!(see(&lab, &[0, 1], "f0", &files["f0"]).set.len(), 2);
    lab.volume(0).set_led(true);
    until_placed(&lab, &[0, 1], &files, &[0], at_least(&lab, &[0, 1], &files, 1));
}

#[test]
fn the_first_member_waits_for_copies_and_for_word_of_who_has_them() {
    needs!(Root);
    let mut lab = Lab::new(2, 1);
    let all = [0, 1];
    let files = files(3);
    write(&lab, 0, &files);
    let clock = slowly(&mut lab, &all);
    lab.place("heir", &[(0, &[], &[1]), (1, &[], &[1])]);
    let waits = |lab: &Lab, why: Unplaced| {
        work(lab, 0);
        let unplaced = lab.volume(0).status().placing.unplaced;
        assert_eq!(unplaced.into_keys().collect::<Vec<_>>(), [why]);
    };
    clock.pass(Duration::from_secs(1));
    work(&lab, 1);
    waits(&lab, Unplaced::Not(Obstacle::Lacking));
    lab.pull(1, 0);
    assert_eq!(lab.heal(1).files_done, 3);
    lab.pull(0, 1);
    waits(&lab, Unplaced::Not(Obstacle::NotHeard));
    // After a restart it is known again what is to be done.
    lab.close(0);
    let options = VolumeOptions { clock: clock.clone(), later: Later::Called, ..VolumeOptions::default() };
    lab.open_with(0, options);
    waits(&lab, Unplaced::Not(Obstacle::NotHeard));
    let told = lab.volume(1).acks(&Acks::new());
    lab.volume(0).acks(&told);
    // The one that stays goes first, and is waited for; it does nothing here.
    waits(&lab, Unplaced::AnothersTurn);
    clock.pass(Duration::from_secs(61));
    work(&lab, 0);
    assert_eq!(see(&lab, &all, "f0", &files["f0"]).set, bricks(&lab, &[1]));
    assert!(lab.volume(0).status().placing.unplaced.is_empty());
    until_placed(&lab, &all, &files, &[1], |_| ());
    lab.one_tree();
}

/// A person who works on one of three projects at another workstation: what is counted there, and the move of that project, in its
/// three steps, with a writer at work.
#[test]
fn a_project_that_is_used_elsewhere_moves_there_and_the_others_stay() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    let fs = Fs::new(lab.volume(0));
    let mut all = BTreeMap::new();
    for project in ["p1", "p2", "p3"] {
        fs.mkdir(&path(project)).unwrap();
        fs.mkdir(&path(&format!("{project}/src"))).unwrap();
        for (name, bytes) in
            [("Cargo.toml", &b"[package]"[..]), ("src/a.rs", b"fn a() {}"), ("src/b.rs", b"fn b() {}")]
        {
            all.insert(format!("{project}/{name}"), bytes.to_vec());
        }
    }
    drop(fs);
    write(&lab, 0, &all);
    lab.converge();
    let (moving, staying): (BTreeMap<_, _>, BTreeMap<_, _>) =
        all.into_iter().partition(|(name, _)| name.starts_with("p1/"));

    for _ in 0..4 {
        for (name, bytes) in &moving {
            assert_eq!(&Fs::new(lab.volume(2)).read_file(&path(name)).unwrap(), bytes);
        }
    }
    lab.volume(2).look_at_usage().unwrap();
    let hottest = lab.volume(2).hottest();
    let [group] = hottest.as_slice() else { panic!("{hottest:?}") };
    assert_eq!((group.path.as_str(), group.below, group.all.files, group.away.files), ("p1", true, 3, 3));
    assert_eq!(group.bricks, bricks(&lab, &[0, 1]));
    let uses = group.uses;
    assert!(
        uses.remote > 2.9 && uses.cached > 8.9 && uses.total() < 12.1,
        "first each without its data: {uses:?}"
    );
    lab.volume(0).look_at_usage().unwrap();
    let at_home = lab.volume(0).hottest();
    assert_eq!(at_home.len(), 3);
    assert!(at_home.iter().all(|g| g.away.files == 0 && g.uses.writes > 2.9), "{at_home:?}");

    let homes = lab.rules();
    let rules = |lab: &Lab, joining| {
        let rule = PlacementRule {
            paths: vec!["p1/**".to_owned()],
            bricks: bricks(lab, &[2, 0]),
            migration: Some("move".to_owned()),
            joining,
            ..PlacementRule::default()
        };
        std::iter::once(rule).chain(homes.clone()).collect::<Vec<_>>()
    };
    let step = |lab: &mut Lab, name: &str, joining, wanted: &[usize]| {
        let rules = rules(lab, joining);
        lab.place_by(name, &rules);
        until_placed(lab, &[0, 1, 2], &moving, wanted, at_least(lab, &[0, 1, 2], &moving, 2));
        until_placed(lab, &[0, 1, 2], &staying, &[0, 1], at_least(lab, &[0, 1, 2], &staying, 2));
    };
    step(&mut lab, "adding", Some(Joining::Adding), &[0, 1, 2]);
    let verified = |lab: &Lab| {
        lab.volume(2).verify_moves(&Throttle::new(None, None), &AtomicBool::new(false)).unwrap();
        lab.volume(2).status().verified_moves
    };
    assert_eq!(verified(&lab), BTreeMap::new());
    step(&mut lab, "verifying", Some(Joining::Verifying), &[0, 1, 2]);
    let found = verified(&lab);
    let bytes: usize = moving.values().map(Vec::len).sum();
    assert_eq!(
        found.get("move").map(|v| (v.files, v.bytes, v.damaged, v.left)),
        Some((3, bytes as u64, 0, 0))
    );
    step(&mut lab, "dropping", None, &[2, 0]);
    assert_eq!(verified(&lab), BTreeMap::new(), "it is not to be verified any more");

    // What is made there from now on is held there, and by the other.
    let new = BTreeMap::from([("p1/src/new.rs".to_owned(), b"fn new() {}".to_vec())]);
    write(&lab, 2, &new);
    until_placed(&lab, &[0, 1, 2], &new, &[2, 0], |_| {});
    // Also by who works there at another workstation.
    let other = BTreeMap::from([("p1/src/other.rs".to_owned(), b"fn other() {}".to_vec())]);
    write(&lab, 1, &other);
    until_placed(&lab, &[0, 1, 2], &other, &[2, 0], |_| {});
    // A restart forgets no use, nor a change of what belongs together.
    lab.volume(2).keep_usage().unwrap();
    lab.reopen(2);
    lab.configure(|config| config.upkeep.related = RelatedFiles::Directory);
    lab.volume(2).look_at_usage().unwrap();
    let again = lab.volume(2).hottest();
    let of = |p: &str| again.iter().find(|g| g.path == p).map_or(0.0, |g| g.uses.total());
    assert!(of("p1") > 3.9 && of("p1/src") > 7.9 && again.iter().all(|g| !g.below), "{again:?}");
}

/// A move that is taken back before its last step leaves everything as it was.
#[test]
fn a_move_that_is_taken_back_leaves_the_copies_where_they_were() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    let all = files(4);
    write(&lab, 0, &all);
    lab.converge();
    let homes = lab.rules();
    let rule = PlacementRule {
        paths: vec!["**".to_owned()],
        bricks: bricks(&lab, &[2, 0]),
        migration: Some("move".to_owned()),
        joining: Some(Joining::Adding),
        ..PlacementRule::default()
    };
    lab.place_by("adding", &std::iter::once(rule).chain(homes.clone()).collect::<Vec<_>>());
    // It is in the sets, and has nothing yet: that counts as left.
    (0..3).for_each(|n| while lab.volume(n).work() {});
    exchange(&lab, &[0, 1, 2]);
    (0..3).for_each(|n| while lab.volume(n).work() {});
    let left = lab.volume(0).status().placing.moves.get("move").map(|(quiet, busy)| (quiet.files, *busy));
    assert_eq!(left, Some((4, 0)));
    lab.place_by("back", &homes);
    until_placed(&lab, &[0, 1, 2], &all, &[0, 1], at_least(&lab, &[0, 1, 2], &all, 2));
    assert_eq!(lab.volume(0).status().placing.moves, BTreeMap::new());
}

/// While a brick's disk is full, another takes what it does not hold: new files, and what is written anew. What it holds stays, and
/// when there is room again, all is where the rules want it.
#[test]
fn t23_while_a_brick_is_full_another_takes_what_is_new() {
    needs!(Root);
    let mut lab = Lab::new(4, 2);
    let all = [0, 1, 2, 3];
    let old = files(4);
    write(&lab, 0, &old);
    lab.converge();
    let rules = lab.rules();
    let full = |who: usize, instead: usize| {
        let pair = (lab.brick(who), lab.brick(instead));
        let of = |rule: &PlacementRule| PlacementRule {
            stand_ins: Vec::from_iter(rule.bricks.contains(&pair.0).then_some(pair)),
            ..rule.clone()
        };
        rules.iter().map(of).collect::<Vec<_>>()
    };
    let (partner_full, own_full) = (full(1, 3), full(0, 2));

    // The partner is full: new files have another one, and so has what is written anew. The rest stays.
    lab.place_by("partner full", &partner_full);
    let new = BTreeMap::from([("new".to_owned(), b"made while b was full".to_vec())]);
    let mut rest = old.clone();
    let again = BTreeMap::from([("f1".to_owned(), b"written anew while b was full".to_vec())]);
    rest.remove("f1");
    write(&lab, 0, &new);
    assert_eq!(object(&lab, 0, file_id(&lab, 0, "new")).replica_set(), bricks(&lab, &[0, 3]));
    write(&lab, 0, &again);
    lab.settle(0);
    for (files, wanted) in [(&new, &[0, 3]), (&again, &[0, 3]), (&rest, &[0, 1])] {
        until_placed(&lab, &all, files, wanted, at_least(&lab, &all, &rest, 2));
    }
    assert!(
        !lab.data(1).join("new").metadata().is_ok_and(|m| std::os::unix::fs::MetadataExt::blocks(&m) > 0)
    );

    // There is room again: everything comes home.
    lab.place_by("room", &rules);
    for files in [&new, &again, &rest] {
        until_placed(&lab, &all, files, &[0, 1], at_least(&lab, &all, files, 2));
    }

    // The own disk is full: what is made here is held by two others, and only cached here, so it can be emptied.
    lab.place_by("own full", &own_full);
    let away = BTreeMap::from([("away".to_owned(), b"made while a itself was full".to_vec())]);
    write(&lab, 0, &away);
    lab.settle(0);
    assert_eq!(object(&lab, 0, file_id(&lab, 0, "away")).replica_set(), bricks(&lab, &[2, 3]));
    assert_eq!(lab.volume(0).status().pending.files, 1, "nobody else has it yet");
    until_placed(&lab, &all, &away, &[2, 3], |_| {});
    assert_eq!(lab.volume(0).status().pending.files, 0);
    // What others change of the files here goes elsewhere, too, and is at home there from now on.
    let theirs = BTreeMap::from([("f2".to_owned(), b"written by b while a was full".to_vec())]);
    write(&lab, 1, &theirs);
    lab.settle(1);
    until_placed(&lab, &all, &theirs, &[2, 3], |_| {});
    lab.one_tree();
}

/// Where the volume asks for it, directories that are used in the same sessions of work are one group, wherever they are; and that is
/// what moves.
#[test]
fn what_is_used_in_the_same_sessions_is_one_group_and_moves_together() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    let clock = slowly(&mut lab, &[2]);
    lab.configure(|config| config.upkeep.related = RelatedFiles::CoAccess);
    let fs = Fs::new(lab.volume(0));
    let mut all = BTreeMap::new();
    for dir in ["code", "plots", "mail", "mail/old"] {
        fs.mkdir(&path(dir)).unwrap();
        all.extend((0..3).map(|n| (format!("{dir}/{n}"), format!("{dir} {n}").into_bytes())));
    }
    drop(fs);
    write(&lab, 0, &all);
    lab.converge();
    let use_all = |lab: &Lab, dirs: &[&str]| {
        for dir in dirs {
            for n in 0..3 {
                let name = format!("{dir}/{n}");
                assert_eq!(Fs::new(lab.volume(2)).read_file(&path(&name)).unwrap(), all[&name]);
            }
        }
        clock.pass(Duration::from_secs(301));
    };
    for _ in 0..4 {
        use_all(&lab, &["plots", "code"]);
        use_all(&lab, &["mail"]);
    }
    use_all(&lab, &["mail", "mail/old"]);
    use_all(&lab, &["mail"]);
    let groups = |lab: &Lab| {
        lab.volume(2).look_at_usage().unwrap();
        let of = |g: &nearbrick_agent::volume::HotGroup| {
            assert!(!g.below);
            (g.path.clone(), g.with.clone(), g.all.files, g.away.files)
        };
        lab.volume(2).hottest().iter().map(of).collect::<Vec<_>>()
    };
    let alone = |dir: &str| (dir.to_owned(), vec![], 3, 3);
    let wanted = [("code".to_owned(), vec!["plots".to_owned()], 6, 6), alone("mail"), alone("mail/old")];
    assert_eq!(groups(&lab), wanted);
    // A restart forgets no habit.
    lab.volume(2).keep_usage().unwrap();
    lab.reopen(2);
    assert_eq!(groups(&lab), wanted);

    // The group moves as one, by the globs that the operator makes of it.
    let rule = PlacementRule {
        paths: vec!["code/*".to_owned(), "plots/*".to_owned()],
        bricks: bricks(&lab, &[2, 0]),
        migration: Some("move".to_owned()),
        ..PlacementRule::default()
    };
    let rules: Vec<_> = std::iter::once(rule).chain(lab.rules()).collect();
    lab.place_by("dropping", &rules);
    let (moving, staying): (BTreeMap<_, _>, BTreeMap<_, _>) =
        all.clone().into_iter().partition(|(name, _)| !name.starts_with("mail"));
    until_placed(&lab, &[0, 1, 2], &moving, &[2, 0], at_least(&lab, &[0, 1, 2], &moving, 2));
    until_placed(&lab, &[0, 1, 2], &staying, &[0, 1], at_least(&lab, &[0, 1, 2], &staying, 2));
}
