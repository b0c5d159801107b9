//! What an agent says of its workstation: whether all is mounted, and whether it may leave.

use nearbrick_crds::condition::{Finding, READY, SAFE_TO_LEAVE, Status, conditions};
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{Condition, Time, WorkstationStatus};

use super::{Reporting, line, pending};
use crate::control::facts::{Phase, VolumeFacts};
use crate::volume::Count;

/// The status of the `Workstation`: this agent's part of it.
pub fn workstation_status(
    all: &[VolumeFacts],
    reporting: &Reporting,
    previous: &[Condition],
    generation: Option<i64>,
    now: &Time,
) -> WorkstationStatus {
    let in_use = all.iter().filter(|f| f.status.is_some()).count();
    WorkstationStatus {
        last_seen: Some(now.clone()),
        address: Some(reporting.address.clone()),
        agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        bricks: Some(u32::try_from(in_use).unwrap_or(u32::MAX)),
        pending_out: Some(pending(&to_send(all))),
        observed_generation: generation,
        conditions: conditions(previous, &[ready(all), safe_to_leave(all)], generation, now),
        ..WorkstationStatus::default()
    }
}

/// All that this workstation has still to send.
fn to_send(all: &[VolumeFacts]) -> Count {
    let mut sum = Count::default();
    for count in all.iter().filter_map(|f| f.status.as_ref()).map(|s| &s.pending) {
        sum.files += count.files;
        sum.bytes = sum.bytes.saturating_add(count.bytes);
        sum.oldest_ms = [sum.oldest_ms, count.oldest_ms].into_iter().flatten().min();
    }
    sum
}

fn ready(all: &[VolumeFacts]) -> Finding {
    let not_ready: Vec<String> = all
        .iter()
        .filter_map(|facts| match &facts.phase {
            // A brick at its end is not missed.
            Phase::Ready | Phase::Degraded { mounted: true, .. } | Phase::Emptying(_) | Phase::Emptied => {
                None
            }
            Phase::Starting(why) | Phase::Refused(why) | Phase::Degraded { message: why, .. } => {
                Some(format!("{}: {why}", facts.key))
            }
        })
        .collect();
    if all.is_empty() {
        Finding::new(READY, Status::True, "NoBricks", "no volume has a brick here")
    } else if not_ready.is_empty() {
        Finding::new(READY, Status::True, "AllMounted", "all volumes of this workstation are mounted")
    } else {
        Finding::new(READY, Status::False, "NotMounted", line(&not_ready.join("; ")))
    }
}

/// True exactly when nothing would be missed if this machine went now: all that must be elsewhere is there, some
/// other brick holds each file that is whole here, and some other member has heard of all that was done here. A
/// brick that is not open says nothing, and then it is not known.
fn safe_to_leave(all: &[VolumeFacts]) -> Finding {
    let mut reasons = Vec::new();
    let sending = to_send(all);
    let open = || all.iter().filter_map(|f| f.status.as_ref());
    let judging: Vec<String> = all
        .iter()
        .filter(|f| f.status.as_ref().is_some_and(|s| s.rebuilding))
        .map(|f| f.key.to_string())
        .collect();
    if !judging.is_empty() {
        let message = format!("not known: the index of {} is being made anew", judging.join(", "));
        return Finding::new(SAFE_TO_LEAVE, Status::Unknown, "IndexLost", line(&message));
    }
    let out = open().any(|s| s.pending_out.values().any(|c| c.files > 0)) || sending.files > 0;
    let dirty: u64 = open().map(|s| s.dirty_files).sum();
    if out {
        reasons.push(format!(
            "{} ({}) written here and not yet copied to every brick that must hold them",
            human_files(sending.files),
            human_bytes(sending.bytes)
        ));
    }
    if dirty > 0 {
        reasons.push(format!("{} still being written", human_files(dirty)));
    }
    let alone = open()
        .map(|s| (s.only_here.files, s.only_here.bytes))
        .fold((0u64, 0u64), |a, b| (a.0.saturating_add(b.0), a.1.saturating_add(b.1)));
    // What is pending is said already.
    let only = alone.0 > 0 && !out;
    if only {
        reasons.push(format!(
            "{} ({}) held by no other brick, because their replica set is this brick alone, or because of a conflict",
            human_files(alone.0),
            human_bytes(alone.1)
        ));
    }
    let unheard = open().any(|s| s.unheard);
    if unheard {
        reasons.push(
            "no other workstation has heard yet of the last renames, deletions or attributes".to_owned(),
        );
    }
    if !reasons.is_empty() {
        let reason = match (out, dirty > 0, only) {
            (true, _, _) => "Pending",
            (_, true, _) => "BeingWritten",
            (_, _, true) => "OnlyHere",
            _ => "NotHeard",
        };
        return Finding::new(SAFE_TO_LEAVE, Status::False, reason, line(&reasons.join("; ")));
    }
    let silent: Vec<String> = all.iter().filter(|f| f.status.is_none()).map(|f| f.key.to_string()).collect();
    if silent.is_empty() {
        let message = "everything that is here is held by every brick that must hold it, and by one at least";
        Finding::new(SAFE_TO_LEAVE, Status::True, "AllCopied", message)
    } else {
        let message = format!("not known: the brick of {} is not open", silent.join(", "));
        Finding::new(SAFE_TO_LEAVE, Status::Unknown, "BrickNotOpen", line(&message))
    }
}

