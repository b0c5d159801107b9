//! Opening and releasing files: the volume gives a handle, the table of open nodes says
//! whether the kernel may go to the brick file itself.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileHandle, FopenFlags, INodeNo, OpenAccMode, OpenFlags, ReplyCreate, ReplyOpen, Request,
};

use super::again::number;
use super::attr::{caller, file_attr, without_privileges};
use super::device::Backing;
use super::ledger::Entry;
use super::open::{Handle, Way};
use super::shell::{GENERATION, Shell, TTL, answer};
use crate::brick::disk::File;
use crate::volume::types::{FsResult, HandleId, NodeId, Opened, SetAttr, Stat};

/// The kernel asks whether a file may be opened just after it had it made, and need not ask us. What programs write
/// makes it forget the attributes; what they change in a mapping is shown that much later.
const WHILE_MADE: Duration = Duration::from_millis(5);

/// Of every open file: nothing is held back, so no close waits for an agent.
pub(super) const FLAGS: FopenFlags = FopenFlags::FOPEN_NOFLUSH;

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
        let writer = is_writer(OpenFlags(flags));
        if let Some(entry) = self.opened_before(req) {
            let handle = Handle::from_raw(entry.raw);
            let stat = self.call("create", |v| {
                let stat = v.getattr(entry.node, Some(handle.id))?;
                // Without a name it cannot be looked up, and need not.
                Ok(v.looked_up(entry.file).map_or(stat, |counted| counted))
            });
            return match stat {
                Ok(stat) => {
                    let tell =
                        |reply, handle, way: Way<'_, _>| say_created(reply, handle, way, &stat, writer);
                    self.nodes.again(entry.node, handle, reply, tell);
                }
                Err(error) => reply.error(error),
            };
        }
        let mut made = None;
        let stat = self.makes("create", req, (parent.0, name.as_bytes()), Some((who, mode)), |v| {
            let (stat, opened) = v.create(who, parent.0, name.as_bytes(), mode & 0o7777, flags)?;
            made = Some(opened);
            Ok(stat)
        });
        // Without a new handle it was made by an agent before this one.
        let created = stat.and_then(|stat| match made {
            Some(opened) => Ok((stat, opened)),
            None => self.call("open", |v| v.open_file(stat.node, flags)).map(|opened| (stat, opened)),
        });
        let (stat, opened) = match created {
            Ok(created) => created,
            Err(error) => return reply.error(error),
        };
        let tell = |reply, handle, way: Way<'_, _>| say_created(reply, handle, way, &stat, writer);
        if let Err(reply) = self.opened(stat.node, &opened, stat.perm, writer, number(req).0, reply, tell) {
            self.volume.forget(stat.node, 1);
            reply.error(Errno::ESTALE);
        }
    }

    /// Opens a file: at once, or, if a peer has to be waited for, on a thread of its own.
    pub(super) fn open_file(
        self: &Arc<Self>,
        req: &Request,
        ino: INodeNo,
        flags: OpenFlags,
        reply: ReplyOpen,
    ) {
        let truncates = flags.0 & libc::O_TRUNC != 0;
        let (by_root, shell, request) = (req.uid() == 0, self.clone(), number(req).0);
        if let Some(entry) = self.opened_before(req) {
            let tell = |reply, handle, way: Way<'_, _>| self.say_opened(ino, flags, reply, handle, way);
            return self.nodes.again(ino.0, Handle::from_raw(entry.raw), reply, tell);
        }
        let here = self.call("open", |v| {
            if truncates && !by_root {
                self.kill_privileges(ino.0, None)?;
            }
            v.open_here(ino.0, flags.0)
        });
        match here {
            Ok(Some(opened)) => self.tell_opened(ino, flags, opened, request, reply),
            Err(error) => reply.error(error),
            Ok(None) => {
                self.far_opens.run(move || match shell.call("open", |v| v.open_file(ino.0, flags.0)) {
                    Ok(opened) => shell.tell_opened(ino, flags, opened, request, reply),
                    Err(error) => reply.error(error),
                })
            }
        }
    }

    fn tell_opened(&self, ino: INodeNo, flags: OpenFlags, opened: Opened, request: u64, reply: ReplyOpen) {
        let writer = is_writer(flags);
        // Only writers mind the mode.
        let perm = if writer && opened.local.is_some() {
            self.call("open", |v| v.getattr(ino.0, Some(opened.handle)).map(|stat| stat.perm))
        } else {
            Ok(0)
        };
        let perm = match perm {
            Ok(perm) => perm,
            Err(error) => {
                self.give_up(&opened);
                return reply.error(error);
            }
        };
        let tell = |reply, handle, way: Way<'_, _>| self.say_opened(ino, flags, reply, handle, way);
        if let Err(reply) = self.opened(ino.0, &opened, perm, writer, request, reply, tell) {
            reply.error(Errno::ESTALE);
        }
    }

    fn say_opened(
        &self,
        ino: INodeNo,
        flags: OpenFlags,
        reply: ReplyOpen,
        handle: Handle,
        way: Way<'_, Backing>,
    ) {
        let fh = FileHandle(handle.to_raw());
        match way {
            Way::Served => reply.opened(fh, FLAGS),
            Way::Direct => reply.opened(fh, FLAGS | FopenFlags::FOPEN_DIRECT_IO),
            Way::Passthrough(backing) => {
                backing.opened(reply, fh);
                if is_writer(flags) && flags.0 & libc::O_TRUNC == 0 {
                    // What the kernel knows now will not stay true.
                    self.queue.attributes(ino.0);
                }
            }
        }
    }

    /// What an agent before this one opened on behalf of the request, and did not say.
    fn opened_before(&self, req: &Request) -> Option<Entry> {
        let (number, again) = number(req);
        self.ledger.as_ref().filter(|_| again)?.opened_for(number)
    }

    /// The kernel does not take what was opened.
    fn give_up(&self, opened: &Opened) {
        let _ = answer("release", || {
            self.volume.release(opened.handle);
            Ok(())
        });
    }

    pub(super) fn released(&self, ino: INodeNo, fh: FileHandle, flags: OpenFlags) -> Result<(), Errno> {
        let handle = Handle::from_raw(fh.0);
        self.begun(|| {
            // One that comes again, after an agent died over it, may be done.
            if self.ledger.as_ref().is_some_and(|ledger| !ledger.has(fh.0)) {
                return Ok(());
            }
            self.nodes.leave(ino.0, handle, is_writer(flags));
            // Also when the mount is gone: the volume must know who still writes.
            let done = answer("release", || {
                self.volume.release(handle.id);
                Ok(())
            });
            if let Some(ledger) = &self.ledger {
                ledger.closed(fh.0);
            }
            done
        })
    }

    /// Counts an open from before this agent. `opened`: what the volume has of it; nothing if it was lost.
    pub(super) fn resume(&self, entry: &Entry, opened: Option<&Opened>) {
        if Handle::from_raw(entry.raw).direct {
            return;
        }
        let backing = opened.map_or(u64::MAX, |opened| opened.backing);
        let passthrough = entry.backing.map(|id| (move || Backing::resumed(&self.device, id), backing));
        self.nodes.resume(entry.node, entry.writes, passthrough);
    }

    /// What the kernel may do with the listing of a directory that it opens.
    pub(super) fn dir_flags(&self, ino: INodeNo) -> FopenFlags {
        match self.queue.listed().is_as_read(ino.0) {
            true => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
            false => FopenFlags::FOPEN_CACHE_DIR,
        }
    }

    pub(super) fn open_dir(&self, req: &Request, ino: INodeNo) -> Result<FileHandle, Errno> {
        if let Some(entry) = self.opened_before(req) {
            return Ok(FileHandle(entry.raw));
        }
        self.call("opendir", |v| {
            let id = v.opendir(ino.0)?;
            let raw = Handle { id, far: false, direct: false }.to_raw();
            self.note(raw, ino.0, number(req).0, |_| {});
            Ok(FileHandle(raw))
        })
    }

    pub(super) fn released_dir(&self, fh: FileHandle) -> Result<(), Errno> {
        self.begun(|| {
            let done = answer("releasedir", || {
                self.volume.releasedir(Handle::from_raw(fh.0).id);
                Ok(())
            });
            if let Some(ledger) = &self.ledger {
                ledger.closed(fh.0);
            }
            done
        })
    }

    /// Writes an open down for the next agent: a directory, unless `file` says otherwise.
    fn note(&self, raw: u64, node: NodeId, request: u64, file: impl FnOnce(&mut Entry)) {
        let Some(ledger) = &self.ledger else { return };
        let Some(object) = self.volume.object_behind(node) else { return };
        let (dir, writes, backing, inode) = (true, false, None, None);
        let mut entry = Entry { raw, node, file: object, request, dir, writes, backing, inode };
        file(&mut entry);
        ledger.opened(entry);
    }

    /// Tells the kernel how a file is open, once that is noted. Writes by the kernel itself do not take setuid
    /// and setgid away, so files with these in their `perm` are served to writers.
    #[allow(clippy::too_many_arguments)]
    fn opened<R>(
        &self,
        node: NodeId,
        opened: &Opened,
        perm: u32,
        writer: bool,
        request: u64,
        reply: R,
        tell: impl FnOnce(R, Handle, Way<'_, Backing>),
    ) -> Result<(), R> {
        let passes = self.negotiated.passthrough() && !(writer && without_privileges(perm) != perm);
        let register = passes.then_some(|_: &R, file: &File| Backing::new(&self.device, file));
        let tell = |reply, handle: Handle, way: Way<'_, Backing>| {
            self.note(handle.to_raw(), node, request, |entry| {
                entry.dir = false;
                entry.writes = writer;
                entry.inode = opened.local.as_ref().and_then(|file| file.stat().ok()).map(|stat| stat.st_ino);
                if let Way::Passthrough(backing) = &way {
                    entry.backing = Some(backing.id());
                }
            });
            tell(reply, handle, way);
        };
        self.nodes.enter(node, opened, writer, reply, register, tell).inspect_err(|_| self.give_up(opened))
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

fn say_created(reply: ReplyCreate, handle: Handle, way: Way<'_, Backing>, stat: &Stat, writer: bool) {
    let (fh, attr) = (FileHandle(handle.to_raw()), file_attr(stat));
    match way {
        Way::Served => reply.created(&TTL, &attr, GENERATION, fh, FLAGS),
        Way::Direct => reply.created(&TTL, &attr, GENERATION, fh, FLAGS | FopenFlags::FOPEN_DIRECT_IO),
        Way::Passthrough(backing) => {
            let ttl = if writer { &WHILE_MADE } else { &TTL };
            backing.created(reply, ttl, &attr, GENERATION, fh);
        }
    }
}

fn is_writer(flags: OpenFlags) -> bool {
    flags.acc_mode() != OpenAccMode::O_RDONLY
}
