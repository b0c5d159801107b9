//! Opening and releasing files: the volume gives a handle, the table of open nodes says
//! whether the kernel may go to the brick file itself.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use fuser::{
    BackingId, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, OpenAccMode, OpenFlags, ReplyCreate,
    ReplyOpen, Request,
};

use super::attr::{caller, file_attr, without_privileges};
use super::open::{Handle, Way};
use super::shell::{GENERATION, NO_TTL, Shell, TTL, answer};
use crate::brick::disk::File;
use crate::volume::types::{FsResult, HandleId, NodeId, Opened, SetAttr};

/// A reply through which brick files can be given to the kernel.
trait Registers {
    fn register(&self, file: &File) -> io::Result<BackingId>;
}

impl Registers for ReplyOpen {
    fn register(&self, file: &File) -> io::Result<BackingId> {
        self.open_backing(file.descriptor().ok_or(io::ErrorKind::Unsupported)?)
    }
}

impl Registers for ReplyCreate {
    fn register(&self, file: &File) -> io::Result<BackingId> {
        self.open_backing(file.descriptor().ok_or(io::ErrorKind::Unsupported)?)
    }
}

impl Shell {
    pub(super) fn create_file(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        (mode, umask): (u32, u32),
        flags: i32,
        reply: ReplyCreate,
    ) {
        let who = caller(req, umask);
        let created = self.call("create", |v| v.create(who, parent.0, name.as_bytes(), mode & 0o7777, flags));
        let (stat, opened) = match created {
            Ok(created) => created,
            Err(error) => return reply.error(error),
        };
        let writer = is_writer(OpenFlags(flags));
        let attr = file_attr(&stat);
        let tell = |reply: ReplyCreate, fh, way: Way<'_, _>| match way {
            Way::Served => reply.created(&TTL, &attr, GENERATION, fh, FopenFlags::empty()),
            Way::Direct => reply.created(&TTL, &attr, GENERATION, fh, FopenFlags::FOPEN_DIRECT_IO),
            Way::Passthrough(id) => {
                let ttl = if writer { &NO_TTL } else { &TTL };
                reply.created_passthrough(ttl, &attr, GENERATION, fh, FopenFlags::empty(), id);
            }
        };
        if let Err(reply) = self.opened(stat.node, &opened, stat.perm, writer, reply, tell) {
            self.forget(req, INodeNo(stat.node), 1);
            reply.error(Errno::ESTALE);
        }
    }

    pub(super) fn open_file(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writer = is_writer(flags);
        let truncates = flags.0 & libc::O_TRUNC != 0;
        let opened = self.call("open", |v| {
            if truncates && req.uid() != 0 {
                self.kill_privileges(ino.0, None)?;
            }
            let opened = v.open_file(ino.0, flags.0)?;
            // Only writers mind the mode.
            let perm = if writer && opened.local.is_some() {
                v.getattr(ino.0, Some(opened.handle)).map(|stat| stat.perm)
            } else {
                Ok(0)
            };
            perm.map(|perm| (opened.clone(), perm)).inspect_err(|_| v.release(opened.handle))
        });
        let (opened, perm) = match opened {
            Ok(opened) => opened,
            Err(error) => return reply.error(error),
        };
        let tell = |reply: ReplyOpen, fh, way: Way<'_, _>| match way {
            Way::Served => reply.opened(fh, FopenFlags::empty()),
            Way::Direct => reply.opened(fh, FopenFlags::FOPEN_DIRECT_IO),
            Way::Passthrough(id) => {
                reply.opened_passthrough(fh, FopenFlags::empty(), id);
                if writer && !truncates {
                    // What the kernel knows now will not stay true.
                    self.queue.attributes(ino.0);
                }
            }
        };
        if let Err(reply) = self.opened(ino.0, &opened, perm, writer, reply, tell) {
            reply.error(Errno::ESTALE);
        }
    }

    pub(super) fn released(&self, ino: INodeNo, fh: FileHandle, flags: OpenFlags) -> Result<(), Errno> {
        let handle = Handle::from_raw(fh.0);
        self.nodes.leave(ino.0, handle, is_writer(flags));
        // Also when the mount is gone: the volume must know who still writes.
        answer("release", || {
            self.volume.release(handle.id);
            Ok(())
        })
    }

    /// Tells the kernel how a file is open. Writes by the kernel itself do not take setuid
    /// and setgid away, so files with these in their `perm` are served to writers.
    fn opened<R: Registers>(
        &self,
        node: NodeId,
        opened: &Opened,
        perm: u32,
        writer: bool,
        reply: R,
        tell: impl FnOnce(R, FileHandle, Way<'_, BackingId>),
    ) -> Result<(), R> {
        let passes = self.negotiated.passthrough() && !(writer && without_privileges(perm) != perm);
        let register = passes.then_some(R::register);
        let tell = |reply, handle: Handle, way: Way<'_, _>| tell(reply, FileHandle(handle.to_raw()), way);
        self.nodes.enter(node, opened, writer, reply, register, tell).inspect_err(|_| {
            let _ = answer("release", || {
                self.volume.release(opened.handle);
                Ok(())
            });
        })
    }

    /// Takes setuid and setgid away after a change by someone who may not keep them.
    pub(super) fn kill_privileges(&self, node: NodeId, handle: Option<HandleId>) -> FsResult<()> {
        let perm = self.volume.getattr(node, handle)?.perm;
        let without = without_privileges(perm);
        if without != perm {
            let set = SetAttr { mode: Some(without), ..SetAttr::default() };
            self.volume.setattr(node, handle, &set)?;
            self.queue.attributes(node);
        }
        Ok(())
    }
}

fn is_writer(flags: OpenFlags) -> bool {
    flags.acc_mode() != OpenAccMode::O_RDONLY
}
