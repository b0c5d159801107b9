//! Bringing pending files here: the target pulls.
//!
//! * `work`: which files are fetched from whom, several streams side by side.
//! * `fetch`: a stream of whole files, each hashed on the way into `staging/`: one round of syncs for many.
//! * `delta`: one large file of which something is here: only the [`chunk`]s that lack.
//! * [`limit`]: bounds on the bandwidth.
//!
//! What to do about each file is decided by [`nearbrick_core::heal`]; what has
//! arrived is put in its place, under the lock, by the volume.

pub mod chunk;
mod delta;
mod fetch;
pub mod limit;
mod work;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use globset::{GlobSet, GlobSetBuilder};
use nearbrick_core::heal::{Decision, Reason};
use nearbrick_core::{BrickId, FileId};

use crate::peer::Remote;
use crate::volume::{Planned, Volume};
use limit::{LEAST_OF_A_STREAM, Limiter, MachineTimer, Throttle, Timer};
use work::{Job, Wanted};

/// What to heal, and how.
#[derive(Clone, Debug, Default)]
pub struct HealRequest {
    /// Only from this brick.
    pub source: Option<BrickId>,
    /// Only these: globs on the path from the volume's root; empty: all.
    pub paths: Vec<String>,
    /// Most bytes in a second.
    pub bandwidth: Option<u64>,
    /// Most streams side by side; one, in the caller's own thread, if it is not set.
    pub concurrency: Option<u32>,
    /// Which files come first.
    pub order: Order,
    /// Tries of a file that failed for a reason that may pass; one if it is not set.
    pub tries: Option<u32>,
    /// A bound that this heal shares with others.
    pub shared: Option<Arc<Limiter>>,
}

/// Which files come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// What has waited longest.
    #[default]
    OldestFirst,
    /// What was written last.
    NewestFirst,
    /// The smallest.
    SmallestFirst,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealProgress {
    /// Files that were pending when it began.
    pub files_total: u64,
    /// Of these healed.
    pub files_done: u64,
    /// Of these not.
    pub files_failed: u64,
    /// Their bytes.
    pub bytes_total: u64,
    /// Of these healed.
    pub bytes_done: u64,
    /// Bytes that are here of large files that are under way.
    pub bytes_moving: u64,
    /// Why not: how many, and a line about one of them.
    pub failures: BTreeMap<Reason, (u64, String)>,
    /// When those that failed are tried again: milliseconds since 1970.
    pub next_try_ms: Option<u64>,
}

/// How it ended.
pub type HealOutcome = HealProgress;

impl HealProgress {
    /// These nodes were there a moment ago, and did not say what they have: files of which nobody knows here may be pending. It is no
    /// reason to fail, and nobody is to read that nothing was left.
    pub fn not_heard(&mut self, nodes: &[String]) {
        if nodes.is_empty() {
            return;
        }
        let nodes = nodes.join(", ");
        let why = format!("no answer from {nodes}: what was written there lately comes with a later heal");
        self.failures.entry(Reason::Unreachable).or_insert((0, why));
    }
}

/// Between the first two tries; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(60);
/// Bytes of large files that come before it is said how far they are.
const WORTH_SAYING: u64 = 256 << 10;
/// The most streams of one heal.
const MOST_STREAMS: u64 = 64;

fn globs(paths: &[String]) -> Result<Option<GlobSet>, String> {
    if paths.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for text in paths {
        set.add(nearbrick_crds::paths::glob(text).map_err(|e| e.to_string())?);
    }
    set.build().map(Some).map_err(|e| e.to_string())
}

/// Keeps count, and says so.
pub(crate) struct Count<'a> {
    progress: HealProgress,
    /// Those that failed since the last try.
    failed: Vec<(FileId, Reason)>,
    /// Bytes that came since it was last said.
    unsaid: u64,
    say: &'a (dyn Fn(&HealProgress) + Sync + 'a),
    volume: &'a Volume,
}

