//! The task of one volume: opens it, serves it to peers, mounts it, keeps it so.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nearbrick_core::{BrickId, Entry};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::mountpoint::{clear, prepare};
use super::{Inner, Shared};
use crate::config::VolumeConfig;
use crate::control::cache;
use crate::control::facts::Phase;
use crate::control::jobs::Healer;
use crate::fuse::{MountOptions, Mounted, mount};
use crate::heal::{self, HealOutcome, HealProgress, HealRequest};
use crate::peer::client::{Client, Patience};
use crate::peer::exchange::{Exchange, Journal, Pace};
use crate::peer::rubbish::Rubbish;
use crate::volume::{Volume, VolumeOptions};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Between two looks whether the mount is still there.
const LOOK: Duration = Duration::from_secs(2);

/// The task of one volume.
pub(super) struct VolumeTask {
    pub(super) inner: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
    pub(super) config: watch::Receiver<Option<Arc<VolumeConfig>>>,
    pub(super) stop: CancellationToken,
}

/// A volume that is open.
struct Open {
    config: Arc<VolumeConfig>,
    volume: Arc<Volume>,
    client: Arc<Client>,
    exchange: Arc<Exchange>,
}

impl VolumeTask {
    fn show(&self, phase: Phase) {
        let mut now = self.shared.now();
        if now.phase != phase {
            match &phase {
                Phase::Refused(why) | Phase::Degraded { message: why, .. } => {
                    tracing::error!(volume = %self.shared.key, "{why}");
                }
                Phase::Ready => tracing::info!(volume = %self.shared.key, "mounted"),
                Phase::Starting(_) => {}
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
            let config = self.config.borrow_and_update().clone();
            let opened = match config {
                None => Err(None),
                Some(config) => self.open(config).await.map_err(Some),
            };
            match opened {
                Ok(open) => {
                    wait = FIRST_RETRY;
                    self.keep(open).await;
                    continue;
                }
                Err(Some(why)) => self.show(Phase::Refused(why)),
                Err(None) => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(jittered(wait)) => wait = (wait * 2).min(LAST_RETRY),
                Ok(()) = self.config.changed() => {}
            }
        }
    }

    async fn open(&self, config: Arc<VolumeConfig>) -> Result<Open, String> {
        // What was refused stays so in the reports until it is in use.
        if !matches!(self.shared.now().phase, Phase::Refused(_)) {
            self.show(Phase::Starting(format!("opening {}", config.path.display())));
        }
        let wanted = (*config).clone();
        let volume = tokio::task::spawn_blocking(move || Volume::open(wanted, VolumeOptions::default()))
            .await
            .map_err(|_| "the brick cannot be opened: a fault in the agent, see its log".to_owned())?
            .map_err(|error| error.to_string())?;
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
        let exchange = Exchange::new(volume.clone(), client.clone(), Pace::default());
        client.set_members(&config.members);
        exchange.members_changed();
        self.inner.registry.insert(exchange.clone());
        self.shared.now().volume = Some(volume.clone());
        self.shared.healer.send_replace(Some(Arc::new(OpenVolume(volume.clone()))));
        let open = Open { config, volume, client, exchange };
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
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep_until(again), if mounted.is_none() => {
                    match self.mount(&open.volume).await {
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
                _ = look.tick(), if mounted.as_ref().is_some_and(Mounted::ended) => {
                    let ended = mounted.take();
                    tokio::task::spawn_blocking(move || drop(ended));
                    let message = "someone unmounted it; it is mounted again".to_owned();
                    self.show(Phase::Degraded { message, mounted: false });
                    again = tokio::time::Instant::now();
                }
                Ok(()) = changed.changed() => {
                    changed.borrow_and_update();
                    self.inner.tick();
                }
                Ok(()) = self.config.changed() => {
                    let Some(config) = self.config.borrow_and_update().clone() else { continue };
                    if !same_brick(&open.config, &config) {
                        break;
                    }
                    open.config = config;
                    open.volume.set_config((*open.config).clone());
                    open.client.set_members(&open.config.members);
                    open.exchange.members_changed();
                    self.remember(&open).await;
                    self.inner.tick();
                }
            }
        }
        self.close(open, mounted).await;
    }

    async fn mount(&self, volume: &Arc<Volume>) -> Result<Mounted, String> {
        let at = self.shared.key.below(&self.inner.options.mounts_dir);
        let (volume, passthrough) = (volume.clone(), self.inner.options.passthrough);
        tokio::task::spawn_blocking(move || {
            prepare(&at)?;
            let options = MountOptions { passthrough, ..MountOptions::default() };
            mount(volume, &at, options).map_err(|e| e.to_string())
        })
        .await
        .unwrap_or_else(|_| Err("cannot mount: a fault in the agent, see its log".to_owned()))
    }

    async fn close(&self, open: Open, mounted: Option<Mounted>) {
        let at = self.shared.key.below(&self.inner.options.mounts_dir);
        let Open { config, volume, exchange, .. } = open;
        self.shared.healer.send_replace(None);
        let ended = tokio::task::spawn_blocking(move || {
            if let Some(mount) = mounted {
                mount.unmount();
            }
            // Programs may still sit in it: it must not stand in the way of the next one.
            let _ = clear(&at);
        });
        let _ = ended.await;
        self.inner.registry.remove(config.volume_uuid);
        exchange.stop();
        let closing = volume.clone();
        let _ = tokio::task::spawn_blocking(move || closing.close()).await;
        {
            let mut now = self.shared.now();
            now.volume = None;
            now.phase = Phase::Starting("closed".to_owned());
        }
        tracing::info!(volume = %self.shared.key, "unmounted and closed");
        self.inner.tick();
    }
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
}

/// An open volume, for heal jobs.
struct OpenVolume(Arc<Volume>);

impl Healer for OpenVolume {
    fn heal(
        &self,
        request: &HealRequest,
        progress: &(dyn Fn(&HealProgress) + Sync),
        cancel: &std::sync::atomic::AtomicBool,
    ) -> HealOutcome {
        heal::run(&self.0, request, progress, cancel)
    }

    fn config(&self) -> Arc<VolumeConfig> {
        self.0.config()
    }
}
