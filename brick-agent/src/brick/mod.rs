//! The brick's directory: its identity, and all access below it.
//!
//! * [`access`]: calls relative to a directory descriptor; nothing escapes.
//! * [`mark`]: the xattr that each object of `data/` carries.
//! * [`lease`]: the only way to know that no one can write a file any more.
//!
//! Invariant: nothing is written to a directory until its identity was found
//! to be the expected one, or the directory was found to be new.

pub mod access;
pub mod lease;
pub mod mark;

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nearbrick_core::{BrickId, Incarnation};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The folder of the brick's own files.
pub const OWN: &str = ".nearbrick";
const IDENTITY: &str = "identity";
const FORMAT: u32 = 1;

/// Who a brick is, in `.nearbrick/identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of the layout on disk.
    pub format: u32,
    /// The volume's UUID.
    pub volume: Uuid,
    /// The brick's UUID.
    pub brick: String,
    /// The life of its index.
    pub incarnation: String,
}

/// Why a directory is not opened as a brick. Nothing in it was touched.
#[derive(Debug, thiserror::Error)]
pub enum BrickError {
    /// Files, but no identity.
    #[error(
        "{0} is no brick: it has files but no {OWN}/{IDENTITY}; give the brick an empty directory, or move these files away"
    )]
    NotABrick(PathBuf),
    /// Nothing there, though the brick has been in use.
    #[error("{0} is empty, but brick {1} has been in use: is its disk mounted? Nothing was changed")]
    Vanished(PathBuf, BrickId),
    /// A brick of another volume.
    #[error("{path} is a brick of volume {found}, not of {wanted}; nothing was changed")]
    OtherVolume {
        /// Where.
        path: PathBuf,
        /// Its volume.
        found: Uuid,
        /// The volume asked for.
        wanted: Uuid,
    },
    /// Another brick of the volume.
    #[error("{path} is brick {found}, not {wanted}; nothing was changed")]
    OtherBrick {
        /// Where.
        path: PathBuf,
        /// Its UUID.
        found: String,
        /// The UUID asked for.
        wanted: BrickId,
    },
    /// Damaged or from a newer version.
    #[error("{0} cannot be read as a brick's identity: {1}; nothing was changed")]
    BadIdentity(PathBuf, String),
    /// The file system cannot keep what a brick needs.
    #[error("{0} is on a file system without extended attributes (trusted.*); use XFS, ext4 or btrfs")]
    NoXattrs(PathBuf),
    /// Another agent has it open.
    #[error("{0} is in use by another brick agent")]
    InUse(PathBuf),
    /// Anything that the disk says.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// An open brick.
#[derive(Debug)]
pub struct Brick {
    path: PathBuf,
    /// The life of its index.
    pub incarnation: Incarnation,
    /// `data/`.
    pub data: OwnedFd,
    /// `.nearbrick/staging/`.
    pub staging: OwnedFd,
    /// Kept files, for people: `.nearbrick/versions/`.
    pub versions: OwnedFd,
    /// Whether it was made just now.
    pub is_new: bool,
    // Held for its lock.
    _lock: fs::File,
}

fn dir_fd(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Writes a file so that after a crash it has the old bytes or the new ones.
///
/// # Errors
/// What the disk says; the old file is then as it was.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(parent)?.sync_all()
}

