//! What is made of a file's bytes after an end without notice.
//!
//! The index says which version the bytes were, the file's mark which version it was given, and the inode how it looks.
//! After a power cut any of them may be older than the others, and none says what became of bytes that were not
//! synced. So two things count as proof: that a version had been synced, as the index noted after that, and
//! that the hash is the one that was told of it.
//!
//! Invariants: no edit is based on a version of which it is not proven that its bytes were here, so that a wrong
//! guess makes a conflict, where both are kept, and never replaces good bytes elsewhere. What no other brick holds
//! is never set aside. While the machine went on, no write of a program is.

use crate::id::{BrickId, Incarnation};
use crate::object::{Content, Object};
use crate::scrub::{Bytes, hash_of};
use crate::version::{Relation, VersionVector};

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The agent died; what it and programs had written is there.
    Killed,
    /// The machine went down: of what was not synced anything may be lost, here and in the index.
    PowerLost,
    /// The index was lost; what programs and the agent had written is there.
    IndexLost,
    /// The index was lost, and the machine may have gone down too: of what was not synced anything may be lost.
    BothLost,
    /// Nothing ended: it was found while the volume is in use, and no bytes are read for it.
    Running,
}

impl End {
    /// Whether bytes that were not synced may be lost.
    pub fn lost_power(self) -> bool {
        matches!(self, End::PowerLost | End::BothLost)
    }

    /// Whether there is an index that says what was here.
    pub fn has_index(self) -> bool {
        !matches!(self, End::IndexLost | End::BothLost)
    }
}

/// What is found of a file.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// By the index: the complete version here; none for a stub.
    pub have: Option<&'a VersionVector>,
    /// By the index: programs were changing it.
    pub dirty: bool,
    /// By the index: what the bytes were based on while they were dirty.
    pub base: &'a VersionVector,
    /// By the index: the version from which the bytes on the disk descend for certain, since it was
    /// synced; empty for a file made here, none for a stub.
    pub synced: Option<&'a VersionVector>,
    /// By the index: some bytes of a stub are here.
    pub filled: bool,
    /// By its mark: the version of the bytes.
    pub marked: Option<&'a VersionVector>,
    /// By its mark: it was made here and has no version yet, and is no stub.
    pub made_here: bool,
    /// By its mark: a stub.
    pub stub: bool,
    /// The inode is as the index has it.
    pub looks_same: bool,
    /// The inode was changed later than its bytes, as when it was marked.
    pub marked_last: bool,
    /// Bytes.
    pub size: u64,
    /// The disk has no bytes of it: all of it, if anything, is a hole.
    pub hollow: bool,
    /// Its bytes, as far as they were read for a hash that is known.
    pub bytes: Bytes,
}

/// What is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Look whether the bytes have a hash that is known, and ask again.
    Hash,
    /// It is as the index says.
    Keep,
    /// The bytes are what the index says, and only the inode changed.
    RefreshPrint,
    /// The bytes are this version, though the index does not know that they are here.
    Holds(VersionVector),
    /// An edit, based on this version.
    Edit(VersionVector),
    /// A damaged copy: it is kept for people, and a whole one brought.
    SetAside,
    /// A stub of which nothing is here.
    Lacking,
}

impl<'a> Found<'a> {
    /// The versions that the bytes may be.
    fn candidates(&self) -> impl Iterator<Item = &'a VersionVector> {
        self.have.into_iter().chain(self.marked).chain(self.dirty.then_some(self.base))
    }
}

/// The version that the bytes are by their hash, if that can be told.
enum Proof<'a> {
    NotLooked,
    Is(&'a VersionVector),
    None,
}

fn proof<'a>(object: &Object, found: &Found<'a>) -> Proof<'a> {
    let mut known = found.candidates().filter_map(|version| Some((version, hash_of(object, version)?)));
    match found.bytes {
        Bytes::NotRead if known.next().is_some() => Proof::NotLooked,
        Bytes::Read(hash) => {
            known.find(|(_, of)| *of == hash).map_or(Proof::None, |(version, _)| Proof::Is(version))
        }
        Bytes::NotRead | Bytes::Unreadable => Proof::None,
    }
}

/// Whether what is left of a copy of this version, of which the index of `me` did not know any more after a power cut, gives way to a
/// whole one. Nobody wrote to it here, and nothing proves that it is whole: so it is no side of a conflict with the version that it
/// is a copy of, or with what came in its place. What no other brick is known to hold stays.
pub fn remains_give_way(object: &Object, me: BrickId, copy_of: &VersionVector) -> bool {
    !copy_of.is_empty() && object.holders_of(copy_of).any(|brick| brick != me)
}

