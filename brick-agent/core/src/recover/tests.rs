use super::*;
use crate::id::{FileId, Incarnation};
use crate::object::tests::brick;
use crate::op::{Entry, Op};
use proptest::prelude::*;

const ME: u8 = 1;
const PEER: u8 = 2;

/// Version `n` of a line of versions; 0 is none.
fn v(n: u64) -> VersionVector {
    VersionVector::from_iter([(Incarnation(1), n)])
}

/// The object after these operations.
fn object(ops: Vec<Op>) -> Object {
    let mut object = Object::default();
    for (seq, op) in (1..).zip(ops) {
        object.apply(&Entry { origin: Incarnation(1), seq, time: seq << 20, file: FileId([9; 16]), op });
    }
    object
}

fn content(n: u64) -> Op {
    Op::Content { brick: brick(ME), version: v(n), size: 10, mtime_sec: 0, mtime_nsec: 0, still_dirty: false }
}

fn have(who: u8, n: u64) -> Op {
    Op::Have { brick: brick(who), version: v(n), hash: [n as u8; 32] }
}

/// A row of the tables below.
#[derive(Clone, Copy, Debug)]
struct Row {
    have: u64,
    dirty: Option<u64>,
    /// None: a stub.
    synced: Option<u64>,
    marked: u64,
    same: bool,
    hollow: bool,
    fits: Option<bool>,
}

const CLEAN: Row =
    Row { have: 2, dirty: None, synced: Some(2), marked: 2, same: true, hollow: false, fits: None };

fn verdict(end: End, object: &Object, row: Row) -> Verdict {
    verdict_of(end, object, row, false)
}

fn verdict_of(end: End, object: &Object, row: Row, stub: bool) -> Verdict {
    let [have, marked] = [row.have, row.marked].map(v);
    let (base, synced) = (row.dirty.map(v).unwrap_or_default(), row.synced.map(v));
    judge(
        object,
        brick(ME),
        end,
        &Found {
            have: Some(&have).filter(|v| !v.is_empty()),
            dirty: row.dirty.is_some(),
            base: &base,
            synced: synced.as_ref(),
            filled: false,
            marked: Some(&marked).filter(|v| !v.is_empty()),
            made_here: false,
            stub,
            looks_same: row.same,
            marked_last: true,
            size: 10,
            hollow: row.hollow,
            bytes: match row.fits {
                None => Bytes::NotRead,
                Some(true) => {
                    object.hashes.values().next().map_or(Bytes::Unreadable, |said| Bytes::Read(said.1))
                }
                Some(false) => Bytes::Read([255; 32]),
            },
        },
    )
}

#[test]
fn t01_only_a_version_of_a_former_life_that_another_holds_takes_the_place_of_what_was_found() {
    let (former, mut held) = (Incarnation(1), object(vec![content(2), have(PEER, 2)]));
    let said = held.head().map_or(0, |c| c.stamp.millis());
    let wins = |object: &Object, base: u64, marked: u64, marked_last, changed_ms, life| {
        let (base, marked) = (v(base), v(marked));
        let marked = Some(&marked).filter(|v| !v.is_empty());
        let found = Unproven { base: &base, marked, marked_last, changed_ms };
        former_version(object, brick(ME), |l| l == life, &found).map(|c| c.version.clone())
    };
    let before = said.saturating_sub(1);
    assert!(before < said, "the entry has a time");
    assert_eq!(wins(&held, 0, 0, false, before, former), Some(v(2)));
    assert_eq!(wins(&held, 1, 0, false, before, former), Some(v(2)), "it was based on what is synced");
    // What the index knows and the bytes descend from is no news.
    assert_eq!(wins(&held, 2, 0, false, before, former), None);
    // Another life, this one or another brick's, made it.
    assert_eq!(wins(&held, 0, 0, false, before, Incarnation(9)), None);
    // Nobody else has it: what is here is all that there is.
    assert_eq!(wins(&object(vec![content(2)]), 0, 0, false, before, former), None);
    assert_eq!(wins(&object(vec![content(2), have(ME, 2)]), 0, 0, false, before, former), None);
    // A program wrote after it was said; but not if marking it was the last that was done.
    assert_eq!(wins(&held, 0, 0, false, said, former), None);
    assert_eq!(wins(&held, 0, 2, true, said, former), Some(v(2)));
    assert_eq!(wins(&held, 0, 2, false, said, former), None);
    assert_eq!(wins(&held, 0, 3, true, said, former), None, "it is marked as a later one");
    // What came in its place counts as it does.
    let newer = v(2).bumped(Incarnation(5));
    let brick = brick(PEER);
    let op = Op::Content {
        brick,
        version: newer.clone(),
        size: 1,
        mtime_sec: 0,
        mtime_nsec: 0,
        still_dirty: false,
    };
    held.apply(&Entry { origin: Incarnation(5), seq: 1, time: 900 << 20, file: FileId([9; 16]), op });
    assert_eq!(wins(&held, 0, 0, false, before, former), Some(newer));
}

