//! What a heal brought takes its place, after everything was checked once more under the lock.

use std::collections::BTreeMap;

use nearbrick_core::heal::{Decision, Local as Held, Reason, decide, may_replace};
use nearbrick_core::scrub::hash_of;
use nearbrick_core::{BrickId, FileId, Kind, Op, VersionVector};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::{At, Core, Rebuild};
use super::dress::{set_mtime, set_owner_and_mode, set_xattrs};
use super::opening::{Standing, standing};
use super::staging::Staged;
use super::types::FsResult;
use super::versions::{Linked, Why};
use crate::brick::access;
use crate::brick::disk::File;
use crate::brick::mark::Mark;
use crate::heal::chunk;
use crate::index::Overlay;

/// What is to be done about a pending file.
pub(crate) struct Planned {
    /// The file.
    pub file: FileId,
    /// Its newest version's bytes.
    pub size: u64,
    /// What to do.
    pub decision: Decision,
}

/// A file that has come, whole, into `staging/`.
pub(crate) struct Arrived {
    /// The brick that gave it.
    pub from: BrickId,
    /// The file.
    pub file: FileId,
    /// Which version.
    pub version: VersionVector,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of them.
    pub hash: [u8; 32],
    /// Where it is.
    pub staged: Staged,
}

/// Bytes of an older version that are here, or of the newest one of which not all are.
pub(crate) struct Older {
    /// The brick file.
    pub file: File,
    /// Its version, if all of it is here.
    pub version: Option<VersionVector>,
    /// Its bytes.
    pub size: u64,
    /// Which of them are here; none: all.
    pub ranges: Option<BTreeMap<u64, u64>>,
}

impl Older {
    /// Whether these bytes are here.
    pub fn has(&self, offset: u64, len: u32) -> bool {
        let end = offset.saturating_add(u64::from(len));
        match &self.ranges {
            None => end <= self.size,
            Some(ranges) => ranges.range(..=offset).next_back().is_some_and(|(_, until)| *until >= end),
        }
    }
}

/// Why the disk refuses, as a heal reports it.
pub(crate) fn reason_of(error: Errno) -> Reason {
    match error {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Reason::NoSpace,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Reason::Permission,
        Errno::NOENT => Reason::SourceChanged,
        _ => Reason::Corrupt,
    }
}

impl Volume {
    /// Files that this brick lacks, in the order of their age.
    pub(crate) fn lacking(&self) -> Vec<FileId> {
        let core = self.lock();
        if core.rebuild != Rebuild::No {
            return Vec::new();
        }
        let mut files: Vec<_> = core
            .tally
            .pending
            .iter()
            .filter_map(|(file, p)| p.bricks.iter().find(|b| b.brick == self.me).map(|b| (b.since, *file)))
            .collect();
        files.sort_unstable();
        files.into_iter().map(|(_, file)| file).collect()
    }

    /// Decides about one file. None if it is gone.
    pub(crate) fn planned(&self, file: FileId) -> FsResult<Planned> {
        let _core = self.lock();
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        let held = Held { have: local.have.as_ref(), dirty: local.dirty };
        let mut decision = decide(&object, self.me, held);
        if matches!(decision, Decision::Fetch { .. }) && local.placed.is_empty() {
            decision = Decision::Wait(Reason::Busy);
        }
        Ok(Planned { file, size: object.size(), decision })
    }

    /// What is here of a file of which the newest version lacks.
    pub(crate) fn older_bytes(&self, file: FileId) -> FsResult<Option<Older>> {
        let core = &mut *self.lock();
        let local = self.local_or_none(file)?;
        // Of an open stub there may be more here than was said so far.
        let stub = core.nodes.of(file).and_then(|n| n.stub.clone());
        let ranges = match (&local.have, stub) {
            (Some(_), _) => None,
            (None, Some(stub)) => Some(stub.ranges()),
            (None, None) => Some(local.filled.clone()),
        };
        if !local.on_disk() || local.dirty || ranges.as_ref().is_some_and(BTreeMap::is_empty) {
            return Ok(None);
        }
        let at = self.at(core, file, &local)?;
        let open = access::open(&at.dir, &at.name, OFlags::RDONLY, 0)?;
        let size = u64::try_from(open.stat()?.st_size).unwrap_or(0);
        Ok((size > 0).then_some(Older { file: open, version: local.have, size, ranges }))
    }

    /// Why a chunk came that is not the one of the list: the source is being written, or it is damaged.
    pub(crate) fn wrong_chunk(&self, file: FileId) -> Reason {
        match self.object_of(file) {
            Ok(object) if object.writing().any(|b| b != self.me) => Reason::SourceChanged,
            _ => Reason::Corrupt,
        }
    }

