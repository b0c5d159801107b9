//! What was done here and no other member has heard of yet: it would be out of reach for all if this machine went now.
//!
//! A member that asks for entries says by its cursors what it has, and so do its hints and acknowledgements. Members
//! pass entries on, so one that has heard is enough.

use std::collections::BTreeMap;

use nearbrick_core::{Incarnation, Op};

use crate::index::{Index, IndexError};
use crate::peer::wire::Heads;

/// Whether peers would miss it. What a file's bytes are, and who has them, is counted as pending.
fn would_be_missed(op: &Op) -> bool {
    match op {
        Op::Create { .. }
        | Op::Link(_)
        | Op::Move { .. }
        | Op::Unlink { .. }
        | Op::SetAttr(_)
        | Op::SetXattr { .. }
        | Op::Replicas(_)
        | Op::Resolve { .. }
        | Op::Kept { .. }
        | Op::Decide { .. } => true,
        Op::Dirty { .. } | Op::Clean { .. } | Op::Content { .. } | Op::Have { .. } | Op::Drop { .. } => false,
    }
}

/// One journal of this brick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Life {
    /// The last entry that would be missed.
    last: u64,
    /// Up to where some other member has it.
    heard: u64,
}

/// The journals of all lives of this brick.
#[derive(Debug, Default)]
pub struct Unheard(BTreeMap<Incarnation, Life>);

impl Unheard {
    /// From what is in the index, and what members had said when that was last kept.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn load<'a>(
        index: &Index,
        lives: impl IntoIterator<Item = Incarnation>,
        acks: impl Iterator<Item = &'a Heads> + Clone,
    ) -> Result<Self, IndexError> {
        let mut all = BTreeMap::new();
        for life in lives {
            let heard = acks.clone().filter_map(|heads| heads.get(&life)).max().copied().unwrap_or(0);
            let mut last = 0;
            for entry in index.entries_back(life, heard) {
                let entry = entry?;
                if would_be_missed(&entry.op) {
                    last = entry.seq;
                    break;
                }
            }
            all.insert(life, Life { last, heard });
        }
        Ok(Unheard(all))
    }

    /// An entry of our own is in the journal.
    pub fn did(&mut self, life: Incarnation, seq: u64) {
        self.0.entry(life).or_default().last = seq;
    }

    /// Another member has this. Says whether that was all that was lacking.
    pub fn heard(&mut self, heads: &Heads) -> bool {
        let before = self.is_some();
        for (life, known) in &mut self.0 {
            known.heard = known.heard.max(heads.get(life).copied().unwrap_or(0));
        }
        before && !self.is_some()
    }

    /// Whether there is something that nobody else has heard of.
    pub fn is_some(&self) -> bool {
        self.0.values().any(|life| life.last > life.heard)
    }
}

/// The number of an own entry that would be missed.
pub fn to_tell(op: &Op, seq: u64) -> Option<u64> {
    would_be_missed(op).then_some(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heard_by_one_is_enough_and_each_life_counts() {
        let (now, before) = (Incarnation(2), Incarnation(1));
        let mut unheard = Unheard::default();
        assert!(!unheard.is_some());
        unheard.did(before, 7);
        unheard.did(now, 3);
        assert!(!unheard.heard(&Heads::from([(now, 3)])));
        assert!(unheard.is_some());
        assert!(unheard.heard(&Heads::from([(before, 9)])));
        unheard.did(now, 4);
        assert!(unheard.is_some());
        // An older word takes nothing back.
        assert!(unheard.heard(&Heads::from([(now, 4)])));
        assert!(!unheard.heard(&Heads::from([(now, 1)])));
        assert!(!unheard.is_some());
    }
}
