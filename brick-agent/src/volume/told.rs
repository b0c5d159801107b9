//! Which other members were heard since this agent began. Of what a power cut took from the index only they can tell.
//!
//! A member says how far it has heard of all journals; it was heard when as much is known here.

use std::collections::{BTreeMap, BTreeSet};

use nearbrick_core::BrickId;

use crate::peer::wire::Heads;

/// What members said first.
#[derive(Debug, Default)]
pub struct Told {
    /// So far they had heard, and less was known here when they said so.
    ahead: BTreeMap<BrickId, Heads>,
    heard: BTreeSet<BrickId>,
}

fn includes(ours: &Heads, theirs: &Heads) -> bool {
    theirs.iter().all(|(origin, seq)| ours.get(origin).is_some_and(|known| known >= seq))
}

impl Told {
    /// A member says how far it has heard.
    pub fn says(&mut self, from: BrickId, theirs: &Heads) {
        // Who has heard of nothing at all, as its own index is being made anew, can tell nothing.
        if theirs.is_empty() || self.heard.contains(&from) {
            return;
        }
        let first = self.ahead.entry(from).or_insert_with(|| theirs.clone());
        // A power cut took it from the member, too, and nobody will tell it any more.
        if !includes(theirs, first) {
            first.clone_from(theirs);
        }
    }

    /// Whether all that the member had heard of when it first said so is known here.
    pub fn is_heard(&mut self, from: BrickId, ours: &Heads) -> bool {
        if self.ahead.get(&from).is_some_and(|theirs| includes(ours, theirs)) {
            self.ahead.remove(&from);
            self.heard.insert(from);
        }
        self.heard.contains(&from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_core::Incarnation;

    #[test]
    fn a_member_was_heard_when_as_much_as_it_had_heard_is_known() {
        let (peer, one, other) = (BrickId([1; 16]), Incarnation(1), Incarnation(2));
        let mut told = Told::default();
        let mut ours = Heads::from([(one, 5)]);
        assert!(!told.is_heard(peer, &ours));
        told.says(peer, &Heads::new());
        assert!(!told.is_heard(peer, &ours));
        told.says(peer, &Heads::from([(one, 3), (other, 2)]));
        assert!(!told.is_heard(peer, &ours));
        // What it hears later is no matter.
        told.says(peer, &Heads::from([(one, 3), (other, 9)]));
        ours.insert(other, 2);
        assert!(told.is_heard(peer, &ours));
        told.says(peer, &Heads::from([(one, 30)]));
        assert!(told.is_heard(peer, &ours));
    }

    #[test]
    fn what_a_member_has_lost_itself_is_not_waited_for() {
        let (peer, lost, one) = (BrickId([1; 16]), Incarnation(1), Incarnation(2));
        let mut told = Told::default();
        told.says(peer, &Heads::from([(lost, 4), (one, 1)]));
        let ours = Heads::from([(one, 9)]);
        assert!(!told.is_heard(peer, &ours));
        told.says(peer, &Heads::from([(one, 9)]));
        assert!(told.is_heard(peer, &ours));
    }
}