impl Brick {
    /// Opens the brick at `path`, or makes one if nothing is there and it has
    /// never been in use.
    ///
    /// # Errors
    /// Each with one clear line; nothing was touched then.
    pub fn open(
        path: &Path,
        volume: Uuid,
        brick: BrickId,
        was_initialised: bool,
    ) -> Result<Self, BrickError> {
        let io = |e: io::Error| BrickError::Io(path.to_owned(), e);
        let own = path.join(OWN);
        let mut is_new = false;
        let identity = match fs::read(own.join(IDENTITY)) {
            Ok(bytes) => {
                let bad = |why: String| BrickError::BadIdentity(own.join(IDENTITY), why);
                let identity: Identity = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
                if identity.format != FORMAT {
                    return Err(bad(format!("its format is {}, this agent knows {FORMAT}", identity.format)));
                }
                if identity.volume != volume {
                    return Err(BrickError::OtherVolume {
                        path: path.to_owned(),
                        found: identity.volume,
                        wanted: volume,
                    });
                }
                if identity.brick.parse() != Ok(brick) {
                    return Err(BrickError::OtherBrick {
                        path: path.to_owned(),
                        found: identity.brick,
                        wanted: brick,
                    });
                }
                identity
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Self::refuse_unless_new(path, brick, was_initialised)?;
                is_new = true;
                Self::initialise(path, volume, brick).map_err(io)?
            }
            Err(e) => return Err(io(e)),
        };
        let incarnation = identity.incarnation.parse().map_err(|e: nearbrick_core::id::BadId| {
            BrickError::BadIdentity(own.join(IDENTITY), e.to_string())
        })?;
        Self::check_xattrs(path)?;
        let lock = fs::File::create(own.join("lock")).map_err(io)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(BrickError::InUse(path.to_owned())),
            Err(e) => return Err(io(e.into())),
        }
        Ok(Brick {
            path: path.to_owned(),
            incarnation,
            data: dir_fd(&path.join("data")).map_err(io)?,
            staging: dir_fd(&own.join("staging")).map_err(io)?,
            versions: dir_fd(&own.join("versions")).map_err(io)?,
            is_new,
            _lock: lock,
        })
    }

    fn refuse_unless_new(path: &Path, brick: BrickId, was_initialised: bool) -> Result<(), BrickError> {
        let io = |e: io::Error| BrickError::Io(path.to_owned(), e);
        match fs::read_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(io)?.file_name();
                    // A crash in the middle of `initialise` leaves an own folder without identity.
                    if name != "lost+found" && name != OWN {
                        return Err(BrickError::NotABrick(path.to_owned()));
                    }
                }
                Self::check_xattrs(path)?;
            }
        }
        if was_initialised {
            return Err(BrickError::Vanished(path.to_owned(), brick));
        }
        Ok(())
    }

    /// Reading an attribute that is not there tells a file system that has
    /// attributes from one that has none, and touches nothing.
    fn check_xattrs(path: &Path) -> Result<(), BrickError> {
        match rustix::fs::getxattr(path, mark::XATTR, &mut [0u8; 0][..]) {
            Ok(_) | Err(Errno::NODATA) => Ok(()),
            Err(Errno::NOTSUP) => Err(BrickError::NoXattrs(path.to_owned())),
            Err(e) => Err(BrickError::Io(path.to_owned(), e.into())),
        }
    }

    fn initialise(path: &Path, volume: Uuid, brick: BrickId) -> io::Result<Identity> {
        let own = path.join(OWN);
        let mut private = fs::DirBuilder::new();
        private.mode(0o700).recursive(true);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // People go through the mount, which is nosuid and nodev: what a peer says of a file's mode
        // means nothing to them elsewhere.
        private.create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        private.create(&own)?;
        private.create(own.join("staging"))?;
        private.create(own.join("versions"))?;
        match fs::create_dir(path.join("data")) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let identity = Identity {
            format: FORMAT,
            volume,
            brick: brick.to_string(),
            incarnation: Incarnation(rand::random::<u64>().max(1)).to_string(),
        };
        let text = serde_json::to_vec_pretty(&identity).map_err(io::Error::other)?;
        write_durably(&own.join(IDENTITY), &text)?;
        fs::File::open(path)?.sync_all()?;
        Ok(identity)
    }

    /// Gives the brick a new incarnation: its counters begin again, and nothing is said twice.
    ///
    /// # Errors
    /// What the disk says; then the old one stays.
    pub fn renew_incarnation(&mut self) -> Result<(), BrickError> {
        let path = self.own(IDENTITY);
        let io = |e: io::Error| BrickError::Io(path.clone(), e);
        let bytes = fs::read(&path).map_err(io)?;
        let mut identity: Identity = serde_json::from_slice(&bytes)
            .map_err(|e| BrickError::BadIdentity(path.clone(), e.to_string()))?;
        let incarnation = Incarnation(rand::random::<u64>().max(1));
        identity.incarnation = incarnation.to_string();
        let text = serde_json::to_vec_pretty(&identity).map_err(|e| io(io::Error::other(e)))?;
        write_durably(&path, &text).map_err(io)?;
        self.incarnation = incarnation;
        Ok(())
    }

    /// The brick's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder of the brick's own.
    pub fn own(&self, name: &str) -> PathBuf {
        self.path.join(OWN).join(name)
    }

    /// Makes everything written so far durable: one call for many files.
    ///
    /// # Errors
    /// What the disk says; then nothing may be acknowledged.
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.data)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: Uuid = Uuid::from_u128(1);

    #[test]
    fn a_new_directory_becomes_a_brick_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns/home");
        let first = Brick::open(&path, VOLUME, BrickId([1; 16]), false).unwrap();
        let incarnation = first.incarnation;
        assert!(matches!(Brick::open(&path, VOLUME, BrickId([1; 16]), true), Err(BrickError::InUse(_))));
        drop(first);
        assert_eq!(Brick::open(&path, VOLUME, BrickId([1; 16]), true).unwrap().incarnation, incarnation);
    }

    #[test]
    fn a_directory_with_files_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = Brick::open(dir.path(), VOLUME, BrickId([1; 16]), false).unwrap_err();
        assert!(error.to_string().contains("is no brick"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_volumes_or_bricks_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Brick::open(dir.path(), VOLUME, BrickId([1; 16]), false).unwrap());
        let other = Brick::open(dir.path(), Uuid::from_u128(2), BrickId([1; 16]), false);
        assert!(matches!(other, Err(BrickError::OtherVolume { .. })));
        let other = Brick::open(dir.path(), VOLUME, BrickId([2; 16]), false);
        assert!(matches!(other, Err(BrickError::OtherBrick { .. })));
    }

    #[test]
    fn t24_an_empty_directory_where_a_brick_was_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Brick::open(dir.path(), VOLUME, BrickId([1; 16]), true).unwrap_err();
        assert!(error.to_string().contains("is its disk mounted?"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_system_without_xattrs_is_refused() {
        // procfs has none.
        assert!(matches!(Brick::check_xattrs(Path::new("/proc")), Err(BrickError::NoXattrs(_))));
    }
}
