//! Copies are spread evenly over the members: a workstation that joins takes its share of them.

use std::collections::BTreeMap;

use nearbrick_crds::PlacementRule;

use super::{Candidate, Placing};

/// One change: at this node the one brick gives way to the other.
struct Swap<'a> {
    creator: &'a str,
    /// Where in the rule it is.
    at: usize,
    from: &'a Candidate,
    to: &'a Candidate,
}

impl<'a> Placing<'a> {
    /// Where one brick was chosen by two more nodes than another that is online, not full, and no worse for its place (its zone, how
    /// much of the time it is online), one of these nodes chooses the other. Rules that a person asked for stay. Each step makes the
    /// sum of the squares of these numbers less, so it ends, and what it made it does not undo.
    pub(super) fn balance(&mut self, rules: &mut BTreeMap<&'a str, Vec<PlacementRule>>) {
        while let Some(Swap { creator, at, from, to }) = self.next_swap(rules) {
            let own = rules.get_mut(creator).and_then(|own| own.iter_mut().find(|r| r.paths.is_empty()));
            let Some(brick) = own.and_then(|rule| rule.bricks.get_mut(at)) else { return };
            *brick = to.brick.clone();
            *self.partners.entry(to.node.clone()).or_default() += 1;
            if let Some(count) = self.partners.get_mut(&from.node) {
                *count = count.saturating_sub(1);
            }
        }
    }

    fn count(&self, c: &Candidate) -> usize {
        self.partners.get(&c.node).copied().unwrap_or(0)
    }

    /// From the brick that most have chosen to the one that fewest have.
    fn next_swap(&self, rules: &BTreeMap<&'a str, Vec<PlacementRule>>) -> Option<Swap<'a>> {
        let chosen_freely =
            |node: &str| !self.sets.iter().any(|s| s.paths.is_empty() && s.nodes.iter().any(|n| n == node));
        let mut takers: Vec<&'a Candidate> =
            self.by_node.values().copied().filter(|c| c.takes_more()).collect();
        takers.sort_by_key(|c| self.count(c));
        let mut best: Option<(usize, Swap<'a>)> = None;
        for (creator, own) in rules.iter().filter(|(creator, _)| chosen_freely(creator)) {
            let Some(rule) = own.iter().find(|r| r.paths.is_empty()) else { continue };
            let set: Vec<&'a Candidate> = rule
                .bricks
                .iter()
                .filter_map(|b| self.by_node.values().copied().find(|c| c.brick == *b))
                .collect();
            let Some(home) = set.first().copied().filter(|_| set.len() == rule.bricks.len()) else {
                continue;
            };
            for (at, from) in set.iter().copied().enumerate().skip(1) {
                let others: Vec<&Candidate> =
                    set[1..].iter().copied().filter(|c| c.node != from.node).collect();
                let rest = self.merit(home, &others, from);
                let to = takers
                    .iter()
                    .copied()
                    .find(|c| !rule.bricks.contains(&c.brick) && self.merit(home, &others, c) <= rest);
                let Some(to) = to else { continue };
                let gain = self.count(from).saturating_sub(self.count(to));
                if gain >= 2 && best.as_ref().is_none_or(|(most, _)| gain > *most) {
                    best = Some((gain, Swap { creator, at, from, to }));
                }
            }
        }
        best.map(|(_, swap)| swap)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{any_candidates, candidate, set, shown};
    use super::super::{Standing, place};
    use super::*;
    use proptest::prelude::*;

    fn chosen(rules: &[PlacementRule]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for brick in rules.iter().flat_map(|r| &r.bricks[1..]) {
            *counts.entry(brick.clone()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn a_workstation_that_joins_takes_its_share() {
        let four = ["a", "b", "c", "d"].map(candidate);
        let three = place(&four[..3], 2, &[], &[]);
        assert_eq!(shown(&three), ["a [] home.a home.b", "b [] home.b home.c", "c [] home.c home.a"]);
        let rules = place(&four, 2, &[], &three);
        // It has a partner, and nobody chose any brick twice: nothing to do for the others but that.
        assert!(chosen(&rules).values().all(|n| *n <= 2), "{rules:?}");
        // With more copies there are more to share.
        let before = place(&four[..3], 3, &[], &[]);
        let after = place(&four, 3, &[], &before);
        assert_eq!(chosen(&after)["home.d"], 2, "{:?}", shown(&after));
        assert_eq!(place(&four, 3, &[], &after), after);
    }

    #[test]
    fn who_is_away_full_or_less_often_online_takes_none_and_explicit_sets_stay() {
        let mut four = ["a", "b", "c", "d"].map(candidate);
        let before = place(&four[..3], 3, &[], &[]);
        for change in [
            |c: &mut Candidate| c.online = false,
            |c: &mut Candidate| c.full = true,
            |c: &mut Candidate| c.share = 100,
            |c: &mut Candidate| c.usable = false,
            |c: &mut Candidate| c.standing = Standing::Evicted,
        ] {
            four[3] = candidate("d");
            change(&mut four[3]);
            let after = place(&four, 3, &[], &before);
            assert_eq!(chosen(&after).get("home.d"), None, "{:?}", shown(&after));
        }
        four[3] = candidate("d");
        let hub = [set(&["a", "hub"], &[]), set(&["b", "hub"], &[]), set(&["c", "hub"], &[])];
        let with_hub = [four[0].clone(), four[1].clone(), four[2].clone(), candidate("hub"), four[3].clone()];
        let rules = shown(&place(&with_hub, 2, &hub, &[]));
        assert!(rules[..3].iter().all(|r| r.ends_with("home.hub")), "{rules:?}");
    }

    proptest! {
        #[test]
        fn nobody_is_chosen_by_two_more_than_one_who_is_as_good(n in 2..9usize, replicas in 2..4u32, joined in 1..4usize) {
            let all: Vec<_> = (0..n + joined).map(|i| candidate(&format!("n{i}"))).collect();
            let before = place(&all[..n], replicas, &[], &[]);
            let after = place(&all, replicas, &[], &before);
            let counts = chosen(&after);
            let of = |c: &Candidate| counts.get(&c.brick).copied().unwrap_or(0);
            for rule in &after {
                for from in &rule.bricks[1..] {
                    for to in all.iter().filter(|c| !rule.bricks.contains(&c.brick)) {
                        prop_assert!(counts[from] < of(to) + 2, "{:?}", shown(&after));
                    }
                }
            }
            // Nothing more moves than that takes: what is not given up stays where it was.
            let moved = before.iter().zip(after.iter().filter(|r| before.iter().any(|b| b.creator == r.creator)));
            let moved: usize = moved.map(|(b, a)| a.bricks.iter().filter(|x| !b.bricks.contains(x)).count()).sum();
            let taken: usize = all[n..].iter().map(of).sum();
            prop_assert!(moved <= taken.max(joined), "{} moved: {:?} {:?}", moved, shown(&before), shown(&after));
        }

        #[test]
        fn it_ends_whoever_is_there(c in any_candidates(), replicas in 1..5u32) {
            let rules = place(&c, replicas, &[], &[]);
            prop_assert_eq!(place(&c, replicas, &[], &rules), rules);
        }
    }
}
