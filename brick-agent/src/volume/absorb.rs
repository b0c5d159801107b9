//! Entries from peers.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use nearbrick_core::{BrickId, Entry, FileId, Op, Stamp, stamp};
use rustix::io::Errno;

use super::change::{Change, Done};
use super::core::{Core, Rebuild};
use super::dress::set_mtime;
use super::types::FsResult;
use super::{Volume, index_failed};

/// Entries taken before programs may have the lock.
const AT_ONCE: usize = 64;

/// Entries could not be taken over; those before them were.
#[derive(Debug, thiserror::Error)]
#[error("entries of brick {from} cannot be kept: {error}")]
pub struct AbsorbError {
    from: BrickId,
    error: Errno,
}

/// Whether the operation changes what is to be seen in `data/`.
fn is_seen(op: &Op) -> bool {
    !matches!(op, Op::Dirty { .. } | Op::Clean { .. } | Op::Have { .. } | Op::Drop { .. } | Op::Replicas(_))
}

impl Volume {
    /// Takes over entries of any journals that a peer sent: each is checked, and taken if it
    /// is the next of its origin. Says how many were. Returns when what they say can be seen.
    ///
    /// # Errors
    /// When the index cannot be written. What was taken before stays.
    pub fn absorb(&self, from: BrickId, entries: Vec<Entry>) -> Result<usize, AbsorbError> {
        let _one = self.absorbing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = 0;
        self.look_ahead(&mut self.lock(), &entries).map_err(|error| AbsorbError { from, error })?;
        for chunk in entries.chunks(AT_ONCE) {
            new += self.absorb_some(chunk).map_err(|error| AbsorbError { from, error })?;
        }
        if new > 0 {
            self.follow_standing_words();
        }
        Ok(new)
    }

    fn absorb_some(&self, entries: &[Entry]) -> FsResult<usize> {
        let core = &mut *self.lock();
        if core.rebuild != Rebuild::No {
            return Ok(0);
        }
        let latest = stamp::latest_taken(self.clock.now_ms());
        let mut change = Change::new(self, core);
        let (mut files, mut known) = (Vec::new(), HashSet::new());
        // What earlier lives of this brick said, and its index did not keep.
        let (mut ours, mut held) = (BTreeSet::new(), BTreeSet::new());
        let mut new = 0;
        let mut refused = Vec::new();
        for entry in entries {
            let why = match entry.check() {
                Ok(()) if entry.time > latest => Some("an entry's time is far beyond all clocks".to_owned()),
                checked => checked.err().map(|why| why.to_string()),
            };
            if let Some(why) = why {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                refused.push((entry.origin, entry.seq, why));
                continue;
            }
            if change.take(entry)? {
                new += 1;
                if self.brick.former.contains(&entry.origin) {
                    ours.insert(entry.file);
                }
                if let (Op::Create { .. }, Some(link)) = (&entry.op, entry.made_link()) {
                    self.made_again(&mut change, entry.file, link)?;
                }
                if is_seen(&entry.op) && known.insert(entry.file) {
                    change.todo(entry.file, true);
                    files.push(entry.file);
                }
                if matches!(entry.op, Op::Have { .. } | Op::Drop { .. }) {
                    held.insert(entry.file);
                }
            }
        }
        let mut done = Done::default();
        if new > 0 {
            for file in &ours {
                self.right_former(&mut change, *file)?;
            }
            // What no one held any more may be the newest again, or what somebody held no longer be.
            for file in ours.union(&held) {
                if !known.contains(file) && change.moves_head(*file)? {
                    change.todo(*file, true);
                    files.push(*file);
                }
            }
            done = change.commit()?;
        }
        for (origin, seq, why) in refused {
            self.refuse_entry(core, origin, seq, why);
        }
        if new == 0 {
            return Ok(0);
        }
        self.wake_unproven(core, ours.union(&held));
        // It may fall to this brick now to keep a loser.
        held.iter().filter(|f| core.tally.in_conflict.contains(f)).for_each(|f| self.settler.soon(*f));
        self.seen_now(core, &done, files)?;
        self.set_dir_times(core, entries)?;
        Ok(new)
    }

    /// What peers said of these objects is to be seen in `data/`.
    pub(super) fn seen_now(&self, core: &mut Core, done: &Done, files: Vec<FileId>) -> FsResult<()> {
        let mut files = VecDeque::from(files);
        self.with_claims(core, &done.places, &mut files)?;
        for place in &done.places {
            if place.parent != FileId::ROOT && self.object_of(place.parent)?.kind.is_none() {
                core.torsos.insert(place.parent);
            }
        }
        let mut once = HashSet::new();
        let files: Vec<FileId> = files.into_iter().filter(|f| once.insert(*f)).collect();
        if !core.tally.in_conflict.is_empty() {
            files.iter().filter(|f| core.tally.in_conflict.contains(f)).for_each(|f| self.settler.soon(*f));
        }
        self.bring_about(core, files);
        Ok(())
    }

    /// A directory's time that was set after all that happened in it, as far as `entries` tell, and
    /// that bringing about what happened in it has changed.
    fn set_dir_times(&self, core: &mut Core, entries: &[Entry]) -> FsResult<()> {
        let mut last: BTreeMap<FileId, Stamp> = BTreeMap::new();
        for entry in entries {
            if let Op::Create { place, .. } | Op::Link(place) | Op::Move { place, .. } = &entry.op {
                let stamp = last.entry(place.parent).or_insert(entry.stamp());
                *stamp = entry.stamp().max(*stamp);
            }
        }
        for (dir, stamp) in last {
            let object = self.object_of(dir)?;
            let is_later = object.mtime.as_ref().is_some_and(|mtime| mtime.stamp > stamp);
            if is_later && (dir == FileId::ROOT || self.local_or_none(dir)?.on_disk()) {
                set_mtime(&self.where_is(core, dir)?, &object)?;
                self.invalidate_node(core, dir, false);
            }
        }
        Ok(())
    }

    /// Tries again what could not be done before, and once more later if that is of no use yet.
    pub(super) fn try_again(&self) {
        if let Err(error) = self.make_good() {
            self.note_error(
                super::reason_of(error),
                format!("what was done on the disk cannot be noted in the index yet: {error}"),
            );
            self.settler.again();
        }
        // What a person is to decide is not pressed.
        if !self.lock().brakes.is_empty() {
            return;
        }
        let left = self.retry_todo().and_then(|()| self.index.todo().map_err(index_failed));
        if left.is_ok_and(|left| left.is_empty()) {
            return;
        }
        self.settler.again();
    }

    /// Tries again what could not be put in its place before.
    pub(super) fn retry_todo(&self) -> FsResult<()> {
        let core = &mut *self.lock();
        let files = self.index.todo().map_err(index_failed)?;
        if !files.is_empty() {
            self.bring_about(core, files);
        }
        Ok(())
    }
}
