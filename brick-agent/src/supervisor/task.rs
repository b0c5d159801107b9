//! The task of one volume: opens it, serves it to peers, mounts it, keeps it so.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use nearbrick_core::{BrickId, Entry, Incarnation};
use nearbrick_crds::jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::mountpoint::{clear, prepare};
use super::{Inner, Shared};
use crate::config::{End, VolumeConfig};
use crate::control::cache;
use crate::control::facts::Phase;
use crate::control::jobs::Healer;
use crate::control::verify;
use crate::fuse::{Keep, MountOptions, Mounted, Taken, mount, mount_kept, take_over};
use crate::heal::limit::{Limiter, Throttle};
use crate::heal::{self, HealOutcome, HealProgress, HealRequest};
use crate::peer::client::{Client, Patience};
use crate::peer::compare::Compare;
use crate::peer::exchange::{Exchange, Journal, Pace};
use crate::peer::rubbish::Rubbish;
use crate::volume::{Count, Keeper, Volume, VolumeOptions};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Between two looks whether there is space enough.
const SPACE: Duration = Duration::from_secs(30);
/// Between two looks whether the brick is to be looked through, and whether what was found is repaired.
const VERIFY: Duration = Duration::from_secs(30);
/// Looks at what is used, after which that is kept for the next start.
const KEEP_USAGE: u32 = 60;
/// For so long a heal waits for peers that are slow to say what there is.
const CATCH_UP: Duration = Duration::from_secs(15);
/// Between two looks at what is used, and at what moved here.
const USAGE: Duration = Duration::from_secs(10);
/// Between two looks whether the mount is still there.
const LOOK: Duration = Duration::from_secs(2);

/// A member that was not heard of for so long is not waited for: it is compared with when it is back.
const AWAY: Duration = Duration::from_secs(30 * 24 * 3600);

/// The task of one volume.
pub(super) struct VolumeTask {
    pub(super) inner: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
    pub(super) config: watch::Receiver<Option<Arc<VolumeConfig>>>,
    pub(super) end: watch::Receiver<Option<Arc<End>>>,
    /// Nothing of its files would be missed, so that they may be deleted.
    pub(super) agreed: AtomicBool,
    pub(super) stop: CancellationToken,
}

/// A volume that is open.
struct Open {
    config: Arc<VolumeConfig>,
    volume: Arc<Volume>,
    client: Arc<Client>,
    exchange: Arc<Exchange>,
    /// Has the mount kept for the next agent.
    keep: Option<Arc<Keep>>,
    /// What the agent before this one left of the mount, until it is gone on with.
    taken: Mutex<Option<Taken>>,
}

impl VolumeTask {
    pub(super) fn show(&self, phase: Phase) {
        let mut now = self.shared.now();
        if now.phase != phase {
            match &phase {
                Phase::Refused(why) | Phase::Degraded { message: why, .. } => {
                    tracing::error!(volume = %self.shared.key, "{why}");
                }
                Phase::Ready => tracing::info!(volume = %self.shared.key, "mounted"),
                Phase::Emptied => tracing::info!(volume = %self.shared.key, "its files are deleted"),
                Phase::Starting(_) | Phase::Emptying(_) => {}
            }
            now.phase = phase;
        }
        drop(now);
        self.inner.tick();
    }

    /// Runs until it is stopped; the volume is unmounted and closed then. Waits
    /// until what was `before` at this place is closed.
    pub(super) async fn run(mut self, before: Option<JoinHandle<()>>) {
        if let Some(before) = before {
            let _ = before.await;
        }
        let mut wait = FIRST_RETRY;
        while !self.stop.is_cancelled() {
            if let Some(end) = self.may_end() {
                self.empty(end).await;
                continue;
            }
            let config = self.config.borrow_and_update().clone();
            let opened = match config {
                None => Err(None),
                Some(config) => self.open(config).await.map_err(Some),
            };
            match opened {
                Ok(open) => {
                    wait = FIRST_RETRY;
                    self.keep(open).await;
                    if self.inner.anew.is_cancelled() {
                        self.stop.cancelled().await;
                    }
                    continue;
                }
                Err(Some(why)) => self.show(Phase::Refused(why)),
                Err(None) => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(jittered(wait)) => wait = (wait * 2).min(LAST_RETRY),
                Ok(()) = self.config.changed() => {}
                Ok(()) = self.end.changed() => {}
            }
        }
    }