impl<'a> Count<'a> {
    fn new(volume: &'a Volume, say: &'a (dyn Fn(&HealProgress) + Sync + 'a)) -> Mutex<Self> {
        Mutex::new(Count { progress: HealProgress::default(), failed: Vec::new(), unsaid: 0, say, volume })
    }

    /// Bytes of a large file are here, until it is [`Count::settled`].
    fn came(&mut self, bytes: u64) {
        self.progress.bytes_moving += bytes;
        self.unsaid += bytes;
        if self.unsaid >= WORTH_SAYING {
            self.unsaid = 0;
            (self.say)(&self.progress);
        }
    }

    /// That file has come as a whole, or did not.
    fn settled(&mut self, bytes: u64) {
        self.progress.bytes_moving = self.progress.bytes_moving.saturating_sub(bytes);
    }

    fn done(&mut self, bytes: u64) {
        self.progress.files_done += 1;
        self.progress.bytes_done = self.progress.bytes_done.saturating_add(bytes);
        (self.say)(&self.progress);
    }

    fn failed(&mut self, file: FileId, reason: Reason) {
        self.failed.push((file, reason));
        self.progress.files_failed += 1;
        let entry = self.progress.failures.entry(reason).or_insert_with(|| (0, String::new()));
        entry.0 += 1;
        if entry.1.is_empty() {
            let path = self.volume.path_for_people(file);
            entry.1 =
                path.map_or_else(|_| format!("file {file}"), |p| String::from_utf8_lossy(&p).into_owned());
        }
        (self.say)(&self.progress);
    }

    /// Takes those that failed off the count: they are tried again.
    fn again(&mut self) -> Vec<FileId> {
        let (again, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.failed).into_iter().partition(|(_, reason)| may_pass(*reason));
        self.failed = stay;
        for (_, reason) in &again {
            self.progress.files_failed -= 1;
            if let Some(entry) = self.progress.failures.get_mut(reason) {
                entry.0 -= 1;
                if entry.0 == 0 {
                    self.progress.failures.remove(reason);
                }
            }
        }
        self.progress.next_try_ms = None;
        again.into_iter().map(|(file, _)| file).collect()
    }
}

/// Whether the next try may succeed without anyone's help.
pub(crate) fn may_pass(reason: Reason) -> bool {
    match reason {
        Reason::Unreachable | Reason::Busy | Reason::SourceChanged | Reason::Corrupt => true,
        Reason::NoSpace | Reason::Permission | Reason::Conflict => false,
    }
}

fn get<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Heals what this brick lacks. Blocks; `progress` is called after each file, and
/// `cancel` is looked at between two, and within large ones.
pub fn run(
    volume: &Arc<Volume>,
    request: &HealRequest,
    progress: &(dyn Fn(&HealProgress) + Sync),
    cancel: &AtomicBool,
) -> HealOutcome {
    run_by(volume, request, progress, cancel, &(Arc::new(MachineTimer::default()) as Arc<dyn Timer>))
}

/// The same, by this clock.
pub fn run_by(
    volume: &Arc<Volume>,
    request: &HealRequest,
    progress: &(dyn Fn(&HealProgress) + Sync),
    cancel: &AtomicBool,
    timer: &Arc<dyn Timer>,
) -> HealOutcome {
    let _one = get(&volume.healing);
    let globs = match globs(&request.paths) {
        Ok(globs) => globs,
        Err(why) => {
            let failures = BTreeMap::from([(Reason::SourceChanged, (0, format!("paths: {why}")))]);
            return HealProgress { failures, ..HealProgress::default() };
        }
    };
    let count = Count::new(volume, progress);
    let matches = |file: &FileId| {
        globs.as_ref().is_none_or(|globs| {
            volume.path_for_people(*file).is_ok_and(|p| globs.is_match(OsStr::from_bytes(&p)))
        })
    };
    let mut plans = planned(volume, volume.lacking().into_iter().filter(matches), request.order);
    {
        let mut count = get(&count);
        count.progress.files_total = plans.len() as u64;
        count.progress.bytes_total = bytes_of(&plans);
        progress(&count.progress);
    }
    // What is only cached makes way for what must be here.
    volume.make_space(bytes_of(&plans));
    let own = request.bandwidth.map(|rate| Limiter::new(rate, timer.clone()));
    let throttle = Throttle::new(own, request.shared.clone());
    let remote = volume.remote();
    let heal =
        Heal { volume, request, remote: remote.as_deref(), throttle: &throttle, count: &count, cancel };
    let mut wait = FIRST_WAIT;
    for left in (0..request.tries.unwrap_or(1)).rev() {
        carry_out(&heal, plans);
        let some = get(&count).failed.iter().any(|(_, reason)| may_pass(*reason));
        if left == 0 || !some || cancel.load(Ordering::Relaxed) {
            break;
        }
        {
            let mut count = get(&count);
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            count.progress.next_try_ms = Some(volume.now_ms().saturating_add(wait));
            progress(&count.progress);
        }
        limit::wait(&**timer, wait, cancel);
        wait = (wait * 2).min(LAST_WAIT);
        let again = get(&count).again();
        plans = planned(volume, again.into_iter(), request.order);
    }
    volume.tidy();
    let outcome = get(&count).progress.clone();
    if let Some((reason, (n, path))) = outcome.failures.iter().next() {
        volume.note_error(*reason, format!("{n} files could not be healed, among them {path}"));
    }
    outcome
}

fn bytes_of(plans: &[Planned]) -> u64 {
    plans.iter().fold(0, |sum, plan| plan.size.saturating_add(sum))
}

/// What to do about each of these, in the order in which they are to come.
fn planned(volume: &Volume, files: impl Iterator<Item = FileId>, order: Order) -> Vec<Planned> {
    let mut plans: Vec<_> = files
        .filter_map(|file| {
            volume.planned(file).inspect_err(|error| tracing::warn!(%file, %error, "cannot be planned")).ok()
        })
        .collect();
    match order {
        Order::OldestFirst => {}
        Order::NewestFirst => plans.reverse(),
        Order::SmallestFirst => plans.sort_by_key(|p| p.size),
    }
    plans
}

/// Brings the newest version of one file here, now.
///
/// # Errors
/// Why not.
pub(crate) fn bring(volume: &Volume, file: FileId) -> Result<(), Reason> {
    let plan = volume.planned(file).map_err(|_| Reason::Permission)?;
    if let Decision::Wait(reason) = plan.decision {
        return Err(reason);
    }
    match bring_all(volume, vec![plan]).failures.keys().next() {
        Some(reason) => Err(*reason),
        None => Ok(()),
    }
}

/// Does what is planned, now and in one stream.
pub(crate) fn bring_all(volume: &Volume, plans: Vec<Planned>) -> HealOutcome {
    let quiet = |_: &HealProgress| {};
    let count = Count::new(volume, &quiet);
    let (request, throttle, cancel) = (HealRequest::default(), Throttle::default(), AtomicBool::new(false));
    let remote = volume.remote();
    let (remote, request, throttle, count, cancel) =
        (remote.as_deref(), &request, &throttle, &count, &cancel);
    carry_out(&Heal { volume, request, remote, throttle, count, cancel }, plans);
    get(count).progress.clone()
}

/// How many streams side by side: so few that each gets what it needs to stay open.
fn streams(request: &HealRequest, throttle: &Throttle) -> usize {
    let most = throttle.rate().map_or(MOST_STREAMS, |rate| (rate / LEAST_OF_A_STREAM).clamp(1, MOST_STREAMS));
    let streams = u64::from(request.concurrency.unwrap_or(1)).clamp(1, most);
    usize::try_from(streams).unwrap_or(1)
}

/// What a heal borrows from its caller.
#[derive(Clone, Copy)]
struct Heal<'a> {
    volume: &'a Volume,
    request: &'a HealRequest,
    remote: Option<&'a dyn Remote>,
    throttle: &'a Throttle,
    count: &'a Mutex<Count<'a>>,
    cancel: &'a AtomicBool,
}

