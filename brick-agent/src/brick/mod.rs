//! The brick's directory: its identity, and all access below it.
//!
//! * [`disk`]: all that is asked of a disk, as traits; [`machine`]: the kernel's file system.
//! * [`access`]: short forms of calls relative to a directory, and times.
//! * [`adopt`]: a directory with files becomes a brick; [`empty`]: the files of one are deleted.
//! * [`mark`]: the xattr that each object of `data/` carries.
//! * [`lease`]: the only way to know that no one can write a file any more.
//!
//! Invariant: nothing is written to a directory until its identity was found
//! to be the expected one, or the directory was found to be new.

pub mod access;
pub mod adopt;
pub mod disk;
pub mod empty;
pub mod lease;
pub mod machine;
pub mod mark;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use nearbrick_core::{BrickId, Incarnation};
use rustix::fs::{OFlags, RenameFlags};
use rustix::io::{Errno, Result as DiskResult};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::disk::{Dir, Disk, File};

/// The folder of the brick's own files.
pub const OWN: &str = ".nearbrick";
const IDENTITY: &str = "identity";
const FORMAT: u32 = 1;
/// Bytes of an identity, at most; one has some hundred, and 20 more for each earlier life.
const MAX_IDENTITY: u64 = 64 << 10;

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
    /// What the index of this life may say that it is: renewed at each open, so that an index, or an
    /// identity, that comes from a backup is told from the one that belongs here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<String>,
    /// [`CLOSED`], or the machine's boot since which it is in use: without the index nothing else tells whether the power may have been cut
    /// meanwhile. None while what that may have left is not looked through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// It was a directory with files, and all in `data/` is still to be taken in.
    #[serde(default, skip_serializing_if = "is_false")]
    pub adopting: bool,
    /// Earlier lives, the last [`MAX_FORMER`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

/// The state of a brick that was closed in order.
const CLOSED: &str = "closed";

/// The earlier lives of a brick that it remembers.
const MAX_FORMER: usize = 64;

/// Why a directory is not opened as a brick. Nothing in it was touched.
#[derive(Debug, thiserror::Error)]
pub enum BrickError {
    /// Files, but no identity.
    #[error(
        "{0} is no brick: it has files but no {OWN}/{IDENTITY}; give the brick an empty directory, or, to take these files into the volume, annotate the Brick with nearbrick.io/adopt=yes"
    )]
    NotABrick(PathBuf),
    /// It was to be adopted, and that was not finished.
    #[error(
        "{0} is half adopted, its files are in {OWN}/adopted: annotate the Brick with nearbrick.io/adopt=yes, and it is gone on with"
    )]
    HalfAdopted(PathBuf),
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
    /// Its Brick was deleted, and so are its files.
    #[error(
        "the files of {0} are being deleted, as its volume's deletionPolicy says; it is no brick any more"
    )]
    Emptying(PathBuf),
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
    pub data: Dir,
    /// `.nearbrick/staging/`.
    pub staging: Dir,
    /// Kept files, for people: `.nearbrick/versions/`.
    pub versions: Dir,
    /// Whether it was made just now.
    pub is_new: bool,
    /// All in `data/` is still to be taken in.
    pub adopting: bool,
    /// Its earlier lives, the latest last.
    pub former: Vec<Incarnation>,
    sessions: Vec<String>,
    /// As it was when it was opened.
    state: Option<String>,
    own: Dir,
    // Held for its lock.
    _lock: File,
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

/// The same in an open directory of a brick.
fn replace_durably(dir: &Dir, name: &str, bytes: &[u8]) -> DiskResult<()> {
    let temporary = format!("{name}.new");
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY;
    let file = dir.open(temporary.as_bytes(), flags, 0o600)?;
    disk::write_all_at(&*file, bytes, 0)?;
    file.sync()?;
    dir.rename(temporary.as_bytes(), &**dir, name.as_bytes(), RenameFlags::empty())?;
    dir.sync()
}

