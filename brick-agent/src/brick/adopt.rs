//! A directory that already holds files becomes a brick, where a person says so: they are moved into `data/`, by renames
//! only, and then the brick has an identity like any other.
//!
//! What is done is noted before it is begun, in `.nearbrick/adopting`, so that it goes on after a crash at any step. Nothing is
//! copied, opened or removed.
//!
//! | step | what is there after it |
//! |---|---|
//! | 1 | `.nearbrick/adopted/`, empty |
//! | 2 | `.nearbrick/adopting`: from here on it goes on by itself |
//! | 3 | all files are in `.nearbrick/adopted/`, and none beside it |
//! | 4 | that folder is `data/`: where the note is and the folder is not, this was done |
//! | 5 | the identity, which says that all in `data/` is still to be taken in; then the note goes |

use std::path::Path;

use nearbrick_core::BrickId;
use rustix::fs::RenameFlags;
use rustix::io::{Errno, Result as DiskResult};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::disk::{Dir, Disk};
use super::{Brick, BrickError, IDENTITY, OWN, make_dir, read_all, replace_durably};

pub(super) const NOTE: &str = "adopting";
const GATHERED: &str = "adopted";
const DATA: &[u8] = b"data";

/// What is noted.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    volume: Uuid,
    brick: String,
    /// Of the directory as it was: its root is the volume's root here.
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What belongs to the directory itself and not to its files.
fn stays(name: &[u8]) -> bool {
    name == OWN.as_bytes() || name == b"lost+found"
}

