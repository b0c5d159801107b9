//! A name that comes back after the file was deleted here: its bytes, which went to `versions/` then, come back with it.
//!
//! It happens where one member deletes a file and another, apart, moves it later. By the time they hear of each other each holder
//! may have put the bytes aside, so that otherwise nobody would have them.

use nearbrick_core::scrub::hash_of;
use nearbrick_core::{FileId, Kind, Object, VersionVector};
use rustix::fs::{FileType, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::Core;
use super::types::FsResult;
use super::versions::{Label, Why, name_of};
use crate::brick::access;
use crate::brick::disk::Reader;
use crate::brick::mark::Mark;
use crate::index::parked_name;

impl Volume {
    /// Has the newest version that was kept of a file, which is nowhere in `data/`, wait for its place there. False if none is, or if
    /// it is not certain what its bytes are.
    pub(super) fn bring_back_kept(&self, core: &mut Core, file: FileId, object: &Object) -> FsResult<bool> {
        if !object.kind.as_ref().is_some_and(Kind::is_file) {
            return Ok(false);
        }
        self.lay_back(file)?;
        let newest = object.head().map(|c| &c.version);
        let said = object.holders.get(&self.me).and_then(|reg| reg.value.as_ref());
        let Some(version) = newest.into_iter().chain(said).find(|v| self.is_kept(file, v)).cloned() else {
            return Ok(false);
        };
        let kept = name_of(file, &version);
        let Some(label) = Label::read(&*self.brick.versions, kept.as_bytes()) else { return Ok(false) };
        let alone = access::stat(&self.brick.versions, kept.as_bytes())?.st_nlink == 1;
        if label.why != Why::Deleted || !alone || !self.is_certain(object, &version, &kept, &label)? {
            return Ok(false);
        }
        self.park_kept(core, file, &version, &label)?;
        tracing::info!(%file, "its name came back: what was kept of it takes its place again");
        Ok(true)
    }

    /// A power cut may have spoiled what was not durable when it was put aside.
    fn is_certain(
        &self,
        object: &Object,
        version: &VersionVector,
        kept: &str,
        label: &Label,
    ) -> FsResult<bool> {
        if label.durable || self.came_now(kept) {
            return Ok(true);
        }
        let Some(known) = hash_of(object, version) else { return Ok(false) };
        let open = access::open(&self.brick.versions, kept.as_bytes(), OFlags::RDONLY, 0)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(Reader::new(&*open, 0)).map_err(|_| Errno::IO)?;
        Ok(*hasher.finalize().as_bytes() == known)
    }

    /// On the disk first, as for whatever waits for its place.
    fn park_kept(
        &self,
        core: &mut Core,
        file: FileId,
        version: &VersionVector,
        label: &Label,
    ) -> FsResult<()> {
        let (kept, parked) = (name_of(file, version), parked_name(file));
        access::set_mark(&self.brick.versions, kept.as_bytes(), &Mark::new(file, Some(version.clone())))?;
        let (versions, staging) = (&self.brick.versions, &self.brick.staging);
        access::rename(versions, kept.as_bytes(), staging, parked.as_bytes(), RenameFlags::NOREPLACE)?;
        label.remove(&**staging, parked.as_bytes());
        let print = access::stat(staging, parked.as_bytes()).map(|raw| print_of(&raw));
        let said = print.and_then(|print| {
            let mut change = Change::new(self, core);
            let local = change.local_mut(file)?;
            local.parked = true;
            local.have = Some(version.clone());
            local.print = Some(print);
            local.synced = label.durable.then(|| version.clone());
            change.commit().map(drop)
        });
        if said.is_err() {
            label.write(&**staging, parked.as_bytes());
            let _ =
                access::rename(staging, parked.as_bytes(), versions, kept.as_bytes(), RenameFlags::NOREPLACE);
            return said;
        }
        self.is_not_kept(&kept);
        core.unsaid.insert(file);
        if !label.durable {
            self.is_unsynced(core, file);
        }
        self.settler.soon(file);
        Ok(())
    }

    /// What was on its way back when the end came, and had not been said, is kept again.
    fn lay_back(&self, file: FileId) -> FsResult<()> {
        let parked = parked_name(file);
        let (staging, versions) = (&self.brick.staging, &self.brick.versions);
        let raw = match access::stat(staging, parked.as_bytes()) {
            Ok(raw) => raw,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mark = access::get_mark(staging, parked.as_bytes())?;
        if FileType::from_raw_mode(raw.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let version = match mark {
            Some(Mark { version: Some(version), .. }) => version,
            // A stub that was about to be removed when the end came: it would be in the way for ever.
            Some(mark) if mark.file == file => return access::unlink(staging, parked.as_bytes()),
            _ => return Ok(()),
        };
        let kept = name_of(file, &version);
        match access::rename(staging, parked.as_bytes(), versions, kept.as_bytes(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => access::unlink(staging, parked.as_bytes()),
            done => done,
        }
    }
}
