//! The end of a brick whose files are to be deleted: `data/` and the brick's own folder, and nothing else in its directory.
//!
//! Invariants: nothing is deleted unless the identity says that it is this brick; from the first deletion on a note says so, durably, and
//! the directory is never opened as a brick again, whatever ends in the middle; it is gone on with by the same call.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nearbrick_core::BrickId;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::disk::{Dir, Disk};
use super::{IDENTITY, Identity, OWN, read_all, replace_durably};

/// The note, in the brick's own folder; it has the volume's and the brick's UUID.
pub(super) const NOTE: &str = "emptying";

/// Why the files are not deleted, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum EmptyError {
    /// It is not this brick.
    #[error(
        "{0} is not the brick whose files are to be deleted: it has another identity, or none; nothing was changed"
    )]
    NotThisBrick(PathBuf),
    /// An agent has it open.
    #[error("{0} is in use by another brick agent; nothing was deleted")]
    InUse(PathBuf),
    /// What the disk says.
    #[error("{0} cannot be deleted: {1}")]
    Disk(PathBuf, Errno),
    /// It was stopped.
    #[error("stopped")]
    Stopped,
}

/// Whether the deletion of this brick's files has begun.
pub fn has_begun(disk: &dyn Disk, path: &Path, volume: Uuid, brick: BrickId) -> bool {
    let own = disk.open(path).and_then(|root| root.open_dir(OWN.as_bytes()));
    own.is_ok_and(|own| read_all(&own, NOTE).is_ok_and(|note| note == text(volume, brick).as_bytes()))
}

fn text(volume: Uuid, brick: BrickId) -> String {
    format!("{volume} {brick}")
}

/// Deletes the brick's files. `progress` hears of each name that is gone. A directory that is not there, or has nothing of a brick in it, is
/// done.
///
/// # Errors
/// Each with one clear line; the same call goes on where it was.
pub fn empty(
    disk: &dyn Disk,
    path: &Path,
    volume: Uuid,
    brick: BrickId,
    progress: &dyn Fn(),
    stop: &AtomicBool,
) -> Result<(), EmptyError> {
    let failed = |error: Errno| EmptyError::Disk(path.to_owned(), error);
    let root = match disk.open(path) {
        Err(Errno::NOENT) => return Ok(()),
        root => root.map_err(failed)?,
    };
    let own = match root.open_dir(OWN.as_bytes()) {
        Err(Errno::NOENT) if root.stat(b"data") == Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOENT) => return Err(EmptyError::NotThisBrick(path.to_owned())),
        own => own.map_err(failed)?,
    };
    // The note goes last but for the folder itself.
    let note = text(volume, brick);
    let began = read_all(&own, NOTE).is_ok_and(|found| found == note.as_bytes());
    if !began && !own.list().map_err(failed)?.is_empty() {
        let identity = read_all(&own, IDENTITY).ok();
        let identity = identity.and_then(|bytes| serde_json::from_slice::<Identity>(&bytes).ok());
        if !identity.is_some_and(|i| i.volume == volume && i.brick.parse() == Ok(brick)) {
            return Err(EmptyError::NotThisBrick(path.to_owned()));
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let lock = own.open(b"lock", flags, 0o644).map_err(failed)?;
        match lock.lock() {
            Err(Errno::WOULDBLOCK) => return Err(EmptyError::InUse(path.to_owned())),
            locked => locked.map_err(failed)?,
        }
        replace_durably(&own, NOTE, note.as_bytes()).map_err(failed)?;
    }
    let mut deleting = Deleting { progress, stop };
    deleting.all_but(&root, path, &|name| name != b"data")?;
    root.sync().map_err(failed)?;
    let own_path = path.join(OWN);
    deleting.all_but(&own, &own_path, &|name| name == NOTE.as_bytes())?;
    own.sync().map_err(failed)?;
    for done in [own.unlink(NOTE.as_bytes()), root.rmdir(OWN.as_bytes())] {
        match done {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    root.sync().map_err(failed)
}

struct Deleting<'a> {
    progress: &'a dyn Fn(),
    stop: &'a AtomicBool,
}

impl Deleting<'_> {
    /// Deletes what is in a directory but for what `keep` says of its own names. Open are a directory and those above it.
    fn all_but(&mut self, dir: &Dir, path: &Path, keep: &dyn Fn(&[u8]) -> bool) -> Result<(), EmptyError> {
        let list = |dir: &Dir, at: &Path| dir.list().map_err(|e| EmptyError::Disk(at.to_owned(), e));
        let mut names = list(dir, path)?;
        names.retain(|(name, _)| !keep(name));
        // Not by recursion: trees are deeper than a thread's stack may be.
        let mut stack = vec![Level { dir: dir.clone(), path: path.to_owned(), names }];
        while let Some(level) = stack.last_mut() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EmptyError::Stopped);
            }
            let Some((name, kind)) = level.names.last().cloned() else {
                stack.pop();
                if let Some(above) = stack.last_mut()
                    && let Some((name, _)) = above.names.pop()
                {
                    self.gone(above.dir.rmdir(&name), || above.at(&name))?;
                }
                continue;
            };
            if kind != FileType::Directory {
                level.names.pop();
                self.gone(level.dir.unlink(&name), || level.at(&name))?;
                continue;
            }
            match level.dir.open_dir(&name) {
                Ok(below) => {
                    let path = level.at(&name);
                    let names = list(&below, &path)?;
                    stack.push(Level { dir: below, path, names });
                }
                Err(Errno::NOENT) => {
                    level.names.pop();
                }
                Err(error) => return Err(EmptyError::Disk(level.at(&name), error)),
            }
        }
        Ok(())
    }

    fn gone(&self, done: rustix::io::Result<()>, at: impl FnOnce() -> PathBuf) -> Result<(), EmptyError> {
        match done {
            Ok(()) | Err(Errno::NOENT) => {
                (self.progress)();
                Ok(())
            }
            Err(error) => Err(EmptyError::Disk(at(), error)),
        }
    }
}

/// A directory on the way down, and what is left in it; the last of these is the one below.
struct Level {
    dir: Dir,
    path: PathBuf,
    names: Vec<(Vec<u8>, FileType)>,
}

impl Level {
    fn at(&self, name: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.path.join(std::ffi::OsStr::from_bytes(name))
    }
}
