//! Which version of a file in conflict keeps the name, what becomes of the others, and who sees to that.
//!
//! A [`Policy`] chooses the winner from the object's state alone, so all members that follow the same policy choose
//! alike, whatever they heard first; times have a say only where the policy asks for them. What a member has decided is said in the
//! journal ([`Op::Resolve`](crate::Op::Resolve)), so members also agree while they do not follow the same policy
//! yet. A loser's bytes are kept by its writer, or, where that one no longer holds the version, by the holder with
//! the smallest id: as a file beside the winner, or aside, out of the tree.

use serde::{Deserialize, Serialize};

use crate::id::{BrickId, FileId};
use crate::object::{Content, Object};
use crate::tree::tag;
use crate::version::VersionVector;

/// What happens to versions of which neither includes the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// The greatest by a fixed order of the vectors keeps the name, the others become files beside it.
    #[default]
    KeepBoth,
    /// The one with the latest modification time wins.
    Newest,
    /// The longest one wins.
    Largest,
    /// The one that was written at this brick wins; where none was, as with `KeepBoth`.
    Brick(BrickId),
    /// A person decides. Until then each brick shows the version that it has.
    Manual,
}

/// What becomes of a loser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A file of its own beside the winner.
    Beside,
    /// It is kept out of the tree, for as long as losers are kept.
    Aside,
}

/// A version that lost, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost<'a> {
    /// The loser.
    pub loser: &'a Content,
    /// What won.
    pub winner: &'a Content,
    /// What becomes of the loser.
    pub fate: Fate,
}

impl Policy {
    /// The version that keeps the name. None if the file has no version, or a person is to decide.
    pub fn winner<'a>(&self, object: &'a Object) -> Option<&'a Content> {
        match self {
            Policy::Manual if object.in_conflict() => None,
            _ => self.ranked(object).pop(),
        }
    }

    /// The versions that count, the winner last. One that stands before another defers to it if their bytes are
    /// equal.
    fn ranked<'a>(&self, object: &'a Object) -> Vec<&'a Content> {
        // By the vectors: what is left to decide a tie, after the brick.
        let mut list: Vec<_> = object.current().collect();
        match *self {
            Policy::KeepBoth | Policy::Manual => {}
            Policy::Newest => list.sort_by_key(|c| (c.mtime, c.writer)),
            Policy::Largest => list.sort_by_key(|c| (c.size, c.writer)),
            Policy::Brick(brick) => list.sort_by_key(|c| c.writer == brick),
        }
        list
    }

    fn fate(&self, winner: &Content) -> Fate {
        match self {
            Policy::Newest | Policy::Largest => Fate::Aside,
            Policy::Brick(brick) if winner.writer == *brick => Fate::Aside,
            Policy::KeepBoth | Policy::Brick(_) | Policy::Manual => Fate::Beside,
        }
    }
}

/// A version that lost, and that it falls to this brick to keep. Bricks that are away, as far as is known here, are not
/// waited for where another holds it too.
pub fn to_keep<'a>(
    object: &'a Object,
    me: BrickId,
    policy: &Policy,
    is_away: &dyn Fn(BrickId) -> bool,
) -> Option<Lost<'a>> {
    if !object.in_conflict() {
        return None;
    }
    let winner = policy.winner(object)?;
    let loser = object.current().filter(|c| c.version != winner.version);
    let loser = loser.filter(|c| keeper(object, c, is_away) == Some(me)).last()?;
    Some(Lost { loser, winner, fate: policy.fate(winner) })
}

/// The versions to which this loser defers if the bytes are the same, the winner first: of equal losers one is kept.
pub fn defers_to<'a>(object: &'a Object, loser: &Content, policy: &Policy) -> Vec<&'a Content> {
    let ranked = policy.ranked(object);
    let better = ranked.into_iter().rev().take_while(|c| c.version != loser.version);
    better.filter(|c| c.size == loser.size).collect()
}

/// The brick that keeps a loser.
fn keeper(object: &Object, loser: &Content, is_away: &dyn Fn(BrickId) -> bool) -> Option<BrickId> {
    let holds = |brick: &BrickId| {
        object.holders.get(brick).and_then(|reg| reg.value.as_ref()) == Some(&loser.version)
    };
    let all = || [loser.writer].into_iter().chain(object.holders.keys().copied()).filter(holds);
    all().find(|brick| !is_away(*brick)).or_else(|| all().next())
}

