//! What is on a simulated disk, as a value that changes operation by operation: so one state
//! can be what programs see, and another what a power cut would leave.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is written or lost as one.
pub const SECTOR: usize = 512;
/// The directory of the brick.
pub const ROOT: u64 = 1;

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, u32);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Which of all that the disk ever made it is: numbers are given again.
    pub made: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub names: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    File(Data),
    Dir(BTreeMap<Vec<u8>, u64>),
    Symlink(Vec<u8>),
    Special,
}

/// Bytes of a file, and which sectors of them are no holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    pub bytes: Vec<u8>,
    pub present: BTreeSet<usize>,
}

impl Data {
    fn resize(&mut self, size: usize) {
        self.bytes.resize(size, 0);
        self.present.retain(|s| s * SECTOR < size);
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.present.extend(at / SECTOR..=(end - 1) / SECTOR);
        }
    }

    fn punch(&mut self, at: usize, len: usize) {
        let end = (at + len).min(self.bytes.len());
        if at < end {
            self.bytes[at..end].fill(0);
            let whole = at.div_ceil(SECTOR)..if end == self.bytes.len() { usize::MAX } else { end / SECTOR };
            self.present.retain(|s| !whole.contains(s));
        }
    }
}

impl Inode {
    pub fn data(&self) -> Option<&Data> {
        match &self.what {
            What::File(data) => Some(data),
            _ => None,
        }
    }

    pub fn entries(&self) -> Option<&BTreeMap<Vec<u8>, u64>> {
        match &self.what {
            What::Dir(entries) => Some(entries),
            _ => None,
        }
    }
}

/// One change.
#[derive(Clone, Debug)]
pub enum Op {
    Make {
        dir: u64,
        name: Vec<u8>,
        ino: u64,
        inode: Box<Inode>,
    },
    Link {
        dir: u64,
        name: Vec<u8>,
        ino: u64,
    },
    Unlink {
        dir: u64,
        name: Vec<u8>,
    },
    /// Over what has the name; or the two change places.
    Rename {
        dir: u64,
        name: Vec<u8>,
        to: u64,
        to_name: Vec<u8>,
        exchange: bool,
    },
    Mode {
        ino: u64,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Times {
        ino: u64,
        atime: Time,
        mtime: Time,
        ctime: Time,
    },
    Xattr {
        ino: u64,
        name: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    Resize {
        ino: u64,
        size: usize,
    },
    Punch {
        ino: u64,
        at: usize,
        len: usize,
    },
    Write {
        ino: u64,
        at: usize,
        bytes: Vec<u8>,
    },
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |name: &[u8]| name.escape_ascii().to_string();
        match self {
            Op::Make { dir, name, ino, inode } => {
                write!(f, "make {dir}/{} {ino} {:o}", text(name), inode.mode)
            }
            Op::Link { dir, name, ino } => write!(f, "link {dir}/{} {ino}", text(name)),
            Op::Unlink { dir, name } => write!(f, "unlink {dir}/{}", text(name)),
            Op::Rename { dir, name, to, to_name, .. } => {
                write!(f, "rename {dir}/{} {to}/{}", text(name), text(to_name))
            }
            Op::Mode { ino, mode, .. } => write!(f, "mode {ino} {mode:o}"),
            Op::Times { ino, mtime, ctime, .. } => write!(f, "times {ino} {mtime:?} {ctime:?}"),
            Op::Xattr { ino, name, value } => {
                write!(f, "xattr {ino} {} {}", text(name), value.as_ref().map_or(0, Vec::len))
            }
            Op::Resize { ino, size } => write!(f, "resize {ino} {size}"),
            Op::Punch { ino, at, len } => write!(f, "punch {ino} {at} {len}"),
            Op::Write { ino, at, bytes } => write!(f, "write {ino} {at} {}", bytes.len()),
        }
    }
}

impl Op {
    /// The file of which it changes bytes and nothing that the disk's journal orders.
    pub fn written(&self) -> Option<u64> {
        match self {
            Op::Write { ino, .. } => Some(*ino),
            _ => None,
        }
    }

