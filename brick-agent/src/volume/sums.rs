//! A tree of hashes over all objects: 256 branches of 256 leaves by the first two bytes of
//! the (random) file id. A leaf is the sum of its objects' hashes, so a change costs two hashes,
//! and two members find what differs between them without looking at the rest.

use nearbrick_core::{FileId, Object};

use crate::index::encode;

/// Branches, and leaves of each.
pub const FAN: usize = 256;

/// The sums of all leaves.
pub struct Sums(Vec<u128>);

impl Default for Sums {
    fn default() -> Self {
        Sums(vec![0; FAN * FAN])
    }
}

/// The hash of one object's state.
pub fn sum_of(file: FileId, object: &Object) -> u128 {
    let mut hasher = blake3::Hasher::new_derive_key("nearbrick.io 2026 state of an object");
    hasher.update(&file.0).update(&encode(object));
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    u128::from_be_bytes(out)
}

impl Sums {
    /// An object changed, came to be known, or was forgotten.
    pub fn change(&mut self, file: FileId, before: Option<&Object>, after: Option<&Object>) {
        let sum = |object: Option<&Object>| object.map_or(0, |o| sum_of(file, o));
        if let Some(leaf) = self.0.get_mut(usize::from(file.0[0]) * FAN + usize::from(file.0[1])) {
            *leaf = leaf.wrapping_sub(sum(before)).wrapping_add(sum(after));
        }
    }

    /// The sums of the leaves of one branch.
    pub fn under(&self, branch: u8) -> &[u128] {
        let first = usize::from(branch) * FAN;
        self.0.get(first..first + FAN).unwrap_or_default()
    }

    /// The sum of all objects.
    pub fn all(&self) -> u128 {
        self.0.iter().fold(0, |a: u128, b| a.wrapping_add(*b))
    }

    /// The sums of all branches.
    pub fn top(&self) -> Vec<u128> {
        self.0.chunks(FAN).map(|leaves| leaves.iter().fold(0, |a: u128, b| a.wrapping_add(*b))).collect()
    }
}
