//! The kernel's requests as calls of the [`Volume`]. Translation only: what a
//! request means is decided there.
//!
//! A panic while a request is served is answered with EIO and logged; the mount goes on.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BackingId, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use nearbrick_core::acl::is_acl;

use super::attr::{caller, file_attr, set_time, without_privileges};
use super::far::Far;
use super::init::{self, Negotiated};
use super::invalidate::Queue;
use super::open::{Handle, OpenNodes};
use crate::volume::Volume;
use crate::volume::types::{FsResult, HandleId, NodeId, SetAttr, Stat};

/// How long the kernel may keep names and attributes. Changes by peers
/// are taken back explicitly, see [`super::invalidate`].
pub(super) const TTL: Duration = Duration::from_secs(3600);
/// For attributes that programs may be changing behind our back.
pub(super) const NO_TTL: Duration = Duration::ZERO;
/// No node id is used twice for different files while the kernel knows it.
pub(super) const GENERATION: Generation = Generation(0);
/// File capabilities have no effect below a `nosuid` mount, and writes that the kernel
/// does itself could not take them away. So there are none.
const CAPABILITY: &[u8] = b"security.capability";

thread_local! {
    /// The bytes of a read, kept by each thread.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One mount.
pub struct Shell {
    pub(super) volume: Arc<Volume>,
    wanted: bool,
    pub(super) negotiated: Arc<Negotiated>,
    /// Unmounted, though programs may still hold on to it.
    gone: Arc<AtomicBool>,
    pub(super) nodes: OpenNodes<BackingId>,
    pub(super) queue: Queue,
    far: Far,
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

/// Runs the call; its error or panic becomes the kernel's.
pub(super) fn answer<T>(what: &'static str, call: impl FnOnce() -> FsResult<T>) -> Result<T, Errno> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(errno),
        Err(_) => {
            tracing::error!(request = what, "a fault in the agent: the request was answered with EIO");
            Err(Errno::EIO)
        }
    }
}

/// Answers with the error, or as the last part says.
macro_rules! reply {
    ($reply:ident, $result:expr, $value:pat => $ok:expr) => {
        match $result {
            Ok($value) => $ok,
            Err(error) => $reply.error(error),
        }
    };
}

impl Shell {
    pub(super) fn new(
        volume: Arc<Volume>,
        passthrough: bool,
        negotiated: Arc<Negotiated>,
        gone: Arc<AtomicBool>,
        queue: Queue,
    ) -> Self {
        Shell {
            volume,
            wanted: passthrough,
            negotiated,
            gone,
            nodes: OpenNodes::default(),
            queue,
            far: Far::default(),
        }
    }

    pub(super) fn call<T>(
        &self,
        what: &'static str,
        call: impl FnOnce(&Volume) -> FsResult<T>,
    ) -> Result<T, Errno> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Errno::ENOTCONN);
        }
        answer(what, || call(&self.volume))
    }

    /// How long the kernel may keep the attributes of the node.
    pub(super) fn ttl(&self, node: NodeId) -> Duration {
        if self.nodes.written_unseen(node) { NO_TTL } else { TTL }
    }

    fn entry(&self, reply: ReplyEntry, result: Result<Stat, Errno>) {
        reply!(reply, result, stat => {
            reply.entry_with_ttls(&self.ttl(stat.node), &TTL, &file_attr(&stat), GENERATION);
        });
    }

    fn done(reply: ReplyEmpty, result: Result<(), Errno>) {
        reply!(reply, result, () => reply.ok());
    }
}

fn xattr(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, Errno>) {
    match value {
        Err(error) => reply.error(error),
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
    }
}

fn read(volume: &Volume, handle: HandleId, offset: u64, size: u32, reply: ReplyData) {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        match answer("read", || volume.read(handle, offset, size as usize, buffer)) {
            Ok(()) => reply.data(buffer),
            Err(error) => reply.error(error),
        }
    });
}

