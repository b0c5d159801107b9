//! The operations that members exchange: entries of a journal.

use serde::{Deserialize, Serialize};

use crate::acl;
use crate::id::{BrickId, FileId, Incarnation, LinkId};
use crate::name::{self, BadName};
use crate::resolution::Decision;
use crate::stamp::Stamp;
use crate::version::VersionVector;

/// What kind of object it is; fixed at its creation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub enum Kind {
    /// A regular file: the only kind with content.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
    /// A FIFO, socket or device: `mode`'s type bits and the device number.
    Special {
        /// `S_IFIFO`, `S_IFSOCK`, `S_IFCHR` or `S_IFBLK`.
        format: u32,
        /// Device number, 0 for FIFOs and sockets.
        rdev: u64,
    },
}

impl Kind {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self, Kind::Dir)
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        matches!(self, Kind::File)
    }
}

/// Owner, permissions and the times that are not a file content's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug, Default)]
pub struct Attr {
    /// Permission bits with setuid, setgid and sticky: `mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time set by hand, or a directory's: seconds since 1970.
    pub mtime_sec: i64,
    /// Its nanoseconds.
    pub mtime_nsec: u32,
}

/// A place in the tree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct Place {
    /// The directory.
    pub parent: FileId,
    /// The name in it.
    pub name: Vec<u8>,
}

/// A change to one object.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Op {
    /// The object comes to be. A regular file is being written by its maker
    /// until the first [`Op::Content`].
    Create {
        /// The brick that made it.
        brick: BrickId,
        /// Its kind.
        kind: Kind,
        /// Owner, mode, times.
        attr: Attr,
        /// Its first place; the link's id is this entry's origin and sequence.
        place: Place,
        /// The bricks that must hold its data.
        replicas: Vec<BrickId>,
    },
    /// One more name (a hard link); the link's id is this entry's origin and sequence.
    Link(Place),
    /// The link moves: a rename.
    Move {
        /// Which link.
        link: LinkId,
        /// Where to.
        place: Place,
    },
    /// The link goes: unlink, rmdir, or a rename over it.
    Unlink {
        /// Which link.
        link: LinkId,
        /// The content that the deleter knew. An edit that is not in it beats the delete.
        seen: VersionVector,
    },
    /// Owner, mode or times change.
    SetAttr(Attr),
    /// An extended attribute is set or removed.
    SetXattr {
        /// Its name with the namespace, as `user.x`.
        name: Vec<u8>,
        /// Its value; none when it is removed.
        value: Option<Vec<u8>>,
    },
    /// Someone at this brick has begun to change the content; what the brick
    /// holds from now on is newer than any version known.
    Dirty {
        /// The brick.
        brick: BrickId,
    },
    /// The writer stopped without a change.
    Clean {
        /// The brick.
        brick: BrickId,
    },
    /// A new version of the content, which `brick` holds.
    Content {
        /// The brick that wrote it.
        brick: BrickId,
        /// What it includes.
        version: VersionVector,
        /// Bytes.
        size: u64,
        /// Seconds since 1970.
        mtime_sec: i64,
        /// Nanoseconds.
        mtime_nsec: u32,
        /// Whether its writer goes on: a snapshot, to be followed by another.
        still_dirty: bool,
    },
    /// The brick holds this version, completely and durably.
    Have {
        /// The brick.
        brick: BrickId,
        /// The version.
        version: VersionVector,
        /// BLAKE3 of the bytes.
        hash: [u8; 32],
    },
    /// The brick holds no complete version any more.
    Drop {
        /// The brick.
        brick: BrickId,
    },
    /// The bricks that must hold the newest data.
    Replicas(Vec<BrickId>),
    /// A version in conflict has lost: its bytes are kept under another name, or
    /// are the same as the winner's.
    Resolve {
        /// The version that lost.
        loser: VersionVector,
        /// The object that has its bytes now; none if the winner has the same.
        kept: Option<FileId>,
    },
    /// This object has the bytes of a version of `of` that lost a conflict. The
    /// conflict is open as long as the object has this name.
    Kept {
        /// The object in conflict; itself: it is a file of its own by a person's word.
        of: FileId,
        /// The name that was given to it for that reason.
        name: Vec<u8>,
    },
    /// A person's word on the file's conflict was carried out. The version that came of it is in an entry before this one.
    Decide {
        /// The brick that did it.
        brick: BrickId,
        /// What was decided, and between what.
        decision: Decision,
    },
}