#[test]
fn t01_what_a_power_cut_leaves() {
    use Verdict::{Edit, Hash, Holds, Keep, Lacking, RefreshPrint, SetAside};
    let alone = object(vec![content(2)]);
    let shared = object(vec![content(2), have(PEER, 2)]);
    let cut = |object: &Object, row| verdict(End::PowerLost, object, row);
    let cut_to_stub = |object: &Object, row| verdict_of(End::PowerLost, object, row, true);
    // Synced, and as it was.
    assert_eq!(cut(&alone, CLEAN), Keep);
    // Settled and not synced: the inode proves nothing, as its bytes may not have come.
    let young = Row { synced: Some(1), ..CLEAN };
    assert_eq!(cut(&alone, young), Edit(v(1)));
    assert_eq!(cut(&shared, young), Hash);
    assert_eq!(cut(&shared, Row { fits: Some(true), ..young }), RefreshPrint);
    assert_eq!(cut(&shared, Row { fits: Some(false), ..young }), SetAside);
    // The index has version 2, the disk the bytes of version 1.
    let behind = Row { marked: 1, same: false, fits: Some(false), ..young };
    assert_eq!(cut(&shared, behind), SetAside);
    assert_eq!(cut(&alone, behind), Edit(v(1)));
    // The index has version 2, the disk a stub.
    let stub = Row { synced: None, marked: 0, same: false, hollow: true, fits: Some(false), ..CLEAN };
    assert_eq!(cut(&shared, stub), Lacking);
    assert_eq!(cut(&alone, stub), Lacking);
    // Made here, and the bytes lost: what no one else has stays, whatever it is.
    assert_eq!(cut(&alone, Row { synced: Some(0), ..stub }), Edit(v(0)));
    assert_eq!(cut(&shared, Row { synced: Some(0), ..stub }), Lacking);
    // Missed by a start that made a stub of it, and lost what it had said of that.
    assert_eq!(cut_to_stub(&alone, Row { synced: Some(0), ..stub }), Lacking);
    assert_eq!(cut_to_stub(&alone, Row { synced: Some(0), dirty: Some(0), have: 0, ..stub }), Lacking);
    // The disk has version 2, the index version 1, or a stub.
    let ahead = Row { have: 1, synced: Some(1), same: false, ..CLEAN };
    assert_eq!(cut(&shared, Row { fits: Some(true), ..ahead }), Holds(v(2)));
    assert_eq!(cut(&shared, Row { fits: Some(false), ..ahead }), SetAside);
    let came = Row { have: 0, synced: None, same: false, ..CLEAN };
    assert_eq!(cut(&shared, Row { fits: Some(true), ..came }), Holds(v(2)));
    assert_eq!(cut(&shared, Row { fits: Some(false), ..came }), SetAside);
    // A stub of a version of which the index does not know any more, with some bytes of it, or none.
    let unknown = Row { have: 0, synced: None, marked: 0, same: false, fits: None, ..CLEAN };
    assert_eq!(cut_to_stub(&object(vec![]), Row { hollow: true, ..unknown }), Lacking);
    assert_eq!(cut_to_stub(&object(vec![]), unknown), SetAside);
    assert_eq!(cut_to_stub(&alone, unknown), Keep);
    // Being written: never set aside, and based on what was synced.
    let open = Row { dirty: Some(2), same: false, fits: Some(false), ..CLEAN };
    assert_eq!(cut(&shared, open), Edit(v(2)));
    // As it was, and with other bytes: written without its times, or damaged.
    assert_eq!(cut(&shared, Row { same: true, ..open }), SetAside);
    assert_eq!(cut(&alone, Row { same: true, fits: None, ..open }), Edit(v(2)));
    assert_eq!(cut(&shared, Row { fits: Some(true), ..open }), Keep);
    assert_eq!(cut(&alone, Row { fits: None, ..open }), Edit(v(2)));
    assert_eq!(cut(&shared, Row { synced: Some(1), ..open }), Edit(v(1)));
    assert_eq!(cut(&shared, Row { synced: Some(1), fits: Some(true), ..open }), Keep);
    // Made here, synced by its program, and not settled.
    let made = Row { have: 0, dirty: Some(0), synced: Some(0), marked: 0, ..open };
    assert_eq!(cut(&object(vec![]), made), Keep);
}

