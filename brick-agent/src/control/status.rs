//! From what the agent knows to what it reports: pure.

mod workstation;

use std::time::{SystemTime, UNIX_EPOCH};

use nearbrick_core::BrickId;
use nearbrick_core::evict::Space;
use nearbrick_core::resolution::Choice;
use nearbrick_crds::condition::{
    Finding, JOURNALS_FOLLOWED, READY, REMOVALS_FOLLOWED, SPACE_LEFT, Status, conditions, find,
};
use nearbrick_crds::meta::time_from_unix;
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{
    BrickState, BrickStatus, CarriedOut, Condition, ConflictReport, FileVersion, LastError, Pending,
    PendingOut, Time, Verification,
};

use crate::config::VolumeConfig;
use crate::volume::{Count, HotGroup, ListedConflict, ListedVersion, Pass, Placing, VolumeStatus};

use super::convert::{RELEASE_REMOVALS, SAY_AGAIN, TAKE_BACK_REMOVALS};
use super::facts::{Phase, VolumeFacts};

pub use self::workstation::workstation_status;

/// The longest message that goes into a status.
const MAX_MESSAGE: usize = 1024;

fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect()
}

fn time(ms: u64) -> Time {
    time_from_unix(i64::try_from(ms / 1000).unwrap_or(i64::MAX))
}

fn time_of(at: SystemTime) -> Time {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    time_from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn pending(count: &Count) -> Pending {
    Pending::new(count.files, count.bytes, count.oldest_ms.map(time))
}

fn pending_out(status: &VolumeStatus, config: &VolumeConfig) -> Vec<PendingOut> {
    let name = |id: BrickId| config.member(id).map_or_else(|| id.to_string(), |m| m.name.clone());
    let mut list: Vec<_> = status
        .pending_out
        .iter()
        .filter(|(_, count)| count.files > 0)
        .map(|(id, count)| PendingOut {
            brick: name(*id),
            files: count.files,
            bytes: count.bytes,
            oldest_since: count.oldest_ms.map(time),
        })
        .collect();
    list.sort_by(|a, b| a.brick.cmp(&b.brick));
    list
}

/// The longest path that goes into a status; of a longer one the end is left.
const MAX_PATH: usize = 512;

fn path(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let from = text.char_indices().map(|(at, _)| at).find(|at| text.len() - at <= MAX_PATH).unwrap_or(0);
    line(&text[from..])
}

fn conflict(listed: &ListedConflict, config: &VolumeConfig) -> ConflictReport {
    let name = |id: BrickId| config.member(id).map_or_else(|| id.to_string(), |m| m.name.clone());
    let node = |id: BrickId| config.member(id).map_or_else(|| id.to_string(), |m| m.node.clone());
    let version = |v: &ListedVersion| FileVersion {
        brick: v.holders.iter().find(|b| **b == v.writer).or(v.holders.first()).map(|b| name(*b)),
        path: v.path.as_deref().map(path),
        size: Some(v.size),
        mtime: Some(time_from_unix(v.mtime.0)),
        hash: v.hash.map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect()),
        writer: Some(node(v.writer)),
        chosen: v.chosen.then_some(true),
    };
    ConflictReport {
        file: listed.file.to_string(),
        path: path(&listed.path),
        open: listed.open,
        versions: listed.versions.iter().map(version).collect(),
        carried_out: listed.decision.map(|decision| CarriedOut {
            made: i64::try_from(decision.word.made).unwrap_or(i64::MAX),
            generation: i64::try_from(decision.word.generation).unwrap_or(i64::MAX),
            resolution: match decision.choice {
                Choice::KeepBoth => "KeepBoth".to_owned(),
                Choice::Newest => "Newest".to_owned(),
                Choice::Largest => "Largest".to_owned(),
                Choice::Brick(brick) => format!("Brick/{}", node(brick)),
            },
            by: Some(name(decision.by)),
            at: Some(time(decision.at_ms)),
        }),
        hindrance: listed.hindrance.as_ref().map(|why| line(&why.to_string())),
    }
}

fn verification(pass: &Pass) -> Verification {
    Verification {
        started_at: Some(time(pass.began_ms)),
        files: pass.files,
        bytes: pass.bytes,
        names: pass.names,
        edited: pass.edited,
        damaged: pass.damaged,
        left: pass.left,
    }
}

