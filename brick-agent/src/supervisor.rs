//! The volumes of this workstation: each opened, served to peers, mounted, and
//! kept so by a task of its own. A volume that cannot be opened is reported
//! and tried again; it never takes another one down.

mod ending;
mod mountpoint;
mod task;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nearbrick_crds::HealJob;
use nearbrick_crds::meta::brick_name;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::commands::server::OpenVolumes;
use crate::config::{End, VolumeConfig};
use crate::control::alone::{Alone, Turn};
use crate::control::api::ApiServer;
use crate::control::cache;
use crate::control::convert::VolumeKey;
use crate::control::facts::{Facts, Phase, VolumeFacts};
use crate::control::jobs::{Healer, Runner};
use crate::control::watch::Volumes;
use crate::heal::limit::{Limiter, MachineTimer};
use crate::holder::client::{Client, HolderOptions};
use crate::peer::server::Registry;
use crate::peer::tls::Tls;
use crate::volume::Volume;

use task::VolumeTask;

/// Where things are, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// This workstation.
    pub node: String,
    /// Bricks without a path of their own.
    pub bricks_dir: PathBuf,
    /// Mounts.
    pub mounts_dir: PathBuf,
    /// Whether reads and writes may go to the brick file in the kernel.
    pub passthrough: bool,
    /// Who keeps mounts while no agent serves them; none: they end with the agent.
    pub holder: Option<HolderOptions>,
    /// Whether mounts are left to the next agent when this one ends in order.
    pub hand_over: bool,
    /// Most bytes in a second that the heals of all volumes take together.
    pub heal_bandwidth: Option<u64>,
    /// Most bytes in a second that are read from the disk to look through bricks, for all volumes together.
    pub scrub_bandwidth: u64,
}

/// The volumes of this workstation.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    tls: Arc<Tls>,
    registry: Arc<Registry>,
    api: ApiServer,
    holder: Option<Arc<Client>>,
    bandwidth: Option<Arc<Limiter>>,
    scrubs: Arc<Limiter>,
    slots: Mutex<BTreeMap<VolumeKey, Slot>>,
    /// Volumes that were removed and may not be closed yet.
    leaving: Mutex<BTreeMap<VolumeKey, JoinHandle<()>>>,
    changed: watch::Sender<u64>,
    stop: CancellationToken,
    /// Only a new agent can go on: mounts are left to it.
    anew: CancellationToken,
}

/// One volume.
struct Slot {
    config: watch::Sender<Option<Arc<VolumeConfig>>>,
    end: watch::Sender<Option<Arc<End>>>,
    problem: Option<String>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What the task of a volume shows.
struct Shared {
    key: VolumeKey,
    now: Mutex<Now>,
    healer: watch::Sender<Option<Arc<dyn Healer>>>,
    turn: Arc<Turn>,
    /// The volume's objects were seen in the API since this agent began.
    confirmed: AtomicBool,
}

struct Now {
    phase: Phase,
    volume: Option<Arc<Volume>>,
}

impl Supervisor {
    /// Of no volume yet.
    pub fn new(options: Options, tls: Arc<Tls>, registry: Arc<Registry>, api: ApiServer) -> Self {
        let holder = options.holder.clone().map(|options| Arc::new(Client::new(options)));
        let bandwidth =
            options.heal_bandwidth.map(|rate| Limiter::new(rate, Arc::new(MachineTimer::default())));
        let scrubs = Limiter::new(options.scrub_bandwidth, Arc::new(MachineTimer::default()));
        let inner = Inner {
            options,
            bandwidth,
            scrubs,
            tls,
            registry,
            api,
            holder,
            slots: Mutex::default(),
            leaving: Mutex::default(),
            changed: watch::Sender::new(0),
            stop: CancellationToken::new(),
            anew: CancellationToken::new(),
        };
        Supervisor { inner: Arc::new(inner) }
    }

    /// Ends when this agent is to end and begin anew, with the mounts left to the new one.
    pub async fn must_begin_anew(&self) {
        self.inner.anew.cancelled().await;
    }

    /// Brings up what was in use before, without asking the API.
    pub fn resume(&self) {
        for config in cache::load_all(&self.inner.options.bricks_dir, &self.inner.options.node) {
            tracing::info!(volume = %VolumeKey::of(&config), "resumed from the configuration kept beside the brick");
            self.apply(config);
        }
    }

