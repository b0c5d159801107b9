//! The kernel's file system as a brick's disk. Names are resolved by `openat2`, which
//! sees to it that nothing leads out: no symlink is followed, no magic link, no mount point's `..`.

use std::ffi::OsStr;
use std::fs;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    Advice, AtFlags, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, ResolveFlags,
    SeekFrom, StatVfs, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

use super::disk::{Dir, DirAccess, Disk, File, FileAccess, Lease, Stat};
use super::lease::{self, read_lease};

/// How everything below a brick is resolved.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// The machine's file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineDisk;

#[derive(Debug)]
struct MachineDir(OwnedFd);

#[derive(Debug)]
struct MachineFile(fs::File);

/// A file of the kernel, as one of a brick.
pub fn file(file: fs::File) -> File {
    Arc::new(MachineFile(file))
}

fn path(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

fn stat_of(raw: &rustix::fs::Stat) -> Stat {
    // The kernel's types differ by architecture.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap)]
    Stat {
        st_ino: raw.st_ino as u64,
        st_mode: raw.st_mode,
        st_nlink: raw.st_nlink as u64,
        st_uid: raw.st_uid,
        st_gid: raw.st_gid,
        st_rdev: raw.st_rdev as u64,
        st_size: raw.st_size as i64,
        st_blksize: raw.st_blksize as i64,
        st_blocks: raw.st_blocks as i64,
        st_atime: raw.st_atime as i64,
        st_atime_nsec: raw.st_atime_nsec as u64,
        st_mtime: raw.st_mtime as i64,
        st_mtime_nsec: raw.st_mtime_nsec as u64,
        st_ctime: raw.st_ctime as i64,
        st_ctime_nsec: raw.st_ctime_nsec as u64,
    }
}

fn uid(id: Option<u32>) -> Option<Uid> {
    id.map(Uid::from_raw)
}

fn gid(id: Option<u32>) -> Option<Gid> {
    id.map(Gid::from_raw)
}

impl MachineDir {
    fn beside(to: &dyn DirAccess) -> Result<&MachineDir> {
        (to as &dyn std::any::Any).downcast_ref().ok_or(Errno::XDEV)
    }

    /// The path of `name` for the xattr calls, which know no descriptors of
    /// directories. The last component is never followed (`l*xattr`).
    fn by_fd(&self, name: &[u8]) -> PathBuf {
        let mut at = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        at.push(path(if name.is_empty() { b"." } else { name }));
        at
    }
}

impl MachineFile {
    /// Its path for calls that take no descriptor, or none with `O_PATH`.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

fn read_xattr(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match read(buffer.as_mut_slice()) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 65536 => buffer.resize(65536, 0),
            Err(e) => return Err(e),
        }
    }
}

