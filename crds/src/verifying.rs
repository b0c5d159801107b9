//! When bricks look through all that they hold: what `verifySchedule` means. Pure: the time is the caller's.

use jiff::Timestamp;

use crate::policy::HealPolicySpec;
use crate::times::{Schedule, Times, later, spread};

/// How often bricks look through all that they hold, where no schedule says it.
const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;
/// And for how long that says that all is well.
const MONTH_MS: i64 = 30 * 24 * 3600 * 1000;

/// When bricks look through all that they hold.
#[derive(Clone, Debug)]
pub struct Verifying {
    schedule: Schedule,
    anchor: Timestamp,
    shift_ms: i64,
}

impl Verifying {
    /// By `verifySchedule` of this policy; without one, each brick once a week. `anchor` is when the volume was made, `brick`
    /// tells bricks apart that are not to begin all at once then. `Err` is one line for a person.
    pub fn of(policy: Option<&HealPolicySpec>, anchor: Timestamp, brick: &str) -> Result<Self, String> {
        let every_ms = WEEK_MS;
        Ok(match policy.and_then(|p| p.verify_schedule.as_ref()) {
            Some(cron) => Verifying { schedule: Schedule::Cron(Times::parse(cron)?), anchor, shift_ms: 0 },
            None => Verifying {
                schedule: Schedule::Interval { text: "week".to_owned(), every_ms },
                anchor,
                shift_ms: i64::try_from(spread(brick) % every_ms.unsigned_abs()).unwrap_or(0),
            },
        })
    }

    /// Whether a brick is to begin now, whose last look began then.
    pub fn is_due(&self, last_began: Option<Timestamp>, now: Timestamp) -> bool {
        // A clock that was ahead does not hold it back.
        let since = last_began.map_or(self.anchor, |began| began.min(now));
        self.schedule.tick_after(since, self.anchor, self.shift_ms).is_some_and(|tick| tick <= now)
    }

    /// Until when a look that began then says that all is well: by the schedule two later ones should have begun by then;
    /// without one, 30 days.
    pub fn holds_until(&self, began: Timestamp) -> Option<Timestamp> {
        match &self.schedule {
            Schedule::Interval { .. } => Some(later(began, MONTH_MS)),
            Schedule::Cron(times) => times.after(times.after(began)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn policy(fields: &str) -> HealPolicySpec {
        serde_norway::from_str(fields).unwrap()
    }

    #[test]
    fn bricks_look_through_what_they_hold_once_a_week_or_by_the_schedule() {
        let anchor = ts("2026-11-02T00:00:00Z");
        let weekly = Verifying::of(None, anchor, "brick-a").unwrap();
        assert!(!weekly.is_due(None, anchor));
        assert!(weekly.is_due(None, ts("2026-11-09T00:00:00Z")), "within a week");
        let began = ts("2026-11-09T00:00:00Z");
        assert!(!weekly.is_due(Some(began), began));
        assert!(weekly.is_due(Some(began), ts("2026-11-16T00:00:00Z")));
        assert_eq!(weekly.holds_until(began), Some(ts("2026-12-09T00:00:00Z")));
        // A clock that was years ahead.
        assert!(weekly.is_due(None, ts("2036-11-16T00:00:00Z")));
        assert!(!weekly.is_due(Some(ts("2036-11-16T00:00:00Z")), began));

        let nightly = policy("verifySchedule: {schedule: '0 2 * * *'}");
        let nightly = Verifying::of(Some(&nightly), anchor, "brick-a").unwrap();
        let began = ts("2026-11-03T02:00:05Z");
        assert!(nightly.is_due(None, ts("2026-11-02T02:00:00Z")));
        assert!(!nightly.is_due(Some(began), ts("2026-11-04T01:59:59Z")));
        assert!(nightly.is_due(Some(began), ts("2026-11-04T02:00:00Z")));
        assert_eq!(nightly.holds_until(began), Some(ts("2026-11-05T02:00:00Z")));
        assert!(Verifying::of(Some(&policy("verifySchedule: {schedule: '0 2 * *'}")), anchor, "").is_err());
    }
}
