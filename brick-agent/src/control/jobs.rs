//! Runs heal jobs for one brick: one at a time, oldest first. What of a job concerns
//! this brick is its own entry of `status.transfers`; a job without a finished
//! one is run, also after a restart, because healing what is healed costs nothing.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nearbrick_core::heal::Reason;
use nearbrick_crds::jiff::Timestamp;
use nearbrick_crds::meta::{now, time_from_unix};
use nearbrick_crds::{
    FailureReason, HealJob, HealJobSpec, HealOrder, HealPolicySpec, Retry, Time, Transfer, TransferFailure,
    TransferPhase, quantity,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alone::Turn;
use super::api::{ApiServer, Meta, Written};
use super::convert::VolumeKey;
use crate::config::VolumeConfig;
use crate::heal::{HealOutcome, HealProgress, HealRequest, Order};
use crate::volume::Count;

/// Over how long the rate of a transfer is taken.
const PACE: Duration = Duration::from_secs(10);
/// Between two reports of a transfer.
const REPORT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(3);
/// Streams side by side, where the job does not say how many.
const STREAMS: u32 = 4;
/// Tries of a file that fails, where the job does not say how many.
const TRIES: u32 = 3;
/// The longest message of a failure.
const MAX_MESSAGE: usize = 512;

/// A volume that can be healed.
pub trait Healer: Send + Sync + 'static {
    /// Brings what is pending here. Blocks; calls `progress` as it goes, and
    /// returns early when `cancel` is set.
    fn heal(
        &self,
        request: &HealRequest,
        progress: &(dyn Fn(&HealProgress) + Sync),
        cancel: &AtomicBool,
    ) -> HealOutcome;
    /// What is known of the volume.
    fn config(&self) -> Arc<VolumeConfig>;
    /// What this brick lacks. May block on the disk.
    fn lacks(&self) -> Count;
}

/// The job to run now for the brick called `target`.
pub fn pick<'a>(jobs: &'a [Arc<HealJob>], target: &str, done: &HashSet<String>) -> Option<&'a Arc<HealJob>> {
    jobs.iter()
        .filter(|job| {
            let status = job.status.as_ref();
            let ended = status.and_then(|s| s.phase).is_some_and(|p| p.is_ended());
            let mine =
                job.spec.target_bricks.is_empty() || job.spec.target_bricks.iter().any(|t| t == target);
            let finished =
                status.is_some_and(|s| s.transfers.iter().any(|t| t.target == target && is_finished(t)));
            let done = job.metadata.uid.as_ref().is_some_and(|uid| done.contains(uid));
            mine && !ended && !finished && !done && job.metadata.deletion_timestamp.is_none()
        })
        .min_by_key(|job| (job.metadata.creation_timestamp.as_ref().map(|t| t.0), job.metadata.name.clone()))
}

fn is_finished(transfer: &Transfer) -> bool {
    matches!(transfer.phase, Some(TransferPhase::Completed | TransferPhase::Failed))
}

/// What the job asks of the volume.
///
/// # Errors
/// The job names a source that is no brick of the volume.
fn request_of(job: &HealJob, config: &VolumeConfig) -> Result<HealRequest, String> {
    let source = match &job.spec.source_brick {
        None => None,
        Some(name) => Some(
            config
                .members
                .iter()
                .find(|m| m.name == *name)
                .map(|m| m.brick)
                .ok_or_else(|| format!("sourceBrick {name} is no brick of volume {}", config.name))?,
        ),
    };
    let HealJobSpec { bandwidth, concurrency, order, retry, paths, .. } = &job.spec;
    let asked = Asked { bandwidth, concurrency: *concurrency, order: *order, retry };
    Ok(HealRequest { source, paths: paths.clone(), ..asked.request()? })
}

/// How a heal is to be done, by a job or by a policy.
pub struct Asked<'a> {
    bandwidth: &'a Option<String>,
    concurrency: Option<u32>,
    order: Option<HealOrder>,
    retry: &'a Option<Retry>,
}

