//! What agents say to each other. Encoded with postcard; every body is bounded
//! by [`MAX_BODY`] before memory is taken for it, every stream frame by
//! [`MAX_FRAME`].

use std::collections::BTreeMap;

use nearbrick_core::op::MAX_MEMBERS;
use nearbrick_core::{BrickId, Entry, FileId, Incarnation, VersionVector};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The last contiguous sequence number known of each origin's journal.
pub type Heads = BTreeMap<Incarnation, u64>;

/// The protocol's version, in the path: `/v2/...`. Another number whenever what is said is encoded in another way.
pub const PROTOCOL: u32 = 2;
/// The largest request or reply body, in bytes.
pub const MAX_BODY: usize = 16 << 20;
/// The largest request body that is taken, in bytes.
pub const MAX_REQUEST: usize = 4 << 20;
/// The most origins in one table of heads.
pub const MAX_HEADS: usize = 4096;
/// The most bytes in one ranged read.
pub const MAX_READ: usize = 8 << 20;
/// The largest frame of a stream, in bytes.
pub const MAX_FRAME: usize = 1 << 20;
/// How many bytes of entries one reply carries, about.
pub const ENTRIES_BYTES: usize = 4 << 20;
/// The most files in one fetch.
pub const MAX_FETCH: usize = 4096;
/// The most ranges in one request.
pub const MAX_RANGES: usize = 64 << 10;
/// The most pieces of one list of chunks; a file of more is streamed whole.
pub const MAX_PIECES: usize = 1 << 20;
/// Bounds of the average chunk, in bytes; the longest is four times that.
pub const CHUNK_AVERAGE: std::ops::RangeInclusive<u32> = 1 << 10..=4 << 20;

/// Asks for entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRequest {
    /// What the asker has.
    pub cursors: Heads,
}

/// Entries that the asker lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalReply {
    /// In order for each origin.
    pub entries: Vec<Entry>,
    /// What the answerer has: more is to be asked for if this is beyond the entries.
    pub heads: Heads,
    /// Entries that the asker lacks are no longer there: it is to compare.
    pub behind: bool,
}

/// What one member has heard, by its own word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// When it said so, by its hybrid clock: its later word counts.
    pub at: u64,
    /// The journal that it writes now.
    pub incarnation: Incarnation,
    /// What it has.
    pub heads: Heads,
    /// The sum of the hashes of all its objects.
    pub sum: u128,
}

/// What members have heard, as far as the sender knows; passed on, because two members may never be on together.
pub type Acks = BTreeMap<BrickId, Ack>;

/// Whether a table of acknowledgements keeps to the bounds.
pub fn acks_are_bounded(acks: &Acks) -> bool {
    acks.len() <= MAX_MEMBERS
        && acks.values().all(|ack| ack.heads.len() <= MAX_HEADS && ack.at <= nearbrick_core::op::MAX_TIME)
}

/// Says that there are new entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Who says so.
    pub brick: BrickId,
    /// What it has.
    pub heads: Heads,
}

/// Asks to bring a version of a file to the disk now: an `fsync` waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepRequest {
    /// What the asker has: the version is in these entries.
    pub heads: Heads,
    /// The file.
    pub file: FileId,
    /// The version, or any that includes it.
    pub version: VersionVector,
}

/// Whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepReply {
    /// 0: it is durable. Otherwise the code of the reason why not, as in frames.
    pub why: u8,
}

/// One file that is wanted whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchItem {
    /// The file.
    pub file: FileId,
    /// The version wanted, or any that includes it.
    pub version: VersionVector,
}

/// Asks for whole files, in this order, in one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// At most [`MAX_FETCH`].
    pub items: Vec<FetchItem>,
}

/// Asks for a range of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRequest {
    /// The file.
    pub file: FileId,
    /// Exactly this version.
    pub version: VersionVector,
    /// First byte.
    pub offset: u64,
    /// At most [`MAX_READ`].
    pub len: u32,
}

/// Asks what a file is now that programs there are writing. The answer is the object, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestRequest {
    /// The file.
    pub file: FileId,
}

/// Asks for the list of chunks of a version, or of any that includes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunksRequest {
    /// The file.
    pub file: FileId,
    /// The version.
    pub version: VersionVector,
}

