//! What a heal brought takes its place, after everything was checked once more under the lock.

use nearbrick_core::heal::{Decision, Local as Held, Reason, decide, may_replace};
use nearbrick_core::{FileId, Kind, Op, VersionVector};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::{At, Core, Rebuild};
use super::opening::{Standing, standing};
use super::place::{set_mtime, set_owner_and_mode, set_xattrs};
use super::types::FsResult;
use crate::brick::access;
use crate::brick::disk::{File, Reader};
use crate::brick::mark::Mark;
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
    /// The file.
    pub file: FileId,
    /// Which version.
    pub version: VersionVector,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of them.
    pub hash: [u8; 32],
    /// Its name in `staging/`.
    pub staged: String,
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
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(Reader::new(&*data, 0)).map_err(|e| super::change::errno(&e))?;
        data.sync()?;
        let core = &mut *self.lock();
        let local = self.local_of(file)?;
        if local.dirty || local.have.as_ref() != Some(&version) {
            return Err(Errno::BUSY);
        }
        let mut change = Change::new(self, core);
        change.emit(file, Op::Have { brick: self.me, version, hash: *hasher.finalize().as_bytes() })?;
        change.commit().map(drop)
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
            return arrived.into_iter().map(|a| (a.file, a.size, Err(reason))).collect();
        }
        let mut results: Vec<_> = arrived
            .iter()
            .map(|a| {
                let result = self.take_place(&mut self.lock(), a);
                if result.is_err() {
                    self.unstage(&a.staged);
                }
                (a.file, a.size, result)
            })
            .collect();
        let said = self.brick.sync_all().and_then(|()| {
            let core = &mut *self.lock();
            let mut change = Change::new(self, core);
            for (a, _) in arrived.iter().zip(&results).filter(|(_, (_, _, r))| r.is_ok()) {
                let op = Op::Have { brick: self.me, version: a.version.clone(), hash: a.hash };
                change.emit(a.file, op)?;
            }
            change.commit().map(drop)
        });
        if let Err(error) = said {
            tracing::warn!(%error, "what a heal brought is not acknowledged yet");
            results.iter_mut().for_each(|(_, _, r)| *r = r.and(Err(reason_of(error))));
        }
        results
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
        if object.hash.as_ref().is_some_and(|(v, h)| *v == a.version && *h != a.hash) {
            return Err(Reason::Corrupt);
        }
        self.replace(core, a, &object, &local).map_err(|error| {
            tracing::warn!(file = %a.file, %error, "a healed file cannot be put in its place");
            reason_of(error)
        })
    }

    fn replace(
        &self,
        core: &mut Core,
        a: &Arrived,
        object: &nearbrick_core::Object,
        local: &crate::index::Local,
    ) -> FsResult<()> {
        let staged = At { dir: self.brick.staging.clone(), name: a.staged.clone().into_bytes() };
        set_owner_and_mode(&staged, object, &Kind::File)?;
        let all_kept = set_xattrs(&staged, object)?;
        access::set_mark(&staged.dir, &staged.name, &Mark::new(a.file, Some(a.version.clone())))?;
        if object.head().is_some_and(|h| h.version == a.version) {
            set_mtime(&staged, object)?;
        }
        let data = access::open(&staged.dir, &staged.name, OFlags::RDONLY, 0)?;
        self.keep_open(core, a.file);
        self.rename_over(core, &staged, local)?;
        let print = print_of(&data.stat()?);
        let mut change = Change::new(self, core);
        let now = change.local_mut(a.file)?;
        now.have = Some(a.version.clone());
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
        if let Some(node) = core.nodes.of(a.file).filter(|n| n.opens > 0) {
            if let Some(stub) = &node.stub {
                stub.healed_as(&a.version, data);
            }
            // Who has the old file open keeps it; the name stands for the new one.
            for place in local.placed.values() {
                self.invalidate_entry(core, place);
            }
            core.nodes.detach(a.file);
        } else {
            self.invalidate_node(core, a.file, true);
        }
        Ok(())
    }

    /// A number for what is staged next.
    pub(crate) fn count_staged(&self) -> u64 {
        self.staged.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    /// A file in `staging/` for what comes, new.
    pub(crate) fn stage(&self, name: &str) -> FsResult<File> {
        self.unstage(name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        access::open(&self.brick.staging, name.as_bytes(), flags, 0o600)
    }

    /// Gives up what was staged.
    pub(crate) fn unstage(&self, name: &str) {
        let _ = access::unlink(&self.brick.staging, name.as_bytes());
    }
}
