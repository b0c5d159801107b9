//! When heals happen: an interval, or cron fields in a time zone.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nearbrick_crds::HealPolicySpec;
use nearbrick_crds::policy::DEFAULT_INTERVAL;

/// A schedule that can be followed.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// Every so often, counted from an anchor that does not move (the volume's creation), so that the
    /// times are the same after a restart and do not drift with the length of heals.
    Interval {
        /// As the person wrote it.
        text: String,
        /// Milliseconds between two heals; at least 1.
        every_ms: i64,
    },
    /// At certain times.
    Cron {
        /// As the person wrote it.
        text: String,
        /// Parsed.
        cron: Box<Cron>,
        /// Where the fields are read.
        zone: TimeZone,
    },
}

impl Schedule {
    /// The schedule of a policy; the default where there is none. `Err` is one line for a person.
    pub fn parse(policy: Option<&HealPolicySpec>) -> Result<Self, String> {
        if let Some(cron) = policy.and_then(|p| p.cron.as_ref()) {
            return Self::cron(&cron.schedule, cron.time_zone.as_deref());
        }
        let text = policy.and_then(|p| p.interval.as_deref()).unwrap_or(DEFAULT_INTERVAL);
        let every: Duration = kube::core::Duration::from_str(text)
            .map_err(|e| format!("the interval {text:?} cannot be read: {e}: write for example 10m"))?
            .into();
        let every_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
        if every_ms < 1000 {
            return Err(format!("the interval {text:?} is shorter than one second: write for example 10m"));
        }
        Ok(Self::Interval { text: text.to_string(), every_ms })
    }

    fn cron(text: &str, zone: Option<&str>) -> Result<Self, String> {
        let zone_name = zone.unwrap_or("UTC");
        let zone = TimeZone::get(zone_name).map_err(|_| {
            format!("the time zone {zone_name:?} is not known: write an IANA name such as Europe/Berlin")
        })?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|e| {
            let why = e.to_string();
            format!(
                "the cron schedule {text:?} cannot be parsed: {}: write five fields such as \"0 18 * * 1-5\"",
                why.trim_end_matches('.')
            )
        })?;
        let schedule = Self::Cron { text: text.to_string(), cron: Box::new(cron), zone };
        if schedule.next_after(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH).is_none() {
            return Err(format!("the cron schedule {text:?} names a time that never comes: correct it"));
        }
        Ok(schedule)
    }

    /// The first time of the schedule after `at`. `anchor` is where intervals are counted from.
    pub fn next_after(&self, at: Timestamp, anchor: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Interval { every_ms, text: _ } => {
                let past = at.as_millisecond().saturating_sub(anchor.as_millisecond());
                let ticks = past.div_euclid(*every_ms).checked_add(1)?;
                let next = anchor.as_millisecond().checked_add(ticks.checked_mul(*every_ms)?)?;
                Timestamp::from_millisecond(next).ok()
            }
            Self::Cron { cron, zone, text: _ } => {
                let from = at.to_zoned(zone.clone());
                cron.find_next_occurrence(&from, false).ok().map(|z| z.timestamp())
            }
        }
    }

    /// In words, for a column.
    pub fn describe(&self) -> String {
        match self {
            Self::Interval { text, .. } => format!("every {text}"),
            Self::Cron { text, zone, .. } => {
                format!("{text} ({})", zone.iana_name().unwrap_or("UTC"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_crds::CronSchedule;
    use proptest::prelude::*;

    fn ts(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn interval(text: &str) -> Schedule {
        let policy = HealPolicySpec { interval: Some(text.into()), ..HealPolicySpec::default() };
        Schedule::parse(Some(&policy)).unwrap()
    }

    fn cron(text: &str, zone: Option<&str>) -> Result<Schedule, String> {
        let cron = CronSchedule { schedule: text.into(), time_zone: zone.map(Into::into) };
        let policy = HealPolicySpec { cron: Some(cron), ..HealPolicySpec::default() };
        Schedule::parse(Some(&policy))
    }

    #[test]
    fn ten_minutes_without_a_policy() {
        let s = Schedule::parse(None).unwrap();
        assert_eq!(s.describe(), "every 10m");
        let anchor = ts("2026-11-01T00:00:03Z");
        assert_eq!(s.next_after(ts("2026-11-01T00:10:02Z"), anchor), Some(ts("2026-11-01T00:10:03Z")));
        assert_eq!(s.next_after(ts("2026-11-01T00:10:03Z"), anchor), Some(ts("2026-11-01T00:20:03Z")));
    }

    #[test]
    fn cron_in_its_time_zone_and_over_the_change_of_clocks() {
        let s = cron("0 18 * * 1-5", Some("Europe/Berlin")).unwrap();
        assert_eq!(s.describe(), "0 18 * * 1-5 (Europe/Berlin)");
        let none = Timestamp::UNIX_EPOCH;
        // Friday, summer time; then Monday, winter time.
        assert_eq!(s.next_after(ts("2026-10-23T15:00:00Z"), none), Some(ts("2026-10-23T16:00:00Z")));
        assert_eq!(s.next_after(ts("2026-10-23T16:00:00Z"), none), Some(ts("2026-10-26T17:00:00Z")));
        assert!(cron("@daily", None).is_ok());
        assert!(cron("*/5 * * * *", None).is_ok());
    }

    #[test]
    fn what_cannot_be_followed_is_said_in_one_line() {
        for (text, zone, part) in [
            ("61 * * * *", None, "cannot be parsed"),
            ("a b c d e", None, "cannot be parsed"),
            ("* * * * * *", None, "cannot be parsed"),
            ("0 0 31 2 *", None, "never comes"),
            ("0 0 * * *", Some("Mars/Olympus"), "time zone \"Mars/Olympus\" is not known"),
        ] {
            let line = cron(text, zone).unwrap_err();
            assert!(line.contains(part), "{line}");
            assert!(!line.contains('\n'));
        }
        let short = HealPolicySpec { interval: Some("10ms".into()), ..HealPolicySpec::default() };
        assert!(Schedule::parse(Some(&short)).unwrap_err().contains("shorter than one second"));
    }

    proptest! {
        #[test]
        fn ticks_of_an_interval_are_after_now_and_one_interval_apart(
            now in -4_000_000_000_000i64..4_000_000_000_000,
            anchor in 0i64..4_000_000_000_000,
            seconds in 1i64..1_000_000,
        ) {
            let s = interval(&format!("{seconds}s"));
            let (now, anchor) = (Timestamp::from_millisecond(now).unwrap(), Timestamp::from_millisecond(anchor).unwrap());
            let next = s.next_after(now, anchor).unwrap();
            prop_assert!(next > now);
            prop_assert!(next.as_millisecond() - now.as_millisecond() <= seconds * 1000);
            prop_assert_eq!((next.as_millisecond() - anchor.as_millisecond()).rem_euclid(seconds * 1000), 0);
        }
    }
}
