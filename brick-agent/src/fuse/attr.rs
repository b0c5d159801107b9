//! The values of `fuser` from and to those of the volume.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, Request, TimeOrNow};
use nearbrick_core::op::Kind;

use crate::volume::types::{Caller, EntryKind, SetTime, Stat};

/// On whose behalf the kernel asks.
pub fn caller(req: &Request, umask: u32) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid(), umask }
}

/// Attributes as the kernel takes them.
pub fn file_attr(stat: &Stat) -> FileAttr {
    let (kind, rdev) = match &stat.kind {
        Kind::File => (FileType::RegularFile, 0),
        Kind::Dir => (FileType::Directory, 0),
        Kind::Symlink(_) => (FileType::Symlink, 0),
        Kind::Special { format, .. } => (special(*format), stat.rdev),
    };
    FileAttr {
        ino: INodeNo(stat.node),
        size: stat.size,
        blocks: stat.blocks,
        atime: stat.atime,
        mtime: stat.mtime,
        ctime: stat.ctime,
        crtime: stat.ctime,
        kind,
        perm: (stat.perm & 0o7777) as u16,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        // The kernel's own encoding of device numbers has 32 bits.
        rdev: rdev as u32,
        blksize: stat.blksize,
        flags: 0,
    }
}

fn special(format: u32) -> FileType {
    match format {
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::NamedPipe,
    }
}

/// The kind of a directory's entry.
pub fn entry_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::File => FileType::RegularFile,
        EntryKind::Dir => FileType::Directory,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::Fifo => FileType::NamedPipe,
        EntryKind::Socket => FileType::Socket,
        EntryKind::Char => FileType::CharDevice,
        EntryKind::Block => FileType::BlockDevice,
    }
}

/// A time to be set. `fuser` reads (-1 s, 500,000,000 ns) as 1.5 s before 1970; the kernel means 0.5 s.
pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => SetTime::At(match UNIX_EPOCH.duration_since(at) {
            Ok(before) if before.subsec_nanos() > 0 => from_parts(before.as_secs(), before.subsec_nanos()),
            _ => at,
        }),
    }
}

/// `secs` before 1970, and `nanos` after that.
fn from_parts(secs: u64, nanos: u32) -> SystemTime {
    UNIX_EPOCH
        .checked_sub(Duration::from_secs(secs))
        .and_then(|t| t.checked_add(Duration::from_nanos(u64::from(nanos))))
        .unwrap_or(UNIX_EPOCH)
}

/// The permission bits after someone without the right to keep them has changed the
/// file: without setuid, and without setgid where the group may execute.
pub fn without_privileges(perm: u32) -> u32 {
    let mut perm = perm & !libc::S_ISUID;
    if perm & libc::S_IXGRP != 0 {
        perm &= !libc::S_ISGID;
    }
    perm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_what_the_program_said() {
        // What fuser makes of (-1, 500_000_000), that is 0.5 s before 1970.
        let read = UNIX_EPOCH - Duration::new(1, 500_000_000);
        let SetTime::At(at) = set_time(TimeOrNow::SpecificTime(read)) else { panic!("not a time") };
        assert_eq!(UNIX_EPOCH.duration_since(at).unwrap(), Duration::from_millis(500));
        let whole = UNIX_EPOCH - Duration::from_secs(7);
        let SetTime::At(at) = set_time(TimeOrNow::SpecificTime(whole)) else { panic!("not a time") };
        assert_eq!(at, whole);
    }

    #[test]
    fn privileges_that_a_change_takes_away() {
        assert_eq!(without_privileges(0o4755), 0o755);
        assert_eq!(without_privileges(0o2755), 0o755);
        // Setgid without group execution means mandatory locking, not a privilege.
        assert_eq!(without_privileges(0o2745), 0o2745);
        assert_eq!(without_privileges(0o1777), 0o1777);
    }
}
