//! The way back from `versions/`: an ordinary edit, or an ordinary new file, which members hear of as of any other.
//!
//! Invariant: what is replaced is kept in `versions/` before it is touched, so a restore can be taken back too.

use nearbrick_core::op::is_exchanged;
use nearbrick_core::{Kind, Place, acl, name};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::Volume;
use super::conflict::copy;
use super::types::{Caller, FsResult, HandleId, NodeId, SetAttr, SetTime};
use super::versions::Why;
use crate::brick::access;
use crate::brick::disk::File;

/// Why a kept version is not restored: one clear line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// No such version.
    #[error("{0} is not kept on this brick: `brick-agent versions list --all` shows what is")]
    NotKept(String),
    /// It has no label.
    #[error("it is not known where {0} was: say where to put it with --to PATH")]
    NoPath(String),
    /// No path in the tree.
    #[error("{0:?} is no path of a file in the volume")]
    BadPath(String),
    /// Something else is there.
    #[error("{0} is not a file, or below something that is no directory: say another place with --to PATH")]
    NotAFile(String),
    /// A program writes it.
    #[error("{0} is being written: close it first, or say another place with --to PATH")]
    Busy(String),
    /// The disk's word, or a peer's.
    #[error("{path} cannot be restored: {error}")]
    Failed {
        /// Which file.
        path: String,
        /// Why.
        error: Errno,
    },
}

/// Lookups that are given back in the end, as the kernel does.
struct Lookups<'a> {
    volume: &'a Volume,
    nodes: Vec<NodeId>,
}

