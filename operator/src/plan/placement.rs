//! Which bricks hold the files of each node: those that are made there from now on, and those that exist.
//!
//! A file belongs to its *home*, the node of the first brick of its replica set; mostly that is where it was made. A node that
//! has left, or is to leave, keeps having rules: they say who holds its files from now on. One of these, the *heir*, is then their
//! home, and the rules are the heir's own, so that the files are moved once.
//!
//! Invariants:
//! - the own brick of a node that stays is the first in each of its rules, and no brick is in a rule twice;
//! - a brick that is to leave is in no rule, unless there would be too few without it: never fewer copies than are asked for,
//!   where there were enough before;
//! - a rule names at most as many bricks as there are, and `replicas` of them where there are enough
//!   that can be used;
//! - a choice that was made stays, as long as its bricks do: placement does not wander with every change of free space, nor because
//!   a brick cannot be used for a while. It is made anew where a brick was chosen by two more nodes than another that is as good, as
//!   when a workstation joins ([`balance`](self::balance));
//! - of a brick whose disk is full, what it does not hold yet goes to another ([`stand_in`](self::stand_in)).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use nearbrick_crds::{Joining, PlacementRule, ReplicaSet};

mod balance;
mod stand_in;

/// Groups that moved, and whose rules are kept, at most. The files of others follow the rules of their home.
const MOST_MOVED: usize = 256;
/// Nodes that are neither members nor have a `Brick`, and whose rules are kept, at most.
const MOST_DEPARTED: usize = 256;

/// Whether a brick is to go on holding files. In this order those that are to leave are kept, where there are too few others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is.
    #[default]
    Stays,
    /// A person asked that nothing has to be there any more.
    Evicted,
    /// Its node is no member any more.
    Removed,
    /// Its workstation has been silent for longer than the volume allows.
    Replaced,
    /// A person said that its workstation will not return.
    Lost,
}

/// A member's brick, or one that was, as far as placement asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// The name of its brick.
    pub brick: String,
    /// Whether it is to go on holding files.
    pub standing: Standing,
    /// Whether it may be chosen anew: not refused by its agent, not being deleted.
    pub usable: bool,
    /// Whether its agent reports at present.
    pub online: bool,
    /// How much of the time it does, of a thousand.
    pub share: u32,
    /// Free bytes of its file system, if known.
    pub free: Option<u64>,
    /// Whether its disk is so full that others are to take new files.
    pub full: bool,
    /// Its failure zone, if labelled.
    pub zone: Option<String>,
}

impl Candidate {
    fn stays(&self) -> bool {
        self.standing == Standing::Stays
    }

    /// Whether it may be given more files now.
    fn takes_more(&self) -> bool {
        self.stays() && self.usable && self.online && !self.full
    }
}

/// A move under way, as far as placement asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// Its name.
    pub name: String,
    /// Globs of its files.
    pub paths: Vec<String>,
    /// Names of the bricks that are to hold them.
    pub bricks: Vec<String>,
    /// How far it is; none: the others give up their copies.
    pub joining: Option<Joining>,
}

/// The rules of all nodes, in the order in which agents try them; with those for groups that move (`moving`, the newest first) or have
/// moved. A rule with paths that a person asked for comes before these, and the rules of homes after them.
pub fn place_with_moves(
    candidates: &[Candidate],
    replicas: u32,
    sets: &[ReplicaSet],
    previous: &[PlacementRule],
    moving: &[Moving],
) -> Vec<PlacementRule> {
    let of_homes: Vec<PlacementRule> = previous.iter().filter(|r| !r.creator.is_empty()).cloned().collect();
    let rules = place(candidates, replicas, sets, &of_homes);
    let moved = moved(candidates, replicas, sets, previous, moving);
    let all = if moved.is_empty() {
        rules
    } else {
        let (named, rest): (Vec<_>, Vec<_>) = rules.into_iter().partition(|r| !r.paths.is_empty());
        named.into_iter().chain(moved).chain(rest).collect()
    };
    stand_in::name_stand_ins(candidates, all, previous)
}

