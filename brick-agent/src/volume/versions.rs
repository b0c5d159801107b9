//! `versions/`: losers of conflicts and deleted files, kept for a while, out of the tree. Each is a plain file with all
//! that it had; its attributes say who it was, so that nothing but the folder itself is needed to find it again.
//!
//! Invariants: nothing in `data/` shares an inode with it. What is kept is bounded in age, bytes and number, and
//! the oldest go first ([`retention`]). A version is kept once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nearbrick_core::retention::{self, Bounds};
use nearbrick_core::{BrickId, FileId, Object, VersionVector};
use rustix::fs::{FileType, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Volume;
use super::core::At;
use super::types::FsResult;
use crate::brick::access;
use crate::brick::disk::{DirAccess, File, Stat};
use crate::index::Local;

/// Says of a kept file what it was.
const XATTR: &[u8] = b"trusted.nearbrick.kept";
/// Of the attribute.
const FORMAT: u8 = 2;
/// Versions of one file.
const OF_A_FILE: usize = 32;
/// Versions of a brick.
const VERSIONS: usize = 100_000;
/// They take at most this share of the brick's disk: 1 of so many.
const SHARE: u64 = 10;
/// And this share of what would be free without them.
const SHARE_OF_FREE: u64 = 2;
/// Bytes of a path that are kept in an attribute: what ext4 takes beside the others.
const MAX_PATH: usize = 2048;

/// Why a version is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// It lost a conflict.
    Lost,
    /// The file was deleted.
    Deleted,
    /// An older version was restored in its place.
    Replaced,
    /// It was not whole after a loss of power, or the disk has damaged it.
    Damaged,
    /// No member knew it any more when the index was made anew.
    Unjudged,
}

impl Why {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Lost => "lost",
            Why::Deleted => "deleted",
            Why::Replaced => "replaced",
            Why::Damaged => "damaged",
            Why::Unjudged => "unjudged",
        }
    }
}

/// What the attribute says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    format: u8,
    /// Why it is kept.
    pub why: Why,
    /// Since when: milliseconds since 1970.
    pub since_ms: u64,
    /// From the volume's root; the end of it if it is very long.
    pub path: Vec<u8>,
    /// Who wrote it, if that is known.
    pub writer: Option<BrickId>,
    /// Whether the bytes were known to be durable when they came here.
    pub durable: bool,
}

/// A version that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptVersion {
    /// Its name in `versions/`.
    pub id: String,
    /// The file that it is of, if that is known.
    pub file: Option<FileId>,
    /// The version, if that is known.
    pub version: Option<VersionVector>,
    /// Where it was, from the volume's root, if that is known.
    pub path: Option<Vec<u8>>,
    /// Why it is kept.
    pub why: Why,
    /// Since when: milliseconds since 1970.
    pub since_ms: u64,
    /// Bytes.
    pub size: u64,
    /// Its modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Who wrote it, if that is known.
    pub writer: Option<BrickId>,
}

/// Whether bytes that are about to be replaced are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linked {
    /// From now on.
    Now,
    /// They were before.
    Before,
    /// There is no room for them.
    NoRoom,
}

/// What is in `versions/`, as far as the bounds ask.
#[derive(Debug, Default)]
pub struct Catalog {
    versions: BTreeMap<String, retention::Kept>,
    /// Those that came since this agent began.
    came: BTreeSet<String>,
    bytes: u64,
    /// What they may take, as of the last look at the disk.
    most: u64,
}

/// Read when it is first asked for.
pub type Versions = Mutex<Option<Catalog>>;

/// Whether what was at `at` was the file at `path`, or below it; or lost that name in a conflict.
fn was_at(at: &[u8], path: &[u8]) -> bool {
    let is_below = at.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
    let (dir, name) = at.split_at(at.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1));
    let before = || nearbrick_core::name::name_before_conflict(name);
    is_below || path.strip_prefix(dir).is_some_and(|of| before().is_some_and(|name| name == of))
}

