//! Times that fields of the API name: schedules in a time zone, intervals, and windows. Pure: the time is the caller's.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::schedule::{CronSchedule, TimeWindow};

#[derive(Clone, Debug)]
pub(crate) enum Schedule {
    /// Every so often, counted from an anchor that does not move (the volume's creation), so that the
    /// times do not drift with the length of heals.
    Interval { text: String, every_ms: i64 },
    /// At certain times.
    Cron(Times),
}

/// Cron fields in a time zone.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    pub(crate) text: String,
    pub(crate) cron: Box<Cron>,
    pub(crate) zone: TimeZone,
}

/// Opens at these times, and stays open so long.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) start: Times,
    pub(crate) text: String,
    pub(crate) ms: i64,
}

/// Milliseconds of a duration such as `1h30m`; `what` names the field in the line for a person.
pub(crate) fn duration(text: &str, what: &str) -> Result<i64, String> {
    let time: Duration = kube::core::Duration::from_str(text)
        .map_err(|e| format!("{what} {text:?} cannot be read: {e}: write for example 10m"))?
        .into();
    Ok(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

pub(crate) fn later(at: Timestamp, ms: i64) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond().saturating_add(ms)).unwrap_or(if ms < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// The same number for the same text, in every version of this program.
pub(crate) fn spread(text: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv)
}

impl Times {
    pub(crate) fn parse(schedule: &CronSchedule) -> Result<Self, String> {
        let (text, zone_name) = (&schedule.schedule, schedule.time_zone.as_deref().unwrap_or("UTC"));
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
        let times = Times { text: text.clone(), cron: Box::new(cron), zone };
        if times.after(Timestamp::UNIX_EPOCH).is_none() {
            return Err(format!("the cron schedule {text:?} names a time that never comes: correct it"));
        }
        Ok(times)
    }

    pub(crate) fn after(&self, at: Timestamp) -> Option<Timestamp> {
        let from = at.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&from, false).ok().map(|z| z.timestamp())
    }

    pub(crate) fn describe(&self) -> String {
        format!("{} ({})", self.text, self.zone.iana_name().unwrap_or("UTC"))
    }
}

impl Window {
    pub(crate) fn parse(window: &TimeWindow) -> Result<Self, String> {
        let ms = duration(&window.duration, "the duration of a window")?;
        if ms <= 0 {
            return Err(format!(
                "a window of the duration {:?} never opens: write for example 8h",
                window.duration
            ));
        }
        Ok(Window { start: Times::parse(&window.start)?, text: window.duration.clone(), ms })
    }

    /// When it closes, if it is open: by its last start, for those before it close earlier.
    pub(crate) fn closes(&self, at: Timestamp) -> Option<Timestamp> {
        let start = self.start.cron.find_previous_occurrence(&at.to_zoned(self.start.zone.clone()), true);
        Some(later(start.ok()?.timestamp(), self.ms)).filter(|end| *end > at)
    }

    /// When it closed last, not after `at`.
    pub(crate) fn closed_before(&self, at: Timestamp) -> Option<Timestamp> {
        let began = later(at, self.ms.saturating_neg()).to_zoned(self.start.zone.clone());
        let start = self.start.cron.find_previous_occurrence(&began, true);
        Some(later(start.ok()?.timestamp(), self.ms))
    }
}

/// Whether a workstation is expected to be off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Until when, if it is.
    pub until: Option<Timestamp>,
    /// When a window in which it was closed last.
    pub last_closed: Option<Timestamp>,
}

/// Whether a workstation with these windows is expected to be off at `at`.
///
/// # Errors
/// One line for a person, about the first window that cannot be followed.
pub fn expected_off(windows: &[TimeWindow], at: Timestamp) -> Result<Expected, String> {
    let windows = windows.iter().map(Window::parse).collect::<Result<Vec<_>, _>>()?;
    let mut expected = Expected::default();
    for window in &windows {
        expected.until = expected.until.max(window.closes(at));
        expected.last_closed = expected.last_closed.max(window.closed_before(at));
    }
    Ok(expected)
}

impl Schedule {
    /// The first time after `at`, where all are later by `shift_ms`.
    pub(crate) fn tick_after(&self, at: Timestamp, anchor: Timestamp, shift_ms: i64) -> Option<Timestamp> {
        let at = later(at, -shift_ms);
        let tick = match self {
            Schedule::Interval { every_ms, .. } => {
                let past = at.as_millisecond().saturating_sub(anchor.as_millisecond());
                let ticks = past.div_euclid(*every_ms).checked_add(1)?;
                let next = anchor.as_millisecond().checked_add(ticks.checked_mul(*every_ms)?)?;
                Timestamp::from_millisecond(next).ok()?
            }
            Schedule::Cron(times) => times.after(at)?,
        };
        Some(later(tick, shift_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_workstation_is_expected_to_be_off_in_its_windows() {
        let window = |schedule: &str, long: &str| TimeWindow {
            start: CronSchedule { schedule: schedule.into(), time_zone: None },
            duration: long.into(),
        };
        // Each night, and the whole week-end from Friday.
        let windows = [window("0 22 * * *", "8h"), window("0 18 * * 5", "62h")];
        let of = |text: &str| expected_off(&windows, ts(text)).unwrap();
        let monday = Expected { until: None, last_closed: Some(ts("2026-03-09T08:00:00Z")) };
        assert_eq!(of("2026-03-09T08:00:00Z"), monday);
        assert_eq!(of("2026-03-09T21:59:00Z"), monday);
        assert_eq!(of("2026-03-09T22:00:00Z").until, Some(ts("2026-03-10T06:00:00Z")));
        assert_eq!(of("2026-03-08T12:00:00Z").until, Some(ts("2026-03-09T08:00:00Z")));
        assert_eq!(of("2026-03-10T12:00:00Z").last_closed, Some(ts("2026-03-10T06:00:00Z")));
        assert_eq!(expected_off(&[], ts("2026-03-10T12:00:00Z")), Ok(Expected::default()));
        let error = expected_off(&[window("0 22 * * *", "0s")], ts("2026-03-10T12:00:00Z")).unwrap_err();
        assert!(error.contains("never opens"), "{error}");
    }
}
