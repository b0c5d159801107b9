//! Cached copies: small files are fetched before they are asked for, and copies that are in no replica
//! set are emptied when space is needed.
//!
//! Invariant: a copy is emptied only while a brick of the replica set answers that it has the same version, and the
//! journal says that it is no longer here before the bytes go.

use std::collections::BTreeMap;

use nearbrick_core::evict::{Cached, Space, may_empty, plan};
use nearbrick_core::heal::{Decision, Local as Held};
use nearbrick_core::{BrickId, FileId, Op, VersionVector};

use super::change::Change;
use super::core::Core;
use super::opening::{Standing, standing};
use super::types::FsResult;
use super::{Volume, index_failed};
use crate::brick::access;
use crate::heal;
use crate::index::Local;

/// Files no longer than this are fetched with others of their directory.
const SMALL: u64 = 256 << 10;
/// How many of them, and how many bytes, are fetched at once.
const AHEAD_FILES: usize = 128;
const AHEAD_BYTES: u64 = 8 << 20;
/// Free bytes with which an index that was stuck is opened again.
const TO_BEGIN: u64 = 32 << 20;
/// Copies emptied with one round of syncs.
const AT_ONCE: usize = 64;

/// A copy that is on its way out.
struct Going {
    file: FileId,
    version: VersionVector,
    holders: Vec<BrickId>,
}

impl Volume {
    fn space(&self) -> FsResult<Space> {
        let space = self.brick.data.stat_fs()?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Ok(Space { capacity: bytes(space.f_blocks), free: bytes(space.f_bavail) })
    }

    /// Whether the index takes no more since a commit failed, and would if this agent began anew: there is space again.
    pub fn wants_new_agent(&self) -> bool {
        self.index.is_stuck() && self.space().is_ok_and(|space| space.free >= TO_BEGIN)
    }

    /// Sets room for the index apart again.
    pub fn refill_reserve(&self) {
        self.index.refill_reserve();
    }

    /// Empties cached copies if there is little space, so that `more` bytes fit too. Says how many bytes it freed.
    pub fn make_space(&self, more: u64) -> u64 {
        let need = match self.space() {
            Ok(space) => Space { free: space.free.saturating_sub(more), ..space }.lacking(),
            Err(error) => {
                tracing::warn!(%error, "the free space cannot be found out");
                0
            }
        };
        if need == 0 { 0 } else { self.empty_cached(need) }
    }

    /// Empties cached copies, until so many bytes are free that were not: those first that were not used for longest.
    pub fn empty_cached(&self, need: u64) -> u64 {
        let mut bytes = BTreeMap::new();
        let mut cached = Vec::new();
        let files: Vec<_> = self.lock().tally.cached.iter().copied().collect();
        for file in files {
            // One at a time: there may be many, and programs wait.
            match self.cached(&mut self.lock(), file) {
                Ok(Some(c)) => {
                    bytes.insert(file, c.bytes);
                    cached.push(c);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%file, %error, "a cached copy is left alone"),
            }
        }
        let mut freed = 0;
        for files in plan(cached, need).chunks(AT_ONCE) {
            match self.empty(files) {
                Ok(emptied) => freed += emptied.iter().filter_map(|f| bytes.get(f)).sum::<u64>(),
                Err(error) => tracing::warn!(%error, "cached copies cannot be emptied"),
            }
        }
        if freed > 0 {
            tracing::info!(bytes = freed, "cached copies were emptied to make space");
        }
        freed
    }

    /// A copy, or the parts of a stub, that may be emptied.
    fn cached(&self, core: &mut Core, file: FileId) -> FsResult<Option<Cached>> {
        let local = self.local_or_none(file)?;
        if !self.may_go(core, file, &local)? {
            return Ok(None);
        }
        let at = self.at(core, file, &local)?;
        let raw = access::stat(&at.dir, &at.name)?;
        let ms = |sec: i64| u64::try_from(sec).unwrap_or(0).saturating_mul(1000);
        Ok(Some(Cached {
            file,
            bytes: u64::try_from(raw.st_blocks).unwrap_or(0).saturating_mul(512),
            // When it came, if it was not read since.
            used_ms: ms(raw.st_atime).max(ms(raw.st_ctime)),
        }))
    }

    fn may_go(&self, core: &Core, file: FileId, local: &Local) -> FsResult<bool> {
        let open = core.nodes.of(file).is_some_and(|n| n.opens > 0);
        if local.placed.is_empty() || local.parked || local.dirty || open {
            return Ok(false);
        }
        let object = self.object_of(file)?;
        if !object.exists(file) {
            return Ok(false);
        }
        if local.have.is_none() {
            // No one takes a stub for a copy.
            return Ok(!local.filled.is_empty());
        }
        Ok(may_empty(&object, self.me, Held { have: local.have.as_ref(), dirty: local.dirty }, open))
    }

