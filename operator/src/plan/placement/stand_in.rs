//! While a brick's disk is full, another takes what it does not hold yet.
//!
//! Invariants: who stands in is in no rule twice, and can take files; who was chosen stays so, as long as that goes. When the disk has
//! room again nobody stands in, and what went elsewhere comes back, unless the full brick was its home: then it stays at the home that
//! it found.

use std::cmp::Reverse;

use nearbrick_crds::{PlacementRule, StandIn};

use super::Candidate;

/// The rules, with those named who stand in for full bricks. `previous`: the rules before, with those who did then.
pub(super) fn name_stand_ins(
    candidates: &[Candidate],
    rules: Vec<PlacementRule>,
    previous: &[PlacementRule],
) -> Vec<PlacementRule> {
    let name =
        |rule: PlacementRule| PlacementRule { stand_ins: of_rule(candidates, &rule, previous), ..rule };
    rules.into_iter().map(name).collect()
}

fn of_rule(candidates: &[Candidate], rule: &PlacementRule, previous: &[PlacementRule]) -> Vec<StandIn> {
    // Whose files move keeps all that it has until they have moved.
    if rule.joining.is_some() {
        return vec![];
    }
    let before = previous.iter().find(|r| r.creator == rule.creator && r.paths == rule.paths);
    let before = before.map(|r| r.stand_ins.as_slice()).unwrap_or_default();
    let of = |brick: &String| candidates.iter().find(|c| c.brick == *brick);
    let zones: Vec<&str> = rule.bricks.iter().filter_map(of).filter_map(|c| c.zone.as_deref()).collect();
    let mut named: Vec<StandIn> = vec![];
    for full in rule.bricks.iter().filter_map(of).filter(|c| c.full && c.stays()) {
        let can = |c: &&Candidate| {
            c.takes_more() && !rule.bricks.contains(&c.brick) && !named.iter().any(|n| n.brick == c.brick)
        };
        let was = before.iter().find(|s| s.full == full.brick).and_then(|s| of(&s.brick)).filter(can);
        let rank = |c: &&Candidate| {
            let new_zone = c.zone.as_deref().is_some_and(|z| !zones.contains(&z));
            (Reverse(new_zone), Reverse(c.free), c.node.clone())
        };
        if let Some(other) = was.or_else(|| candidates.iter().filter(can).min_by_key(rank)) {
            named.push(StandIn { full: full.brick.clone(), brick: other.brick.clone() });
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::super::tests::{any_candidates, candidate};
    use super::super::{Standing, place_with_moves};
    use super::*;
    use proptest::prelude::*;

    fn said(rules: &[PlacementRule]) -> Vec<String> {
        let of = |r: &PlacementRule| {
            let pairs: Vec<_> = r.stand_ins.iter().map(|s| format!("{} for {}", s.brick, s.full)).collect();
            format!("{}: {}", r.creator, pairs.join(", "))
        };
        rules.iter().filter(|r| !r.stand_ins.is_empty()).map(of).collect()
    }

    #[test]
    fn another_takes_new_files_until_there_is_room_again() {
        let mut c = ["a", "b", "c", "d"].map(candidate);
        let before = place_with_moves(&c, 2, &[], &[], &[]);
        assert_eq!(said(&before), Vec::<String>::new());
        c[1].full = true;
        c[3].free = Some(1 << 40);
        let full = place_with_moves(&c, 2, &[], &before, &[]);
        let bricks = |rules: &[PlacementRule]| rules.iter().map(|r| r.bricks.clone()).collect::<Vec<_>>();
        assert_eq!(bricks(&full), bricks(&before), "what is there stays");
        let of_a = |rules: &[PlacementRule]| said(rules).into_iter().find(|s| s.starts_with("a:"));
        assert_eq!(of_a(&full).as_deref(), Some("a: home.d for home.b"));
        // Who stands in does so until it cannot.
        c[2].free = Some(1 << 50);
        assert_eq!(place_with_moves(&c, 2, &[], &full, &[]), full);
        c[3].online = false;
        let other = place_with_moves(&c, 2, &[], &full, &[]);
        assert_eq!(of_a(&other).as_deref(), Some("a: home.c for home.b"));
        c[2].full = true;
        let none = place_with_moves(&c, 2, &[], &other, &[]);
        assert_eq!(of_a(&none), None, "nobody else has room");
        (c[1].full, c[2].full) = (false, false);
        c[3].online = true;
        assert_eq!(place_with_moves(&c, 2, &[], &none, &[]), before);
    }

    #[test]
    fn another_zone_is_better_than_more_room_and_who_leaves_needs_nobody() {
        let mut c = ["a", "b", "c", "d"].map(candidate);
        let zones = ["x", "y", "x", "z"];
        c.iter_mut().zip(zones).for_each(|(c, zone)| c.zone = Some(zone.into()));
        let before = place_with_moves(&c, 2, &[], &[], &[]);
        assert_eq!(before[0].bricks, ["home.a", "home.b"]);
        (c[1].full, c[2].free) = (true, Some(1 << 40));
        assert_eq!(said(&place_with_moves(&c, 2, &[], &before, &[]))[0], "a: home.d for home.b");
        c[1].standing = Standing::Evicted;
        assert!(said(&place_with_moves(&c, 2, &[], &before, &[])).iter().all(|s| !s.contains("home.b")));
    }

    proptest! {
        #[test]
        fn who_stands_in_has_room_and_is_named_once(
            c in any_candidates(), full in any::<u8>(), replicas in 1..4u32, was in any::<u8>(),
        ) {
            let with = |bits: u8| -> Vec<Candidate> {
                c.iter().enumerate().map(|(i, c)| Candidate { full: bits >> i & 1 == 1, ..c.clone() }).collect()
            };
            let before = place_with_moves(&with(was), replicas, &[], &[], &[]);
            let (c, rules) = (with(full), place_with_moves(&with(full), replicas, &[], &before, &[]));
            for rule in &rules {
                let mut all: Vec<_> = rule.bricks.iter().chain(rule.stand_ins.iter().map(|s| &s.brick)).collect();
                let count = all.len();
                all.sort();
                all.dedup();
                prop_assert_eq!(all.len(), count);
                for pair in &rule.stand_ins {
                    let of = |name: &str| c.iter().find(|c| c.brick == name);
                    prop_assert!(of(&pair.full).is_some_and(|c| c.full) && rule.bricks.contains(&pair.full));
                    prop_assert!(of(&pair.brick).is_some_and(|c| c.online && c.usable && !c.full && c.standing == Standing::Stays));
                }
            }
            prop_assert_eq!(&place_with_moves(&c, replicas, &[], &rules, &[]), &rules);
        }
    }
}
