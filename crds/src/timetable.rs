//! When heals start: what the fields of a `HealPolicy` about time and about what may be lost mean. The
//! operator makes jobs by it, and an agent goes by the same when no job comes. Pure: the time is the caller's.
//!
//! Invariants:
//! - the answer needs no memory: what waits and the last run decide, so it is the same after a restart;
//! - nothing starts while no window is open;
//! - what the last run left over never makes heals follow each other without a pause.

use jiff::Timestamp;

use crate::policy::{DEFAULT_INTERVAL, HealPolicySpec};
use crate::quantity;
use crate::times::{Schedule, Times, Window, duration, later, spread};

/// From a decision to the first byte: reports are gathered for a second, then a job is made and taken up.
const REACTION_MS: i64 = 5_000;
/// What is assumed of a heal before one was measured: bytes in a second.
const USUAL_BYTES: u64 = 20 << 20;
/// And files in a second.
const USUAL_FILES: u64 = 200;
/// The longest pause before what a run left over counts again towards the limits.
const LEFT_OVER_MS: i64 = 300_000;
/// The shortest.
const LEFT_OVER_LEAST_MS: i64 = 10_000;
/// Windows that follow each other, and times of a schedule that no window keeps, that are looked at.
const LOOKS: usize = 500;
/// By how much a workstation's clock may be ahead; times further in the future say nothing.
const AHEAD_MS: i64 = 60_000;

/// When heals of one volume start.
#[derive(Clone, Debug)]
pub struct Timetable {
    schedule: Schedule,
    /// Where intervals are counted from.
    anchor: Timestamp,
    /// By how much this volume's times are later than the schedule's.
    shift_ms: i64,
    windows: Vec<Window>,
    deadline_ms: Option<i64>,
    settled_ms: Option<i64>,
    max_age_ms: Option<i64>,
    max_bytes: Option<u64>,
    bandwidth: Option<u64>,
}

/// What waits to be copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Bytes, over all bricks that lack them.
    pub bytes: u64,
    /// Files that the brick lacks which lacks most.
    pub most_files: u64,
    /// Bytes that the brick lacks which lacks most.
    pub most_bytes: u64,
    /// Since when the oldest waits.
    pub oldest: Option<Timestamp>,
    /// Since when the newest does.
    pub newest: Option<Timestamp>,
}

/// The last run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastRun {
    /// When it was made: what waits since before then is what it left over.
    pub began: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// How fast heals of the volume were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Bytes in a second to one brick, where many bytes came.
    pub bytes: Option<u64>,
    /// Files in a second to one brick, where many files came.
    pub files: Option<u64>,
}

/// Why a heal starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A time of the schedule.
    Schedule,
    /// Nothing was written for as long as `whenSettled` says.
    Settled,
    /// `maxPendingAge` would not hold otherwise.
    Age,
    /// `maxPendingBytes` would not.
    Bytes,
}

/// The next heal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When it starts; in the past: at once.
    pub at: Timestamp,
    /// Why.
    pub why: Why,
}

impl Timetable {
    /// By this policy; without one, every ten minutes. `anchor` is when the volume was made, `uid` tells
    /// volumes apart whose heals are not to start all at once. `Err` is one line for a person.
    pub fn of(policy: Option<&HealPolicySpec>, anchor: Timestamp, uid: &str) -> Result<Self, String> {
        let default = HealPolicySpec::default();
        let policy = policy.unwrap_or(&default);
        let optional = |text: &Option<String>, what| text.as_deref().map(|t| duration(t, what)).transpose();
        let bytes = |text: &Option<String>, what| match text.as_deref() {
            None => Ok(None),
            Some(t) => match quantity::bytes(t).filter(|n| *n > 0) {
                Some(n) => Ok(Some(n)),
                None => Err(format!("{what} {t:?} is no number of bytes: write for example 10Gi")),
            },
        };
        let schedule = match &policy.cron {
            Some(cron) => Schedule::Cron(Times::parse(cron)?),
            None => {
                let text = policy.interval.as_deref().unwrap_or(DEFAULT_INTERVAL);
                let every_ms = duration(text, "the interval")?;
                if every_ms < 1000 {
                    return Err(format!(
                        "the interval {text:?} is shorter than one second: write for example 10m"
                    ));
                }
                Schedule::Interval { text: text.to_owned(), every_ms }
            }
        };
        let jitter = optional(&policy.jitter, "jitter")?.unwrap_or(0).unsigned_abs();
        Ok(Timetable {
            schedule,
            anchor,
            shift_ms: i64::try_from(spread(uid) % jitter.saturating_add(1)).unwrap_or(0),
            windows: policy.windows.iter().map(Window::parse).collect::<Result<_, _>>()?,
            deadline_ms: optional(&policy.starting_deadline, "startingDeadline")?,
            settled_ms: optional(&policy.when_settled, "whenSettled")?,
            max_age_ms: optional(&policy.max_pending_age, "maxPendingAge")?,
            max_bytes: bytes(&policy.max_pending_bytes, "maxPendingBytes")?,
            bandwidth: bytes(&policy.bandwidth, "bandwidth")?,
        })
    }

