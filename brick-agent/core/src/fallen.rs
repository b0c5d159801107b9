//! Versions that no brick holds any more: the only one that had them lost them.
//!
//! A holder of an older version then says that one again, as a new version beside the lost one: so it is the newest that somebody
//! holds, and whoever turns out to have the lost one after all has a conflict, where both are kept.

use crate::id::BrickId;
use crate::object::Object;
use crate::version::{Relation, VersionVector};

/// What a brick does about an object whose newer versions are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// First says which version it holds: others do not know.
    SayHave,
    /// Says its version again, if no one with a lower rank has done so.
    SayAgain {
        /// How many bricks are to do so before.
        rank: usize,
    },
}

/// Whether nothing that is held includes this version, though it is not the newest.
fn is_fallen(object: &Object, have: &VersionVector) -> bool {
    let after = |v: &VersionVector| v.relation(have) == Relation::After;
    object.contents.iter().any(|c| after(&c.version))
        && !object.contents.iter().any(|c| c.version.includes(have) && object.is_held(&c.version))
        && !object.has_lost(have)
        // What who removed the file had seen does not come back, though the file did.
        && !object.is_removed(have)
}

/// Whether no brick says any more that it holds anything of it, though there were versions, and none is being written.
pub fn is_lost(object: &Object) -> bool {
    !object.contents.is_empty()
        && object.writing().next().is_none()
        && object.holders.values().all(|reg| reg.value.is_none())
}

/// What falls to `me`, which holds the complete version `have`.
pub fn step(object: &Object, me: BrickId, have: &VersionVector) -> Option<Step> {
    if object.live_links().next().is_none() || object.writing().next().is_some() || !is_fallen(object, have) {
        return None;
    }
    let held = |b: &BrickId| object.holders.get(b).and_then(|reg| reg.value.as_ref());
    if held(&me) != Some(have) {
        return Some(Step::SayHave);
    }
    let fallen =
        object.holders.values().filter_map(|reg| reg.value.as_ref()).filter(|v| is_fallen(object, v));
    if fallen.clone().any(|v| v.relation(have) == Relation::After) {
        return None;
    }
    let rank = object.holders.keys().filter(|b| **b < me && held(b) == Some(have)).count();
    Some(Step::SayAgain { rank })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{FileId, Incarnation};
    use crate::object::tests::{brick, entries};
    use crate::op::{Attr, Entry, Kind, Op, Place};
    use proptest::prelude::*;

    fn apply(object: &mut Object, origin: u64, seq: u64, op: Op) {
        object.apply(&Entry { origin: Incarnation(origin), seq, time: seq << 20, file: FileId([9; 16]), op });
    }

    fn content(who: u8, version: &VersionVector) -> Op {
        let version = version.clone();
        Op::Content { brick: brick(who), version, size: 3, mtime_sec: 0, mtime_nsec: 0, still_dirty: false }
    }

    #[test]
    fn t01_what_no_one_holds_any_more_gives_way_to_the_newest_that_somebody_holds() {
        let mut object = Object::default();
        let old = VersionVector::from_iter([(Incarnation(1), 1)]);
        let lost = old.bumped(Incarnation(1));
        let place = Place { parent: FileId::ROOT, name: b"f".to_vec() };
        let replicas = vec![brick(1), brick(2), brick(3)];
        let create = Op::Create { brick: brick(1), kind: Kind::File, attr: Attr::default(), place, replicas };
        apply(&mut object, 1, 1, create);
        apply(&mut object, 1, 2, content(1, &old));
        for who in [2, 3] {
            apply(
                &mut object,
                who,
                3,
                Op::Have { brick: brick(who as u8), version: old.clone(), hash: [1; 32] },
            );
        }
        apply(&mut object, 1, 4, content(1, &lost));
        assert_eq!(step(&object, brick(2), &old), None, "its maker has it");
        // The maker comes back after a power cut, and says that it has neither.
        apply(&mut object, 10, 5, Op::Drop { brick: brick(1) });
        assert_eq!(object.head().map(|c| &c.version), Some(&lost), "it is waited for");
        assert_eq!(step(&object, brick(2), &old), Some(Step::SayAgain { rank: 0 }));
        assert_eq!(step(&object, brick(3), &old), Some(Step::SayAgain { rank: 1 }));
        assert_eq!(step(&object, brick(1), &old), Some(Step::SayHave));
        let again = old.bumped(Incarnation(2));
        apply(&mut object, 2, 6, content(2, &again));
        assert_eq!(object.head().map(|c| &c.version), Some(&again));
        assert!(!object.in_conflict());
        assert_eq!(step(&object, brick(3), &old), None);
        assert_eq!(object.standing_of(&old), Some(Relation::Before));
        // Someone had it after all: both are kept.
        apply(&mut object, 3, 7, Op::Have { brick: brick(3), version: lost.clone(), hash: [2; 32] });
        assert!(object.in_conflict());
    }

    proptest! {
        #[test]
        fn saying_it_again_ends_the_waiting_and_includes_nothing_lost(list in entries(), me in 0u8..3) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let have = object.holders.get(&brick(me)).and_then(|reg| reg.value.clone());
            if let Some(have) = have
                && let Some(Step::SayAgain { .. }) = step(&object, brick(me), &have)
            {
                let again = have.bumped(Incarnation(77));
                prop_assert!(!object.contents.iter().any(|c| again.includes(&c.version)));
                apply(&mut object, 77, 1 << 30, content(me, &again));
                prop_assert!(object.current().any(|c| c.version == again));
                prop_assert_eq!(step(&object, brick(me), &again), None);
            }
        }
    }
}
