//! Whether the bytes of all bricks are known to be what they should be: by what each brick found when it last looked
//! through all that it holds, never by the absence of news.

use jiff::Timestamp;
use nearbrick_crds::condition::{self, Finding, Status};
use nearbrick_crds::pending::human_files;

use super::volume::{MemberView, to_second, top, unknown};

/// What a brick found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// When its last look ended, if it ever did.
    pub ended: Option<Timestamp>,
    /// Until when that look counts.
    pub holds_until: Option<Timestamp>,
    /// Files that are not repaired yet.
    pub unrepaired: Option<u64>,
}

/// Since when at the latest all bytes of all bricks are known to be right. None while a brick never looked, or its
/// agent is silent.
pub fn oldest(members: &[MemberView]) -> Option<Timestamp> {
    let known = |m: &MemberView| m.looked.ended.filter(|_| !m.silent());
    members.iter().map(known).collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// The condition `Verified`. `complete`: all bricks report at present.
pub fn finding(members: &[MemberView], complete: bool, now: Timestamp) -> Finding {
    let finding =
        |status, reason, message: String| Finding::new(condition::VERIFIED, status, reason, message);
    let damaged: Vec<String> = members
        .iter()
        .filter(|m| !m.silent())
        .filter_map(|m| Some((&m.brick, m.looked.unrepaired.filter(|n| *n > 0)?)))
        .map(|(brick, n)| format!("{brick}: {}", human_files(n)))
        .collect();
    if !damaged.is_empty() {
        let line = format!(
            "copies are damaged, or differ between bricks, and are not repaired yet: {}; trigger a heal, and see lastError of the Brick",
            top(&damaged)
        );
        return finding(Status::False, "DamagedCopies", line);
    }
    if !complete {
        let (reason, line) = unknown(members);
        return finding(Status::Unknown, reason, line);
    }
    let never: Vec<String> =
        members.iter().filter(|m| m.looked.ended.is_none()).map(|m| m.brick.clone()).collect();
    if !never.is_empty() {
        let line = format!(
            "{} did not look through what it holds yet: it does at the next time of verifySchedule, or at once by `brick-agent scrub` there",
            top(&never)
        );
        return finding(Status::Unknown, "NeverVerified", line);
    }
    let late: Vec<String> = members
        .iter()
        .filter(|m| m.looked.holds_until.is_none_or(|until| until < now))
        .filter_map(|m| Some(format!("{} since {}", m.brick, to_second(m.looked.ended?))))
        .collect();
    if !late.is_empty() {
        let line = format!("not looked through in time: {}; see the log of its brick-agent", top(&late));
        return finding(Status::False, "Overdue", line);
    }
    let line = "all bytes of all bricks were read in time, and are what they should be";
    finding(Status::True, "AllVerified", line.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_crds::BrickState;
    use proptest::prelude::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn member(node: &str, ended: i64) -> MemberView {
        MemberView {
            node: node.into(),
            brick: format!("v.{node}"),
            state: Some(BrickState::Ready),
            files: Some(1),
            looked: Looked {
                ended: Some(at(ended)),
                holds_until: Some(at(ended + 100)),
                unrepaired: Some(0),
            },
            ..MemberView::default()
        }
    }

    fn says(members: &[MemberView], now: i64) -> (Status, &'static str) {
        let complete = members.iter().all(|m| !m.silent());
        let found = finding(members, complete, at(now));
        assert!(!found.message.contains('\n'));
        (found.status, found.reason)
    }

    #[test]
    fn true_only_by_evidence_of_every_member() {
        let mut m = [member("a", 10), member("b", 50)];
        assert_eq!((says(&m, 60), oldest(&m)), ((Status::True, "AllVerified"), Some(at(10))));
        assert_eq!(says(&m, 111), (Status::False, "Overdue"));
        m[1].looked.unrepaired = Some(2);
        assert_eq!(says(&m, 60), (Status::False, "DamagedCopies"));
        assert_eq!(finding(&m, true, at(60)).message.matches("v.b: 2 files").count(), 1);
        m[1].looked = Looked::default();
        assert_eq!((says(&m, 60), oldest(&m)), ((Status::Unknown, "NeverVerified"), None));
        m[1] = member("b", 50);
        m[0].silent_since = Some(at(55));
        assert_eq!((says(&m, 60), oldest(&m)), ((Status::Unknown, "AgentSilent"), None));
    }

    proptest! {
        #[test]
        fn never_true_while_a_brick_is_silent_late_damaged_or_never_looked(
            list in proptest::collection::vec((any::<bool>(), proptest::option::of(0i64..200), 0u64..2), 1..5),
        ) {
            let of = |(silent, ended, unrepaired): &(bool, Option<i64>, u64)| {
                let mut m = member("n", ended.unwrap_or(0));
                if ended.is_none() { m.looked.ended = None; }
                m.looked.unrepaired = Some(*unrepaired);
                m.silent_since = silent.then(|| at(0));
                m
            };
            let members: Vec<_> = list.iter().map(of).collect();
            let good = |(silent, ended, n): &(bool, Option<i64>, u64)| !silent && ended.is_some_and(|e| e >= 50) && *n == 0;
            prop_assert_eq!(says(&members, 150).0 == Status::True, list.iter().all(good));
        }
    }
}
