//! How much of the time a workstation is online: remembered over weeks, and written only when it comes or goes.

use std::time::Duration;

use jiff::Timestamp;
use nearbrick_crds::{OnlineShare, Time};

/// After this time what was counts half.
const HALF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Of a thousand, of a workstation of which nothing is known yet.
const UNKNOWN: u32 = 500;

/// The share at `now` of a workstation that has been online (or not) since the share was written. From 0 to 1000.
pub fn share_now(written: Option<&OnlineShare>, online: bool, now: Timestamp) -> u32 {
    let Some(written) = written else { return UNKNOWN };
    let since = written.as_of.as_ref().map_or(now, |at| at.0);
    // A clock that was set back counts as no time.
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let kept = (-passed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
    let to = if online { 1000.0 } else { 0.0 };
    (to + (f64::from(written.per_mille.min(1000)) - to) * kept).round() as u32
}

/// What is to be written when a workstation that was online (or not) comes, goes, or is seen for the first time.
pub fn folded(written: Option<&OnlineShare>, was_online: bool, now: Timestamp) -> OnlineShare {
    let per_mille = share_now(written, was_online, now);
    OnlineShare { per_mille, shown: format!("{} %", (per_mille + 5) / 10), as_of: Some(Time(now)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 24 * 3600;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn written(per_mille: u32, s: i64) -> OnlineShare {
        OnlineShare { per_mille, shown: String::new(), as_of: Some(Time(at(s))) }
    }

    #[test]
    fn half_of_what_was_a_week_ago() {
        for (from, online, days, wanted) in [
            (500, true, 0, 500),
            (500, true, 7, 750),
            (500, false, 7, 250),
            (1000, true, 100, 1000),
            (1000, false, 14, 250),
            (0, true, 70, 999),
        ] {
            let share = share_now(Some(&written(from, 0)), online, at(days * DAY));
            assert_eq!(share, wanted, "{from} {online} {days}");
        }
        assert_eq!(share_now(None, true, at(0)), 500);
        assert_eq!(share_now(Some(&written(700, DAY)), false, at(0)), 700, "the clock was set back");
        let first = folded(None, true, at(0));
        assert_eq!((first.per_mille, first.shown.as_str()), (500, "50 %"));
    }

    #[test]
    fn who_is_on_for_eight_hours_a_day_comes_to_a_third() {
        let mut share = folded(None, false, at(0));
        for day in 0..60 {
            share = folded(Some(&share), true, at(day * DAY + 8 * 3600));
            share = folded(Some(&share), false, at((day + 1) * DAY));
        }
        assert!((300..=366).contains(&share.per_mille), "{share:?}");
    }

    proptest! {
        #[test]
        fn it_stays_a_share_and_moves_the_right_way(from in 0..=1000u32, online: bool, s in 0..1_000_000_000i64) {
            let share = share_now(Some(&written(from, 0)), online, at(s));
            prop_assert!(share <= 1000);
            let moves_right = if online { share >= from } else { share <= from };
            prop_assert!(moves_right, "{}", share);
        }
    }
}
