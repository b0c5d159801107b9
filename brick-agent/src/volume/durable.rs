//! What of the bytes here is durable. After a power cut nothing else is proof of what they are (core/recover).
//!
//! Nothing is synced while somebody waits, save for `fsync`: some time after a file was settled one `syncfs` makes all of them
//! durable, and only then does the index say so.

use nearbrick_core::{FileId, Op, VersionVector};

use super::change::Change;
use super::core::Core;
use super::types::FsResult;
use super::{Volume, index_failed, reason_of};
use crate::brick::access;
use crate::brick::mark::Mark;
use crate::index::Local;

/// Files of which it is noted before programs may have the lock.
const AT_ONCE: usize = 256;

impl Volume {
    /// The file has a version, or is based on one, that may not be durable yet.
    pub(super) fn is_unsynced(&self, core: &mut Core, file: FileId) {
        core.unsynced.insert(file);
        self.settler.unsynced();
    }

    /// Notes that the bytes of this version, or what has since become of them, are on the disk for good.
    pub(super) fn synced_as(change: &mut Change<'_>, file: FileId, version: &VersionVector) -> FsResult<()> {
        let Some(local) = change.local(file)? else { return Ok(()) };
        let goes_on = local.based_on().is_some_and(|now| now.includes(version));
        if goes_on && !local.synced.as_ref().is_some_and(|synced| synced.includes(version)) {
            change.local_mut(file)?.synced = Some(version.clone());
        }
        Ok(())
    }

    /// The versions of files that are about to be made durable.
    pub(super) fn to_be_synced(
        &self,
        files: impl IntoIterator<Item = FileId>,
    ) -> FsResult<Vec<(FileId, VersionVector)>> {
        let mut versions = Vec::new();
        for file in files {
            let local = self.index.local(file).map_err(index_failed)?;
            versions.extend(local.and_then(|l| Some((file, l.based_on()?.clone()))));
        }
        Ok(versions)
    }

    /// Makes all that was settled durable, and notes it.
    pub(super) fn make_synced(&self) {
        let files = std::mem::take(&mut self.lock().unsynced);
        if files.is_empty() {
            return;
        }
        if let Err(error) = self.sync_noted(files.iter().copied()) {
            self.note_error(reason_of(error), format!("what was written is not durable yet: {error}"));
            self.lock().unsynced.extend(files);
            self.settler.unsynced();
        }
    }

    fn sync_noted(&self, files: impl Iterator<Item = FileId>) -> FsResult<()> {
        let versions = {
            let _core = self.lock();
            self.to_be_synced(files)?
        };
        self.brick.sync_all()?;
        for chunk in versions.chunks(AT_ONCE) {
            let core = &mut *self.lock();
            let moved = self.note_synced(core, chunk)?;
            if !moved.is_empty() {
                self.bring_about(core, moved);
            }
        }
        Ok(())
    }

    /// Notes that these versions are durable, and says so of copies of which nobody has heard yet. Gives the files that are
    /// others than before by that.
    fn note_synced(&self, core: &mut Core, versions: &[(FileId, VersionVector)]) -> FsResult<Vec<FileId>> {
        let (mut moved, mut said) = (Vec::new(), Vec::new());
        let mut change = Change::new(self, core);
        for (file, version) in versions {
            Self::synced_as(&mut change, *file, version)?;
            let Some((copy, hash)) =
                change.core.copies.get(file).filter(|(copy, _)| copy == version).cloned()
            else {
                continue;
            };
            said.push(*file);
            let local = change.local(*file)?;
            if local.is_some_and(|local| !local.dirty && local.have.as_ref() == Some(&copy)) {
                change.emit(*file, Op::Have { brick: self.me, version: copy, hash })?;
                if change.moves_head(*file)? {
                    change.todo(*file, true);
                    moved.push(*file);
                }
            }
        }
        change.commit()?;
        for file in said {
            core.copies.remove(&file);
            if core.tally.in_conflict.contains(&file) {
                self.settler.soon(file);
            }
        }
        Ok(moved)
    }

    /// Makes everything durable, and notes it: nothing else is written any more.
    pub(super) fn sync_at_end(&self, core: &mut Core) -> FsResult<()> {
        let files = std::mem::take(&mut core.unsynced);
        let versions = self.to_be_synced(files)?;
        self.brick.sync_all()?;
        self.note_synced(core, &versions).map(drop)
    }

    /// The mark of a stub says that nothing of it is here. A program emptied this one, and is about to be told that what it
    /// wrote is durable: after that the mark must not say so, as it may be all that is left if the index is lost.
    pub(super) fn is_no_stub(&self, file: FileId) -> FsResult<()> {
        let was_stub = |local: &Local| local.dirty && local.have.is_none() && !local.base.is_empty();
        if !self.index.local(file).map_err(index_failed)?.is_some_and(|local| was_stub(&local)) {
            return Ok(());
        }
        let core = &mut *self.lock();
        let local = self.local_or_none(file)?;
        if !was_stub(&local) || !local.on_disk() {
            return Ok(());
        }
        let at = self.at(core, file, &local)?;
        if access::get_mark(&at.dir, &at.name)?.is_some_and(|mark| mark.version.is_none()) {
            access::set_mark(&at.dir, &at.name, &Mark::new(file, Some(VersionVector::new())))?;
        }
        Ok(())
    }

    /// A program had a file synced whose bytes were of this version then, or based on it.
    pub(super) fn was_synced(&self, file: FileId, version: &VersionVector) -> FsResult<()> {
        let known = self.index.local(file).map_err(index_failed)?.and_then(|l| l.synced);
        if known.is_some_and(|synced| synced.includes(version)) {
            return Ok(());
        }
        let core = &mut *self.lock();
        let mut change = Change::new(self, core);
        Self::synced_as(&mut change, file, version)?;
        change.commit().map(drop)
    }
}