/// One entry of a journal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Entry {
    /// The incarnation whose journal it is.
    pub origin: Incarnation,
    /// Its place there; from 1, without gaps.
    pub seq: u64,
    /// Hybrid logical time.
    pub time: u64,
    /// The object.
    pub file: FileId,
    /// What changed.
    pub op: Op,
}

/// The most bricks in one replica set that are taken from the wire.
pub const MAX_MEMBERS: usize = 4096;
/// The greatest sequence number. One at the end of the numbers would leave no room for any that follow it.
pub const MAX_SEQ: u64 = 1 << 56;
/// The most bytes of a file: no file system has larger ones.
pub const MAX_SIZE: u64 = i64::MAX as u64;
/// The longest symlink target, in bytes.
pub const MAX_TARGET: usize = 4095;
/// The longest value of an extended attribute, in bytes.
pub const MAX_XATTR: usize = 65536;

/// The namespace of the extended attributes that are programs' own.
pub const USER_XATTR: &[u8] = b"user.";

/// Whether members exchange an extended attribute: programs' own, and ACLs. All
/// others mean something to a machine or to the agent.
pub fn is_exchanged(xattr: &[u8]) -> bool {
    xattr.starts_with(USER_XATTR) || acl::is_acl(xattr)
}

/// The latest hybrid time, about the year 3000; see also [`latest_taken`](crate::stamp::latest_taken).
pub const MAX_TIME: u64 = 1 << 61;