/// The same for remains that are known not to be all of the copy: they give way to whatever another brick holds of the file, even though it
/// lacks what that copy had, as nobody has that any more; and as soon as the version is known: better none of it than half.
/// `ours`: the version that they have become, if they have.
pub fn torn_remains_give_way(
    object: &Object,
    me: BrickId,
    copy_of: &VersionVector,
    ours: Option<&VersionVector>,
) -> bool {
    let is_ours = |version: &VersionVector| ours.is_some_and(|ours| ours.includes(version));
    let is_held = |version: &VersionVector| object.holders_of(version).any(|brick| brick != me);
    ours.is_none() && object.knows(copy_of)
        || object.current().any(|c| !is_ours(&c.version) && is_held(&c.version))
}

/// Whether such remains are still neither whole nor a version of their own: nobody who was heard knows the version, and not all others were
/// heard, of whom one may hold it.
pub fn remains_wait(object: &Object, copy_of: &VersionVector, all_heard: bool) -> bool {
    !all_heard && !object.knows(copy_of)
}

/// Bytes that were found after a power cut and taken for an edit, as nothing proves which version they are. Nobody has written to them since.
#[derive(Clone, Copy, Debug)]
pub struct Unproven<'a> {
    /// What the edit is based on.
    pub base: &'a VersionVector,
    /// By the mark that was found: the version that it was.
    pub marked: Option<&'a VersionVector>,
    /// The inode was changed later than its bytes, as when it was marked.
    pub marked_last: bool,
    /// When the inode was changed last, in milliseconds since 1970.
    pub changed_ms: u64,
}

/// The version that a former life of `me` had made of the file before the power was cut, if it is another than those that the found
/// bytes are based on, another brick is known to hold it, or what came in its place, and nothing tells that a program wrote
/// here after that. The index kept nothing of it, so no program had anything synced since: then it is what these bytes were, or were to be,
/// and no side of a conflict with them.
///
/// Source: as `fsync` makes the whole journal durable, a version that was lost from it is later than all that was synced.
pub fn former_version<'a>(
    object: &'a Object,
    me: BrickId,
    is_former: impl Fn(Incarnation) -> bool,
    found: &Unproven<'_>,
) -> Option<&'a Content> {
    let is_ours = |version: &VersionVector| {
        version.iter().any(|(life, n)| is_former(life) && n > found.base.get(life))
            && version.includes(found.base)
    };
    let is_written_later = |content: &Content| {
        let was_it = found.marked.is_some_and(|marked| content.version.includes(marked));
        !(was_it && found.marked_last) && found.changed_ms >= content.stamp.millis()
    };
    let current: Vec<_> = object.current().collect();
    current.into_iter().rev().find(|content| {
        is_ours(&content.version)
            && object.holders_of(&content.version).any(|brick| brick != me)
            && !is_written_later(content)
    })
}

/// Whether `me`, whose index is lost, judges what it has without having heard of another's. `others`: all other members; each with
/// whether its directory was adopted, if it said lately that its index is being made anew too.
///
/// Only if all said so: who still has an index knows more. An adopted directory was never in use, and is judged by what others know.
pub fn judges_first(
    me: BrickId,
    adopts: bool,
    others: impl IntoIterator<Item = (BrickId, Option<bool>)>,
) -> bool {
    !adopts && others.into_iter().all(|(brick, said)| said.is_some_and(|adopts| adopts || me < brick))
}

/// What `me` makes of the bytes of a regular file.
pub fn judge(object: &Object, me: BrickId, end: End, found: &Found<'_>) -> Verdict {
    match end {
        End::Killed | End::Running => after_kill(object, found),
        End::PowerLost => after_power_cut(object, me, found),
        End::IndexLost => without_index(object, found),
        End::BothLost => without_index_after_power_cut(object, me, found),
    }
}

/// All that was written is there, and the index has all that was said. Only what it was about to say may
/// be missing: that a file was settled, or that a heal put another one in its place.
fn after_kill(object: &Object, found: &Found<'_>) -> Verdict {
    if found.dirty || found.looks_same {
        return Verdict::Keep;
    }
    let Some(have) = found.have else {
        // Of a stub: whether a heal had put the whole file in its place.
        return match (found.marked, proof(object, found)) {
            (Some(_), Proof::NotLooked) => Verdict::Hash,
            (Some(_), Proof::Is(version)) => Verdict::Holds(version.clone()),
            _ => Verdict::Keep,
        };
    };
    match proof(object, found) {
        Proof::NotLooked => Verdict::Hash,
        Proof::Is(version) if version == have => Verdict::RefreshPrint,
        Proof::Is(version) => Verdict::Holds(version.clone()),
        Proof::None => {
            let newer = found.marked.filter(|m| m.relation(have) == Relation::After);
            Verdict::Edit(newer.unwrap_or(have).clone())
        }
    }
}

