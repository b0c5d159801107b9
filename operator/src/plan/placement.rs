//! Which bricks hold a file that is newly created on a node.
//!
//! Invariants:
//! - the creator's own brick is in each of its rules, and no brick is in a rule twice;
//! - a rule names at most as many bricks as there are, and `replicas` of them where there are enough
//!   that can be used;
//! - a choice that was made stays, as long as its bricks can be used: placement does not wander with
//!   every change of free space.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use nearbrick_crds::{PlacementRule, ReplicaSet};

/// A member's brick, as far as placement asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The member.
    pub node: String,
    /// The name of its brick.
    pub brick: String,
    /// Whether new files may be placed there: not lost, not refused, not being deleted.
    pub usable: bool,
    /// Whether its agent reports at present.
    pub online: bool,
    /// Free bytes of its file system, if known.
    pub free: Option<u64>,
    /// Its failure zone, if labelled.
    pub zone: Option<String>,
}

/// The rules of all members, in the order in which agents try them.
pub fn place(
    candidates: &[Candidate],
    replicas: u32,
    sets: &[ReplicaSet],
    previous: &[PlacementRule],
) -> Vec<PlacementRule> {
    let by_node: BTreeMap<&str, &Candidate> = candidates.iter().map(|c| (c.node.as_str(), c)).collect();
    let mut partners: BTreeMap<&str, usize> = BTreeMap::new();
    let mut rules = vec![];
    for creator in by_node.values() {
        let mut catch_all = false;
        for set in sets.iter().filter(|s| s.nodes.contains(&creator.node)) {
            let others = set.nodes.iter().filter_map(|n| by_node.get(n.as_str())).map(|c| c.brick.as_str());
            rules.push(rule(creator, &set.paths, others));
            if set.paths.is_empty() {
                catch_all = true;
                break;
            }
        }
        if !catch_all {
            let chosen = best_others(creator, &by_node, replicas, previous, &partners);
            for c in &chosen {
                *partners.entry(c.node.as_str()).or_default() += 1;
            }
            rules.push(rule(creator, &[], chosen.iter().map(|c| c.brick.as_str())));
        }
    }
    rules
}

/// The creator's brick first, then the others, each once.
fn rule<'a>(
    creator: &'a Candidate,
    paths: &[String],
    others: impl Iterator<Item = &'a str>,
) -> PlacementRule {
    let mut seen = BTreeSet::new();
    let bricks = std::iter::once(creator.brick.as_str())
        .chain(others)
        .filter(|b| seen.insert(*b))
        .map(str::to_string)
        .collect();
    PlacementRule { creator: creator.node.clone(), paths: paths.to_vec(), bricks }
}

