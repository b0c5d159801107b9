//! Which version of a file in conflict keeps the name, and who sees to the other.
//!
//! Both versions live on: one keeps the file's name, the other becomes a file
//! beside it. The winner is the greatest by a fixed order of the vectors, never by a
//! clock, so that all members choose alike whatever they heard first. The
//! loser's writer makes the other file; where it no longer holds that version, the
//! holder with the smallest id does.

use crate::id::{BrickId, FileId};
use crate::object::{Content, Object};
use crate::tree::tag;

/// A version that lost at this brick's own hands: to be kept under another name.
pub fn to_keep(object: &Object, me: BrickId) -> Option<&Content> {
    if !object.in_conflict() {
        return None;
    }
    let winner = object.head()?;
    object.current().filter(|c| c.version != winner.version).find(|c| keeper(object, c) == Some(me))
}

/// The brick that keeps a loser.
fn keeper(object: &Object, loser: &Content) -> Option<BrickId> {
    let holds = |brick: &BrickId| {
        object.holders.get(brick).and_then(|reg| reg.value.as_ref()) == Some(&loser.version)
    };
    Some(loser.writer).filter(holds).or_else(|| object.holders.keys().find(|b| holds(b)).copied())
}

/// The file that a loser becomes: the same whoever makes it, so that it is made once.
pub fn kept_as(file: FileId, loser: &Content) -> FileId {
    let mut hasher = blake3::Hasher::new_derive_key("nearbrick.io 2026 kept loser of a conflict");
    hasher.update(&file.0);
    for (writer, count) in loser.version.iter() {
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
    use crate::object::tests::{brick, entries};
    use crate::op::{Entry, Op};
    use crate::{Incarnation, VersionVector};
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
        assert_eq!(to_keep(&object, brick(w)), None);
        let loser = to_keep(&object, brick(l)).unwrap().clone();
        assert_ne!(kept_as(FileId([9; 16]), &loser), FileId([9; 16]));
        object.apply(&resolve(3, 1, &loser.version));
        assert!(!object.in_conflict());
        assert_eq!(object.head(), Some(&winner));
        assert_eq!(object.standing_of(&loser.version), Some(crate::Relation::Before));
        // Members that did not know better may both have lost: one stays.
        object.apply(&resolve(4, 1, &winner.version));
        assert_eq!(object.head(), Some(&winner));
        assert!(!object.in_conflict());
    }

    proptest! {
        #[test]
        fn every_loser_that_is_held_has_one_keeper(list in entries()) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let head = object.head().map(|h| h.version.clone());
            for c in object.current().filter(|c| Some(&c.version) != head.as_ref()) {
                let held = object.holders.values().any(|r| r.value.as_ref() == Some(&c.version));
                prop_assert_eq!(keeper(&object, c).is_some(), held);
            }
        }

        #[test]
        fn keeping_losers_ends_the_conflict(list in entries()) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let head = object.head().cloned();
            let losers: Vec<_> = object.current().filter(|c| Some(*c) != head.as_ref()).cloned().collect();
            for (n, l) in losers.iter().enumerate() {
                object.apply(&resolve(9, n as u64 + 1, &l.version));
            }
            prop_assert!(!object.in_conflict());
            prop_assert_eq!(object.head().cloned(), head);
        }
    }
}