impl DirAccess for MachineDir {
    fn open(&self, name: &[u8], flags: OFlags, mode: u32) -> Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat2(&self.0, path(name), flags, Mode::from_bits_retain(mode), BENEATH)?;
        Ok(file(fs::File::from(fd)))
    }

    fn open_dir(&self, name: &[u8]) -> Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat2(&self.0, path(name), flags, Mode::empty(), BENEATH)?;
        Ok(Arc::new(MachineDir(fd)))
    }

    fn stat(&self, name: &[u8]) -> Result<Stat> {
        Ok(stat_of(&rustix::fs::statat(&self.0, path(name), AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn stat_self(&self) -> Result<Stat> {
        Ok(stat_of(&rustix::fs::fstat(&self.0)?))
    }

    fn chmod(&self, name: &[u8], mode: u32) -> Result<()> {
        // Names are checked not to be symlinks by the callers under the lock, and
        // no program can change the brick's tree past us but root.
        rustix::fs::chmodat(&self.0, path(name), Mode::from_bits_retain(mode), AtFlags::empty())
    }

    fn chown(&self, name: &[u8], owner: Option<u32>, group: Option<u32>) -> Result<()> {
        rustix::fs::chownat(&self.0, path(name), uid(owner), gid(group), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn utimens(&self, name: &[u8], times: &Timestamps) -> Result<()> {
        rustix::fs::utimensat(&self.0, path(name), times, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn get_xattr(&self, name: &[u8], attribute: &[u8]) -> Result<Vec<u8>> {
        if name == b"." {
            return read_xattr(|buffer| rustix::fs::fgetxattr(&self.0, attribute, buffer));
        }
        let path = self.by_fd(name);
        read_xattr(|buffer| rustix::fs::lgetxattr(&path, attribute, buffer))
    }

    fn set_xattr(&self, name: &[u8], attribute: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        rustix::fs::lsetxattr(self.by_fd(name), attribute, value, flags)
    }

    fn remove_xattr(&self, name: &[u8], attribute: &[u8]) -> Result<()> {
        rustix::fs::lremovexattr(self.by_fd(name), attribute)
    }

    fn list_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let mut buffer = vec![0; 65536];
        let len = rustix::fs::llistxattr(self.by_fd(name), buffer.as_mut_slice())?;
        buffer.truncate(len);
        Ok(buffer)
    }

    fn mkdir(&self, name: &[u8], mode: u32) -> Result<()> {
        rustix::fs::mkdirat(&self.0, path(name), Mode::from_bits_retain(mode))
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        rustix::fs::unlinkat(&self.0, path(name), AtFlags::REMOVEDIR)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        rustix::fs::unlinkat(&self.0, path(name), AtFlags::empty())
    }

    fn rename(&self, name: &[u8], to: &dyn DirAccess, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        rustix::fs::renameat_with(&self.0, path(name), &Self::beside(to)?.0, path(to_name), flags)
    }

    fn link(&self, name: &[u8], to: &dyn DirAccess, to_name: &[u8]) -> Result<()> {
        rustix::fs::linkat(&self.0, path(name), &Self::beside(to)?.0, path(to_name), AtFlags::empty())
    }

    fn symlink(&self, target: &[u8], name: &[u8]) -> Result<()> {
        rustix::fs::symlinkat(path(target), &self.0, path(name))
    }

    fn mknod(&self, name: &[u8], format: u32, rdev: u64) -> Result<()> {
        rustix::fs::mknodat(&self.0, path(name), FileType::from_raw_mode(format), Mode::empty(), rdev)
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.0, path(name), Vec::new())?.into_bytes())
    }

    fn list(&self) -> Result<Vec<(Vec<u8>, FileType)>> {
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                kind = FileType::from_raw_mode(self.stat(name)?.st_mode);
            }
            entries.push((name.to_vec(), kind));
        }
        Ok(entries)
    }

    fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.0)
    }

    fn sync_all(&self) -> Result<()> {
        rustix::fs::syncfs(&self.0)
    }

    fn stat_fs(&self) -> Result<StatVfs> {
        rustix::fs::fstatvfs(&self.0)
    }
}

