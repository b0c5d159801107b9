//! How far a heal job is, from what its targets' agents report.
//!
//! Invariants:
//! - a job ends: a target that is away, gone, or does not start counts as failed after a limit;
//! - it is `Failed` only if nothing was copied and something should have been;
//! - one target that cannot be healed never hides what the others did.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{FailureReason, JobBytes, JobFiles, JobPhase, Transfer, TransferPhase};

use super::pending::Counts;

/// What is known of a target besides its transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetView {
    /// Name of its brick.
    pub brick: String,
    /// Its workstation, for messages.
    pub node: String,
    /// Whether the brick exists.
    pub exists: bool,
    /// Since when its workstation has been silent, if it is.
    pub away_since: Option<Timestamp>,
    /// What it lacks at present.
    pub lacks: Counts,
}

/// How long a job waits for a target.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For one that is away.
    pub unreachable_after: Duration,
    /// For one that reports and does not start.
    pub start_within: Duration,
}

/// How far the job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// In one word.
    pub phase: JobPhase,
    /// Files.
    pub files: JobFiles,
    /// Bytes.
    pub bytes: JobBytes,
    /// Present rate; the mean rate once the job has ended.
    pub bytes_per_second: Option<u64>,
    /// Seconds left.
    pub eta_seconds: Option<u64>,
    /// When the first transfer started, by the operator's clock.
    pub started_at: Option<Timestamp>,
    /// When the job ended, by the operator's clock.
    pub completed_at: Option<Timestamp>,
    /// What happened, in one line.
    pub message: String,
    /// Why files could not be copied: `2 NoSpace, 1 Busy`.
    pub failures: Option<String>,
    /// When a limit is over and the job has to be looked at again.
    pub again_at: Option<Timestamp>,
}

