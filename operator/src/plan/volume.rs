//! What the status of a volume says, from what its bricks and workstations report.
//!
//! Invariants:
//! - `True` is only said of what every member's agent reports at present; the last good word of a
//!   silent agent becomes `Unknown`;
//! - the last bad word of a silent agent still counts in the numbers: nobody has said that it is over.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nearbrick_crds::condition::{self, Finding, Status};
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{BrickState, VolumeHealth, VolumePhase};

use super::members::Problem;
use super::pending::{self, Counts, Target};
use super::placed;
use super::release::volume_ends;
use super::verified::{self, Looked};

/// A member, as far as the status asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberView {
    /// Its node.
    pub node: String,
    /// Its brick.
    pub brick: String,
    /// What its agent last said of the brick, if ever.
    pub state: Option<BrickState>,
    /// Why.
    pub message: Option<String>,
    /// Since when its agent has been silent, if it is.
    pub silent_since: Option<Timestamp>,
    /// Whether a person said that it will not return.
    pub lost: bool,
    /// Files in the tree, as this brick counts them.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Open conflicts.
    pub conflicts: Option<u64>,
    /// Identifies what it knows of the volume; none while that changes.
    pub tree_sum: Option<String>,
    /// What it found when it last looked through all that it holds.
    pub looked: Looked,
}

impl MemberView {
    pub(super) fn silent(&self) -> bool {
        self.silent_since.is_some() || self.lost
    }

    /// Whether what it holds and lacks is known at present: a brick that its agent does not use, or has
    /// not opened yet, says nothing.
    fn reports(&self) -> bool {
        self.state.is_some() && self.files.is_some() && !self.silent()
    }
}

/// What the status rests on.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Whether the volume is being deleted.
    pub terminating: bool,
    /// What a person must correct in the spec.
    pub problems: &'a [Problem],
    /// All members that have or should have a brick.
    pub members: &'a [MemberView],
    /// What each brick lacks.
    pub targets: &'a BTreeMap<String, Target>,
    /// Whether a heal job runs.
    pub healing: bool,
    /// Fields of the spec that are set and not acted on.
    pub unacted: &'a [&'static str],
    /// What each brick, also of former members, says of the placement.
    pub placed: &'a [placed::View],
    /// Identifies the placement, if there is one.
    pub placement: Option<&'a str>,
    /// Bricks whose disks are full, and who takes what they do not hold yet.
    pub full: &'a [(String, Vec<String>)],
    /// Of a volume that is deleted with its files: the bricks that are left, and whether their agents report.
    pub ends: Option<&'a Vec<(String, bool)>>,
    /// The time.
    pub now: Timestamp,
}

/// What the status says; conditions without their times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// See there.
    pub phase: VolumePhase,
    /// See there.
    pub health: VolumeHealth,
    /// Files in the tree, if anybody reports.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Copies that are still to be made, if anybody has ever reported.
    pub pending: Option<Counts>,
    /// Open conflicts.
    pub conflicts: Option<u64>,
    /// Since when all bytes are known to be right, at the latest.
    pub last_verified: Option<Timestamp>,
    /// Ready, Protected, Placed, Converged, ConflictFree, Verified, SpaceLeft, SpecActedOn; Released of one that is deleted with its files.
    pub findings: Vec<Finding>,
}

