//! All file access below a brick, behind narrow traits: a directory and the names
//! in it, an open file, and the disk that gives the brick's own directory.
//!
//! [`super::machine`] is the kernel's file system. A simulation can stand in for it,
//! below the whole volume: nothing of a volume reaches a disk in another way.
//!
//! Invariant: a name is one component, and nothing leads out of the brick.

use std::any::Any;
use std::fmt::Debug;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FileType, OFlags, RenameFlags, StatVfs, Timestamps, XattrFlags};
use rustix::io::{Errno, Result};

/// An open directory.
pub type Dir = Arc<dyn DirAccess>;

/// An open file.
pub type File = Arc<dyn FileAccess>;

/// Attributes, as the kernel names them.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub st_ino: u64,
    pub st_mode: u32,
    pub st_nlink: u64,
    pub st_uid: u32,
    pub st_gid: u32,
    pub st_rdev: u64,
    pub st_size: i64,
    pub st_blksize: i64,
    pub st_blocks: i64,
    pub st_atime: i64,
    pub st_atime_nsec: u64,
    pub st_mtime: i64,
    pub st_mtime_nsec: u64,
    pub st_ctime: i64,
    pub st_ctime_nsec: u64,
}

/// What the disk says to the wish that no one can write a file.
#[derive(Debug)]
pub enum Lease {
    /// No one can for as long as this is kept.
    Granted(Box<dyn Any + Send>),
    /// Someone holds it open for writing, or mapped.
    Writable,
    /// This file system has no leases.
    Unsupported,
}

/// An open directory, and the names in it. No symlink is followed.
///
/// All calls fail with what the disk says.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub trait DirAccess: Any + Debug + Send + Sync {
    fn open(&self, name: &[u8], flags: OFlags, mode: u32) -> Result<File>;
    fn open_dir(&self, name: &[u8]) -> Result<Dir>;
    fn stat(&self, name: &[u8]) -> Result<Stat>;
    /// Of the directory itself.
    fn stat_self(&self) -> Result<Stat>;
    /// Never called on symlinks.
    fn chmod(&self, name: &[u8], mode: u32) -> Result<()>;
    fn chown(&self, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()>;
    fn utimens(&self, name: &[u8], times: &Timestamps) -> Result<()>;
    /// `NODATA` if there is none.
    fn get_xattr(&self, name: &[u8], attribute: &[u8]) -> Result<Vec<u8>>;
    fn set_xattr(&self, name: &[u8], attribute: &[u8], value: &[u8], flags: XattrFlags) -> Result<()>;
    fn remove_xattr(&self, name: &[u8], attribute: &[u8]) -> Result<()>;
    /// Each name followed by a NUL.
    fn list_xattr(&self, name: &[u8]) -> Result<Vec<u8>>;
    fn mkdir(&self, name: &[u8], mode: u32) -> Result<()>;
    fn rmdir(&self, name: &[u8]) -> Result<()>;
    fn unlink(&self, name: &[u8]) -> Result<()>;
    /// `to` is a directory of the same disk.
    fn rename(&self, name: &[u8], to: &dyn DirAccess, to_name: &[u8], flags: RenameFlags) -> Result<()>;
    /// `to` is a directory of the same disk.
    fn link(&self, name: &[u8], to: &dyn DirAccess, to_name: &[u8]) -> Result<()>;
    fn symlink(&self, target: &[u8], name: &[u8]) -> Result<()>;
    fn mknod(&self, name: &[u8], format: u32, rdev: u64) -> Result<()>;
    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>>;
    /// The entries, without the dots.
    fn list(&self) -> Result<Vec<(Vec<u8>, FileType)>>;
    /// Makes the directory durable.
    fn sync(&self) -> Result<()>;
    /// Makes everything on its file system durable.
    fn sync_all(&self) -> Result<()>;
    fn stat_fs(&self) -> Result<StatVfs>;
}

/// An open file.
///
/// All calls fail with what the disk says.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub trait FileAccess: Any + Debug + Send + Sync {
    fn stat(&self) -> Result<Stat>;
    /// Some of the bytes at `offset`; none at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Writes some of the bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize>;
    fn truncate(&self, size: u64) -> Result<()>;
    fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> Result<()>;
    /// The next data at or after; `NXIO` if there is none.
    fn seek_data(&self, at: u64) -> Result<u64>;
    /// The next hole at or after; the end counts as one.
    fn seek_hole(&self, at: u64) -> Result<u64>;
    /// Bytes that were read are not kept in memory for it; a disk need not have that.
    fn uncache(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }
    /// Makes the file durable.
    fn sync(&self) -> Result<()>;
    /// Its bytes, and what is needed to find them.
    fn sync_data(&self) -> Result<()>;
    fn chmod(&self, mode: u32) -> Result<()>;
    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()>;
    fn utimens(&self, times: &Timestamps) -> Result<()>;
    fn set_xattr(&self, attribute: &[u8], value: &[u8]) -> Result<()>;
    /// Of a file that has no name any more, as what follows; a disk need not have that.
    fn get_xattr(&self, _attribute: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::OPNOTSUPP)
    }
    /// Each name followed by a NUL.
    fn list_xattr(&self) -> Result<Vec<u8>> {
        Err(Errno::OPNOTSUPP)
    }
    /// Sets an attribute, or removes it.
    fn change_xattr(&self, _attribute: &[u8], _value: Option<&[u8]>, _flags: XattrFlags) -> Result<()> {
        Err(Errno::OPNOTSUPP)
    }
    /// Takes over the bytes of a file of the same disk without copying; fails where that cannot be done.
    fn clone_from(&self, from: &dyn FileAccess) -> Result<()>;
    /// Opens once more what is open, also when it has no name any more.
    fn reopen(&self, flags: OFlags) -> Result<File>;
    /// Asks that no one can write the file. It is open read-only.
    fn read_lease(self: Arc<Self>) -> Result<Lease>;
    /// Locks it against other agents; `WOULDBLOCK` if one has it.
    fn lock(&self) -> Result<()>;
    /// The kernel's descriptor, where there is one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// Where bricks are.
pub trait Disk: Debug + Send + Sync {
    /// Opens the directory of a brick.
    ///
    /// # Errors
    /// `NOENT` if it is not there; what the disk says.
    fn open(&self, path: &Path) -> Result<Dir>;

    /// Makes the directory of a brick, and those above it, unless it is there; closes it to all but root.
    ///
    /// # Errors
    /// What the disk says.
    fn make(&self, path: &Path) -> Result<Dir>;
}

/// Writes all of the bytes.
///
/// # Errors
/// What the disk says; some of them may be written then.
pub fn write_all_at(file: &dyn FileAccess, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a file from an offset on.
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a dyn FileAccess,
    at: u64,
}

impl<'a> Reader<'a> {
    /// From this offset on.
    pub fn new(file: &'a dyn FileAccess, at: u64) -> Self {
        Reader { file, at }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buf, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}