/// Why an entry from a peer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// Its name would not be a name.
    #[error("an entry's name is refused: {0}")]
    Name(#[from] BadName),
    /// A count or length over its bound.
    #[error("an entry's {0} is over its bound")]
    TooBig(&'static str),
    /// A value that no member makes.
    #[error("an entry's {0} makes no sense")]
    Nonsense(&'static str),
}

impl Entry {
    /// Its stamp.
    pub fn stamp(&self) -> Stamp {
        Stamp { time: self.time, origin: self.origin }
    }

    /// The id of the link that this entry makes, if it makes one.
    pub fn made_link(&self) -> Option<LinkId> {
        matches!(self.op, Op::Create { .. } | Op::Link(_))
            .then_some(LinkId { origin: self.origin, seq: self.seq })
    }

    /// Checks what a peer sent: names, bounds, and values that make sense.
    pub fn check(&self) -> Result<(), BadEntry> {
        check_link(LinkId { origin: self.origin, seq: self.seq })?;
        if self.time > MAX_TIME {
            return Err(BadEntry::Nonsense("time"));
        }
        // The root has no maker, no name and no content.
        let of_root = matches!(
            self.op,
            Op::SetAttr(_) | Op::SetXattr { .. } | Op::Dirty { .. } | Op::Clean { .. } | Op::Drop { .. }
        );
        if self.file == FileId::ROOT && !of_root {
            return Err(BadEntry::Nonsense("file id"));
        }
        match &self.op {
            Op::Create { kind, attr, place, replicas, brick: _ } => {
                name::check(&place.name)?;
                check_attr(attr)?;
                check_replicas(replicas)?;
                check_kind(kind)
            }
            Op::Link(place) => Ok(name::check(&place.name)?),
            Op::Move { link, place } => {
                check_link(*link)?;
                Ok(name::check(&place.name)?)
            }
            Op::Kept { name, .. } => Ok(name::check(name)?),
            Op::Decide { decision, .. } => decision.check(),
            Op::Unlink { link, .. } => check_link(*link),
            Op::Content { version, size, mtime_nsec, .. } => {
                if version.is_empty() || *size > MAX_SIZE || *mtime_nsec >= 1_000_000_000 {
                    return Err(BadEntry::Nonsense("version"));
                }
                Ok(())
            }
            Op::SetAttr(attr) => check_attr(attr),
            Op::SetXattr { name, value } => check_xattr(name, value.as_deref()),
            Op::Replicas(replicas) => check_replicas(replicas),
            Op::Dirty { .. } | Op::Clean { .. } | Op::Drop { .. } | Op::Have { .. } | Op::Resolve { .. } => {
                Ok(())
            }
        }
    }
}

pub(crate) fn check_kind(kind: &Kind) -> Result<(), BadEntry> {
    match kind {
        Kind::Symlink(target) if target.is_empty() || target.contains(&0) => {
            Err(BadEntry::Nonsense("symlink target"))
        }
        Kind::Symlink(target) if target.len() > MAX_TARGET => Err(BadEntry::TooBig("symlink target")),
        Kind::Special { format, .. } if !matches!(*format, 0o010_000 | 0o020_000 | 0o060_000 | 0o140_000) => {
            Err(BadEntry::Nonsense("file type"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn check_xattr(name: &[u8], value: Option<&[u8]>) -> Result<(), BadEntry> {
    // No name in a directory: a slash is a byte like others.
    if name.len() > name::MAX_LEN {
        return Err(BadEntry::TooBig("extended attribute's name"));
    }
    if !is_exchanged(name) || name == USER_XATTR || name.contains(&0) {
        return Err(BadEntry::Nonsense("extended attribute's namespace"));
    }
    match value {
        Some(value) if acl::is_acl(name) && acl::Acl::parse(value).is_err() => Err(BadEntry::Nonsense("ACL")),
        Some(value) if value.len() > MAX_XATTR => Err(BadEntry::TooBig("extended attribute")),
        _ => Ok(()),
    }
}

/// An origin and a place in its journal: no life of an index has the number 0, and no entry.
pub(crate) fn check_link(link: LinkId) -> Result<(), BadEntry> {
    if link.origin.0 == 0 || !(1..=MAX_SEQ).contains(&link.seq) {
        return Err(BadEntry::Nonsense("sequence"));
    }
    Ok(())
}

pub(crate) fn check_attr(attr: &Attr) -> Result<(), BadEntry> {
    // The greatest number is no owner: the kernel takes it for "leave it as it is".
    let no_one = attr.uid == u32::MAX || attr.gid == u32::MAX;
    if attr.mode & !0o7777 != 0 || attr.mtime_nsec >= 1_000_000_000 || no_one {
        return Err(BadEntry::Nonsense("attributes"));
    }
    Ok(())
}

pub(crate) fn check_replicas(replicas: &[BrickId]) -> Result<(), BadEntry> {
    if replicas.len() > MAX_MEMBERS {
        return Err(BadEntry::TooBig("replica set"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::{ACCESS, DEFAULT, MAX_LEN};

    #[test]
    fn s06_only_attributes_of_programs_and_whole_acls_are_taken_from_a_peer() {
        let acl = [
            2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255,
            255, 255, 255,
        ];
        let long = [&acl[..20], &[8, 0, 4, 0, 7, 0, 0, 0].repeat(MAX_LEN / 8)[..], &acl[20..]].concat();
        type Case<'a> = (&'a [u8], Option<&'a [u8]>, bool);
        let cases: &[Case<'_>] = &[
            (b"user.any", Some(b"value"), true),
            (b"user.any", None, true),
            (b"user.https://example.org/a", Some(b"a slash is no separator here"), true),
            (b"user.", Some(b"y"), false),
            (b"user.\0", Some(b"y"), false),
            (&[&b"user."[..], &[b'x'; 250]].concat(), Some(b"y"), true),
            (&[&b"user."[..], &[b'x'; 251]].concat(), Some(b"y"), false),
            (b"user.any", Some(&vec![0; MAX_XATTR + 1]), false),
            (ACCESS, Some(&acl), true),
            (DEFAULT, Some(&acl), true),
            (DEFAULT, None, true),
            (ACCESS, Some(b""), false),
            (ACCESS, Some(&acl[..27]), false),
            (ACCESS, Some(&long), false),
            (b"system.nfs4_acl", Some(&acl), false),
            (b"system.posix_acl_access2", Some(&acl), false),
            (b"security.capability", Some(b"\x01"), false),
            (b"security.selinux", None, false),
            (b"trusted.nearbrick", Some(b"\x01"), false),
            (b"trusted.overlay.opaque", Some(b"y"), false),
            (b"", Some(b"y"), false),
        ];
        for (name, value, fine) in cases {
            let op = Op::SetXattr { name: name.to_vec(), value: value.map(<[u8]>::to_vec) };
            let entry = Entry { origin: Incarnation(1), seq: 1, time: 1, file: FileId([1; 16]), op };
            assert_eq!(entry.check().is_ok(), *fine, "{}", String::from_utf8_lossy(name));
        }
    }
}