    /// Lists of chunks made or fetched lately.
    pub(crate) fn chunk_lists(&self) -> &chunk::Cache {
        &self.chunk_lists
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Removes from `staging/` what is not to be gone on with.
    pub(crate) fn tidy(&self) {
        if let Err(error) = self.tidy_staging(false) {
            tracing::warn!(%error, "staging/ cannot be tidied up");
        }
    }

    /// The path of a file from the volume's root, for globs and messages.
    pub(crate) fn path_for_people(&self, file: FileId) -> FsResult<Vec<u8>> {
        let _core = self.lock();
        let local = self.local_of(file)?;
        let place = local.place().ok_or(Errno::NOENT)?;
        let mut path = self.path_of(place.parent)?;
        path.extend_from_slice(&place.name);
        Ok(path)
    }

    /// Says that the newest version is here.
    pub(crate) fn acknowledge(&self, file: FileId) -> FsResult<()> {
        let (data, version) = {
            let core = &mut *self.lock();
            let local = self.local_of(file)?;
            let version = local.have.clone().filter(|_| !local.dirty).ok_or(Errno::BUSY)?;
            let at = self.at(core, file, &local)?;
            (access::open(&at.dir, &at.name, OFlags::RDONLY, 0)?, version)
        };
        let hash = super::files::hash(&*data)?;
        data.sync()?;
        let core = &mut *self.lock();
        let local = self.local_of(file)?;
        if local.dirty || local.have.as_ref() != Some(&version) {
            return Err(Errno::BUSY);
        }
        let mut change = Change::new(self, core);
        Self::synced_as(&mut change, file, &version)?;
        change.emit(file, Op::Have { brick: self.me, version, hash })?;
        let moves_head = change.moves_head(file)?;
        change.commit()?;
        // Nobody was known to have it.
        if moves_head {
            self.bring_about(core, vec![file]);
        }
        if moves_head || core.tally.in_conflict.contains(&file) {
            self.settler.soon(file);
        }
        Ok(())
    }

    /// Puts what arrived in its places: durable first, then checked again under the lock
    /// and renamed, then durable again, and only then acknowledged to all.
    pub(crate) fn install(&self, arrived: Vec<Arrived>) -> Vec<(FileId, u64, Result<(), Reason>)> {
        if arrived.is_empty() {
            return Vec::new();
        }
        if let Err(error) = self.brick.sync_all() {
            let reason = reason_of(error);
            tracing::warn!(%error, "what a heal brought cannot be made durable");
            let failed = |a: Arrived| {
                self.unstage(&a.staged.name);
                (a.file, a.size, Err(reason))
            };
            return arrived.into_iter().map(failed).collect();
        }
        let mut results = Vec::new();
        let mut there = Vec::new();
        for a in arrived {
            let result = self.hear_of(&a).and_then(|()| self.take_place(&mut self.lock(), &a));
            results.push((a.file, a.size, result));
            match result {
                Ok(()) => there.push((a.file, a.version, a.hash)),
                Err(reason) => self.leave(a.staged, a.size, reason),
            }
        }
        let said = self.brick.sync_all().and_then(|()| {
            let core = &mut *self.lock();
            let mut change = Change::new(self, core);
            for (file, version, hash) in there {
                Self::synced_as(&mut change, file, &version)?;
                change.emit(file, Op::Have { brick: self.me, version, hash })?;
            }
            change.commit().map(drop)
        });
        if let Err(error) = said {
            tracing::warn!(%error, "what a heal brought is not acknowledged yet");
            results.iter_mut().for_each(|(_, _, r)| *r = r.and(Err(reason_of(error))));
        }
        results
    }

    /// A brick gives a newer version than it was asked for, if it has one. What that is comes with its journal, which a power cut
    /// there may undo: then nobody would know of it but who holds the bytes, and these would stand beside all others for ever.
    fn hear_of(&self, a: &Arrived) -> Result<(), Reason> {
        let heard = || self.object_of(a.file).map(|object| object.knows(&a.version)).map_err(reason_of);
        if heard()? {
            return Ok(());
        }
        self.ask_writers(a.file, &[a.from]);
        if heard()? { Ok(()) } else { Err(Reason::Unreachable) }
    }

    fn take_place(&self, core: &mut Core, a: &Arrived) -> Result<(), Reason> {
        if core.rebuild != Rebuild::No {
            return Err(Reason::Busy);
        }
        let (object, local) =
            self.object_of(a.file).and_then(|o| Ok((o, self.local_or_none(a.file)?))).map_err(reason_of)?;
        if !object.exists(a.file) || local.placed.is_empty() {
            return Err(Reason::SourceChanged);
        }
        may_replace(&object, Held { have: local.have.as_ref(), dirty: local.dirty }, &a.version)?;
        if core.nodes.of(a.file).is_some_and(|n| n.writers > 0) {
            return Err(Reason::Busy);
        }
        if self.changed_behind(core, a.file, &local).map_err(reason_of)? {
            self.adopt_change(core, a.file, &local).map_err(reason_of)?;
            return Err(Reason::Busy);
        }
        if hash_of(&object, &a.version).is_some_and(|known| known != a.hash) {
            return Err(Reason::Corrupt);
        }
        self.replace(core, a, &object, &local).map_err(|error| {
            tracing::warn!(file = %a.file, %error, "a healed file cannot be put in its place");
            reason_of(error)
        })
    }

    /// A loser of a conflict is replaced by what won, or by what a person chose: it stays in `versions/`. Gives what was put
    /// there.
    fn keep_replaced(
        &self,
        core: &mut Core,
        a: &Arrived,
        object: &nearbrick_core::Object,
        local: &crate::index::Local,
    ) -> FsResult<Option<(FileId, VersionVector)>> {
        let Some(have) = &local.have else { return Ok(None) };
        let by_word = object.kept_for_word(a.file, have);
        if by_word.is_none() && a.version.includes(have) {
            return Ok(None);
        }
        // What a person turned down is nowhere in the tree, so it must not be given up for want of room.
        let must = by_word.is_some();
        let (file, version) = by_word.unwrap_or_else(|| (a.file, have.clone()));
        let label = self.label(object, &version, self.path_to_keep(object, local), Why::Lost);
        let at = self.at(core, a.file, local)?;
        match self.link_to_versions(&at, file, &version, &label)? {
            Linked::Now => Ok(Some((file, version))),
            Linked::NoRoom if must => Err(Errno::NOSPC),
            Linked::Before | Linked::NoRoom => Ok(None),
        }
    }

    fn replace(
        &self,
        core: &mut Core,
        a: &Arrived,
        object: &nearbrick_core::Object,
        local: &crate::index::Local,
    ) -> FsResult<()> {
        let staged = At { dir: self.brick.staging.clone(), name: a.staged.name.clone().into_bytes() };
        set_owner_and_mode(&staged, object, &Kind::File)?;
        let all_kept = set_xattrs(&staged, object)?;
        access::set_mark(&staged.dir, &staged.name, &Mark::copied(a.file, a.version.clone(), &a.hash))?;
        if object.head().is_some_and(|h| h.version == a.version) {
            set_mtime(&staged, object)?;
        }
        let data = access::open(&staged.dir, &staged.name, OFlags::RDONLY, 0)?;
        self.keep_open(core, a.file);
        let lost = self.keep_replaced(core, a, object, local)?;
        if let Err(error) = self.rename_over(core, &staged, local) {
            if let Some(lost) = lost {
                // It stays where it is, and only its inode was touched.
                self.unlink_from_versions(lost.0, &lost.1);
                let mut change = Change::new(self, core);
                change.refresh_print(a.file)?;
                change.commit()?;
            }
            return Err(error);
        }
        let print = print_of(&data.stat()?);
        let mut change = Change::new(self, core);
        let now = change.local_mut(a.file)?;
        now.have = Some(a.version.clone());
        // Until it is synced again the older file may come back.
        now.synced = now.synced.take().filter(|synced| a.version.includes(synced));
        now.print = Some(print);
        now.filling = None;
        now.filled.clear();
        now.mtime_at = object.mtime.as_ref().map_or(0, |m| m.stamp.time);
        now.overlay = match standing(object, now) {
            Standing::Whole => None,
            _ => Some(Overlay {
                size: object.size(),
                mtime: object.mtime.as_ref().map_or((0, 0), |m| m.value),
            }),
        };
        if !all_kept {
            change.todo(a.file, true);
        }
        change.commit()?;
        self.show_replaced(core, a.file, local, &a.version, data);
        Ok(())
    }

    /// Other bytes have taken the place of a file that was here as `local` says: programs are to see them.
    pub(super) fn show_replaced(
        &self,
        core: &mut Core,
        file: FileId,
        local: &crate::index::Local,
        version: &VersionVector,
        data: File,
    ) {
        if let Some(node) = core.nodes.of(file).filter(|n| n.opens > 0) {
            if let Some(stub) = &node.stub {
                stub.healed_as(version, data);
            }
            // Who has the old file open keeps it; the name stands for the new one.
            for place in local.placed.values() {
                self.invalidate_entry(core, place);
            }
            core.nodes.detach(file);
        } else {
            self.invalidate_node(core, file, true);
        }
    }
}
