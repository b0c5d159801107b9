//! Which bricks lack the newest data of an object.

use crate::id::BrickId;
use crate::object::Object;
use crate::version::VersionVector;

/// A brick of the replica set that lacks the newest data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pending {
    /// The brick.
    pub brick: BrickId,
    /// Bytes of the newest version known.
    pub bytes: u64,
    /// Since when there is something that it lacks: milliseconds since 1970,
    /// by the writer's hybrid clock.
    pub since: u64,
}

/// A vector that includes every version that counts.
fn newest(object: &Object) -> VersionVector {
    let mut newest = VersionVector::new();
    object.current().for_each(|c| newest.merge(&c.version));
    newest
}

/// Whether the brick holds every version that counts; of a file without any, each does.
pub fn holds_newest(object: &Object, brick: BrickId) -> bool {
    let newest = newest(object);
    newest.is_empty()
        || object.holders.get(&brick).and_then(|reg| reg.value.as_ref()).is_some_and(|v| v.includes(&newest))
}

/// The bricks of the object's replica set that lack its newest data.
///
/// A brick is pending when some known version is not included in what it holds,
/// or when programs at another brick are changing the file: what will come of
/// it is newer than anything that this brick can hold. So "nothing pending" is
/// never said while copies differ (P01).
pub fn pending(object: &Object) -> Vec<Pending> {
    if !object.kind.as_ref().is_some_and(|k| k.is_file()) || object.live_links().next().is_none() {
        return Vec::new();
    }
    let newest = newest(object);
    let set_at = object.replicas.as_ref().map_or(0, |reg| reg.stamp.millis());
    object
        .replica_set()
        .iter()
        .filter_map(|&brick| {
            let held = object.holders.get(&brick).and_then(|reg| reg.value.as_ref());
            let lacks_version = !held.is_some_and(|v| v.includes(&newest)) && !newest.is_empty();
            // One that never held anything of it waits since it came into the set, at the earliest.
            let added_at = if object.holders.contains_key(&brick) { 0 } else { set_at };
            let written = object
                .current()
                .filter(|c| !held.is_some_and(|v| v.includes(&c.version)))
                .map(|c| c.stamp.millis().max(added_at));
            let being_written = object
                .writers
                .iter()
                .filter(|(writer, reg)| reg.value && **writer != brick)
                .map(|(_, reg)| reg.stamp.millis());
            // Without a version, and with no one who is writing the first one, it is as empty everywhere.
            match written.chain(being_written).min() {
                Some(since) => Some(Pending { brick, bytes: object.size(), since }),
                None if lacks_version => Some(Pending { brick, bytes: object.size(), since: 0 }),
                None => None,
            }
        })
        .collect()
}

/// The bricks that hold every version known, and at which, or elsewhere, no
/// program is about to make a newer one.
pub fn protected_at(object: &Object, brick: BrickId) -> bool {
    !pending(object).iter().any(|p| p.brick == brick)
}

