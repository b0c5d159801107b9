//! Entries of a peer's journal that make no sense here. What their origin says after them cannot be taken: each
//! follows from those before. All other origins go on. A person is told, and has one of two remedies: a newer
//! agent here, if that is why; or the origin says all that it has again, in a new life of its index.
//!
//! They are never passed over. Whoever has heard of all that keeps an object alive, and does not have it,
//! counts as having deleted it (`core/forget`): a member that skipped an entry would take files away from others.

use std::sync::atomic::Ordering;

use nearbrick_core::{BrickId, Incarnation};

use super::core::Core;
use super::recover::REBUILD;
use super::{Volume, index_failed};

/// Origins that are remembered so, at most.
const MAX_REFUSED: usize = 64;

/// The entry at which an origin's journal cannot be followed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedEntry {
    /// Whose journal it is.
    pub origin: Incarnation,
    /// Its brick, if that is known.
    pub brick: Option<BrickId>,
    /// The entry's place there.
    pub seq: u64,
    /// What is wrong with it.
    pub why: String,
}

impl Volume {
    /// An entry of this origin makes no sense. It comes again and again, and counts once.
    pub(crate) fn refuse(&self, origin: Incarnation, seq: u64, why: String) {
        self.refuse_entry(&mut self.lock(), origin, seq, why);
    }

    pub(super) fn refuse_entry(&self, core: &mut Core, origin: Incarnation, seq: u64, why: String) {
        let next = core.heads.get(&origin).is_none_or(|head| seq > *head);
        let known = core.refused.get(&origin).cloned();
        if !next || origin == self.incarnation || known.is_none() && core.refused.len() >= MAX_REFUSED {
            return;
        }
        if known.is_none() {
            tracing::error!(
                %origin, seq, why,
                "an entry of a peer's journal makes no sense, and what follows it there cannot be taken: see the \
                 Brick's condition JournalsFollowed"
            );
        }
        // Whose it is may be known by now.
        let brick =
            core.acks.iter().find(|(_, known)| known.ack.incarnation == origin).map(|(brick, _)| *brick);
        let brick = brick.or(known.and_then(|known| known.brick));
        core.refused.insert(origin, RefusedEntry { origin, brick, seq, why });
        self.tick();
    }

    /// Those that still stand in the way: neither was the entry taken since, nor does its brick write another journal.
    pub(super) fn refused_entries(core: &Core) -> Vec<RefusedEntry> {
        let passed = |entry: &&RefusedEntry| {
            let taken = core.heads.get(&entry.origin).is_some_and(|head| *head >= entry.seq);
            let now = entry.brick.and_then(|brick| core.acks.get(&brick));
            taken || now.is_some_and(|known| known.ack.incarnation != entry.origin)
        };
        core.refused.values().filter(|entry| !passed(entry)).cloned().collect()
    }

    /// A person's word that this brick is to say all that it has again: it is opened anew, as if its index were lost.
    pub(super) fn follow_say_again(&self) {
        let said = self.config().upkeep.say_again.clone();
        if said.is_none_or(|origin| origin.parse() != Ok(self.incarnation)) {
            return;
        }
        let mut batch = self.index.batch();
        batch.meta(REBUILD, b"1");
        let kept = batch.commit().and_then(|()| self.index.persist()).map_err(index_failed);
        if kept.is_ok() && !self.again.swap(true, Ordering::AcqRel) {
            tracing::warn!(incarnation = %self.incarnation, "as a person asked, the index is made anew");
            self.tick();
        }
    }
}