    /// The file of which it gives other room to bytes: those written later are nowhere before it. One that has the number of another
    /// that is gone has room of its own.
    pub fn moved(&self) -> Option<u64> {
        match self {
            Op::Make { ino, .. } | Op::Resize { ino, .. } | Op::Punch { ino, .. } => Some(*ino),
            _ => None,
        }
    }
}

/// Everything on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(pub BTreeMap<u64, Inode>);

impl State {
    pub fn get(&self, ino: u64) -> Option<&Inode> {
        self.0.get(&ino)
    }

    pub fn find(&self, dir: u64, name: &[u8]) -> Option<u64> {
        self.0.get(&dir)?.entries()?.get(name).copied()
    }

    fn entries(&mut self, dir: u64) -> Option<&mut BTreeMap<Vec<u8>, u64>> {
        match &mut self.0.get_mut(&dir)?.what {
            What::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    fn data(&mut self, ino: u64) -> Option<&mut Data> {
        match &mut self.0.get_mut(&ino)?.what {
            What::File(data) => Some(data),
            _ => None,
        }
    }

    fn lose_name(&mut self, ino: u64) {
        if let Some(inode) = self.0.get_mut(&ino) {
            inode.names = inode.names.saturating_sub(1);
        }
    }

    /// Files without a name that nothing holds.
    pub fn drop_nameless(&mut self, held: impl Fn(u64) -> bool) -> Vec<u64> {
        let gone: Vec<_> =
            self.0.iter().filter(|(ino, i)| i.names == 0 && !held(**ino)).map(|(ino, _)| *ino).collect();
        for ino in &gone {
            self.0.remove(ino);
        }
        gone
    }

    /// Carries it out, as far as what it is about is there.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Make { dir, name, ino, inode } => {
                if let Some(entries) = self.entries(*dir) {
                    entries.insert(name.clone(), *ino);
                    self.0.insert(*ino, Inode { names: 1, ..(**inode).clone() });
                }
            }
            Op::Link { dir, name, ino } => {
                if self.0.contains_key(ino)
                    && let Some(entries) = self.entries(*dir)
                {
                    entries.insert(name.clone(), *ino);
                    if let Some(inode) = self.0.get_mut(ino) {
                        inode.names += 1;
                    }
                }
            }
            Op::Unlink { dir, name } => {
                if let Some(ino) = self.entries(*dir).and_then(|e| e.remove(name)) {
                    self.lose_name(ino);
                }
            }
            Op::Rename { dir, name, to, to_name, exchange } => {
                let Some(ino) = self.entries(*dir).and_then(|e| e.remove(name)) else { return };
                let Some(entries) = self.entries(*to) else { return };
                let before = entries.insert(to_name.clone(), ino);
                if let Some(before) = before {
                    if *exchange {
                        if let Some(entries) = self.entries(*dir) {
                            entries.insert(name.clone(), before);
                        }
                    } else {
                        self.lose_name(before);
                    }
                }
            }
            Op::Mode { ino, mode, uid, gid } => {
                if let Some(inode) = self.0.get_mut(ino) {
                    (inode.mode, inode.uid, inode.gid) = (*mode, *uid, *gid);
                }
            }
            Op::Times { ino, atime, mtime, ctime } => {
                if let Some(inode) = self.0.get_mut(ino) {
                    (inode.atime, inode.mtime, inode.ctime) = (*atime, *mtime, *ctime);
                }
            }
            Op::Xattr { ino, name, value } => {
                if let Some(inode) = self.0.get_mut(ino) {
                    match value {
                        Some(value) => inode.xattrs.insert(name.clone(), value.clone()),
                        None => inode.xattrs.remove(name),
                    };
                }
            }
            Op::Resize { ino, size } => {
                if let Some(data) = self.data(*ino) {
                    data.resize(*size);
                }
            }
            Op::Punch { ino, at, len } => {
                if let Some(data) = self.data(*ino) {
                    data.punch(*at, *len);
                }
            }
            Op::Write { ino, at, bytes } => {
                if let Some(data) = self.data(*ino) {
                    data.write(*at, bytes);
                }
            }
        }
    }

    /// Whether the directory is in `above`, or is it.
    pub fn is_below(&self, dir: u64, above: u64) -> bool {
        let mut ahead = vec![above];
        while let Some(at) = ahead.pop() {
            if at == dir {
                return true;
            }
            if let Some(entries) = self.0.get(&at).and_then(Inode::entries) {
                ahead.extend(
                    entries.values().filter(|i| self.0.get(i).is_some_and(|i| i.entries().is_some())),
                );
            }
        }
        false
    }
}
