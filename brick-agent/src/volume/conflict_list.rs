//! What is said of conflicts, for the reports: those that are open, and those on which a person's word was carried out lately.
//!
//! Both lists are bounded; members that have heard the same list the same.

use nearbrick_core::resolution::{Choice, Side, Word};
use nearbrick_core::{BrickId, FileId, Object};

use super::Volume;
use super::core::Core;
use super::resolve::{Hindrance, exact_holders};
use super::types::FsResult;

/// Of each list.
pub const MOST: usize = 100;

/// One version of a file in conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedVersion {
    /// The brick that wrote it.
    pub writer: BrickId,
    /// Those that hold it, or held it when it was decided.
    pub holders: Vec<BrickId>,
    /// Bytes.
    pub size: u64,
    /// Its modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// BLAKE3, if somebody has read it.
    pub hash: Option<[u8; 32]>,
    /// Where it is in the tree, from the volume's root.
    pub path: Option<Vec<u8>>,
    /// Whether a person chose it.
    pub chosen: bool,
}

/// A word that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedDecision {
    /// Which word.
    pub word: Word,
    /// What it said.
    pub choice: Choice,
    /// By which brick.
    pub by: BrickId,
    /// When: milliseconds since 1970.
    pub at_ms: u64,
}

/// One file in conflict, or that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedConflict {
    /// The file.
    pub file: FileId,
    /// Where it is, from the volume's root.
    pub path: Vec<u8>,
    /// Whether it is open.
    pub open: bool,
    /// The versions.
    pub versions: Vec<ListedVersion>,
    /// The last word that was carried out on it.
    pub decision: Option<ListedDecision>,
    /// Why a later one is not, as far as this brick tried.
    pub hindrance: Option<Hindrance>,
}

impl Volume {
    /// The first open ones by their ids, and the last decided ones.
    pub(super) fn listed_conflicts(&self, core: &Core) -> Vec<ListedConflict> {
        let open = core.tally.open_conflicts();
        let (now, retention) = (self.clock.now_ms(), self.config().retention_ms);
        let lately = core.tally.decided.iter().filter(|(_, at)| now.saturating_sub(**at) <= retention);
        let mut decided: Vec<_> =
            lately.map(|(file, at)| (*at, *file)).filter(|(_, file)| !open.contains(file)).collect();
        decided.sort_unstable_by(|a, b| b.cmp(a));
        decided.truncate(MOST);
        let open = open.into_iter().take(MOST).map(|file| (file, true));
        let files = open.chain(decided.into_iter().map(|(_, file)| (file, false)));
        let listed = files.filter_map(|(file, open)| {
            self.listed(core, file, open)
                .map_err(|error| tracing::debug!(%file, %error, "a conflict cannot be listed"))
                .ok()
        });
        listed.collect()
    }

    fn listed(&self, core: &Core, file: FileId, open: bool) -> FsResult<ListedConflict> {
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        let path = self.path_to_keep(&object, &local);
        let decided = object.decided();
        let (sides, holds) = match decided {
            Some((_, last)) if !open => {
                let chosen = (last.choice != Choice::KeepBoth).then_some(last.holds);
                (last.sides.clone(), chosen.and_then(|n| usize::try_from(n).ok()))
            }
            _ => (self.sides(core, file, &object)?, None),
        };
        let mut versions = Vec::new();
        for (n, side) in sides.iter().enumerate() {
            versions.push(self.listed_version(&object, side, holds == Some(n))?);
        }
        let decision = decided.map(|(by, last)| ListedDecision {
            word: last.word,
            choice: last.choice,
            by,
            at_ms: object.decided_at().unwrap_or(0),
        });
        Ok(ListedConflict { file, path, open, versions, decision, hindrance: self.hindrance(file) })
    }

    fn listed_version(&self, object: &Object, side: &Side, chosen: bool) -> FsResult<ListedVersion> {
        let version = &side.content.version;
        let (path, holders) = match side.beside {
            None => (None, exact_holders(object, version)),
            Some(beside) => {
                let there = self.object_of(beside)?;
                let path = match there.exists(beside) {
                    true => Some(self.path_to_keep(&there, &self.local_or_none(beside)?)),
                    false => None,
                };
                (path, exact_holders(&there, version))
            }
        };
        Ok(ListedVersion {
            writer: side.content.writer,
            holders,
            size: side.content.size,
            mtime: side.content.mtime,
            hash: side.hash,
            path,
            chosen,
        })
    }
}