/// Sums up.
pub fn summarise(input: &Input) -> Summary {
    let all = pending::total(input.targets);
    let fresh = pending::fresh_total(input.targets);
    let heard = input.members.iter().any(|m| m.state.is_some());
    let conflicts = input.members.iter().filter_map(|m| m.conflicts).max();
    let broken =
        |m: &&MemberView| !m.silent() && matches!(m.state, Some(BrickState::Refused | BrickState::Degraded));
    // One that will not return has nothing more to say; what others lack and only it has is still counted by them.
    let expected = || input.members.iter().filter(|m| !m.lost);
    let complete = expected().next().is_some() && expected().all(MemberView::reports);

    let phase = if input.terminating {
        VolumePhase::Terminating
    } else if !input.problems.is_empty() {
        VolumePhase::Invalid
    } else if input.members.iter().any(|m| matches!(m.state, None | Some(BrickState::Starting))) {
        VolumePhase::Pending
    } else {
        VolumePhase::Ready
    };
    let health = if input.members.iter().any(|m| broken(&m)) {
        VolumeHealth::Degraded
    } else if input.healing && all.files > 0 {
        VolumeHealth::Healing
    } else if fresh.files > 0 {
        VolumeHealth::Pending
    } else if !complete || all.files > 0 {
        VolumeHealth::Unknown
    } else if conflicts.is_some_and(|c| c > 0) {
        VolumeHealth::Conflicted
    } else {
        VolumeHealth::Protected
    };
    // The tree as the best informed brick counts it; one that reports knows better than one that is silent.
    let best = |count: fn(&MemberView) -> Option<u64>| {
        let of = |reporting: bool| {
            input.members.iter().filter(|m| m.reports() == reporting).filter_map(count).max()
        };
        of(true).or_else(|| of(false))
    };
    Summary {
        phase,
        health,
        files: best(|m| m.files),
        bytes: best(|m| m.bytes),
        pending: heard.then_some(all),
        conflicts,
        last_verified: verified::oldest(input.members),
        findings: [
            ready(input),
            protected(input, all, fresh, complete),
            placed::placed(input.placed, input.placement),
            converged(input.members, complete),
            conflict_free(input, conflicts, complete),
            verified::finding(input.members, complete, input.now),
            space_left(input.full),
            unacted_finding(input.unacted),
        ]
        .into_iter()
        .chain(input.ends.map(|left| volume_ends(left)))
        .collect(),
    }
}

fn ready(input: &Input) -> Finding {
    let finding = |status, reason, message: String| Finding::new(condition::READY, status, reason, message);
    if let [first, ..] = input.problems {
        let lines: Vec<String> = input.problems.iter().map(ToString::to_string).collect();
        return finding(Status::False, first.reason(), lines.join("; "));
    }
    let said = |m: &MemberView| match &m.message {
        Some(text) => format!("{}: {text}", m.brick),
        None => m.brick.clone(),
    };
    let in_state = |state: BrickState| {
        input
            .members
            .iter()
            .filter(move |m| !m.silent() && m.state == Some(state))
            .map(said)
            .collect::<Vec<_>>()
    };
    let refused = in_state(BrickState::Refused);
    if !refused.is_empty() {
        return finding(Status::False, "BrickRefused", refused.join("; "));
    }
    let degraded = in_state(BrickState::Degraded);
    if !degraded.is_empty() {
        return finding(Status::False, "BrickDegraded", degraded.join("; "));
    }
    let starting = in_state(BrickState::Starting);
    if !starting.is_empty() {
        return finding(Status::False, "BrickStarting", starting.join("; "));
    }
    if let Some(line) = silence(input.members) {
        return finding(Status::Unknown, line.0, line.1);
    }
    let never: Vec<&str> =
        input.members.iter().filter(|m| m.state.is_none()).map(|m| m.node.as_str()).collect();
    if !never.is_empty() {
        let line = format!("no report from {} yet: is the brick-agent running there?", never.join(", "));
        return finding(Status::Unknown, "NeverReported", line);
    }
    let count = input.members.len();
    finding(Status::True, "AllBricksReady", format!("{count} bricks are in use"))
}

/// Who is silent, as a reason and a line.
fn silence(members: &[MemberView]) -> Option<(&'static str, String)> {
    let lost: Vec<&str> = members.iter().filter(|m| m.lost).map(|m| m.node.as_str()).collect();
    let silent: Vec<String> = members
        .iter()
        .filter(|m| !m.lost && m.state.is_some())
        .filter_map(|m| m.silent_since.map(|at| format!("{} since {}", m.node, to_second(at))))
        .collect();
    match (silent.is_empty(), lost.is_empty()) {
        (false, _) => Some((
            "AgentSilent",
            format!("no report from {}: switch it on, or see its brick-agent's log", silent.join(", ")),
        )),
        (true, false) => Some(("WorkstationLost", format!("{} is marked lost", lost.join(", ")))),
        (true, true) => None,
    }
}

