//! The xattr that each object of `data/` carries, so that the index can be
//! rebuilt from the brick: its file id, and the version that its bytes are.
//! `trusted.*`: symlinks can have it too, and only root sees it.

use nearbrick_core::{FileId, VersionVector};
use serde::{Deserialize, Serialize};

/// The attribute's name.
pub const XATTR: &str = "trusted.nearbrick";

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Version of this layout.
    pub format: u8,
    /// Who it is.
    pub file: FileId,
    /// The complete version here; none for stubs, and for what has no content.
    pub version: Option<VersionVector>,
}

impl Mark {
    /// The mark of an object.
    pub fn new(file: FileId, version: Option<VersionVector>) -> Self {
        Mark { format: 1, file, version }
    }

    /// Its bytes; short enough to stay in an ext4 inode for up to five writers.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialising to memory cannot fail for these types.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Reads what [`Mark::to_bytes`] wrote; none if it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes::<Mark>(bytes).ok().filter(|m| m.format == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_core::Incarnation;

    #[test]
    fn a_mark_is_read_back_and_is_short() {
        let version = (1..=3).map(|n| (Incarnation(u64::MAX - n), 1000)).collect();
        let mark = Mark::new(FileId([7; 16]), Some(version));
        let bytes = mark.to_bytes();
        assert!(bytes.len() <= 60, "{}", bytes.len());
        assert_eq!(Mark::from_bytes(&bytes), Some(mark));
        assert_eq!(Mark::from_bytes(b"rubbish"), None);
    }
}