enum Part<'a> {
    Ended(&'a Transfer),
    Running(&'a Transfer),
    NotStarted,
    GivenUp {
        transfer: Option<&'a Transfer>,
        why: String,
    },
    /// Its time was over before it began.
    TooLate,
}

/// How far the job for `targets` is, whose turn came at `turn`: when it was made, or when the job before
/// it ended; `None` while one before it has not ended. Agents run one job of a volume at a time. They stop at
/// `not_after`, and what is left then has not failed.
pub fn progress(
    turn: Option<Timestamp>,
    now: Timestamp,
    started_at: Option<Timestamp>,
    targets: &[TargetView],
    transfers: &[Transfer],
    limits: &Limits,
    not_after: Option<Timestamp>,
) -> Progress {
    if targets.is_empty() {
        return Progress {
            phase: JobPhase::Completed,
            files: JobFiles::default(),
            bytes: JobBytes::default(),
            bytes_per_second: None,
            eta_seconds: None,
            started_at,
            completed_at: Some(now),
            message: "nothing was pending".to_string(),
            failures: None,
            again_at: None,
        };
    }
    let by_target: BTreeMap<&str, &Transfer> = transfers.iter().map(|t| (t.target.as_str(), t)).collect();
    let mut again_at: Option<Timestamp> = None;
    let parts: Vec<(&TargetView, Part)> = targets
        .iter()
        .map(|t| {
            let (part, until) =
                part(turn, now, t, by_target.get(t.brick.as_str()).copied(), limits, not_after);
            again_at = [again_at, until].into_iter().flatten().min();
            (t, part)
        })
        .collect();

    let (mut files, mut bytes, mut rate, mut eta) = (JobFiles::default(), JobBytes::default(), 0u64, None);
    for (target, part) in &parts {
        let transfer = match part {
            Part::Ended(t) | Part::Running(t) => Some(*t),
            Part::GivenUp { transfer, .. } => *transfer,
            Part::NotStarted | Part::TooLate => None,
        };
        match transfer {
            Some(t) => {
                files.total += t.files_total;
                files.done += t.files_done;
                files.failed += t.files_failed;
                bytes.total += t.bytes_total;
                bytes.done += t.bytes_done;
                if matches!(part, Part::GivenUp { .. }) {
                    files.failed += t.files_total.saturating_sub(t.files_done + t.files_failed);
                }
            }
            None => {
                files.total += target.lacks.files;
                bytes.total += target.lacks.bytes;
                if matches!(part, Part::GivenUp { .. }) {
                    files.failed += target.lacks.files;
                }
            }
        }
        if let Part::Running(t) = part {
            rate += t.bytes_per_second.unwrap_or(0);
            eta = eta.max(t.eta_seconds);
        }
    }

    let ended = parts.iter().all(|(_, p)| matches!(p, Part::Ended(_) | Part::GivenUp { .. } | Part::TooLate));
    let any_started = parts.iter().any(|(_, p)| !matches!(p, Part::NotStarted));
    let any_failed = files.failed > 0
        || parts.iter().any(|(_, p)| match p {
            Part::Ended(t) => t.phase == Some(TransferPhase::Failed),
            Part::GivenUp { .. } => true,
            Part::Running(_) | Part::NotStarted | Part::TooLate => false,
        });
    let phase = match (ended, any_started) {
        (true, _) if any_failed && files.done == 0 => JobPhase::Failed,
        (true, _) => JobPhase::Completed,
        (false, true) => JobPhase::Running,
        (false, false) => JobPhase::Pending,
    };
    let started_at = started_at.or_else(|| any_started.then_some(now));
    let seconds =
        started_at.map_or(0, |s| now.as_second().saturating_sub(s.as_second())).max(1).unsigned_abs();
    let bytes_per_second = match phase {
        JobPhase::Pending => None,
        JobPhase::Running => Some(rate),
        JobPhase::Completed | JobPhase::Failed => Some(bytes.done / seconds),
    };
    Progress {
        phase,
        files,
        bytes,
        bytes_per_second,
        eta_seconds: eta.filter(|_| phase == JobPhase::Running),
        started_at,
        completed_at: ended.then_some(now),
        message: message(phase, files, bytes, seconds, &parts),
        failures: failures(&parts, false),
        again_at: again_at.filter(|_| !ended),
    }
}

/// One target's part, and until when it may stay as it is.
fn part<'a>(
    turn: Option<Timestamp>,
    now: Timestamp,
    target: &TargetView,
    transfer: Option<&'a Transfer>,
    limits: &Limits,
    not_after: Option<Timestamp>,
) -> (Part<'a>, Option<Timestamp>) {
    let after = |from: Timestamp, limit: Duration| {
        let ms = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(from.as_millisecond().saturating_add(ms)).unwrap_or(Timestamp::MAX)
    };
    if let Some(t) = transfer
        && matches!(t.phase, Some(TransferPhase::Completed | TransferPhase::Failed))
    {
        return (Part::Ended(t), None);
    }
    if !target.exists {
        return (Part::GivenUp { transfer, why: format!("brick {} no longer exists", target.brick) }, None);
    }
    let pending = match transfer {
        Some(t) => Part::Running(t),
        None => Part::NotStarted,
    };
    if transfer.is_none() && not_after.is_some_and(|end| end <= now) {
        return (Part::TooLate, None);
    }
    let Some(turn) = turn else { return (pending, not_after) };
    match target.away_since {
        Some(since) => {
            let until = after(turn.max(since.min(now)), limits.unreachable_after);
            if now >= until {
                (Part::GivenUp { transfer, why: format!("{} is away", target.node) }, None)
            } else {
                (pending, Some(until).min(not_after.or(Some(until))))
            }
        }
        None if transfer.is_none() => {
            let until = after(turn, limits.start_within);
            if now >= until {
                (Part::GivenUp { transfer, why: format!("{} did not start", target.node) }, None)
            } else {
                (pending, Some(until).min(not_after.or(Some(until))))
            }
        }
        None => (pending, None),
    }
}

fn message(
    phase: JobPhase,
    files: JobFiles,
    bytes: JobBytes,
    seconds: u64,
    parts: &[(&TargetView, Part)],
) -> String {
    let waiting: Vec<&str> =
        parts.iter().filter(|(_, p)| matches!(p, Part::NotStarted)).map(|(t, _)| t.node.as_str()).collect();
    let mut text = match phase {
        JobPhase::Pending => return format!("waits for {}", waiting.join(", ")),
        JobPhase::Running => format!("{} of {} copied", files.done, human_files(files.total)),
        // A target that did not hear somebody cannot know that.
        JobPhase::Completed | JobPhase::Failed if files.total == 0 && failures(parts, true).is_some() => {
            "nothing was copied".to_string()
        }
        JobPhase::Completed | JobPhase::Failed if files.total == 0 => "nothing was left to copy".to_string(),
        JobPhase::Completed | JobPhase::Failed => {
            format!("{}, {} copied in {seconds}s", human_files(files.done), human_bytes(bytes.done))
        }
    };
    if phase == JobPhase::Running && !waiting.is_empty() {
        text.push_str(&format!("; waits for {}", waiting.join(", ")));
    }
    if let Some(failures) = failures(parts, true) {
        text.push_str("; failed: ");
        text.push_str(&failures);
    }
    let left = files.total.saturating_sub(files.done + files.failed);
    if phase.is_ended() && left > 0 {
        text.push_str(&format!("; {} left for the next heal: the policy's window closed", human_files(left)));
    }
    text
}