/// The name of a version of a file.
pub(super) fn name_of(file: FileId, version: &VersionVector) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("nearbrick.io 2026 name of a kept version");
    for (writer, count) in version.iter() {
        hasher.update(&writer.0.to_be_bytes());
        hasher.update(&count.to_be_bytes());
    }
    format!("{file}-{}", &hasher.finalize().to_hex()[..16])
}

/// The file, and why it is kept, of a name that says both.
fn said_by(name: &str) -> (Option<FileId>, Why) {
    let (why, rest) = match name.split_once('-') {
        Some(("damaged", rest)) => (Why::Damaged, rest),
        Some(("unjudged", rest)) => (Why::Unjudged, rest),
        _ => (Why::Lost, name),
    };
    (rest.split('-').next().and_then(|id| id.parse().ok()), why)
}

fn on_disk(raw: &Stat) -> u64 {
    u64::try_from(raw.st_blocks).unwrap_or(0).saturating_mul(512)
}

fn changed_ms(raw: &Stat) -> u64 {
    u64::try_from(raw.st_ctime).unwrap_or(0).saturating_mul(1000)
}

impl Label {
    pub(super) fn read(dir: &dyn DirAccess, name: &[u8]) -> Option<Self> {
        let bytes = dir.get_xattr(name, XATTR).ok()?;
        postcard::from_bytes::<Label>(&bytes).ok().filter(|label| label.format == FORMAT)
    }

    /// What the disk does not take of it is left out: first the folders, then all.
    pub(super) fn write(&self, dir: &dyn DirAccess, name: &[u8]) {
        let short = |at: usize| Label { path: self.path[at..].to_vec(), ..self.clone() };
        let cut = self.path.len().saturating_sub(MAX_PATH);
        let last = self.path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        for at in [cut, last.max(cut), self.path.len()] {
            let bytes = postcard::to_stdvec(&short(at)).unwrap_or_default();
            match dir.set_xattr(name, XATTR, &bytes, XattrFlags::empty()) {
                Err(Errno::NOSPC | Errno::RANGE | Errno::TOOBIG) => {}
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, "a kept version has no label");
                    return;
                }
            }
        }
    }
}

impl Label {
    /// It is kept no more.
    pub(super) fn remove(&self, dir: &dyn DirAccess, name: &[u8]) {
        let _ = dir.remove_xattr(name, XATTR);
    }
}

