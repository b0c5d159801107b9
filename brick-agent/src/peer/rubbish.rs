//! Messages from peers that make no sense: each is counted for the status, and
//! each kind is logged once, so that a broken or hostile peer fills no log.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use nearbrick_core::BrickId;

use super::Served;

/// The kinds remembered; more than the code has.
const MAX_KINDS: usize = 256;

/// What was logged already.
#[derive(Debug, Default)]
pub struct Rubbish {
    logged: Mutex<HashSet<String>>,
}

impl Rubbish {
    /// Counts a message with the volume and logs the kind if it is new. `why`
    /// names the kind, without values from the message.
    pub fn note(&self, volume: &dyn Served, from: Option<BrickId>, why: &str) {
        volume.rejected(from, why);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < MAX_KINDS && logged.insert(why.to_owned()) {
            let from = from.map_or_else(|| "an unknown brick".to_owned(), |b| format!("brick {b}"));
            tracing::warn!(
                volume = %volume.volume(),
                "dropped a message from {from}: {why}; more of this kind are only counted"
            );
        }
    }
}