#[test]
fn t01_what_is_left_of_a_copy_gives_way_only_to_one_that_is_held() {
    let gives_way = |ops, n| remains_give_way(&object(ops), brick(ME), &v(n));
    assert!(!gives_way(vec![], 2));
    assert!(!gives_way(vec![content(2), have(ME, 2)], 2));
    assert!(gives_way(vec![content(2), have(PEER, 2)], 2));
    // To what came in its place.
    assert!(gives_way(vec![content(3), have(PEER, 3)], 2));
    // An older one is not worth it.
    assert!(!gives_way(vec![content(2), have(PEER, 1)], 2));
    assert!(!gives_way(vec![content(2), have(PEER, 2)], 0));
}

#[test]
fn t01_what_is_left_of_a_copy_waits_for_who_may_hold_it() {
    // Torn ones give way to anything that another brick has, but not to themselves.
    let torn =
        |ops, ours: Option<u64>| torn_remains_give_way(&object(ops), brick(ME), &v(3), ours.map(v).as_ref());
    assert!(!torn(vec![], None));
    assert!(!torn(vec![content(1), have(ME, 1)], None));
    assert!(torn(vec![content(1), have(PEER, 1)], None));
    assert!(!torn(vec![content(1), have(PEER, 1)], Some(1)));
    assert!(torn(vec![content(2), have(PEER, 2)], Some(1)));
    assert!(remains_wait(&object(vec![]), &v(2), false));
    assert!(!remains_wait(&object(vec![]), &v(2), true));
    // An older version says nothing of this one; who knows it, or a newer one, has said who holds it.
    assert!(remains_wait(&object(vec![content(1)]), &v(2), false));
    assert!(!remains_wait(&object(vec![content(2)]), &v(2), false));
    assert!(!remains_wait(&object(vec![content(3)]), &v(2), false));
}

#[test]
fn t28_what_a_kill_leaves() {
    use Verdict::{Edit, Holds, Keep, RefreshPrint};
    let alone = object(vec![content(2)]);
    let shared = object(vec![content(2), have(PEER, 2)]);
    let kill = |object: &Object, row| verdict(End::Killed, object, row);
    assert_eq!(kill(&alone, Row { synced: None, ..CLEAN }), Keep);
    let other = Row { same: false, fits: Some(false), ..CLEAN };
    assert_eq!(kill(&shared, other), Edit(v(2)));
    assert_eq!(kill(&shared, Row { fits: Some(true), ..other }), RefreshPrint);
    assert_eq!(kill(&shared, Row { dirty: Some(1), ..other }), Keep);
    // A heal had put the whole file in its place, and had not said so.
    assert_eq!(kill(&shared, Row { have: 1, fits: Some(true), ..other }), Holds(v(2)));
    assert_eq!(kill(&shared, Row { have: 0, fits: Some(true), ..other }), Holds(v(2)));
}

#[test]
fn t03_one_of_those_who_all_lost_their_index_judges_first() {
    let (one, two, three) = (brick(1), brick(2), brick(3));
    let lost = Some(false);
    assert!(judges_first(one, false, [(two, lost), (three, lost)]));
    assert!(!judges_first(two, false, [(one, lost), (three, lost)]));
    // One has an index, or cannot be asked.
    assert!(!judges_first(one, false, [(two, lost), (three, None)]));
    // One was adopted.
    assert!(judges_first(two, false, [(one, Some(true)), (three, lost)]));
    assert!(!judges_first(one, true, [(two, lost), (three, lost)]));
}

#[test]
fn t03_what_a_lost_index_leaves() {
    use Verdict::{Edit, Hash, Holds, Keep};
    let known = object(vec![content(2), have(PEER, 2)]);
    let lost = |row| verdict(End::IndexLost, &known, Row { have: 0, synced: None, ..row });
    assert_eq!(lost(CLEAN), Holds(v(2)));
    assert_eq!(lost(Row { marked: 1, ..CLEAN }), Holds(v(1)));
    assert_eq!(lost(Row { marked: 3, ..CLEAN }), Edit(v(3)));
    assert_eq!(lost(Row { marked: 0, ..CLEAN }), Keep);
    let written = |bytes| {
        let (marked, none) = (v(2), VersionVector::new());
        let found = Found {
            have: None,
            dirty: false,
            base: &none,
            synced: None,
            filled: false,
            marked: Some(&marked),
            made_here: false,
            stub: false,
            looks_same: false,
            marked_last: false,
            size: 10,
            hollow: false,
            bytes,
        };
        judge(&known, brick(ME), End::IndexLost, &found)
    };
    assert_eq!(written(Bytes::NotRead), Hash);
    assert_eq!(written(Bytes::Read([2; 32])), Holds(v(2)));
    assert_eq!(written(Bytes::Read([255; 32])), Edit(v(2)));
}