    async fn open(&self, config: Arc<VolumeConfig>) -> Result<Open, String> {
        // What was refused stays so in the reports until it is in use.
        if !matches!(self.shared.now().phase, Phase::Refused(_)) {
            self.show(Phase::Starting(format!("opening {}", config.path.display())));
        }
        let wanted = (*config).clone();
        let keep = self.inner.holder.as_ref().map(|holder| Keep::new(holder.clone(), &config));
        let (keeper, at) = (keep.clone(), self.shared.key.below(&self.inner.options.mounts_dir));
        let opening = tokio::task::spawn_blocking(move || {
            let taken = keeper.as_ref().map_or(Ok(None), |keeper| taken(keeper, &at))?;
            let options = VolumeOptions {
                // A mount that is kept holds the disk. Without one nobody knows what became of it since.
                disk_stayed: taken.is_some(),
                kernel: taken.as_ref().map(Taken::kernel),
                resumed: taken.as_ref().map(Taken::resumed),
                keeper: keeper.map(|keeper| keeper as Arc<dyn Keeper>),
                ..VolumeOptions::default()
            };
            Volume::open(wanted, options).map(|volume| (volume, taken)).map_err(|error| error.to_string())
        });
        let (volume, taken) = opening
            .await
            .map_err(|_| "the brick cannot be opened: a fault in the agent, see its log".to_owned())??;
        let weak = Arc::downgrade(&volume);
        let rubbish = Rubbish::default();
        let client = Client::new(
            config.volume_uuid,
            config.brick,
            self.inner.tls.clone(),
            tokio::runtime::Handle::current(),
            Patience::default(),
            Box::new(move |from, why| {
                if let Some(volume) = Weak::upgrade(&weak) {
                    rubbish.note(&*volume, Some(from), why);
                }
            }),
        );
        volume.set_remote(client.clone());
        volume.set_scrub_rate(self.inner.scrubs.clone());
        volume.set_led(false);
        let exchange = Exchange::new(volume.clone(), client.clone(), Pace::default());
        client.set_members(&config.members);
        exchange.members_changed();
        self.inner.registry.insert(exchange.clone());
        self.shared.now().volume = Some(volume.clone());
        let healer = OpenVolume {
            volume: volume.clone(),
            exchange: exchange.clone(),
            runtime: tokio::runtime::Handle::current(),
            bandwidth: self.inner.bandwidth.clone(),
        };
        self.shared.healer.send_replace(Some(Arc::new(healer)));
        let open = Open { config, volume, client, exchange, keep, taken: Mutex::new(taken) };
        self.remember(&open).await;
        Ok(open)
    }

    async fn remember(&self, open: &Open) {
        let (bricks_dir, config) = (self.inner.options.bricks_dir.clone(), open.config.clone());
        let saved = tokio::task::spawn_blocking(move || cache::save(&bricks_dir, &config)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(volume = %self.shared.key, %error, "the configuration cannot be kept beside the brick");
        }
    }