/// The bricks from which the newest data can be had now: they hold the head version.
pub fn sources(object: &Object) -> Vec<BrickId> {
    object.head().map(|head| object.holders_of(&head.version).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{FileId, Incarnation};
    use crate::object::tests::{brick, entries};
    use crate::op::{Attr, Entry, Kind, Op, Place};
    use proptest::prelude::*;

    struct World {
        object: Object,
        seq: u64,
    }

    impl World {
        /// A file made at brick 1, to be held by bricks 1 and 2.
        fn new() -> Self {
            let mut world = World { object: Object::default(), seq: 0 };
            world.op(Op::Create {
                brick: brick(1),
                kind: Kind::File,
                attr: Attr::default(),
                place: Place { parent: FileId::ROOT, name: b"f".to_vec() },
                replicas: vec![brick(1), brick(2)],
            });
            world
        }

        fn op(&mut self, op: Op) {
            self.seq += 1;
            let entry = Entry {
                origin: Incarnation(1),
                seq: self.seq,
                time: self.seq << 16,
                file: FileId([1; 16]),
                op,
            };
            self.object.apply(&entry);
        }

        fn content(&mut self, n: u64, still_dirty: bool) {
            let version = VersionVector::from_iter([(Incarnation(1), n)]);
            self.op(Op::Content {
                brick: brick(1),
                version,
                size: 10,
                mtime_sec: 0,
                mtime_nsec: 0,
                still_dirty,
            });
        }

        fn have(&mut self, who: u8, n: u64) {
            let version = VersionVector::from_iter([(Incarnation(1), n)]);
            self.op(Op::Have { brick: brick(who), version, hash: [0; 32] });
        }

        fn who(&self) -> Vec<BrickId> {
            pending(&self.object).into_iter().map(|p| p.brick).collect()
        }
    }

    #[test]
    fn a_file_is_pending_from_its_creation_until_the_last_brick_has_it() {
        let mut world = World::new();
        assert_eq!(world.who(), [brick(2)]);
        world.content(1, false);
        assert_eq!(world.who(), [brick(2)]);
        world.have(2, 1);
        assert_eq!(world.who(), []);
        world.op(Op::Dirty { brick: brick(1) });
        assert_eq!(world.who(), [brick(2)]);
        world.op(Op::Clean { brick: brick(1) });
        assert_eq!(world.who(), []);
    }

    #[test]
    fn p01_a_snapshot_of_a_file_still_written_leaves_it_pending() {
        let mut world = World::new();
        world.content(1, true);
        world.have(2, 1);
        assert_eq!(world.who(), [brick(2)]);
        world.content(2, false);
        assert_eq!(world.who(), [brick(2)]);
        world.have(2, 2);
        assert_eq!(world.who(), []);
    }

    #[test]
    fn a_brick_outside_the_set_is_not_pending_and_one_added_is() {
        let mut world = World::new();
        world.content(1, false);
        world.have(2, 1);
        world.op(Op::Replicas(vec![brick(1), brick(2), brick(3)]));
        assert_eq!(world.who(), [brick(3)]);
        world.op(Op::Drop { brick: brick(2) });
        assert_eq!(world.who(), [brick(2), brick(3)]);
    }

    #[test]
    fn an_old_file_waits_for_a_brick_since_that_came_into_the_set() {
        let mut world = World::new();
        world.content(1, false);
        world.seq = 1000;
        world.op(Op::Replicas(vec![brick(1), brick(2), brick(3)]));
        let since: Vec<_> = pending(&world.object).into_iter().map(|p| (p.brick, p.since)).collect();
        assert_eq!(since, [(brick(2), 1001), (brick(3), 1001)]);
        world.have(2, 1);
        world.content(2, false);
        assert!(pending(&world.object).iter().all(|p| p.since == 1003));
    }

    proptest! {
        #[test]
        fn p01_nothing_pending_means_every_brick_of_the_set_has_every_version(list in entries()) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let missing = pending(&object);
            if object.live_links().next().is_some() {
                for who in object.replica_set() {
                    if !missing.iter().any(|p| p.brick == *who) {
                        for content in object.current() {
                            prop_assert!(object.holders_of(&content.version).any(|h| h == *who));
                        }
                        prop_assert!(object.writing().all(|w| w == *who));
                    }
                }
            }
        }

        #[test]
        fn having_all_versions_with_no_writer_clears_it(list in entries()) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let all = object.seen();
            if all.is_empty() {
                return Ok(());
            }
            let mut seq = 1000;
            let mut say = |object: &mut Object, op| {
                seq += 1;
                object.apply(&Entry { origin: Incarnation(5), seq, time: seq << 20, file: FileId([9; 16]), op });
            };
            for who in 0..3 {
                say(&mut object, Op::Clean { brick: brick(who) });
                say(&mut object, Op::Have { brick: brick(who), version: all.clone(), hash: [0; 32] });
            }
            prop_assert_eq!(pending(&object), vec![]);
        }
    }
}