    /// In words, for a column.
    pub fn describe(&self) -> String {
        let mut text = match &self.schedule {
            Schedule::Interval { text, .. } => format!("every {text}"),
            Schedule::Cron(times) => times.describe(),
        };
        if let Some(ms) = self.settled_ms {
            text.push_str(&format!(", and when nothing was written for {} s", ms / 1000));
        }
        let windows: Vec<_> =
            self.windows.iter().map(|w| format!("{} for {}", w.start.describe(), w.text)).collect();
        if !windows.is_empty() {
            text.push_str(&format!(", within {}", windows.join(" and ")));
        }
        text
    }

    /// The first time of the schedule after `at`.
    pub fn tick_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.schedule.tick_after(at, self.anchor, self.shift_ms)
    }

    /// Whether a heal may start or go on at this time.
    pub fn is_open(&self, at: Timestamp) -> bool {
        self.windows.is_empty() || self.windows.iter().any(|w| w.closes(at).is_some())
    }

    /// Until when a heal that starts at `at` may go on; none: as long as it takes.
    pub fn closes(&self, at: Timestamp) -> Option<Timestamp> {
        if self.windows.is_empty() {
            return None;
        }
        // Windows that overlap or follow each other are one.
        let mut end = at;
        for _ in 0..LOOKS {
            match self.windows.iter().filter_map(|w| w.closes(end)).max().filter(|e| *e > end) {
                Some(next) => end = next,
                None => return Some(end),
            }
        }
        None
    }

    /// When a heal may start that is due at `at`.
    fn opens(&self, at: Timestamp) -> Option<Timestamp> {
        if self.is_open(at) {
            return Some(at);
        }
        self.windows.iter().filter_map(|w| w.start.after(at)).min()
    }

    /// When the next heal starts, and why; none if the schedule and the windows never meet.
    pub fn next(&self, waiting: &Waiting, last: LastRun, speed: Speed, now: Timestamp) -> Option<Due> {
        // A clock that is wrong may neither hold back heals nor make one follow the other.
        let sane = |t: Option<Timestamp>| t.filter(|t| *t <= later(now, AHEAD_MS)).map(|t| t.min(now));
        let waiting = &Waiting { oldest: sane(waiting.oldest), newest: sane(waiting.newest), ..*waiting };
        let limits = [self.by_age(waiting, last, speed, now), self.by_bytes(waiting, last, speed, now)];
        let others = [self.by_schedule(waiting, last, now), self.when_settled(waiting, last)];
        // Of several that are over, the one that says most.
        let rank = |due: &Due| (due.at.max(now), std::cmp::Reverse(due.why));
        limits.into_iter().chain(others).flatten().min_by_key(rank)
    }

    fn by_schedule(&self, waiting: &Waiting, last: LastRun, now: Timestamp) -> Option<Due> {
        let due = |at| Due { at, why: Why::Schedule };
        let since = [waiting.oldest, last.began, last.ended].into_iter().flatten().max().map(|t| t.min(now));
        let Some(since) = since else { return self.opens(now).map(due) };
        let Some(deadline) = self.deadline_ms else { return self.opens(self.tick_after(since)?).map(due) };
        let mut from = since.max(later(now, -deadline - 1));
        for _ in 0..LOOKS {
            let tick = self.tick_after(from)?;
            let at = self.opens(tick)?;
            if at <= later(tick, deadline) {
                return Some(due(at));
            }
            from = tick;
        }
        None
    }

    fn when_settled(&self, waiting: &Waiting, last: LastRun) -> Option<Due> {
        let newest = waiting.newest?;
        // What the last run left over waits for the schedule.
        if last.began.is_some_and(|began| newest <= began) {
            return None;
        }
        let at = self.opens(later(newest, self.settled_ms?))?;
        Some(Due { at, why: Why::Settled })
    }

    /// Early enough that the oldest file is copied before it is too old.
    fn by_age(&self, waiting: &Waiting, last: LastRun, speed: Speed, now: Timestamp) -> Option<Due> {
        let (max, oldest) = (self.max_age_ms?, waiting.oldest?);
        let lead = self.lead(waiting, speed);
        let left_over = last.began.filter(|began| oldest < *began);
        // Behind what was left over there may be files that came right after that run was made.
        let at = later(left_over.unwrap_or(oldest), max.saturating_sub(lead));
        let not_before = left_over.map(|_| pause(last, (max / 4).min(LEFT_OVER_MS)));
        let at = self.in_time(at, lead, not_before.map_or(now, |t| t.max(now)))?;
        Some(Due { at, why: Why::Age })
    }

    /// The last time in a window, not before `from`, that is not after `at`; where a window ends before that, so long
    /// before its end as a heal takes. If no window is open in time: the first.
    fn in_time(&self, at: Timestamp, lead: i64, from: Timestamp) -> Option<Timestamp> {
        let mut open = self.opens(from)?;
        for _ in 0..LOOKS {
            let Some(end) = self.closes(open).filter(|end| *end <= at) else { break };
            match self.opens(end).filter(|next| *next <= at) {
                Some(next) => open = next,
                None => return Some(later(end, -lead).max(open)),
            }
        }
        Some(at.max(open))
    }

    /// When so much waits that by the time it is copied it would be too much, at the rate at which it came.
    fn by_bytes(&self, waiting: &Waiting, last: LastRun, speed: Speed, now: Timestamp) -> Option<Due> {
        let max = self.max_bytes?;
        let oldest = waiting.oldest.unwrap_or(now);
        let left_over = last.began.is_some_and(|began| waiting.oldest.is_none_or(|oldest| oldest < began));
        let age = now.as_millisecond().saturating_sub(oldest.as_millisecond()).max(1000);
        let coming = match left_over {
            true => 0,
            false => {
                // What is known is as old as the last report, and the end is known as late.
                let ms = u128::from(self.lead(waiting, speed).saturating_add(REACTION_MS).unsigned_abs());
                u128::from(waiting.bytes) * ms / u128::from(age.unsigned_abs())
            }
        };
        if u128::from(waiting.bytes) + coming.min(u128::from(max) / 2) < u128::from(max) {
            return None;
        }
        let at = if left_over { now.max(pause(last, LEFT_OVER_MS)) } else { now };
        Some(Due { at: self.opens(at)?, why: Why::Bytes })
    }

    /// How long before its end a heal of this has to be decided: as long as it will take, and half of that again.
    fn lead(&self, waiting: &Waiting, speed: Speed) -> i64 {
        let bytes = speed.bytes.unwrap_or(USUAL_BYTES).min(self.bandwidth.unwrap_or(u64::MAX)).max(1);
        let files = speed.files.unwrap_or(USUAL_FILES).max(1);
        let ms = u128::from(waiting.most_bytes) * 1000 / u128::from(bytes)
            + u128::from(waiting.most_files) * 1000 / u128::from(files);
        i64::try_from(ms * 3 / 2).unwrap_or(i64::MAX).saturating_add(REACTION_MS)
    }

    /// Until when `maxPendingAge` holds for what waits.
    pub fn too_old_at(&self, waiting: &Waiting) -> Option<Timestamp> {
        Some(later(waiting.oldest?, self.max_age_ms?))
    }

    /// Whether more waits than `maxPendingBytes`.
    pub fn too_many_bytes(&self, waiting: &Waiting) -> bool {
        self.max_bytes.is_some_and(|max| waiting.bytes > max)
    }

    /// Whether the policy bounds what may be lost.
    pub fn has_limits(&self) -> bool {
        self.max_age_ms.is_some() || self.max_bytes.is_some()
    }
}

