//! Attributes: owner, mode, times, size; and of the file system.

use nearbrick_core::{Attr, FileId, Kind, Op};
use rustix::fs::{OFlags, StatVfs};
use rustix::io::Errno;

use super::Volume;
use super::change::Change;
use super::core::{At, Core, stat_from};
use super::files::Handle;
use super::types::{FsResult, HandleId, NodeId, SetAttr, SetTime, Stat};
use crate::brick::access;
use crate::brick::disk::{self, File};
use crate::index::Overlay;

impl Volume {
    /// What is behind a node without a name: the file that is open, or a descriptor with `O_PATH`.
    pub(super) fn orphan(&self, core: &Core, node: NodeId, handle: Option<HandleId>) -> FsResult<File> {
        if let Some(open) = handle.and_then(|h| self.handles.get(h).ok())
            && let Handle::File(open) = &*open
        {
            return Ok(open.io.clone());
        }
        let known = core.nodes.get(node).ok_or(Errno::NOENT)?;
        known.data.clone().or_else(|| known.held.clone()).ok_or(Errno::NOENT)
    }

    pub(super) fn is_orphan(core: &Core, node: NodeId) -> bool {
        core.nodes.get(node).is_some_and(|n| n.orphan)
    }

    /// The object is about to lose its last name. Who still has it, open or as the directory
    /// that it is in, goes on seeing it.
    pub(super) fn hold(&self, core: &mut Core, file: FileId, at: &At) {
        let node = core.nodes.id_of(file);
        // The kernel may still open what it looked up before: not the holes of a stub.
        let hollow = self.local_or_none(file).is_ok_and(|local| local.have.is_none() && !local.dirty);
        if let Some(known) = node.and_then(|node| core.nodes.get_mut(node)).filter(|n| n.data.is_none()) {
            known.held = access::open(&at.dir, &at.name, OFlags::PATH, 0).ok();
            known.hollow = hollow;
        }
    }

    /// Attributes.
    ///
    /// # Errors
    /// `NOENT`; what the disk says.
    pub fn getattr(&self, node: NodeId, handle: Option<HandleId>) -> FsResult<Stat> {
        let core = &mut *self.lock();
        if Self::is_orphan(core, node) {
            let file = self.orphan(core, node, handle)?;
            let mut stat = stat_from(node, &file.stat()?);
            if let Some(stub) = core.nodes.get(node).and_then(|n| n.stub.as_ref()).filter(|s| !s.is_whole()) {
                stat.size = stub.size();
            }
            return Ok(stat);
        }
        let file = self.file_of(core, node)?;
        let local = if file == FileId::ROOT { Default::default() } else { self.local_of(file)? };
        self.stat_of(core, file, &local)
    }

