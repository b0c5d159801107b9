//! Whether what may be lost is within the policy's limits.

use jiff::Timestamp;
use nearbrick_crds::condition::{Finding, LOSS_BOUNDED, Status};
use nearbrick_crds::timetable::{Timetable, Waiting};

/// What the finding rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The policy's times and limits.
    pub timetable: &'a Timetable,
    /// What waits, by all reports, also of silent agents.
    pub waiting: &'a Waiting,
    /// Bricks that lack something and cannot work at present.
    pub away: &'a [String],
    /// Whether a job has not ended.
    pub active: bool,
    /// Whether the policy is paused.
    pub paused: bool,
    /// The operator's clock.
    pub now: Timestamp,
}

/// The condition; none where the policy sets no limit. It says no ages, so that nothing is written while only time
/// goes by.
pub fn bounded(input: &Input) -> Option<Finding> {
    let Input { timetable, waiting, away, active, paused, now } = *input;
    if !timetable.has_limits() {
        return None;
    }
    let too_old = timetable.too_old_at(waiting).is_some_and(|at| at < now);
    let (reason, what) = match (too_old, timetable.too_many_bytes(waiting)) {
        (true, _) => ("TooOld", "files have been pending for longer than maxPendingAge"),
        (false, true) => ("TooManyBytes", "more is pending than maxPendingBytes"),
        (false, false) => {
            let line = "no more is pending, and for no longer, than the policy allows";
            return Some(Finding::new(LOSS_BOUNDED, Status::True, "WithinLimits", line));
        }
    };
    let why = if !away.is_empty() {
        format!("{} cannot be reached or used: see its Brick", away.join(", "))
    } else if paused {
        "the policy is paused".to_string()
    } else if !timetable.is_open(now) {
        "no window of the policy is open: trigger a heal, or add a window".to_string()
    } else if active {
        "a heal runs; if this comes often, raise bandwidth or the limit".to_string()
    } else {
        "see the last HealJob for what could not be copied".to_string()
    };
    Some(Finding::new(LOSS_BOUNDED, Status::False, reason, format!("{what}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_whether_the_limits_hold_and_why_not() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let table = |fields: &str| {
            let policy = serde_json::from_str(fields).unwrap();
            Timetable::of(Some(&policy), at(0), "uid").unwrap()
        };
        let both = table(r#"{"maxPendingAge": "1h", "maxPendingBytes": "1Ki"}"#);
        let waits = |bytes| Waiting { bytes, oldest: Some(at(0)), ..Waiting::default() };
        let say = |timetable: &Timetable, bytes, now, away: &[String], active| {
            let input =
                Input { timetable, waiting: &waits(bytes), away, active, paused: false, now: at(now) };
            bounded(&input).map(|f| (f.status, f.reason, f.message))
        };
        assert_eq!(say(&table("{}"), 1 << 40, 1 << 20, &[], false), None);
        assert_eq!(say(&both, 1024, 3600, &[], false).unwrap().0, Status::True);
        let (status, reason, line) = say(&both, 1025, 3600, &[], true).unwrap();
        assert_eq!((status, reason), (Status::False, "TooManyBytes"));
        assert!(line.contains("a heal runs"), "{line}");
        let (_, reason, line) = say(&both, 1, 3601, &["home.ws-b".to_string()], false).unwrap();
        assert_eq!(reason, "TooOld");
        assert!(line.contains("home.ws-b cannot be reached"), "{line}");
        let night = table(
            r#"{"maxPendingAge": "1h", "windows": [{"start": {"schedule": "0 3 * * *"}, "duration": "1h"}]}"#,
        );
        assert!(say(&night, 1, 3601, &[], false).unwrap().2.contains("no window"));
    }
}
