//! What a look at the bytes of a settled file shows, and what is done about it.
//!
//! The inode tells a change from damage: whoever writes a file moves its times, and a disk that loses or turns bits does
//! not. The hash that members know of a version tells whether the bytes are that version's.
//!
//! Invariants: bytes whose inode nobody touched are never an edit, so that damage never replaces good bytes elsewhere. What
//! somebody changed past the mount is never set aside. A copy is given up only where another brick is known to hold
//! the version, or what came in its place, and its bytes are kept even then.

use crate::id::BrickId;
use crate::object::Object;
use crate::op::Op;
use crate::version::{Relation, VersionVector};

/// The bytes of a file, as far as they were read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bytes {
    /// Nobody has looked yet.
    NotRead,
    /// BLAKE3 of all of them.
    Read([u8; 32]),
    /// The disk does not give all of them.
    Unreadable,
}

/// What is found of a file that is whole and settled by the index.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// By the index: the version here.
    pub have: &'a VersionVector,
    /// It is the same inode, with the same times of its bytes and of itself, as the index has them.
    pub untouched: bool,
    /// It has as many bytes.
    pub same_size: bool,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Read the bytes, and ask again.
    Read,
    /// They are the version's.
    Right,
    /// They are here, and nobody has said the version's hash: this is it.
    SayHash,
    /// They are here, and of this version no hash is known that they could be compared with.
    Unproven,
    /// They are the version's, and only the inode was changed.
    Touched,
    /// Somebody changed them past the mount: an edit like any other.
    Edit,
    /// A damaged copy: it is kept for people, and a whole one brought.
    SetAside,
    /// The same, and no other brick is known to hold that version: what is here stays.
    OnlyCopy,
}

/// What `me` makes of the bytes of a file.
pub fn judge(object: &Object, me: BrickId, found: &Found<'_>) -> Verdict {
    let known = hash_of(object, found.have);
    if found.untouched {
        return match found.bytes {
            _ if !found.same_size => damaged(object, me, found.have),
            Bytes::NotRead => Verdict::Read,
            Bytes::Unreadable => damaged(object, me, found.have),
            Bytes::Read(hash) => match known {
                Some(known) if known == hash => Verdict::Right,
                Some(_) => damaged(object, me, found.have),
                None if object.would_keep_hash(found.have) => Verdict::SayHash,
                None => Verdict::Unproven,
            },
        };
    }
    match (known, found.bytes) {
        (Some(_), Bytes::NotRead) if found.same_size => Verdict::Read,
        (Some(known), Bytes::Read(hash)) if known == hash => Verdict::Touched,
        // Nobody can say what somebody wrote there.
        (_, Bytes::Unreadable) => Verdict::OnlyCopy,
        _ => Verdict::Edit,
    }
}

fn damaged(object: &Object, me: BrickId, have: &VersionVector) -> Verdict {
    // One that lost a conflict is an older one, too: it is kept elsewhere.
    let replaced = object.standing_of(have) == Some(Relation::Before);
    let newest = object.head().filter(|_| replaced).map(|head| &head.version);
    match [Some(have), newest].into_iter().flatten().any(|v| object.holders_of(v).any(|b| b != me)) {
        true => Verdict::SetAside,
        false => Verdict::OnlyCopy,
    }
}

/// The hash of this version, if members know it.
pub fn hash_of(object: &Object, version: &VersionVector) -> Option<[u8; 32]> {
    object.hashes.get(version).map(|said| said.1)
}

/// The version whose hash is not known before this operation of another brick, and is after it.
pub fn first_hash<'a>(object: &Object, me: BrickId, op: &'a Op) -> Option<&'a VersionVector> {
    let Op::Have { brick, version, .. } = op else { return None };
    let is_new = *brick != me && hash_of(object, version).is_none() && object.would_keep_hash(version);
    is_new.then_some(version)
}

/// The same for the versions of a state that is merged into `ours`.
pub fn first_hashes<'a>(ours: &Object, theirs: &'a Object) -> impl Iterator<Item = &'a VersionVector> {
    theirs.hashes.keys().filter(|version| hash_of(ours, version).is_none())
}

