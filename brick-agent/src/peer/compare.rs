//! What two members say to find out what differs between them, when the journal alone
//! cannot tell any more. Top down: the sums of 256 branches, of the leaves of those that
//! differ, the objects' hashes in leaves that differ, and the objects that differ.

use std::io;

use nearbrick_core::op::{MAX_MEMBERS, MAX_SEQ, MAX_TIME};
use nearbrick_core::{FileId, Horizon, Object};
use serde::{Deserialize, Serialize};

use super::wire::MAX_HEADS;

/// Branches of the tree of hashes, and leaves of each.
pub const FAN: usize = 256;
/// The most leaves that one request asks for.
pub const MAX_LEAVES: usize = 256;
/// The most objects that one answer lists or carries.
pub const MAX_LISTED: usize = 32_768;
/// The most objects that one request asks for.
pub const MAX_OBJECTS: usize = 512;

/// Asks for one level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareRequest {
    /// The sums of all branches.
    Top,
    /// The sums of the leaves of these branches.
    Under(Vec<u8>),
    /// The objects in these leaves, in the order of their ids, from after this one on.
    Leaves {
        /// In order.
        leaves: Vec<[u8; 2]>,
        /// The last one that the asker has.
        after: Option<FileId>,
    },
    /// These objects.
    Objects(Vec<FileId>),
}

/// Answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareReply {
    /// To `Top`.
    Top {
        /// How far the answerer has heard; all that it says later includes that.
        horizon: Horizon,
        /// By branch.
        sums: Vec<u128>,
    },
    /// To `Under`: branch after branch.
    Under(Vec<u128>),
    /// To `Leaves`.
    Leaves {
        /// Each with the hash of its state.
        objects: Vec<(FileId, u128)>,
        /// Whether there are more after these.
        more: bool,
    },
    /// To `Objects`.
    Objects {
        /// Those that are known, in the order of the request.
        objects: Vec<(FileId, Object)>,
        /// For so many of those asked for this is the answer.
        answered: u32,
    },
    /// To `Top`, by one that has nothing to compare with: its index is being made anew.
    Rebuilding {
        /// Its directory was adopted.
        adopts: bool,
    },
}

impl CompareRequest {
    /// Its name, for the path.
    pub const VERB: &'static str = "compare";

    /// Whether it keeps to the bounds.
    pub fn is_bounded(&self) -> bool {
        match self {
            CompareRequest::Top => true,
            CompareRequest::Under(branches) => branches.len() <= FAN,
            CompareRequest::Leaves { leaves, .. } => leaves.len() <= MAX_LEAVES && leaves.is_sorted(),
            CompareRequest::Objects(files) => files.len() <= MAX_OBJECTS,
        }
    }
}

impl CompareReply {
    /// Checks what a peer answered to this request.
    ///
    /// # Errors
    /// The kind of nonsense.
    pub fn check(&self, request: &CompareRequest) -> Result<(), &'static str> {
        match (self, request) {
            (CompareReply::Top { horizon, sums }, CompareRequest::Top)
                if sums.len() == FAN && horizon.len() <= MAX_HEADS =>
            {
                if horizon.iter().any(|(_, heard)| heard.time > MAX_TIME || heard.seq > MAX_SEQ) {
                    return Err("a comparison with a horizon that makes no sense");
                }
                Ok(())
            }
            (CompareReply::Rebuilding { .. }, CompareRequest::Top) => Ok(()),
            (CompareReply::Under(sums), CompareRequest::Under(branches))
                if sums.len() == branches.len() * FAN =>
            {
                Ok(())
            }
            (CompareReply::Leaves { objects, more }, CompareRequest::Leaves { leaves, after }) => {
                let ids = || objects.iter().map(|(file, _)| *file);
                let within = ids().all(|f| leaves.binary_search(&[f.0[0], f.0[1]]).is_ok());
                let rising = ids().is_sorted_by(|a, b| a < b) && after.is_none_or(|a| ids().all(|f| f > a));
                if !within || !rising || objects.len() > MAX_LISTED || (*more && objects.is_empty()) {
                    return Err("a comparison's list that makes no sense");
                }
                Ok(())
            }
            (CompareReply::Objects { objects, answered }, CompareRequest::Objects(files)) => {
                let answered = usize::try_from(*answered).unwrap_or(usize::MAX);
                let Some(asked) = files.get(..answered).filter(|a| !a.is_empty() || files.is_empty()) else {
                    return Err("a comparison's answer that makes no sense");
                };
                let mut asked = asked.iter();
                if !objects.iter().all(|(file, _)| asked.any(|a| a == file)) {
                    return Err("objects that nobody asked for");
                }
                objects
                    .iter()
                    .try_for_each(|(file, object)| object.check(*file))
                    .map_err(|_| "an object that makes no sense")
            }
            _ => Err("an answer to another question of a comparison"),
        }
    }
}

/// One comparison, driven by whoever can ask the peer.
pub trait Compare: Send {
    /// What is to be asked now; none when all is done.
    fn request(&self) -> Option<CompareRequest>;

    /// Takes the answer to [`Compare::request`], checked. May block on the disk.
    ///
    /// # Errors
    /// Then the comparison is given up; what was taken over stays, and the next one goes on from there.
    fn answer(&mut self, reply: CompareReply) -> io::Result<()>;
}

/// Bounds on vectors hold for everything that is compared.
const _: () = assert!(MAX_MEMBERS <= MAX_HEADS);