/// Why not everything is known, as a reason and a line.
pub(super) fn unknown(members: &[MemberView]) -> (&'static str, String) {
    silence(members).unwrap_or_else(|| {
        let closed = |m: &&MemberView| m.state.is_some() && m.files.is_none();
        let closed: Vec<&str> = members.iter().filter(closed).map(|m| m.brick.as_str()).collect();
        if closed.is_empty() {
            ("NeverReported", "not every brick has reported yet: what it holds is not known".to_string())
        } else {
            ("BrickNotOpen", format!("what {} holds is not known: it is not open", closed.join(", ")))
        }
    })
}

/// A time as messages have it.
pub(super) fn to_second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn protected(input: &Input, all: Counts, fresh: Counts, complete: bool) -> Finding {
    let finding =
        |status, reason, message: String| Finding::new(condition::PROTECTED, status, reason, message);
    if fresh.files > 0 {
        let list: Vec<String> = input
            .targets
            .iter()
            .filter(|(_, t)| t.fresh.files > 0)
            .map(|(brick, t)| {
                format!("{brick} lacks {} ({})", human_files(t.fresh.files), human_bytes(t.fresh.bytes))
            })
            .collect();
        return finding(Status::False, "Pending", top(&list));
    }
    if !complete {
        let (reason, mut line) = unknown(input.members);
        if all.files > 0 {
            line.push_str(&format!("; by the last reports {} are still to be made", copies(all.files)));
        }
        return finding(Status::Unknown, reason, line);
    }
    if all.files > 0 {
        // All agents report, so this can only come from the brick of a node that is lost, or no member now.
        let line = format!("{} are still to be made by the last reports", copies(all.files));
        return finding(Status::Unknown, "AgentSilent", line);
    }
    finding(
        Status::True,
        "NothingPending",
        "every replica set holds the newest data of its files".to_string(),
    )
}

fn copies(n: u64) -> String {
    if n == 1 { "1 copy".to_string() } else { format!("{n} copies") }
}

/// The first ten of a list, and how many more there are.
pub(super) fn top(list: &[String]) -> String {
    match list.len().checked_sub(10) {
        Some(more) if more > 0 => format!("{}; and {more} more", list[..10].join("; ")),
        _ => list.join("; "),
    }
}

/// Whether all members know the same of all names, versions and attributes. A silent one is not known to.
fn converged(members: &[MemberView], complete: bool) -> Finding {
    let finding = |status, reason, line: String| Finding::new(condition::CONVERGED, status, reason, line);
    let mut by_sum: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for m in members.iter().filter(|m| m.reports()) {
        by_sum.entry(m.tree_sum.as_deref()).or_default().push(&m.brick);
    }
    if let Some(changing) = by_sum.get(&None) {
        let line = format!("news is under way: what {} knows is changing", changing.join(", "));
        return finding(Status::False, "Exchanging", line);
    }
    if by_sum.len() > 1 {
        let most = by_sum.values().map(Vec::len).max();
        let others: Vec<&str> =
            by_sum.values().filter(|list| Some(list.len()) != most).flatten().copied().collect();
        let line = match others.as_slice() {
            [] => "the members do not all know the same: can they reach each other?".to_string(),
            others => format!(
                "{} does not know the same as the others: can its agent reach theirs?",
                others.join(", ")
            ),
        };
        return finding(Status::False, "Apart", line);
    }
    if !complete {
        let (reason, line) = unknown(members);
        return finding(Status::Unknown, reason, line);
    }
    finding(
        Status::True,
        "AllHeard",
        "every member knows the same of all names, versions and attributes".to_string(),
    )
}