/// What a person reads about removals that are held back, and what to do.
pub fn held_removals(facts: &VolumeFacts, status: &VolumeStatus) -> Option<String> {
    let held = status.held.first()?;
    let (key, id) = (&facts.key, held.id);
    let command = |name: &str| {
        format!("kubectl annotate wsv -n {} {} {name}={id} --overwrite", key.namespace, key.volume)
    };
    let more = match status.held.len() - 1 {
        0 => String::new(),
        n => format!("; and {n} more such"),
    };
    Some(format!(
        "{} of {} were removed elsewhere at once; they are kept here until you decide. If that is right: {}; if not, to \
         have them back everywhere: {}{more}",
        human_files(held.brake.files),
        held.brake.of,
        command(RELEASE_REMOVALS),
        command(TAKE_BACK_REMOVALS),
    ))
}

fn removals_followed(facts: &VolumeFacts, status: &VolumeStatus) -> Finding {
    match held_removals(facts, status) {
        None => Finding::new(REMOVALS_FOLLOWED, Status::True, "NoneHeld", "no removals are held back"),
        Some(message) => Finding::new(REMOVALS_FOLLOWED, Status::False, "TooMany", line(&message)),
    }
}

/// What a person reads about a journal that cannot be followed any more, and what to do.
pub fn refused_entry(facts: &VolumeFacts, status: &VolumeStatus) -> Option<String> {
    let first = status.refused.first()?;
    let config = facts.config.as_ref();
    let brick = first.brick.and_then(|id| config?.member(id)).map(|m| format!(" of brick {}", m.name));
    let (key, origin) = (&facts.key, first.origin);
    let more = match status.refused.len() - 1 {
        0 => String::new(),
        n => format!("; and {n} more such"),
    };
    Some(format!(
        "entry {} of the journal {origin}{} makes no sense here ({}); what it says after that is not taken over, all else \
         is. If its agent is a newer one, upgrade this one; if not, have that brick say all it has again: kubectl annotate \
         wsv -n {} {} {SAY_AGAIN}={origin} --overwrite{more}",
        first.seq,
        brick.unwrap_or_default(),
        first.why,
        key.namespace,
        key.volume,
    ))
}

fn journals_followed(facts: &VolumeFacts, status: &VolumeStatus) -> Finding {
    match refused_entry(facts, status) {
        None => {
            Finding::new(JOURNALS_FOLLOWED, Status::True, "NoneRefused", "no entry of a peer was refused")
        }
        Some(message) => Finding::new(JOURNALS_FOLLOWED, Status::False, "EntryRefused", line(&message)),
    }
}

/// Whether the brick's disk has room for more files; by that the operator has others stand in.
fn space_left(status: &VolumeStatus, previous: &[Condition]) -> Finding {
    let space = Space { capacity: status.capacity_bytes, free: status.free_bytes };
    let was_full = find(previous, SPACE_LEFT).is_some_and(|c| c.status == Status::False.as_str());
    if !space.is_full(was_full) {
        return Finding::new(SPACE_LEFT, Status::True, "Enough", "its disk has room for more files");
    }
    // No figures: they change with each look, and are in the status.
    let line = format!(
        "less than {} of its disk are free: make room there (delete files, or see what else is on that disk); until then other          bricks take what is new",
        human_bytes(space.enough())
    );
    Finding::new(SPACE_LEFT, Status::False, "DiskFull", line)
}

/// What files wait for that are not as the placement rules want: those of which there are most first.
fn unplaced_because(placing: &Placing) -> Option<String> {
    placing.looked_by.as_ref()?;
    let mut list: Vec<_> = placing.unplaced.iter().map(|(why, count)| (count.files, why.as_str())).collect();
    list.sort_by_key(|(files, _)| std::cmp::Reverse(*files));
    let list: Vec<_> = list.into_iter().map(|(files, why)| format!("{files} {why}")).collect();
    (!list.is_empty()).then(|| line(&list.join(", ")))
}

