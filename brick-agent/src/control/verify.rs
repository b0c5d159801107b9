//! When an agent looks through a brick: by the last policy that was seen, also without the operator or the API server.

use nearbrick_crds::jiff::Timestamp;
use nearbrick_crds::verifying::Verifying;

use crate::config::VolumeConfig;
use crate::volume::ScrubStatus;

/// Whether a pass is to begin, or to go on, now.
pub fn is_due(config: &VolumeConfig, status: &ScrubStatus, now: Timestamp) -> bool {
    let policy = config.healing.policy.as_ref();
    // One that a person asked for, or that had begun, goes on.
    if status.running.is_some() {
        return true;
    }
    if policy.is_some_and(|p| p.paused) {
        return false;
    }
    let anchor = Timestamp::from_second(config.healing.anchor).unwrap_or(Timestamp::UNIX_EPOCH);
    let brick = config.brick.to_string();
    // What cannot be followed the operator says; then the brick is looked through once a week.
    let verifying = Verifying::of(policy, anchor, &brick).or_else(|_| Verifying::of(None, anchor, &brick));
    let began = status.last.as_ref().and_then(|pass| i64::try_from(pass.began_ms).ok());
    let began = began.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    verifying.is_ok_and(|verifying| verifying.is_due(began, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Healing;
    use crate::volume::Pass;
    use nearbrick_crds::{CronSchedule, HealPolicySpec};

    fn config(policy: Option<HealPolicySpec>) -> VolumeConfig {
        let config = crate::control::cache::tests::config("/brick".into(), "home");
        VolumeConfig { healing: Healing { policy, anchor: 0 }, ..config }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn began(seconds: u64) -> ScrubStatus {
        let last = Pass { began_ms: seconds * 1000, ended_ms: Some(seconds * 1000), ..Pass::default() };
        ScrubStatus { last: Some(last), ..ScrubStatus::default() }
    }

    #[test]
    fn passes_follow_the_policy_and_one_that_began_goes_on() {
        const DAY: i64 = 24 * 3600;
        let never = ScrubStatus::default();
        assert!(is_due(&config(None), &never, at(8 * DAY)), "once a week");
        assert!(!is_due(&config(None), &began(8 * 24 * 3600), at(8 * DAY)));
        assert!(is_due(&config(None), &began(8 * 24 * 3600), at(15 * DAY)));
        let schedule = CronSchedule { schedule: "0 2 * * *".to_owned(), time_zone: None };
        let nightly = HealPolicySpec { verify_schedule: Some(schedule), ..HealPolicySpec::default() };
        assert!(is_due(&config(Some(nightly.clone())), &began(3 * 3600), at(DAY + 2 * 3600)));
        assert!(!is_due(&config(Some(nightly.clone())), &began(3 * 3600), at(DAY)));
        let paused = HealPolicySpec { paused: true, ..nightly };
        assert!(!is_due(&config(Some(paused.clone())), &never, at(8 * DAY)));
        let running = ScrubStatus { running: Some(Pass::default()), ..never };
        assert!(is_due(&config(Some(paused)), &running, at(0)));
    }
}