/// The creator's partners: those of the previous rule that can still be used, then the best others.
///
/// The scores, in their order: online now; a zone that the set does not have yet; few partners; much
/// free space (in powers of two, so that small differences do not count); and the name, so that the
/// same input always gives the same answer.
fn best_others<'a>(
    creator: &'a Candidate,
    by_node: &BTreeMap<&'a str, &'a Candidate>,
    replicas: u32,
    previous: &[PlacementRule],
    partners: &BTreeMap<&str, usize>,
) -> Vec<&'a Candidate> {
    let wanted = (replicas as usize).saturating_sub(1);
    let mut left: Vec<&Candidate> =
        by_node.values().filter(|c| c.node != creator.node && c.usable).copied().collect();
    let mut chosen: Vec<&Candidate> = vec![];
    let before = previous.iter().find(|r| r.creator == creator.node && r.paths.is_empty());
    for brick in before.map(|r| r.bricks.as_slice()).unwrap_or_default() {
        if chosen.len() < wanted
            && let Some(at) = left.iter().position(|c| &c.brick == brick)
        {
            chosen.push(left.remove(at));
        }
    }
    while chosen.len() < wanted && !left.is_empty() {
        let score = |c: &Candidate| {
            let new_zone = c.zone.is_some()
                && std::iter::once(&creator).chain(&chosen).all(|x| x.zone.is_some() && x.zone != c.zone);
            (
                Reverse(c.online),
                Reverse(new_zone),
                partners.get(c.node.as_str()).copied().unwrap_or(0),
                Reverse(c.free.map(|f| f.checked_ilog2())),
                c.node.clone(),
            )
        };
        let at = (0..left.len()).min_by_key(|i| score(left[*i]));
        match at {
            Some(at) => chosen.push(left.remove(at)),
            None => break,
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(node: &str) -> Candidate {
        Candidate {
            node: node.into(),
            brick: format!("home.{node}"),
            usable: true,
            online: true,
            free: None,
            zone: None,
        }
    }

    fn set(nodes: &[&str], paths: &[&str]) -> ReplicaSet {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_string()).collect();
        ReplicaSet { nodes: own(nodes), paths: own(paths) }
    }

    fn shown(rules: &[PlacementRule]) -> Vec<String> {
        rules
            .iter()
            .map(|r| format!("{} [{}] {}", r.creator, r.paths.join(" "), r.bricks.join(" ")))
            .collect()
    }

    #[test]
    fn creating_node_and_another() {
        let c = ["a", "b", "c"].map(candidate);
        assert_eq!(
            shown(&place(&c, 2, &[], &[])),
            ["a [] home.a home.b", "b [] home.b home.a", "c [] home.c home.a"]
        );
    }

    #[test]
    fn explicit_sets_come_first_and_a_set_without_paths_ends_the_list() {
        let c = ["a", "b", "c"].map(candidate);
        let sets = [set(&["c", "b"], &["src/**"]), set(&["b", "a"], &[]), set(&["a", "c"], &["never/**"])];
        assert_eq!(
            shown(&place(&c, 2, &sets, &[])),
            [
                "a [] home.a home.b",
                "b [src/**] home.b home.c",
                "b [] home.b home.a",
                "c [src/**] home.c home.b",
                "c [never/**] home.c home.a",
                "c [] home.c home.a",
            ]
        );
    }

    #[test]
    fn a_choice_stays_until_its_brick_cannot_be_used() {
        let mut c = ["a", "b", "c"].map(candidate);
        let first = place(&c, 2, &[], &[]);
        c[2].free = Some(1 << 40);
        c[1].online = false;
        assert_eq!(place(&c, 2, &[], &first), first);
        c[1].usable = false;
        assert_eq!(shown(&place(&c, 2, &[], &first))[0], "a [] home.a home.c");
    }

    #[test]
    fn another_zone_is_better_than_free_space() {
        let mut c = ["a", "b", "c"].map(candidate);
        for (i, zone) in ["x", "x", "y"].into_iter().enumerate() {
            c[i].zone = Some(zone.into());
        }
        c[1].free = Some(1 << 40);
        c[2].free = Some(1 << 20);
        assert_eq!(shown(&place(&c, 2, &[], &[]))[0], "a [] home.a home.c");
    }

    fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
        proptest::collection::vec((any::<bool>(), any::<bool>(), any::<Option<u32>>(), 0..3u8), 0..8)
            .prop_map(|list| {
                list.into_iter()
                    .enumerate()
                    .map(|(i, (usable, online, free, zone))| Candidate {
                        usable,
                        online,
                        free: free.map(u64::from),
                        zone: (zone > 0).then(|| format!("z{zone}")),
                        ..candidate(&format!("n{i}"))
                    })
                    .collect()
            })
    }

    fn any_sets() -> impl Strategy<Value = Vec<ReplicaSet>> {
        let nodes = proptest::collection::btree_set((0..8u8).prop_map(|i| format!("n{i}")), 1..4);
        let paths = proptest::collection::vec("[a-z]{1,3}", 0..2);
        proptest::collection::vec((nodes, paths), 0..4).prop_map(|sets| {
            sets.into_iter()
                .map(|(nodes, paths)| ReplicaSet { nodes: nodes.into_iter().collect(), paths })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn rules_hold_what_they_promise(c in any_candidates(), sets in any_sets(), replicas in 1..5u32) {
            let rules = place(&c, replicas, &sets, &[]);
            for member in &c {
                let own: Vec<_> = rules.iter().filter(|r| r.creator == member.node).collect();
                // Every path has a rule, and the last one takes all paths.
                prop_assert!(own.last().is_some_and(|r| r.paths.is_empty()));
                prop_assert_eq!(own.iter().filter(|r| r.paths.is_empty()).count(), 1);
                for r in own {
                    prop_assert_eq!(&r.bricks[0], &member.brick);
                    let unique: BTreeSet<_> = r.bricks.iter().collect();
                    prop_assert_eq!(unique.len(), r.bricks.len());
                    prop_assert!(r.bricks.iter().all(|b| c.iter().any(|x| &x.brick == b)));
                }
                let chosen_freely = !sets.iter().any(|s| s.paths.is_empty() && s.nodes.contains(&member.node));
                if chosen_freely {
                    let usable = c.iter().filter(|x| x.usable && x.node != member.node).count();
                    let last = rules.iter().rfind(|r| r.creator == member.node);
                    prop_assert_eq!(last.map(|r| r.bricks.len()), Some(1 + usable.min(replicas as usize - 1)));
                }
            }
            // The same input gives the same answer, and its own answer is a fixed point.
            prop_assert_eq!(&place(&c, replicas, &sets, &[]), &rules);
            prop_assert_eq!(&place(&c, replicas, &sets, &rules), &rules);
        }
    }
}
