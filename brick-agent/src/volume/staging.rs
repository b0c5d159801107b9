//! `staging/`: what is on its way here. A large file that was cut off stays as `part-<file id>`, and what
//! has come of it is used by the next try, from whichever holder, also after a restart.
//!
//! Nothing says which of its bytes are right: each chunk is checked against the holder's list before it is
//! used again. Its mark says of which version it was to be; that is for people.
//!
//! Invariants: one transfer at a time writes a part. Only parts of files that this brick lacks stay,
//! bounded in number, bytes and age.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nearbrick_core::heal::{Decision, Reason};
use nearbrick_core::{FileId, VersionVector};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Volume;
use super::types::FsResult;
use crate::brick::access;
use crate::brick::disk::File;
use crate::brick::mark::Mark;

/// Of files shorter than this nothing is kept, and no list of chunks is asked for: they come whole.
pub const LARGE: u64 = 1 << 20;
/// What was not gone on with for so long is given up.
const KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
/// Parts together take at most this share of what would be free without them: 1 of so many.
const KEPT_SHARE: u64 = 4;

const PART: &str = "part-";

/// Files whose parts are being written.
pub type Claims = Arc<Mutex<BTreeSet<FileId>>>;

fn lock(claims: &Claims) -> MutexGuard<'_, BTreeSet<FileId>> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file in `staging/` that is being written. It stays its writer's until this is dropped.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Its name.
    pub name: String,
    file: FileId,
    claims: Option<Claims>,
}

impl Staged {
    /// Whether it may stay for the next try.
    pub fn is_part(&self) -> bool {
        self.claims.is_some()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(claims) = &self.claims {
            lock(claims).remove(&self.file);
        }
    }
}

/// A part that was found in `staging/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    file: FileId,
    /// On the disk.
    bytes: u64,
    /// When it was last written: milliseconds since 1970.
    at_ms: u64,
    /// This brick lacks the file, and the part is worth to be gone on with.
    wanted: bool,
}

/// Which parts are to be removed, so that the others take at most `most` bytes: the oldest first.
fn superfluous(mut parts: Vec<Part>, now_ms: u64, most: u64) -> Vec<FileId> {
    // The youngest first.
    parts.sort_by_key(|p| (std::cmp::Reverse(p.at_ms), p.file));
    let mut kept = 0u64;
    parts
        .into_iter()
        .filter(|p| {
            let stays =
                p.wanted && now_ms.saturating_sub(p.at_ms) <= KEPT_MS && kept.saturating_add(p.bytes) <= most;
            if stays {
                kept += p.bytes;
            }
            !stays
        })
        .map(|p| p.file)
        .collect()
}

fn part_name(file: FileId) -> String {
    format!("{PART}{file}")
}

/// The file of which a name in `staging/` is a part.
fn part_of(name: &[u8]) -> Option<FileId> {
    std::str::from_utf8(name).ok()?.strip_prefix(PART)?.parse().ok()
}

