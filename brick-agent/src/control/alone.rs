//! Heals where no job comes: the operator or the API server is away. By the last policy that was seen, which is in
//! the volume's configuration and so also on the disk.
//!
//! Invariants: never at once with a job, which goes first; nothing that the policy does not allow; and only
//! [`GRACE`] after the time at which a job should have come, so that none of this happens while the operator works.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nearbrick_crds::HealPolicySpec;
use nearbrick_crds::jiff::Timestamp;
use nearbrick_crds::timetable::{LastRun, Speed, Timetable, Waiting};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::convert::VolumeKey;
use super::jobs::{Asked, Healer, left_until};
use crate::heal::HealProgress;
use crate::volume::Count;

/// How long a job is waited for after the time at which it should have come.
pub const GRACE: Duration = Duration::from_secs(30);
/// Between two looks whether one is overdue.
const LOOK: Duration = Duration::from_secs(5);

/// Whose turn it is to heal a volume here: a job's, or the agent's own.
#[derive(Default)]
pub struct Turn {
    busy: tokio::sync::Mutex<()>,
    /// Jobs that wait.
    jobs: watch::Sender<usize>,
    last: Mutex<LastRun>,
}

/// It is the holder's turn until this is dropped.
pub type MyTurn<'a> = tokio::sync::MutexGuard<'a, ()>;

impl Turn {
    /// A job's turn: the agent's own heal ends for it.
    pub async fn of_job(&self) -> MyTurn<'_> {
        self.jobs.send_modify(|n| *n += 1);
        let waits = Waits(&self.jobs);
        let turn = self.busy.lock().await;
        drop(waits);
        turn
    }

    /// The agent's own, if no job runs or waits.
    fn own(&self) -> Option<MyTurn<'_>> {
        let turn = self.busy.try_lock().ok()?;
        (*self.jobs.borrow() == 0).then_some(turn)
    }

    fn last(&self) -> MutexGuard<'_, LastRun> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was done about heals: somebody has made, carried out or ended one.
    pub fn seen(&self, now: Timestamp) {
        let last = &mut *self.last();
        (last.began, last.ended) = (Some(now), Some(now));
    }
}

/// Counts a job out again, also if it does not wait to the end.
struct Waits<'a>(&'a watch::Sender<usize>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Whether a heal should have been begun by a job by now, with what waits now.
pub fn is_overdue(timetable: &Timetable, waiting: &Waiting, last: LastRun, now: Timestamp) -> bool {
    let grace = i64::try_from(GRACE.as_millis()).unwrap_or(i64::MAX);
    let Ok(then) = Timestamp::from_millisecond(now.as_millisecond().saturating_sub(grace)) else {
        return false;
    };
    waiting.most_files > 0
        && last.ended.is_none_or(|ended| ended <= then)
        && timetable.next(waiting, last, Speed::default(), then).is_some_and(|due| due.at <= then)
        && timetable.is_open(now)
}

/// What a brick lacks, as a timetable asks.
pub fn waiting(count: &Count) -> Waiting {
    let time = |ms: Option<u64>| Timestamp::from_millisecond(i64::try_from(ms?).ok()?).ok();
    Waiting {
        bytes: count.bytes,
        most_files: count.files,
        most_bytes: count.bytes,
        oldest: time(count.oldest_ms),
        newest: time(count.newest_ms),
    }
}

/// Heals one volume where no job comes.
pub struct Alone {
    /// Which volume.
    pub key: VolumeKey,
    /// The volume, while it is open.
    pub healer: watch::Receiver<Option<Arc<dyn Healer>>>,
    /// Whose turn it is.
    pub turn: Arc<Turn>,
    /// Ends it, within the file at hand.
    pub stop: CancellationToken,
}

