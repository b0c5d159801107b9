//! A file system in memory, as plain as can be: what the volume must look like.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::drive::{Gave, Outcome};
use super::fs::{Name, Path};
use super::ops::{Op, SLOTS};
use super::tree::{Entry, Tree, What};

type Id = usize;

#[derive(Clone)]
struct Node {
    what: Body,
    perm: u32,
    owner: (u32, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Set by hand, and not changed by anything since.
    mtime: Option<i64>,
    names: u32,
}

#[derive(Clone)]
enum Body {
    File(Vec<u8>),
    Dir(BTreeMap<Name, Id>),
    Symlink(Vec<u8>),
    Fifo,
}

/// The file system. Nodes are never dropped: a run is short.
pub struct Reference {
    nodes: Vec<Node>,
    slots: [Option<Id>; SLOTS],
}

type R<T> = Result<T, Errno>;

impl Default for Reference {
    fn default() -> Self {
        Self::new()
    }
}

impl Reference {
    pub fn new() -> Self {
        let root = Node {
            what: Body::Dir(BTreeMap::new()),
            perm: 0o755,
            owner: owner(),
            xattrs: BTreeMap::new(),
            mtime: None,
            names: 1,
        };
        Reference { nodes: vec![root], slots: [None; SLOTS] }
    }