impl Volume {
    /// A new file in `staging/` for something short.
    pub(crate) fn stage(&self, name: &str) -> FsResult<File> {
        self.unstage(name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        access::open(&self.brick.staging, name.as_bytes(), flags, 0o600)
    }

    /// Gives up what was staged.
    pub(crate) fn unstage(&self, name: &str) {
        let _ = access::unlink(&self.brick.staging, name.as_bytes());
    }

    /// A file in `staging/` for what comes of a file of this size. Of a large one what is there of an
    /// earlier try stays in it, unless someone else is going on with that: a job and an open
    /// may bring the same file side by side.
    pub(crate) fn stage_transfer(
        &self,
        file: FileId,
        version: &VersionVector,
        size: u64,
    ) -> FsResult<(Staged, File)> {
        if size >= LARGE && lock(&self.transfers).insert(file) {
            let staged = Staged { name: part_name(file), file, claims: Some(self.transfers.clone()) };
            let flags = OFlags::CREATE | OFlags::RDWR;
            let to = access::open(&self.brick.staging, staged.name.as_bytes(), flags, 0o600)?;
            access::set_file_mark(&*to, &Mark::new(file, Some(version.clone())))?;
            return Ok((staged, to));
        }
        let name = format!("heal-{file}-{}", self.staged.fetch_add(1, Ordering::Relaxed));
        let to = self.stage(&name)?;
        Ok((Staged { name, file, claims: None }, to))
    }

    /// A transfer ended without success: what has come stays, if there is a next try for which it is worth it.
    pub(crate) fn leave(&self, staged: Staged, came: u64, why: Reason) {
        let again = !matches!(why, Reason::Permission | Reason::Conflict);
        if !(staged.is_part() && again && came >= LARGE) {
            self.unstage(&staged.name);
        }
    }

    /// Whether some of a file's bytes may be here already: then a list of its chunks is worth its cost.
    pub(crate) fn has_some_of(&self, file: FileId, size: u64) -> bool {
        if size < LARGE {
            return false;
        }
        if access::stat(&self.brick.staging, part_name(file).as_bytes()).is_ok() {
            return true;
        }
        self.local_or_none(file).is_ok_and(|local| {
            let older = local.have.is_some() && local.print.is_some_and(|p| p.size >= LARGE / 16);
            older || !local.filled.is_empty()
        })
    }

    /// Removes what is of no use any more in `staging/`: at the start all that is not to be gone on with, later parts only.
    pub(super) fn tidy_staging(&self, at_start: bool) -> FsResult<()> {
        let mut parts = Vec::new();
        for (name, _) in self.brick.staging.list()? {
            match part_of(&name) {
                Some(file) if lock(&self.transfers).contains(&file) => {}
                Some(file) => parts.push(self.part(file)?),
                None if at_start && !name.starts_with(b"park-") => {
                    super::amiss::remove(&self.brick.staging, &name)?;
                }
                None => {}
            }
        }
        let space = self.brick.data.stat_fs()?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let most = (free + parts.iter().map(|p| p.bytes).sum::<u64>()) / KEPT_SHARE;
        for file in superfluous(parts, self.clock.now_ms(), most) {
            // Unless someone goes on with it just now.
            let claims = lock(&self.transfers);
            if !claims.contains(&file) {
                self.unstage(&part_name(file));
            }
        }
        Ok(())
    }

    fn part(&self, file: FileId) -> FsResult<Part> {
        let raw = access::stat(&self.brick.staging, part_name(file).as_bytes())?;
        let seconds = u64::try_from(raw.st_mtime).unwrap_or(0);
        let lacks = match self.planned(file) {
            Ok(plan) => matches!(plan.decision, Decision::Fetch { .. } | Decision::Wait(_)),
            Err(Errno::NOENT) => false,
            Err(error) => return Err(error),
        };
        let exists = self.object_of(file).is_ok_and(|o| o.exists(file));
        Ok(Part {
            file,
            bytes: u64::try_from(raw.st_blocks).unwrap_or(0).saturating_mul(512),
            at_ms: seconds.saturating_mul(1000),
            wanted: lacks && exists,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(n: u8, bytes: u64, at_ms: u64) -> Part {
        Part { file: FileId([n; 16]), bytes, at_ms, wanted: true }
    }

    #[test]
    fn t02_parts_that_are_not_wanted_or_too_old_go() {
        let now = 2 * KEPT_MS;
        let parts = vec![part(1, 5, now), Part { wanted: false, ..part(2, 5, now) }, part(3, 5, 10)];
        assert_eq!(superfluous(parts, now, 100), [FileId([2; 16]), FileId([3; 16])]);
    }

    #[test]
    fn the_names_of_parts_are_read_back() {
        let file = FileId([7; 16]);
        assert_eq!(part_of(part_name(file).as_bytes()), Some(file));
        for other in [&b"part-"[..], b"part-x", b"park-07070707070707070707070707070707", b"\xff"] {
            assert_eq!(part_of(other), None);
        }
    }

    proptest! {
        #[test]
        fn what_stays_is_bounded(list in prop::collection::vec((0u64..100, 0u64..100), 0..20), most in 0u64..500) {
            let parts: Vec<_> = list.iter().enumerate().map(|(n, (bytes, at))| part(n as u8, *bytes, *at)).collect();
            let gone = superfluous(parts.clone(), 100, most);
            let stays = parts.iter().filter(|p| !gone.contains(&p.file)).map(|p| p.bytes).sum::<u64>();
            prop_assert!(stays <= most);
            if parts.iter().map(|p| p.bytes).sum::<u64>() <= most {
                prop_assert!(gone.is_empty());
            }
        }
    }
}
