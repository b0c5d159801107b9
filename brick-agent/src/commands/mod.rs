//! What a person asks the running agent of this workstation, over a Unix socket in its run directory that only
//! root may use: a line of JSON for the question, and one for each part of the answer.
//!
//! * [`server`]: the agent's side.
//! * [`client`]: the program's other commands.

pub mod client;
pub mod server;

use std::path::{Path, PathBuf};

use nearbrick_core::FileId;
use serde::{Deserialize, Serialize};

/// The longest question, in bytes: two paths.
const MAX_QUESTION: u64 = 64 << 10;

/// Where the agent with this run directory listens.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Which versions are kept: of this path, absolute, as bytes; none: of all volumes.
    Versions {
        /// The file, or a directory.
        path: Option<Vec<u8>>,
    },
    /// Brings one back.
    Restore {
        /// Its name.
        id: String,
        /// Absolute, as bytes; none: where it was.
        to: Option<Vec<u8>>,
    },
    /// Looks through all that is here of a volume.
    Scrub {
        /// Its mount, absolute, or NAMESPACE/NAME, as bytes.
        volume: Vec<u8>,
    },
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A version that is kept. More may follow.
    Version(Version),
    /// It is here again, under this path.
    Restored(Vec<u8>),
    /// How far a look through a brick is. More may follow.
    Scrub(Progress),
    /// That was all.
    End,
    /// One clear line.
    Failed(String),
}

/// How far a look through a brick is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// It came to its end.
    pub done: bool,
    /// Files whose bytes are what they should be.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Names that were changed past the mount.
    pub names: u64,
    /// Files that were.
    pub edited: u64,
    /// Files that the disk had damaged.
    pub damaged: u64,
    /// Files that could not be looked at.
    pub left: u64,
    /// Files, of this look and of earlier ones, that are not repaired yet.
    pub unrepaired: u64,
}

/// A version that is kept, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its name.
    pub id: String,
    /// Of which file.
    pub file: Option<FileId>,
    /// Where it was, absolute, as bytes.
    pub path: Option<Vec<u8>>,
    /// Why it is kept.
    pub why: String,
    /// Since when: milliseconds since 1970.
    pub since_ms: u64,
    /// Bytes.
    pub size: u64,
    /// Its modification time: seconds since 1970.
    pub mtime: i64,
    /// The workstation on which it was written, if that is known.
    pub writer: Option<String>,
}