    pub(super) fn where_is(&self, core: &mut Core, file: FileId) -> FsResult<At> {
        if file == FileId::ROOT {
            return Ok(At { dir: self.dir(core, file)?, name: b".".to_vec() });
        }
        let local = self.local_of(file)?;
        self.at(core, file, &local)
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// `NOENT`; what the disk says; `IO` when a size is to be changed and the bytes are out of reach.
    pub fn setattr(&self, node: NodeId, handle: Option<HandleId>, set: &SetAttr) -> FsResult<Stat> {
        self.writable()?;
        if let Some(size) = set.size {
            self.resize(node, handle, size)?;
        }
        let core = &mut *self.lock();
        if Self::is_orphan(core, node) {
            let file = self.orphan(core, node, handle)?;
            Self::set_orphan(&file, set)?;
            return Ok(stat_from(node, &file.stat()?));
        }
        let file = self.file_of(core, node)?;
        let said = set.mode.is_some() || set.uid.is_some() || set.gid.is_some() || set.mtime.is_some();
        if said || set.atime.is_some() {
            let kind = if file == FileId::ROOT {
                Kind::Dir
            } else {
                self.object_of(file)?.kind.ok_or(Errno::NOENT)?
            };
            if set.mode.is_some() && matches!(kind, Kind::Symlink(_)) {
                return Err(Errno::OPNOTSUPP);
            }
            if set.mtime.is_some() {
                self.may_be_written(core, file)?;
            }
            let at = self.where_is(core, file)?;
            let before = access::stat(&at.dir, &at.name)?;
            let done = (|| {
                if set.uid.is_some() || set.gid.is_some() {
                    access::chown(&at.dir, &at.name, set.uid, set.gid)?;
                }
                if let Some(mode) = set.mode {
                    access::chmod(&at.dir, &at.name, mode)?;
                }
                if set.atime.is_some() || set.mtime.is_some() {
                    access::utimens(&at.dir, &at.name, set.atime, set.mtime)?;
                }
                let mut change = Change::new(self, core);
                if said {
                    self.say_attributes(&mut change, file, &at, set.mtime.is_some())?;
                }
                if file != FileId::ROOT {
                    change.refresh_print(file)?;
                }
                change.commit().map(drop)
            })();
            if let Err(error) = done {
                let undone = Self::put_back_attributes(&at, &before, set, &kind);
                self.not_said(core, file, &at, undone);
                return Err(error);
            }
        }
        let local = if file == FileId::ROOT { Default::default() } else { self.local_of(file)? };
        let mut stat = self.stat_of(core, file, &local)?;
        stat.node = node;
        Ok(stat)
    }

    /// A program is about to set the time of bytes that it may have written: from then on that time does not tell.
    fn may_be_written(&self, core: &mut Core, file: FileId) -> FsResult<()> {
        let local = self.local_or_none(file)?;
        if local.dirty && (local.print.is_some() || local.quiet) {
            let mut change = Change::new(self, core);
            let local = change.local_mut(file)?;
            (local.print, local.quiet) = (None, false);
            change.commit()?;
        }
        Ok(())
    }

    /// Says in the journal what owner, mode and time are now.
    pub(super) fn say_attributes(
        &self,
        change: &mut Change<'_>,
        file: FileId,
        at: &At,
        sets_mtime: bool,
    ) -> FsResult<()> {
        let raw = access::stat(&at.dir, &at.name)?;
        let (mtime_sec, mtime_nsec) = super::change::print_of(&raw).mtime;
        let mut attr =
            Attr { mode: raw.st_mode & 0o7777, uid: raw.st_uid, gid: raw.st_gid, mtime_sec, mtime_nsec };
        let local = change.local_mut(file)?;
        if let Some(overlay) = local.overlay {
            if sets_mtime {
                local.overlay = Some(Overlay { mtime: (mtime_sec, mtime_nsec), ..overlay });
            } else {
                (attr.mtime_sec, attr.mtime_nsec) = overlay.mtime;
            }
        }
        let entry = change.emit(file, Op::SetAttr(attr))?;
        change.local_mut(file)?.mtime_at = entry.time;
        Ok(())
    }

    /// Attributes were changed on the disk, or some of them, and that could not be said.
    fn put_back_attributes(at: &At, before: &disk::Stat, set: &SetAttr, kind: &Kind) -> FsResult<()> {
        if set.uid.is_some() || set.gid.is_some() {
            access::chown(&at.dir, &at.name, Some(before.st_uid), Some(before.st_gid))?;
        }
        if !matches!(kind, Kind::Symlink(_)) {
            access::chmod(&at.dir, &at.name, before.st_mode & 0o7777)?;
        }
        if set.mtime.is_some() {
            let (sec, nsec) = super::change::print_of(before).mtime;
            access::utimens(&at.dir, &at.name, None, Some(SetTime::At(access::time(sec, nsec))))?;
        }
        Ok(())
    }

    fn set_orphan(file: &File, set: &SetAttr) -> FsResult<()> {
        if set.uid.is_some() || set.gid.is_some() {
            file.chown(set.uid, set.gid)?;
        }
        if let Some(mode) = set.mode {
            file.chmod(mode)?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            file.utimens(&access::timestamps(set.atime, set.mtime))?;
        }
        Ok(())
    }

    /// Truncates or extends. The new bytes are the program's: marked dirty first.
    fn resize(&self, node: NodeId, handle: Option<HandleId>, size: u64) -> FsResult<()> {
        let size = i64::try_from(size).map_err(|_| Errno::FBIG)?.unsigned_abs();
        if let Some(open) = handle.and_then(|h| self.handles.get(h).ok())
            && let Handle::File(open) = &*open
            && open.writes
        {
            open.io.truncate(size)?;
            return Ok(());
        }
        {
            let core = &mut *self.lock();
            if Self::is_orphan(core, node) {
                let file = self.orphan(core, node, handle)?;
                let again = access::reopen(&file, OFlags::RDWR)?;
                return again.truncate(size);
            }
        }
        // Opening for writing does all that a first write needs.
        let flags = if size == 0 { libc::O_WRONLY | libc::O_TRUNC } else { libc::O_WRONLY };
        let opened = self.open_file(node, flags)?;
        let open = self.handles.get(opened.handle)?;
        let done = match &*open {
            Handle::File(open) => open.io.truncate(size),
            Handle::Dir { .. } | Handle::Lost => Err(Errno::ISDIR),
        };
        self.release(opened.handle);
        done
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `NOENT`, `INVAL`; what the disk says.
    pub fn readlink(&self, node: NodeId) -> FsResult<Vec<u8>> {
        let core = &mut *self.lock();
        let file = self.file_of(core, node)?;
        let at = self.where_is(core, file)?;
        access::readlink(&at.dir, &at.name)
    }

    /// The brick's file system.
    ///
    /// # Errors
    /// What the disk says.
    pub fn statfs(&self) -> FsResult<StatVfs> {
        self.brick.data.stat_fs()
    }
}
