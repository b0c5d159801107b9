//! Attributes: owner, mode, times, size, extended ones; and of the file system.

use nearbrick_core::op::{MAX_XATTR, USER_XATTR as USER};
use nearbrick_core::{Attr, FileId, Kind, Op};
use rustix::fs::{OFlags, StatVfs, XattrFlags};
use rustix::io::Errno;

use super::Volume;
use super::change::Change;
use super::core::{At, Core, stat_from};
use super::files::Handle;
use super::types::{FsResult, HandleId, NodeId, SetAttr, Stat};
use crate::brick::access;
use crate::brick::disk::File;
use crate::index::Overlay;

impl Volume {
    /// The brick file of a node without a name.
    fn orphan(&self, core: &Core, node: NodeId, handle: Option<HandleId>) -> FsResult<File> {
        if let Some(open) = handle.and_then(|h| self.handles.get(h).ok())
            && let Handle::File(open) = &*open
        {
            return Ok(open.io.clone());
        }
        let known = core.nodes.get(node).ok_or(Errno::NOENT)?;
        known.data.clone().ok_or(Errno::NOENT)
    }

    fn is_orphan(core: &Core, node: NodeId) -> bool {
        core.nodes.get(node).is_some_and(|n| n.orphan)
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
            if let Some(stub) = core.nodes.get(node).and_then(|n| n.stub.as_ref()) {
                stat.size = stub.size();
            }
            return Ok(stat);
        }
        let file = self.file_of(core, node)?;
        let local = if file == FileId::ROOT { Default::default() } else { self.local_of(file)? };
        self.stat_of(core, file, &local)
    }

    fn where_is(&self, core: &mut Core, file: FileId) -> FsResult<At> {
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
            let at = self.where_is(core, file)?;
            if set.uid.is_some() || set.gid.is_some() {
                access::chown(&at.dir, &at.name, set.uid, set.gid)?;
            }
            if let Some(mode) = set.mode {
                access::chmod(&at.dir, &at.name, mode)?;
            }
            if set.atime.is_some() || set.mtime.is_some() {
                access::utimens(&at.dir, &at.name, set.atime, set.mtime)?;
            }
            let raw = access::stat(&at.dir, &at.name)?;
            let print = super::change::print_of(&raw);
            let mut change = Change::new(self, core);
            let mut attr = Attr {
                mode: raw.st_mode & 0o7777,
                uid: raw.st_uid,
                gid: raw.st_gid,
                mtime_sec: print.mtime.0,
                mtime_nsec: print.mtime.1,
            };
            let local = change.local_mut(file)?;
            if let Some(overlay) = local.overlay {
                if set.mtime.is_some() {
                    local.overlay = Some(Overlay { mtime: print.mtime, ..overlay });
                } else {
                    (attr.mtime_sec, attr.mtime_nsec) = overlay.mtime;
                }
            }
            if said {
                let entry = change.emit(file, Op::SetAttr(attr))?;
                change.local_mut(file)?.mtime_at = entry.time;
            }
            if file != FileId::ROOT {
                change.refresh_print(file)?;
            }
            change.commit()?;
        }
        let local = if file == FileId::ROOT { Default::default() } else { self.local_of(file)? };
        let mut stat = self.stat_of(core, file, &local)?;
        stat.node = node;
        Ok(stat)
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
            Handle::Dir { .. } => Err(Errno::ISDIR),
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

    /// An extended attribute. Only `user.` ones exist.
    ///
    /// # Errors
    /// `NODATA`, `OPNOTSUPP`; what the disk says.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> FsResult<Vec<u8>> {
        if !name.starts_with(USER) {
            return Err(if name.starts_with(b"security.") { Errno::NODATA } else { Errno::OPNOTSUPP });
        }
        let core = &mut *self.lock();
        let file = self.file_of(core, node)?;
        let at = self.where_is(core, file)?;
        access::get_xattr(&at.dir, &at.name, name)
    }

    /// The names of extended attributes, each followed by a NUL.
    ///
    /// # Errors
    /// `NOENT`; what the disk says.
    pub fn listxattr(&self, node: NodeId) -> FsResult<Vec<u8>> {
        let core = &mut *self.lock();
        let file = self.file_of(core, node)?;
        let at = self.where_is(core, file)?;
        let all = access::list_xattr(&at.dir, &at.name)?;
        let ours = all.split_inclusive(|b| *b == 0).filter(|n| n.starts_with(USER));
        Ok(ours.flatten().copied().collect())
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// `OPNOTSUPP` for others than `user.`; what the disk says.
    pub fn setxattr(&self, node: NodeId, name: &[u8], value: &[u8], flags: i32) -> FsResult<()> {
        if !name.starts_with(USER) {
            return Err(Errno::OPNOTSUPP);
        }
        if value.len() > MAX_XATTR {
            return Err(Errno::RANGE);
        }
        let flags = XattrFlags::from_bits_retain(flags.unsigned_abs());
        self.change_xattr(node, name, Some(value), |at| {
            access::set_xattr(&at.dir, &at.name, name, value, flags)
        })
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NODATA`; `OPNOTSUPP` for others than `user.`; what the disk says.
    pub fn removexattr(&self, node: NodeId, name: &[u8]) -> FsResult<()> {
        if !name.starts_with(USER) {
            return Err(Errno::OPNOTSUPP);
        }
        self.change_xattr(node, name, None, |at| access::remove_xattr(&at.dir, &at.name, name))
    }

    fn change_xattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: Option<&[u8]>,
        on_disk: impl FnOnce(&At) -> FsResult<()>,
    ) -> FsResult<()> {
        let core = &mut *self.lock();
        let file = self.file_of(core, node)?;
        let at = self.where_is(core, file)?;
        on_disk(&at)?;
        let mut change = Change::new(self, core);
        change.emit(file, Op::SetXattr { name: name.to_vec(), value: value.map(<[u8]>::to_vec) })?;
        if file != FileId::ROOT {
            change.refresh_print(file)?;
        }
        change.commit()?;
        Ok(())
    }

    /// The brick's file system.
    ///
    /// # Errors
    /// What the disk says.
    pub fn statfs(&self) -> FsResult<StatVfs> {
        self.brick.data.stat_fs()
    }
}