fn after_power_cut(object: &Object, me: BrickId, found: &Found<'_>) -> Verdict {
    let elsewhere = |version: &VersionVector| object.holders_of(version).any(|b| b != me);
    let edit = || Verdict::Edit(found.synced.cloned().unwrap_or_default());
    // Nothing of a stub is an edit; what was to come in its place did not.
    let was_stub = found.hollow && found.synced.is_none();
    // Nobody ever made bytes of it durable: a start before this one made it where nothing was, and the index did not keep that.
    let is_stub = found.hollow && found.stub;
    if found.dirty {
        if is_stub {
            return Verdict::Lacking;
        }
        // What a program had synced is never set aside: that moves the inode's times for good.
        if found.base.is_empty() {
            return Verdict::Keep;
        }
        // The hash of a version that has been replaced is not kept.
        let is_older = object.contents.iter().any(|c| c.version.relation(found.base) == Relation::After);
        let is_unproven =
            is_older || found.synced != Some(found.base) || hash_of(object, found.base).is_some();
        return match proof(object, found) {
            Proof::NotLooked => Verdict::Hash,
            Proof::Is(version) if version == found.base => Verdict::Keep,
            Proof::Is(version) if found.synced != Some(found.base) => Verdict::Holds(version.clone()),
            Proof::None if was_stub => Verdict::Lacking,
            // Whether it was written, and only its times are lost, or those bytes never came to the disk, or it damaged them, cannot be told:
            // so it must not replace what others have, nor stand beside it.
            Proof::None if found.looks_same && is_unproven && elsewhere(found.base) => Verdict::SetAside,
            Proof::Is(_) | Proof::None => edit(),
        };
    }
    let Some(have) = found.have else {
        return match (found.marked, proof(object, found)) {
            (Some(_), Proof::NotLooked) => Verdict::Hash,
            (Some(_), Proof::Is(version)) => Verdict::Holds(version.clone()),
            (Some(marked), Proof::None) if !found.hollow => match elsewhere(marked) {
                true => Verdict::SetAside,
                false => edit(),
            },
            // Which ranges of it reached the disk is not known.
            _ if found.filled || found.marked.is_some() => Verdict::Lacking,
            // The index does not know any more that there was a version: what it got of that is not the empty file that it would pass for.
            _ if found.stub && found.size > 0 && object.head().is_none() => match found.hollow {
                true => Verdict::Lacking,
                false => Verdict::SetAside,
            },
            _ => Verdict::Keep,
        };
    };
    if found.looks_same && found.synced == Some(have) {
        return Verdict::Keep;
    }
    match proof(object, found) {
        Proof::NotLooked => Verdict::Hash,
        Proof::Is(version) if version == have => Verdict::RefreshPrint,
        Proof::Is(version) => Verdict::Holds(version.clone()),
        Proof::None if is_stub || was_stub || found.hollow && elsewhere(have) => Verdict::Lacking,
        Proof::None if elsewhere(have) => Verdict::SetAside,
        Proof::None => edit(),
    }
}

/// The mark alone says which version it is, and the object, as peers have it, which versions there are.
fn without_index(object: &Object, found: &Found<'_>) -> Verdict {
    let Some(marked) = found.marked else {
        // A stub of a version that others have forgotten: its holes are nobody's bytes.
        if found.stub && found.hollow && found.size > 0 {
            return Verdict::Lacking;
        }
        // A stub, or a file that its maker has not settled yet.
        return match object.contents.is_empty() || found.made_here {
            true => Verdict::Edit(VersionVector::new()),
            false => Verdict::Keep,
        };
    };
    let holds = || Verdict::Holds(marked.clone());
    match object.contents.iter().find(|c| c.version == *marked) {
        Some(content) if found.marked_last && content.size == found.size => holds(),
        Some(_) => match proof(object, found) {
            Proof::NotLooked => Verdict::Hash,
            Proof::Is(version) if version == marked => holds(),
            _ => Verdict::Edit(marked.clone()),
        },
        // Newer than all that is known, or beside it; or older, and written on after that.
        None if !object.seen().includes(marked) || !found.marked_last => Verdict::Edit(marked.clone()),
        None => holds(),
    }
}

/// Only the hash tells that all of a version is here. What nothing proves gives way to what another brick holds, and is beside it otherwise.
fn without_index_after_power_cut(object: &Object, me: BrickId, found: &Found<'_>) -> Verdict {
    let Some(marked) = found.marked else { return without_index(object, found) };
    let elsewhere = object.holders_of(marked).any(|brick| brick != me);
    match proof(object, found) {
        Proof::NotLooked => Verdict::Hash,
        Proof::Is(version) => Verdict::Holds(version.clone()),
        Proof::None if found.hollow && found.size > 0 && elsewhere => Verdict::Lacking,
        Proof::None if elsewhere => Verdict::SetAside,
        Proof::None => Verdict::Edit(VersionVector::new()),
    }
}

#[cfg(test)]
mod tests {
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
        Op::Content {
            brick: brick(ME),
            version: v(n),
            size: 10,
            mtime_sec: 0,
            mtime_nsec: 0,
            still_dirty: false,
        }
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
        let torn = |ops, ours: Option<u64>| {
            torn_remains_give_way(&object(ops), brick(ME), &v(3), ours.map(v).as_ref())
        };
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
        let lost =
            |object: &Object, row| verdict(End::BothLost, object, Row { have: 0, synced: None, ..row });
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
}