/// What is common to the reports of one agent.
#[derive(Clone, Debug)]
pub struct Reporting {
    /// `host:port` at which peers reach this agent.
    pub address: String,
    /// Where volumes are mounted.
    pub mounts_dir: std::path::PathBuf,
}

/// The status of one `Brick`. `known` is what the object says now: its
/// incarnation is kept while the brick is not open, because an empty directory
/// where a brick was must never become a new one (T24).
pub fn brick_status(
    facts: &VolumeFacts,
    reporting: &Reporting,
    known: Option<&BrickStatus>,
    previous: &[Condition],
    generation: Option<i64>,
    now: &Time,
) -> BrickStatus {
    let mounted = || format!("mounted at {}", facts.key.below(&reporting.mounts_dir).display());
    let (state, message, ready, reason) = match &facts.phase {
        Phase::Starting(why) => (BrickState::Starting, line(why), Status::False, "Starting"),
        Phase::Ready if facts.status.as_ref().is_some_and(|s| s.adopting) => {
            let message = "its files are being taken into the volume: they can be read, and not changed, until another \
                           brick that is in use can be asked which of them it has";
            (BrickState::Degraded, message.to_owned(), Status::False, "Adopting")
        }
        Phase::Ready if facts.status.as_ref().is_some_and(|s| s.rebuilding) => {
            let message = "its index was lost: files can be read, and not changed, until another brick can be asked \
                           which of them are the newest";
            (BrickState::Degraded, message.to_owned(), Status::False, "IndexLost")
        }
        Phase::Ready => (BrickState::Ready, mounted(), Status::True, "Mounted"),
        Phase::Degraded { message, mounted } => {
            (BrickState::Degraded, line(message), Status::from(*mounted), "Degraded")
        }
        Phase::Refused(why) => (BrickState::Refused, line(why), Status::False, "Refused"),
        Phase::Emptying(how_far) => (BrickState::Emptying, line(how_far), Status::False, "Emptying"),
        Phase::Emptied => (BrickState::Emptied, "its files are deleted".to_owned(), Status::False, "Emptied"),
    };
    let mut findings = vec![Finding::new(READY, ready, reason, message.clone())];
    if let Some(status) = &facts.status {
        findings.extend([
            removals_followed(facts, status),
            journals_followed(facts, status),
            space_left(status, previous),
        ]);
    }
    let base = BrickStatus {
        state: Some(state),
        message: Some(message),
        incarnation: known.and_then(|k| k.incarnation.clone()),
        address: Some(reporting.address.clone()),
        heartbeat: Some(now.clone()),
        observed_generation: generation,
        conditions: conditions(previous, &findings, generation, now),
        ..BrickStatus::default()
    };
    // Without an open brick nothing is known: the last good counts are not repeated.
    let (Some(status), Some(config)) = (&facts.status, &facts.config) else { return base };
    BrickStatus {
        incarnation: Some(status.incarnation.to_string()),
        capacity_bytes: Some(status.capacity_bytes),
        free_bytes: Some(status.free_bytes),
        files: Some(status.files),
        bytes: Some(status.bytes),
        tree_sum: Some(format!("{:016x}", status.tree_sum as u64 ^ (status.tree_sum >> 64) as u64)),
        stubs: Some(status.stubs),
        dirty_files: Some(status.dirty_files),
        oldest_dirty_since: status.oldest_dirty_ms.map(time),
        // Rounded up: what came in this second may still be followed by more.
        pending_in: Some(
            pending(&status.pending_in)
                .newest(status.pending_in.newest_ms.map(|ms| time(ms.saturating_add(999)))),
        ),
        pending_out: pending_out(status, config),
        pending: Some(pending(&status.pending)),
        in_set: Some(pending(&status.in_set)),
        only_here: Some(pending(&status.only_here)),
        unplaced: status.placing.looked_by.is_some().then(|| pending(&status.placing.total())),
        unplaced_because: unplaced_because(&status.placing),
        placement: status.placing.looked_by.clone(),
        conflicts: Some(status.conflicts),
        conflict_list: status.listed_conflicts.iter().map(|c| conflict(c, config)).collect(),
        last_verified_time: status.scrub.last.as_ref().and_then(|pass| pass.ended_ms).map(time),
        verification: status.scrub.last.as_ref().map(verification),
        verifying: status.scrub.running.as_ref().map(verification),
        unrepaired_files: Some(status.scrub.unrepaired()),
        rejected_messages: Some(status.rejected),
        hottest: status.hottest.iter().map(|group| hot(group, config)).collect(),
        moves: moves(status),
        last_error: status.last_error.as_ref().map(|(reason, message, at)| LastError {
            reason: reason.as_str().to_owned(),
            message: line(message),
            time: Some(time_of(*at)),
        }),
        ..base
    }
}

