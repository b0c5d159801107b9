//! What agents say to each other. Encoded with postcard; every body is bounded
//! by [`MAX_BODY`] before memory is taken for it, every stream frame by
//! [`MAX_FRAME`].

use std::collections::BTreeMap;

use nearbrick_core::{BrickId, Entry, FileId, Incarnation, VersionVector};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The last contiguous sequence number known of each origin's journal.
pub type Heads = BTreeMap<Incarnation, u64>;

/// The protocol's version, in the path: `/v1/...`.
pub const PROTOCOL: u32 = 1;
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
    acks.len() <= nearbrick_core::op::MAX_MEMBERS && acks.values().all(|ack| ack.heads.len() <= MAX_HEADS)
}

/// Says that there are new entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Who says so.
    pub brick: BrickId,
    /// What it has.
    pub heads: Heads,
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

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<JournalRequest>(&bytes);
            let _ = decode::<JournalReply>(&bytes);
            let _ = decode::<Hint>(&bytes);
            let _ = decode::<FetchRequest>(&bytes);
            let _ = decode::<ReadRequest>(&bytes);
            let _ = decode::<Acks>(&bytes);
            if let Some(request) = decode::<CompareRequest>(&bytes) {
                let _ = request.is_bounded();
            }
            if let Some(reply) = decode::<CompareReply>(&bytes) {
                let _ = reply.check(&CompareRequest::Top);
            }
        }
    }
}
