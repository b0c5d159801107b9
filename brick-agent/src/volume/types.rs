//! What the calls of a [`super::Volume`] take and give.

use std::time::SystemTime;

use nearbrick_core::op::Kind;
use rustix::io::Errno;

use crate::brick::disk::File;

/// A failed call: the errno for the program. Logged where it arises if a person should know.
pub type FsResult<T> = Result<T, Errno>;

/// Identifies an object to the kernel; 1 is the root.
pub type NodeId = u64;

/// An open file or directory.
pub type HandleId = u64;

/// On whose behalf a call is made.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process.
    pub pid: u32,
    /// Permissions that it does not give to what it makes, unless a default ACL says what it gives.
    pub umask: u32,
}

/// Attributes, as `stat` shows them.
#[derive(Clone, Debug, PartialEq)]
pub struct Stat {
    /// Node and inode number.
    pub node: NodeId,
    /// Kind.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks on the local disk.
    pub blocks: u64,
    /// Last access.
    pub atime: SystemTime,
    /// Last change of the content.
    pub mtime: SystemTime,
    /// Last change of the inode.
    pub ctime: SystemTime,
    /// `mode & 0o7777`.
    pub perm: u32,
    /// Names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a special file.
    pub rdev: u64,
    /// Preferred size of a read or write.
    pub blksize: u32,
}

/// A time to be set.
#[derive(Clone, Copy, Debug)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// This one.
    At(SystemTime),
}

/// What `setattr` changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Truncates or extends.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change.
    pub mtime: Option<SetTime>,
}

/// An open file.
#[derive(Clone, Debug)]
pub struct Opened {
    /// For the calls that follow.
    pub handle: HandleId,
    /// The brick's own file (opened read-only) when all of its newest data is here: the kernel
    /// may then read and write it directly (passthrough). None: reads and
    /// writes must come through [`super::Volume::read`] and `write`.
    pub local: Option<File>,
    /// Identifies the brick file behind it: two opens of one node with different values
    /// have different bytes behind them (a heal replaced the file in between).
    pub backing: u64,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct DirEntry {
    /// Where to go on after it.
    pub offset: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// Its inode number.
    pub inode: u64,
    /// Its kind.
    pub kind: EntryKind,
}

/// The kind of a directory entry, as `readdir` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// FIFO.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// Tells the kernel what it must forget. Called without locks, from a thread
/// that serves no request.
pub trait Invalidate: Send + Sync + 'static {
    /// The name in this directory, and what it pointed to.
    fn entry(&self, parent: NodeId, name: &[u8]);
    /// Attributes of the node, and its cached pages if `data`.
    fn inode(&self, node: NodeId, data: bool);
    /// There are other names in this directory than before. Nothing has to be forgotten: what is to be is said besides.
    fn names(&self, dir: NodeId);
}