/// A group that is used here; its uses in whole ones.
fn hot(group: &HotGroup, config: &VolumeConfig) -> nearbrick_crds::HotGroup {
    // A worth is never negative, and below the number of opens.
    let whole = |worth: f64| worth.round() as u64;
    let name = |brick: &BrickId| config.member(*brick).map_or_else(|| brick.to_string(), |m| m.name.clone());
    nearbrick_crds::HotGroup {
        path: group.path.clone(),
        below: group.below,
        with: group.with.clone(),
        local: whole(group.uses.local),
        cached: whole(group.uses.cached),
        remote: whole(group.uses.remote),
        writes: whole(group.uses.writes),
        files: group.all.files,
        bytes: group.all.bytes,
        away_files: group.away.files,
        away_bytes: group.away.bytes,
        bricks: group.bricks.iter().map(name).collect(),
    }
}

/// What is left to do for moves.
fn moves(status: &VolumeStatus) -> Vec<nearbrick_crds::Move> {
    let of = |(name, (quiet, busy)): (&String, &(Count, u64))| nearbrick_crds::Move {
        migration: name.clone(),
        files: quiet.files,
        bytes: quiet.bytes,
        busy: *busy,
        verified: status.verified_moves.get(name).copied(),
    };
    // Of moves that are over long since nothing is to be said.
    status.placing.moves.iter().map(of).filter(|m| m.files + m.busy > 0 || m.verified.is_some()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::Member;
    use crate::control::convert::VolumeKey;
    use nearbrick_core::Incarnation;
    use nearbrick_crds::condition::{SAFE_TO_LEAVE, find, is_true};
    use uuid::Uuid;

    pub(super) fn status() -> VolumeStatus {
        VolumeStatus {
            incarnation: Incarnation(0xab),
            tree_sum: 7,
            files: 10,
            bytes: 1000,
            stubs: 2,
            dirty_files: 0,
            oldest_dirty_ms: None,
            pending_in: Count::default(),
            pending_out: BTreeMap::new(),
            pending: Count::default(),
            only_here: Count::default(),
            in_set: Count::default(),
            placing: Placing::default(),
            unheard: false,
            capacity_bytes: 5000,
            free_bytes: 4000,
            conflicts: 0,
            listed_conflicts: Vec::new(),
            rejected: 3,
            stale_reads: 0,
            sync_failures: 0,
            held: Vec::new(),
            refused: Vec::new(),
            rebuilding: false,
            adopting: false,
            scrub: Default::default(),
            hottest: Vec::new(),
            verified_moves: BTreeMap::new(),
            last_error: None,
        }
    }

    pub(super) fn facts(phase: Phase, status: Option<VolumeStatus>) -> VolumeFacts {
        let key = VolumeKey { namespace: "lab".to_owned(), volume: "home".to_owned() };
        let member = Member {
            brick: BrickId([2; 16]),
            name: "home.ws-b".to_owned(),
            node: "ws-b".to_owned(),
            address: None,
        };
        let config = VolumeConfig {
            namespace: "lab".to_owned(),
            name: "home".to_owned(),
            volume_uuid: Uuid::nil(),
            node: "ws-a".to_owned(),
            brick: BrickId([1; 16]),
            path: "/bricks/lab/home".into(),
            was_initialised: true,
            members: vec![member],
            placement: vec![],
            stale_reads: Default::default(),
            conflicts: Vec::new(),
            retention_ms: crate::config::RETENTION_MS,
            healing: Default::default(),
            min_sync_copies: 1,
            release_removals: None,
            take_back_removals: None,
            upkeep: Default::default(),
        };
        VolumeFacts { key, config: Some(Arc::new(config)), phase, status }
    }

    pub(super) fn reporting() -> Reporting {
        Reporting { address: "10.0.0.1:7443".to_owned(), mounts_dir: Path::new("/volumes").into() }
    }

    pub(super) fn safe(all: &[VolumeFacts]) -> Condition {
        let status = workstation_status(all, &reporting(), &[], Some(1), &time(0));
        find(&status.conditions, SAFE_TO_LEAVE).unwrap().clone()
    }

    #[test]
    fn removals_that_are_held_back_say_what_to_do() {
        let mut s = status();
        let report = |s: &VolumeStatus| {
            let facts = facts(Phase::Ready, Some(s.clone()));
            brick_status(&facts, &reporting(), None, &[], Some(1), &time(0))
        };
        assert!(is_true(&report(&s).conditions, REMOVALS_FOLLOWED));
        let id = nearbrick_core::brake::HeldId { origin: Incarnation(0xa), seq: 70 };
        let brake = crate::volume::Brake { seq: 70, since: 0, files: 120, of: 150 };
        s.held.push(crate::volume::HeldRemovals { id, brake });
        let condition = find(&report(&s).conditions, REMOVALS_FOLLOWED).unwrap().clone();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "TooMany"));
        let command =
            "kubectl annotate wsv -n lab home nearbrick.io/release-removals=000000000000000a-70 --overwrite";
        assert!(condition.message.contains(command), "{}", condition.message);
    }

    #[test]
    fn an_entry_that_is_refused_says_whose_it_is_and_what_to_do() {
        let (why, origin) = ("an entry's time makes no sense".to_owned(), Incarnation(0xa));
        let entry = crate::volume::RefusedEntry { origin, brick: Some(BrickId([2; 16])), seq: 7, why };
        let facts = facts(Phase::Ready, Some(VolumeStatus { refused: vec![entry], ..status() }));
        let report = brick_status(&facts, &reporting(), None, &[], Some(1), &time(0));
        let condition = find(&report.conditions, JOURNALS_FOLLOWED).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "EntryRefused"));
        let command = "kubectl annotate wsv -n lab home nearbrick.io/say-again=000000000000000a --overwrite";
        for part in ["entry 7", "of brick home.ws-b", "an entry's time makes no sense", command] {
            assert!(condition.message.contains(part), "{}", condition.message);
        }
    }

    #[test]
    fn t03_a_brick_whose_index_is_made_anew_is_not_ready_and_not_safe_to_leave() {
        let s = VolumeStatus { rebuilding: true, ..status() };
        let facts = facts(Phase::Ready, Some(s));
        let report = brick_status(&facts, &reporting(), None, &[], Some(1), &time(0));
        assert_eq!(report.state, Some(BrickState::Degraded));
        assert_eq!(find(&report.conditions, READY).unwrap().reason, "IndexLost");
        assert_eq!(safe(&[facts]).status, "Unknown");
    }

    #[test]
    fn a_brick_in_use_says_what_it_has_and_what_others_lack() {
        let mut s = status();
        let count = Count { files: 2, bytes: 2048, oldest_ms: Some(5_000), newest_ms: None };
        s.pending_out.insert(BrickId([2; 16]), count.clone());
        s.pending_out.insert(BrickId([9; 16]), Count::default());
        s.pending = count;
        let report =
            brick_status(&facts(Phase::Ready, Some(s)), &reporting(), None, &[], Some(1), &time(9_000));
        assert_eq!(report.state, Some(BrickState::Ready));
        assert_eq!(report.message.as_deref(), Some("mounted at /volumes/lab/home"));
        assert_eq!(report.incarnation.as_deref(), Some("00000000000000ab"));
        assert_eq!(report.pending_out.len(), 1);
        assert_eq!(report.pending_out[0].brick, "home.ws-b");
        assert_eq!(report.pending_out[0].oldest_since, Some(time(5_000)));
        assert_eq!(report.pending.unwrap().size.as_deref(), Some("2.0 KiB"));
        assert!(is_true(&report.conditions, READY));
    }

    #[test]
    fn a_conflict_is_reported_with_the_names_of_who_wrote_and_who_holds_its_versions() {
        use crate::volume::ListedDecision;
        use nearbrick_core::FileId;
        use nearbrick_core::resolution::Word;
        let listed = |open| ListedConflict {
            file: FileId([7; 16]),
            path: [&b"\xff/"[..], &[b'p'; 600]].concat(),
            open,
            versions: vec![ListedVersion {
                writer: BrickId([2; 16]),
                holders: vec![BrickId([1; 16]), BrickId([2; 16])],
                size: 5,
                mtime: (1000, 1),
                hash: Some([0xab; 32]),
                path: Some(b"p (conflict, ws-b, x)".to_vec()),
                chosen: !open,
            }],
            decision: (!open).then_some(ListedDecision {
                word: Word { made: 9, generation: 2 },
                choice: Choice::Brick(BrickId([2; 16])),
                by: BrickId([2; 16]),
                at_ms: 5_000,
            }),
            hindrance: None,
        };
        let list = vec![listed(true), listed(false)];
        let facts =
            facts(Phase::Ready, Some(VolumeStatus { conflicts: 1, listed_conflicts: list, ..status() }));
        let report = brick_status(&facts, &reporting(), None, &[], Some(1), &time(0));
        let [open, resolved] = report.conflict_list.as_slice() else { panic!() };
        assert_eq!((open.file.as_str(), open.path.len(), open.open), (&*"07".repeat(16), MAX_PATH, true));
        let version = &open.versions[0];
        assert_eq!((version.brick.as_deref(), version.writer.as_deref()), (Some("home.ws-b"), Some("ws-b")));
        assert_eq!((version.size, version.chosen), (Some(5), None));
        assert_eq!(version.hash.as_deref(), Some(&*"ab".repeat(32)));
        let carried = resolved.carried_out.as_ref().unwrap();
        assert_eq!((carried.made, carried.generation), (9, 2));
        assert_eq!((carried.resolution.as_str(), carried.by.as_deref()), ("Brick/ws-b", Some("home.ws-b")));
        assert_eq!(resolved.versions[0].chosen, Some(true));
    }

    #[test]
    fn files_that_are_not_as_the_rules_want_are_counted_once_all_were_looked_at() {
        use crate::volume::Unplaced;
        use nearbrick_core::replace::Obstacle;
        let mut s = status();
        let count = |files| Count { files, bytes: files << 10, ..Count::default() };
        s.placing.unplaced =
            [(Unplaced::NotLed, count(1)), (Unplaced::Not(Obstacle::Lacking), count(3))].into();
        let report = |s: &VolumeStatus| {
            let facts = facts(Phase::Ready, Some(s.clone()));
            brick_status(&facts, &reporting(), None, &[], Some(1), &time(0))
        };
        assert_eq!((report(&s).unplaced, report(&s).placement), (None, None));
        s.placing.looked_by = Some("77".to_owned());
        let said = report(&s);
        assert_eq!(said.unplaced.map(|p| (p.files, p.size)), Some((4, Some("4.0 KiB".to_owned()))));
        assert_eq!(said.placement.as_deref(), Some("77"));
        assert_eq!(said.unplaced_because.as_deref(), Some("3 wait for copies, 1 wait for the API server"));
    }

    #[test]
    fn t24_a_refused_brick_keeps_its_incarnation_and_repeats_no_counts() {
        let known =
            BrickStatus { incarnation: Some("ab".to_owned()), files: Some(7), ..BrickStatus::default() };
        let refused = facts(Phase::Refused("is its disk\nmounted?".to_owned()), None);
        let report = brick_status(&refused, &reporting(), Some(&known), &[], Some(1), &time(0));
        assert_eq!(report.incarnation.as_deref(), Some("ab"));
        assert_eq!(report.files, None);
        assert_eq!(report.message.as_deref(), Some("is its disk mounted?"));
        assert!(!is_true(&report.conditions, READY));
    }

    #[test]
    fn the_same_facts_give_the_same_conditions_later() {
        let f = facts(Phase::Ready, Some(status()));
        let first = brick_status(&f, &reporting(), None, &[], Some(1), &time(1_000));
        let later = brick_status(&f, &reporting(), None, &first.conditions, Some(1), &time(99_000));
        assert_eq!(first.conditions, later.conditions);
    }
}