/// Asks for some ranges of one version, in one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangesRequest {
    /// The file.
    pub file: FileId,
    /// Exactly this version.
    pub version: VersionVector,
    /// Offset and length of each, in order, apart from each other; at most [`MAX_RANGES`].
    pub ranges: Vec<(u64, u64)>,
}

impl RangesRequest {
    /// How many bytes they are; none if they are out of order, empty, or too many.
    pub fn total(&self) -> Option<u64> {
        let (mut end, mut total) = (0u64, 0u64);
        for (offset, len) in &self.ranges {
            if *offset < end || *len == 0 {
                return None;
            }
            end = offset.checked_add(*len)?;
            total = total.checked_add(*len)?;
        }
        (self.ranges.len() <= MAX_RANGES).then_some(total)
    }
}

/// The name of a chunk: the first half of its BLAKE3.
pub type ChunkHash = [u8; 16];

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Piece {
    /// A chunk.
    Data {
        /// Bytes.
        len: u32,
        /// Its name.
        hash: ChunkHash,
    },
    /// Zeroes that take no space.
    Hole {
        /// Bytes.
        len: u64,
    },
}

impl Piece {
    /// Bytes of the file that it stands for.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Data { len, .. } => u64::from(*len),
            Piece::Hole { len } => *len,
        }
    }

    /// Whether it stands for nothing: such a piece is not allowed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A version of a file as a list of chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkList {
    /// Of which version.
    pub version: VersionVector,
    /// Bytes of the file.
    pub size: u64,
    /// The average size of a chunk with which it was cut.
    pub average: u32,
    /// In order; together they are the file.
    pub pieces: Vec<Piece>,
    /// BLAKE3 of the whole.
    pub hash: [u8; 32],
}

/// The bytes of a message.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Serialising to memory cannot fail for these types.
    postcard::to_stdvec(message).unwrap_or_default()
}

/// Reads a message; none if the bytes are not exactly one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::compare::{CompareReply, CompareRequest};
    use proptest::prelude::*;

    #[test]
    fn a_message_is_read_back_and_nothing_may_follow_it() {
        let hint = Hint { brick: BrickId([3; 16]), heads: Heads::from([(Incarnation(4), 9)]) };
        let mut bytes = encode(&hint);
        assert_eq!(decode(&bytes), Some(hint));
        bytes.push(0);
        assert_eq!(decode::<Hint>(&bytes), None);
    }

    #[test]
    fn ranges_are_in_order_and_apart_and_their_sum_is_a_number() {
        let total = |ranges: &[(u64, u64)]| {
            let (file, version) = (FileId([1; 16]), VersionVector::new());
            RangesRequest { file, version, ranges: ranges.to_vec() }.total()
        };
        assert_eq!(total(&[(0, 5), (5, 5), (100, 1)]), Some(11));
        for bad in [&[(5, 5), (0, 5)][..], &[(0, 6), (5, 5)], &[(0, 0)], &[(u64::MAX, 2)]] {
            assert_eq!(total(bad), None, "{bad:?}");
        }
        assert_eq!(total(&vec![(0, 1); MAX_RANGES + 1]), None);
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<JournalRequest>(&bytes);
            let _ = decode::<JournalReply>(&bytes);
            let _ = decode::<Hint>(&bytes);
            let _ = decode::<FetchRequest>(&bytes);
            let _ = decode::<ReadRequest>(&bytes);
            let _ = decode::<Acks>(&bytes);
            let _ = decode::<NewestRequest>(&bytes);
            if let Some(Some(object)) = decode::<Option<nearbrick_core::Object>>(&bytes) {
                let _ = object.check(FileId([1; 16]));
            }
            if let Some(request) = decode::<CompareRequest>(&bytes) {
                let _ = request.is_bounded();
            }
            if let Some(reply) = decode::<CompareReply>(&bytes) {
                let _ = reply.check(&CompareRequest::Top);
            }
            let _ = decode::<ChunksRequest>(&bytes);
            let _ = decode::<KeepRequest>(&bytes);
            let _ = decode::<RangesRequest>(&bytes).and_then(|r| r.total());
        }
    }
}