/// The rules of groups that move or have moved.
fn moved(
    candidates: &[Candidate],
    replicas: u32,
    sets: &[ReplicaSet],
    previous: &[PlacementRule],
    moving: &[Moving],
) -> Vec<PlacementRule> {
    let by_node = candidates.iter().map(|c| (c.node.as_str(), c)).collect();
    let mut placing = Placing { by_node, sets, previous, partners: BTreeMap::new() };
    let others = (replicas as usize).saturating_sub(1);
    let now = moving.iter().map(|m| PlacementRule {
        creator: String::new(),
        paths: m.paths.clone(),
        bricks: m.bricks.clone(),
        migration: Some(m.name.clone()),
        joining: m.joining,
        stand_ins: vec![],
    });
    let settled = previous.iter().filter(|r| r.creator.is_empty() && r.joining.is_none());
    let mut rules: Vec<PlacementRule> = vec![];
    for rule in now.chain(settled.cloned()) {
        // The newest word on these paths counts.
        if rules.len() >= MOST_MOVED || rules.iter().any(|r| r.paths == rule.paths && r.joining.is_none()) {
            continue;
        }
        let of = |brick: &String| candidates.iter().find(|c| c.brick == *brick);
        let named: Vec<&Candidate> = rule.bricks.iter().filter_map(of).filter(|c| c.stays()).collect();
        let Some((home, rest)) = named.split_first() else { continue };
        let bricks = if rule.joining.is_some() {
            named.iter().map(|c| c.brick.clone()).collect()
        } else {
            match sets.iter().find(|s| s.paths.is_empty() && s.nodes.contains(&home.node)) {
                Some(set) => placing.of_set(home, set, ""),
                None => {
                    placing.fill(home, rest.iter().take(others).copied().collect(), others, ("", &rule.paths))
                }
            }
        };
        rules.push(PlacementRule { bricks, ..rule });
    }
    rules
}

/// The rules of all nodes, in the order in which agents try them.
pub fn place(
    candidates: &[Candidate],
    replicas: u32,
    sets: &[ReplicaSet],
    previous: &[PlacementRule],
) -> Vec<PlacementRule> {
    let by_node = candidates.iter().map(|c| (c.node.as_str(), c)).collect();
    let others = (replicas as usize).saturating_sub(1);
    let mut placing = Placing { by_node, sets, previous, partners: BTreeMap::new() };
    let mut rules: BTreeMap<&str, Vec<PlacementRule>> = BTreeMap::new();
    let mut of_sets: BTreeMap<(&str, usize), Vec<String>> = BTreeMap::new();
    let stay: Vec<&Candidate> = placing.by_node.values().filter(|c| c.stays()).copied().collect();
    for creator in stay {
        let mut own = vec![];
        let mut catch_all = false;
        for (n, set) in sets.iter().enumerate().filter(|(_, s)| s.nodes.contains(&creator.node)) {
            if is_ruled(&own, set) {
                continue;
            }
            let bricks = placing.of_set(creator, set, &creator.node);
            of_sets.insert((creator.node.as_str(), n), bricks.clone());
            own.push(rule(&creator.node, &set.paths, bricks));
            if set.paths.is_empty() {
                catch_all = true;
                break;
            }
        }
        if !catch_all {
            let bricks = placing.fill(creator, vec![], others, (&creator.node, &[]));
            own.push(rule(&creator.node, &[], bricks));
        }
        rules.insert(creator.node.as_str(), own);
    }
    placing.balance(&mut rules);
    let mut of_departed: BTreeMap<String, Vec<PlacementRule>> = BTreeMap::new();
    let leave = placing.by_node.values().filter(|c| !c.stays()).map(|c| c.node.clone());
    let gone =
        previous.iter().map(|r| &r.creator).filter(|node| !placing.by_node.contains_key(node.as_str()));
    let gone: BTreeSet<String> = gone.cloned().collect();
    for node in leave.collect::<Vec<_>>().into_iter().chain(gone.into_iter().take(MOST_DEPARTED)) {
        let own = placing.of_departed(&node, &rules, &mut of_sets);
        of_departed.insert(node, own);
    }
    let mut all: BTreeMap<&str, Vec<PlacementRule>> = rules;
    all.extend(of_departed.iter().map(|(node, own)| (node.as_str(), own.clone())));
    all.into_values().flatten().collect()
}

/// Whether an earlier entry for the same paths decides about all files of this one.
fn is_ruled(own: &[PlacementRule], set: &ReplicaSet) -> bool {
    own.iter().any(|rule| rule.paths == set.paths)
}