fn carry_out(heal: &Heal<'_>, plans: Vec<Planned>) {
    let Heal { volume, request, remote, throttle, count, cancel } = *heal;
    let mut files = Vec::new();
    for Planned { file, size, decision } in plans {
        if cancel.load(Ordering::Relaxed) {
            return;
        }
        match decision {
            Decision::Nothing => get(count).done(0),
            Decision::Acknowledge => match volume.acknowledge(file) {
                Ok(()) => get(count).done(size),
                Err(rustix::io::Errno::BUSY) => get(count).failed(file, Reason::Busy),
                Err(_) => get(count).failed(file, Reason::Permission),
            },
            Decision::Wait(reason) => get(count).failed(file, reason),
            Decision::Fetch { version, mut from, .. } => {
                if let Some(only) = request.source {
                    from.retain(|b| *b == only);
                }
                if let Some(remote) = remote {
                    remote.order(&mut from);
                }
                if from.is_empty() || remote.is_none() {
                    get(count).failed(file, Reason::Unreachable);
                } else {
                    let by_chunks = volume.has_some_of(file, size);
                    files.push(Wanted { file, version, size, from, by_chunks });
                }
            }
        }
    }
    let Some(remote) = remote else { return };
    if !files.is_empty() {
        let job = Job { volume, remote, cancel, throttle, count };
        work::fetch_all(job, files, streams(request, throttle));
    }
}