    /// Mounts the volume and keeps it, until it is to go or to be opened anew.
    async fn keep(&mut self, mut open: Open) {
        let mut changed = open.volume.changed();
        let mut mounted: Option<Mounted> = None;
        let mut wait = FIRST_RETRY;
        let mut again = tokio::time::Instant::now();
        let mut look = tokio::time::interval(LOOK);
        let mut unkept = false;
        let mut space = tokio::time::interval(SPACE);
        let mut led = tokio::time::interval(LOOK);
        let (mut ahead, mut fetching) = (open.volume.ahead(), None);
        let mut verify = tokio::time::interval(VERIFY);
        let mut scrub = Scrub::of(&open.volume, &self.inner);
        let mut usage = tokio::time::interval(USAGE);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep_until(again), if mounted.is_none() => {
                    match self.mount(&open).await {
                        Ok(mount) => {
                            mounted = Some(mount);
                            wait = FIRST_RETRY;
                            self.show(Phase::Ready);
                        }
                        Err(message) => {
                            self.show(Phase::Degraded { message, mounted: false });
                            again = tokio::time::Instant::now() + jittered(wait);
                            wait = (wait * 2).min(LAST_RETRY);
                        }
                    }
                }
                _ = look.tick(), if mounted.is_some() => {
                    if mounted.as_ref().is_some_and(Mounted::ended) {
                        let ended = mounted.take();
                        let _ = tokio::task::spawn_blocking(move || drop(ended)).await;
                        let message = "someone unmounted it; it is mounted again".to_owned();
                        self.show(Phase::Degraded { message, mounted: false });
                        again = tokio::time::Instant::now();
                    } else if self.is_stuck(&open) {
                        break;
                    } else if let Some(keep) = open.keep.clone() {
                        let kept = tokio::task::spawn_blocking(move || keep.again()).await;
                        let why = kept.ok().and_then(Result::err);
                        if let Some(why) = why.as_ref().filter(|_| !unkept) {
                            tracing::warn!(volume = %self.shared.key, "{why}: the mount does not outlive this agent");
                        }
                        unkept = why.is_some();
                    }
                }
                Ok(()) = changed.changed() => {
                    changed.borrow_and_update();
                    if open.volume.must_reopen() {
                        break;
                    }
                    self.inner.tick();
                }
                _ = led.tick() => {
                    if self.is_to_end(&open.volume) {
                        break;
                    }
                    let confirmed = self.shared.confirmed.load(Ordering::Acquire);
                    let is_led = confirmed && self.inner.api.state().is_up();
                    let volume = open.volume.clone();
                    let _ = tokio::task::spawn_blocking(move || volume.set_led(is_led)).await;
                }
                _ = space.tick() => {
                    let volume = open.volume.clone();
                    tokio::task::spawn_blocking(move || {
                        volume.make_space(0);
                        volume.refill_reserve();
                        if let Err(error) = volume.tidy_versions() {
                            tracing::warn!(%error, "versions/ cannot be tidied up");
                        }
                    });
                }
                _ = verify.tick() => scrub.look(),
                _ = usage.tick() => scrub.look_at_usage(),
                Ok(()) = scrub.wanted.changed() => {
                    scrub.wanted.borrow_and_update();
                    scrub.look();
                }
                Ok(()) = ahead.changed() => {
                    let wanted = ahead.borrow_and_update().is_some();
                    if wanted && fetching.as_ref().is_none_or(JoinHandle::is_finished) {
                        let volume = open.volume.clone();
                        fetching = Some(tokio::task::spawn_blocking(move || volume.fetch_ahead()));
                    }
                }
                Ok(()) = self.config.changed() => {
                    let Some(config) = self.config.borrow_and_update().clone() else { continue };
                    if !same_brick(&open.config, &config) {
                        break;
                    }
                    open.config = config;
                    let (volume, config) = (open.volume.clone(), (*open.config).clone());
                    let _ = tokio::task::spawn_blocking(move || volume.set_config(config)).await;
                    open.client.set_members(&open.config.members);
                    open.exchange.members_changed();
                    self.remember(&open).await;
                    self.inner.tick();
                }
            }
        }
        scrub.end().await;
        self.close(open, mounted).await;
    }

    /// Whether this agent is to end so that a new one can go on. Only where the mount outlives that.
    fn is_stuck(&self, open: &Open) -> bool {
        let stuck = open.keep.is_some() && open.volume.wants_new_agent();
        if stuck && !self.inner.anew.is_cancelled() {
            tracing::warn!(volume = %self.shared.key, "the index took no more since its disk was full; there is space again: this agent begins anew");
            self.inner.anew.cancel();
        }
        stuck
    }

    async fn mount(&self, open: &Open) -> Result<Mounted, String> {
        let at = self.shared.key.below(&self.inner.options.mounts_dir);
        let (volume, passthrough) = (open.volume.clone(), self.inner.options.passthrough);
        let taken = open.taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        let keep = open.keep.clone();
        tokio::task::spawn_blocking(move || {
            let options = MountOptions { passthrough, ..MountOptions::default() };
            let mounted = match (keep, taken) {
                (Some(keep), Some(taken)) => {
                    let mounted = take_over(volume, &at, options, keep, taken);
                    if mounted.is_ok() {
                        tracing::info!(at = %at.display(), "goes on with the mount of the agent before this one");
                    }
                    mounted
                }
                (keep, _) => {
                    prepare(&at)?;
                    match keep {
                        Some(keep) => mount_kept(volume, &at, options, keep),
                        None => mount(volume, &at, options),
                    }
                }
            };
            mounted.map_err(|e| e.to_string())
        })
        .await
        .unwrap_or_else(|_| Err("cannot mount: a fault in the agent, see its log".to_owned()))
    }

    async fn close(&self, open: Open, mounted: Option<Mounted>) {
        let at = self.shared.key.below(&self.inner.options.mounts_dir);
        let Open { config, volume, exchange, .. } = open;
        self.shared.healer.send_replace(None);
        let anew = self.inner.anew.is_cancelled();
        let leaves = anew || self.inner.options.hand_over && self.inner.stop.is_cancelled();
        let ended = tokio::task::spawn_blocking(move || match mounted {
            Some(mount) if leaves && mount.is_kept() => mount.hand_over(),
            mounted => {
                if let Some(mount) = mounted {
                    mount.unmount();
                }
                // Programs may still sit in it: it must not stand in the way of the next one.
                let _ = clear(&at);
                true
            }
        });
        let all_ended = ended.await.unwrap_or(true);
        self.inner.registry.remove(config.volume_uuid);
        exchange.stop();
        self.look_once_more(&volume);
        if all_ended {
            let closing = volume.clone();
            let _ = tokio::task::spawn_blocking(move || closing.close()).await;
        }
        {
            let mut now = self.shared.now();
            now.volume = None;
            now.phase = Phase::Starting("closed".to_owned());
        }
        let how = if leaves { "left to the next agent" } else { "unmounted" };
        tracing::info!(volume = %self.shared.key, "{how}, and closed");
        self.inner.tick();
    }
}