#[test]
fn t03_what_a_power_cut_leaves_to_a_lost_index() {
    use Verdict::{Edit, Hash, Holds, Keep, SetAside};
    let (alone, shared) = (object(vec![content(2)]), object(vec![content(2), have(PEER, 2)]));
    let lost = |object: &Object, row| verdict(End::BothLost, object, Row { have: 0, synced: None, ..row });
    assert_eq!(lost(&shared, CLEAN), Hash);
    assert_eq!(lost(&shared, Row { fits: Some(true), ..CLEAN }), Holds(v(2)));
    assert_eq!(lost(&shared, Row { fits: Some(false), ..CLEAN }), SetAside);
    // Nothing of what no other brick holds is given up, and it replaces nothing.
    assert_eq!(lost(&alone, Row { fits: Some(false), ..CLEAN }), Edit(v(0)));
    assert_eq!(lost(&shared, Row { marked: 3, ..CLEAN }), Edit(v(0)));
    assert_eq!(lost(&shared, Row { marked: 0, ..CLEAN }), Keep);
}

fn rows() -> impl Strategy<Value = Row> {
    let fits = prop_oneof![Just(None), Just(Some(false)), Just(Some(true))];
    let dirty = prop::option::of(0u64..4);
    (0u64..4, dirty, prop::option::of(0u64..4), 0u64..4, any::<bool>(), any::<bool>(), fits).prop_map(
        |(have, dirty, synced, marked, same, hollow, fits)| Row {
            have,
            dirty,
            synced,
            marked,
            same,
            hollow,
            fits,
        },
    )
}

fn objects() -> impl Strategy<Value = Object> {
    let holders = prop::collection::vec((1u8..4, 1u64..4), 0..4);
    (0u64..4, holders).prop_map(|(last, holders)| {
        let contents = (1..=last).map(content);
        object(contents.chain(holders.into_iter().map(|(who, n)| have(who, n))).collect())
    })
}

proptest! {
    #[test]
    fn t01_no_edit_includes_a_version_whose_bytes_were_not_here(object in objects(), row in rows()) {
        if let Verdict::Edit(base) = verdict(End::PowerLost, &object, row) {
            prop_assert!(base.is_empty() || row.synced == Some(base.get(Incarnation(1))));
        }
        // And nothing passes for a version without its hash, or having been synced.
        let verdict = verdict(End::PowerLost, &object, row);
        match verdict {
            Verdict::Holds(_) | Verdict::RefreshPrint => prop_assert_eq!(row.fits, Some(true)),
            Verdict::Keep if row.have > 0 && row.dirty.is_none() => {
                prop_assert!(row.same && row.synced == Some(row.have));
            }
            _ => {}
        }
    }

    #[test]
    fn t03_without_an_index_only_its_hash_makes_a_version_after_a_power_cut(object in objects(), row in rows()) {
        let row = Row { have: 0, dirty: None, synced: None, ..row };
        match verdict(End::BothLost, &object, row) {
            Verdict::Edit(base) => prop_assert!(base.is_empty()),
            Verdict::Holds(_) => prop_assert_eq!(row.fits, Some(true)),
            Verdict::Keep => prop_assert_eq!(row.marked, 0),
            _ => {}
        }
    }

    #[test]
    fn t01_the_only_copy_stays(object in objects(), row in rows()) {
        for end in [End::PowerLost, End::BothLost] {
            let gone = [Verdict::SetAside, Verdict::Lacking].contains(&verdict(end, &object, row));
            let held = object.holders.iter().any(|(who, reg)| *who != brick(ME) && reg.value.is_some());
            prop_assert!(!gone || held || row.hollow);
        }
    }

    #[test]
    fn what_programs_were_writing_is_never_set_aside(object in objects(), row in rows()) {
        if row.dirty.is_some() && !row.same {
            prop_assert_ne!(verdict(End::PowerLost, &object, row), Verdict::SetAside);
        }
        // What it had synced is its edit.
        if let Some(base) = row.dirty.filter(|_| row.synced == row.dirty && !row.same) {
            let verdict = verdict(End::PowerLost, &object, row);
            prop_assert!([Verdict::Keep, Verdict::Hash, Verdict::Edit(v(base))].contains(&verdict));
        }
    }

    #[test]
    fn t28_a_kill_sets_nothing_aside(object in objects(), row in rows()) {
        let verdict = verdict(End::Killed, &object, row);
        prop_assert!(![Verdict::SetAside, Verdict::Lacking].contains(&verdict));
        if row.dirty.is_some() {
            prop_assert_eq!(verdict, Verdict::Keep);
        }
    }

    #[test]
    fn the_hash_is_looked_at_once(object in objects(), row in rows()) {
        for end in [End::Killed, End::PowerLost, End::IndexLost, End::BothLost] {
            let asked = verdict(end, &object, row) == Verdict::Hash;
            prop_assert!(!asked || row.fits.is_none() && !object.hashes.is_empty());
        }
    }
}
