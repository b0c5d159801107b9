//! Whole trees as values, to be compared.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nearbrick_agent::volume::Volume;
use nearbrick_agent::volume::types::NodeId;
use nearbrick_core::op::Kind;
use rustix::io::Errno;

use super::fs::{Fs, Name, ROOT, read_node};

/// Everything below a root, by path.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tree(pub BTreeMap<Vec<Name>, Entry>);

/// One object.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    pub what: What,
    pub perm: u32,
    pub owner: (u32, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same object.
    pub same_as: Vec<Name>,
}

#[derive(Clone, PartialEq, Eq)]
pub enum What {
    File(Vec<u8>),
    Dir,
    Symlink(Vec<u8>),
    Fifo,
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::File(bytes) => {
                let hash = blake3::hash(bytes).to_hex();
                write!(f, "file of {} bytes, {}", bytes.len(), &hash[..8])
            }
            What::Dir => f.write_str("dir"),
            What::Symlink(target) => write!(f, "-> {}", target.escape_ascii()),
            What::Fifo => f.write_str("fifo"),
        }
    }
}

pub fn shown(path: &[Name]) -> String {
    let names: Vec<_> = path.iter().map(|n| n.escape_ascii().to_string()).collect();
    format!("/{}", names.join("/"))
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, e) in &self.0 {
            write!(f, "\n  {} {:?} {:o} {:?}", shown(path), e.what, e.perm, e.owner)?;
            for (name, value) in &e.xattrs {
                write!(f, " {}={}", name.escape_ascii(), value.escape_ascii())?;
            }
            if e.same_as != *path {
                write!(f, " = {}", shown(&e.same_as))?;
            }
        }
        Ok(())
    }
}

/// Fails with what differs.
pub fn assert_same(left_name: &str, left: &Tree, right_name: &str, right: &Tree) {
    if left == right {
        return;
    }
    let mut all: Vec<_> = left.0.keys().chain(right.0.keys()).collect();
    all.sort();
    all.dedup();
    let mut text = String::new();
    for path in all {
        let (l, r) = (left.0.get(path), right.0.get(path));
        if l != r {
            let one = |e: Option<&Entry>| match e {
                None => "nothing".to_owned(),
                Some(e) => {
                    format!("{:?} {:o} {:?} {:?} = {}", e.what, e.perm, e.owner, e.xattrs, shown(&e.same_as))
                }
            };
            text += &format!("\n{}\n  {left_name}: {}\n  {right_name}: {}", shown(path), one(l), one(r));
        }
    }
    panic!("{left_name} and {right_name} differ:{text}");
}

/// Sets `same_as` by what identifies each object.
fn join(found: Vec<(Vec<Name>, u64, Entry)>) -> Tree {
    let mut tree = Tree::default();
    let mut first: BTreeMap<u64, Vec<Name>> = BTreeMap::new();
    for (path, id, entry) in &found {
        if matches!(entry.what, What::File(_) | What::Symlink(_) | What::Fifo) {
            let known = first.entry(*id).or_insert_with(|| path.clone());
            if path < known {
                *known = path.clone();
            }
        }
    }
    for (path, id, mut entry) in found {
        entry.same_as = first.get(&id).cloned().unwrap_or_else(|| path.clone());
        tree.0.insert(path, entry);
    }
    tree
}

/// The tree that programs see, read `page` entries at a time.
pub fn of_volume(volume: &Volume, page: usize) -> Tree {
    let mut found = Vec::new();
    walk_volume(volume, ROOT, &mut Vec::new(), page, &mut found);
    join(found)
}

fn walk_volume(
    volume: &Volume,
    dir: NodeId,
    path: &mut Vec<Name>,
    page: usize,
    found: &mut Vec<(Vec<Name>, u64, Entry)>,
) {
    let fs = Fs::new(volume);
    for listed in fs.list(dir, page).unwrap() {
        path.push(listed.name.clone());
        let place = shown(path);
        let look_up = || volume.lookup(dir, &listed.name).unwrap_or_else(|e| panic!("lookup {place}: {e}"));
        let mut stat = look_up();
        fs.counted(&stat);
        let what = match &stat.kind {
            Kind::File => {
                let mut bytes = read_node(volume, stat.node);
                if bytes == Err(Errno::STALE) {
                    // The kernel looks the name up once more then.
                    stat = look_up();
                    fs.counted(&stat);
                    bytes = read_node(volume, stat.node);
                }
                let bytes = bytes.unwrap_or_else(|e| panic!("read {place}: {e}"));
                assert_eq!(bytes.len() as u64, stat.size, "size of {place}");
                What::File(bytes)
            }
            Kind::Dir => What::Dir,
            Kind::Symlink(_) => What::Symlink(volume.readlink(stat.node).unwrap()),
            Kind::Special { .. } => What::Fifo,
        };
        let names = volume.listxattr(stat.node).unwrap();
        let xattrs = names
            .split(|b| *b == 0)
            .filter(|n| !n.is_empty())
            .map(|n| (n.to_vec(), volume.getxattr(stat.node, n).unwrap()))
            .collect();
        let entry = Entry { what, perm: stat.perm, owner: (stat.uid, stat.gid), xattrs, same_as: Vec::new() };
        let is_dir = entry.what == What::Dir;
        found.push((path.clone(), stat.node, entry));
        if is_dir {
            walk_volume(volume, stat.node, path, page, found);
        }
        path.pop();
    }
}

/// The tree below a directory of the disk, through no code of ours. Only
/// attributes that programs see.
pub fn of_disk(root: &std::path::Path) -> Tree {
    let mut found = Vec::new();
    walk_disk(root, &mut Vec::new(), &mut found);
    join(found)
}

fn walk_disk(dir: &std::path::Path, path: &mut Vec<Name>, found: &mut Vec<(Vec<Name>, u64, Entry)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let at = entry.path();
        let meta = std::fs::symlink_metadata(&at).unwrap();
        path.push(entry.file_name().as_bytes().to_vec());
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            What::Dir
        } else if kind.is_symlink() {
            What::Symlink(std::fs::read_link(&at).unwrap().as_os_str().as_bytes().to_vec())
        } else if kind.is_fifo() {
            What::Fifo
        } else {
            What::File(std::fs::read(&at).unwrap())
        };
        let mut names = vec![0; 65536];
        let len = rustix::fs::llistxattr(&at, names.as_mut_slice()).unwrap();
        let xattrs = names[..len]
            .split(|b| *b == 0)
            .filter(|n| n.starts_with(b"user."))
            .map(|n| {
                let mut value = vec![0; 65536];
                let len = rustix::fs::lgetxattr(&at, n, value.as_mut_slice()).unwrap();
                value.truncate(len);
                (n.to_vec(), value)
            })
            .collect();
        let entry = Entry {
            what,
            perm: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            xattrs,
            same_as: Vec::new(),
        };
        let is_dir = entry.what == What::Dir;
        found.push((path.clone(), meta.ino(), entry));
        if is_dir {
            walk_disk(&at, path, found);
        }
        path.pop();
    }
}
