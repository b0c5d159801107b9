//! Extended attributes: programs' own (`user.*`), and ACLs.
//!
//! Members exchange exactly these ([`is_exchanged`]). What an ACL says is kept on the brick
//! by the disk's file system, which also keeps it and the mode in step: both are read
//! back after a change of either, and said in the journal.

use nearbrick_core::acl::{self, ACCESS};
use nearbrick_core::op::{MAX_XATTR, USER_XATTR, is_exchanged};
use nearbrick_core::{FileId, Op};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Volume;
use super::change::Change;
use super::core::{At, Core};
use super::types::{Caller, FsResult, NodeId};
use crate::brick::access;
use crate::brick::disk::File;

/// Where attributes are read and set.
enum Target {
    /// Something with a name.
    Named(FileId, At),
    /// Something open, without a name: what is done to it is nobody else's business.
    Open(File),
}

impl Volume {
    fn target(&self, core: &mut Core, node: NodeId) -> FsResult<Target> {
        if Self::is_orphan(core, node) {
            return Ok(Target::Open(self.orphan(core, node, None)?));
        }
        let file = self.file_of(core, node)?;
        Ok(Target::Named(file, self.where_is(core, file)?))
    }

    /// An extended attribute.
    ///
    /// # Errors
    /// `NODATA`, `OPNOTSUPP`; what the disk says.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> FsResult<Vec<u8>> {
        if !is_exchanged(name) {
            return Err(if name.starts_with(b"security.") { Errno::NODATA } else { Errno::OPNOTSUPP });
        }
        let core = &mut *self.lock();
        match self.target(core, node)? {
            Target::Named(_, at) => access::get_xattr(&at.dir, &at.name, name),
            Target::Open(file) => file.get_xattr(name),
        }
    }

    /// The names of extended attributes, each followed by a NUL.
    ///
    /// # Errors
    /// `NOENT`; what the disk says.
    pub fn listxattr(&self, node: NodeId) -> FsResult<Vec<u8>> {
        let core = &mut *self.lock();
        let all = match self.target(core, node)? {
            Target::Named(_, at) => access::list_xattr(&at.dir, &at.name)?,
            Target::Open(file) => file.list_xattr()?,
        };
        let exchanged = |name: &&[u8]| is_exchanged(name.strip_suffix(b"\0").unwrap_or(name));
        Ok(all.split_inclusive(|b| *b == 0).filter(exchanged).flatten().copied().collect())
    }

    /// Sets an extended attribute; no ACL.
    ///
    /// # Errors
    /// `OPNOTSUPP` for others than `user.`; what the disk says.
    pub fn setxattr(&self, node: NodeId, name: &[u8], value: &[u8], flags: i32) -> FsResult<()> {
        self.writable()?;
        if !name.starts_with(USER_XATTR) {
            return Err(Errno::OPNOTSUPP);
        }
        if value.len() > MAX_XATTR {
            return Err(Errno::RANGE);
        }
        let flags = XattrFlags::from_bits_retain(flags.unsigned_abs());
        let core = &mut *self.lock();
        let (file, at) = match self.target(core, node)? {
            Target::Named(file, at) => (file, at),
            Target::Open(file) => return file.change_xattr(name, Some(value), flags),
        };
        let before = xattr_of(&at, name)?;
        access::set_xattr(&at.dir, &at.name, name, value, flags)?;
        let said = (|| {
            let mut change = Change::new(self, core);
            change.emit(file, Op::SetXattr { name: name.to_vec(), value: Some(value.to_vec()) })?;
            self.xattr_changed(change, file)
        })();
        said.inspect_err(|_| self.not_said(core, file, &at, put_back(&at, name, before.as_deref())))
    }

    /// Sets an ACL, and with it the mode.
    ///
    /// # Errors
    /// `INVAL` if it is none; what the disk says.
    pub fn set_acl(&self, caller: Caller, node: NodeId, name: &[u8], value: &[u8]) -> FsResult<()> {
        if acl::Acl::parse(value).is_err() {
            return Err(Errno::INVAL);
        }
        let core = &mut *self.lock();
        let (file, at) = match self.target(core, node)? {
            Target::Named(file, at) => (file, at),
            Target::Open(file) => return file.change_xattr(name, Some(value), XattrFlags::empty()),
        };
        let before = access::stat(&at.dir, &at.name)?.st_mode;
        let list_before = xattr_of(&at, name)?;
        let said = self.change_acl(core, caller, file, &at, name, value, before);
        said.inspect_err(|_| {
            let undone = put_back(&at, name, list_before.as_deref())
                .and_then(|()| access::chmod(&at.dir, &at.name, before & 0o7777));
            self.not_said(core, file, &at, undone);
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn change_acl(
        &self,
        core: &mut Core,
        caller: Caller,
        file: FileId,
        at: &At,
        name: &[u8],
        value: &[u8],
        before: u32,
    ) -> FsResult<()> {
        access::set_xattr(&at.dir, &at.name, name, value, XattrFlags::empty())?;
        let mut mode = access::stat(&at.dir, &at.name)?.st_mode;
        if name == ACCESS && mode & libc::S_ISGID != 0 && !may_keep_setgid(caller, at)? {
            mode &= !libc::S_ISGID;
            access::chmod(&at.dir, &at.name, mode & 0o7777)?;
        }
        // A list that says no more than a mode is a mode: the disk keeps none.
        let kept = match access::get_xattr(&at.dir, &at.name, name) {
            Ok(value) => Some(value),
            Err(Errno::NODATA) => None,
            Err(error) => return Err(error),
        };
        let mut change = Change::new(self, core);
        change.emit(file, Op::SetXattr { name: name.to_vec(), value: kept })?;
        if mode != before {
            self.say_attributes(&mut change, file, at, false)?;
        }
        self.xattr_changed(change, file)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NODATA`; `OPNOTSUPP` for those that members do not exchange; what the disk says.
    pub fn removexattr(&self, node: NodeId, name: &[u8]) -> FsResult<()> {
        self.writable()?;
        if !is_exchanged(name) {
            return Err(Errno::OPNOTSUPP);
        }
        let core = &mut *self.lock();
        let (file, at) = match self.target(core, node)? {
            Target::Named(file, at) => (file, at),
            Target::Open(file) => return file.change_xattr(name, None, XattrFlags::empty()),
        };
        let before = xattr_of(&at, name)?;
        access::remove_xattr(&at.dir, &at.name, name)?;
        let said = (|| {
            let mut change = Change::new(self, core);
            change.emit(file, Op::SetXattr { name: name.to_vec(), value: None })?;
            self.xattr_changed(change, file)
        })();
        said.inspect_err(|_| self.not_said(core, file, &at, put_back(&at, name, before.as_deref())))
    }

    /// Says in the journal which attributes something has that was found on the disk.
    pub(super) fn say_xattrs(&self, change: &mut Change<'_>, file: FileId, at: &At) -> FsResult<()> {
        let names = access::list_xattr(&at.dir, &at.name)?;
        for name in names.split(|b| *b == 0).filter(|name| is_exchanged(name)) {
            let value = access::get_xattr(&at.dir, &at.name, name)?;
            change.emit(file, Op::SetXattr { name: name.to_vec(), value: Some(value) })?;
        }
        Ok(())
    }

    fn xattr_changed(&self, mut change: Change<'_>, file: FileId) -> FsResult<()> {
        if file != FileId::ROOT {
            change.refresh_print(file)?;
        }
        change.commit().map(drop)
    }
}

/// The attribute as it is.
fn xattr_of(at: &At, name: &[u8]) -> FsResult<Option<Vec<u8>>> {
    match access::get_xattr(&at.dir, &at.name, name) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets it as it was.
fn put_back(at: &At, name: &[u8], value: Option<&[u8]>) -> FsResult<()> {
    match value {
        Some(value) => access::set_xattr(&at.dir, &at.name, name, value, XattrFlags::empty()),
        None => match access::remove_xattr(&at.dir, &at.name, name) {
            Err(Errno::NODATA) => Ok(()),
            done => done,
        },
    }
}

/// Whether someone who may change the list is also trusted with a setgid bit: root, and members of the group.
fn may_keep_setgid(caller: Caller, at: &At) -> FsResult<bool> {
    let group = access::stat(&at.dir, &at.name)?.st_gid;
    if caller.uid == 0 || caller.gid == group {
        return Ok(true);
    }
    // Who is gone, or in another namespace, is trusted with nothing.
    let status = std::fs::read_to_string(format!("/proc/{}/status", caller.pid)).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    Ok(groups.split_ascii_whitespace().any(|g| g.parse() == Ok(group)))
}