fn rule(creator: &str, paths: &[String], bricks: Vec<String>) -> PlacementRule {
    PlacementRule { creator: creator.to_string(), paths: paths.to_vec(), bricks, ..PlacementRule::default() }
}

/// What counts before balance does.
type Merit = (Reverse<bool>, Reverse<bool>, Reverse<u32>);
type Score = (bool, Merit, usize, Reverse<Option<Option<u32>>>, String);

struct Placing<'a> {
    by_node: BTreeMap<&'a str, &'a Candidate>,
    sets: &'a [ReplicaSet],
    previous: &'a [PlacementRule],
    /// How often a brick was chosen.
    partners: BTreeMap<String, usize>,
}

impl<'a> Placing<'a> {
    /// The bricks of an explicit group, for files of `node`. For its nodes that are to leave there are others.
    fn of_set(&mut self, creator: &'a Candidate, set: &ReplicaSet, node: &str) -> Vec<String> {
        let known: Vec<&Candidate> =
            set.nodes.iter().filter_map(|n| self.by_node.get(n.as_str()).copied()).collect();
        let mut chosen: Vec<&Candidate> = vec![];
        for c in known.iter().copied().filter(|c| c.stays() && c.node != creator.node) {
            if !chosen.iter().any(|x| x.node == c.node) {
                chosen.push(c);
            }
        }
        let wanted = known.iter().filter(|c| c.node != creator.node).count();
        self.fill(creator, chosen, wanted, (node, &set.paths))
    }

