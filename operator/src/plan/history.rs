//! Which ended jobs of a volume are kept.

use jiff::Timestamp;
use nearbrick_crds::{HistoryLimits, JobPhase};

/// An ended job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub phase: JobPhase,
    /// When.
    pub at: Timestamp,
}

/// Names of the jobs to delete: all but the newest of each kind of end.
pub fn to_delete(mut jobs: Vec<Ended>, limits: &HistoryLimits) -> Vec<String> {
    jobs.sort_by(|a, b| (b.at, &b.name).cmp(&(a.at, &a.name)));
    let (mut completed, mut failed) = (limits.successful, limits.failed);
    jobs.into_iter()
        .filter(|job| {
            let left = match job.phase {
                JobPhase::Completed => &mut completed,
                JobPhase::Failed => &mut failed,
                JobPhase::Pending | JobPhase::Running => return false,
            };
            let delete = *left == 0;
            *left = left.saturating_sub(1);
            delete
        })
        .map(|job| job.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, phase: JobPhase, at: i64) -> Ended {
        Ended { name: name.into(), phase, at: Timestamp::from_second(at).unwrap() }
    }

    #[test]
    fn the_newest_of_each_kind_stay() {
        let jobs = vec![
            job("c1", JobPhase::Completed, 1),
            job("f1", JobPhase::Failed, 2),
            job("c3", JobPhase::Completed, 5),
            job("c2", JobPhase::Completed, 3),
            job("r", JobPhase::Running, 0),
        ];
        assert_eq!(
            to_delete(jobs.clone(), &HistoryLimits { successful: 2, failed: 0 }),
            ["f1".to_string(), "c1".into()]
        );
        assert_eq!(to_delete(jobs, &HistoryLimits { successful: 9, failed: 9 }), Vec::<String>::new());
    }
}