    fn empty(&self, files: &[FileId]) -> FsResult<Vec<FileId>> {
        let mut going = Vec::new();
        for file in files {
            let core = &mut *self.lock();
            let local = self.local_or_none(*file)?;
            if !self.may_go(core, *file, &local)? {
                continue;
            }
            let object = self.object_of(*file)?;
            let version = local.have.unwrap_or_default();
            let set = object.replica_set();
            let holders = object.holders_of(&version).filter(|b| *b != self.me && set.contains(b)).collect();
            going.push(Going { file: *file, version, holders });
        }
        // Not what the journal says: whether it is there.
        going.retain(|g| g.version.is_empty() || self.is_bound(g));
        let mut said = Vec::new();
        for g in &going {
            let core = &mut *self.lock();
            let local = self.local_or_none(g.file)?;
            if !self.may_go(core, g.file, &local)? || local.have.clone().unwrap_or_default() != g.version {
                continue;
            }
            if self.changed_behind(core, g.file, &local)? {
                self.adopt_change(core, g.file, &local)?;
                continue;
            }
            if let Some(have) = &local.have {
                let at = self.at(core, g.file, &local)?;
                let size = u64::try_from(access::stat(&at.dir, &at.name)?.st_size).unwrap_or(0);
                let mut change = Change::new(self, core);
                change.emit(g.file, Op::Drop { brick: self.me })?;
                // A stub all of which is filled: who opens it now has all of it still.
                let now = change.local_mut(g.file)?;
                now.have = None;
                now.print = None;
                now.filling = Some(have.clone());
                now.filled = BTreeMap::from([(0, size)]);
                change.commit()?;
            }
            said.push(g.file);
        }
        if said.is_empty() {
            return Ok(said);
        }
        self.index.persist().map_err(index_failed)?;
        let mut emptied = Vec::new();
        for file in said {
            let core = &mut *self.lock();
            let local = self.local_or_none(file)?;
            if local.have.is_none() && self.may_go(core, file, &local)? {
                // Who still has it mapped keeps the old bytes.
                let object = self.object_of(file)?;
                self.renew_stub(core, file, &object, &local)?;
                // What programs are shown of it stays, also when some of it is read again.
                self.adjust(core, file, &object)?;
                emptied.push(file);
            }
        }
        Ok(emptied)
    }

    /// Whether a holder gives the version out now.
    fn is_bound(&self, g: &Going) -> bool {
        let Some(remote) = self.remote() else { return false };
        remote.read(g.file, &g.version, 0, 1, &g.holders).is_ok()
    }

    /// A small file without its data was opened: if others of its directory were before, those that
    /// follow are to be fetched.
    pub(super) fn opened_without_data(&self, core: &mut Core, file: FileId, size: u64) {
        if size > SMALL {
            return;
        }
        let Ok(local) = self.local_of(file) else { return };
        let Some(place) = local.place() else { return };
        if core.walks.opened(place.parent, self.clock.now_ms()) {
            self.ahead.send_replace(Some(place.clone()));
        }
    }

    /// Ticks when files are to be fetched before they are asked for: then call [`Volume::fetch_ahead`].
    pub fn ahead(&self) -> tokio::sync::watch::Receiver<Option<nearbrick_core::Place>> {
        self.ahead.subscribe()
    }

    /// Fetches the small files that follow the one that was opened last. Blocks. Says how many came.
    pub fn fetch_ahead(&self) -> u64 {
        let Some(place) = self.ahead.send_replace(None) else { return 0 };
        if self.space().is_ok_and(|space| space.lacking() > 0) {
            return 0;
        }
        let plans = match self.following(&place) {
            Ok(plans) => plans,
            Err(error) => {
                tracing::debug!(%error, "nothing is fetched ahead");
                return 0;
            }
        };
        if plans.is_empty() { 0 } else { heal::bring_all(self, plans).files_done }
    }

    fn following(&self, after: &nearbrick_core::Place) -> FsResult<Vec<super::Planned>> {
        let mut plans = Vec::new();
        let mut bytes = 0;
        for (name, shown) in self.index.shown_in(after.parent).map_err(index_failed)? {
            if name <= after.name || shown.kind != libc::DT_REG {
                continue;
            }
            let (object, local) = (self.object_of(shown.file)?, self.local_or_none(shown.file)?);
            let size = object.size();
            if size > SMALL || standing(&object, &local) != Standing::Stub {
                continue;
            }
            bytes += size;
            if plans.len() >= AHEAD_FILES || bytes > AHEAD_BYTES {
                break;
            }
            let plan = self.planned(shown.file)?;
            if matches!(plan.decision, Decision::Fetch { .. }) {
                plans.push(plan);
            }
        }
        Ok(plans)
    }
}
