//! What is mounted where, asked of the kernel alone (`/proc/self/mountinfo`), and bind mounts.
//!
//! Nothing here follows a path into a mount, but [`usage`]: a mount that nobody serves any more must not hold up what is to put an end
//! to it. Whoever calls puts a limit to all of it, on a thread of its own.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

use super::types::{Unit, VolumeUsage};

/// Mounts that may lie upon each other.
const MAX_STACKED: usize = 16;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    id: u64,
    parent: u64,
    /// What is mounted there.
    pub(crate) device: String,
    /// Where.
    at: PathBuf,
    /// It cannot be written through this mount.
    pub(crate) read_only: bool,
}

/// Why a volume cannot be shown at a path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShowError {
    /// The volume's own mount is not there.
    #[error("nothing is mounted at {0}")]
    NoSource(PathBuf),
    /// It is shown there already, the other way.
    #[error("the volume is at {at} already, {}: unpublish it first", if *.read_only { "for reading only" } else { "for writing" })]
    OtherWay {
        /// Where.
        at: PathBuf,
        /// How it is.
        read_only: bool,
    },
    /// The disk or the kernel refused.
    #[error("{what} {at}: {source}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Where.
        at: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The mount that one comes to at exactly this path.
pub(crate) fn mounted(at: &Path) -> io::Result<Option<Mount>> {
    Ok(top(&parse(&std::fs::read("/proc/self/mountinfo")?), at))
}

/// Of mounts that lie upon each other, the one on which none lies.
fn top(mounts: &[Mount], at: &Path) -> Option<Mount> {
    let here = || mounts.iter().filter(|m| m.at == at);
    here().find(|m| !here().any(|other| other.parent == m.id)).cloned()
}

/// The lines of a mountinfo that can be read.
fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|b| *b == b' ');
            let mut next = || fields.next();
            let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
            let (id, parent) = (number(next()?)?, number(next()?)?);
            let device = String::from_utf8(next()?.to_vec()).ok()?;
            let _root = next()?;
            let at = PathBuf::from(OsString::from_vec(unescaped(next()?)));
            let read_only = next()?.split(|b| *b == b',').any(|option| option == b"ro");
            Some(Mount { id, parent, device, at, read_only })
        })
        .collect()
}

/// Blanks and the like are written as three octal digits there.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let byte =
            octal.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &rest[4..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// Shows the mount at `source` at `target` too. If it is there already, nothing is done; what lies there of a mount that ended is
/// taken away first.
pub(crate) fn show(source: &Path, target: &Path, read_only: bool) -> Result<(), ShowError> {
    let refused = |what, at: &Path| {
        let at = at.to_owned();
        move |source: io::Error| ShowError::Refused { what, at, source }
    };
    let mounts = parse(&std::fs::read("/proc/self/mountinfo").map_err(refused("cannot read", source))?);
    let Some(wanted) = top(&mounts, source) else { return Err(ShowError::NoSource(source.to_owned())) };
    if let Some(now) = top(&mounts, target) {
        if now.device == wanted.device {
            return match now.read_only == read_only {
                true => Ok(()),
                false => Err(ShowError::OtherWay { at: target.to_owned(), read_only: now.read_only }),
            };
        }
        take_away(target).map_err(refused("cannot take away what is mounted at", target))?;
    }
    match std::fs::DirBuilder::new().mode(0o750).create(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(refused("cannot make the directory", target)(error));
        }
        _ => {}
    }
    mount_bind(source, target)
        .map_err(io::Error::from)
        .map_err(refused("cannot mount the volume at", target))?;
    if read_only {
        // All flags are set anew: what the volume's own mount forbids stays forbidden.
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        if let Err(error) = mount_remount(target, flags, "") {
            let _ = unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            return Err(refused("cannot make this mount read-only:", target)(error.into()));
        }
    }
    Ok(())
}

/// Takes the mounts at `target` away, and the directory below them if it is empty. Nothing there: nothing to do.
pub(crate) fn hide(target: &Path) -> io::Result<()> {
    take_away(target)?;
    match std::fs::remove_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn take_away(target: &Path) -> io::Result<()> {
    for _ in 0..MAX_STACKED {
        if mounted(target)?.is_none() {
            return Ok(());
        }
        // Detached, because who would have to answer a plain unmount may be dead.
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other(format!("more than {MAX_STACKED} mounts lie upon each other")))
}

/// How much room there is in the file system at `at`: asks who serves it.
pub(crate) fn usage(at: &Path) -> io::Result<Vec<VolumeUsage>> {
    let stat = rustix::fs::statvfs(at)?;
    let block = stat.f_frsize.max(1);
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let row = |unit: Unit, total: u64, free: u64, available: u64, size: u64| VolumeUsage {
        available: number(available.saturating_mul(size)),
        total: number(total.saturating_mul(size)),
        used: number(total.saturating_sub(free).saturating_mul(size)),
        unit: unit.into(),
    };
    Ok(vec![
        row(Unit::Bytes, stat.f_blocks, stat.f_bfree, stat.f_bavail, block),
        row(Unit::Inodes, stat.f_files, stat.f_ffree, stat.f_favail, 1),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        31 20 0:40 / /volumes/lab/home rw,nosuid,nodev shared:2 - fuse nearbrick rw\n\
        40 20 0:39 / /pods/a\\040b/mount ro,nosuid shared:3 master:1 - fuse nearbrick rw\n\
        41 40 0:40 / /pods/a\\040b/mount rw,nosuid shared:4 - fuse nearbrick rw\n\
        no line\n";

    #[test]
    fn the_uppermost_mount_at_a_path_counts() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 4);
        let home = top(&mounts, Path::new("/volumes/lab/home")).unwrap();
        assert_eq!((home.device.as_str(), home.read_only), ("0:40", false));
        let pod = top(&mounts, Path::new("/pods/a b/mount")).unwrap();
        assert_eq!((pod.id, pod.read_only), (41, false));
        assert_eq!(top(&mounts, Path::new("/volumes/lab")), None);
        // In whatever order they are listed.
        let reversed: Vec<_> = mounts.into_iter().rev().collect();
        assert_eq!(top(&reversed, Path::new("/pods/a b/mount")).unwrap().id, 41);
    }

    #[test]
    fn names_are_read_as_they_are() {
        assert_eq!(unescaped(b"a\\040b\\134c"), b"a b\\c");
        assert_eq!(unescaped(b"\\"), b"\\");
        assert_eq!(unescaped(b"\\09"), b"\\09");
    }

    #[test]
    fn where_nothing_is_shown_there_is_nothing_to_hide() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("target");
        hide(&at).unwrap();
        std::fs::create_dir(&at).unwrap();
        std::fs::write(at.join("file"), "somebody's").unwrap();
        hide(&at).unwrap_err();
        assert!(at.join("file").exists(), "a directory with files stays");
        let missing = dir.path().join("volume");
        assert!(matches!(show(&missing, &at, false), Err(ShowError::NoSource(_))));
    }
}
