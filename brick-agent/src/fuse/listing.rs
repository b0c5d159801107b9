//! Listing directories, with or without the attributes of the entries.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Instant, SystemTime};

use fuser::{Errno, FileAttr, FileHandle, FileType, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::attr::{entry_type, file_attr};
use super::open::Handle;
use super::shell::{GENERATION, NO_TTL, Shell};

/// Entries asked of the volume at once.
const PAGE: usize = 256;
/// The same with attributes, which make entries larger.
const PAGE_PLUS: usize = 64;

impl Shell {
    fn begins_to_list(&self, dir: INodeNo, offset: u64) {
        if offset == 0 {
            self.queue.listed().begins(dir.0, Instant::now());
        }
    }

    /// Fills the reply with the entries after `offset`.
    pub(super) fn list(
        &self,
        ino: INodeNo,
        fh: FileHandle,
        mut offset: u64,
        reply: &mut ReplyDirectory,
    ) -> Result<(), Errno> {
        self.begins_to_list(ino, offset);
        self.call("readdir", |v| {
            loop {
                let page = v.readdir(Handle::from_raw(fh.0).id, offset, PAGE)?;
                if page.is_empty() {
                    return Ok(());
                }
                for entry in page {
                    let name = OsStr::from_bytes(&entry.name);
                    if reply.add(INodeNo(entry.inode), entry.offset, entry_type(entry.kind), name) {
                        return Ok(());
                    }
                    offset = entry.offset;
                }
            }
        })
    }

    /// The same, with attributes; each entry but `.` and `..` counts as a lookup.
    pub(super) fn list_plus(
        &self,
        ino: INodeNo,
        fh: FileHandle,
        mut offset: u64,
        reply: &mut ReplyDirectoryPlus,
    ) -> Result<(), Errno> {
        self.begins_to_list(ino, offset);
        self.call("readdirplus", |v| {
            loop {
                let page = v.readdir(Handle::from_raw(fh.0).id, offset, PAGE_PLUS)?;
                if page.is_empty() {
                    return Ok(());
                }
                for entry in page {
                    offset = entry.offset;
                    let name = OsStr::from_bytes(&entry.name);
                    let plain = bare(entry_type(entry.kind));
                    let full = if entry.name == b"." || entry.name == b".." {
                        // The kernel counts no lookup for these.
                        let attr = FileAttr { ino: INodeNo(entry.inode), ..plain };
                        reply.add(attr.ino, offset, name, &NO_TTL, &attr, GENERATION)
                    } else {
                        match v.lookup(ino.0, &entry.name) {
                            Ok(stat) => {
                                let ttl = self.ttl(stat.node);
                                let attr = file_attr(&stat);
                                let full = reply.add(attr.ino, offset, name, &ttl, &attr, GENERATION);
                                if full {
                                    v.forget(stat.node, 1);
                                }
                                full
                            }
                            // It went in between.
                            Err(rustix::io::Errno::NOENT) => false,
                            // Its name is shown; a stat of it says what is wrong.
                            Err(_) => reply.add(plain.ino, offset, name, &NO_TTL, &plain, GENERATION),
                        }
                    };
                    if full {
                        return Ok(());
                    }
                }
            }
        })
    }
}

/// Attributes that the kernel does not look at: of an entry without a node.
fn bare(kind: FileType) -> FileAttr {
    let at = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: at,
        mtime: at,
        ctime: at,
        crtime: at,
        kind,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