/// The looks through the brick of an open volume, each on a thread of its own.
struct Scrub {
    volume: Arc<Volume>,
    limit: Arc<Limiter>,
    wanted: watch::Receiver<u64>,
    running: Option<JoinHandle<()>>,
    /// The look at what is used, and at what moved here.
    usage: Option<JoinHandle<()>>,
    /// Looks at it.
    looks: u32,
    stop: Arc<AtomicBool>,
}

impl Scrub {
    fn of(volume: &Arc<Volume>, inner: &Inner) -> Self {
        Scrub {
            volume: volume.clone(),
            limit: inner.scrubs.clone(),
            wanted: volume.scrub_wanted(),
            running: None,
            usage: None,
            looks: 0,
            stop: Arc::default(),
        }
    }

    /// Begins a pass, or goes on with one, if it is time.
    fn look(&mut self) {
        if self.running.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (volume, stop) = (self.volume.clone(), self.stop.clone());
        let throttle = Throttle::new(None, Some(self.limit.clone()));
        self.running = Some(tokio::task::spawn_blocking(move || {
            volume.review_scrub(&throttle, &stop);
            if verify::is_due(&volume.config(), &volume.scrub_status(), Timestamp::now())
                && let Err(error) = volume.scrub(&throttle, &stop)
            {
                tracing::warn!(%error, "the brick cannot be looked through now; it is tried again");
            }
        }));
    }

