//! metav1 conditions: the types and reasons in use, and the one way to change a list of them.
//!
//! Invariant: `lastTransitionTime` moves only when `status` does, so that writing the same finding
//! again changes nothing, and nothing is sent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Volume, brick, workstation, policy: can be used as its spec asks.
pub const READY: &str = "Ready";
/// Volume: every file's replica set holds its newest data.
pub const PROTECTED: &str = "Protected";
/// Volume: every member has seen every operation.
pub const CONVERGED: &str = "Converged";
/// Volume: no conflict is open.
pub const CONFLICT_FREE: &str = "ConflictFree";
/// Volume: all bytes of all bricks were read in time, and are what they should be.
pub const VERIFIED: &str = "Verified";
/// Volume: heals are scheduled, and when the next one is due.
pub const SCHEDULED: &str = "Scheduled";
/// Volume: no more is pending, and for no longer, than its policy allows. Only where the policy sets a limit.
pub const LOSS_BOUNDED: &str = "LossBounded";
/// Volume: the replica set of every file is as the placement wants it.
pub const PLACED: &str = "Placed";
/// Workstation: nothing has to be held there any more. Only while `evictionRequested` is set.
pub const EVICTED: &str = "Evicted";
/// Brick that is being deleted: nothing has to be held there any more. Volume that is being deleted, with
/// `deletionPolicy: Delete`: its data is gone from all bricks.
pub const RELEASED: &str = "Released";
/// Every kind: all fields of the spec that are set are acted on by this version.
pub const SPEC_ACTED_ON: &str = "SpecActedOn";
/// Workstation: it can be switched off without taking the only copy of anything with it.
pub const SAFE_TO_LEAVE: &str = "SafeToLeave";

/// Brick: what other members removed is removed here too; `False` while a person is asked whether so much is right.
pub const REMOVALS_FOLLOWED: &str = "RemovalsFollowed";
/// Brick: what every other member said is taken over; `False` while an entry of one makes no sense here.
pub const JOURNALS_FOLLOWED: &str = "JournalsFollowed";

/// Brick: its disk has room for more files. Volume: the disk of every brick has.
pub const SPACE_LEFT: &str = "SpaceLeft";

/// FileConflict: a person's resolution was carried out.
pub const RESOLVED: &str = "Resolved";

/// ReplicaMigration: the files are where it wants them.
pub const MOVED: &str = "Moved";

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known, for example because an agent is silent.
    Unknown,
}

impl Status {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A finding that has not been compared with what the object says yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The condition's type.
    pub type_: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// One word for programs.
    pub reason: &'static str,
    /// One line for people: what, where, what to do.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub fn new(
        type_: &'static str,
        status: Status,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { type_, status, reason, message: message.into() }
    }
}

/// The condition of this type, if there is one.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of this type is there and `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == "True")
}

/// The condition that says `finding`, with the transition time of `previous` where the status is the same.
pub fn condition(
    previous: &[Condition],
    finding: &Finding,
    observed_generation: Option<i64>,
    now: &Time,
) -> Condition {
    let since = find(previous, finding.type_)
        .filter(|c| c.status == finding.status.as_str())
        .map_or_else(|| now.clone(), |c| c.last_transition_time.clone());
    Condition {
        type_: finding.type_.to_string(),
        status: finding.status.as_str().to_string(),
        reason: finding.reason.to_string(),
        message: finding.message.clone(),
        observed_generation,
        last_transition_time: since,
    }
}

/// All `findings` as conditions, in their order.
pub fn conditions(
    previous: &[Condition],
    findings: &[Finding],
    observed_generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    findings.iter().map(|f| condition(previous, f, observed_generation, now)).collect()
}

/// Puts `finding` into `list`, in place of the condition of the same type.
pub fn set(list: &mut Vec<Condition>, finding: &Finding, observed_generation: Option<i64>, now: &Time) {
    let new = condition(list, finding, observed_generation, now);
    match list.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => *old = new,
        None => list.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::time_from_unix;

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let mut list = vec![];
        let at = |s| time_from_unix(s);
        set(&mut list, &Finding::new(READY, Status::True, "AllReady", "a"), Some(1), &at(10));
        set(&mut list, &Finding::new(READY, Status::True, "AllReady", "b"), Some(2), &at(20));
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].last_transition_time, at(10));
        assert_eq!(list[0].message, "b");
        assert_eq!(list[0].observed_generation, Some(2));
        set(&mut list, &Finding::new(READY, Status::Unknown, "AgentSilent", "c"), Some(2), &at(30));
        assert_eq!(list[0].last_transition_time, at(30));
        assert!(!is_true(&list, READY));
    }

    #[test]
    fn the_same_finding_again_is_the_same_condition() {
        let findings = [Finding::new(PROTECTED, Status::False, "Pending", "3 files")];
        let first = conditions(&[], &findings, Some(1), &time_from_unix(1));
        assert_eq!(conditions(&first, &findings, Some(1), &time_from_unix(99)), first);
    }
}
