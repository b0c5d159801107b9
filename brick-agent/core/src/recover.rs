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
mod tests;
