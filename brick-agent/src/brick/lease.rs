//! Read leases: the kernel grants one only when no descriptor and no mapping
//! can still write the file, also those that passthrough hides from us.
#![allow(unsafe_code)] // fcntl(F_SETLEASE) is in no safe binding that is kept up.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A granted read lease; given back on drop.
#[derive(Debug)]
pub struct ReadLease<F: AsFd>(F);

/// What the kernel says to the wish for a lease.
#[derive(Debug)]
pub enum Lease<F: AsFd> {
    /// No one can write the file now.
    Granted(ReadLease<F>),
    /// Someone holds it open for writing, or mapped.
    Writable,
    /// This file system has no leases.
    Unsupported,
}

fn set(fd: &impl AsFd, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: F_SETLEASE takes an int and touches no memory of ours; the
    // descriptor is open for as long as it is borrowed.
    match unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETLEASE, kind) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Asks for a read lease on `file`, which is open read-only.
///
/// Breaking a lease raises SIGIO: [`ignore_lease_signals`] must have been called.
///
/// # Errors
/// What the kernel says, other than the three answers above.
pub fn read_lease<F: AsFd>(file: F) -> io::Result<Lease<F>> {
    match set(&file, libc::F_RDLCK) {
        Ok(()) => Ok(Lease::Granted(ReadLease(file))),
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(Lease::Writable),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOLCK)) => Ok(Lease::Unsupported),
        Err(e) => Err(e),
    }
}

impl<F: AsFd> Drop for ReadLease<F> {
    fn drop(&mut self) {
        // The kernel drops it with the descriptor at the latest.
        let _ = set(&self.0, libc::F_UNLCK);
    }
}

/// A broken lease sends SIGIO, which would end the process. A lease is held for
/// microseconds, and whoever breaks it waits for its return: nothing to do on the signal.
pub fn ignore_lease_signals() {
    // SAFETY: installing SIG_IGN runs no code of ours in signal context.
    unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn granted_only_when_no_one_can_write() {
        ignore_lease_signals();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let writer = File::create(&path).unwrap();
        assert!(matches!(read_lease(File::open(&path).unwrap()).unwrap(), Lease::Writable));
        drop(writer);
        assert!(matches!(read_lease(File::open(&path).unwrap()).unwrap(), Lease::Granted(_)));
        File::options().write(true).open(&path).unwrap();
    }
}