fn exists(dir: &Dir, name: &[u8]) -> DiskResult<bool> {
    match dir.stat(name) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a brick of the directory at `path`, if it has files and is none; or goes on with that. A person has said so. `fresh`:
/// the brick was never in use; else only what was begun is gone on with.
///
/// # Errors
/// One clear line; files that were moved by then are in `.nearbrick/adopted/`, and it goes on at the next call.
pub fn adopt(
    disk: &dyn Disk,
    path: &Path,
    volume: Uuid,
    brick: BrickId,
    fresh: bool,
    random: &dyn Fn() -> u64,
) -> Result<(), BrickError> {
    let io = |e: Errno| BrickError::Io(path.to_owned(), e.into());
    let root = match disk.open(path) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    let own = match root.open_dir(OWN.as_bytes()) {
        Ok(own) => Some(own),
        Err(Errno::NOENT) => None,
        // Whatever that is, it is looked at as any brick is.
        Err(_) => return Ok(()),
    };
    let noted = match own.as_ref().map(|own| read_all(own, NOTE)) {
        None | Some(Err(Errno::NOENT)) => None,
        Some(Ok(bytes)) => Some(bytes),
        Some(Err(error)) => return Err(io(error)),
    };
    let note = match noted {
        Some(bytes) => {
            let at = path.join(OWN).join(NOTE);
            let note: Note = serde_json::from_slice(&bytes)
                .map_err(|e| BrickError::BadIdentity(at.clone(), e.to_string()))?;
            if note.volume != volume {
                return Err(BrickError::OtherVolume { path: at, found: note.volume, wanted: volume });
            }
            if note.brick.parse() != Ok(brick) {
                return Err(BrickError::OtherBrick { path: at, found: note.brick, wanted: brick });
            }
            note
        }
        None => {
            let is_brick =
                own.as_ref().map(|own| exists(own, IDENTITY.as_bytes())).transpose().map_err(io)?;
            let has_files = root.list().map_err(io)?.iter().any(|(name, _)| !stays(name));
            if !fresh || is_brick == Some(true) || !has_files {
                return Ok(());
            }
            Brick::check_xattrs(&root, path)?;
            begin(&root, volume, brick).map_err(io)?
        }
    };
    finish(&root, &note, volume, brick, random).map_err(io)
}

/// Steps 1 and 2.
fn begin(root: &Dir, volume: Uuid, brick: BrickId) -> DiskResult<Note> {
    let was = root.stat_self()?;
    let own = make_dir(root, OWN, 0o700)?;
    make_dir(&own, GATHERED, 0o700)?;
    let note = Note {
        volume,
        brick: brick.to_string(),
        mode: was.st_mode & 0o7777,
        uid: was.st_uid,
        gid: was.st_gid,
    };
    own.sync()?;
    root.sync()?;
    let text = serde_json::to_vec_pretty(&note).map_err(|_| Errno::IO)?;
    replace_durably(&own, NOTE, &text)?;
    Ok(note)
}

/// Steps 3 to 5, as far as they are not done.
fn finish(root: &Dir, note: &Note, volume: Uuid, brick: BrickId, random: &dyn Fn() -> u64) -> DiskResult<()> {
    let own = root.open_dir(OWN.as_bytes())?;
    if exists(&own, GATHERED.as_bytes())? {
        let gathered = own.open_dir(GATHERED.as_bytes())?;
        for (name, _) in root.list()? {
            if !stays(&name) {
                root.rename(&name, &*gathered, &name, RenameFlags::NOREPLACE)?;
            }
        }
        own.chown(GATHERED.as_bytes(), Some(note.uid), Some(note.gid))?;
        own.chmod(GATHERED.as_bytes(), note.mode)?;
        gathered.sync()?;
        root.sync()?;
        own.rename(GATHERED.as_bytes(), &**root, DATA, RenameFlags::NOREPLACE)?;
        root.sync()?;
        own.sync()?;
    }
    if !exists(&own, IDENTITY.as_bytes())? {
        // People go through the mount, as with any brick.
        root.chmod(b".", 0o700)?;
        Brick::initialise(root, volume, brick, random(), true)?;
    }
    own.unlink(NOTE.as_bytes())?;
    own.sync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brick::machine::MachineDisk;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const VOLUME: Uuid = Uuid::from_u128(1);
    const ME: BrickId = BrickId([1; 16]);

    fn adopt_at(path: &Path, fresh: bool) -> Result<(), BrickError> {
        adopt(&MachineDisk, path, VOLUME, ME, fresh, &|| 7)
    }

    fn open(path: &Path) -> Result<Brick, BrickError> {
        Brick::open(&MachineDisk, path, VOLUME, ME, false, &|| 9)
    }

    fn files(dir: &Path) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut ahead = vec![dir.to_owned()];
        while let Some(at) = ahead.pop() {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    ahead.push(path);
                } else {
                    let name = path.strip_prefix(dir).unwrap().display().to_string();
                    all.insert(name, fs::read_to_string(path).unwrap());
                }
            }
        }
        all
    }

    fn with_files() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("data/data")).unwrap();
        for name in ["thesis.tex", "data/own", "data/data/own"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        dir
    }

    fn check(dir: &Path) {
        let data = files(&dir.join("data"));
        let wanted = ["thesis.tex", "data/own", "data/data/own"].map(|n| (n.to_owned(), n.to_owned()));
        assert_eq!(data, BTreeMap::from(wanted));
        assert_eq!(fs::metadata(dir.join("data")).unwrap().permissions().mode() & 0o7777, 0o750);
        assert!(!dir.join(OWN).join(NOTE).exists());
        let brick = open(dir).unwrap();
        assert!(!brick.is_new && brick.adopting);
        drop(brick);
        // Until it is said that all of it was taken in.
        let brick = open(dir).unwrap();
        assert!(brick.adopting);
        brick.adopted().unwrap();
        drop(brick);
        assert!(!open(dir).unwrap().adopting);
    }

    #[test]
    fn t24_nothing_is_adopted_that_was_in_use_is_empty_or_is_a_brick() {
        let dir = with_files();
        let before = files(dir.path());
        adopt_at(dir.path(), false).unwrap();
        assert_eq!(files(dir.path()), before);
        assert!(matches!(open(dir.path()), Err(BrickError::NotABrick(_))));
        adopt_at(&dir.path().join("none"), true).unwrap();
        let empty = tempfile::tempdir().unwrap();
        adopt_at(empty.path(), true).unwrap();
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
        drop(open(empty.path()).unwrap());
        adopt_at(empty.path(), true).unwrap();
        assert!(!open(empty.path()).unwrap().adopting);
    }

    #[test]
    fn files_are_moved_into_data_and_nothing_else_happens_to_them() {
        let dir = with_files();
        adopt_at(dir.path(), true).unwrap();
        check(dir.path());
        adopt_at(dir.path(), true).unwrap();
    }

    #[test]
    fn an_end_at_any_step_is_gone_on_from() {
        // After the note was written; with some files moved; with all; and after `data/` was there.
        for step in 0..4 {
            let dir = with_files();
            let root = MachineDisk.open(dir.path()).unwrap();
            begin(&root, VOLUME, ME).unwrap();
            let own = dir.path().join(OWN);
            if step >= 1 {
                fs::rename(dir.path().join("data"), own.join("adopted/data")).unwrap();
            }
            if step >= 2 {
                fs::rename(dir.path().join("thesis.tex"), own.join("adopted/thesis.tex")).unwrap();
            }
            if step >= 3 {
                fs::set_permissions(own.join("adopted"), fs::Permissions::from_mode(0o750)).unwrap();
                fs::rename(own.join("adopted"), dir.path().join("data")).unwrap();
            }
            // By another brick, or for another volume, it is not gone on with.
            let other = adopt(&MachineDisk, dir.path(), VOLUME, BrickId([2; 16]), true, &|| 7);
            assert!(matches!(other, Err(BrickError::OtherBrick { .. })));
            let other = adopt(&MachineDisk, dir.path(), Uuid::from_u128(2), ME, true, &|| 7);
            assert!(matches!(other, Err(BrickError::OtherVolume { .. })));
            // Nor is it a brick before it is done.
            assert!(open(dir.path()).is_err(), "step {step}");
            adopt_at(dir.path(), false).unwrap();
            check(dir.path());
        }
    }
}
