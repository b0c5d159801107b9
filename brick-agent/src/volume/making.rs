//! New objects, and new names of objects.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use nearbrick_core::acl::{ACCESS, Acl, DEFAULT};
use nearbrick_core::heat::Access;
use nearbrick_core::replace::with_stand_ins;
use nearbrick_core::{Attr, BrickId, FileId, Kind, Object, Op, Place};
use rustix::fs::{OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::change::Change;
use super::core::{At, Core, Rebuild};
use super::types::{Caller, FsResult, NodeId, Opened, Stat};
use super::{Configured, Volume, read};
use crate::brick::access;
use crate::brick::disk::{Dir, File};
use crate::brick::mark::Mark;
use crate::config::PlacementRule;
use crate::index::{Local, Shown};

/// What was made; of a file also the open brick file, for writing and for reading.
type Made = (FileId, Stat, Option<(File, File)>);

/// The kinds in a directory listing, as `d_type` values.
pub(super) fn d_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File => libc::DT_REG,
        Kind::Dir => libc::DT_DIR,
        Kind::Symlink(_) => libc::DT_LNK,
        Kind::Special { format, .. } => u8::try_from(format >> 12).unwrap_or(libc::DT_UNKNOWN),
    }
}

/// What is made in this directory inherits this.
fn default_acl(dir: &Dir) -> FsResult<Option<Acl>> {
    match access::get_xattr(dir, b".", DEFAULT) {
        Ok(bytes) => Acl::parse(&bytes).map(Some).map_err(|_| Errno::IO),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Volume {
    /// The replica set of a new file: this brick, and those of the first rule that matches. While the disk here is full, it is as
    /// if the file were made where another brick stands in: what is written here is cached then, and can be emptied.
    pub(super) fn placed_at(&self, parent: FileId, given: &[u8]) -> FsResult<Vec<BrickId>> {
        let configured = read(&self.configured).clone();
        let config = &configured.config;
        let mut path: Option<Vec<u8>> = None;
        let Some(own) = self.rule_at(&configured, &config.node, parent, given, &mut path)? else {
            return Ok(vec![self.me]);
        };
        let elsewhere = own.stand_ins.iter().find(|(full, _)| *full == self.me);
        let node = elsewhere.and_then(|(_, brick)| config.member(*brick)).map(|m| m.node.as_str());
        let theirs = match node {
            Some(node) => self.rule_at(&configured, node, parent, given, &mut path)?,
            None => None,
        };
        let nobody = Object::default();
        Ok(match theirs {
            Some(theirs) => with_stand_ins(&nobody, &theirs.bricks, &theirs.stand_ins),
            None => {
                let others = own.bricks.iter().copied().filter(|b| *b != self.me);
                let all: Vec<BrickId> = std::iter::once(self.me).chain(others).collect();
                let stand_ins: Vec<_> =
                    own.stand_ins.iter().copied().filter(|(full, _)| *full != self.me).collect();
                with_stand_ins(&nobody, &all, &stand_ins)
            }
        })
    }

    /// The first rule for files that are made on `node` which matches this one. `path` is found once, if it is needed.
    fn rule_at<'a>(
        &self,
        configured: &'a Configured,
        node: &str,
        parent: FileId,
        given: &[u8],
        path: &mut Option<Vec<u8>>,
    ) -> FsResult<Option<&'a PlacementRule>> {
        for (rule, globs) in configured.config.placement.iter().zip(&configured.globs) {
            if !rule.creator.is_empty() && rule.creator != node {
                continue;
            }
            if let Some(globs) = globs {
                if path.is_none() {
                    let mut whole = self.path_of(parent)?;
                    whole.extend_from_slice(given);
                    *path = Some(whole);
                }
                let path = path.as_deref().unwrap_or_default();
                if !globs.is_match(OsStr::from_bytes(path)) {
                    continue;
                }
            }
            return Ok(Some(rule));
        }
        Ok(None)
    }

    /// Makes the object on the disk, where nobody sees it; owner, mode and mark are set after that. `mode`: what a file
    /// will most likely have in the end.
    pub(super) fn make_on_disk(dir: &Dir, given: &[u8], kind: &Kind, mode: u32) -> FsResult<Option<File>> {
        match kind {
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
                return Ok(Some(access::open(dir, given, flags, mode & 0o777)?));
            }
            Kind::Dir => dir.mkdir(given, 0o700)?,
            Kind::Symlink(target) => dir.symlink(target, given)?,
            Kind::Special { format, rdev } => dir.mknod(given, *format, *rdev)?,
        }
        Ok(None)
    }

    fn finish(
        dir: &Dir,
        given: &[u8],
        file: FileId,
        kind: &Kind,
        open: Option<&File>,
        attr: &Attr,
    ) -> FsResult<()> {
        // A file that is made here is no stub: all of its bytes are here, and of no version yet.
        let mark = Mark::new(file, open.map(|_| Default::default()));
        match open {
            Some(open) => {
                super::dress::own(&**open, attr)?;
                access::set_file_mark(&**open, &mark)
            }
            None => {
                access::chown(dir, given, Some(attr.uid), Some(attr.gid))?;
                if !matches!(kind, Kind::Symlink(_)) {
                    access::chmod(dir, given, attr.mode)?;
                }
                access::set_mark(dir, given, &mark)
            }
        }
    }

    /// Makes a new object.
    fn make(
        &self,
        core: &mut Core,
        caller: Caller,
        parent: NodeId,
        given: &[u8],
        kind: Kind,
        mode: u32,
    ) -> FsResult<Made> {
        if core.rebuild != Rebuild::No {
            return Err(Errno::ROFS);
        }
        if self.index.is_short() {
            return Err(Errno::NOSPC);
        }
        let parent = self.file_of(core, parent)?;
        Self::checked(parent, given)?;
        let place = Place { parent, name: given.to_vec() };
        if self.shown(&place)?.is_some() {
            return Err(Errno::EXIST);
        }
        let replicas = if kind.is_file() { self.placed_at(parent, given)? } else { Vec::new() };
        let dir = self.dir(core, parent)?;
        let of_parent = dir.stat_self()?;
        let default = match &kind {
            Kind::Symlink(_) => None,
            _ => default_acl(&dir)?,
        };
        let (list, mut mode) = match default.clone() {
            Some(default) => default.inherited(mode & 0o7777),
            None => (None, mode & 0o7777 & !caller.umask),
        };
        let default = default.filter(|_| kind.is_dir());
        let acls: Vec<_> = [(ACCESS, list), (DEFAULT, default)]
            .into_iter()
            .filter_map(|(name, acl)| Some((name, acl?.to_bytes())))
            .collect();
        let mut gid = caller.gid;
        if of_parent.st_mode & libc::S_ISGID != 0 {
            gid = of_parent.st_gid;
            if kind.is_dir() {
                mode |= libc::S_ISGID;
            }
        }
        if matches!(kind, Kind::Symlink(_)) {
            mode = 0o777;
        }
        let file = self.new_id();
        // Half of it is never seen, not even after a crash.
        let staged = self.staging_for(file);
        let mut attr = Attr { mode, uid: caller.uid, gid, mtime_sec: 0, mtime_nsec: 0 };
        let made = (|| {
            let open = Self::make_on_disk(&staged.dir, &staged.name, &kind, attr.mode)?;
            Self::finish(&staged.dir, &staged.name, file, &kind, open.as_ref(), &attr)?;
            for (name, acl) in &acls {
                access::set_xattr(&staged.dir, &staged.name, name, acl, XattrFlags::empty())?;
            }
            let open = match open {
                Some(open) => Some((open, access::open(&staged.dir, &staged.name, OFlags::RDONLY, 0)?)),
                None => None,
            };
            access::rename(&staged.dir, &staged.name, &dir, given, RenameFlags::NOREPLACE)?;
            Ok(open)
        })();
        if made.is_err() {
            let _ = super::amiss::remove(&staged.dir, &staged.name);
        }
        let open = made?;
        let made = (|| {
            let raw = match &open {
                Some((open, _)) => open.stat()?,
                None => access::stat(&dir, given)?,
            };
            attr.mtime_sec = raw.st_mtime;
            attr.mtime_nsec = u32::try_from(raw.st_mtime_nsec).unwrap_or(0);
            let mut change = Change::new(self, core);
            self.revive(&mut change, parent)?;
            let kept = kind.clone();
            let op = Op::Create { brick: self.me, kind, attr, place: place.clone(), replicas };
            let entry = change.emit(file, op)?;
            let link = entry.made_link().ok_or(Errno::IO)?;
            for (name, acl) in acls {
                change.emit(file, Op::SetXattr { name: name.to_vec(), value: Some(acl) })?;
            }
            *change.local_mut(file)? = Local {
                placed: BTreeMap::from([(link, place.clone())]),
                dirty: kept.is_file(),
                dirty_since: entry.stamp().millis(),
                synced: kept.is_file().then(Default::default),
                ..Local::default()
            };
            change.show(&place, Some(Shown { file, link, kind: d_type(&kept) }));
            change.commit()?;
            let mut stat = super::core::stat_from(0, &raw);
            stat.node = core.nodes.looked_up(file);
            Ok(stat)
        })();
        match made {
            Ok(stat) => Ok((file, stat, open)),
            Err(error) => {
                self.unmake(core, &place, file, &At { dir, name: given.to_vec() });
                Err(error)
            }
        }
    }

    /// A removed directory in which a program goes on making things is a directory again.
    pub(super) fn revive(&self, change: &mut Change<'_>, dir: FileId) -> FsResult<()> {
        let mut at = dir;
        for _ in 0..super::names::MAX_DEPTH {
            let Some((link, place)) = change.local(at)?.and_then(|l| l.needed) else { return Ok(()) };
            change.need(at, None)?;
            let up = place.parent;
            change.emit(at, Op::Move { link, place })?;
            at = up;
        }
        Ok(())
    }

    /// A removed name that only an edit keeps, as it is the last one of the file, is a name again: one more would
    /// take that reason away, and no link takes a name from the file that it is made of.
    pub(super) fn revive_names(&self, change: &mut Change<'_>, file: FileId) -> FsResult<()> {
        let object = change.object(file)?;
        let kept: Vec<_> = object.kept_links().map(|(link, reg)| (link, reg.value.clone())).collect();
        for (link, place) in kept {
            change.emit(file, Op::Move { link, place })?;
        }
        Ok(())
    }

    /// A FIFO, socket or device, or an empty file. Counts a lookup.
    ///
    /// # Errors
    /// `EXIST`, `NOENT`; what the disk says.
    pub fn mknod(
        &self,
        caller: Caller,
        parent: NodeId,
        given: &[u8],
        mode: u32,
        rdev: u64,
    ) -> FsResult<Stat> {
        let core = &mut *self.lock();
        let kind = match mode & libc::S_IFMT {
            0 | libc::S_IFREG => Kind::File,
            format @ (libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK) => {
                Kind::Special { format, rdev }
            }
            _ => return Err(Errno::INVAL),
        };
        let is_file = kind.is_file();
        let (file, stat, _) = self.make(core, caller, parent, given, kind, mode & 0o7777)?;
        if is_file {
            self.settler.soon(file);
        }
        Ok(stat)
    }

    /// A directory. Counts a lookup.
    ///
    /// # Errors
    /// `EXIST`, `NOENT`; what the disk says.
    pub fn mkdir(&self, caller: Caller, parent: NodeId, given: &[u8], mode: u32) -> FsResult<Stat> {
        Ok(self.make(&mut self.lock(), caller, parent, given, Kind::Dir, mode)?.1)
    }

    /// A symbolic link. Counts a lookup.
    ///
    /// # Errors
    /// `EXIST`, `NOENT`; what the disk says.
    pub fn symlink(&self, caller: Caller, parent: NodeId, given: &[u8], target: &[u8]) -> FsResult<Stat> {
        if target.len() > nearbrick_core::op::MAX_TARGET {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(self.make(&mut self.lock(), caller, parent, given, Kind::Symlink(target.to_vec()), 0o777)?.1)
    }

    /// A file that did not exist, opened. Counts a lookup.
    ///
    /// # Errors
    /// `EXIST`, `NOENT`; what the disk says.
    pub fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        given: &[u8],
        mode: u32,
        flags: i32,
    ) -> FsResult<(Stat, Opened)> {
        let core = &mut *self.lock();
        let (file, stat, open) = self.make(core, caller, parent, given, Kind::File, mode)?;
        if let Ok(dir) = self.file_of(core, parent) {
            self.note_use(dir, Access::Write);
        }
        let (open, data) = open.ok_or(Errno::IO)?;
        let writer = flags & libc::O_ACCMODE != libc::O_RDONLY;
        if !writer {
            self.settler.soon(file);
        }
        let opened = self.opened_local(core, stat.node, data, if writer { Some(open) } else { None });
        Ok((stat, opened))
    }

    /// One more name of an object. Counts a lookup.
    ///
    /// # Errors
    /// `EXIST`, `NOENT`, `PERM` for directories; what the disk says.
    pub fn link(&self, node: NodeId, parent: NodeId, given: &[u8]) -> FsResult<Stat> {
        self.writable()?;
        let core = &mut *self.lock();
        let file = self.file_of(core, node)?;
        let parent = self.file_of(core, parent)?;
        Self::checked(parent, given)?;
        let place = Place { parent, name: given.to_vec() };
        if self.shown(&place)?.is_some() {
            return Err(Errno::EXIST);
        }
        let local = self.local_of(file)?;
        let kind = self.object_of(file)?.kind.ok_or(Errno::NOENT)?;
        if kind.is_dir() {
            return Err(Errno::PERM);
        }
        let from = self.at(core, file, &local)?;
        let to = self.at_place(core, &place)?;
        access::link(&from.dir, &from.name, &to.dir, given)?;
        let done = (|| {
            let mut change = Change::new(self, core);
            self.revive(&mut change, parent)?;
            self.revive_names(&mut change, file)?;
            let link = change.emit(file, Op::Link(place.clone()))?.made_link().ok_or(Errno::IO)?;
            change.local_mut(file)?.placed.insert(link, place.clone());
            change.show(&place, Some(Shown { file, link, kind: d_type(&kind) }));
            change.refresh_print(file)?;
            change.commit()
        })();
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                self.unmake(core, &place, file, &to);
                self.not_said(core, file, &from, Ok(()));
                return Err(error);
            }
        };
        self.follow(core, done)?;
        let local = self.local_of(file)?;
        let mut stat = self.stat_of(core, file, &local)?;
        stat.node = core.nodes.looked_up(file);
        Ok(stat)
    }
}
