//! Locks on a range of a file, of a process and of an open file description.
#![allow(unsafe_code)] // rustix has locks of whole files only, and none of open file descriptions.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Whose the lock is.
#[derive(Clone, Copy)]
pub enum Of {
    Process,
    Description,
}

/// Takes the lock of `len` bytes from `start`, without waiting. Says whether it was to be had.
pub fn try_lock(file: &File, of: Of, start: i64, len: i64) -> bool {
    set(file, of, libc::F_WRLCK, start, len)
}

/// Gives it back.
pub fn unlock(file: &File, of: Of, start: i64, len: i64) {
    assert!(set(file, of, libc::F_UNLCK, start, len));
}

fn set(file: &File, of: Of, kind: i32, start: i64, len: i64) -> bool {
    let command = match of {
        Of::Process => libc::F_SETLK,
        Of::Description => libc::F_OFD_SETLK,
    };
    let lock = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    // SAFETY: the kernel reads the struct, which outlives the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &lock) } {
        0 => true,
        _ => {
            let error = std::io::Error::last_os_error();
            assert!(matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)), "{error}");
            false
        }
    }
}
