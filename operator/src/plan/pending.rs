//! What is pending in a volume, from what its bricks report.
//!
//! For each target, holders say what it lacks (`pendingOut`), and it says so itself (`pendingIn`). Each
//! may know less than the other, so the larger number counts: "nothing is pending" is never said while
//! anybody knows better.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nearbrick_crds::timetable::Waiting;
use nearbrick_crds::{Brick, Pending, Time};

/// Counts that can be added and compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// Since when the oldest has been waiting.
    pub oldest: Option<Timestamp>,
    /// Since when the newest has, if somebody says it.
    pub newest: Option<Timestamp>,
}

impl Counts {
    fn new(files: u64, bytes: u64, oldest: Option<&Time>, newest: Option<&Time>) -> Self {
        // An age without files says nothing.
        let age = |t: Option<&Time>| t.map(|t| t.0).filter(|_| files > 0);
        Self { files, bytes, oldest: age(oldest), newest: age(newest) }
    }

    fn older(self, other: Self) -> Option<Timestamp> {
        [self.oldest, other.oldest].into_iter().flatten().min()
    }

    /// Both report the same files: the larger number counts.
    #[must_use]
    pub fn larger(self, other: Self) -> Self {
        Self {
            files: self.files.max(other.files),
            bytes: self.bytes.max(other.bytes),
            oldest: self.older(other),
            newest: self.newest.max(other.newest),
        }
    }

    /// Both report different copies.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_add(other.files),
            bytes: self.bytes.saturating_add(other.bytes),
            oldest: self.older(other),
            newest: self.newest.max(other.newest),
        }
    }

    /// As the API has it.
    pub fn to_api(self) -> Pending {
        Pending::new(self.files, self.bytes, self.oldest.map(Time))
    }
}

/// What one brick reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub brick: String,
    /// Whether its agent reports at present; otherwise this is the last that was heard.
    pub fresh: bool,
    /// What it lacks.
    pub lacks: Counts,
    /// What others lack and it has.
    pub others_lack: Vec<(String, Counts)>,
}

impl Report {
    /// From a `Brick`.
    pub fn of(name: &str, brick: &Brick, fresh: bool) -> Self {
        let Some(status) = &brick.status else {
            return Self { brick: name.to_string(), fresh, ..Self::default() };
        };
        let lacks =
            |p: &Pending| Counts::new(p.files, p.bytes, p.oldest_since.as_ref(), p.newest_since.as_ref());
        Self {
            brick: name.to_string(),
            fresh,
            lacks: status.pending_in.as_ref().map_or(Counts::default(), lacks),
            others_lack: status
                .pending_out
                .iter()
                .map(|p| (p.brick.clone(), Counts::new(p.files, p.bytes, p.oldest_since.as_ref(), None)))
                .collect(),
        }
    }
}

/// What one brick lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// By all reports, also those of silent agents.
    pub all: Counts,
    /// By reports of agents that are not silent.
    pub fresh: Counts,
    /// Whether a brick other than the target, whose agent is not silent, says that it has something for it.
    pub has_source: bool,
}

/// What each brick lacks; only bricks that lack something.
pub fn by_target(reports: &[Report]) -> BTreeMap<String, Target> {
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    for report in reports {
        let own = (report.brick.as_str(), report.lacks);
        let others = report.others_lack.iter().map(|(b, c)| (b.as_str(), *c));
        for (brick, counts) in std::iter::once(own).chain(others) {
            if counts.files == 0 {
                continue;
            }
            let target = targets.entry(brick.to_string()).or_default();
            target.all = target.all.larger(counts);
            if report.fresh {
                target.fresh = target.fresh.larger(counts);
                target.has_source |= brick != report.brick;
            }
        }
    }
    targets
}

/// What waits, as a timetable asks.
pub fn waiting(of: impl IntoIterator<Item = Counts>) -> Waiting {
    of.into_iter().fold(Waiting::default(), |all, one| Waiting {
        bytes: all.bytes.saturating_add(one.bytes),
        most_files: all.most_files.max(one.files),
        most_bytes: all.most_bytes.max(one.bytes),
        oldest: [all.oldest, one.oldest].into_iter().flatten().min(),
        newest: all.newest.max(one.newest),
    })
}

/// Sum over targets, by all reports.
pub fn total(targets: &BTreeMap<String, Target>) -> Counts {
    targets.values().fold(Counts::default(), |sum, t| sum.plus(t.all))
}

/// Sum over targets, by reports of agents that are not silent.
pub fn fresh_total(targets: &BTreeMap<String, Target>) -> Counts {
    targets.values().fold(Counts::default(), |sum, t| sum.plus(t.fresh))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn counts(files: u64, oldest: i64) -> Counts {
        Counts { files, bytes: files * 10, oldest: Some(at(oldest)), newest: None }
    }

    fn report(brick: &str, fresh: bool, lacks: Counts, others: &[(&str, Counts)]) -> Report {
        let others_lack = others.iter().map(|(b, c)| ((*b).to_string(), *c)).collect();
        Report { brick: brick.into(), fresh, lacks, others_lack }
    }

    #[test]
    fn the_larger_report_counts_once_and_targets_add_up() {
        let reports = [
            report("v.a", true, Counts::default(), &[("v.b", counts(5, 100)), ("v.c", counts(2, 50))]),
            report("v.b", true, counts(3, 90), &[]),
            report("v.c", true, Counts::default(), &[("v.b", counts(4, 200))]),
        ];
        let targets = by_target(&reports);
        assert_eq!(targets["v.b"].all, Counts { files: 5, bytes: 50, oldest: Some(at(90)), newest: None });
        assert_eq!(total(&targets), Counts { files: 7, bytes: 70, oldest: Some(at(50)), newest: None });
        assert!(targets["v.b"].has_source);
    }

    #[test]
    fn a_silent_agents_last_word_counts_but_is_not_fresh() {
        let reports = [
            report("v.a", false, Counts::default(), &[("v.b", counts(5, 100))]),
            report("v.b", true, Counts::default(), &[]),
        ];
        let targets = by_target(&reports);
        assert_eq!(total(&targets).files, 5);
        assert_eq!(fresh_total(&targets).files, 0);
        assert!(!targets["v.b"].has_source);
    }

    #[test]
    fn who_lacks_nothing_is_no_target() {
        assert!(
            by_target(&[report("v.a", true, Counts::default(), &[("v.b", Counts::default())])]).is_empty()
        );
    }

    proptest! {
        #[test]
        fn no_report_is_understated(list in proptest::collection::vec((0..4u8, any::<bool>(), 0..4u8, 0..50u64), 0..12)) {
            let reports: Vec<Report> = list.iter().map(|(from, fresh, to, files)| {
                let c = Counts { files: *files, bytes: *files, ..Counts::default() };
                if from == to {
                    report(&format!("b{from}"), *fresh, c, &[])
                } else {
                    report(&format!("b{from}"), *fresh, Counts::default(), &[(&format!("b{to}"), c)])
                }
            }).collect();
            let targets = by_target(&reports);
            for (_, fresh, to, files) in &list {
                let t = targets.get(&format!("b{to}")).copied().unwrap_or_default();
                prop_assert!(t.all.files >= *files);
                prop_assert!(!fresh || t.fresh.files >= *files);
                prop_assert!(t.all.files >= t.fresh.files);
            }
            prop_assert!(list.iter().any(|x| x.3 > 0) != targets.is_empty());
        }
    }
}