fn conflict_free(input: &Input, conflicts: Option<u64>, complete: bool) -> Finding {
    let finding =
        |status, reason, message: String| Finding::new(condition::CONFLICT_FREE, status, reason, message);
    match conflicts {
        Some(n) if n > 0 => finding(
            Status::False,
            "ConflictsOpen",
            format!(
                "{n} open: `kubectl get wfc` lists them; choose there, or in the tree: keep what is right, delete the other"
            ),
        ),
        _ if !complete => {
            let (reason, line) = unknown(input.members);
            finding(Status::Unknown, reason, line)
        }
        None => finding(Status::Unknown, "NotReported", "no brick has reported a count".to_string()),
        Some(_) => finding(Status::True, "NoConflicts", "no conflict is open".to_string()),
    }
}

fn space_left(full: &[(String, Vec<String>)]) -> Finding {
    let of = |(brick, others): &(String, Vec<String>)| match others.as_slice() {
        [] => format!("{brick} (no other member has room: what it is to hold waits)"),
        others => format!("{brick} (new files go to {})", others.join(", ")),
    };
    if full.is_empty() {
        let line = "the disk of every brick has room for more files";
        return Finding::new(condition::SPACE_LEFT, Status::True, "Enough", line);
    }
    let list: Vec<String> = full.iter().map(of).collect();
    let line = format!("the disk is full of {}: make room there", top(&list));
    Finding::new(condition::SPACE_LEFT, Status::False, "DisksFull", line)
}