impl Drop for Lookups<'_> {
    fn drop(&mut self) {
        self.nodes.iter().for_each(|node| self.volume.forget(*node, 1));
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl Volume {
    /// Brings a kept version back, at the path where it was or at another one; gives the path. Directories that lack
    /// are made.
    ///
    /// # Errors
    /// See there. What was replaced, as far as it was, is in `versions/`.
    pub fn restore(&self, id: &str, to: Option<&[u8]>) -> Result<Vec<u8>, RestoreError> {
        let kept = self.kept_version(id).map_err(|error| match error {
            Errno::NOENT => RestoreError::NotKept(id.to_owned()),
            error => RestoreError::Failed { path: id.to_owned(), error },
        })?;
        let path = to.map(<[u8]>::to_vec).or(kept.path).ok_or_else(|| RestoreError::NoPath(id.to_owned()))?;
        let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !name.is_empty()).collect();
        let Some((last, dirs)) = names.split_last() else { return Err(RestoreError::BadPath(shown(&path))) };
        if names.iter().any(|n| name::check(n).is_err()) || names[0] == name::RESERVED {
            return Err(RestoreError::BadPath(shown(&path)));
        }
        self.bring_back(id, dirs, last).map_err(|error| match error {
            Errno::NOTDIR | Errno::ISDIR => RestoreError::NotAFile(shown(&path)),
            Errno::BUSY => RestoreError::Busy(shown(&path)),
            error => RestoreError::Failed { path: shown(&path), error },
        })?;
        tracing::info!(version = id, path = %shown(&path), "a kept version was restored");
        Ok(path)
    }

    fn bring_back(&self, id: &str, dirs: &[&[u8]], last: &[u8]) -> FsResult<()> {
        let from = access::open(&self.brick.versions, id.as_bytes(), OFlags::RDONLY, 0)?;
        let raw = from.stat()?;
        if FileType::from_raw_mode(raw.st_mode) != FileType::RegularFile {
            return Err(Errno::ISDIR);
        }
        let size = u64::try_from(raw.st_size).unwrap_or(0);
        let caller = Caller { uid: raw.st_uid, gid: raw.st_gid, pid: std::process::id(), umask: 0 };
        let mut lookups = Lookups { volume: self, nodes: Vec::new() };
        let dir = self.dir_to_restore_in(&mut lookups, caller, dirs)?;
        let (node, opened, made) = match self.lookup(dir, last) {
            Ok(stat) => {
                lookups.nodes.push(stat.node);
                if stat.kind != Kind::File {
                    return Err(Errno::ISDIR);
                }
                self.is_quiet(stat.node)?;
                // All of it comes here first: it is kept before it is replaced.
                (stat.node, self.open_file(stat.node, libc::O_RDWR)?, false)
            }
            Err(Errno::NOENT) => {
                let (stat, opened) = self.create(caller, dir, last, raw.st_mode & 0o7777, libc::O_RDWR)?;
                lookups.nodes.push(stat.node);
                (stat.node, opened, true)
            }
            Err(error) => return Err(error),
        };
        let written = (if made { Ok(()) } else { self.keep_present(node, opened.handle) })
            .and_then(|()| {
                self.with_file(opened.handle, |open| {
                    open.io.truncate(0)?;
                    copy(&*from, &*open.io, size)
                })
            })
            .and_then(|()| self.fsync(opened.handle, false));
        self.release(opened.handle);
        written?;
        if made {
            self.dress_restored(node, caller, id, &from)?;
        }
        let core = &*self.lock();
        if let (Ok(parent), Ok(file)) = (self.file_of(core, dir), self.file_of(core, node)) {
            self.invalidate_entry(core, &Place { parent, name: last.to_vec() });
            self.invalidate_node(core, file, true);
        }
        Ok(())
    }

    /// The directory, made as far as it lacks.
    fn dir_to_restore_in(
        &self,
        lookups: &mut Lookups<'_>,
        caller: Caller,
        dirs: &[&[u8]],
    ) -> FsResult<NodeId> {
        let mut at = super::nodes::ROOT;
        for name in dirs {
            let stat = match self.lookup(at, name) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    let made = self.mkdir(caller, at, name, 0o755)?;
                    let core = &*self.lock();
                    if let Ok(parent) = self.file_of(core, at) {
                        self.invalidate_entry(core, &Place { parent, name: name.to_vec() });
                    }
                    made
                }
                Err(error) => return Err(error),
            };
            lookups.nodes.push(stat.node);
            if !stat.kind.is_dir() {
                return Err(Errno::NOTDIR);
            }
            at = stat.node;
        }
        Ok(at)
    }

    fn is_quiet(&self, node: NodeId) -> FsResult<()> {
        let core = &*self.lock();
        let file = self.file_of(core, node)?;
        let written = core.nodes.get(node).is_some_and(|n| n.writers > 0) || self.local_of(file)?.dirty;
        if written { Err(Errno::BUSY) } else { Ok(()) }
    }

    /// What is in the file now goes to `versions/` first.
    fn keep_present(&self, node: NodeId, handle: HandleId) -> FsResult<()> {
        let (file, have, label) = {
            let core = &*self.lock();
            let file = self.file_of(core, node)?;
            let (object, local) = (self.object_of(file)?, self.local_of(file)?);
            let Some(have) = local.have.clone() else { return Ok(()) };
            let label = self.label(&object, &have, self.path_to_keep(&object, &local), Why::Replaced);
            (file, have, label)
        };
        let staged = format!("replaced-{file}");
        let to = self.stage(&staged)?;
        let kept = self.with_file(handle, |open| {
            let raw = open.io.stat()?;
            copy(&*open.io, &*to, u64::try_from(raw.st_size).unwrap_or(0))?;
            to.chown(Some(raw.st_uid), Some(raw.st_gid))?;
            to.chmod(raw.st_mode & 0o7777)?;
            let mtime = super::change::print_of(&raw).mtime;
            to.utimens(&access::timestamps(None, Some(SetTime::At(access::time(mtime.0, mtime.1)))))?;
            access::set_file_mark(&*to, &crate::brick::mark::Mark::new(file, Some(have.clone())))?;
            to.sync()
        });
        let kept = kept.and_then(|()| self.staged_to_versions(&staged, file, &have, &label));
        if kept.is_err() {
            self.unstage(&staged);
        }
        kept
    }

    /// Attributes and time of a file that was deleted.
    fn dress_restored(&self, node: NodeId, caller: Caller, id: &str, from: &File) -> FsResult<()> {
        let names = access::list_xattr(&self.brick.versions, id.as_bytes())?;
        for attribute in names.split(|b| *b == 0).filter(|name| is_exchanged(name)) {
            let value = access::get_xattr(&self.brick.versions, id.as_bytes(), attribute)?;
            if acl::is_acl(attribute) {
                self.set_acl(caller, node, attribute, &value)?;
            } else {
                self.setxattr(node, attribute, &value, 0)?;
            }
        }
        let (sec, nsec) = super::change::print_of(&from.stat()?).mtime;
        let mtime = Some(SetTime::At(access::time(sec, nsec)));
        self.setattr(node, None, &SetAttr { mtime, ..SetAttr::default() }).map(drop)
    }
}
