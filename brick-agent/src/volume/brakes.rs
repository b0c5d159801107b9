//! Removals that are held back until a person has looked at them.
//!
//! The operations are taken over like all others, so members agree and nothing else waits; only
//! what they remove from `data/` stays there, and stays shown. A person either
//! releases them (then it goes) or takes them back (then it is there again for everyone).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use nearbrick_core::brake::{HeldId, Limits};
use nearbrick_core::{Entry, FileId, Incarnation, Kind, Object, Op, Place};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::core::Core;
use super::types::FsResult;
use super::{Volume, index_failed};
use crate::index::{Index, IndexError, encode};

const BRAKES: &str = "brakes";

/// Removals by one origin that are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// Up to this entry.
    pub seq: u64,
    /// Since when: milliseconds since 1970.
    pub since: u64,
    /// Files that they removed when it was found to be too many.
    pub files: u64,
    /// Files that there were.
    pub of: u64,
}

/// The same, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRemovals {
    /// Names them.
    pub id: HeldId,
    /// More about them.
    pub brake: Brake,
}

/// What was held back at the last end.
pub(super) fn load(index: &Index) -> Result<BTreeMap<Incarnation, Brake>, IndexError> {
    let kept = index.meta(BRAKES)?;
    kept.map_or(Ok(BTreeMap::new()), |bytes| {
        postcard::from_bytes(&bytes).map_err(|_| IndexError::Damaged("brakes"))
    })
}

impl Volume {
    /// Looks at what a peer sent before any of it is done: holds back the removals of an origin that are too many.
    pub(super) fn look_ahead(&self, core: &mut Core, entries: &[Entry]) -> FsResult<()> {
        let is_new = |e: &&Entry| core.heads.get(&e.origin).is_none_or(|head| e.seq > *head);
        let taken: HashSet<&Place> = entries
            .iter()
            .filter(is_new)
            .filter_map(|entry| match &entry.op {
                Op::Create { place, .. } | Op::Link(place) | Op::Move { place, .. } => Some(place),
                _ => None,
            })
            .collect();
        let mut by: BTreeMap<Incarnation, (BTreeSet<FileId>, u64)> = BTreeMap::new();
        for entry in entries.iter().filter(is_new) {
            let Op::Unlink { link, .. } = &entry.op else { continue };
            let object = self.object_of(entry.file)?;
            let place = object.links.get(link).and_then(|l| l.place.as_ref()).map(|reg| &reg.value);
            let gone = object.kind.as_ref().is_some_and(Kind::is_file) && object.exists(entry.file);
            if let (true, Some(place)) = (gone, place)
                && !taken.contains(place)
                && self.index.wanted_at(place).map_err(index_failed)?.iter().all(|(_, f)| *f == entry.file)
            {
                let (files, last) = by.entry(entry.origin).or_default();
                files.insert(entry.file);
                *last = (*last).max(entry.seq);
            }
        }
        for (origin, (files, last)) in by {
            self.note_removals(core, origin, files.len() as u64, last)?;
        }
        Ok(())
    }

    /// So many files go by the word of this origin, the last by its entry `seq`.
    pub(super) fn note_removals(
        &self,
        core: &mut Core,
        origin: Incarnation,
        removed: u64,
        seq: u64,
    ) -> FsResult<()> {
        let (now, of) = (self.clock.now_ms(), core.tally.files);
        let too_many = core.removals.note(origin, removed, of, now, Limits::default());
        let known = core.brakes.get(&origin).copied();
        if !too_many && known.is_none() || removed == 0 {
            return Ok(());
        }
        let brake = match known {
            Some(brake) => Brake { seq: brake.seq.max(seq), files: brake.files + removed, ..brake },
            None => Brake { seq, since: now, files: removed, of },
        };
        let id = HeldId { origin, seq: brake.seq };
        if known.is_none() {
            tracing::error!(
                held = %id, files = brake.files, of,
                "so many files were removed elsewhere at once that they are kept here until a person has looked: \
                 see the Brick's condition RemovalsFollowed"
            );
        }
        core.brakes.insert(origin, brake);
        self.keep_brakes(core)
    }

    fn keep_brakes(&self, core: &mut Core) -> FsResult<()> {
        let kept = encode(&core.brakes);
        let mut change = Change::new(self, core);
        change.meta(BRAKES, &kept);
        change.commit().map(drop)
    }

    /// Whether the object was removed by someone whose removals are held back.
    pub(super) fn is_held(core: &Core, file: FileId, object: &Object) -> bool {
        !core.brakes.is_empty()
            && !object.exists(file)
            && object
                .links
                .values()
                .filter_map(|link| link.removed.as_ref())
                .any(|reg| core.brakes.contains_key(&reg.stamp.origin))
    }

    /// Removals that wait for a person.
    pub fn held_removals(&self) -> Vec<HeldRemovals> {
        Self::held(&self.lock())
    }

    pub(super) fn held(core: &Core) -> Vec<HeldRemovals> {
        let held = |(origin, brake): (&Incarnation, &Brake)| HeldRemovals {
            id: HeldId { origin: *origin, seq: brake.seq },
            brake: *brake,
        };
        core.brakes.iter().map(held).collect()
    }

    /// A person's word: these removals are right (they are followed), or wrong (what they removed is there again,
    /// for everyone). Says whether it was about anything that is held.
    ///
    /// # Errors
    /// The index cannot be written: then they stay held.
    pub fn decide_removals(&self, id: HeldId, right: bool) -> FsResult<bool> {
        let core = &mut *self.lock();
        let Some(brake) = core.brakes.get(&id.origin) else { return Ok(false) };
        if !id.covers(&HeldId { origin: id.origin, seq: brake.seq }) {
            return Ok(false);
        }
        let todo = self.index.todo().map_err(index_failed)?;
        if !right {
            for file in &todo {
                let object = self.object_of(*file)?;
                let by = |reg: &nearbrick_core::Reg<_>| reg.stamp.origin == id.origin;
                if object.exists(*file) || !object.links.values().filter_map(|l| l.removed.as_ref()).any(by) {
                    continue;
                }
                let mut change = Change::new(self, core);
                let places = change.local(*file)?.map(|l| l.placed).unwrap_or_default();
                for (link, place) in places {
                    change.emit(*file, Op::Move { link, place })?;
                }
                change.commit()?;
            }
        }
        core.brakes.remove(&id.origin);
        core.removals.forget(id.origin);
        self.keep_brakes(core)?;
        tracing::warn!(held = %id, right, "a person decided about removals that were held back");
        self.bring_about(core, todo);
        Ok(true)
    }

    /// What a person said before these removals came here is about them too.
    pub(super) fn follow_standing_words(&self) {
        if !self.lock().brakes.is_empty() {
            self.follow_annotations();
        }
    }

    /// The words that the volume's annotations say.
    pub(super) fn follow_annotations(&self) {
        let config = self.config();
        for (word, right) in [(&config.release_removals, true), (&config.take_back_removals, false)] {
            let Some(word) = word else { continue };
            match word.parse() {
                Ok(id) => {
                    if let Err(error) = self.decide_removals(id, right) {
                        tracing::error!(%error, "removals stay held back");
                    }
                }
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }
}
