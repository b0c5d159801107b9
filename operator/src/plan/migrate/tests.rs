use std::collections::BTreeMap;

use nearbrick_crds::{Joining, Migration, Move, ReplicaSet};

use super::*;
use MigrationPhase::{Adding, Done, Dropping, Proposed, Refused, Verifying};
use proptest::prelude::*;

fn at(s: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + s).unwrap()
}

fn hot(path: &str, uses: u64, bricks: &[&str], away: u64) -> HotGroup {
    HotGroup {
        path: path.into(),
        below: true,
        remote: uses,
        files: 10,
        bytes: 1000,
        away_files: away,
        away_bytes: away * 100,
        bricks: bricks.iter().map(|b| (*b).to_string()).collect(),
        ..HotGroup::default()
    }
}

fn brick<'a>(name: &'a str, hottest: &'a [HotGroup]) -> BrickView<'a> {
    BrickView {
        name,
        node: name,
        online: true,
        stays: true,
        space: Some((1 << 30, 10 << 30)),
        hottest,
        age: Duration::ZERO,
        looked_by: Some("rules"),
        moves: &[],
    }
}

fn input<'a>(bricks: &[BrickView<'a>], now: i64) -> Input<'a> {
    let dwell = Some("5m".to_string());
    let migration = Migration { mode: MigrationMode::Automatic, dwell, ..Migration::default() };
    Input {
        settings: Settings::of(Some(&migration)),
        bricks: bricks.to_vec(),
        sets: &[],
        rules: "rules".into(),
        in_rules: BTreeMap::new(),
        replicas: 2,
        now: at(now),
    }
}

/// The object that the operator makes of what is wanted.
fn made(wanted: &Wanted, name: &str, when: i64) -> MoveView {
    MoveView {
        name: name.into(),
        automatic: true,
        paths: wanted.group.globs(),
        to: wanted.to.clone(),
        made: at(when),
        ..MoveView::default()
    }
}

fn nobody(_: &MoveView) -> Vec<String> {
    Vec::new()
}

fn only(todo: &Todo) -> &Said {
    assert_eq!((todo.say.len(), todo.make.len(), todo.remove.len()), (1, 0, 0), "{todo:?}");
    &todo.say[0].1
}

#[test]
fn a_group_follows_the_person_who_uses_it_and_no_other_group_does() {
    let (on_a, on_c) = (
        [hot("p1", 30, &["a", "b"], 0), hot("p2", 40, &["a", "b"], 0)],
        [hot("p1", 100, &["a", "b"], 10), hot("p2", 5, &["a", "b"], 10)],
    );
    let bricks = [brick("a", &on_a), brick("b", &[]), brick("c", &on_c)];
    let wanted = input(&bricks, 0).wanted();
    assert_eq!(wanted.len(), 1);
    let w = &wanted[0];
    assert_eq!((w.group.path(), w.to.as_str(), w.from.as_deref()), ("p1", "c", Some("b")));
    assert_eq!(w.bricks, ["c", "a"], "used most first, and the coldest leaves");
    assert!(w.evidence.contains("100 times") && w.evidence.contains("30 times at a"), "{}", w.evidence);
    // Where the person was before it has become cold, that one leaves.
    let on_b = [hot("p1", 60, &["a", "b"], 0)];
    let bricks = [brick("a", &[]), brick("b", &on_b), brick("c", &on_c)];
    assert_eq!(input(&bricks, 0).wanted()[0].bricks, ["c", "b"]);
}

#[test]
fn what_is_used_together_moves_together_though_others_tell_it_apart_otherwise() {
    let together = |path: &str, with: &[&str], uses, away| HotGroup {
        with: with.iter().map(|d| (*d).to_string()).collect(),
        below: false,
        ..hot(path, uses, &["a", "b"], away)
    };
    let on_c = [together("plots", &["code", "data"], 100, 10), together("mail", &[], 50, 10)];
    // At a one of these directories is used, with another.
    let on_a = [together("code", &["docs"], 30, 0)];
    let bricks = [brick("a", &on_a), brick("b", &[]), brick("c", &on_c)];
    let wanted = input(&bricks, 0).wanted();
    assert_eq!(wanted.len(), 2);
    assert_eq!(wanted[0].group.globs(), ["plots/*", "code/*", "data/*"]);
    assert_eq!(
        (wanted[0].bricks.clone(), wanted[0].from.as_deref()),
        (vec!["c".into(), "a".into()], Some("b"))
    );
    assert!(wanted[0].evidence.contains("30 times at a"), "{}", wanted[0].evidence);
    // What is used together changes a little while the proposal dwells: it stays.
    let view = made(&wanted[0], "m", 0);
    let later = [together("code", &["plots"], 100, 10)];
    let bricks = [brick("a", &on_a), brick("b", &[]), brick("c", &later)];
    let todo = plan(&input(&bricks, 300), std::slice::from_ref(&view), nobody);
    assert_eq!(only(&todo).view.phase, Some(Adding));
    // As much use of one of them at a holds it back.
    let on_a = [together("code", &["docs"], 40, 0)];
    let on_b = [together("data", &["other"], 40, 0)];
    let bricks = [brick("a", &on_a), brick("b", &on_b), brick("c", &on_c)];
    assert_eq!(input(&bricks, 0).wanted().iter().map(|w| w.group.path()).collect::<Vec<_>>(), ["mail"]);
}