impl<'a> Asked<'a> {
    /// As a policy says.
    pub fn of_policy(policy: &'a HealPolicySpec) -> Self {
        let HealPolicySpec { bandwidth, concurrency, order, retry, .. } = policy;
        Asked { bandwidth, concurrency: *concurrency, order: *order, retry }
    }

    /// Of all that is lacking, from all holders.
    ///
    /// # Errors
    /// The bandwidth is no number.
    pub fn request(&self) -> Result<HealRequest, String> {
        let bandwidth = self.bandwidth.as_ref().map(|text| {
            let bytes = quantity::bytes(text).filter(|n| *n > 0);
            bytes.ok_or_else(|| format!("bandwidth {text:?} is no number of bytes: write one such as 50Mi"))
        });
        Ok(HealRequest {
            bandwidth: bandwidth.transpose()?,
            concurrency: Some(self.concurrency.unwrap_or(STREAMS)),
            order: match self.order.unwrap_or_default() {
                HealOrder::OldestFirst => Order::OldestFirst,
                HealOrder::NewestFirst => Order::NewestFirst,
                HealOrder::SmallestFirst => Order::SmallestFirst,
            },
            tries: Some(self.retry.as_ref().map_or(TRIES, |r| r.limit)),
            ..HealRequest::default()
        })
    }
}

fn reason(reason: Reason) -> FailureReason {
    match reason {
        Reason::Unreachable => FailureReason::Unreachable,
        Reason::NoSpace => FailureReason::NoSpace,
        Reason::Permission => FailureReason::Permission,
        Reason::Conflict => FailureReason::Conflict,
        Reason::Busy => FailureReason::Busy,
        Reason::SourceChanged => FailureReason::SourceChanged,
        Reason::Corrupt => FailureReason::Corrupt,
    }
}

fn failures(progress: &HealProgress) -> Vec<TransferFailure> {
    let next = progress.next_try_ms.and_then(|ms| i64::try_from(ms / 1000).ok()).map(time_from_unix);
    progress
        .failures
        .iter()
        .map(|(why, (count, message))| TransferFailure {
            reason: Some(reason(*why)),
            count: *count,
            message: message
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(MAX_MESSAGE)
                .collect(),
            next_try: next.clone().filter(|_| crate::heal::may_pass(*why)),
        })
        .collect()
}

/// Bytes in a second.
fn rate(bytes: u64, time: Duration) -> u64 {
    (bytes as f64 / time.as_secs_f64().max(0.001)) as u64
}

/// Bytes that are here, of whole files and of parts.
fn bytes_here(progress: &HealProgress) -> u64 {
    // What was written elsewhere meanwhile may be more than was planned.
    progress
        .bytes_done
        .saturating_add(progress.bytes_moving)
        .min(progress.bytes_total.max(progress.bytes_done))
}

/// The rate of the last seconds.
#[derive(Default)]
struct Pace(VecDeque<(Duration, u64)>);

impl Pace {
    /// So many bytes were here so long after the start. Says the rate.
    fn at(&mut self, time: Duration, bytes: u64) -> u64 {
        self.0.push_back((time, bytes));
        while self.0.len() > 2 && self.0[1].0 + PACE <= time {
            self.0.pop_front();
        }
        let (from, before) = self.0[0];
        let from = if self.0.len() == 1 { Duration::ZERO } else { from };
        let before = if self.0.len() == 1 { 0 } else { before };
        rate(bytes.saturating_sub(before), time.saturating_sub(from))
    }
}

/// This brick's entry of the job. `ended` is when it ended; `rate` is the present one, or then that of the whole.
pub fn transfer(
    target: &str,
    progress: &HealProgress,
    started: &Time,
    rate: u64,
    ended: Option<Time>,
) -> Transfer {
    let bytes_done = bytes_here(progress);
    let left = progress.bytes_total.saturating_sub(bytes_done);
    let phase = match &ended {
        None => TransferPhase::Running,
        Some(_) if progress.files_failed > 0 && progress.files_done == 0 => TransferPhase::Failed,
        Some(_) => TransferPhase::Completed,
    };
    Transfer {
        target: target.to_owned(),
        phase: Some(phase),
        files_total: progress.files_total,
        files_done: progress.files_done,
        files_failed: progress.files_failed,
        bytes_total: progress.bytes_total,
        bytes_done,
        bytes_per_second: Some(rate),
        eta_seconds: (ended.is_none() && rate > 0).then(|| left.div_ceil(rate)),
        failures: failures(progress),
        started_at: Some(started.clone()),
        completed_at: ended,
    }
}

