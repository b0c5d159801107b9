//! The kernel's requests as calls of the [`Volume`]. Translation only: what a
//! request means is decided there.
//!
//! A panic while a request is served is answered with EIO and logged; the mount goes on.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, Generation, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr,
    ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use nearbrick_core::acl::is_acl;

use super::attr::{caller, file_attr, set_time, without_privileges};
use super::begin::{NOTHING, Start};
use super::device::Backing;
use super::far::Far;
use super::init::{self, Negotiated};
use super::invalidate::Queue;
use super::keep::Keep;
use super::ledger::Ledger;
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

/// Reads that wait for peers, at most, at a time.
const FAR_READS: usize = 32;
/// Opens that wait for peers, at most, at a time.
const FAR_OPENS: usize = 64;

/// Calls of fsync that wait for peers, at most, at a time.
const FAR_SYNCS: usize = 64;

/// What `fuser` serves: the [`Shell`], which calls that wait take with them to threads of their own.
pub struct Served(pub(super) Arc<Shell>);

impl Deref for Served {
    type Target = Shell;
    fn deref(&self) -> &Shell {
        &self.0
    }
}

/// One mount.
pub struct Shell {
    pub(super) volume: Arc<Volume>,
    wanted: bool,
    pub(super) negotiated: Arc<Negotiated>,
    /// Unmounted, though programs may still hold on to it.
    gone: Arc<AtomicBool>,
    pub(super) nodes: OpenNodes<Backing>,
    pub(super) device: Arc<OwnedFd>,
    /// What is open, for the next agent.
    pub(super) ledger: Option<Arc<Ledger>>,
    /// Who keeps the mount for the next agent.
    pub(super) keep: Option<Arc<Keep>>,
    /// The mount is handed over: no call is begun any more.
    over: AtomicBool,
    /// Calls under way.
    calls: AtomicUsize,
    /// Its threads wait here until all of them are ready.
    pub(super) start: Start,
    pub(super) queue: Queue,
    far: Far,
    /// Opens have threads apart from those of reads: the peer that one waits for may not be the other's.
    pub(super) far_opens: Far,
    far_syncs: Far,
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
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        volume: Arc<Volume>,
        passthrough: bool,
        negotiated: Arc<Negotiated>,
        gone: Arc<AtomicBool>,
        queue: Queue,
        device: Arc<OwnedFd>,
        kept: Option<(Arc<Keep>, Arc<Ledger>)>,
        start: Start,
    ) -> Self {
        let (keep, ledger) = kept.unzip();
        Shell {
            volume,
            wanted: passthrough,
            negotiated,
            gone,
            nodes: OpenNodes::default(),
            queue,
            device,
            ledger,
            keep,
            over: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            start,
            far: Far::new("fuse-far", FAR_READS),
            far_opens: Far::new("fuse-far-open", FAR_OPENS),
            far_syncs: Far::new("fuse-far-sync", FAR_SYNCS),
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
        self.begun(|| answer(what, || call(&self.volume)))
    }

    /// Begins a call, unless the mount is handed over: then it is left to the next agent, and this thread ends
    /// with the process.
    pub(super) fn begun<T>(&self, call: impl FnOnce() -> T) -> T {
        struct UnderWay<'a>(&'a AtomicUsize);
        impl Drop for UnderWay<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        let under_way = UnderWay(&self.calls);
        if self.over.load(Ordering::SeqCst) {
            drop(under_way);
            loop {
                std::thread::park();
            }
        }
        call()
    }

    /// Begins no more calls; whether those under way ended within the limit.
    pub(super) fn hand_over(&self, limit: Duration) -> bool {
        self.over.store(true, Ordering::SeqCst);
        super::mount::wait(limit, || self.calls.load(Ordering::SeqCst) == 0)
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

    pub(super) fn done(reply: ReplyEmpty, result: Result<(), Errno>) {
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

impl Filesystem for Served {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        init::negotiate(config, self.wanted, &self.negotiated);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.call("lookup", |v| v.lookup(parent.0, name.as_bytes())));
    }

    fn forget(&self, req: &Request, ino: INodeNo, lookups: u64) {
        if ino.0 == NOTHING {
            return self.start.ready(req);
        }
        let _ = self.begun(|| {
            answer("forget", || {
                self.volume.forget(ino.0, lookups);
                self.queue.listed().forget(ino.0);
                Ok(())
            })
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
        let (shell, by_root) = (self.0.clone(), req.uid() == 0);
        let work = move || {
            let result = shell.call("setattr", |v| {
                // HANDLE_KILLPRIV_V2: a new owner takes privileges away, a new size from those without rights.
                if uid.is_some() || gid.is_some() || (size.is_some() && !by_root) {
                    let stat = v.getattr(ino.0, handle)?;
                    let perm = mode.unwrap_or(stat.perm);
                    let without = without_privileges(perm);
                    if stat.kind.is_file() && without != perm {
                        set.mode = Some(without);
                    }
                }
                v.setattr(ino.0, handle, &set)
            });
            reply!(reply, result, stat => reply.attr(&shell.ttl(ino.0), &file_attr(&stat)));
        };
        // To cut a file, what stays of it must be here.
        if size.is_some_and(|size| size > 0) && self.volume.waits_for_peer(ino.0) {
            self.far_opens.run(work);
        } else {
            work();
        }
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
        let place = (parent.0, name);
        let call = |v: &Volume| v.mknod(who, parent.0, name, mode, u64::from(rdev));
        self.entry(reply, self.makes("mknod", req, place, Some((who, mode)), call));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (who, name) = (caller(req, umask), name.as_bytes());
        let call = |v: &Volume| v.mkdir(who, parent.0, name, mode & 0o7777);
        self.entry(reply, self.makes("mkdir", req, (parent.0, name), Some((who, mode)), call));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (who, target) = (caller(req, 0), target.as_os_str().as_bytes());
        let place = (parent.0, name.as_bytes());
        let call = |v: &Volume| v.symlink(who, parent.0, name.as_bytes(), target);
        self.entry(reply, self.makes("symlink", req, place, Some((who, 0o777)), call));
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let place = (parent.0, name.as_bytes());
        Shell::done(reply, self.takes_away("unlink", req, place, |v| v.unlink(parent.0, name.as_bytes())));
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let place = (parent.0, name.as_bytes());
        Shell::done(reply, self.takes_away("rmdir", req, place, |v| v.rmdir(parent.0, name.as_bytes())));
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, to_name) = (name.as_bytes(), to_name.as_bytes());
        let call = |v: &Volume| v.rename(parent.0, name, to_parent.0, to_name, flags.bits());
        let result = self.takes_away("rename", req, (parent.0, name), call);
        Shell::done(reply, result);
    }

    fn link(&self, req: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes();
        let call = |v: &Volume| v.link(ino.0, parent.0, name);
        self.entry(reply, self.makes("link", req, (parent.0, name), None, call));
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
        self.0.open_file(req, ino, flags, reply);
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
            self.begun(|| read(&self.volume, handle.id, offset, size, reply));
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

    /// Nothing is held back, so there is nothing to do when a descriptor is closed. The kernel asks once, and no
    /// close waits for us then.
    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
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
        Shell::done(reply, self.released(ino, fh, flags));
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let shell = self.0.clone();
        let work = move || {
            let result = shell.call("fsync", |v| v.fsync(Handle::from_raw(fh.0).id, datasync));
            Shell::done(reply, result);
        };
        if self.volume.waits_at_fsync() {
            self.far_syncs.run(work);
        } else {
            work();
        }
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let result = self.open_dir(req, ino);
        reply!(reply, result, fh => reply.opened(fh, self.dir_flags(ino)));
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let filled = self.list(ino, fh, offset, &mut reply);
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
        Shell::done(reply, self.released_dir(fh));
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        Shell::done(reply, self.call("fsyncdir", |v| v.fsyncdir(ino.0)));
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
        Shell::done(reply, result);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr(reply, size, self.call("getxattr", |v| v.getxattr(ino.0, name.as_bytes())));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        xattr(reply, size, self.call("listxattr", |v| v.listxattr(ino.0)));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Shell::done(reply, self.call("removexattr", |v| v.removexattr(ino.0, name.as_bytes())));
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
        Shell::done(reply, result);
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