    /// Looks at what is used here, and reads what moved here once more.
    fn look_at_usage(&mut self) {
        if self.usage.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (volume, stop) = (self.volume.clone(), self.stop.clone());
        let throttle = Throttle::new(None, Some(self.limit.clone()));
        self.looks = self.looks.wrapping_add(1);
        let keep = self.looks.is_multiple_of(KEEP_USAGE);
        self.usage = Some(tokio::task::spawn_blocking(move || {
            let kept = if keep { volume.keep_usage() } else { Ok(()) };
            let done = volume.look_at_usage().and(kept).and_then(|()| volume.verify_moves(&throttle, &stop));
            if let Err(error) = done {
                tracing::warn!(%error, "what is used, or moved here, cannot be looked at now; it is tried again");
            }
        }));
    }

    /// Ends it, within the block at hand. The pass goes on when the volume is open again.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for running in self.running.into_iter().chain(self.usage) {
            let _ = running.await;
        }
        if let Err(error) = self.volume.keep_usage() {
            tracing::debug!(%error, "what was used is not kept");
        }
    }
}

/// What the agent before this one left of the mount at `at`.
fn taken(keep: &Keep, at: &Path) -> Result<Option<Taken>, String> {
    keep.take(at).or_else(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => Err(error.to_string()),
        _ => {
            tracing::warn!(at = %at.display(), %error, "whether a mount was kept is not known");
            Ok(None)
        }
    })
}

fn same_brick(a: &VolumeConfig, b: &VolumeConfig) -> bool {
    a.brick == b.brick && a.volume_uuid == b.volume_uuid && a.path == b.path
}

fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.8..1.2))
}

impl Journal for Volume {
    fn absorb(&self, from: BrickId, entries: Vec<Entry>) -> io::Result<usize> {
        Volume::absorb(self, from, entries).map_err(io::Error::other)
    }

    fn comparison(self: Arc<Self>, from: BrickId) -> Option<Box<dyn Compare>> {
        Some(Box::new(Volume::comparison(&self, from)))
    }

    fn completion(self: Arc<Self>, from: BrickId) -> Option<Box<dyn Compare>> {
        Volume::completion(&self, from).map(|c| Box::new(c) as Box<dyn Compare>)
    }

    fn must_compare(&self) -> bool {
        self.is_rebuilding()
    }

    fn refused(&self, origin: Incarnation, seq: u64, why: String) {
        self.refuse(origin, seq, why);
    }

    fn compact(&self) {
        if let Err(error) = Volume::compact(self, AWAY) {
            tracing::warn!(%error, "the journal cannot be compacted now");
        }
    }
}

/// An open volume, for heal jobs.
struct OpenVolume {
    volume: Arc<Volume>,
    exchange: Arc<Exchange>,
    runtime: tokio::runtime::Handle,
    bandwidth: Option<Arc<Limiter>>,
}

impl Healer for OpenVolume {
    fn heal(
        &self,
        request: &HealRequest,
        progress: &(dyn Fn(&HealProgress) + Sync),
        cancel: &AtomicBool,
    ) -> HealOutcome {
        let request = HealRequest { shared: self.bandwidth.clone(), ..request.clone() };
        // Who asks for a heal knows of files of which nobody may have told this brick yet.
        let unheard = self.runtime.block_on(self.exchange.catch_up(CATCH_UP));
        let nodes: Vec<_> = unheard.into_iter().filter_map(|brick| self.exchange.node_of(brick)).collect();
        let mut outcome = heal::run(&self.volume, &request, progress, cancel);
        outcome.not_heard(&nodes);
        outcome
    }

    fn config(&self) -> Arc<VolumeConfig> {
        self.volume.config()
    }

    fn lacks(&self) -> Count {
        self.volume.status().pending_in
    }
}