    /// The bricks of the previous rule of a node for these paths.
    fn before(&self, node: &str, paths: &[String]) -> Option<&'a [String]> {
        self.previous.iter().find(|r| r.creator == node && r.paths == paths).map(|r| r.bricks.as_slice())
    }

    /// The creator's brick, those chosen already, and others until there are `wanted` of them: those of the previous rule of that
    /// node for those paths first, then the best, then, where there are too few, those of that rule that are to leave.
    fn fill(
        &mut self,
        creator: &'a Candidate,
        mut chosen: Vec<&'a Candidate>,
        wanted: usize,
        (node, paths): (&str, &[String]),
    ) -> Vec<String> {
        let before = self.before(node, paths).unwrap_or_default();
        let named: Vec<&'a Candidate> =
            before.iter().filter_map(|b| self.by_node.values().copied().find(|c| c.brick == *b)).collect();
        let is_new = |chosen: &[&Candidate], c: &Candidate| {
            c.node != creator.node && !chosen.iter().any(|x| x.node == c.node)
        };
        for c in named.iter().copied().filter(|c| c.stays()) {
            if chosen.len() < wanted && is_new(&chosen, c) {
                chosen.push(c);
            }
        }
        while chosen.len() < wanted {
            let left = self.by_node.values().copied();
            let left = left.filter(|c| c.stays() && c.usable && is_new(&chosen, c));
            match left.min_by_key(|c| self.score(creator, &chosen, c)) {
                Some(best) => chosen.push(best),
                None => break,
            }
        }
        let mut leaving: Vec<_> = named.into_iter().filter(|c| !c.stays()).collect();
        leaving.sort_by_key(|c| c.standing);
        for c in leaving {
            if chosen.len() < wanted && is_new(&chosen, c) {
                chosen.push(c);
            }
        }
        for c in &chosen {
            *self.partners.entry(c.node.clone()).or_default() += 1;
        }
        std::iter::once(creator).chain(chosen).map(|c| c.brick.clone()).collect()
    }

    /// The best has the least: one whose disk is not full; what is its [`merit`](Self::merit); few
    /// partners; much free space (in powers of two: small differences do not count); and the name, so that the same input
    /// always gives the same answer.
    fn score(&self, creator: &Candidate, chosen: &[&Candidate], c: &Candidate) -> Score {
        (
            c.full,
            self.merit(creator, chosen, c),
            self.partners.get(&c.node).copied().unwrap_or(0),
            Reverse(c.free.map(|f| f.checked_ilog2())),
            c.node.clone(),
        )
    }

    /// The best has the least: online now; a zone that the set does not have yet; online for much of the time (in quarters).
    fn merit(&self, creator: &Candidate, chosen: &[&Candidate], c: &Candidate) -> Merit {
        let new_zone = c.zone.is_some()
            && std::iter::once(creator)
                .chain(chosen.iter().copied())
                .all(|x| x.zone.is_some() && x.zone != c.zone);
        (Reverse(c.online), Reverse(new_zone), Reverse(c.share.min(999) / 250))
    }

    /// Who holds the files of a node that has left or is to leave: of each group to which it belongs those who stay; and else the heir
    /// with whom the heir's own files are. Where nobody can take them, they stay where they are.
    fn of_departed(
        &mut self,
        node: &str,
        rules: &BTreeMap<&'a str, Vec<PlacementRule>>,
        of_sets: &mut BTreeMap<(&'a str, usize), Vec<String>>,
    ) -> Vec<PlacementRule> {
        let mut own = vec![];
        let sets = self.sets;
        for (n, set) in sets.iter().enumerate().filter(|(_, s)| s.nodes.iter().any(|x| x == node)) {
            if is_ruled(&own, set) {
                continue;
            }
            let staying =
                set.nodes.iter().filter_map(|n| self.by_node.get(n.as_str()).copied()).find(|c| c.stays());
            let Some(heir) = staying else { continue };
            let known = of_sets.get(&(heir.node.as_str(), n)).cloned();
            let bricks = known.unwrap_or_else(|| self.of_set(heir, set, node));
            of_sets.insert((heir.node.as_str(), n), bricks.clone());
            own.push(rule(node, &set.paths, bricks));
            if set.paths.is_empty() {
                return own;
            }
        }
        match self.heir(node).and_then(|heir| rules.get(heir.node.as_str())) {
            Some(heirs) => own.extend(heirs.iter().map(|r| rule(node, &r.paths, r.bricks.clone()))),
            None => {
                own.extend(self.previous.iter().filter(|r| r.creator == node).cloned());
                if let (None, Some(c)) = (own.iter().find(|r| r.paths.is_empty()), self.by_node.get(node)) {
                    own.push(rule(node, &[], vec![c.brick.clone()]));
                }
            }
        }
        own
    }

    /// The heir that was chosen before, or a partner that has the files already, or the best.
    fn heir(&self, node: &str) -> Option<&'a Candidate> {
        let before = self.before(node, &[]).unwrap_or_default();
        let staying = || self.by_node.values().copied().filter(|c| c.stays());
        let partner = before.iter().find_map(|brick| staying().find(|c| c.brick == *brick));
        partner.or_else(|| {
            let leaver = self.by_node.get(node).copied();
            staying().min_by_key(|c| (!c.usable, self.score(leaver.unwrap_or(c), &[], c)))
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn candidate(node: &str) -> Candidate {
        Candidate {
            node: node.into(),
            brick: format!("home.{node}"),
            standing: Standing::Stays,
            usable: true,
            online: true,
            share: 500,
            free: None,
            full: false,
            zone: None,
        }
    }

    pub(super) fn set(nodes: &[&str], paths: &[&str]) -> ReplicaSet {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_string()).collect();
        ReplicaSet { nodes: own(nodes), paths: own(paths) }
    }

    pub(super) fn shown(rules: &[PlacementRule]) -> Vec<String> {
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
            ["a [] home.a home.b", "b [] home.b home.c", "c [] home.c home.a"]
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
    fn who_is_online_for_much_of_the_time_is_chosen_first() {
        let mut c = ["a", "b", "c", "d"].map(candidate);
        c[3].share = 980;
        c[1].share = 200;
        let rules = place(&c, 2, &[], &[]);
        assert_eq!(
            shown(&rules),
            ["a [] home.a home.d", "b [] home.b home.d", "c [] home.c home.d", "d [] home.d home.a"]
        );
        // A choice that was made stays.
        c[3].share = 760;
        assert_eq!(place(&c, 2, &[], &rules), rules);
        // Small differences count for nothing, and another zone for more.
        (c[3].share, c[2].share) = (600, 700);
        assert_eq!(shown(&place(&c, 2, &[], &[]))[0], "a [] home.a home.c");
        c[3].share = 980;
        (c[0].zone, c[1].zone, c[3].zone) = (Some("x".into()), Some("y".into()), Some("x".into()));
        assert_eq!(shown(&place(&c, 2, &[], &[]))[0], "a [] home.a home.b");
    }

    #[test]
    fn a_choice_stays_until_its_brick_cannot_be_used() {
        let mut c = ["a", "b", "c"].map(candidate);
        let first = place(&c, 2, &[], &[]);
        c[2].free = Some(1 << 40);
        (c[1].online, c[1].usable) = (false, false);
        assert_eq!(place(&c, 2, &[], &first), first, "what it holds is there when it can be used again");
        assert_eq!(shown(&place(&c, 2, &[], &[]))[0], "a [] home.a home.c", "but nobody chooses it now");
        c[1].standing = Standing::Lost;
        assert_eq!(shown(&place(&c, 2, &[], &first))[0], "a [] home.a home.c");
    }

    #[test]
    fn more_copies_are_added_to_those_that_are_there_and_fewer_leave_the_first() {
        let c = ["a", "b", "c", "d"].map(candidate);
        let two = place(&c, 2, &[], &[]);
        assert_eq!(
            shown(&two),
            ["a [] home.a home.b", "b [] home.b home.a", "c [] home.c home.d", "d [] home.d home.c"]
        );
        let three = place(&c, 3, &[], &two);
        for (before, after) in two.iter().zip(&three) {
            assert!(after.bricks.starts_with(&before.bricks) && after.bricks.len() == 3, "{after:?}");
        }
        assert_eq!(place(&c, 2, &[], &three), two);
        assert!(place(&c, 1, &[], &two).iter().all(|r| r.bricks.len() == 1));
    }

    #[test]
    fn a_node_that_leaves_has_an_heir_whose_rules_its_files_follow() {
        let mut c = ["a", "b", "c", "d"].map(candidate);
        let before = place(&c, 2, &[], &[]);
        for standing in [Standing::Lost, Standing::Evicted, Standing::Removed, Standing::Replaced] {
            c[1].standing = standing;
            let after = place(&c, 2, &[], &before);
            assert_eq!(
                shown(&after),
                ["a [] home.a home.c", "b [] home.a home.c", "c [] home.c home.d", "d [] home.d home.a"],
                "{standing:?}"
            );
            assert_eq!(place(&c, 2, &[], &after), after);
        }
        // Back again, it keeps those who have its files by now.
        let lost = place(&c, 2, &[], &before);
        c[1].standing = Standing::Stays;
        assert_eq!(shown(&place(&c, 2, &[], &lost))[1], "b [] home.b home.a");
        // Also a node of which nothing is left but its files.
        let without = [c[0].clone(), c[2].clone(), c[3].clone()];
        assert_eq!(place(&without, 2, &[], &lost), lost);
    }

    #[test]
    fn where_there_are_too_few_others_a_brick_that_is_to_leave_stays_in() {
        let mut c = ["a", "b"].map(candidate);
        let before = place(&c, 2, &[], &[]);
        c[1].standing = Standing::Evicted;
        let kept = ["a [] home.a home.b", "b [] home.a home.b"];
        assert_eq!(shown(&place(&c, 2, &[], &before)), kept);
        let more = [c[0].clone(), c[1].clone(), candidate("c")];
        let after = place(&more, 2, &[], &before);
        assert_eq!(shown(&after), ["a [] home.a home.c", "b [] home.a home.c", "c [] home.c home.a"]);
        // Fewer copies are asked for.
        assert_eq!(shown(&place(&c, 1, &[], &before)), ["a [] home.a", "b [] home.a"]);
        // Nobody is left who could take them.
        c[0].standing = Standing::Lost;
        assert_eq!(place(&c, 2, &[], &before), before);
    }

    #[test]
    fn who_leaves_a_group_is_replaced_by_another() {
        let mut c = ["a", "b", "hub", "c"].map(candidate);
        let sets = [set(&["a", "hub"], &["work/**"]), set(&["b", "hub"], &[])];
        let before = place(&c, 2, &sets, &[]);
        c[2].standing = Standing::Lost;
        let after = place(&c, 2, &sets, &before);
        let of = |node: &str| -> Vec<String> {
            shown(&after).into_iter().filter(|r| r.starts_with(&format!("{node} "))).collect()
        };
        assert_eq!(of("a")[0], "a [work/**] home.a home.b");
        assert_eq!(of("b"), ["b [] home.b home.a"]);
        assert_eq!(of("hub"), ["hub [work/**] home.a home.b", "hub [] home.b home.a"]);
        assert_eq!(place(&c, 2, &sets, &after), after);
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

    pub(super) fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let standing = prop_oneof![
            6 => Just(Standing::Stays), 1 => Just(Standing::Evicted), 1 => Just(Standing::Removed),
            1 => Just(Standing::Replaced), 1 => Just(Standing::Lost),
        ];
        proptest::collection::vec(
            (standing, any::<bool>(), any::<bool>(), any::<Option<u32>>(), 0..3u8, 0..=1000u32),
            0..8,
        )
        .prop_map(|list| {
            list.into_iter()
                .enumerate()
                .map(|(i, (standing, usable, online, free, zone, share))| Candidate {
                    standing,
                    usable,
                    online,
                    share,
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
        fn rules_hold_what_they_promise(
            c in any_candidates(), sets in any_sets(), replicas in 1..5u32, before in 1..5u32, was in any_candidates(),
        ) {
            // What was chosen before, when all of them stayed, or when others did.
            let all_stay: Vec<_> = c.iter().map(|c| Candidate { standing: Standing::Stays, ..c.clone() }).collect();
            for previous in [vec![], place(&all_stay, before, &sets, &[]), place(&was, before, &sets, &[])] {
                let rules = place(&c, replicas, &sets, &previous);
                for member in &c {
                    let own: Vec<_> = rules.iter().filter(|r| r.creator == member.node).collect();
                    // Every path has a rule, and the last one takes all paths.
                    prop_assert!(own.last().is_some_and(|r| r.paths.is_empty()));
                    for r in own {
                        let unique: BTreeSet<_> = r.bricks.iter().collect();
                        prop_assert_eq!(unique.len(), r.bricks.len());
                        if member.stays() {
                            prop_assert_eq!(&r.bricks[0], &member.brick);
                            prop_assert!(r.bricks.iter().all(|b| c.iter().any(|x| &x.brick == b)));
                        } else if c.iter().any(Candidate::stays) {
                            // Its files have a home that stays, and are where that one's rules want them in the end.
                            let heir = c.iter().find(|x| x.brick == r.bricks[0]);
                            prop_assert!(heir.is_some_and(Candidate::stays));
                        }
                        for brick in &r.bricks[1..] {
                            let x = c.iter().find(|x| &x.brick == brick);
                            if x.is_some_and(|x| !x.stays()) {
                                // Only because nobody else is there.
                                let better = |y: &&Candidate| y.stays() && y.usable && !r.bricks.contains(&y.brick);
                                prop_assert!(c.iter().find(better).is_none());
                            }
                        }
                    }
                    let chosen_freely = !sets.iter().any(|s| s.paths.is_empty() && s.nodes.contains(&member.node));
                    if chosen_freely && member.stays() {
                        let usable = c.iter().filter(|x| x.usable && x.stays() && x.node != member.node).count();
                        let last = rules.iter().rfind(|r| r.creator == member.node);
                        let chosen = last.map_or(0, |r| r.bricks.len());
                        prop_assert!(chosen > usable.min(replicas as usize - 1) && chosen <= replicas as usize);
                    }
                }
                // The same input gives the same answer, and its own answer is a fixed point.
                prop_assert_eq!(&place(&c, replicas, &sets, &previous), &rules);
                prop_assert_eq!(&place(&c, replicas, &sets, &rules), &rules);
            }
        }

        #[test]
        fn no_copy_fewer_than_before_where_that_is_what_is_asked_for(c in any_candidates(), replicas in 1..5u32) {
            let all_stay: Vec<_> = c.iter().map(|c| Candidate { standing: Standing::Stays, ..c.clone() }).collect();
            let before = place(&all_stay, replicas, &[], &[]);
            let after = place(&c, replicas, &[], &before);
            for rule in &before {
                let now = after.iter().find(|r| r.creator == rule.creator);
                let stays = c.iter().any(|x| x.node == rule.creator && x.stays());
                let least = if stays { rule.bricks.len() } else { 1 };
                prop_assert!(now.is_some_and(|r| r.bricks.len() >= least));
            }
        }
    }
}
