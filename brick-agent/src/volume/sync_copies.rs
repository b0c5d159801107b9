//! `fsync` that waits for other bricks: `minSyncCopies` of the volume.
//!
//! What is written so far becomes a version, and bricks of the file's replica set are asked to bring it to their disks
//! now. The file may stay open: another version follows when it is settled.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, FileId, VersionVector};
use rustix::io::Errno;

use super::change::print_of;
use super::types::FsResult;
use super::{Volume, index_failed, reason_of};
use crate::brick::access;
use crate::heal;
use crate::peer::wire::KeepRequest;

/// How long `fsync` waits for copies. What came by then stays.
pub const SYNC_LIMIT: Duration = Duration::from_secs(20);

impl Volume {
    /// Whether `fsync` waits for other bricks.
    pub fn waits_at_fsync(&self) -> bool {
        self.config().min_sync_copies > 1
    }

    /// Returns when as many bricks as the volume asks for have this version durably, or there is none to wait for.
    ///
    /// # Errors
    /// `IO` when there are too few within [`SYNC_LIMIT`]; on this brick it is durable nevertheless.
    pub(super) fn sync_copies(&self, file: FileId, version: Option<VersionVector>) -> FsResult<()> {
        let Some(version) = version else { return Ok(()) };
        let config = self.config();
        let wanted = config.min_sync_copies.saturating_sub(1) as usize;
        let object = self.object_of(file)?;
        let others: Vec<_> = object.replica_set().iter().copied().filter(|brick| *brick != self.me).collect();
        let name =
            |brick: &BrickId| config.member(*brick).map_or_else(|| brick.to_string(), |m| m.node.clone());
        if others.len() < wanted {
            let why = format!(
                "its replica set has {} of the {} bricks that minSyncCopies asks for",
                others.len() + 1,
                wanted + 1
            );
            return self.too_few(file, Reason::Unreachable, &why);
        }
        let request = KeepRequest { heads: self.lock().heads.clone(), file, version };
        let done = self.remote().map(|remote| remote.keep(&others, wanted, &request, SYNC_LIMIT));
        let done = done.unwrap_or_default();
        if done.iter().filter(|(_, result)| result.is_ok()).count() >= wanted {
            return Ok(());
        }
        let failed: Vec<_> = done.iter().filter_map(|(brick, result)| Some((brick, result.err()?))).collect();
        let said: Vec<_> =
            failed.iter().map(|(brick, why)| format!("{}: {}", name(brick), why.as_str())).collect();
        let why = failed.first().map_or(Reason::Unreachable, |(_, why)| *why);
        self.too_few(file, why, &format!("no copy within {} s on {}", SYNC_LIMIT.as_secs(), said.join(", ")))
    }

    fn too_few(&self, file: FileId, reason: Reason, why: &str) -> FsResult<()> {
        let path = self.path_for_people(file);
        let path = path.map_or_else(|_| format!("file {file}"), |p| String::from_utf8_lossy(&p).into_owned());
        let line = format!("fsync of {path} failed though it is durable here: {why}");
        tracing::error!("{line}");
        self.sync_failures.fetch_add(1, Ordering::Relaxed);
        self.note_error(reason, line);
        Err(Errno::IO)
    }

    /// The version of what is in the file now: taken before it is synced here, so that the sync is of it. None where
    /// nobody else is waited for: the volume does not ask for it, the file has no name, or its bytes are not from here.
    pub(super) fn version_for_others(&self, file: FileId) -> FsResult<Option<VersionVector>> {
        if !self.waits_at_fsync() {
            return Ok(None);
        }
        let core = &mut *self.lock();
        let local = self.local_or_none(file)?;
        if !local.on_disk() || local.placed.is_empty() {
            return Ok(None);
        }
        let have = local.have.clone();
        if !local.dirty {
            return Ok(have);
        }
        let at = self.at(core, file, &local)?;
        let print = print_of(&access::stat(&at.dir, &at.name)?);
        let unchanged = local.print == Some(print) && have.as_ref() == Some(&local.base);
        match have.filter(|_| unchanged) {
            Some(have) => Ok(Some(have)),
            None => self.snapshot(core, file, &local, print).map(Some),
        }
    }

    /// Brings this version, or one that includes it, to this brick's disk, because an `fsync` elsewhere waits for it.
    ///
    /// # Errors
    /// `SourceChanged` while it has not been heard of here, or when another was there first: worth another try.
    pub(super) fn keep_now(&self, file: FileId, version: &VersionVector) -> Result<(), Reason> {
        let here = || -> Result<(bool, bool, bool), Reason> {
            let core = self.lock();
            let object = self.object_of(file).map_err(reason_of)?;
            let local = self.local_or_none(file).map_err(reason_of)?;
            drop(core);
            let has = local.have.as_ref().is_some_and(|have| have.includes(version));
            Ok((object.seen().includes(version), has && !local.dirty, local.dirty))
        };
        let (heard, has, dirty) = here()?;
        if !heard {
            return Err(Reason::SourceChanged);
        }
        if !has {
            if dirty {
                return Err(Reason::Busy);
            }
            heal::bring(self, file)?;
            if !here()?.1 {
                return Err(Reason::SourceChanged);
            }
        }
        // The bytes are durable since they were put in their place; that they are that version is said by their
        // mark too, but the index says it sooner.
        self.index.persist().map_err(|error| reason_of(index_failed(error)))
    }
}