/// The condition `SpecActedOn` of any kind.
pub fn unacted_finding(unacted: &[&'static str]) -> Finding {
    if unacted.is_empty() {
        let line = "every field that is set is acted on";
        return Finding::new(condition::SPEC_ACTED_ON, Status::True, "AllFieldsActedOn", line);
    }
    let line = format!("set, and not acted on yet by this version: {}", unacted.join(", "));
    Finding::new(condition::SPEC_ACTED_ON, Status::False, "FieldsNotActedOnYet", line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn member(node: &str) -> MemberView {
        MemberView {
            node: node.into(),
            brick: format!("v.{node}"),
            state: Some(BrickState::Ready),
            files: Some(10),
            bytes: Some(1000),
            conflicts: Some(0),
            looked: Looked { ended: Some(at(500)), holds_until: Some(at(2000)), unrepaired: Some(0) },
            ..MemberView::default()
        }
    }

    fn lacks(fresh: u64, all: u64) -> Target {
        let c = |files| Counts { files, bytes: files * 1024, ..Counts::default() };
        Target { all: c(all), fresh: c(fresh), has_source: true }
    }

    fn sum_up(members: &[MemberView], targets: &[(&str, Target)], healing: bool) -> Summary {
        let targets = targets.iter().map(|(n, t)| ((*n).to_string(), *t)).collect();
        summarise(&Input {
            terminating: false,
            problems: &[],
            members,
            targets: &targets,
            healing,
            unacted: &[],
            placed: &[],
            placement: None,
            full: &[],
            ends: None,
            now: at(1000),
        })
    }

    fn found<'a>(s: &'a Summary, type_: &str) -> (Status, &'a str, &'a str) {
        let f = s.findings.iter().find(|f| f.type_ == type_).unwrap();
        (f.status, f.reason, f.message.as_str())
    }

    #[test]
    fn all_well() {
        let s = sum_up(&[member("a"), member("b")], &[], false);
        assert_eq!((s.phase, s.health, s.files), (VolumePhase::Ready, VolumeHealth::Protected, Some(10)));
        for c in [condition::READY, condition::PROTECTED, condition::CONFLICT_FREE, condition::SPEC_ACTED_ON]
        {
            assert_eq!(found(&s, c).0, Status::True, "{c}");
        }
        assert_eq!((found(&s, condition::VERIFIED).1, s.last_verified), ("AllVerified", Some(at(500))));
    }

    #[test]
    fn pending_then_healing() {
        let m = [member("a"), member("b")];
        let t = [("v.b", lacks(3, 3))];
        let s = sum_up(&m, &t, false);
        assert_eq!(s.health, VolumeHealth::Pending);
        assert_eq!(
            found(&s, condition::PROTECTED),
            (Status::False, "Pending", "v.b lacks 3 files (3.0 KiB)")
        );
        assert_eq!(sum_up(&m, &t, true).health, VolumeHealth::Healing);
    }

    #[test]
    fn a_silent_agent_makes_the_last_good_word_unknown_and_keeps_the_bad_one() {
        let mut m = [member("a"), member("b")];
        m[0].silent_since = Some(at(0));
        let s = sum_up(&m, &[], false);
        assert_eq!((s.phase, s.health), (VolumePhase::Ready, VolumeHealth::Unknown));
        for c in [condition::READY, condition::PROTECTED, condition::CONFLICT_FREE, condition::VERIFIED] {
            assert_eq!(found(&s, c).0, Status::Unknown, "{c}");
        }
        let s = sum_up(&m, &[("v.b", lacks(0, 3))], false);
        assert_eq!(s.pending.unwrap().files, 3);
        let (status, reason, line) = found(&s, condition::PROTECTED);
        assert_eq!((status, reason), (Status::Unknown, "AgentSilent"));
        assert!(line.contains("a since 1970-01-01T00:00:00Z") && line.contains("3 copies"), "{line}");
    }

    #[test]
    fn what_a_lost_workstation_held_is_no_longer_waited_for() {
        let lost = MemberView { lost: true, silent_since: Some(at(0)), ..member("c") };
        let m = [member("a"), member("b"), lost];
        let s = sum_up(&m, &[("v.c", lacks(2, 2))], false);
        assert_eq!(found(&s, condition::PROTECTED).1, "Pending", "it is still in the sets");
        let s = sum_up(&m, &[], false);
        assert_eq!(found(&s, condition::PROTECTED).0, Status::True);
        assert_eq!(found(&s, condition::READY).1, "WorkstationLost");
        let s = sum_up(&m[2..], &[], false);
        assert_eq!(found(&s, condition::PROTECTED).0, Status::Unknown);
    }

    #[test]
    fn bricks_that_never_reported_or_refuse() {
        let mut m = [member("a"), member("b")];
        m[1].state = None;
        m[1].silent_since = Some(at(0));
        let s = sum_up(&m, &[], false);
        assert_eq!((s.phase, found(&s, condition::READY).1), (VolumePhase::Pending, "NeverReported"));
        m[1] = member("b");
        m[1].state = Some(BrickState::Refused);
        m[1].message = Some("the directory holds another volume".into());
        m[1].files = None;
        let s = sum_up(&m, &[], false);
        assert_eq!(s.health, VolumeHealth::Degraded);
        let expected = (Status::False, "BrickRefused", "v.b: the directory holds another volume");
        assert_eq!(found(&s, condition::READY), expected);
        let (status, reason, line) = found(&s, condition::PROTECTED);
        assert_eq!((status, reason), (Status::Unknown, "BrickNotOpen"));
        assert!(line.contains("v.b"), "{line}");
    }

    #[test]
    fn converged_is_what_all_members_say_and_are_heard_to_say() {
        let with = |sums: &[Option<&str>]| {
            let of = |(n, sum): (usize, &Option<&str>)| MemberView {
                tree_sum: sum.map(str::to_string),
                ..member(["a", "b", "c"][n])
            };
            sums.iter().enumerate().map(of).collect::<Vec<_>>()
        };
        let reason = |members: &[MemberView]| {
            let s = sum_up(members, &[], false);
            let found = found(&s, condition::CONVERGED);
            (found.0, found.1.to_string(), found.2.to_string())
        };
        assert_eq!(reason(&with(&[Some("1"), Some("1"), Some("1")])).0, Status::True);
        let (status, why, line) = reason(&with(&[Some("1"), Some("2"), Some("1")]));
        assert_eq!((status, why.as_str()), (Status::False, "Apart"));
        assert!(line.starts_with("v.b does not know the same"), "{line}");
        assert!(reason(&with(&[Some("1"), Some("2")])).2.starts_with("the members do not all"));
        let (status, why, line) = reason(&with(&[Some("1"), None]));
        assert_eq!((status, why.as_str()), (Status::False, "Exchanging"));
        assert!(line.contains("what v.b knows"), "{line}");
        // One that is silent is not known to have heard, and is not known to be apart.
        for (sum, wanted) in [("1", "AgentSilent"), ("2", "AgentSilent")] {
            let mut members = with(&[Some("1"), Some("1"), Some(sum)]);
            members[2].silent_since = Some(at(0));
            assert_eq!(reason(&members).1, wanted);
        }
    }

    #[test]
    fn nobody_has_reported_nothing_is_known() {
        let s = sum_up(&[MemberView { node: "a".into(), ..MemberView::default() }], &[], false);
        assert_eq!((s.pending, s.files, s.conflicts), (None, None, None));
        assert_eq!(s.health, VolumeHealth::Unknown);
    }

    #[test]
    fn full_disks_are_named_with_who_takes_what_is_new() {
        assert_eq!(space_left(&[]).status, Status::True);
        let full =
            [("v.a".to_string(), vec!["v.b".to_string(), "v.c".to_string()]), ("v.d".to_string(), vec![])];
        let found = space_left(&full);
        assert_eq!((found.status, found.reason), (Status::False, "DisksFull"));
        let line = "the disk is full of v.a (new files go to v.b, v.c); v.d (no other member has room: what it is to hold waits): \
                    make room there";
        assert_eq!(found.message, line);
    }

    #[test]
    fn fields_that_are_not_acted_on_are_listed() {
        let s = summarise(&Input {
            terminating: false,
            problems: &[Problem::UnknownNodes(vec!["x".into()])],
            members: &[member("a")],
            targets: &BTreeMap::new(),
            healing: false,
            unacted: &["ignore", "capacity"],
            placed: &[],
            placement: Some("r"),
            full: &[],
            ends: None,
            now: at(0),
        });
        assert_eq!(s.phase, VolumePhase::Invalid);
        assert_eq!(found(&s, condition::READY).1, "UnknownNode");
        let (status, reason, line) = found(&s, condition::SPEC_ACTED_ON);
        assert_eq!((status, reason), (Status::False, "FieldsNotActedOnYet"));
        assert!(line.contains("ignore, capacity"), "{line}");
    }

    proptest! {
        #[test]
        fn nothing_good_is_said_while_anybody_is_silent(
            list in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u64..2, 0u64..3), 1..6),
        ) {
            let mut members = vec![];
            let mut targets = BTreeMap::new();
            for (i, (reported, silent, conflicts, pending)) in list.iter().enumerate() {
                let mut m = member(&format!("n{i}"));
                if !reported { m = MemberView { node: m.node, brick: m.brick, ..MemberView::default() }; }
                m.silent_since = silent.then(|| at(0));
                if *reported { m.conflicts = Some(*conflicts); }
                if *pending > 0 { targets.insert(m.brick.clone(), lacks(if *silent { 0 } else { *pending }, *pending)); }
                members.push(m);
            }
            let s = summarise(&Input { terminating: false, problems: &[], members: &members, targets: &targets,
                healing: false, unacted: &[], placed: &[], placement: None, full: &[], ends: None, now: at(1000) });
            let anybody_silent = list.iter().any(|x| !x.0 || x.1);
            let is_true = |t| found(&s, t).0 == Status::True;
            if anybody_silent {
                prop_assert!(!is_true(condition::READY) && !is_true(condition::PROTECTED));
                prop_assert!(!is_true(condition::CONFLICT_FREE) && !is_true(condition::VERIFIED));
                prop_assert_eq!(s.last_verified, None);
                prop_assert!(s.health != VolumeHealth::Protected);
            }
            if !targets.is_empty() { prop_assert!(!is_true(condition::PROTECTED)); }
            if is_true(condition::PROTECTED) { prop_assert_eq!(s.pending.map(|p| p.files), Some(0)); }
            for f in &s.findings { prop_assert!(!f.message.contains('\n') && !f.message.is_empty()); }
        }
    }
}
