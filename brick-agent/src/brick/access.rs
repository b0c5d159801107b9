//! Calls below the brick, each relative to a directory descriptor and one
//! name. `openat2` sees to it that nothing leads out: no symlink is followed,
//! no magic link, no mount point's `..`.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::{Errno, Result};

use super::mark::{self, Mark};
use crate::volume::types::SetTime;

/// How everything below a brick is resolved.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens `name` in `dir`.
///
/// # Errors
/// The kernel's.
pub fn open(dir: impl AsFd, name: &[u8], flags: OFlags, mode: u32) -> Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat2(dir, OsStr::from_bytes(name), flags, Mode::from_bits_retain(mode), BENEATH)?;
    Ok(File::from(fd))
}

/// Opens once more what is open, also when it has no name any more.
///
/// # Errors
/// The kernel's.
pub fn reopen(file: &File, flags: OFlags) -> Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(File::from(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?))
}

/// Opens the directory `name` in `dir`.
///
/// # Errors
/// The kernel's.
pub fn open_dir(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat2(dir, OsStr::from_bytes(name), flags, Mode::empty(), BENEATH)
}

/// Attributes of `name` in `dir`, of a symlink itself.
///
/// # Errors
/// The kernel's.
pub fn stat(dir: impl AsFd, name: &[u8]) -> Result<Stat> {
    rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
}

/// Changes the mode. Never called on symlinks.
///
/// # Errors
/// The kernel's.
pub fn chmod(dir: impl AsFd, name: &[u8], mode: u32) -> Result<()> {
    // Names are checked not to be symlinks by the callers under the lock, and
    // no program can change the brick's tree past us but root.
    rustix::fs::chmodat(dir, OsStr::from_bytes(name), Mode::from_bits_retain(mode), AtFlags::empty())
}

/// Changes owner and group, of a symlink itself.
///
/// # Errors
/// The kernel's.
pub fn chown(dir: impl AsFd, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    rustix::fs::chownat(
        dir,
        OsStr::from_bytes(name),
        uid.map(rustix::fs::Uid::from_raw),
        gid.map(rustix::fs::Gid::from_raw),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// A time to be set, as the kernel takes it.
pub fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(SetTime::At(at)) => {
            let (sec, nsec) = since_epoch(at);
            Timespec { tv_sec: sec, tv_nsec: nsec.into() }
        }
    }
}

/// Sets times, of a symlink itself.
///
/// # Errors
/// The kernel's.
pub fn utimens(dir: impl AsFd, name: &[u8], atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()> {
    let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
    rustix::fs::utimensat(dir, OsStr::from_bytes(name), &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Seconds (rounded down) and nanoseconds since 1970; also before it.
pub fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let sec = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-sec, 0),
                nsec => (-sec - 1, 1_000_000_000 - nsec),
            }
        }
    }
}

/// The inverse of [`since_epoch`].
pub fn time(sec: i64, nsec: u32) -> SystemTime {
    let whole = Duration::from_secs(sec.unsigned_abs());
    let base = if sec >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    base.and_then(|t| t.checked_add(Duration::from_nanos(nsec.into()))).unwrap_or(UNIX_EPOCH)
}

/// The path of `name` in `dir` for the xattr calls, which know no descriptors
/// of directories. The last component is never followed (`l*xattr`).
fn by_fd(dir: impl AsFd, name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()));
    path.push(OsStr::from_bytes(if name.is_empty() { b"." } else { name }));
    path
}

/// Reads an attribute.
///
/// # Errors
/// The kernel's; `NODATA` if there is none.
pub fn get_xattr(dir: impl AsFd, name: &[u8], attribute: &[u8]) -> Result<Vec<u8>> {
    let path = by_fd(dir, name);
    let mut buffer = vec![0; 256];
    loop {
        match rustix::fs::lgetxattr(&path, attribute, buffer.as_mut_slice()) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 65536 => buffer.resize(65536, 0),
            Err(e) => return Err(e),
        }
    }
}

/// Sets an attribute.
///
/// # Errors
/// The kernel's.
pub fn set_xattr(
    dir: impl AsFd,
    name: &[u8],
    attribute: &[u8],
    value: &[u8],
    flags: XattrFlags,
) -> Result<()> {
    rustix::fs::lsetxattr(by_fd(dir, name), attribute, value, flags)
}

/// Removes an attribute.
///
/// # Errors
/// The kernel's.
pub fn remove_xattr(dir: impl AsFd, name: &[u8], attribute: &[u8]) -> Result<()> {
    rustix::fs::lremovexattr(by_fd(dir, name), attribute)
}

/// The attributes' names, each followed by a NUL.
///
/// # Errors
/// The kernel's.
pub fn list_xattr(dir: impl AsFd, name: &[u8]) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 65536];
    let len = rustix::fs::llistxattr(by_fd(dir, name), buffer.as_mut_slice())?;
    buffer.truncate(len);
    Ok(buffer)
}

/// Reads the object's mark; none if it has none.
///
/// # Errors
/// The kernel's.
pub fn get_mark(dir: impl AsFd, name: &[u8]) -> Result<Option<Mark>> {
    match get_xattr(dir, name, mark::XATTR.as_bytes()) {
        Ok(bytes) => Ok(Mark::from_bytes(&bytes)),
        Err(Errno::NODATA) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sets the object's mark.
///
/// # Errors
/// The kernel's.
pub fn set_mark(dir: impl AsFd, name: &[u8], mark: &Mark) -> Result<()> {
    set_xattr(dir, name, mark::XATTR.as_bytes(), &mark.to_bytes(), XattrFlags::empty())
}

/// Sets the mark of an open file.
///
/// # Errors
/// The kernel's.
pub fn set_file_mark(file: &File, mark: &Mark) -> Result<()> {
    rustix::fs::fsetxattr(file, mark::XATTR, &mark.to_bytes(), XattrFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_back() {
        for (sec, nsec) in [(0, 0), (-1, 999_999_999), (-5, 0), (4_102_444_800, 7)] {
            assert_eq!(since_epoch(time(sec, nsec)), (sec, nsec));
        }
    }

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        assert!(open_dir(&fd, b"out").is_err());
        assert!(open_dir(&fd, b"..").is_err());
        assert!(open(&fd, b"/etc/passwd", OFlags::RDONLY, 0).is_err());
        assert!(open(&fd, b"out/passwd", OFlags::RDONLY, 0).is_err());
    }
}