    fn entries(&self, dir: Id) -> R<&BTreeMap<Name, Id>> {
        match &self.nodes[dir].what {
            Body::Dir(entries) => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn entries_mut(&mut self, dir: Id) -> &mut BTreeMap<Name, Id> {
        self.nodes[dir].mtime = None;
        match &mut self.nodes[dir].what {
            Body::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    fn bytes(&mut self, file: Id) -> &mut Vec<u8> {
        self.nodes[file].mtime = None;
        match &mut self.nodes[file].what {
            Body::File(bytes) => bytes,
            _ => panic!("not a file"),
        }
    }

    fn find(&self, path: &Path) -> R<Id> {
        path.iter().try_fold(0, |at, name| self.entries(at)?.get(name).copied().ok_or(Errno::NOENT))
    }

    fn parent<'p>(&self, path: &'p Path) -> R<(Id, &'p Name)> {
        let (name, dirs) = path.split_last().ok_or(Errno::BUSY)?;
        let dir = self.find(dirs)?;
        self.entries(dir)?;
        Ok((dir, name))
    }

    fn is_dir(&self, id: Id) -> bool {
        matches!(self.nodes[id].what, Body::Dir(_))
    }

    fn make(&mut self, path: &Path, what: Body, perm: u32) -> R<Id> {
        let (dir, name) = self.parent(path)?;
        if self.entries(dir)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let mut perm = perm;
        let mut owner = owner();
        // A setgid directory hands its group on, and to directories the bit too.
        if self.nodes[dir].perm & 0o2000 != 0 {
            owner.1 = self.nodes[dir].owner.1;
            if matches!(what, Body::Dir(_)) {
                perm |= 0o2000;
            }
        }
        self.nodes.push(Node { what, perm, owner, xattrs: BTreeMap::new(), mtime: None, names: 1 });
        let id = self.nodes.len() - 1;
        self.entries_mut(dir).insert(name.clone(), id);
        Ok(id)
    }

    fn open(&mut self, path: &Path, create: Option<u32>, exclusive: bool, truncate: bool) -> R<Id> {
        let (dir, name) = self.parent(path)?;
        let id = match (self.entries(dir)?.get(name), create) {
            (Some(_), Some(_)) if exclusive => return Err(Errno::EXIST),
            (Some(id), _) => *id,
            (None, Some(perm)) => return self.make(path, Body::File(Vec::new()), perm),
            (None, None) => return Err(Errno::NOENT),
        };
        match self.nodes[id].what {
            Body::File(_) => {}
            Body::Dir(_) => return Err(Errno::ISDIR),
            Body::Symlink(_) => return Err(Errno::LOOP),
            Body::Fifo => return Err(Errno::NXIO),
        }
        if truncate {
            self.bytes(id).clear();
        }
        Ok(id)
    }

    fn slot(&self, slot: usize) -> R<Id> {
        self.slots[slot].ok_or(Errno::BADF)
    }

    fn put(&mut self, file: Id, at: u64, len: usize, byte: u8) {
        if len == 0 {
            return;
        }
        let at = at as usize;
        let bytes = self.bytes(file);
        if bytes.len() < at + len {
            bytes.resize(at + len, 0);
        }
        bytes[at..at + len].fill(byte);
    }

    fn unlink(&mut self, dir: Id, name: &Name) -> Id {
        let id = self.entries_mut(dir).remove(name).expect("looked up before");
        self.nodes[id].names -= 1;
        id
    }

    /// Does one operation.
    pub fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Open { path, slot, mode, truncate, exclusive, create } => {
                let id = self.open(path, create.then_some(*mode), *exclusive, *truncate)?;
                self.slots[*slot] = Some(id);
            }
            Op::Write { slot, at, len, byte } => {
                let id = self.slot(*slot)?;
                self.put(id, *at, *len, *byte);
            }
            Op::Read { slot, at, len } => {
                let id = self.slot(*slot)?;
                let Body::File(bytes) = &self.nodes[id].what else { panic!("not a file") };
                let from = (*at as usize).min(bytes.len());
                let to = (from + len).min(bytes.len());
                return Ok(Gave::Bytes(bytes[from..to].to_vec()));
            }
            Op::Sync { slot } => drop(self.slot(*slot)?),
            Op::TruncateOpen { slot, size } => {
                let id = self.slot(*slot)?;
                self.bytes(id).resize(*size as usize, 0);
            }
            Op::Allocate { slot, at, len, mode } => {
                let id = self.slot(*slot)?;
                let bytes = self.bytes(id);
                let end = (at + len) as usize;
                if mode & 1 == 0 && bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if matches!(mode, 3 | 0x10) {
                    let end = end.min(bytes.len());
                    bytes[(*at as usize).min(end)..end].fill(0);
                }
            }
            Op::Close { slot } => drop(self.slots[*slot].take().ok_or(Errno::BADF)?),
            Op::WriteFile { path, len, byte } => {
                let id = self.open(path, Some(0o644), false, true)?;
                self.put(id, 0, *len, *byte);
            }
            Op::ReadFile { path } => {
                let id = self.open(path, None, false, false)?;
                let Body::File(bytes) = &self.nodes[id].what else { panic!("not a file") };
                return Ok(Gave::Bytes(bytes.clone()));
            }
            Op::Truncate { path, size } => {
                let id = self.find(path)?;
                match self.nodes[id].what {
                    Body::File(_) => self.bytes(id).resize(*size as usize, 0),
                    Body::Dir(_) => return Err(Errno::ISDIR),
                    _ => return Err(Errno::INVAL),
                }
            }
            Op::Mkdir { path, mode } => drop(self.make(path, Body::Dir(BTreeMap::new()), *mode)?),
            Op::Rmdir { path } => {
                let (dir, name) = self.parent(path)?;
                let id = *self.entries(dir)?.get(name).ok_or(Errno::NOENT)?;
                if !self.entries(id)?.is_empty() {
                    return Err(Errno::NOTEMPTY);
                }
                self.unlink(dir, name);
            }
            Op::Unlink { path } => {
                let (dir, name) = self.parent(path)?;
                let id = *self.entries(dir)?.get(name).ok_or(Errno::NOENT)?;
                if self.is_dir(id) {
                    return Err(Errno::ISDIR);
                }
                self.unlink(dir, name);
            }
            Op::Rename { from, to, flags } => self.rename(from, to, *flags)?,
            Op::Link { from, to } => {
                let id = self.find(from)?;
                let (dir, name) = self.parent(to)?;
                if self.is_dir(id) {
                    return Err(Errno::PERM);
                }
                if self.entries(dir)?.contains_key(name) {
                    return Err(Errno::EXIST);
                }
                self.entries_mut(dir).insert(name.clone(), id);
                self.nodes[id].names += 1;
            }
            Op::Symlink { path, target } => drop(self.make(path, Body::Symlink(target.clone()), 0o777)?),
            Op::Fifo { path, mode } => drop(self.make(path, Body::Fifo, *mode)?),
            Op::Chmod { path, mode } => {
                let id = self.find(path)?;
                if matches!(self.nodes[id].what, Body::Symlink(_)) {
                    return Err(Errno::OPNOTSUPP);
                }
                self.nodes[id].perm = *mode;
            }
            Op::Chown { path, uid, gid } => {
                let id = self.find(path)?;
                let node = &mut self.nodes[id];
                node.owner = (*uid, *gid);
                if matches!(node.what, Body::File(_) | Body::Fifo) {
                    node.perm &= 0o1777;
                }
            }
            Op::Touch { path, mtime } => {
                let id = self.find(path)?;
                self.nodes[id].mtime = Some(*mtime);
            }
            Op::SetXattr { path, name, value, flags } => {
                let id = self.find(path)?;
                let xattrs = self.xattrs(id)?;
                match (xattrs.contains_key(name), *flags) {
                    (true, libc::XATTR_CREATE) => return Err(Errno::EXIST),
                    (false, libc::XATTR_REPLACE) => return Err(Errno::NODATA),
                    _ => drop(xattrs.insert(name.clone(), value.clone())),
                }
            }
            Op::RemoveXattr { path, name } => {
                let id = self.find(path)?;
                self.xattrs(id)?.remove(name).ok_or(Errno::NODATA)?;
            }
            Op::List { path, .. } => {
                let id = self.find(path)?;
                return Ok(Gave::Names(self.entries(id)?.keys().cloned().collect()));
            }
            Op::Reopen => self.slots = [None; SLOTS],
        }
        Ok(Gave::Nothing)
    }

    fn xattrs(&mut self, id: Id) -> R<&mut BTreeMap<Vec<u8>, Vec<u8>>> {
        let node = &mut self.nodes[id];
        match node.what {
            Body::File(_) | Body::Dir(_) => Ok(&mut node.xattrs),
            _ => Err(Errno::PERM),
        }
    }

    fn rename(&mut self, from: &Path, to: &Path, flags: u32) -> R<()> {
        let (dir, name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let old = self.find(from)?;
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let new = match self.find(to) {
            Ok(_) if flags & libc::RENAME_NOREPLACE != 0 => return Err(Errno::EXIST),
            Ok(new) => Some(new),
            Err(Errno::NOENT) if !exchange => None,
            Err(error) => return Err(error),
        };
        if to.len() > from.len() && to.starts_with(from) {
            return Err(Errno::INVAL);
        }
        if from.len() > to.len() && from.starts_with(to) {
            return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        if new == Some(old) {
            return Ok(());
        }
        if let (true, Some(new)) = (exchange, new) {
            self.entries_mut(dir).insert(name.clone(), new);
            self.entries_mut(to_dir).insert(to_name.clone(), old);
            return Ok(());
        }
        if let Some(new) = new {
            match (self.is_dir(old), self.is_dir(new)) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.entries(new)?.is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            }
            self.nodes[new].names -= 1;
        }
        self.entries_mut(dir).remove(name);
        self.entries_mut(to_dir).insert(to_name.clone(), old);
        Ok(())
    }

    /// The whole tree.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        let mut first = BTreeMap::new();
        self.walk(0, &mut Vec::new(), &mut |path, id, entry| {
            tree.0.insert(path.to_vec(), entry);
            let known = first.entry(id).or_insert_with(|| path.to_vec());
            if path < known.as_slice() {
                *known = path.to_vec();
            }
        });
        self.walk(0, &mut Vec::new(), &mut |path, id, _| {
            if let (Some(entry), Some(same)) = (tree.0.get_mut(path), first.get(&id)) {
                entry.same_as = same.clone();
            }
        });
        tree
    }

    fn walk(&self, dir: Id, path: &mut Vec<Name>, found: &mut impl FnMut(&Path, Id, Entry)) {
        let Body::Dir(entries) = &self.nodes[dir].what else { return };
        for (name, id) in entries {
            path.push(name.clone());
            let node = &self.nodes[*id];
            let what = match &node.what {
                Body::File(bytes) => What::File(bytes.clone()),
                Body::Dir(_) => What::Dir,
                Body::Symlink(target) => What::Symlink(target.clone()),
                Body::Fifo => What::Fifo,
            };
            let entry = Entry {
                what,
                perm: node.perm,
                owner: node.owner,
                xattrs: node.xattrs.clone(),
                same_as: path.clone(),
            };
            found(path, *id, entry);
            self.walk(*id, path, found);
            path.pop();
        }
    }

    /// Modification times that were set by hand and hold, and how many names a file has.
    pub fn facts(&self) -> Vec<(Vec<Name>, Option<i64>, Option<u32>)> {
        let mut facts = Vec::new();
        self.walk(0, &mut Vec::new(), &mut |path, id, _| {
            let node = &self.nodes[id];
            facts.push((path.to_vec(), node.mtime, (!self.is_dir(id)).then_some(node.names)));
        });
        facts
    }
}

fn owner() -> (u32, u32) {
    let me = super::fs::me();
    (me.uid, me.gid)
}