#[test]
fn nothing_is_wanted_without_use_by_a_factor_or_of_what_is_there() {
    let there = [hot("p", 100, &["a", "c"], 0)];
    let few = [hot("p", 9, &["a", "b"], 10)];
    let enough = [hot("p", 100, &["a", "b"], 10)];
    let also = [hot("p", 40, &["a", "b"], 0)];
    for (a, b, c, moves) in [
        (&[][..], &[][..], &there[..], false),
        (&[], &[], &few, false),
        (&[], &[], &enough, true),
        (&also, &[], &enough, true),
        // Both holders use it, the colder of them a third as much at most.
        (&also, &also, &enough, false),
    ] {
        let bricks = [brick("a", a), brick("b", b), brick("c", c)];
        assert_eq!(!input(&bricks, 0).wanted().is_empty(), moves, "{a:?} {b:?} {c:?}");
    }
    // What was used half a day ago is worth an eighth; a brick that is away, or leaves, gets nothing.
    for change in [
        |b: &mut BrickView<'_>| b.age = 3 * HALF_LIFE + HALF_LIFE,
        |b: &mut BrickView<'_>| b.online = false,
        |b: &mut BrickView<'_>| b.stays = false,
    ] {
        let mut bricks = [brick("a", &[]), brick("b", &[]), brick("c", &enough)];
        change(&mut bricks[2]);
        assert_eq!(input(&bricks, 0).wanted(), []);
    }
}

#[test]
fn a_move_is_proposed_dwells_and_goes_through_its_phases() {
    let on_c = [hot("p", 100, &["a", "b"], 10)];
    let mut bricks = [brick("a", &[]), brick("b", &[]), brick("c", &on_c)];
    let todo = plan(&input(&bricks, 0), &[], nobody);
    assert_eq!((todo.make.len(), todo.say.len()), (1, 0));
    let mut view = made(&todo.make[0], "m", 0);
    let said = only(&plan(&input(&bricks, 100), std::slice::from_ref(&view), nobody)).clone();
    assert_eq!(
        (said.view.phase, said.reason, said.again),
        (Some(Proposed), "Dwelling", Some(Duration::from_secs(200)))
    );
    let said = only(&plan(&input(&bricks, 300), std::slice::from_ref(&view), nobody)).clone();
    assert_eq!((said.view.phase, said.view.started), (Some(Adding), Some(at(300))));
    assert_eq!(
        (said.view.bricks.clone(), said.view.group),
        (vec!["c".to_string(), "a".into()], Some((10, 1000)))
    );
    view = said.view;

    // Until the rules have it, and all have looked by them, and nothing is left, it stays.
    let lacks = [Move { migration: "m".into(), files: 3, bytes: 30, ..Move::default() }];
    let step = |view: &MoveView, bricks: &[BrickView<'_>], joining: Option<Option<Joining>>| {
        let mut input = input(bricks, 400);
        input.in_rules.extend(joining.map(|j| ("m", j)));
        only(&plan(&input, std::slice::from_ref(view), nobody)).clone()
    };
    let adding = Some(Some(Joining::Adding));
    assert_eq!(step(&view, &bricks, None).view.phase, Some(Adding));
    bricks[0].looked_by = Some("older");
    assert!(step(&view, &bricks, adding).message.contains("a has not looked"));
    // One that is away holds nobody up: files of which it alone has the newest are left at the others.
    bricks[0].online = false;
    assert_eq!(step(&view, &bricks, adding).view.phase, Some(Verifying));
    bricks[0] = brick("a", &[]);
    bricks[1].moves = &lacks;
    let said = step(&view, &bricks, adding);
    assert_eq!((said.view.phase, said.left), (Some(Adding), Some((3, 30))));
    bricks[1].moves = &[];
    view = step(&view, &bricks, adding).view;
    assert_eq!(view.phase, Some(Verifying));

    let verifying = Some(Some(Joining::Verifying));
    assert_eq!(step(&view, &bricks, adding).view.phase, Some(Verifying), "the rules are those before");
    assert_eq!(step(&view, &bricks, verifying).view.phase, Some(Verifying), "nothing was read yet");
    let read = |damaged| {
        let verified = nearbrick_crds::Verified { files: 10, bytes: 1000, damaged, left: 0 };
        [Move { migration: "m".into(), verified: Some(verified), ..Move::default() }]
    };
    let (damaged, right) = (read(1), read(0));
    bricks[2].moves = &damaged;
    assert_eq!(step(&view, &bricks, verifying).view.phase, Some(Adding), "it is copied again");
    bricks[2].moves = &right;
    view = step(&view, &bricks, verifying).view;
    assert_eq!(view.phase, Some(Dropping));
    let busy = [Move { migration: "m".into(), busy: 2, ..Move::default() }];
    bricks[1].moves = &busy;
    let said = step(&view, &bricks, Some(None));
    assert_eq!((said.view.phase, said.view.completed), (Some(Done), Some(at(400))));
    assert!(
        said.message.contains("are at c and a, given up at b; 2 files that are being written"),
        "{}",
        said.message
    );
}