impl FileAccess for MachineFile {
    fn stat(&self) -> Result<Stat> {
        Ok(stat_of(&rustix::fs::fstat(&self.0)?))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        rustix::io::pread(&self.0, buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        rustix::io::pwrite(&self.0, bytes, offset)
    }

    fn truncate(&self, size: u64) -> Result<()> {
        rustix::fs::ftruncate(&self.0, size)
    }

    fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> Result<()> {
        rustix::fs::fallocate(&self.0, mode, offset, len)
    }

    fn seek_data(&self, at: u64) -> Result<u64> {
        rustix::fs::seek(&self.0, SeekFrom::Data(at))
    }

    fn seek_hole(&self, at: u64) -> Result<u64> {
        rustix::fs::seek(&self.0, SeekFrom::Hole(at))
    }

    fn uncache(&self, offset: u64, len: u64) -> Result<()> {
        match NonZeroU64::new(len) {
            Some(len) => rustix::fs::fadvise(&self.0, offset, Some(len), Advice::DontNeed),
            None => Ok(()),
        }
    }

    fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.0)
    }

    fn sync_data(&self) -> Result<()> {
        rustix::fs::fdatasync(&self.0)
    }

    fn chmod(&self, mode: u32) -> Result<()> {
        match rustix::fs::fchmod(&self.0, Mode::from_bits_retain(mode)) {
            Err(Errno::BADF) => rustix::fs::chmod(self.path(), Mode::from_bits_retain(mode)),
            done => done,
        }
    }

    fn chown(&self, owner: Option<u32>, group: Option<u32>) -> Result<()> {
        match rustix::fs::fchown(&self.0, uid(owner), gid(group)) {
            Err(Errno::BADF) => rustix::fs::chown(self.path(), uid(owner), gid(group)),
            done => done,
        }
    }

    fn utimens(&self, times: &Timestamps) -> Result<()> {
        match rustix::fs::futimens(&self.0, times) {
            Err(Errno::BADF) => rustix::fs::utimensat(rustix::fs::CWD, self.path(), times, AtFlags::empty()),
            done => done,
        }
    }

    fn set_xattr(&self, attribute: &[u8], value: &[u8]) -> Result<()> {
        rustix::fs::fsetxattr(&self.0, attribute, value, XattrFlags::empty())
    }

    fn get_xattr(&self, attribute: &[u8]) -> Result<Vec<u8>> {
        let path = self.path();
        read_xattr(|buffer| rustix::fs::getxattr(&path, attribute, buffer))
    }

    fn list_xattr(&self) -> Result<Vec<u8>> {
        let mut buffer = vec![0; 65536];
        let len = rustix::fs::listxattr(self.path(), buffer.as_mut_slice())?;
        buffer.truncate(len);
        Ok(buffer)
    }

    fn change_xattr(&self, attribute: &[u8], value: Option<&[u8]>, flags: XattrFlags) -> Result<()> {
        match value {
            Some(value) => rustix::fs::setxattr(self.path(), attribute, value, flags),
            None => rustix::fs::removexattr(self.path(), attribute),
        }
    }

    fn clone_from(&self, from: &dyn FileAccess) -> Result<()> {
        rustix::fs::ioctl_ficlone(&self.0, from.descriptor().ok_or(Errno::XDEV)?)
    }

    fn reopen(&self, flags: OFlags) -> Result<File> {
        let fd = rustix::fs::open(self.path(), flags | OFlags::CLOEXEC, Mode::empty())?;
        Ok(file(fs::File::from(fd)))
    }

    fn read_lease(self: Arc<Self>) -> Result<Lease> {
        match read_lease(Leased(self)) {
            Ok(lease::Lease::Granted(lease)) => Ok(Lease::Granted(Box::new(lease))),
            Ok(lease::Lease::Writable) => Ok(Lease::Writable),
            Ok(lease::Lease::Unsupported) => Ok(Lease::Unsupported),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }

    fn lock(&self) -> Result<()> {
        rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// Keeps the descriptor open for as long as its lease.
struct Leased(Arc<MachineFile>);

impl AsFd for Leased {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl Disk for MachineDisk {
    fn open(&self, at: &Path) -> Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Arc::new(MachineDir(rustix::fs::open(at, flags, Mode::empty())?)))
    }

    fn make(&self, at: &Path) -> Result<Dir> {
        let errno = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent).map_err(errno)?;
        }
        fs::DirBuilder::new().mode(0o700).recursive(true).create(at).map_err(errno)?;
        fs::set_permissions(at, fs::Permissions::from_mode(0o700)).map_err(errno)?;
        self.open(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let brick = MachineDisk.open(dir.path()).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        assert!(brick.open_dir(b"out").is_err());
        assert!(brick.open_dir(b"..").is_err());
        assert!(brick.open(b"/etc/passwd", OFlags::RDONLY, 0).is_err());
        assert!(brick.open(b"out/passwd", OFlags::RDONLY, 0).is_err());
    }
}