fn read_all(dir: &Dir, name: &str) -> DiskResult<Vec<u8>> {
    // Not held up by a FIFO, and no more memory than for what an agent writes there.
    let file = dir.open(name.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
    let mut bytes = Vec::new();
    disk::Reader::new(&*file, 0)
        .take(MAX_IDENTITY)
        .read_to_end(&mut bytes)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    Ok(bytes)
}

/// Opens a directory, made if it is not there.
fn make_dir(dir: &Dir, name: &str, mode: u32) -> DiskResult<Dir> {
    match dir.mkdir(name.as_bytes(), mode) {
        Ok(()) | Err(Errno::EXIST) => dir.open_dir(name.as_bytes()),
        Err(error) => Err(error),
    }
}

impl Brick {
    /// Opens the brick at `path`, or makes one if nothing is there and it has
    /// never been in use. `random` gives the life of its index a number.
    ///
    /// # Errors
    /// Each with one clear line; nothing was touched then.
    pub fn open(
        disk: &dyn Disk,
        path: &Path,
        volume: Uuid,
        brick: BrickId,
        was_initialised: bool,
        random: &dyn Fn() -> u64,
    ) -> Result<Self, BrickError> {
        let io = |e: Errno| BrickError::Io(path.to_owned(), e.into());
        let identity_path = path.join(OWN).join(IDENTITY);
        let root = match disk.open(path) {
            Ok(root) => Some(root),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(io(e)),
        };
        if empty::has_begun(disk, path, volume, brick) {
            return Err(BrickError::Emptying(path.to_owned()));
        }
        let bytes = match root.as_ref().map(|r| r.open_dir(OWN.as_bytes())).transpose() {
            Ok(Some(own)) => read_all(&own, IDENTITY),
            Ok(None) => Err(Errno::NOENT),
            Err(e) => Err(e),
        };
        let is_new;
        let (root, identity) = match (root, bytes) {
            (Some(root), Ok(bytes)) => {
                is_new = false;
                let bad = |why: String| BrickError::BadIdentity(identity_path.clone(), why);
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
                (root, identity)
            }
            (root, Err(Errno::NOENT | Errno::NOTDIR)) => {
                if let Some(own) = root.as_ref().and_then(|r| r.open_dir(OWN.as_bytes()).ok())
                    && own.stat(adopt::NOTE.as_bytes()) != Err(Errno::NOENT)
                {
                    return Err(BrickError::HalfAdopted(path.to_owned()));
                }
                Self::refuse_unless_new(root.as_ref(), path, brick, was_initialised)?;
                is_new = true;
                // People go through the mount, which is nosuid and nodev: what a peer says of a file's
                // mode means nothing to them elsewhere.
                let root = disk.make(path).map_err(io)?;
                let identity = Self::initialise(&root, volume, brick, random(), false).map_err(io)?;
                (root, identity)
            }
            (_, Err(e)) => return Err(io(e)),
            (None, Ok(_)) => return Err(io(Errno::NOENT)),
        };
        let incarnation = identity
            .incarnation
            .parse()
            .map_err(|e: nearbrick_core::id::BadId| BrickError::BadIdentity(identity_path, e.to_string()))?;
        Self::check_xattrs(&root, path)?;
        let own = root.open_dir(OWN.as_bytes()).map_err(io)?;
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY;
        let lock = own.open(b"lock", flags, 0o644).map_err(io)?;
        match lock.lock() {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(BrickError::InUse(path.to_owned())),
            Err(e) => return Err(io(e)),
        }
        Ok(Brick {
            path: path.to_owned(),
            incarnation,
            data: root.open_dir(b"data").map_err(io)?,
            staging: own.open_dir(b"staging").map_err(io)?,
            versions: own.open_dir(b"versions").map_err(io)?,
            is_new,
            adopting: identity.adopting,
            former: identity.former.iter().filter_map(|f| f.parse().ok()).collect(),
            sessions: identity.sessions,
            state: identity.state,
            own,
            _lock: lock,
        })
    }

    fn refuse_unless_new(
        root: Option<&Dir>,
        path: &Path,
        brick: BrickId,
        was_initialised: bool,
    ) -> Result<(), BrickError> {
        if let Some(root) = root {
            for (name, _) in root.list().map_err(|e| BrickError::Io(path.to_owned(), e.into()))? {
                // A crash in the middle of `initialise` leaves an own folder without identity.
                if name != b"lost+found" && name != OWN.as_bytes() {
                    return Err(BrickError::NotABrick(path.to_owned()));
                }
            }
            Self::check_xattrs(root, path)?;
        }
        if was_initialised {
            return Err(BrickError::Vanished(path.to_owned(), brick));
        }
        Ok(())
    }

    /// Reading an attribute that is not there tells a file system that has
    /// attributes from one that has none, and touches nothing.
    fn check_xattrs(root: &Dir, path: &Path) -> Result<(), BrickError> {
        match root.get_xattr(b".", mark::XATTR.as_bytes()) {
            Ok(_) | Err(Errno::NODATA) => Ok(()),
            Err(Errno::NOTSUP) => Err(BrickError::NoXattrs(path.to_owned())),
            Err(e) => Err(BrickError::Io(path.to_owned(), e.into())),
        }
    }

    fn initialise(
        root: &Dir,
        volume: Uuid,
        brick: BrickId,
        random: u64,
        adopting: bool,
    ) -> DiskResult<Identity> {
        let own = make_dir(root, OWN, 0o700)?;
        make_dir(&own, "staging", 0o700)?;
        make_dir(&own, "versions", 0o700)?;
        make_dir(root, "data", 0o777)?;
        let identity = Identity {
            format: FORMAT,
            volume,
            brick: brick.to_string(),
            incarnation: Incarnation(random.max(1)).to_string(),
            sessions: Vec::new(),
            state: None,
            adopting,
            former: Vec::new(),
        };
        let text = serde_json::to_vec_pretty(&identity).map_err(|_| Errno::IO)?;
        replace_durably(&own, IDENTITY, &text)?;
        root.sync()?;
        Ok(identity)
    }

    /// Gives the brick a new incarnation: its counters begin again, and nothing is said twice.
    ///
    /// # Errors
    /// What the disk says; then the old one stays.
    pub fn renew_incarnation(&mut self, random: u64) -> Result<(), BrickError> {
        let incarnation = Incarnation(random.max(1));
        self.change_identity(|identity| {
            let old = std::mem::replace(&mut identity.incarnation, incarnation.to_string());
            identity.former.push(old);
            let forgotten = identity.former.len().saturating_sub(MAX_FORMER);
            identity.former.drain(..forgotten);
        })?;
        self.former.push(self.incarnation);
        self.incarnation = incarnation;
        Ok(())
    }

    /// Whether an index that says this of itself is the one that was here last.
    pub fn knows_session(&self, session: Option<&[u8]>) -> bool {
        self.sessions.is_empty() || session.is_some_and(|s| self.sessions.iter().any(|k| k.as_bytes() == s))
    }

    /// Whether the machine, in this boot now, may have gone down while the brick was in use, as far as is known without its index.
    pub fn may_have_lost_power(&self, boot: &[u8]) -> bool {
        self.state.as_deref().is_none_or(|state| state != CLOSED && state != String::from_utf8_lossy(boot))
    }

    /// Begins a session: gives the name that the index is to have from now on. Until it has, it may
    /// have the one from `before`. In this `boot`, if what is in `data/` needs not be looked through.
    ///
    /// # Errors
    /// What the disk says; then the old ones stay.
    pub fn begin_session(
        &mut self,
        before: Option<&[u8]>,
        boot: Option<&[u8]>,
        random: u64,
    ) -> Result<String, BrickError> {
        let next = format!("{random:016x}");
        let before = before.map(|b| String::from_utf8_lossy(b).into_owned());
        let sessions: Vec<_> = before.into_iter().chain([next.clone()]).collect();
        self.change_identity(|identity| {
            identity.sessions.clone_from(&sessions);
            identity.state = boot.map(|boot| String::from_utf8_lossy(boot).into_owned());
        })?;
        self.sessions = sessions;
        Ok(next)
    }

    /// The index has its new name: no other is taken for it any more.
    ///
    /// # Errors
    /// What the disk says; then its old name is taken too.
    pub fn confirm_session(&mut self, session: &str) -> Result<(), BrickError> {
        let sessions = vec![session.to_owned()];
        self.change_identity(|identity| identity.sessions.clone_from(&sessions))?;
        self.sessions = sessions;
        Ok(())
    }

    /// What is in `data/` was looked through, in this boot.
    ///
    /// # Errors
    /// What the disk says; then, without an index, it is looked through again.
    pub fn looked_through(&self, boot: &[u8]) -> Result<(), BrickError> {
        self.change_identity(|identity| identity.state = Some(String::from_utf8_lossy(boot).into_owned()))
    }

    /// It ended in order, and all is on the disk.
    ///
    /// # Errors
    /// As for [`Brick::looked_through`].
    pub fn ended_well(&self) -> Result<(), BrickError> {
        self.change_identity(|identity| identity.state = Some(CLOSED.to_owned()))
    }

    /// All in `data/` was taken in.
    ///
    /// # Errors
    /// What the disk says; then it is taken in again at the next open.
    pub fn adopted(&self) -> Result<(), BrickError> {
        self.change_identity(|identity| identity.adopting = false)
    }

    fn change_identity(&self, change: impl FnOnce(&mut Identity)) -> Result<(), BrickError> {
        let path = self.own(IDENTITY);
        let io = |e: Errno| BrickError::Io(path.clone(), e.into());
        let bytes = read_all(&self.own, IDENTITY).map_err(io)?;
        let bad = |e: serde_json::Error| BrickError::BadIdentity(path.clone(), e.to_string());
        let mut identity: Identity = serde_json::from_slice(&bytes).map_err(bad)?;
        change(&mut identity);
        let text = serde_json::to_vec_pretty(&identity).map_err(bad)?;
        replace_durably(&self.own, IDENTITY, &text).map_err(io)
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
    pub fn sync_all(&self) -> DiskResult<()> {
        self.data.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::machine::MachineDisk;

    const VOLUME: Uuid = Uuid::from_u128(1);

    fn open(path: &Path, volume: Uuid, n: u8, was_initialised: bool) -> Result<Brick, BrickError> {
        Brick::open(&MachineDisk, path, volume, BrickId([n; 16]), was_initialised, &|| 7)
    }

    #[test]
    fn a_new_directory_becomes_a_brick_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns/home");
        let first = open(&path, VOLUME, 1, false).unwrap();
        let incarnation = first.incarnation;
        assert!(matches!(open(&path, VOLUME, 1, true), Err(BrickError::InUse(_))));
        drop(first);
        assert_eq!(open(&path, VOLUME, 1, true).unwrap().incarnation, incarnation);
    }

    #[test]
    fn t03_whether_the_power_was_cut_is_known_without_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let (boot, next): (&[u8], &[u8]) = (b"boot", b"next boot");
        let mut brick = open(dir.path(), VOLUME, 1, false).unwrap();
        assert!(brick.may_have_lost_power(boot), "an older agent has said nothing");
        brick.begin_session(None, Some(boot), 1).unwrap();
        drop(brick);
        let mut brick = open(dir.path(), VOLUME, 1, true).unwrap();
        assert!(!brick.may_have_lost_power(boot) && brick.may_have_lost_power(next));
        // What it may have left is not looked through yet, and the agent ends.
        brick.begin_session(None, None, 2).unwrap();
        drop(brick);
        let brick = open(dir.path(), VOLUME, 1, true).unwrap();
        assert!(brick.may_have_lost_power(next));
        brick.looked_through(next).unwrap();
        drop(brick);
        let brick = open(dir.path(), VOLUME, 1, true).unwrap();
        assert!(!brick.may_have_lost_power(next) && brick.may_have_lost_power(b"a third boot"));
        brick.ended_well().unwrap();
        drop(brick);
        assert!(!open(dir.path(), VOLUME, 1, true).unwrap().may_have_lost_power(b"a third boot"));
    }

    #[test]
    fn t03_an_index_of_another_session_is_not_the_one_that_was_here_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut brick = open(dir.path(), VOLUME, 1, false).unwrap();
        assert!(brick.knows_session(None), "a brick of an older agent has none yet");
        let first = brick.begin_session(None, Some(b"boot"), 1).unwrap();
        let second = brick.begin_session(Some(first.as_bytes()), Some(b"boot"), 2).unwrap();
        drop(brick);
        let mut brick = open(dir.path(), VOLUME, 1, true).unwrap();
        // After a crash in between it has either.
        assert!(brick.knows_session(Some(first.as_bytes())) && brick.knows_session(Some(second.as_bytes())));
        assert!(!brick.knows_session(None) && !brick.knows_session(Some(b"0000000000000003")));
        let third = brick.begin_session(Some(second.as_bytes()), Some(b"boot"), 3).unwrap();
        assert!(!brick.knows_session(Some(first.as_bytes())) && brick.knows_session(Some(second.as_bytes())));
        brick.confirm_session(&third).unwrap();
        assert!(!brick.knows_session(Some(second.as_bytes())) && brick.knows_session(Some(third.as_bytes())));
    }

    #[test]
    fn a_directory_with_files_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = open(dir.path(), VOLUME, 1, false).unwrap_err();
        assert!(error.to_string().contains("is no brick"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_volumes_or_bricks_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), VOLUME, 1, false).unwrap());
        let other = open(dir.path(), Uuid::from_u128(2), 1, false);
        assert!(matches!(other, Err(BrickError::OtherVolume { .. })));
        let other = open(dir.path(), VOLUME, 2, false);
        assert!(matches!(other, Err(BrickError::OtherBrick { .. })));
    }

    #[test]
    fn t24_an_empty_directory_where_a_brick_was_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = open(dir.path(), VOLUME, 1, true).unwrap_err();
        assert!(error.to_string().contains("is its disk mounted?"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_system_without_xattrs_is_refused() {
        // procfs has none.
        let proc = MachineDisk.open(Path::new("/proc")).unwrap();
        assert!(matches!(Brick::check_xattrs(&proc, Path::new("/proc")), Err(BrickError::NoXattrs(_))));
    }
}