/// How long it is until then, by this machine's clock.
pub fn left_until(at: Timestamp) -> Duration {
    let left = at.as_millisecond().saturating_sub(Timestamp::now().as_millisecond()).max(0);
    Duration::from_millis(left.unsigned_abs())
}

/// A heal runs on its own thread: it must not outlive the task that waits for it.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the jobs of one volume.
pub struct Runner {
    /// The server.
    pub api: ApiServer,
    /// Which volume.
    pub key: VolumeKey,
    /// The name of this workstation's brick.
    pub target: String,
    /// The volume, while it is open.
    pub healer: watch::Receiver<Option<Arc<dyn Healer>>>,
    /// Whose turn it is to heal the volume here.
    pub turn: Arc<Turn>,
    /// The volume's jobs.
    pub jobs: watch::Receiver<Vec<Arc<HealJob>>>,
    /// Ends it, within the file at hand.
    pub stop: CancellationToken,
}

impl Runner {
    /// Runs jobs until it is stopped.
    pub async fn run(mut self) {
        let mut done = HashSet::new();
        loop {
            let jobs = self.jobs.borrow_and_update().clone();
            let healer = self.healer.borrow_and_update().clone();
            // Only what is still there need be remembered.
            done.retain(|uid| jobs.iter().any(|j| j.metadata.uid.as_ref() == Some(uid)));
            if !jobs.is_empty() {
                self.turn.seen(Timestamp::now());
            }
            if let (Some(healer), Some(job)) = (healer, pick(&jobs, &self.target, &done)) {
                let turn = self.turn.clone();
                let _turn = turn.of_job().await;
                self.job(job, healer).await;
                self.turn.seen(Timestamp::now());
                done.extend(job.metadata.uid.clone());
                if self.stop.is_cancelled() {
                    return;
                }
                continue;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                Ok(()) = self.jobs.changed() => {}
                Ok(()) = self.healer.changed() => {}
                else => return,
            }
        }
    }

