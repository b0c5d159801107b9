//! How far a member has heard: for each origin, the last entry of its journal up to
//! which all are known here, whether as entries or merged into states.
//!
//! Within one origin later entries have later times, so a stamp that is found in
//! an object tells whether a member has heard of it, without the entry itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::Incarnation;
use crate::stamp::Stamp;

/// The last entry of one origin that is known, with all before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug, Default)]
pub struct Heard {
    /// Its sequence number.
    pub seq: u64,
    /// Its hybrid time.
    pub time: u64,
}

/// How far a member has heard of each origin.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
pub struct Horizon(BTreeMap<Incarnation, Heard>);

impl Horizon {
    /// Of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How far of this origin.
    pub fn get(&self, origin: Incarnation) -> Heard {
        self.0.get(&origin).copied().unwrap_or_default()
    }

    /// All of the origin up to `heard` is known now.
    pub fn raise(&mut self, origin: Incarnation, heard: Heard) {
        let known = self.0.entry(origin).or_default();
        known.seq = known.seq.max(heard.seq);
        known.time = known.time.max(heard.time);
    }

    /// Whether the operation with this stamp has been heard.
    pub fn saw(&self, stamp: Stamp) -> bool {
        stamp.time <= self.get(stamp.origin).time
    }

    /// Whether all that `other` has heard has been heard here.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(origin, heard)| self.get(*origin).seq >= heard.seq)
    }

    /// What both have heard.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let both = |(&origin, &mine): (&Incarnation, &Heard)| {
            let theirs = other.0.get(&origin)?;
            Some((origin, Heard { seq: mine.seq.min(theirs.seq), time: mine.time.min(theirs.time) }))
        };
        Horizon(self.0.iter().filter_map(both).collect())
    }

    /// By origin.
    pub fn iter(&self) -> impl Iterator<Item = (Incarnation, Heard)> + '_ {
        self.0.iter().map(|(&origin, &heard)| (origin, heard))
    }

    /// Of how many origins.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing has been heard.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Incarnation, Heard)> for Horizon {
    fn from_iter<I: IntoIterator<Item = (Incarnation, Heard)>>(list: I) -> Self {
        Horizon(list.into_iter().collect())
    }
}
