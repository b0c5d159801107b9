//! How the replica set of a file that exists becomes the one that is wanted for it.
//!
//! First the wanted bricks are added to the set, and healed as any brick of it. The others are dropped in one step, once every
//! wanted brick holds the newest data, nobody writes the file, and no conflict is open. A brick that is dropped keeps its bytes as a
//! cached copy, which it empties only while a brick of the set answers that it has the same.
//!
//! Invariants:
//! - whoever takes a step, and however many do so at once: of a file that nobody writes there are never fewer protected copies than
//!   the lesser of how many there were before and how many bricks are wanted;
//! - the step follows from the object alone, so members that know the same take the same one.
//!
//! For the first of these it is not enough that a wanted brick holds the data: it may have them as a cached copy, and not have heard
//! yet that it is in the set. So one counts only when it is known to have heard of the set as it is.

use std::collections::BTreeSet;

use crate::id::BrickId;
use crate::object::Object;
use crate::pending::holds_newest;

/// What a file waits for, whose wanted bricks are all in its set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Obstacle {
    /// A wanted brick lacks the newest data.
    Lacking,
    /// Programs are writing it.
    BeingWritten,
    /// It has versions of which neither includes the other.
    InConflict,
    /// A wanted brick may not have heard yet that it is in the set.
    NotHeard,
}

/// The next step of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// It is as it is wanted, or there is nothing of which copies are made.
    Done,
    /// This is to be its set: what it is, and the wanted bricks that lack in it.
    Add(Vec<BrickId>),
    /// Not now.
    Wait(Obstacle),
    /// This is to be its set: the wanted bricks alone.
    Drop(Vec<BrickId>),
}

/// Whether two lists name the same bricks.
pub fn same_set(a: &[BrickId], b: &[BrickId]) -> bool {
    a.iter().all(|x| b.contains(x)) && b.iter().all(|x| a.contains(x))
}

/// The bricks that are to hold `object` by a rule that names `bricks`, of which some are full: of each pair of `stand_ins` the second
/// takes what the first, which is full, does not hold already. So what is on a full disk stays there until it is written anew, and
/// what would not fit goes elsewhere; once it is to go there, it does, also if it fitted after all. It follows from the object and the rule alone, as [`step`] does.
pub fn with_stand_ins(object: &Object, bricks: &[BrickId], stand_ins: &[(BrickId, BrickId)]) -> Vec<BrickId> {
    let set = object.replica_set();
    let of = |brick: BrickId| {
        let stays =
            |other: &BrickId| set.contains(&brick) && !set.contains(other) && holds_newest(object, brick);
        let stand_in = stand_ins.iter().find(|(full, _)| *full == brick).map(|(_, other)| *other);
        stand_in.filter(|other| !stays(other)).unwrap_or(brick)
    };
    let mut wanted: Vec<BrickId> = Vec::with_capacity(bricks.len());
    for brick in bricks.iter().map(|brick| of(*brick)) {
        if !wanted.contains(&brick) {
            wanted.push(brick);
        }
    }
    wanted
}

/// What is to be done next so that `object` comes to be held by the `wanted` bricks. `has_heard` says of a brick whether it is
/// known to have heard of the object's replica set as it is now.
///
/// The set keeps its first brick, the file's home, until it is dropped: so the same rules apply to the file all the way.
pub fn step(object: &Object, wanted: &[BrickId], has_heard: impl Fn(BrickId) -> bool) -> Step {
    let is_file = object.kind.as_ref().is_some_and(|kind| kind.is_file());
    let set = object.replica_set();
    if !is_file || wanted.is_empty() || object.live_links().next().is_none() || same_set(set, wanted) {
        return Step::Done;
    }
    let mut all = set.to_vec();
    for brick in wanted {
        if !all.contains(brick) {
            all.push(*brick);
        }
    }
    if all.len() > set.len() {
        return Step::Add(all);
    }
    if object.writing().next().is_some() {
        Step::Wait(Obstacle::BeingWritten)
    } else if object.in_conflict() {
        Step::Wait(Obstacle::InConflict)
    } else if !wanted.iter().all(|brick| holds_newest(object, *brick)) {
        Step::Wait(Obstacle::Lacking)
    } else if !wanted.iter().all(|brick| has_heard(*brick)) {
        Step::Wait(Obstacle::NotHeard)
    } else {
        let mut left: Vec<BrickId> = Vec::new();
        for brick in wanted {
            if !left.contains(brick) {
                left.push(*brick);
            }
        }
        Step::Drop(left)
    }
}

/// Why not all of these bricks, which are in the set, hold the newest data of `object`. None if they do.
pub fn lacking(object: &Object, bricks: &[BrickId]) -> Option<Obstacle> {
    if bricks.iter().all(|brick| holds_newest(object, *brick)) {
        return None;
    }
    Some(if object.writing().next().is_some() {
        Obstacle::BeingWritten
    } else if object.in_conflict() {
        Obstacle::InConflict
    } else {
        Obstacle::Lacking
    })
}