impl Volume {
    /// What is in `versions/`.
    fn catalog(&self) -> FsResult<MutexGuard<'_, Option<Catalog>>> {
        let mut catalog = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if catalog.is_none() {
            let mut read = Catalog::default();
            for (name, kind) in self.brick.versions.list()? {
                let Ok(name) = String::from_utf8(name) else { continue };
                if kind == FileType::Directory {
                    continue;
                }
                let raw = access::stat(&self.brick.versions, name.as_bytes())?;
                let since_ms = Label::read(&*self.brick.versions, name.as_bytes())
                    .map_or_else(|| changed_ms(&raw), |label| label.since_ms);
                let file = said_by(&name).0.unwrap_or(FileId::ROOT);
                read.add(name, retention::Kept { file, since_ms, bytes: on_disk(&raw) });
            }
            read.most = self.most(read.bytes)?;
            *catalog = Some(read);
        }
        Ok(catalog)
    }

    /// What versions may take on the disk, when they take `now`.
    fn most(&self, now: u64) -> FsResult<u64> {
        let space = self.brick.data.stat_fs()?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Ok((bytes(space.f_blocks) / SHARE).min(bytes(space.f_bavail).saturating_add(now) / SHARE_OF_FREE))
    }

    /// Whether a version of so many bytes would stay.
    pub(super) fn fits_versions(&self, bytes: u64) -> bool {
        let fits = self.catalog().map(|c| c.as_ref().is_some_and(|c| bytes <= c.most));
        fits.unwrap_or(false)
    }

    /// Whether it came here since this agent began: the power was not lost after that.
    pub(super) fn came_now(&self, name: &str) -> bool {
        self.catalog().is_ok_and(|c| c.as_ref().is_some_and(|c| c.came.contains(name)))
    }

    /// What was kept now is of before a power cut, which may have spoiled it.
    pub(super) fn came_before(&self, file: FileId, version: &VersionVector) {
        if let Ok(mut catalog) = self.catalog()
            && let Some(catalog) = catalog.as_mut()
        {
            catalog.came.remove(&name_of(file, version));
        }
    }

    /// Whether this version of the file is kept.
    pub(super) fn is_kept(&self, file: FileId, version: &VersionVector) -> bool {
        access::stat(&self.brick.versions, name_of(file, version).as_bytes()).is_ok()
    }

    /// What is to be said of a version of an object that is at `path`.
    pub(super) fn label(&self, object: &Object, version: &VersionVector, path: Vec<u8>, why: Why) -> Label {
        let writer = object.contents.iter().find(|c| c.version == *version).map(|c| c.writer);
        Label { format: FORMAT, why, since_ms: self.clock.now_ms(), path, writer, durable: false }
    }

    /// The path of something on the disk, for people; of what has no place in the tree its name.
    pub(super) fn path_to_keep(&self, object: &Object, local: &Local) -> Vec<u8> {
        let wanted = || object.links.values().filter_map(|l| l.place.as_ref()).max_by_key(|reg| reg.stamp);
        let Some(place) = local.place().or_else(|| wanted().map(|reg| &reg.value)) else { return Vec::new() };
        let mut path = self.path_of(place.parent).unwrap_or_default();
        path.extend_from_slice(&place.name);
        path
    }

    /// Moves a file that has its last name at `at`, and is settled, to `versions/`. False if it is not worth it, or
    /// would not fit, or is there already: then it is the caller's to remove.
    pub(super) fn move_to_versions(
        &self,
        at: &At,
        file: FileId,
        version: &VersionVector,
        label: &Label,
    ) -> FsResult<bool> {
        let raw = access::stat(&at.dir, &at.name)?;
        if raw.st_size == 0 || !self.fits_versions(on_disk(&raw)) {
            return Ok(false);
        }
        let name = name_of(file, version);
        label.write(&*at.dir, &at.name);
        match access::rename(&at.dir, &at.name, &self.brick.versions, name.as_bytes(), RenameFlags::NOREPLACE)
        {
            Ok(()) => self.note_kept(name, file, label, &raw).map(|()| true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What a name stands for is about to get other bytes: those that are there stay in `versions/` too.
    /// Nothing is done if they are there already, or have no room.
    pub(super) fn link_to_versions(
        &self,
        at: &At,
        file: FileId,
        version: &VersionVector,
        label: &Label,
    ) -> FsResult<Linked> {
        let (raw, name) = (access::stat(&at.dir, &at.name)?, name_of(file, version));
        if access::stat(&self.brick.versions, name.as_bytes()).is_ok() {
            return Ok(Linked::Before);
        }
        if !self.fits_versions(on_disk(&raw)) {
            return Ok(Linked::NoRoom);
        }
        match access::link(&at.dir, &at.name, &self.brick.versions, name.as_bytes()) {
            Ok(()) => {
                label.write(&*self.brick.versions, name.as_bytes());
                self.note_kept(name, file, label, &raw).map(|()| Linked::Now)
            }
            Err(Errno::EXIST) => Ok(Linked::Before),
            Err(error) => Err(error),
        }
    }

    /// Opens a version that is kept here; gives its bytes too.
    pub(super) fn open_kept(&self, file: FileId, version: &VersionVector) -> FsResult<(File, u64)> {
        let name = name_of(file, version);
        let open = access::open(&self.brick.versions, name.as_bytes(), OFlags::RDONLY, 0)?;
        let size = u64::try_from(open.stat()?.st_size).unwrap_or(0);
        Ok((open, size))
    }

    /// It is to stay where it is after all.
    pub(super) fn unlink_from_versions(&self, file: FileId, version: &VersionVector) {
        let name = name_of(file, version);
        let _ = access::unlink(&self.brick.versions, name.as_bytes());
        self.is_not_kept(&name);
    }

    /// It is in `versions/` no more.
    pub(super) fn is_not_kept(&self, name: &str) {
        if let Ok(mut catalog) = self.catalog()
            && let Some(catalog) = catalog.as_mut()
        {
            catalog.remove(name);
        }
    }

    /// Puts a staged file, which has all that it had, in `versions/`, durably.
    pub(super) fn staged_to_versions(
        &self,
        staged: &str,
        file: FileId,
        version: &VersionVector,
        label: &Label,
    ) -> FsResult<()> {
        let name = name_of(file, version);
        let raw = access::stat(&self.brick.staging, staged.as_bytes())?;
        label.write(&*self.brick.staging, staged.as_bytes());
        let to = (&self.brick.versions, name.as_bytes());
        access::rename(&self.brick.staging, staged.as_bytes(), to.0, to.1, RenameFlags::empty())?;
        self.brick.versions.sync()?;
        self.note_kept(name, file, label, &raw)
    }

    fn note_kept(&self, name: String, file: FileId, label: &Label, raw: &Stat) -> FsResult<()> {
        if let Some(catalog) = self.catalog()?.as_mut() {
            let kept = retention::Kept { file, since_ms: label.since_ms, bytes: on_disk(raw) };
            catalog.remove(&name);
            catalog.came.insert(name.clone());
            catalog.add(name, kept);
        }
        Ok(())
    }

    /// A damaged copy was put there under this name.
    pub(super) fn note_damaged(&self, name: String, file: FileId) {
        let raw = access::stat(&self.brick.versions, name.as_bytes());
        if let (Ok(raw), Ok(mut catalog)) = (raw, self.catalog())
            && let Some(catalog) = catalog.as_mut()
        {
            let kept = retention::Kept { file, since_ms: self.clock.now_ms(), bytes: on_disk(&raw) };
            catalog.remove(&name);
            catalog.add(name, kept);
        }
    }

    /// Whether it may be the best that is left of a file: a damaged copy, in whose place no whole one has come.
    fn is_all_there_is(&self, name: &str) -> bool {
        let (Some(file), Why::Damaged) = said_by(name) else { return false };
        // What cannot be found out is not given up.
        let lacks = || -> FsResult<bool> {
            Ok(self.object_of(file)?.exists(file) && self.local_or_none(file)?.have.is_none())
        };
        lacks().unwrap_or(true)
    }

    /// Gives up versions that are too old, or for which there is no space; says how many.
    ///
    /// # Errors
    /// What the disk says.
    pub fn tidy_versions(&self) -> FsResult<usize> {
        let gone: Vec<String> = {
            let mut guard = self.catalog()?;
            let Some(catalog) = guard.as_mut() else { return Ok(0) };
            catalog.most = self.most(catalog.bytes)?;
            let bounds = Bounds {
                age_ms: self.config().retention_ms,
                bytes: catalog.most,
                of_a_file: OF_A_FILE,
                versions: VERSIONS,
            };
            let (names, kept): (Vec<_>, Vec<_>) = catalog.versions.iter().map(|(n, k)| (n, *k)).unzip();
            let gone = retention::superfluous(&kept, self.clock.now_ms(), bounds);
            let gone = gone.into_iter().map(|n| names[n].clone());
            let gone: Vec<String> = gone.filter(|name| !self.is_all_there_is(name)).collect();
            let now = self.clock.now_ms();
            let early = |name: &&String| {
                let kept = catalog.versions.get(*name);
                kept.is_some_and(|kept| now.saturating_sub(kept.since_ms) <= bounds.age_ms)
            };
            let early = gone.iter().filter(early).count();
            if early > 0 {
                tracing::warn!(
                    volume = %self.config().name,
                    "{early} kept versions go before their time: there is no more room for them ({} bytes of the disk), or there are too many of a file",
                    bounds.bytes
                );
            }
            gone.iter().for_each(|name| catalog.remove(name));
            gone
        };
        for name in &gone {
            match access::unlink(&self.brick.versions, name.as_bytes()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    // What is really there is read again.
                    *self.versions.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return Err(error);
                }
            }
        }
        Ok(gone.len())
    }

    /// Versions that are kept: of what is or was at `path`, or all; the oldest first.
    ///
    /// # Errors
    /// What the disk says.
    pub fn kept_versions(&self, path: Option<&[u8]>) -> FsResult<Vec<KeptVersion>> {
        let now_there = match path {
            Some(path) => self.file_at(path)?,
            None => None,
        };
        let fits = |kept: &KeptVersion| {
            path.is_none_or(|path| {
                now_there.is_some() && kept.file == now_there
                    || kept.path.as_ref().is_some_and(|at| was_at(at, path))
            })
        };
        let mut all = Vec::new();
        for (name, kind) in self.brick.versions.list()? {
            let Ok(name) = String::from_utf8(name) else { continue };
            if kind == FileType::Directory {
                continue;
            }
            match self.kept_version(&name) {
                Ok(kept) => all.extend(Some(kept).filter(fits)),
                // Its time has come meanwhile.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by(|a, b| (a.since_ms, &a.id).cmp(&(b.since_ms, &b.id)));
        Ok(all)
    }

    /// One version that is kept.
    ///
    /// # Errors
    /// `NOENT`; what the disk says.
    pub fn kept_version(&self, id: &str) -> FsResult<KeptVersion> {
        if nearbrick_core::name::check(id.as_bytes()).is_err() {
            return Err(Errno::NOENT);
        }
        let raw = access::stat(&self.brick.versions, id.as_bytes())?;
        let label = Label::read(&*self.brick.versions, id.as_bytes());
        let mark = access::get_mark(&self.brick.versions, id.as_bytes()).ok().flatten();
        let (file, why) = said_by(id);
        Ok(KeptVersion {
            id: id.to_owned(),
            file: file.or_else(|| mark.as_ref().map(|m| m.file)),
            version: mark.and_then(|m| m.version),
            path: label.as_ref().map(|l| l.path.clone()).filter(|path| !path.is_empty()),
            why: label.as_ref().map_or(why, |l| l.why),
            since_ms: label.as_ref().map_or_else(|| changed_ms(&raw), |l| l.since_ms),
            size: u64::try_from(raw.st_size).unwrap_or(0),
            mtime: super::change::print_of(&raw).mtime,
            writer: label.and_then(|l| l.writer),
        })
    }

    /// What is shown at a path.
    pub(super) fn file_at(&self, path: &[u8]) -> FsResult<Option<FileId>> {
        let _core = self.lock();
        let mut at = FileId::ROOT;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let place = nearbrick_core::Place { parent: at, name: name.to_vec() };
            match self.shown(&place)? {
                Some(shown) => at = shown.file,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }
}

impl Catalog {
    fn add(&mut self, name: String, kept: retention::Kept) {
        self.bytes += kept.bytes;
        self.versions.insert(name, kept);
    }

    fn remove(&mut self, name: &str) {
        self.came.remove(name);
        if let Some(kept) = self.versions.remove(name) {
            self.bytes = self.bytes.saturating_sub(kept.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_core::Incarnation;

    #[test]
    fn names_say_of_which_file_they_are() {
        let file = FileId([7; 16]);
        let version = VersionVector::from_iter([(Incarnation(3), 4)]);
        let name = name_of(file, &version);
        assert_eq!(said_by(&name), (Some(file), Why::Lost));
        assert_ne!(name, name_of(file, &version.bumped(Incarnation(3))));
        assert_eq!(said_by(&format!("damaged-{file}-1234")), (Some(file), Why::Damaged));
        assert_eq!(said_by(&format!("unjudged-{file}-1234")), (Some(file), Why::Unjudged));
        assert_eq!(said_by("put here by a person"), (None, Why::Lost));
    }

    #[test]
    fn a_version_is_found_by_the_name_that_it_lost() {
        let lost = b"d/plan (conflict, ws-a, 2026-11-28 12.27.16).txt";
        for (at, path, found) in [
            (&b"d/plan.txt"[..], &b"d/plan.txt"[..], true),
            (b"d/plan.txt", b"d", true),
            (b"d/plan.txt", b"d/plan", false),
            (lost, b"d/plan.txt", true),
            (lost, b"plan.txt", false),
            (lost, b"d/other.txt", false),
            (b"plan (conflict, ws-a)", b"plan", true),
        ] {
            assert_eq!(was_at(at, path), found, "{}", String::from_utf8_lossy(at));
        }
    }
}
