//! What is kept of passes.

use std::collections::BTreeMap;

use nearbrick_core::{FileId, VersionVector};
use serde::{Deserialize, Serialize};

use super::file::Looked;

/// Faults that are remembered one by one.
const MOST: usize = 4096;

/// One look through the brick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// When it began: milliseconds since 1970.
    pub began_ms: u64,
    /// When it ended, if it has.
    pub ended_ms: Option<u64>,
    /// The names were compared.
    pub named: bool,
    /// The last file that was looked at, in the order of their ids.
    pub at: Option<FileId>,
    /// Files whose bytes are what they should be.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Names that were not as the index had them: made, moved or removed past the mount.
    pub names: u64,
    /// Files that were changed past the mount.
    pub edited: u64,
    /// Files that were damaged.
    pub damaged: u64,
    /// Files that could not be looked at, mostly because programs were writing them.
    pub left: u64,
}

impl Pass {
    pub(super) fn new(began_ms: u64) -> Self {
        Pass { began_ms, ..Pass::default() }
    }

    pub(super) fn count(&mut self, file: FileId, looked: Looked) {
        self.at = Some(file);
        match looked {
            Looked::Right(bytes) => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(bytes);
            }
            Looked::Edited => self.edited += 1,
            Looked::Damaged(_) => self.damaged += 1,
            Looked::Left => self.left += 1,
            Looked::Nothing | Looked::Stopped => {}
        }
    }
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It was damaged, and a whole copy is still to come.
    SetAside,
    /// It is damaged, and no other brick is known to hold this version.
    OnlyCopy,
    /// Two bricks say different hashes.
    Disagreed,
    /// It came before its hash was known, and was not compared with it yet. Mostly it is right.
    NotCompared,
}

/// A fault that is not repaired yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Of this version.
    pub version: VersionVector,
    /// Which.
    pub fault: Fault,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The pass that is under way.
    pub pass: Option<Pass>,
    /// The last that ended.
    pub last: Option<Pass>,
    /// What is not repaired yet.
    pub open: BTreeMap<FileId, Open>,
}

impl State {
    /// Remembers a fault. That there are too many to tell them all is known by their number.
    pub fn found(&mut self, file: FileId, version: VersionVector, fault: Fault) {
        if self.open.len() < MOST || self.open.contains_key(&file) {
            self.open.insert(file, Open { version, fault });
        }
    }
}