/// The first time at which what the last run left over counts again.
fn pause(last: LastRun, ms: i64) -> Timestamp {
    let end = last.ended.max(last.began).unwrap_or(Timestamp::MIN);
    later(end, ms.max(LEFT_OVER_LEAST_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: i64 = 60;

    fn ts(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn policy(fields: &str) -> HealPolicySpec {
        serde_norway::from_str(fields).unwrap()
    }

    fn table(fields: &str) -> Timetable {
        Timetable::of(Some(&policy(fields)), at(0), "uid").unwrap()
    }

    fn waits(oldest: i64, newest: i64, bytes: u64) -> Waiting {
        let (oldest, newest) = (Some(at(oldest)), Some(at(newest)));
        Waiting { bytes, most_files: 1, most_bytes: bytes, oldest, newest }
    }

    fn ran(began: i64, ended: i64) -> LastRun {
        LastRun { began: Some(at(began)), ended: Some(at(ended)) }
    }

    fn next(table: &Timetable, waiting: &Waiting, last: LastRun, now: i64) -> Option<(i64, Why)> {
        table.next(waiting, last, Speed::default(), at(now)).map(|due| (due.at.as_second(), due.why))
    }

    #[test]
    fn ten_minutes_without_a_policy() {
        let anchor = ts("2026-11-01T00:00:03Z");
        let t = Timetable::of(None, anchor, "uid").unwrap();
        assert_eq!(t.describe(), "every 10m");
        assert_eq!(t.tick_after(ts("2026-11-01T00:10:02Z")), Some(ts("2026-11-01T00:10:03Z")));
        assert_eq!(t.tick_after(ts("2026-11-01T00:10:03Z")), Some(ts("2026-11-01T00:20:03Z")));
    }

    #[test]
    fn cron_in_its_time_zone_and_over_the_change_of_clocks() {
        let t = table("cron: {schedule: 0 18 * * 1-5, timeZone: Europe/Berlin}");
        assert_eq!(t.describe(), "0 18 * * 1-5 (Europe/Berlin)");
        // Friday, summer time; then Monday, winter time.
        assert_eq!(t.tick_after(ts("2026-10-23T15:00:00Z")), Some(ts("2026-10-23T16:00:00Z")));
        assert_eq!(t.tick_after(ts("2026-10-23T16:00:00Z")), Some(ts("2026-10-26T17:00:00Z")));
        table("cron: {schedule: '@daily'}");
        table("cron: {schedule: '*/5 * * * *'}");
    }

    #[test]
    fn what_cannot_be_followed_is_said_in_one_line() {
        for (fields, part) in [
            ("cron: {schedule: 61 * * * *}", "cannot be parsed"),
            ("cron: {schedule: a b c d e}", "cannot be parsed"),
            ("cron: {schedule: '* * * * * *'}", "cannot be parsed"),
            ("cron: {schedule: 0 0 31 2 *}", "never comes"),
            (
                "cron: {schedule: 0 0 * * *, timeZone: Mars/Olympus}",
                "time zone \"Mars/Olympus\" is not known",
            ),
            ("interval: 10ms", "shorter than one second"),
            ("windows: [{start: {schedule: 0 0 * * *}, duration: 0s}]", "never opens"),
            ("windows: [{start: {schedule: 0 0 31 2 *}, duration: 1h}]", "never comes"),
            ("maxPendingAge: old", "maxPendingAge \"old\" cannot be read"),
            ("maxPendingBytes: many", "maxPendingBytes \"many\" is no number of bytes"),
        ] {
            let line = Timetable::of(Some(&policy(fields)), at(0), "uid").unwrap_err();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn windows_are_of_their_time_zone_over_midnight_and_over_the_change_of_clocks() {
        let t = table("windows: [{start: {schedule: 0 22 * * *, timeZone: Europe/Berlin}, duration: 8h}]");
        assert_eq!(t.describe(), "every 10m, within 0 22 * * * (Europe/Berlin) for 8h");
        for (time, open) in [
            ("2026-11-01T20:59:59Z", false),
            ("2026-11-01T21:00:00Z", true),
            ("2026-11-02T04:59:59Z", true),
            ("2026-11-02T05:00:00Z", false),
            ("2026-07-01T20:00:00Z", true),
            ("2026-07-01T19:59:59Z", false),
        ] {
            assert_eq!(t.is_open(ts(time)), open, "{time}");
        }
        assert_eq!(t.closes(ts("2026-11-02T01:00:00Z")), Some(ts("2026-11-02T05:00:00Z")));
        // What is due at noon starts when the window opens.
        let noon = ts("2026-11-01T12:00:00Z");
        let waiting = Waiting { oldest: Some(noon), ..Waiting::default() };
        let due = t.next(&waiting, LastRun::default(), Speed::default(), noon).unwrap();
        assert_eq!(due.at, ts("2026-11-01T21:00:00Z"));
    }

    #[test]
    fn windows_that_follow_each_other_are_one_and_always_open_ones_never_close() {
        let window = |start: &str, long: &str| format!("{{start: {{schedule: {start}}}, duration: {long}}}");
        let t = table(&format!("windows: [{}, {}]", window("0 1 * * *", "2h"), window("30 2 * * *", "90m")));
        assert_eq!(t.closes(ts("2026-11-01T01:10:00Z")), Some(ts("2026-11-01T04:00:00Z")));
        let t = table(&format!("windows: [{}]", window("'@daily'", "24h")));
        assert_eq!(t.closes(at(1_000_000)), None);
        assert_eq!(table("{}").closes(at(5)), None);
    }

    #[test]
    fn jitter_spreads_volumes_and_each_keeps_its_times() {
        let p = policy("{interval: 10m, jitter: 5m}");
        let of = |uid: &str| Timetable::of(Some(&p), at(0), uid).unwrap().tick_after(at(1_000_000)).unwrap();
        let all: std::collections::BTreeSet<_> = (0..50).map(|n| of(&format!("volume-{n}"))).collect();
        assert!(all.len() > 40, "{} different times of 50", all.len());
        assert_eq!(of("volume-1"), of("volume-1"));
        for tick in all {
            assert!(tick > at(1_000_000) && tick <= at(1_000_000 + 15 * MINUTE));
        }
    }

    #[test]
    fn a_time_that_was_missed_is_made_up_for_within_the_deadline_only() {
        let late = table("cron: {schedule: 0 * * * *}");
        let strict = table("{cron: {schedule: 0 * * * *}, startingDeadline: 10m}");
        let waiting = waits(30 * MINUTE, 30 * MINUTE, 1);
        let due =
            |t: &Timetable, now: i64| next(t, &waiting, LastRun::default(), now * MINUTE).unwrap().0 / MINUTE;
        assert_eq!((due(&late, 65), due(&strict, 65)), (60, 60));
        assert_eq!((due(&late, 75), due(&strict, 75)), (60, 120));
        // A window that opens too late for a time counts as missed.
        let night = "windows: [{start: {schedule: 15 3 * * *}, duration: 2h}]";
        let t = table(&format!("{{cron: {{schedule: 0 * * * *}}, startingDeadline: 10m, {night}}}"));
        assert_eq!(due(&t, 65), 4 * 60);
        let never = table(&format!("{{cron: {{schedule: 0 9 * * *}}, startingDeadline: 10m, {night}}}"));
        assert_eq!(next(&never, &waiting, LastRun::default(), 3600), None);
    }

    #[test]
    fn settled_heals_start_when_writing_pauses_and_not_for_what_was_left_over() {
        let t = table("{interval: 10m, whenSettled: 5s}");
        let due = |waiting: Waiting, last| next(&t, &waiting, last, 100);
        assert_eq!(due(waits(90, 100, 1), LastRun::default()), Some((105, Why::Settled)));
        assert_eq!(due(waits(90, 100, 1), ran(99, 99)), Some((105, Why::Settled)));
        assert_eq!(due(waits(50, 60, 1), ran(70, 80)), Some((600, Why::Schedule)));
        // Who writes without a pause is healed by the schedule.
        assert_eq!(next(&t, &waits(90, 599, 1), LastRun::default(), 599), Some((600, Why::Schedule)));
    }

    #[test]
    fn a_heal_starts_so_early_that_nothing_becomes_too_old() {
        let t = table("{interval: 24h, maxPendingAge: 10m}");
        // One file that takes no time.
        assert_eq!(next(&t, &waits(1000, 1000, 0), LastRun::default(), 1000), Some((1594, Why::Age)));
        // 6 GiB at 20 MiB/s take 308 s, and half of that again.
        let big = waits(1000, 1000, 6 << 30);
        let due = next(&t, &big, LastRun::default(), 1000).unwrap();
        assert_eq!(due, (1134, Why::Age));
        // At the rate that was measured; and the policy's bandwidth is a bound.
        let fast = Speed { bytes: Some(200 << 20), files: None };
        assert_eq!(t.next(&big, LastRun::default(), fast, at(1000)).unwrap().at.as_second(), 1548);
        let slow = table("{interval: 24h, maxPendingAge: 10m, bandwidth: 1Mi}");
        assert!(slow.next(&big, LastRun::default(), fast, at(1000)).unwrap().at <= at(1000));
    }

    #[test]
    fn what_was_left_over_waits_and_what_came_after_it_does_not() {
        let t = table("{interval: 24h, maxPendingAge: 10m}");
        // Left over at 5,000: again after a quarter of the age; younger files cannot be older than the run.
        assert_eq!(next(&t, &waits(1000, 1000, 0), ran(5000, 5010), 5010), Some((5594, Why::Age)));
        let huge = waits(1000, 1000, 1 << 40);
        assert_eq!(next(&t, &huge, ran(5000, 5010), 5010), Some((5160, Why::Age)));
        let bytes = table("{interval: 24h, maxPendingBytes: 1Ki}");
        assert_eq!(next(&bytes, &huge, ran(5000, 5010), 5010), Some((5310, Why::Bytes)));
        let new = waits(5001, 5001, 1 << 40);
        assert_eq!(next(&bytes, &new, ran(5000, 5010), 5010), Some((5010, Why::Bytes)));
    }

    #[test]
    fn t14_a_file_from_the_future_neither_stops_heals_nor_makes_them_follow_each_other() {
        let t = table("{interval: 10m, whenSettled: 5s, maxPendingAge: 1h}");
        let future = waits(1_000_000, 1_000_000, 1);
        // Nothing is known of its age: once, and then by the schedule.
        assert_eq!(next(&t, &future, LastRun::default(), 700), Some((700, Why::Schedule)));
        assert_eq!(next(&t, &future, ran(700, 701), 701), Some((1200, Why::Schedule)));
        assert_eq!(next(&t, &future, ran(700, 701), 1200), Some((1200, Why::Schedule)));
        // A clock that is a little ahead.
        assert_eq!(next(&t, &waits(730, 730, 1), ran(600, 601), 700), Some((705, Why::Settled)));
    }

    #[test]
    fn bytes_start_a_heal_before_they_are_too_many() {
        let t = table("{interval: 24h, maxPendingBytes: 1Gi}");
        assert_eq!(next(&t, &waits(0, 90, 1 << 20), LastRun::default(), 100).unwrap().1, Why::Schedule);
        // 800 MiB in 100 s: another 500 would come while they are copied.
        assert_eq!(next(&t, &waits(0, 90, 800 << 20), LastRun::default(), 100), Some((100, Why::Bytes)));
        assert!(!t.too_many_bytes(&waits(0, 90, 800 << 20)) && t.too_many_bytes(&waits(0, 90, 2 << 30)));
    }

    #[test]
    fn before_a_window_closes_what_would_be_too_old_at_the_next_is_healed() {
        // 00:00 to 01:00, 12:00 to 13:00.
        let t = table(
            "{interval: 24h, maxPendingAge: 6h, windows: [{start: {schedule: '0 0,12 * * *'}, duration: 1h}]}",
        );
        let hour = 3600;
        // At 00:10, too old at 06:00: in this window, shortly before its end.
        let due = next(&t, &waits(0, 0, 0), LastRun::default(), 600).unwrap();
        assert_eq!(due, (hour - 6, Why::Age));
        // From 02:00 on it is too late, and the first window counts.
        assert_eq!(next(&t, &waits(0, 0, 0), LastRun::default(), 2 * hour).unwrap(), (12 * hour, Why::Age));
        // One that is old enough at 12:30 only can wait for the next window.
        assert_eq!(
            next(&t, &waits(6 * hour + 1800, 0, 0), LastRun::default(), 7 * hour).unwrap().0,
            12 * hour + 1794
        );
    }

    #[derive(Debug, Clone)]
    struct Case {
        waiting: Waiting,
        last: LastRun,
        now: i64,
    }

    fn case() -> impl Strategy<Value = Case> {
        let ago = || proptest::option::of(0i64..100_000);
        (ago(), ago(), ago(), 0i64..3_000, 0u64..1 << 36, 0u64..100_000, 100_000i64..300_000).prop_map(
            |(oldest, newest, began, took, bytes, files, now)| {
                let ago = |seconds: Option<i64>| seconds.map(|s| at(now - s));
                let (oldest, newest) = (ago(oldest), ago(newest));
                let waiting = Waiting { bytes, most_files: files, most_bytes: bytes, oldest, newest };
                let ended = began.map(|b| at((now - b + took).min(now)));
                Case { waiting, last: LastRun { began: ago(began), ended }, now }
            },
        )
    }

    fn fields() -> impl Strategy<Value = String> {
        let window = "windows: [{start: {schedule: 17 3 * * *}, duration: 3h}, {start: {schedule: 0 5 * * *}, duration: 2h}]";
        let some = |field: &'static str| prop_oneof![Just(""), Just(field)];
        (
            some("interval: 7m, "),
            some("jitter: 2m, "),
            some("startingDeadline: 40m, "),
            some("whenSettled: 3s, "),
            some("maxPendingAge: 50m, "),
            some("maxPendingBytes: 4Gi, "),
            prop_oneof![Just(""), Just(window)],
        )
            .prop_map(|(a, b, c, d, e, f, g)| format!("{{{a}{b}{c}{d}{e}{f}{g}}}"))
    }

    proptest! {
        #[test]
        fn ticks_are_after_now_and_one_interval_apart(
            now in -4_000_000_000_000i64..4_000_000_000_000,
            anchor in 0i64..4_000_000_000_000,
            seconds in 1i64..1_000_000,
        ) {
            let p = policy(&format!("interval: {seconds}s"));
            let (now, anchor) = (Timestamp::from_millisecond(now).unwrap(), Timestamp::from_millisecond(anchor).unwrap());
            let next = Timetable::of(Some(&p), anchor, "x").unwrap().tick_after(now).unwrap();
            prop_assert!(next > now);
            prop_assert!(next.as_millisecond() - now.as_millisecond() <= seconds * 1000);
            prop_assert_eq!((next.as_millisecond() - anchor.as_millisecond()).rem_euclid(seconds * 1000), 0);
        }

        #[test]
        fn nothing_starts_while_no_window_is_open_and_waiting_changes_nothing(fields in fields(), case in case(), more in 0i64..5_000) {
            let t = table(&fields);
            let Case { waiting, last, now } = case;
            if let Some(due) = t.next(&waiting, last, Speed::default(), at(now)) {
                prop_assert!(t.is_open(due.at));
                if due.why == Why::Bytes {
                    // How fast they came is known better later.
                    return Ok(());
                }
                let start = due.at.max(at(now));
                // The answer stands until then: whoever looks again before it is told the same, or sooner.
                let between = at((now + more).min(start.as_second()));
                let again = t.next(&waiting, last, Speed::default(), between).unwrap();
                prop_assert!(again.at.max(between) <= start, "{:?} and then {:?}", due, again);
            }
        }

        #[test]
        fn after_a_run_that_did_nothing_there_is_a_pause(fields in fields(), case in case()) {
            let t = table(&fields);
            let Case { waiting, now, .. } = case;
            // All of it was there before the run, which ended now.
            let old = |time: Option<Timestamp>| time.map(|time| time.min(at(now - 1)));
            let waiting = Waiting { oldest: old(waiting.oldest), newest: old(waiting.newest), ..waiting };
            let last = ran(now, now + 1);
            if let Some(due) = t.next(&waiting, last, Speed::default(), at(now + 1)) {
                prop_assert!(due.at > at(now + 1), "{:?}", due);
            }
        }
    }
}
