//! The answer to: may I leave?

use nearbrick_agent::control::convert::VolumeKey;
use nearbrick_agent::control::facts::{Phase, VolumeFacts};
use nearbrick_agent::control::status::{Reporting, workstation_status};
use nearbrick_crds::Condition;
use nearbrick_crds::condition::{SAFE_TO_LEAVE, find};
use nearbrick_crds::meta::time_from_unix;

use super::members::Lab;

/// What the agent of this member says.
pub fn says(lab: &Lab, n: usize) -> Condition {
    let config = lab.volume(n).config();
    let facts = VolumeFacts {
        key: VolumeKey::of(&config),
        config: Some(config),
        phase: Phase::Ready,
        status: Some(lab.volume(n).status()),
    };
    let reporting = Reporting { address: "10.0.0.1:7443".to_owned(), mounts_dir: "/volumes".into() };
    let status = workstation_status(&[facts], &reporting, &[], None, &time_from_unix(0));
    find(&status.conditions, SAFE_TO_LEAVE).unwrap().clone()
}

/// Its reason; it is True exactly where that is `AllCopied`.
pub fn reason(lab: &Lab, n: usize) -> String {
    let said = says(lab, n);
    assert_eq!(said.status == "True", said.reason == "AllCopied", "{said:?}");
    said.reason
}