/// The file that a loser becomes: the same whoever makes it, so that it is made once.
pub fn kept_as(file: FileId, loser: &VersionVector) -> FileId {
    let mut hasher = blake3::Hasher::new_derive_key("nearbrick.io 2026 kept loser of a conflict");
    hasher.update(&file.0);
    for (writer, count) in loser.iter() {
        hasher.update(&writer.0.to_be_bytes());
        hasher.update(&count.to_be_bytes());
    }
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    FileId(id)
}

/// Who wrote it and when, as a person reads it in the name: `ws-a, 2026-11-23 12.05.09`.
pub fn tag_of(writer: &str, loser: &Content) -> String {
    tag(writer, loser.stamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;
    use crate::object::tests::{brick, entries};
    use crate::op::{Entry, Op};
    use proptest::prelude::*;

    fn content(origin: u64, seq: u64, who: u8, version: VersionVector) -> Entry {
        let op = Op::Content {
            brick: brick(who),
            version,
            size: 3,
            mtime_sec: 0,
            mtime_nsec: 0,
            still_dirty: false,
        };
        Entry { origin: Incarnation(origin), seq, time: seq << 20, file: FileId([9; 16]), op }
    }

    /// Nobody is away.
    fn here(_: BrickId) -> bool {
        false
    }

    fn resolve(origin: u64, seq: u64, loser: &VersionVector) -> Entry {
        let op = Op::Resolve { loser: loser.clone(), kept: None };
        Entry { origin: Incarnation(origin), seq, time: seq << 20, file: FileId([9; 16]), op }
    }

    #[test]
    fn t08_one_brick_keeps_the_loser_and_then_all_agree() {
        let base = VersionVector::from_iter([(Incarnation(1), 1)]);
        let (a, b) = (base.bumped(Incarnation(1)), base.bumped(Incarnation(2)));
        let mut object = Object::default();
        object.apply(&content(1, 1, 1, a.clone()));
        object.apply(&content(2, 1, 2, b.clone()));
        assert!(object.in_conflict());
        let winner = object.head().unwrap().clone();
        let (w, l) = if winner.version == a { (1, 2) } else { (2, 1) };
        assert_eq!(to_keep(&object, brick(w), &Policy::KeepBoth, &here), None);
        let lost = to_keep(&object, brick(l), &Policy::KeepBoth, &here).unwrap();
        assert_eq!((lost.winner, lost.fate), (&winner, Fate::Beside));
        let loser = lost.loser.clone();
        assert_ne!(kept_as(FileId([9; 16]), &loser.version), FileId([9; 16]));
        object.apply(&resolve(3, 1, &loser.version));
        assert!(!object.in_conflict());
        assert_eq!(object.head(), Some(&winner));
        assert_eq!(object.standing_of(&loser.version), Some(crate::Relation::Before));
        // Members that did not know better may both have lost: one stays.
        object.apply(&resolve(4, 1, &winner.version));
        assert_eq!(object.head(), Some(&winner));
        assert!(!object.in_conflict());
    }

    /// Written at bricks 1, 2 and 3, apart: (size, modification time) of each.
    fn apart(written: [(u64, i64); 3]) -> Object {
        let mut object = Object::default();
        for (n, (size, mtime_sec)) in (1..).zip(written) {
            let op = Op::Content {
                brick: brick(n),
                version: VersionVector::from_iter([(Incarnation(u64::from(n)), 1)]),
                size,
                mtime_sec,
                mtime_nsec: 0,
                still_dirty: false,
            };
            // The clock of the first is far ahead: it has no say.
            let time = (10 - u64::from(n)) << 40;
            object.apply(&Entry { origin: Incarnation(n.into()), seq: 1, time, file: FileId([9; 16]), op });
        }
        object
    }

    #[test]
    fn t15_each_policy_has_its_winner_and_ties_go_by_the_brick() {
        let winner = |policy: Policy, written| policy.winner(&apart(written)).map(|c| c.writer);
        let written = [(30, -5), (20, 8), (10, 7)];
        assert_eq!(winner(Policy::Newest, written), Some(brick(2)));
        assert_eq!(winner(Policy::Largest, written), Some(brick(1)));
        for n in 1..=3 {
            assert_eq!(winner(Policy::Brick(brick(n)), written), Some(brick(n)));
        }
        assert_eq!(winner(Policy::Brick(brick(9)), written), winner(Policy::KeepBoth, written));
        assert_eq!(winner(Policy::Manual, written), None);
        let alike = [(5, 1), (5, 1), (4, 0)];
        assert_eq!(winner(Policy::Newest, alike), Some(brick(2)));
        assert_eq!(winner(Policy::Largest, alike), Some(brick(2)));
    }

    #[test]
    fn losers_stay_in_the_tree_only_where_the_policy_keeps_both() {
        let object = apart([(30, 5), (20, 8), (10, 7)]);
        let fate = |policy: Policy| {
            let me = (1..=3).map(brick).find(|b| policy.winner(&object).is_some_and(|w| w.writer != *b));
            to_keep(&object, me.unwrap_or(brick(1)), &policy, &here).map(|lost| lost.fate)
        };
        assert_eq!(fate(Policy::KeepBoth), Some(Fate::Beside));
        assert_eq!(fate(Policy::Newest), Some(Fate::Aside));
        assert_eq!(fate(Policy::Largest), Some(Fate::Aside));
        assert_eq!(fate(Policy::Brick(brick(3))), Some(Fate::Aside));
        assert_eq!(
            fate(Policy::Brick(brick(9))),
            Some(Fate::Beside),
            "no one wrote there: nothing is hidden"
        );
        assert_eq!(fate(Policy::Manual), None);
    }

    #[test]
    fn a_holder_that_is_there_keeps_the_loser_of_a_writer_that_is_away() {
        let mut object = apart([(30, 5), (20, 8), (10, 7)]);
        let loser = object.contents.iter().find(|c| c.writer == brick(3)).unwrap().clone();
        let have = Op::Have { brick: brick(4), version: loser.version.clone(), hash: [0; 32] };
        object.apply(&Entry {
            origin: Incarnation(4),
            seq: 1,
            time: 1 << 20,
            file: FileId([9; 16]),
            op: have,
        });
        let keeps = |who: u8, is_away: &dyn Fn(BrickId) -> bool| {
            to_keep(&object, brick(who), &Policy::Largest, is_away).map(|lost| lost.loser.clone())
        };
        assert_eq!((keeps(3, &here), keeps(4, &here)), (Some(loser.clone()), None));
        let away = |b: BrickId| b == brick(3);
        assert_eq!((keeps(3, &away), keeps(4, &away)), (None, Some(loser)));
    }

    #[test]
    fn of_equal_losers_all_but_one_defer() {
        let object = apart([(5, 1), (5, 2), (5, 3)]);
        let defers = |n: u8| {
            let loser = object.contents.iter().find(|c| c.writer == brick(n)).unwrap();
            defers_to(&object, loser, &Policy::Newest).iter().map(|c| c.writer).collect::<Vec<_>>()
        };
        assert_eq!(defers(3), []);
        assert_eq!(defers(2), [brick(3)]);
        assert_eq!(defers(1), [brick(3), brick(2)]);
    }

    fn policies() -> impl Strategy<Value = Policy> {
        prop_oneof![
            Just(Policy::KeepBoth),
            Just(Policy::Newest),
            Just(Policy::Largest),
            (0u8..4).prop_map(|n| Policy::Brick(brick(n))),
        ]
    }

    proptest! {
        #[test]
        fn every_loser_that_is_held_has_one_keeper(list in entries()) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let head = object.head().map(|h| h.version.clone());
            for c in object.current().filter(|c| Some(&c.version) != head.as_ref()) {
                let held = object.holders.values().any(|r| r.value.as_ref() == Some(&c.version));
                prop_assert_eq!(keeper(&object, c, &here).is_some(), held);
                prop_assert_eq!(keeper(&object, c, &|_| true), keeper(&object, c, &here));
            }
        }

        #[test]
        fn keeping_losers_ends_the_conflict(list in entries(), policy in policies(), mix in any::<u64>()) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let all_lost = object.contents.iter().all(|c| object.losers.contains(&c.version));
            let winner = policy.winner(&object).cloned();
            let mut losers: Vec<_> =
                object.current().filter(|c| Some(*c) != winner.as_ref()).cloned().collect();
            // Whichever loser is kept first, the winner stays the same.
            let by = usize::try_from(mix % 7).expect("small").min(losers.len());
            losers.rotate_left(by);
            for (n, l) in losers.iter().enumerate() {
                prop_assert_eq!(policy.winner(&object).cloned(), winner.clone());
                object.apply(&resolve(9, n as u64 + 1, &l.version));
            }
            prop_assert!(!object.in_conflict());
            prop_assert!(all_lost || object.head().cloned() == winner);
        }

        #[test]
        fn any_order_gives_one_winner(list in entries(), policy in policies()) {
            let of = |order: &mut dyn Iterator<Item = &Entry>| {
                let mut object = Object::default();
                order.for_each(|e| object.apply(e));
                policy.winner(&object).cloned()
            };
            prop_assert_eq!(of(&mut list.iter()), of(&mut list.iter().rev()));
        }
    }
}