/// How many bricks are to take the step before `me` does: those of the set that hold the newest data first, and of these, as of the
/// others, those that are to stay, because one that is to leave may be lost; then by their ids. None if it is not for `me`, which has
/// nothing to do with the file.
pub fn rank(object: &Object, wanted: &[BrickId], me: BrickId) -> Option<usize> {
    let set = object.replica_set();
    let holds = |brick: &BrickId| set.contains(brick) && holds_newest(object, *brick);
    let order = |brick: &BrickId| (!holds(brick), !wanted.contains(brick), *brick);
    let all: BTreeSet<BrickId> = set.iter().chain(wanted).copied().collect();
    all.contains(&me).then(|| all.iter().filter(|brick| order(brick) < order(&me)).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{FileId, Incarnation};
    use crate::object::tests::{brick, entries};
    use crate::op::{Attr, Entry, Kind, Op, Place};
    use crate::version::VersionVector;
    use proptest::prelude::*;

    struct World {
        object: Object,
        seq: u64,
    }

    impl World {
        /// A file of these bricks, which the first of them wrote and alone holds.
        fn new(set: &[u8]) -> Self {
            let mut world = World { object: Object::default(), seq: 0 };
            let place = Place { parent: FileId::ROOT, name: b"f".to_vec() };
            let (kind, attr) = (Kind::File, Attr::default());
            world.op(Op::Create { brick: brick(set[0]), kind, attr, place, replicas: bricks(set) });
            world.write(set[0], 1);
            world
        }

        fn op(&mut self, op: Op) {
            self.seq += 1;
            let (seq, time) = (self.seq, self.seq << 16);
            self.object.apply(&Entry { origin: Incarnation(1), seq, time, file: FileId([1; 16]), op });
        }

        fn write(&mut self, who: u8, n: u64) {
            let (version, brick) = (version(n), brick(who));
            let (size, mtime_sec, mtime_nsec, still_dirty) = (3, 0, 0, false);
            self.op(Op::Content { brick, version, size, mtime_sec, mtime_nsec, still_dirty });
        }

        fn have(&mut self, who: u8, n: u64) {
            self.op(Op::Have { brick: brick(who), version: version(n), hash: [0; 32] });
        }

        fn step(&self, wanted: &[u8]) -> Step {
            step(&self.object, &bricks(wanted), |_| true)
        }
    }

    fn version(n: u64) -> VersionVector {
        VersionVector::from_iter([(Incarnation(1), n)])
    }

    fn bricks(list: &[u8]) -> Vec<BrickId> {
        list.iter().map(|n| brick(*n)).collect()
    }

    #[test]
    fn bricks_are_added_first_and_others_dropped_when_all_that_are_wanted_hold_it() {
        let mut world = World::new(&[1, 2]);
        assert_eq!(world.step(&[1, 2]), Step::Done);
        assert_eq!(world.step(&[2, 1]), Step::Done, "the order alone is no reason");
        assert_eq!(world.step(&[]), Step::Done, "no set is not a set");
        assert_eq!(world.step(&[1, 3]), Step::Add(bricks(&[1, 2, 3])));
        world.op(Op::Replicas(bricks(&[1, 2, 3])));
        assert_eq!(world.step(&[1, 3]), Step::Wait(Obstacle::Lacking));
        world.have(2, 1);
        assert_eq!(world.step(&[1, 3]), Step::Wait(Obstacle::Lacking), "brick 3 has nothing yet");
        world.have(3, 1);
        assert_eq!(step(&world.object, &bricks(&[1, 3]), |b| b != brick(3)), Step::Wait(Obstacle::NotHeard));
        assert_eq!(world.step(&[1, 3]), Step::Drop(bricks(&[1, 3])));
        world.op(Op::Dirty { brick: brick(2) });
        assert_eq!(world.step(&[1, 3]), Step::Wait(Obstacle::BeingWritten));
        world.write(2, 2);
        assert_eq!(world.step(&[1, 3]), Step::Wait(Obstacle::Lacking), "the newest is at 2 alone");
        assert_eq!(world.step(&[2]), Step::Drop(bricks(&[2])));
        assert_eq!(world.step(&[1]), Step::Wait(Obstacle::Lacking), "the last holder stays");
        world.have(1, 2);
        world.have(3, 2);
        assert_eq!(world.step(&[3, 1, 3]), Step::Drop(bricks(&[3, 1])));
    }

    #[test]
    fn a_conflict_holds_up_the_drop_until_the_loser_is_kept() {
        let mut world = World::new(&[1, 2]);
        let other = VersionVector::from_iter([(Incarnation(2), 1)]);
        let (size, mtime_sec, mtime_nsec, still_dirty) = (3, 0, 0, false);
        let (brick2, theirs) = (brick(2), other.clone());
        world.op(Op::Content { brick: brick2, version: theirs, size, mtime_sec, mtime_nsec, still_dirty });
        assert_eq!(world.step(&[1]), Step::Wait(Obstacle::InConflict));
        let head = world.object.head().unwrap().version.clone();
        let loser = if head == other { version(1) } else { other };
        world.op(Op::Resolve { loser, kept: None });
        world.op(Op::Have { brick: brick(1), version: head, hash: [0; 32] });
        assert_eq!(world.step(&[1]), Step::Drop(bricks(&[1])));
    }

    #[test]
    fn those_that_hold_it_in_the_set_go_first_and_those_that_leave_after_those_that_stay() {
        let mut world = World::new(&[2, 1]);
        world.have(3, 1);
        let ranks = |world: &World| [1, 2, 3, 4].map(|n| rank(&world.object, &bricks(&[2, 3]), brick(n)));
        // Brick 3 holds it, and is not in the set yet; 4 has nothing to do with it.
        assert_eq!(ranks(&world), [Some(2), Some(0), Some(1), None]);
        world.have(1, 1);
        assert_eq!(ranks(&world), [Some(1), Some(0), Some(2), None]);
    }

    #[test]
    fn who_stands_in_for_a_full_brick_takes_what_that_one_does_not_hold() {
        let mut world = World::new(&[1, 2]);
        let wanted = |world: &World| with_stand_ins(&world.object, &bricks(&[1, 2]), &[(brick(2), brick(3))]);
        assert_eq!(wanted(&world), bricks(&[1, 3]), "it is not on brick 2 yet");
        world.have(2, 1);
        assert_eq!(wanted(&world), bricks(&[1, 2]), "what is there stays");
        world.write(1, 2);
        assert_eq!(wanted(&world), bricks(&[1, 3]), "what is written anew does not fit there");
        // The way there is that of any other change: added first, and dropped when it is held.
        assert_eq!(world.step(&[1, 3]), Step::Add(bricks(&[1, 2, 3])));
        world.op(Op::Replicas(bricks(&[1, 2, 3])));
        world.have(3, 2);
        world.have(2, 2);
        assert_eq!(step(&world.object, &wanted(&world), |_| true), Step::Drop(bricks(&[1, 3])));
        world.op(Op::Replicas(bricks(&[1, 3])));
        assert_eq!(wanted(&world), bricks(&[1, 3]), "a cached copy there is no reason to go back");
        // Its own brick is full: what others write goes elsewhere, what it holds stays.
        let own = |world: &World| with_stand_ins(&world.object, &bricks(&[1, 2]), &[(brick(1), brick(4))]);
        assert_eq!(own(&world), bricks(&[1, 2]));
        world.write(3, 3);
        assert_eq!(own(&world), bricks(&[4, 2]));
        let twice = with_stand_ins(&world.object, &bricks(&[1, 2]), &[(brick(1), brick(2))]);
        assert_eq!(twice, bricks(&[2]), "nobody is named twice");
    }

    proptest! {
        #[test]
        fn whoever_is_full_every_copy_has_a_brick(list in entries(), rule in prop::collection::btree_set(0u8..3, 1..4)) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let rule = bricks(&rule.into_iter().collect::<Vec<_>>());
            // Of each brick another one, that is not in the rule.
            let stand_ins: Vec<_> = (0..3).map(|n| (brick(n), brick(n + 3))).collect();
            let wanted = with_stand_ins(&object, &rule, &stand_ins);
            prop_assert_eq!(wanted.len(), rule.len());
            for (full, other) in stand_ins.iter().filter(|(full, _)| rule.contains(full)) {
                let set = object.replica_set();
                let stays = set.contains(full) && !set.contains(other) && holds_newest(&object, *full);
                prop_assert_eq!((wanted.contains(full), wanted.contains(other)), (stays, !stays));
            }
            prop_assert_eq!(with_stand_ins(&object, &rule, &[]), rule);
        }

        #[test]
        fn a_drop_leaves_as_many_copies_as_are_wanted_and_an_added_brick_is_in_the_set(
            list in entries(), wanted in prop::collection::vec(0u8..5, 0..4), deaf in prop::collection::vec(any::<bool>(), 5),
        ) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let wanted = bricks(&wanted);
            match step(&object, &wanted, |b| !deaf[usize::from(b.0[0])]) {
                Step::Done => {}
                Step::Add(set) => {
                    prop_assert!(object.replica_set().iter().chain(&wanted).all(|b| set.contains(b)));
                    prop_assert!(set.len() > object.replica_set().len());
                    prop_assert_eq!(set.first().copied(), object.replica_set().first().or(wanted.first()).copied());
                }
                Step::Wait(_) => prop_assert!(wanted.iter().all(|b| object.replica_set().contains(b))),
                Step::Drop(set) => {
                    prop_assert!(!set.is_empty() && same_set(&set, &wanted));
                    prop_assert!(set.len() < object.replica_set().len());
                    prop_assert!(object.writing().next().is_none() && !object.in_conflict());
                    for content in object.current() {
                        for brick in &set {
                            prop_assert!(object.holders_of(&content.version).any(|h| h == *brick));
                        }
                    }
                }
            }
        }
    }
}
