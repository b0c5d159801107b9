//! What the kernel's device can do and no safe binding offers: a session that goes on with a device
//! which was mounted before, and brick files that stay registered when agents are replaced.
#![allow(unsafe_code)] // dup2 onto a borrowed descriptor, and two calls of fuser that trust the caller's number.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use fuser::{BackingId, Generation, ReplyCreate, ReplyOpen};

use super::opening::FLAGS;
use crate::brick::disk::File;

/// `FUSE_DEV_IOC_BACKING_CLOSE`: `_IOW(229, 2, uint32_t)`.
type BackingClose = rustix::ioctl::Setter<{ rustix::ioctl::opcode::write::<u32>(229, 2) }, u32>;

/// Puts `device` in the place of the descriptor `number`, of a session that runs: whatever it reads and
/// writes from now on goes there. The caller sees to it that the session does not end meanwhile.
///
/// # Errors
/// What the kernel says; nothing changed then.
pub fn put_behind(number: RawFd, device: impl AsFd) -> io::Result<()> {
    // SAFETY: the number is the session's, which holds it open as its threads run and wait; dup2 replaces what
    // is behind it in one step. It is not closed here, so it stays its owner's.
    let mut theirs = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    rustix::io::dup3(device, &mut theirs, rustix::io::DupFlags::CLOEXEC)?;
    Ok(())
}

/// Has the kernel lay memory under the buffer into which this thread's requests are read, of which `request` is the
/// first. Without it, a SIGKILL that meets the kernel as it copies a request there makes the kernel answer that
/// request with EIO: it finds no page, and lays none for a process that is dying.
pub fn lay_buffer(request: &fuser::Request, len: usize) {
    const PAGE: usize = 4096;
    let start = std::ptr::from_ref(request).cast::<std::ffi::c_void>().cast_mut();
    let start = start.map_addr(|at| at & !(PAGE - 1));
    // SAFETY: this advice changes no byte, and fails where nothing is mapped. `fuser` reads each request to the
    // beginning of a buffer of 16 MiB, more than `len`.
    let laid = unsafe { rustix::mm::madvise(start, len, rustix::mm::Advice::LinuxPopulateWrite) };
    if let Err(error) = laid {
        tracing::debug!(%error, "a buffer for requests comes page by page");
    }
}

/// A brick file that is registered with the kernel, to be read and written by it. Given back on drop.
#[derive(Debug)]
pub struct Backing {
    id: u32,
    device: Arc<OwnedFd>,
}

impl Backing {
    /// Registers a brick file.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(device: &Arc<OwnedFd>, file: &File) -> io::Result<Self> {
        let file = file.descriptor().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Backing { id: BackingId::create_raw(device, file)?, device: device.clone() })
    }

    /// One that an agent before us registered.
    pub fn resumed(device: &Arc<OwnedFd>, id: u32) -> Self {
        Backing { id, device: device.clone() }
    }

    /// The kernel's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Tells the kernel that an open goes to this file.
    pub fn opened(&self, reply: ReplyOpen, fh: fuser::FileHandle) {
        // SAFETY: the number is registered while `self` is there, and what is made of it is not dropped,
        // so it is not given back.
        let id = unsafe { reply.wrap_backing(self.id) };
        reply.opened_passthrough(fh, FLAGS, &id);
        let _ = id.into_raw();
    }

    /// The same for a new file.
    pub fn created(
        &self,
        reply: ReplyCreate,
        ttl: &std::time::Duration,
        attr: &fuser::FileAttr,
        generation: Generation,
        fh: fuser::FileHandle,
    ) {
        // SAFETY: as in `opened`.
        let id = unsafe { reply.wrap_backing(self.id) };
        reply.created_passthrough(ttl, attr, generation, fh, FLAGS, &id);
        let _ = id.into_raw();
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        // SAFETY: the call takes the number by address, as the kernel's header says, and keeps nothing.
        let closed = unsafe { rustix::ioctl::ioctl(&self.device, BackingClose::new(self.id)) };
        if let Err(error) = closed {
            // With the mount, all of them are gone.
            tracing::debug!(%error, id = self.id, "a brick file was no longer registered");
        }
    }
}