impl Filesystem for Shell {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        init::negotiate(config, self.wanted, &self.negotiated);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.call("lookup", |v| v.lookup(parent.0, name.as_bytes())));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        let _ = answer("forget", || {
            self.volume.forget(ino.0, lookups);
            Ok(())
        });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let handle = fh.map(|fh| Handle::from_raw(fh.0).id);
        let result = self.call("getattr", |v| v.getattr(ino.0, handle));
        reply!(reply, result, stat => reply.attr(&self.ttl(ino.0), &file_attr(&stat)));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let handle = fh.map(|fh| Handle::from_raw(fh.0).id);
        let mode = mode.map(|m| m & 0o7777);
        let (atime, mtime) = (atime.map(set_time), mtime.map(set_time));
        let mut set = SetAttr { mode, uid, gid, size, atime, mtime };
        let result = self.call("setattr", |v| {
            // HANDLE_KILLPRIV_V2: a new owner takes privileges away, a new size from those without rights.
            if uid.is_some() || gid.is_some() || (size.is_some() && req.uid() != 0) {
                let stat = v.getattr(ino.0, handle)?;
                let perm = mode.unwrap_or(stat.perm);
                let without = without_privileges(perm);
                if stat.kind.is_file() && without != perm {
                    set.mode = Some(without);
                }
            }
            v.setattr(ino.0, handle, &set)
        });
        reply!(reply, result, stat => reply.attr(&self.ttl(ino.0), &file_attr(&stat)));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let result = self.call("readlink", |v| v.readlink(ino.0));
        reply!(reply, result, target => reply.data(&target));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (who, name) = (caller(req, umask), name.as_bytes());
        self.entry(reply, self.call("mknod", |v| v.mknod(who, parent.0, name, mode, u64::from(rdev))));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (who, name) = (caller(req, umask), name.as_bytes());
        self.entry(reply, self.call("mkdir", |v| v.mkdir(who, parent.0, name, mode & 0o7777)));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (who, target) = (caller(req, 0), target.as_os_str().as_bytes());
        self.entry(reply, self.call("symlink", |v| v.symlink(who, parent.0, name.as_bytes(), target)));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::done(reply, self.call("unlink", |v| v.unlink(parent.0, name.as_bytes())));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::done(reply, self.call("rmdir", |v| v.rmdir(parent.0, name.as_bytes())));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, to_name) = (name.as_bytes(), to_name.as_bytes());
        let result = self.call("rename", |v| v.rename(parent.0, name, to_parent.0, to_name, flags.bits()));
        Self::done(reply, result);
    }

    fn link(&self, _req: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.call("link", |v| v.link(ino.0, parent.0, name.as_bytes())));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.create_file(req, parent, name, (mode, umask), flags, reply);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.open_file(req, ino, flags, reply);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if self.gone.load(Ordering::Relaxed) {
            return reply.error(Errno::ENOTCONN);
        }
        let handle = Handle::from_raw(fh.0);
        if handle.far {
            let volume = self.volume.clone();
            self.far.run(move || read(&volume, handle.id, offset, size, reply));
        } else {
            read(&self.volume, handle.id, offset, size, reply);
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let handle = Handle::from_raw(fh.0).id;
        let result = self.call("write", |v| {
            if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
                self.kill_privileges(ino.0, Some(handle))?;
            }
            v.write(handle, offset, data)
        });
        reply!(reply, result, written => reply.written(written as u32));
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        Self::done(reply, self.call("flush", |v| v.flush(Handle::from_raw(fh.0).id)));
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        Self::done(reply, self.released(ino, fh, flags));
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        Self::done(reply, self.call("fsync", |v| v.fsync(Handle::from_raw(fh.0).id, datasync)));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let result = self.call("opendir", |v| v.opendir(ino.0));
        reply!(reply, result, id => reply.opened(FileHandle(id), FopenFlags::empty()));
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let filled = self.list(fh, offset, &mut reply);
        reply!(reply, filled, () => reply.ok());
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let filled = self.list_plus(ino, fh, offset, &mut reply);
        reply!(reply, filled, () => reply.ok());
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let result = answer("releasedir", || {
            self.volume.releasedir(fh.0);
            Ok(())
        });
        Self::done(reply, result);
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        Self::done(reply, self.call("fsyncdir", |v| v.fsyncdir(ino.0)));
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let result = self.call("statfs", Volume::statfs);
        reply!(reply, result, s => reply.statfs(
            s.f_blocks,
            s.f_bfree,
            s.f_bavail,
            s.f_files,
            s.f_ffree,
            s.f_bsize as u32,
            s.f_namemax as u32,
            s.f_frsize as u32,
        ));
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let name = name.as_bytes();
        if name == CAPABILITY {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let result = self.call("setxattr", |v| match is_acl(name) {
            true => v.set_acl(caller(req, 0), ino.0, name, value),
            false => v.setxattr(ino.0, name, value, flags),
        });
        Self::done(reply, result);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr(reply, size, self.call("getxattr", |v| v.getxattr(ino.0, name.as_bytes())));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        xattr(reply, size, self.call("listxattr", |v| v.listxattr(ino.0)));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::done(reply, self.call("removexattr", |v| v.removexattr(ino.0, name.as_bytes())));
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let handle = Handle::from_raw(fh.0).id;
        let result = self.call("fallocate", |v| {
            if req.uid() != 0 {
                self.kill_privileges(ino.0, Some(handle))?;
            }
            v.fallocate(handle, offset, length, mode)
        });
        Self::done(reply, result);
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let result = self.call("lseek", |v| v.lseek(Handle::from_raw(fh.0).id, offset, whence));
        reply!(reply, result, at => reply.offset(at as i64));
    }

    // What follows is left to the kernel, which falls back or says so to the program.

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }
}
