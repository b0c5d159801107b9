//! The xattr that each object of `data/` carries, so that the index can be
//! rebuilt from the brick: its file id, the version that its bytes are, and whether they were brought from another brick.
//! `trusted.*`: symlinks can have it too, and only root sees it.

use nearbrick_core::{FileId, VersionVector};
use serde::{Deserialize, Serialize};

use crate::index::Print;

/// The attribute's name.
pub const XATTR: &str = "trusted.nearbrick";

/// Layout of a mark that says nothing of where the bytes come from.
const PLAIN: u8 = 1;
/// Layout of one that does.
const WITH_ORIGIN: u8 = 2;
/// Layout of one that says with what its bytes can be compared, too.
const WITH_CHECK: u8 = 3;

/// The first bytes of the BLAKE3 of a copy: they tell whether all of it is there, and are short, so that marks stay in the inode.
pub type Check = [u8; 4];

/// Where bytes come from. What is not known to be a copy is never taken for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// They were written here, as far as is known.
    #[default]
    Here,
    /// They were brought from another brick.
    Copied,
    /// They are what a power cut left of a copy of this version, of which the index did not know any more, and nobody has written to
    /// them since.
    Remains(VersionVector),
    /// They are what a power cut left of what was written here, and nothing proves which version that is.
    Found(Found),
    /// There are none, or ranges of this version that were read from another brick: it is a stub.
    Stub(VersionVector),
    /// As [`Origin::Remains`], and not all of the copy is there.
    Torn(VersionVector),
}

/// How a file was found after a power cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What it looked like. Who writes to it makes it look otherwise.
    pub print: Print,
    /// The version that its mark said then.
    pub marked: Option<VersionVector>,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Who it is.
    pub file: FileId,
    /// The complete version here; none for stubs, and for what has no content.
    pub version: Option<VersionVector>,
    /// Where its bytes come from.
    pub origin: Origin,
    /// Of a copy, if it is known.
    pub check: Option<Check>,
}

impl Mark {
    /// The mark of an object.
    pub fn new(file: FileId, version: Option<VersionVector>) -> Self {
        Mark { file, version, origin: Origin::Here, check: None }
    }

    /// The mark of a copy of this version, with the BLAKE3 of its bytes.
    pub fn copied(file: FileId, version: VersionVector, hash: &[u8; 32]) -> Self {
        let check = hash.first_chunk().copied();
        Mark { file, version: Some(version), origin: Origin::Copied, check }
    }

    /// Whether bytes of this BLAKE3 are others than those that were marked so.
    pub fn is_of_others(&self, hash: &[u8; 32]) -> bool {
        self.check.is_some_and(|check| !hash.starts_with(&check))
    }

    /// The mark of a stub, of this version if there is one.
    pub fn stub(file: FileId, of: Option<&VersionVector>) -> Self {
        let origin = of.map_or(Origin::Here, |of| Origin::Stub(of.clone()));
        Mark { origin, ..Mark::new(file, None) }
    }

    /// The version of which the bytes are a copy, or what is left of one.
    pub fn copy_of(&self) -> Option<&VersionVector> {
        match &self.origin {
            Origin::Here | Origin::Found(_) | Origin::Stub(_) => None,
            Origin::Copied => self.version.as_ref(),
            Origin::Remains(of) | Origin::Torn(of) => Some(of),
        }
    }

    /// Its bytes; short enough to stay in an ext4 inode for up to five writers.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialising to memory cannot fail for these types.
        let Mark { file, version, origin, check } = self;
        match (origin, check) {
            (_, Some(check)) => postcard::to_stdvec(&(WITH_CHECK, file, version, origin, check)),
            (Origin::Here, None) => postcard::to_stdvec(&(PLAIN, file, version)),
            _ => postcard::to_stdvec(&(WITH_ORIGIN, file, version, origin)),
        }
        .unwrap_or_default()
    }

    /// Reads what [`Mark::to_bytes`] wrote; none if it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match *bytes.first()? {
            PLAIN => {
                let (_, file, version): (u8, _, _) = postcard::from_bytes(bytes).ok()?;
                Some(Mark::new(file, version))
            }
            WITH_ORIGIN => {
                let (_, file, version, origin): (u8, _, _, _) = postcard::from_bytes(bytes).ok()?;
                Some(Mark { origin, ..Mark::new(file, version) })
            }
            WITH_CHECK => {
                let (_, file, version, origin, check): (u8, _, _, _, Check) =
                    postcard::from_bytes(bytes).ok()?;
                Some(Mark { file, version, origin, check: Some(check) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_core::Incarnation;

    #[test]
    fn a_mark_is_read_back_and_is_short() {
        let version: VersionVector = (1..=3).map(|n| (Incarnation(u64::MAX - n), 1000)).collect();
        let marks = [
            Mark::new(FileId([7; 16]), Some(version.clone())),
            Mark::new(FileId([7; 16]), None),
            Mark::copied(FileId([7; 16]), version.clone(), &[8; 32]),
            Mark::stub(FileId([7; 16]), Some(&version)),
            Mark::stub(FileId([7; 16]), None),
        ];
        for mark in marks {
            let bytes = mark.to_bytes();
            assert!(bytes.len() <= 61, "{}", bytes.len());
            assert_eq!(Mark::from_bytes(&bytes), Some(mark));
        }
        let mark = Mark { origin: Origin::Remains(version), ..Mark::new(FileId([7; 16]), None) };
        assert_eq!(Mark::from_bytes(&mark.to_bytes()), Some(mark));
        let print = Print { ino: 1 << 40, size: 1 << 40, mtime: (1 << 31, 999_999_999), ctime: (1 << 31, 0) };
        let origin = Origin::Found(Found { print, marked: None });
        let mark = Mark { origin, ..Mark::new(FileId([7; 16]), Some(VersionVector::new())) };
        assert_eq!(Mark::from_bytes(&mark.to_bytes()), Some(mark));
        assert_eq!(Mark::from_bytes(b"rubbish"), None);
        assert_eq!(Mark::from_bytes(b""), None);
    }

    #[test]
    fn a_mark_without_a_check_is_read_and_tells_nothing() {
        let version = VersionVector::from_iter([(Incarnation(1), 1)]);
        let mark = Mark { check: None, ..Mark::copied(FileId([7; 16]), version, &[8; 32]) };
        assert_eq!(mark.to_bytes()[0], WITH_ORIGIN);
        assert_eq!(Mark::from_bytes(&mark.to_bytes()), Some(mark.clone()));
        assert!(!mark.is_of_others(&[9; 32]));
        let with = Mark { check: Some([8; 4]), ..mark };
        assert!(with.is_of_others(&[9; 32]) && !with.is_of_others(&[8; 32]));
    }

    #[test]
    fn what_a_mark_is_a_copy_of() {
        let (file, one, two) = (
            FileId([7; 16]),
            VersionVector::from_iter([(Incarnation(1), 1)]),
            VersionVector::from_iter([(Incarnation(2), 1)]),
        );
        assert_eq!(Mark::new(file, Some(one.clone())).copy_of(), None);
        assert_eq!(Mark::copied(file, one.clone(), &[8; 32]).copy_of(), Some(&one));
        let remains = Mark { origin: Origin::Remains(one.clone()), ..Mark::new(file, Some(two)) };
        assert_eq!(remains.copy_of(), Some(&one));
    }
}