impl Alone {
    /// Looks from time to time until it is stopped.
    pub async fn run(self) {
        // Of what was before nothing is known.
        self.turn.seen(Timestamp::now());
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = look.tick() => {}
            }
            let healer = self.healer.borrow().clone();
            if let Some(healer) = healer {
                self.look(healer).await;
            }
        }
    }

    async fn look(&self, healer: Arc<dyn Healer>) {
        let config = healer.config();
        let healing = &config.healing;
        let Some(policy) = healing.policy.as_ref().filter(|p| !p.paused) else { return };
        let anchor = Timestamp::from_second(healing.anchor).unwrap_or(Timestamp::UNIX_EPOCH);
        // What cannot be followed the operator says.
        let Ok(timetable) = Timetable::of(Some(policy), anchor, &config.volume_uuid.to_string()) else {
            return;
        };
        let volume = healer.clone();
        let Ok(lacks) = tokio::task::spawn_blocking(move || volume.lacks()).await else { return };
        let now = Timestamp::now();
        let last = *self.turn.last();
        if is_overdue(&timetable, &waiting(&lacks), last, now)
            && let Some(turn) = self.turn.own()
        {
            self.heal(healer, policy, timetable.closes(now), turn).await;
        }
    }

    async fn heal(
        &self,
        healer: Arc<dyn Healer>,
        policy: &HealPolicySpec,
        closes: Option<Timestamp>,
        _turn: MyTurn<'_>,
    ) {
        let request = match Asked::of_policy(policy).request() {
            Ok(request) => request,
            Err(why) => return tracing::warn!(volume = %self.key, "the policy cannot be followed: {why}"),
        };
        tracing::info!(volume = %self.key, "no heal job came: heals by the last policy that was seen");
        self.turn.seen(Timestamp::now());
        let cancel = Arc::new(AtomicBool::new(false));
        let stopped = cancel.clone();
        let mut work =
            tokio::task::spawn_blocking(move || healer.heal(&request, &|_: &HealProgress| {}, &stopped));
        let mut jobs = self.turn.jobs.subscribe();
        let window = async {
            match closes {
                Some(at) => tokio::time::sleep(left_until(at)).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            () = async {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = window => {}
                    _ = jobs.wait_for(|n| *n > 0) => {}
                }
            } => {
                cancel.store(true, Ordering::Relaxed);
                work.await
            }
        };
        self.turn.seen(Timestamp::now());
        match outcome {
            Ok(done) => tracing::info!(
                volume = %self.key, files = done.files_done, bytes = done.bytes_done, failed = done.files_failed,
                "healed without a job"
            ),
            Err(error) => {
                tracing::error!(volume = %self.key, "a heal without a job ended by a fault: {error}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn table(fields: &str) -> Timetable {
        let policy: HealPolicySpec = serde_json::from_str(fields).unwrap();
        Timetable::of(Some(&policy), at(0), "uid").unwrap()
    }

    fn lacks(since: i64) -> Waiting {
        let ms = u64::try_from(since).unwrap() * 1000;
        waiting(&Count { files: 1, bytes: 1, oldest_ms: Some(ms), newest_ms: Some(ms) })
    }

    fn saw(seconds: i64) -> LastRun {
        LastRun { began: Some(at(seconds)), ended: Some(at(seconds)) }
    }

    #[test]
    fn only_some_time_after_a_job_should_have_come() {
        let t = table(r#"{"interval": "10m"}"#);
        let overdue = |since, seen, now| is_overdue(&t, &lacks(since), saw(seen), at(now));
        assert!(!overdue(100, 0, 600));
        assert!(!overdue(100, 0, 629));
        assert!(overdue(100, 0, 630));
        // A job was seen at that time, and what it left over waits for the next.
        assert!(!overdue(100, 600, 630));
        assert!(!overdue(100, 600, 1229));
        assert!(overdue(100, 600, 1230));
        assert!(!is_overdue(&t, &Waiting::default(), saw(0), at(5000)), "nothing is lacking");
    }

    #[test]
    fn windows_and_limits_are_the_policys() {
        let night =
            r#"{"interval": "10m", "windows": [{"start": {"schedule": "0 1 * * *"}, "duration": "1h"}]}"#;
        let overdue = |fields, now| is_overdue(&table(fields), &lacks(100), saw(0), at(now));
        assert!(!overdue(night, 3000));
        assert!(overdue(night, 3700));
        assert!(!overdue(night, 7205), "it has just closed");
        let early = r#"{"interval": "24h", "maxPendingAge": "5m"}"#;
        assert!(!overdue(early, 400));
        assert!(overdue(early, 100 + 300 + 30));
        let settled = r#"{"interval": "24h", "whenSettled": "5s"}"#;
        assert!(overdue(settled, 136) && !overdue(settled, 134));
    }

    #[tokio::test]
    async fn a_job_goes_first_and_never_two_at_once() {
        let turn = Arc::new(Turn::default());
        let own = turn.own().expect("nobody heals");
        let mut jobs = turn.jobs.subscribe();
        let job = tokio::spawn({
            let turn = turn.clone();
            async move { drop(turn.of_job().await) }
        });
        // The own heal hears that a job waits, and the job waits until it has ended.
        jobs.wait_for(|n| *n == 1).await.unwrap();
        assert!(!job.is_finished());
        drop(own);
        job.await.unwrap();
        let of_job = turn.of_job().await;
        assert!(turn.own().is_none());
        drop(of_job);
        assert!(turn.own().is_some());
        // One that gives up while it waits does not hold back others.
        let own = turn.own().unwrap();
        assert!(tokio::time::timeout(Duration::ZERO, turn.of_job()).await.is_err());
        drop(own);
        assert!(turn.own().is_some());
    }
}