    /// Unmounts all volumes, or leaves them to the next agent, and closes them, side by side.
    pub async fn shut_down(&self) {
        self.inner.stop.cancel();
        let slots = std::mem::take(&mut *self.inner.slots());
        let tasks: Vec<_> = slots
            .into_values()
            .map(|slot| {
                slot.stop.cancel();
                slot.task
            })
            .collect();
        let leaving = std::mem::take(&mut *self.inner.leaving());
        futures::future::join_all(tasks.into_iter().chain(leaving.into_values())).await;
    }
}

impl Inner {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<VolumeKey, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> MutexGuard<'_, BTreeMap<VolumeKey, JoinHandle<()>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The slot of `key`, made if it is not there; none while the agent ends.
    fn with_slot<T>(self: &Arc<Self>, key: &VolumeKey, work: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        if self.stop.is_cancelled() {
            return None;
        }
        let mut slots = self.slots();
        let slot = slots.entry(key.clone()).or_insert_with(|| {
            let shared = Arc::new(Shared {
                key: key.clone(),
                now: Mutex::new(Now {
                    phase: Phase::Starting("waiting for the volume's objects in the API".to_owned()),
                    volume: None,
                }),
                healer: watch::Sender::new(None),
                turn: Arc::default(),
                confirmed: AtomicBool::new(false),
            });
            let (config, receiver) = watch::channel(None);
            let (end, ending) = watch::channel(None);
            let stop = CancellationToken::new();
            let task = VolumeTask {
                inner: self.clone(),
                shared: shared.clone(),
                config: receiver,
                end: ending,
                agreed: AtomicBool::new(false),
                stop: stop.clone(),
            };
            let alone = Alone {
                key: key.clone(),
                healer: shared.healer.subscribe(),
                turn: shared.turn.clone(),
                stop: stop.clone(),
            };
            tokio::spawn(alone.run());
            let before = self.leaving().remove(key);
            Slot { config, end, problem: None, shared, stop, task: tokio::spawn(task.run(before)) }
        });
        Some(work(slot))
    }
}

impl Volumes for Supervisor {
    fn apply(&self, config: VolumeConfig) {
        let key = VolumeKey::of(&config);
        self.inner.with_slot(&key, |slot| slot.config.send_replace(Some(Arc::new(config))));
    }

    fn problem(&self, key: &VolumeKey, why: Option<String>) {
        let changed = self.inner.with_slot(key, |slot| {
            let changed = slot.problem != why;
            if changed && let Some(why) = &why {
                tracing::warn!(volume = %key, "{why}");
            }
            if why.is_none() {
                slot.shared.confirmed.store(true, Ordering::Release);
            }
            slot.problem = why;
            changed
        });
        if changed == Some(true) {
            self.inner.tick();
        }
    }

    fn empty(&self, key: &VolumeKey, end: End) {
        self.inner.with_slot(key, |slot| {
            slot.problem = None;
            slot.end.send_if_modified(|now| {
                let new = now.as_deref() != Some(&end);
                *now = Some(Arc::new(end));
                new
            });
        });
    }

    fn remove(&self, key: &VolumeKey) {
        let Some(slot) = self.inner.slots().remove(key) else { return };
        let config = slot.config.borrow().clone();
        slot.stop.cancel();
        let bricks_dir = self.inner.options.bricks_dir.clone();
        let mount = key.below(&self.inner.options.mounts_dir);
        let leaving = tokio::spawn(async move {
            let _ = slot.task.await;
            if let Some(config) = config
                && let Err(error) = cache::forget(&bricks_dir, &config)
            {
                tracing::warn!(%error, "the kept configuration of a removed volume cannot be deleted");
            }
            // Only if it is empty, so never anyone's files.
            let _ = std::fs::remove_dir(mount);
        });
        self.inner.leaving().insert(key.clone(), leaving);
        self.inner.tick();
    }

    fn config(&self, key: &VolumeKey) -> Option<Arc<VolumeConfig>> {
        self.inner.slots().get(key)?.config.borrow().clone()
    }

    fn keys(&self) -> Vec<VolumeKey> {
        self.inner.slots().keys().cloned().collect()
    }

    fn jobs(&self, key: &VolumeKey, jobs: watch::Receiver<Vec<Arc<HealJob>>>, stop: CancellationToken) {
        self.inner.with_slot(key, |slot| {
            let stopping = self.inner.stop.clone();
            let runner = Runner {
                api: self.inner.api.clone(),
                key: key.clone(),
                target: brick_name(&key.volume, &self.inner.options.node),
                healer: slot.shared.healer.subscribe(),
                turn: slot.shared.turn.clone(),
                jobs,
                stop: stop.clone(),
            };
            tokio::spawn(async move {
                tokio::select! {
                    () = runner.run() => {}
                    // The token of the volume ends it in order.
                    () = stopping.cancelled() => stop.cancel(),
                }
            });
        });
    }
}

impl Facts for Supervisor {
    fn facts(&self) -> Vec<VolumeFacts> {
        let slots: Vec<_> = self
            .inner
            .slots()
            .iter()
            .map(|(key, slot)| {
                (key.clone(), slot.config.borrow().clone(), slot.problem.clone(), slot.shared.clone())
            })
            .collect();
        slots
            .into_iter()
            .map(|(key, config, problem, shared)| {
                let (phase, volume) = {
                    let now = shared.now();
                    (now.phase.clone(), now.volume.clone())
                };
                let phase = match (phase, problem) {
                    (Phase::Ready, Some(message)) => Phase::Degraded { message, mounted: true },
                    (Phase::Starting(_), Some(message)) if config.is_none() => Phase::Refused(message),
                    (phase, _) => phase,
                };
                VolumeFacts { key, config, phase, status: volume.map(|v| v.status()) }
            })
            .collect()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }
}

impl OpenVolumes for Supervisor {
    fn open_volumes(&self) -> Vec<(VolumeKey, PathBuf, Arc<Volume>)> {
        let slots: Vec<_> =
            self.inner.slots().iter().map(|(key, slot)| (key.clone(), slot.shared.clone())).collect();
        slots
            .into_iter()
            .filter_map(|(key, shared)| {
                let volume = shared.now().volume.clone()?;
                Some((key.clone(), key.below(&self.inner.options.mounts_dir), volume))
            })
            .collect()
    }
}

impl Shared {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
