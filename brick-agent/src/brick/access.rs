//! Calls below the brick, each relative to an open directory and one name: times,
//! the marks of objects, and short forms of what [`super::disk`] can do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{OFlags, RenameFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::{Errno, Result};

use super::disk::{Dir, File, FileAccess, Stat};
use super::mark::{self, Mark};
use crate::volume::types::SetTime;

/// Opens `name` in `dir`.
///
/// # Errors
/// The disk's.
pub fn open(dir: &Dir, name: &[u8], flags: OFlags, mode: u32) -> Result<File> {
    dir.open(name, flags, mode)
}

/// Opens once more what is open, also when it has no name any more.
///
/// # Errors
/// The disk's.
pub fn reopen(file: &File, flags: OFlags) -> Result<File> {
    file.reopen(flags)
}

/// Opens the directory `name` in `dir`.
///
/// # Errors
/// The disk's.
pub fn open_dir(dir: &Dir, name: &[u8]) -> Result<Dir> {
    dir.open_dir(name)
}

/// Attributes of `name` in `dir`, of a symlink itself.
///
/// # Errors
/// The disk's.
pub fn stat(dir: &Dir, name: &[u8]) -> Result<Stat> {
    dir.stat(name)
}

/// Changes the mode. Never called on symlinks.
///
/// # Errors
/// The disk's.
pub fn chmod(dir: &Dir, name: &[u8], mode: u32) -> Result<()> {
    dir.chmod(name, mode)
}

/// Changes owner and group, of a symlink itself.
///
/// # Errors
/// The disk's.
pub fn chown(dir: &Dir, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    dir.chown(name, uid, gid)
}

/// Removes a name of what is no directory.
///
/// # Errors
/// The disk's.
pub fn unlink(dir: &Dir, name: &[u8]) -> Result<()> {
    dir.unlink(name)
}

/// Removes an empty directory.
///
/// # Errors
/// The disk's.
pub fn rmdir(dir: &Dir, name: &[u8]) -> Result<()> {
    dir.rmdir(name)
}

/// Renames, by the rules of `renameat2`.
///
/// # Errors
/// The disk's.
pub fn rename(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8], flags: RenameFlags) -> Result<()> {
    from.rename(name, &**to, to_name, flags)
}

/// Gives a second name.
///
/// # Errors
/// The disk's.
pub fn link(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<()> {
    from.link(name, &**to, to_name)
}

/// The target of a symlink.
///
/// # Errors
/// The disk's.
pub fn readlink(dir: &Dir, name: &[u8]) -> Result<Vec<u8>> {
    dir.readlink(name)
}

/// Both times, as the kernel takes them.
pub fn timestamps(atime: Option<SetTime>, mtime: Option<SetTime>) -> Timestamps {
    Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) }
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
/// The disk's.
pub fn utimens(dir: &Dir, name: &[u8], atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()> {
    dir.utimens(name, &timestamps(atime, mtime))
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

/// Reads an attribute.
///
/// # Errors
/// The disk's; `NODATA` if there is none.
pub fn get_xattr(dir: &Dir, name: &[u8], attribute: &[u8]) -> Result<Vec<u8>> {
    dir.get_xattr(name, attribute)
}

/// Sets an attribute.
///
/// # Errors
/// The disk's.
pub fn set_xattr(dir: &Dir, name: &[u8], attribute: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
    dir.set_xattr(name, attribute, value, flags)
}

/// Removes an attribute.
///
/// # Errors
/// The disk's.
pub fn remove_xattr(dir: &Dir, name: &[u8], attribute: &[u8]) -> Result<()> {
    dir.remove_xattr(name, attribute)
}

/// The attributes' names, each followed by a NUL.
///
/// # Errors
/// The disk's.
pub fn list_xattr(dir: &Dir, name: &[u8]) -> Result<Vec<u8>> {
    dir.list_xattr(name)
}

/// Reads the object's mark; none if it has none.
///
/// # Errors
/// The disk's.
pub fn get_mark(dir: &Dir, name: &[u8]) -> Result<Option<Mark>> {
    match get_xattr(dir, name, mark::XATTR.as_bytes()) {
        Ok(bytes) => Ok(Mark::from_bytes(&bytes)),
        Err(Errno::NODATA) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sets the object's mark.
///
/// # Errors
/// The disk's.
pub fn set_mark(dir: &Dir, name: &[u8], mark: &Mark) -> Result<()> {
    set_xattr(dir, name, mark::XATTR.as_bytes(), &mark.to_bytes(), XattrFlags::empty())
}

/// Sets the mark of an open file.
///
/// # Errors
/// The disk's.
pub fn set_file_mark(file: &dyn FileAccess, mark: &Mark) -> Result<()> {
    file.set_xattr(mark::XATTR.as_bytes(), &mark.to_bytes())
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
}
