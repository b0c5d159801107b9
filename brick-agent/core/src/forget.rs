//! When a deleted object may be forgotten, and what a member that returns later makes of
//! an object that others no longer know.
//!
//! A deletion is an operation like others, and the object stays as its tombstone. It is
//! forgotten once every member has heard of all that happened to it. From then on
//! the horizons are the evidence: an object that a member does not have, though it has
//! heard of everything that keeps it alive, was deleted and forgotten there. What a
//! member has not heard of is new to it, and lives: an edit or a rename beats a delete
//! that did not know of it, also one that is forgotten.

use crate::horizon::Horizon;
use crate::id::{BrickId, FileId};
use crate::object::Object;

/// Whether it is deleted, or only parts of it have come so far.
pub fn is_dead(file: FileId, object: &Object) -> bool {
    !object.exists(file)
}

/// Whether it is deleted, and all that is known of it has been heard by all (`stable`), and
/// no member is writing it: what comes of that would beat the deletion.
pub fn is_forgettable(
    file: FileId,
    object: &Object,
    stable: &Horizon,
    is_member: impl Fn(BrickId) -> bool,
) -> bool {
    is_dead(file, object)
        && !object.writing().any(is_member)
        && object.stamps().all(|stamp| stable.saw(stamp))
}

/// Whether something keeps it alive that was not heard there: a name given to it, a
/// version, or a program that writes it.
pub fn outlives(file: FileId, object: &Object, there: &Horizon) -> bool {
    if is_dead(file, object) {
        return false;
    }
    object.live_links().any(|(_, place)| !there.saw(place.stamp))
        || object.contents.iter().any(|c| !there.saw(c.stamp))
        || object.writers.values().any(|reg| reg.value && !there.saw(reg.stamp))
}

/// Parts of an object without its beginning, of which something would be alive: whoever sent
/// them has the rest.
pub fn is_torso(object: &Object) -> bool {
    object.kind.is_none()
        && (!object.contents.is_empty()
            || object.links.values().any(|l| l.place.is_some())
            || object.writing().next().is_some())
}

/// What one member makes of how another's state of an object differs from its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Their state is merged into ours.
    Merge,
    /// Nothing to do here.
    Leave,
    /// It was deleted there, by someone who had heard of all that keeps it alive here: what they have of
    /// it is merged, and it goes here too.
    Remove,
}

/// Compares one object: ours with what another member has, each with how far it has heard.
///
/// Of parts from which nothing would be alive nothing is concluded but that the rest was forgotten:
/// whoever has heard of a name that is still given to an object has that name, or has forgotten it.
pub fn judge(
    file: FileId,
    ours: Option<&Object>,
    theirs: Option<&Object>,
    here: &Horizon,
    there: &Horizon,
) -> Verdict {
    let known = |object: &&Object| object.kind.is_some() || is_torso(object);
    let dead = |object: &Object| is_dead(file, object);
    match (ours.filter(known), theirs.filter(known)) {
        // One side has heard of all that keeps it alive on the other, and yet has it deleted: it had
        // taken the word of a third one that had forgotten it.
        (Some(ours), Some(theirs)) if !dead(ours) && dead(theirs) && !outlives(file, ours, there) => {
            Verdict::Remove
        }
        (Some(ours), Some(theirs)) if dead(ours) && !dead(theirs) && !outlives(file, theirs, here) => {
            Verdict::Leave
        }
        (Some(_), Some(_)) => Verdict::Merge,
        // Deleted and forgotten here; the other side finds out by itself.
        (None, Some(theirs)) if !dead(theirs) && !outlives(file, theirs, here) => Verdict::Leave,
        (None, Some(theirs)) if theirs.stamps().all(|stamp| here.saw(stamp)) => Verdict::Leave,
        (None, Some(_)) => Verdict::Merge,
        (Some(ours), None) if !dead(ours) && !outlives(file, ours, there) => Verdict::Remove,
        (Some(_), None) if theirs.is_some() => Verdict::Merge,
        (Some(_) | None, None) => Verdict::Leave,
    }
}