/// Failures by reason over all targets; with one example each, if a person reads no further.
fn failures(parts: &[(&TargetView, Part)], examples: bool) -> Option<String> {
    let mut by_reason: BTreeMap<Option<FailureReason>, (u64, &str)> = BTreeMap::new();
    let mut given_up = Vec::new();
    let mut away = 0;
    for (target, part) in parts {
        let transfer = match part {
            Part::Ended(t) | Part::Running(t) => Some(*t),
            Part::GivenUp { transfer, .. } => *transfer,
            Part::NotStarted | Part::TooLate => None,
        };
        for failure in transfer.map(|t| t.failures.as_slice()).unwrap_or_default() {
            let entry = by_reason.entry(failure.reason).or_insert((0, failure.message.as_str()));
            entry.0 += failure.count;
        }
        if let Part::GivenUp { transfer, why } = part {
            let left = transfer
                .map_or(target.lacks.files, |t| t.files_total.saturating_sub(t.files_done + t.files_failed));
            away += left;
            given_up.push(format!("{left} Unreachable ({why})"));
        }
    }
    if !examples && away > 0 {
        by_reason.entry(Some(FailureReason::Unreachable)).or_insert((0, "")).0 += away;
        given_up.clear();
    }
    let counted =
        by_reason.into_iter().filter(|(_, (count, example))| *count > 0 || examples && !example.is_empty());
    let lines: Vec<String> = counted
        .map(|(reason, (count, example))| {
            let reason = reason.map_or("Failed", FailureReason::as_str);
            match examples && !example.is_empty() {
                true if count == 0 => format!("{reason} ({example})"),
                true => format!("{count} {reason} ({example})"),
                false => format!("{count} {reason}"),
            }
        })
        .chain(given_up)
        .collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// Bytes and rate as a person reads them.
pub fn in_words(progress: &Progress) -> Option<String> {
    let rate = progress.bytes_per_second?;
    let JobBytes { done, total } = progress.bytes;
    Some(format!("{} of {}, {}/s", human_bytes(done), human_bytes(total), human_bytes(rate)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_crds::TransferFailure;
    use proptest::prelude::*;

    const LIMITS: Limits =
        Limits { unreachable_after: Duration::from_secs(60), start_within: Duration::from_secs(300) };

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn target(name: &str, files: u64) -> TargetView {
        TargetView {
            brick: format!("v.{name}"),
            node: name.into(),
            exists: true,
            away_since: None,
            lacks: Counts { files, bytes: files * 100, ..Counts::default() },
        }
    }

    fn transfer(name: &str, phase: TransferPhase, total: u64, done: u64, failed: u64) -> Transfer {
        Transfer {
            target: format!("v.{name}"),
            phase: Some(phase),
            files_total: total,
            files_done: done,
            files_failed: failed,
            bytes_total: total * 100,
            bytes_done: done * 100,
            bytes_per_second: Some(50),
            eta_seconds: Some(7),
            ..Transfer::default()
        }
    }

    #[test]
    fn pending_running_completed() {
        let targets = [target("a", 5), target("b", 2)];
        let p = progress(Some(at(0)), at(1), None, &targets, &[], &LIMITS, None);
        assert_eq!((p.phase, p.files.total, p.message.as_str()), (JobPhase::Pending, 7, "waits for a, b"));
        assert_eq!(p.again_at, Some(at(300)));

        let t = [transfer("a", TransferPhase::Running, 5, 3, 0)];
        let p = progress(Some(at(0)), at(2), None, &targets, &t, &LIMITS, None);
        assert_eq!((p.phase, p.started_at, p.eta_seconds), (JobPhase::Running, Some(at(2)), Some(7)));
        assert_eq!(p.message, "3 of 7 files copied; waits for b");
        assert_eq!(in_words(&p).as_deref(), Some("300 B of 700 B, 50 B/s"));

        let t = [
            transfer("a", TransferPhase::Completed, 5, 5, 0),
            transfer("b", TransferPhase::Completed, 2, 2, 0),
        ];
        let p = progress(Some(at(0)), at(9), Some(at(2)), &targets, &t, &LIMITS, None);
        assert_eq!(
            (p.phase, p.completed_at, p.bytes_per_second),
            (JobPhase::Completed, Some(at(9)), Some(100))
        );
        assert_eq!(p.message, "7 files, 700 B copied in 7s");
    }

    #[test]
    fn what_is_left_when_the_window_closes_has_not_failed() {
        let targets = [target("a", 5), target("b", 2)];
        let t = [transfer("a", TransferPhase::Completed, 5, 3, 1)];
        let before = progress(Some(at(0)), at(99), Some(at(1)), &targets, &t, &LIMITS, Some(at(100)));
        assert_eq!((before.phase, before.again_at), (JobPhase::Running, Some(at(100))));
        let p = progress(Some(at(0)), at(100), Some(at(1)), &targets, &t, &LIMITS, Some(at(100)));
        assert_eq!((p.phase, p.files), (JobPhase::Completed, JobFiles { done: 3, total: 7, failed: 1 }));
        let line = "3 files, 300 B copied in 99s; 3 files left for the next heal: the policy's window closed";
        assert_eq!(p.message, line);
        // One that had not begun by then, and one that goes on past it.
        let p = progress(Some(at(0)), at(100), None, &targets[1..], &[], &LIMITS, Some(at(100)));
        assert_eq!((p.phase, p.files.failed), (JobPhase::Completed, 0));
        let t = [transfer("a", TransferPhase::Running, 5, 3, 0)];
        let p = progress(Some(at(0)), at(101), Some(at(1)), &targets[..1], &t, &LIMITS, Some(at(100)));
        assert_eq!(p.phase, JobPhase::Running);
    }

    #[test]
    fn failures_by_reason_are_short_in_a_column() {
        let failure = |reason, count, message: &str| TransferFailure {
            reason: Some(reason),
            count,
            message: message.into(),
            next_try: None,
        };
        let mut targets = [target("a", 5), target("b", 2)];
        targets[1].away_since = Some(at(0));
        let mut t = transfer("a", TransferPhase::Completed, 5, 2, 3);
        t.failures =
            vec![failure(FailureReason::NoSpace, 2, "f"), failure(FailureReason::Unreachable, 1, "g")];
        let p = progress(Some(at(0)), at(60), Some(at(1)), &targets, &[t], &LIMITS, None);
        assert_eq!(p.failures.as_deref(), Some("3 Unreachable, 2 NoSpace"));
        assert!(
            p.message.ends_with("failed: 1 Unreachable (g), 2 NoSpace (f), 2 Unreachable (b is away)"),
            "{}",
            p.message
        );
    }

    #[test]
    fn an_away_target_counts_as_failed_after_the_limit_and_the_others_still_count() {
        let mut targets = [target("a", 5), target("b", 2)];
        targets[1].away_since = Some(at(-100));
        let t = [transfer("a", TransferPhase::Completed, 5, 5, 0)];
        let p = progress(Some(at(0)), at(59), Some(at(1)), &targets, &t, &LIMITS, None);
        assert_eq!((p.phase, p.again_at), (JobPhase::Running, Some(at(60))));
        let p = progress(Some(at(0)), at(60), Some(at(1)), &targets, &t, &LIMITS, None);
        assert_eq!((p.phase, p.files.failed), (JobPhase::Completed, 2));
        assert_eq!(p.message, "5 files, 500 B copied in 59s; failed: 2 Unreachable (b is away)");
    }

    #[test]
    fn failed_when_nothing_was_copied() {
        let mut targets = [target("b", 2)];
        targets[0].away_since = Some(at(0));
        let p = progress(Some(at(0)), at(60), None, &targets, &[], &LIMITS, None);
        assert_eq!((p.phase, p.files), (JobPhase::Failed, JobFiles { done: 0, total: 2, failed: 2 }));

        targets[0] = target("b", 2);
        let mut t = transfer("b", TransferPhase::Failed, 2, 0, 2);
        t.failures = vec![TransferFailure {
            reason: Some(FailureReason::NoSpace),
            count: 2,
            message: "disk full".into(),
            next_try: None,
        }];
        let p = progress(Some(at(0)), at(5), Some(at(1)), &targets, &[t], &LIMITS, None);
        assert_eq!(p.phase, JobPhase::Failed);
        assert_eq!(p.message, "0 files, 0 B copied in 4s; failed: 2 NoSpace (disk full)");
    }

    #[test]
    fn who_was_not_heard_is_named_and_nobody_reads_that_nothing_was_left() {
        let targets = [target("b", 0)];
        let mut t = transfer("b", TransferPhase::Completed, 0, 0, 0);
        let all = progress(Some(at(0)), at(5), Some(at(1)), &targets, &[t.clone()], &LIMITS, None);
        assert_eq!(all.message, "nothing was left to copy");
        t.failures = vec![TransferFailure {
            reason: Some(FailureReason::Unreachable),
            count: 0,
            message: "no answer from ws-a".into(),
            next_try: None,
        }];
        let p = progress(Some(at(0)), at(5), Some(at(1)), &targets, &[t], &LIMITS, None);
        assert_eq!((p.phase, p.files.failed), (JobPhase::Completed, 0));
        assert_eq!(p.message, "nothing was copied; failed: Unreachable (no answer from ws-a)");
    }

    #[test]
    fn who_does_not_start_or_is_gone_is_given_up() {
        let mut targets = [target("a", 1), target("b", 1)];
        targets[1].exists = false;
        let p = progress(Some(at(0)), at(300), None, &targets, &[], &LIMITS, None);
        assert_eq!(p.phase, JobPhase::Failed);
        assert!(
            p.message
                .ends_with("1 Unreachable (a did not start), 1 Unreachable (brick v.b no longer exists)")
        );
    }

    #[test]
    fn a_job_that_waits_for_another_is_not_given_up() {
        let p = progress(None, at(100_000), None, &[target("a", 1)], &[], &LIMITS, None);
        assert_eq!((p.phase, p.again_at), (JobPhase::Pending, None));
        let p = progress(Some(at(100_000)), at(100_001), None, &[target("a", 1)], &[], &LIMITS, None);
        assert_eq!((p.phase, p.again_at), (JobPhase::Pending, Some(at(100_300))));
    }

    #[test]
    fn no_target_is_completed() {
        let p = progress(Some(at(0)), at(1), None, &[], &[], &LIMITS, None);
        assert_eq!((p.phase, p.message.as_str()), (JobPhase::Completed, "nothing was pending"));
    }

    proptest! {
        #[test]
        fn every_job_ends_and_counts_add_up(
            list in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u64..9, proptest::option::of((0..3u8, 0u64..9, 0u64..9))), 0..6),
            now in 0i64..1000,
        ) {
            let mut targets = vec![];
            let mut transfers = vec![];
            for (i, (exists, away, lacks, t)) in list.iter().enumerate() {
                let mut view = target(&format!("n{i}"), *lacks);
                view.exists = *exists;
                view.away_since = away.then(|| at(0));
                targets.push(view);
                if let Some((phase, done, failed)) = t {
                    let phase = [TransferPhase::Running, TransferPhase::Completed, TransferPhase::Failed][usize::from(*phase)];
                    transfers.push(transfer(&format!("n{i}"), phase, done + failed + u64::from(phase == TransferPhase::Running), *done, *failed));
                }
            }
            let p = progress(Some(at(0)), at(now), None, &targets, &transfers, &LIMITS, None);
            prop_assert!(p.files.done + p.files.failed <= p.files.total);
            prop_assert_eq!(p.phase.is_ended(), p.completed_at.is_some());
            prop_assert!(!p.message.contains('\n'));
            if p.phase == JobPhase::Failed { prop_assert_eq!(p.files.done, 0); }
            // Long after, only targets that are online and copying can keep it open.
            let late = progress(Some(at(0)), at(100_000), None, &targets, &transfers, &LIMITS, None);
            let copying = targets.iter().any(|t| t.exists && t.away_since.is_none()
                && transfers.iter().any(|x| x.target == t.brick && x.phase == Some(TransferPhase::Running)));
            prop_assert_eq!(late.phase.is_ended(), !copying);
            // A job that waits says when to look again.
            if p.phase == JobPhase::Pending { prop_assert!(p.again_at.is_some_and(|a| a > at(now))); }
        }
    }
}