#[cfg(test)]
mod tests {
    use nearbrick_core::BrickId;
    use nearbrick_crds::condition::{find, is_true};

    use super::super::tests::{facts, reporting, safe, status};
    use super::super::{brick_status, time};
    use super::*;
    use crate::volume::VolumeStatus;

    #[test]
    fn safe_to_leave_exactly_when_nothing_is_dirty_or_pending() {
        assert_eq!(safe(&[]).status, "True");
        assert_eq!(safe(&[facts(Phase::Ready, Some(status()))]).status, "True");

        let mut pending = status();
        pending.pending = Count { files: 3, bytes: 3 << 20, oldest_ms: Some(1), newest_ms: None };
        pending.pending_out.insert(BrickId([2; 16]), pending.pending.clone());
        let said = safe(&[facts(Phase::Ready, Some(status())), facts(Phase::Ready, Some(pending))]);
        assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", "Pending"));
        assert!(said.message.starts_with("3 files (3.0 MiB)"), "{}", said.message);

        let mut dirty = status();
        dirty.dirty_files = 1;
        let said = safe(&[facts(Phase::Ready, Some(dirty))]);
        assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", "BeingWritten"));
        assert_eq!(said.message, "1 file still being written");

        let count = Count { files: 2, bytes: 2048, ..Count::default() };
        let alone = VolumeStatus { only_here: count, ..status() };
        let said = safe(&[facts(Phase::Ready, Some(alone))]);
        assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", "OnlyHere"));
        assert!(said.message.starts_with("2 files (2.0 KiB) held by no other brick"), "{}", said.message);
        let said = safe(&[facts(Phase::Ready, Some(VolumeStatus { unheard: true, ..status() }))]);
        assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", "NotHeard"));

        // What waits to come in does not hold anyone back.
        let mut behind = status();
        behind.pending_in = Count { files: 3, bytes: 1, oldest_ms: Some(7_000), newest_ms: Some(8_001) };
        let behind = facts(Phase::Ready, Some(behind));
        let said = brick_status(&behind, &reporting(), None, &[], Some(1), &time(0)).pending_in.unwrap();
        assert_eq!((said.oldest_since, said.newest_since), (Some(time(7_000)), Some(time(9_000))));
        assert_eq!(safe(&[behind]).status, "True");

        let said = safe(&[facts(Phase::Refused("x".to_owned()), None)]);
        assert_eq!((said.status.as_str(), said.reason.as_str()), ("Unknown", "BrickNotOpen"));
        assert!(said.message.contains("lab/home"));
    }

    #[test]
    fn a_workstation_is_ready_when_all_its_volumes_are_mounted() {
        let ready = facts(Phase::Ready, Some(status()));
        let report = |all: &[VolumeFacts]| workstation_status(all, &reporting(), &[], None, &time(0));
        assert!(is_true(&report(std::slice::from_ref(&ready)).conditions, READY));
        let starting = facts(Phase::Starting("opening".to_owned()), None);
        let both = report(&[ready, starting]);
        assert!(!is_true(&both.conditions, READY));
        assert_eq!(find(&both.conditions, READY).unwrap().message, "lab/home: opening");
        assert_eq!(both.bricks, Some(1));
    }
}
