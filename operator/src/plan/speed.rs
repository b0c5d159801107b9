//! How fast the heals of a volume are, from the jobs that ended.

use nearbrick_crds::timetable::Speed;
use nearbrick_crds::{HealJob, Transfer};

/// Fewer bytes say nothing of how fast many come.
const ENOUGH_BYTES: u64 = 32 << 20;
/// Nor do fewer files.
const ENOUGH_FILES: u64 = 200;

/// The slowest transfer of these jobs that copied enough: what may be lost is to be bounded also where a slow
/// link or disk takes part.
pub fn of<'a>(jobs: impl IntoIterator<Item = &'a HealJob>) -> Speed {
    let transfers = jobs.into_iter().filter_map(|j| j.status.as_ref()).flat_map(|s| &s.transfers);
    transfers.fold(Speed::default(), |speed, transfer| {
        let slower = |known: Option<u64>, new: Option<u64>| [known, new].into_iter().flatten().min();
        let Transfer { bytes_done, files_done, .. } = transfer;
        Speed {
            bytes: slower(speed.bytes, per_second(transfer, *bytes_done, ENOUGH_BYTES)),
            files: slower(speed.files, per_second(transfer, *files_done, ENOUGH_FILES)),
        }
    })
}

fn per_second(transfer: &Transfer, done: u64, enough: u64) -> Option<u64> {
    let (start, end) = (transfer.started_at.as_ref()?.0, transfer.completed_at.as_ref()?.0);
    let seconds = end.as_second().saturating_sub(start.as_second()).max(1).unsigned_abs();
    (done >= enough).then(|| (done / seconds).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_crds::meta::time_from_unix;
    use nearbrick_crds::{HealJobSpec, HealJobStatus, LocalRef};

    fn job(transfers: &[(u64, u64, i64)]) -> HealJob {
        let transfers = transfers.iter().map(|(files, bytes, seconds)| Transfer {
            files_done: *files,
            bytes_done: *bytes,
            started_at: Some(time_from_unix(100)),
            completed_at: Some(time_from_unix(100 + seconds)),
            ..Transfer::default()
        });
        let spec = HealJobSpec { volume_ref: LocalRef::new("home"), ..HealJobSpec::default() };
        let status = HealJobStatus { transfers: transfers.collect(), ..HealJobStatus::default() };
        HealJob { status: Some(status), ..HealJob::new("j", spec) }
    }

    #[test]
    fn the_slowest_that_copied_enough() {
        assert_eq!(of(&[job(&[(3, 1000, 60)])]), Speed::default());
        let large = job(&[(10, 1 << 30, 10), (10, 1 << 30, 20), (3, 1000, 60)]);
        assert_eq!(of([&large]), Speed { bytes: Some((1 << 30) / 20), files: None });
        let small = job(&[(10_000, 10_000, 5)]);
        assert_eq!(of([&large, &small]), Speed { bytes: Some((1 << 30) / 20), files: Some(2000) });
        // Less than a second counts as one.
        assert_eq!(of(&[job(&[(500, 0, 0)])]).files, Some(500));
    }
}