    async fn job(&mut self, job: &HealJob, healer: Arc<dyn Healer>) {
        let name = job.metadata.name.clone().unwrap_or_default();
        let (started, clock) = (now(), Instant::now());
        let request = match request_of(job, &healer.config()) {
            Ok(request) => request,
            Err(why) => {
                let failures = BTreeMap::from([(Reason::Unreachable, (0, why))]);
                let progress = HealProgress { failures, ..HealProgress::default() };
                let ended = Transfer {
                    phase: Some(TransferPhase::Failed),
                    ..transfer(&self.target, &progress, &started, 0, Some(now()))
                };
                return self.finish(&name, &ended).await;
            }
        };
        tracing::info!(volume = %self.key, job = name, "healing");
        let (progress, mut latest) = watch::channel(HealProgress::default());
        let closes = job.spec.not_after.as_ref().map(|at| clock + left_until(at.0));
        let cancel = Arc::new(AtomicBool::new(false));
        let _ends_with_this = CancelOnDrop(cancel.clone());
        let mut work = {
            let cancel = cancel.clone();
            tokio::task::spawn_blocking(move || {
                healer.heal(
                    &request,
                    &|p| {
                        progress.send_replace(p.clone());
                    },
                    &cancel,
                )
            })
        };
        let (mut sent, mut pace) = (None, Pace::default());
        let mut tick = tokio::time::interval(REPORT);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                () = self.stop.cancelled(), if !cancel.load(Ordering::Relaxed) => {
                    cancel.store(true, Ordering::Relaxed);
                }
                // What is left then is not lost: parts of large files stay, and the next heal goes on with them.
                () = tokio::time::sleep_until(closes.unwrap_or(clock)),
                    if closes.is_some() && !cancel.load(Ordering::Relaxed) =>
                {
                    cancel.store(true, Ordering::Relaxed);
                }
                _ = tick.tick() => {
                    let gone = {
                        let jobs = self.jobs.borrow();
                        !jobs.iter().any(|j| j.metadata.uid == job.metadata.uid)
                    };
                    let progress = latest.borrow_and_update().clone();
                    let rate = pace.at(clock.elapsed(), bytes_here(&progress));
                    let report = transfer(&self.target, &progress, &started, rate, None);
                    // Of a transfer that moves nothing it is news once that it does not.
                    let now = (progress, rate == 0);
                    let news = sent.as_ref() != Some(&now);
                    if gone || (news && self.write(&name, &report).await == Written::Gone) {
                        cancel.store(true, Ordering::Relaxed);
                    }
                    sent = Some(now);
                }
            }
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(volume = %self.key, job = name, "the heal ended by a fault: {error}");
                let failures = BTreeMap::from([(
                    Reason::Busy,
                    (0, "the heal ended by a fault; see the agent's log".to_owned()),
                )]);
                HealOutcome { files_failed: 1, failures, ..latest.borrow().clone() }
            }
        };
        if self.stop.is_cancelled() {
            // Not finished: it is run again by who comes next.
            return;
        }
        tracing::info!(
            volume = %self.key, job = name, files = outcome.files_done, bytes = outcome.bytes_done,
            failed = outcome.files_failed, seconds = clock.elapsed().as_secs_f64(), "healed"
        );
        let mean = rate(bytes_here(&outcome), clock.elapsed());
        let ended = transfer(&self.target, &outcome, &started, mean, Some(now()));
        self.finish(&name, &ended).await;
    }

    async fn write(&self, name: &str, transfer: &Transfer) -> Written {
        let status = serde_json::json!({ "transfers": [transfer] });
        let object = Meta { namespace: Some(&self.key.namespace), name };
        self.api.apply_status(&self.api.namespaced::<HealJob>(&self.key.namespace), &object, &status).await
    }

    /// Writes the end until it is written, or the job is gone.
    async fn finish(&self, name: &str, ended: &Transfer) {
        while self.write(name, ended).await == Written::Failed {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_crds::{HealJobSpec, HealJobStatus, JobPhase, LocalRef};

    const ME: &str = "home.ws-b";

    fn job(name: &str, created: i64) -> HealJob {
        let spec = HealJobSpec { volume_ref: LocalRef::new("home"), ..Default::default() };
        let mut job = HealJob::new(name, spec);
        job.metadata.uid = Some(format!("uid-{name}"));
        job.metadata.creation_timestamp = Some(time_from_unix(created));
        job
    }

    fn picked(jobs: Vec<HealJob>, done: &[&str]) -> Option<String> {
        let jobs: Vec<_> = jobs.into_iter().map(Arc::new).collect();
        let done = done.iter().map(|d| (*d).to_owned()).collect();
        pick(&jobs, ME, &done).and_then(|j| j.metadata.name.clone())
    }

    #[test]
    fn the_oldest_job_for_this_brick_that_is_not_finished() {
        let older = job("older", 10);
        assert_eq!(picked(vec![job("newer", 20), older.clone()], &[]).as_deref(), Some("older"));
        assert_eq!(picked(vec![job("newer", 20), older.clone()], &["uid-older"]).as_deref(), Some("newer"));

        let mut others = older.clone();
        others.spec.target_bricks = vec!["home.ws-c".to_owned()];
        assert_eq!(picked(vec![others.clone()], &[]), None);
        others.spec.target_bricks.push(ME.to_owned());
        assert_eq!(picked(vec![others], &[]).as_deref(), Some("older"));

        let with = |phase, target: &str, transfer| {
            let mut job = older.clone();
            let transfer =
                Transfer { target: target.to_owned(), phase: Some(transfer), ..Default::default() };
            job.status =
                Some(HealJobStatus { phase: Some(phase), transfers: vec![transfer], ..Default::default() });
            job
        };
        let (running, completed) = (JobPhase::Running, TransferPhase::Completed);
        assert_eq!(picked(vec![with(JobPhase::Failed, "x", TransferPhase::Running)], &[]), None);
        assert_eq!(picked(vec![with(running, ME, completed)], &[]), None);
        assert!(picked(vec![with(running, "home.ws-c", completed)], &[]).is_some());
        // An agent that was killed in the middle of it runs it again.
        assert!(picked(vec![with(running, ME, TransferPhase::Running)], &[]).is_some());
    }

    #[test]
    fn a_job_says_how_it_is_to_be_done() {
        let config = VolumeConfig {
            namespace: "default".to_owned(),
            name: "home".to_owned(),
            volume_uuid: uuid::Uuid::from_u128(1),
            node: "ws-b".to_owned(),
            brick: nearbrick_core::BrickId([1; 16]),
            path: "/b".into(),
            was_initialised: false,
            members: Vec::new(),
            placement: Vec::new(),
            stale_reads: Default::default(),
            conflicts: Vec::new(),
            retention_ms: crate::config::RETENTION_MS,
            healing: Default::default(),
            min_sync_copies: 1,
            release_removals: None,
            take_back_removals: None,
            upkeep: Default::default(),
        };
        let mut job = job("j", 1);
        let request = request_of(&job, &config).unwrap();
        assert_eq!((request.bandwidth, request.concurrency, request.tries), (None, Some(4), Some(3)));
        job.spec.bandwidth = Some("1.5Mi".to_owned());
        job.spec.concurrency = Some(9);
        job.spec.order = Some(HealOrder::SmallestFirst);
        job.spec.retry = Some(Retry { limit: 7 });
        let request = request_of(&job, &config).unwrap();
        assert_eq!(request.bandwidth, Some(3 << 19));
        assert_eq!((request.concurrency, request.tries), (Some(9), Some(7)));
        assert_eq!(request.order, Order::SmallestFirst);
        job.spec.bandwidth = Some("fast".to_owned());
        assert!(request_of(&job, &config).unwrap_err().contains("write one such as 50Mi"));
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut pace = Pace::default();
        let mut at = |seconds, bytes| pace.at(Duration::from_secs(seconds), bytes);
        assert_eq!(at(2, 200), 100);
        assert_eq!(at(4, 600), 200);
        assert_eq!(at(20, 3800), 200);
        assert_eq!(at(40, 3800), 0, "it moves no more");
    }

    #[test]
    fn a_transfer_says_how_far_it_is_and_why_files_failed() {
        let mut progress = HealProgress { files_total: 10, files_done: 4, ..HealProgress::default() };
        (progress.bytes_total, progress.bytes_done) = (1000, 400);
        let start = time_from_unix(100);
        let running = transfer(ME, &progress, &start, 100, None);
        assert_eq!(running.phase, Some(TransferPhase::Running));
        assert_eq!((running.bytes_per_second, running.eta_seconds), (Some(100), Some(6)));

        // Of a large file it is seen how far it is.
        let moving = HealProgress { bytes_moving: 250, ..progress.clone() };
        let moving = transfer(ME, &moving, &start, 70, None);
        assert_eq!((moving.bytes_done, moving.eta_seconds), (650, Some(5)));

        progress.files_failed = 6;
        progress.failures.insert(Reason::Busy, (6, "open\nfor writing".to_owned()));
        let ended = transfer(ME, &progress, &start, 100, Some(time_from_unix(104)));
        assert_eq!((ended.phase, ended.eta_seconds), (Some(TransferPhase::Completed), None));
        assert_eq!(ended.failures[0].reason, Some(FailureReason::Busy));
        assert_eq!(ended.failures[0].message, "open for writing");

        assert_eq!(ended.failures[0].next_try, None);
        progress.next_try_ms = Some(110_500);
        progress.failures.insert(Reason::NoSpace, (1, "f".to_owned()));
        let waits = transfer(ME, &progress, &start, 80, None);
        let next = |n: usize| waits.failures[n].next_try.clone();
        let busy = waits.failures.iter().position(|f| f.reason == Some(FailureReason::Busy)).unwrap();
        assert_eq!((next(busy), next(1 - busy)), (Some(time_from_unix(110)), None));

        progress.files_done = 0;
        let failed = transfer(ME, &progress, &start, 0, Some(start.clone()));
        assert_eq!(failed.phase, Some(TransferPhase::Failed));
    }
}