#[test]
fn what_nothing_calls_for_any_more_is_withdrawn_and_a_group_that_moved_stays_for_a_while() {
    let on_c = [hot("p", 100, &["a", "b"], 10)];
    let bricks = [brick("a", &[]), brick("b", &[]), brick("c", &on_c)];
    let wanted = input(&bricks, 0).wanted().remove(0);
    let view = made(&wanted, "m", 0);
    let cold = [brick("a", &[]), brick("b", &[]), brick("c", &[])];
    assert_eq!(plan(&input(&cold, 10), std::slice::from_ref(&view), nobody).remove, ["m"]);
    // A person has taken it over.
    let theirs = MoveView { automatic: false, ..view.clone() };
    let todo = plan(&input(&cold, 10), &[theirs], |_| vec!["a".into(), "b".into()]);
    assert_eq!(only(&todo).view.phase, Some(Adding));
    for phase in [Done, Refused] {
        let ended = MoveView { phase: Some(phase), completed: Some(at(0)), ..view.clone() };
        for (now, again) in [(3599, false), (3601, true)] {
            let todo = plan(&input(&bricks, now), std::slice::from_ref(&ended), nobody);
            assert_eq!(!todo.make.is_empty(), again, "{phase:?} {now}");
        }
    }
    // Nor is a directory within it, or the one around it, proposed meanwhile.
    let inner =
        [hot("p/q", 100, &["a", "b"], 10), hot("pq", 50, &["a", "b"], 10), hot("", 40, &["a", "b"], 10)];
    let bricks = [brick("a", &[]), brick("b", &[]), brick("c", &inner)];
    let todo = plan(&input(&bricks, 10), &[MoveView { phase: Some(Adding), ..view }], nobody);
    assert_eq!(todo.make.iter().map(|w| w.group.path()).collect::<Vec<_>>(), ["pq"]);
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason_and_a_budget_is_waited_for() {
    let on_c = [hot("p", 100, &["a", "b"], 10)];
    let base = [brick("a", &[]), brick("b", &[]), brick("c", &on_c)];
    let view = made(&input(&base, 0).wanted()[0], "m", 0);
    let go = |bricks: &[BrickView<'_>], sets: &[ReplicaSet], view: &MoveView| {
        let of = |b: &BrickView<'_>| (b.online, b.stays, b.space);
        let mut list = base.to_vec();
        list.iter_mut().zip(bricks).for_each(|(to, from)| (to.online, to.stays, to.space) = of(from));
        let input = Input { sets, ..input(&list, 300) };
        plan(&input, std::slice::from_ref(view), |_| vec!["a".into(), "b".into()]).say.remove(0).1
    };
    let set = |nodes: &[&str], paths: &[&str]| ReplicaSet {
        nodes: nodes.iter().map(|n| (*n).to_string()).collect(),
        paths: paths.iter().map(|p| (*p).to_string()).collect(),
    };
    let mut full = base.to_vec();
    full[2].space = Some((600 << 20, 10 << 30));
    assert_eq!(go(&base, &[], &view).view.phase, Some(Adding));
    full[2].space = Some((100, 10 << 30));
    assert_eq!(go(&full, &[], &view).reason, "NoSpace");
    let person = MoveView { automatic: false, ..view.clone() };
    for (wrong, reason) in [
        (MoveView { to: "z".into(), ..person.clone() }, "NoSuchBrick"),
        (MoveView { paths: vec!["a[".into()], ..person.clone() }, "InvalidGlob"),
        (MoveView { dry_run: true, ..person.clone() }, "DryRun"),
    ] {
        let said = go(&base, &[], &wrong);
        assert_eq!(said.reason, reason, "{said:?}");
    }
    assert_eq!(go(&base, &[set(&["a", "b"], &[])], &view).reason, "ExplicitReplicaSet");
    assert_eq!(go(&base, &[set(&["a", "c"], &["x/**"])], &view).reason, "ExplicitReplicaSet");
    // Hub and spoke: the group of the node that joins says who holds it then.
    let spokes = [set(&["a", "b"], &[]), set(&["c", "b"], &[])];
    assert_eq!(go(&base, &spokes, &view).view.bricks, ["c", "b"]);
    let unknown = plan(&input(&base, 300), &[MoveView { to: "a".into(), ..person }], nobody).say.remove(0).1;
    assert_eq!(unknown.reason, "UnknownHolders");
    // Within an hour so many bytes and no more, but one move at least.
    let mut tight = input(&base, 300);
    tight.settings.bytes_per_hour = 1500;
    let earlier = MoveView {
        name: "e".into(),
        paths: vec!["other/**".into()],
        phase: Some(Done),
        started: Some(at(0)),
        completed: Some(at(1)),
        group: Some((1, 600)),
        ..MoveView::default()
    };
    let said = plan(&tight, &[earlier.clone(), view.clone()], nobody).say.remove(0).1;
    assert_eq!((said.reason, said.view.phase), ("OverBudget", Some(Proposed)));
    tight.now = at(3601);
    assert_eq!(plan(&tight, &[earlier, view], nobody).say.remove(0).1.view.phase, Some(Adding));
}

#[test]
fn a_brick_that_leaves_ends_a_move_before_anything_is_dropped() {
    let on_c = [hot("p", 100, &["a", "b"], 10)];
    let mut bricks = [brick("a", &[]), brick("b", &[]), brick("c", &on_c)];
    let view = made(&input(&bricks, 0).wanted()[0], "m", 0);
    bricks[2].stays = false;
    for (phase, then) in [(Adding, Refused), (Verifying, Refused), (Dropping, Done)] {
        let view = MoveView { phase: Some(phase), ..view.clone() };
        assert_eq!(only(&plan(&input(&bricks, 400), &[view], nobody)).view.phase, Some(then));
    }
}

proptest! {
    #[test]
    fn who_holds_it_in_the_end_are_as_many_as_before_and_one_of_them_did(
        uses in prop::collection::vec(0u64..200, 5), set in prop::collection::btree_set(0usize..4, 1..4), replicas in 1usize..4,
        stays in prop::collection::vec(any::<bool>(), 4),
    ) {
        let names = ["a", "b", "c", "d", "to"];
        let present: Vec<&str> = set.iter().map(|n| names[*n]).collect();
        let lists: Vec<[HotGroup; 1]> =
            uses.iter().enumerate().map(|(n, u)| [hot("p", *u, &present, if n == 4 { 10 } else { 0 })]).collect();
        let mut bricks: Vec<BrickView<'_>> = names.iter().zip(&lists).map(|(n, l)| brick(n, l)).collect();
        bricks.iter_mut().zip(&stays).for_each(|(b, s)| b.stays = *s);
        let mut input = input(&bricks, 0);
        input.replicas = replicas;
        for w in input.wanted().iter().filter(|w| w.to == "to") {
            prop_assert!(w.bricks.contains(&"to".to_string()));
            prop_assert_eq!(w.bricks.len(), replicas.min(present.len() + 1));
            prop_assert!(w.bricks.iter().filter(|b| *b != "to").all(|b| present.contains(&b.as_str())));
            // Nobody who stays and uses it more than the one that leaves had to leave.
            prop_assert!(w.from.as_ref().is_none_or(|f| !w.bricks.contains(f) && present.contains(&f.as_str())));
            let least = w.from.as_ref().map_or(0.0, |f| input.brick(f).unwrap().uses(&w.group));
            prop_assert!(uses[4] as f64 >= 3.0 * least && uses[4] >= 10);
        }
    }
}
