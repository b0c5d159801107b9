//! Whether a workstation is online, away or lost.
//!
//! The clock of the workstation does not matter: what counts is for how long the operator, by its own
//! clock, has seen the same `lastSeen`. An operator that has just started has seen nothing change yet;
//! it believes the state that is written, and gives an agent the full time before it says Away.

use std::time::Duration;

use jiff::Timestamp;
use nearbrick_crds::WorkstationState;
use nearbrick_crds::times::Expected;

/// What the operator knows of an agent's reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether the agent has ever reported.
    pub ever: bool,
    /// For how long `lastSeen` has been what it is, by the operator's clock.
    pub unchanged_for: Duration,
    /// Whether the operator has seen `lastSeen` change, and has not only found it.
    pub changed_before_my_eyes: bool,
    /// Whether Ready is the agent's own word: an operator that says Away says Unknown, and the agent's next report takes it back.
    pub has_spoken: bool,
}

/// The judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The state.
    pub state: WorkstationState,
    /// When it has to be judged again, if no report comes before.
    pub again_in: Option<Duration>,
}

/// Judges a workstation.
pub fn judge(lost: bool, written: Option<WorkstationState>, seen: Seen, away_after: Duration) -> Judgement {
    let settled = |state| Judgement { state, again_in: None };
    if lost {
        return settled(WorkstationState::Lost);
    }
    let was_away = matches!(written, Some(WorkstationState::Away | WorkstationState::Lost));
    if !seen.ever || (was_away && !seen.changed_before_my_eyes && !seen.has_spoken) {
        return settled(WorkstationState::Away);
    }
    match away_after.checked_sub(seen.unchanged_for) {
        Some(left) if !left.is_zero() => Judgement { state: WorkstationState::Online, again_in: Some(left) },
        _ => settled(WorkstationState::Away),
    }
}

/// Whether the copies of a workstation that is silent are to be made elsewhere, and if not, when that would be.
///
/// `after` is the time that the volume allows; none: for ever. The time in which the workstation is expected to be off does not
/// count, nor what was before: who is off each week-end has the whole time from Monday on.
pub fn is_to_be_replaced(
    silent_since: Option<Timestamp>,
    expected: Expected,
    after: Option<Duration>,
    now: Timestamp,
) -> (bool, Option<Duration>) {
    let (Some(since), Some(after)) = (silent_since, after) else { return (false, None) };
    let wait = |until: Timestamp| Duration::try_from(until.duration_since(now)).unwrap_or_default();
    if let Some(until) = expected.until {
        return (false, Some(wait(until)));
    }
    let since = expected.last_closed.map_or(since, |closed| closed.max(since));
    let due = since.checked_add(after).unwrap_or(Timestamp::MAX);
    (due <= now, (due > now).then(|| wait(due)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use WorkstationState::{Away, Lost, Online};

    const AFTER: Duration = Duration::from_secs(40);

    fn seen(ever: bool, secs: u64, changed: bool) -> Seen {
        Seen {
            ever,
            unchanged_for: Duration::from_secs(secs),
            changed_before_my_eyes: changed,
            has_spoken: false,
        }
    }

    #[test]
    fn table() {
        for (lost, written, s, expected) in [
            // Never reported.
            (false, None, seen(false, 0, false), Away),
            // Reports.
            (false, None, seen(true, 0, false), Online),
            (false, Some(Online), seen(true, 39, true), Online),
            // Silent.
            (false, Some(Online), seen(true, 40, true), Away),
            (false, Some(Online), seen(true, 4000, false), Away),
            // A new operator believes what is written...
            (false, Some(Away), seen(true, 0, false), Away),
            (false, Some(Online), seen(true, 0, false), Online),
            // ...until the agent reports, or has reported since that was written.
            (false, Some(Away), seen(true, 0, true), Online),
            (false, Some(Away), Seen { has_spoken: true, ..seen(true, 0, false) }, Online),
            (false, Some(Away), Seen { has_spoken: true, ..seen(true, 40, false) }, Away),
            // A person's word counts most, and can be taken back.
            (true, Some(Online), seen(true, 0, true), Lost),
            (false, Some(Lost), seen(true, 0, false), Away),
            (false, Some(Lost), seen(true, 0, true), Online),
        ] {
            assert_eq!(judge(lost, written, s, AFTER).state, expected, "{lost} {written:?} {s:?}");
        }
    }

    #[test]
    fn copies_are_made_elsewhere_only_after_the_time_that_the_volume_allows() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let hour = Some(Duration::from_secs(3600));
        let none = Expected::default();
        let minutes = |n: u64| Some(Duration::from_secs(60 * n));
        for (silent, expected, after, now, wanted) in [
            (None, none, hour, 9000, (false, None)),
            (Some(0), none, None, i64::from(u32::MAX), (false, None)),
            (Some(0), none, hour, 1800, (false, minutes(30))),
            (Some(0), none, hour, 3600, (true, None)),
            // In a window, and for an hour after it.
            (
                Some(0),
                Expected { until: Some(at(9600)), last_closed: None },
                hour,
                9000,
                (false, minutes(10)),
            ),
            (
                Some(0),
                Expected { until: None, last_closed: Some(at(9000)) },
                hour,
                9000,
                (false, minutes(60)),
            ),
            (Some(0), Expected { until: None, last_closed: Some(at(9000)) }, hour, 12_600, (true, None)),
            // A window before it went changes nothing.
            (Some(9000), Expected { until: None, last_closed: Some(at(60)) }, hour, 12_600, (true, None)),
        ] {
            let found = is_to_be_replaced(silent.map(at), expected, after, at(now));
            assert_eq!(found, wanted, "{silent:?} {expected:?} {after:?} {now}");
        }
    }

    #[test]
    fn an_online_workstation_is_judged_again_when_its_time_is_over() {
        let j = judge(false, Some(Online), seen(true, 30, true), AFTER);
        assert_eq!(j.again_in, Some(Duration::from_secs(10)));
    }
}