/// The version of which two bricks say different hashes, if this operation shows that.
pub fn disagreement<'a>(object: &Object, op: &'a Op) -> Option<&'a VersionVector> {
    let Op::Have { version, hash, .. } = op else { return None };
    hash_of(object, version).is_some_and(|known| known != *hash).then_some(version)
}

/// The same for what another member has of the object.
pub fn disagreement_of<'a>(ours: &Object, theirs: &'a Object) -> Option<&'a VersionVector> {
    let differs = |version: &VersionVector, hash| hash_of(ours, version).is_some_and(|known| known != hash);
    theirs.hashes.iter().find(|(version, said)| differs(version, said.1)).map(|(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{FileId, Incarnation};
    use crate::object::tests::brick;
    use crate::op::Entry;
    use proptest::prelude::*;

    const ME: u8 = 1;
    const PEER: u8 = 2;

    /// Version `n` of a line of versions; 0 is none.
    fn v(n: u64) -> VersionVector {
        VersionVector::from_iter([(Incarnation(1), n)])
    }

    fn hash(n: u64) -> [u8; 32] {
        [n as u8; 32]
    }

    fn object(ops: Vec<Op>) -> Object {
        let mut object = Object::default();
        for (seq, op) in (1..).zip(ops) {
            object.apply(&Entry { origin: Incarnation(1), seq, time: seq << 20, file: FileId([9; 16]), op });
        }
        object
    }

    fn content(n: u64) -> Op {
        let version = v(n);
        Op::Content { brick: brick(ME), version, size: 10, mtime_sec: 0, mtime_nsec: 0, still_dirty: false }
    }

    fn have(who: u8, n: u64) -> Op {
        Op::Have { brick: brick(who), version: v(n), hash: hash(n) }
    }

    fn verdict(object: &Object, have: u64, untouched: bool, same_size: bool, bytes: Bytes) -> Verdict {
        judge(object, brick(ME), &Found { have: &v(have), untouched, same_size, bytes })
    }

    #[test]
    fn t25_what_is_found_in_the_brick() {
        let alone = object(vec![content(2)]);
        let told = object(vec![content(2), have(ME, 2)]);
        let shared = object(vec![content(2), have(PEER, 2)]);
        let (right, wrong) = (Bytes::Read(hash(2)), Bytes::Read(hash(7)));
        for (object, untouched, same_size, bytes, wanted) in [
            // As it was.
            (&shared, true, true, Bytes::NotRead, Verdict::Read),
            (&shared, true, true, right, Verdict::Right),
            (&alone, true, true, right, Verdict::SayHash),
            (&told, true, true, right, Verdict::Right),
            // Damage moves no time.
            (&shared, true, true, wrong, Verdict::SetAside),
            (&shared, true, true, Bytes::Unreadable, Verdict::SetAside),
            (&shared, true, false, Bytes::NotRead, Verdict::SetAside),
            (&told, true, true, wrong, Verdict::OnlyCopy),
            (&alone, true, true, Bytes::Unreadable, Verdict::OnlyCopy),
            // Whoever writes does.
            (&shared, false, true, Bytes::NotRead, Verdict::Read),
            (&shared, false, true, wrong, Verdict::Edit),
            (&shared, false, false, Bytes::NotRead, Verdict::Edit),
            (&alone, false, true, Bytes::NotRead, Verdict::Edit),
            (&shared, false, true, right, Verdict::Touched),
            (&shared, false, true, Bytes::Unreadable, Verdict::OnlyCopy),
        ] {
            let is = verdict(object, 2, untouched, same_size, bytes);
            assert_eq!(is, wanted, "{untouched} {same_size} {bytes:?}");
        }
        // Of an older version than the one whose hash is known nothing can be said.
        assert_eq!(verdict(&shared, 1, true, true, right), Verdict::Unproven);
        // A holder of what came after it has it no more; but a whole copy of that can be had.
        assert_eq!(verdict(&shared, 1, true, true, Bytes::Unreadable), Verdict::SetAside);
    }

    #[test]
    fn a_hash_that_is_heard_first_is_noticed() {
        let other = |who, n| Op::Have { brick: brick(who), version: v(n), hash: hash(n) };
        let (none, two) = (object(vec![content(2)]), object(vec![content(2), other(3, 2)]));
        assert_eq!(first_hash(&none, brick(ME), &other(3, 2)), Some(&v(2)));
        assert_eq!(first_hash(&none, brick(ME), &other(ME, 2)), None);
        assert_eq!(first_hash(&two, brick(ME), &other(4, 2)), None);
        // It is not kept.
        assert_eq!(first_hash(&two, brick(ME), &other(3, 1)), None);
        assert_eq!(first_hashes(&none, &two).collect::<Vec<_>>(), [&v(2)]);
        assert_eq!(first_hashes(&two, &two).count(), 0);
    }

    #[test]
    fn bricks_that_say_different_hashes_of_one_version_are_noticed() {
        let shared = object(vec![content(2), have(PEER, 2)]);
        let other = |n, hash| Op::Have { brick: brick(3), version: v(n), hash };
        assert_eq!(disagreement(&shared, &other(2, hash(2))), None);
        assert_eq!(disagreement(&shared, &other(3, hash(3))), None);
        assert_eq!(disagreement(&shared, &other(2, hash(9))), Some(&v(2)));
        assert_eq!(disagreement(&shared, &content(2)), None);
        let [same, differs] = [2, 9].map(|n| object(vec![content(2), other(2, hash(n))]));
        assert_eq!(disagreement_of(&shared, &same), None);
        assert_eq!(disagreement_of(&shared, &differs), Some(&v(2)));
    }

    fn objects() -> impl Strategy<Value = Object> {
        let holders = prop::collection::vec((1u8..4, 1u64..4), 0..4);
        (1u64..4, holders).prop_map(|(last, holders)| {
            let contents = (1..=last).map(content);
            object(contents.chain(holders.into_iter().map(|(who, n)| have(who, n))).collect())
        })
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop_oneof![
            Just(Bytes::NotRead),
            Just(Bytes::Unreadable),
            (0u64..5).prop_map(|n| Bytes::Read(hash(n))),
        ]
    }

    proptest! {
        #[test]
        fn t25_damage_is_no_edit_and_an_edit_is_never_set_aside(
            object in objects(), have in 1u64..4, untouched in any::<bool>(), same_size in any::<bool>(), bytes in bytes()
        ) {
            let is = verdict(&object, have, untouched, same_size, bytes);
            prop_assert!(is != Verdict::Edit || !untouched);
            prop_assert!(is != Verdict::SetAside || untouched);
            let elsewhere = object.holders_of(&v(have)).any(|b| b != brick(ME));
            prop_assert!(is != Verdict::SetAside || elsewhere);
            // Nothing passes for right without the hash that is known.
            if matches!(is, Verdict::Right | Verdict::Touched) {
                prop_assert!(same_size || !untouched);
                prop_assert_eq!(Bytes::Read(hash_of(&object, &v(have)).unwrap()), bytes);
            }
            // Nor does a known hash go by without being asked about.
            if let (Bytes::Read(read), Some(known)) = (bytes, hash_of(&object, &v(have))) {
                prop_assert!(read == known || ![Verdict::SayHash, Verdict::Unproven].contains(&is));
            }
        }

        #[test]
        fn the_bytes_are_read_once(
            object in objects(), have in 1u64..4, untouched in any::<bool>(), same_size in any::<bool>(), bytes in bytes()
        ) {
            let is = verdict(&object, have, untouched, same_size, bytes);
            prop_assert!(is != Verdict::Read || bytes == Bytes::NotRead);
        }

        #[test]
        fn a_hash_that_is_said_is_known_from_then_on(object in objects(), n in 1u64..4) {
            if verdict(&object, n, true, true, Bytes::Read(hash(n))) == Verdict::SayHash {
                let mut told = object.clone();
                told.apply(&Entry {
                    origin: Incarnation(5), seq: 1, time: 99 << 20, file: FileId([9; 16]), op: have(ME, n),
                });
                prop_assert_eq!(verdict(&told, n, true, true, Bytes::Read(hash(n))), Verdict::Right);
            }
        }
    }
}
