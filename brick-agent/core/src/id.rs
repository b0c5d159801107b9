//! Identities. All are random, never derived from a name, and never used twice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is not the identity it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct BadId {
    text: String,
    what: &'static str,
}

impl BadId {
    pub(crate) fn new(text: &str, what: &'static str) -> Self {
        BadId { text: text.chars().take(64).collect(), what }
    }
}

fn hex16(text: &str, what: &'static str) -> Result<[u8; 16], BadId> {
    let bad = || BadId { text: text.chars().take(64).collect(), what };
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return Err(bad());
    }
    let mut out = [0; 16];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
    }
    Ok(out)
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

/// A file, directory, symlink or special file: 128 random bits, given at its
/// creation and kept through every rename and heal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId(pub [u8; 16]);

impl FileId {
    /// The root directory of every volume.
    pub const ROOT: FileId = FileId([0; 16]);

    /// The inode number that programs see: the same on every member.
    /// Never 0 or 1, which the kernel keeps for itself and the root.
    pub fn inode(&self) -> u64 {
        if *self == Self::ROOT {
            return 1;
        }
        let mut low = [0; 8];
        low.copy_from_slice(&self.0[..8]);
        // 63 bits: some programs take inode numbers as signed.
        (u64::from_le_bytes(low) >> 1).max(2)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0[..4])
    }
}

impl FromStr for FileId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        hex16(text, "a file id of 32 hex digits").map(FileId)
    }
}

/// A brick's UUID: it stays when the brick gets a new incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BrickId(pub [u8; 16]);

impl fmt::Display for BrickId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, chunk) in
            [&self.0[..4], &self.0[4..6], &self.0[6..8], &self.0[8..10], &self.0[10..]].iter().enumerate()
        {
            if i > 0 {
                f.write_str("-")?;
            }
            write_hex(f, chunk)?;
        }
        Ok(())
    }
}

impl fmt::Debug for BrickId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0[..4])
    }
}

impl FromStr for BrickId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        hex16(text, "a UUID").map(BrickId)
    }
}

/// One life of a brick's index: 64 random bits. A brick that lost its index
/// gets a new one, so that its counters never look older than what peers hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0 >> 48)
    }
}

impl FromStr for Incarnation {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        u64::from_str_radix(text, 16).map(Incarnation).map_err(|_| BadId {
            text: text.chars().take(64).collect(),
            what: "an incarnation of 16 hex digits",
        })
    }
}

/// One name of an object: the incarnation that made it and the journal
/// sequence at which it did. A rename keeps it, so that two members who rename
/// one name at once end with one name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct LinkId {
    /// The incarnation that made the link.
    pub origin: Incarnation,
    /// Its journal sequence number then.
    pub seq: u64,
}

impl LinkId {
    /// 16 bytes that sort by origin, then sequence.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.origin.0.to_be_bytes());
        out[8..].copy_from_slice(&self.seq.to_be_bytes());
        out
    }

    /// The inverse of [`LinkId::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> LinkId {
        let (mut a, mut b) = ([0; 8], [0; 8]);
        a.copy_from_slice(&bytes[..8]);
        b.copy_from_slice(&bytes[8..]);
        LinkId { origin: Incarnation(u64::from_be_bytes(a)), seq: u64::from_be_bytes(b) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let brick = BrickId([7; 16]);
        assert_eq!(brick.to_string().parse(), Ok(brick));
        let file = FileId([0xab; 16]);
        assert_eq!(file.to_string().parse(), Ok(file));
        assert!("../../etc".parse::<BrickId>().is_err());
        assert!("é".repeat(16).parse::<FileId>().is_err());
        let link = LinkId { origin: Incarnation(5), seq: 9 };
        assert_eq!(LinkId::from_bytes(link.to_bytes()), link);
    }
}
