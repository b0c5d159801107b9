//! Follows the API: the bricks of this workstation, and for each of them its
//! volume, the volume's other bricks, its heal jobs and conflicts, and the heal policies of its namespace.
//!
//! A volume is taken down only when a whole list of this workstation's bricks was seen and
//! does not have it. While the API is away, everything stays as it is.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::stream::{BoxStream, select};
use futures::{Stream, StreamExt};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use nearbrick_crds::meta::brick_name;
use nearbrick_crds::{Brick, FileConflict, HealJob, HealPolicy, Workstation, WorkstationVolume};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{End, VolumeConfig};

use super::api::{ApiServer, one_line};
use super::convert::{VolumeKey, end_of, healing, orders, volume_config};
use super::tracked::{Patience, Tracked};

/// What follows from the API: implemented by the supervisor.
pub trait Volumes: Send + Sync + 'static {
    /// This volume is to be here, so.
    fn apply(&self, config: VolumeConfig);
    /// Why there is no usable configuration; none: there is one.
    fn problem(&self, key: &VolumeKey, why: Option<String>);
    /// The brick of this volume is at its end: its files are to be deleted.
    fn empty(&self, key: &VolumeKey, end: End);
    /// This volume is no longer to be here; its data stays.
    fn remove(&self, key: &VolumeKey);
    /// The configuration that was last applied.
    fn config(&self, key: &VolumeKey) -> Option<Arc<VolumeConfig>>;
    /// All volumes here, with or without a usable configuration.
    fn keys(&self) -> Vec<VolumeKey>;
    /// The heal jobs of a volume, whenever they change; the receiver lives as long as the volume is followed.
    fn jobs(&self, key: &VolumeKey, jobs: watch::Receiver<Vec<Arc<HealJob>>>, stop: CancellationToken);
}

/// The objects of this workstation as they were last seen, for the reports.
#[derive(Debug, Default)]
pub struct Seen {
    /// None before a whole list was seen.
    bricks: RwLock<Option<BTreeMap<VolumeKey, Arc<Brick>>>>,
    workstation: RwLock<Option<Arc<Workstation>>>,
    triggers: RwLock<BTreeMap<VolumeKey, String>>,
    ticks: watch::Sender<u64>,
}

/// What people ask to be looked at anew: words that are repeated with what was found out since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `spec.trigger` of the workstation.
    pub workstation: Option<String>,
    /// `spec.trigger` of the volumes.
    pub volumes: BTreeMap<VolumeKey, String>,
}

impl Seen {
    /// The brick object of a volume here.
    pub fn brick(&self, key: &VolumeKey) -> Option<Arc<Brick>> {
        self.bricks.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(key).cloned()
    }

    /// This workstation's object, once all its bricks are known: before that
    /// nothing could be said of the whole.
    pub fn workstation(&self) -> Option<Arc<Workstation>> {
        self.bricks.read().unwrap_or_else(PoisonError::into_inner).as_ref()?;
        self.workstation.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is asked at this moment.
    pub fn asked(&self) -> Asked {
        Asked {
            workstation: self.workstation().and_then(|w| w.spec.trigger.clone()),
            volumes: self.triggers.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// `spec.trigger` of a volume.
    pub fn set_trigger(&self, key: &VolumeKey, trigger: Option<&str>) {
        let mut now = self.triggers.write().unwrap_or_else(PoisonError::into_inner);
        let before = match trigger {
            Some(trigger) => now.insert(key.clone(), trigger.to_owned()),
            None => now.remove(key),
        };
        drop(now);
        if trigger.is_some() && before.as_deref() != trigger {
            self.ticks.send_modify(|n| *n += 1);
        }
    }

    /// Ticks when an object appears, which has no status yet, and when somebody asks.
    pub fn appeared(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// All bricks of this workstation.
    pub fn set_bricks(&self, bricks: BTreeMap<VolumeKey, Arc<Brick>>) {
        let mut now = self.bricks.write().unwrap_or_else(PoisonError::into_inner);
        let new = match &*now {
            Some(now) => bricks.keys().any(|key| !now.contains_key(key)),
            None => true,
        };
        *now = Some(bricks);
        drop(now);
        if new {
            self.ticks.send_modify(|n| *n += 1);
        }
    }

    /// This workstation's object, or that there is none.
    pub fn set_workstation(&self, workstation: Option<Arc<Workstation>>) {
        let mut now = self.workstation.write().unwrap_or_else(PoisonError::into_inner);
        let trigger = |w: &Option<Arc<Workstation>>| w.as_ref().and_then(|w| w.spec.trigger.clone());
        let new = workstation.is_some() && (now.is_none() || trigger(&now) != trigger(&workstation));
        *now = workstation;
        drop(now);
        if new {
            self.ticks.send_modify(|n| *n += 1);
        }
    }
}

/// Follows the API for one workstation.
pub struct Follower {
    /// The server.
    pub api: ApiServer,
    /// This workstation.
    pub node: String,
    /// Where bricks are that have no path of their own.
    pub bricks_dir: PathBuf,
    /// What follows.
    pub volumes: Arc<dyn Volumes>,
    /// What is seen.
    pub seen: Arc<Seen>,
    /// Held to decide about a volume: none is applied after it was removed.
    pub gate: Mutex<()>,
}

/// A volume that is followed, until this is dropped.
struct Followed {
    own: watch::Sender<Arc<Brick>>,
    _stop: DropGuard,
}

impl Follower {
    /// Follows until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let follower = Arc::new(self);
        let workstation = follower.clone().follow_workstation();
        let bricks = follower.clone().follow_bricks();
        tokio::select! {
            () = stop.cancelled() => {}
            ((), ()) = async { tokio::join!(workstation, bricks) } => {}
        }
    }

    async fn follow_workstation(self: Arc<Self>) {
        let api = Api::<DeserializeGuard<Workstation>>::all(self.api.client.clone());
        let mut events = self.events(api, format!("metadata.name={}", self.node));
        let mut tracked = Tracked::default();
        while let Some(event) = events.next().await {
            if tracked.take(event) {
                self.seen.set_workstation(tracked.objects().next().cloned());
            }
        }
    }

    async fn follow_bricks(self: Arc<Self>) {
        let api = Api::<DeserializeGuard<Brick>>::all(self.api.client.clone());
        let mut events = self.events(api, format!("spec.node={}", self.node));
        let mut tracked: Tracked<Brick> = Tracked::default();
        let mut followed: HashMap<VolumeKey, Followed> = HashMap::new();
        while let Some(event) = events.next().await {
            if !tracked.take(event) {
                continue;
            }
            let bricks: BTreeMap<_, _> =
                tracked.objects().map(|b| (VolumeKey::of_brick(b), b.clone())).collect();
            self.seen.set_bricks(bricks.clone());
            for key in self.volumes.keys() {
                let unreadable = tracked.is_unreadable(&key.namespace, &brick_name(&key.volume, &self.node));
                if !bricks.contains_key(&key) && !unreadable {
                    tracing::info!(volume = %key, "this workstation no longer has a brick of the volume");
                    let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
                    followed.remove(&key);
                    self.volumes.remove(&key);
                    self.seen.set_trigger(&key, None);
                }
            }
            followed.retain(|key, _| self.volumes.keys().contains(key) || bricks.contains_key(key));
            for (key, brick) in bricks {
                match followed.get(&key) {
                    Some(volume) => {
                        volume.own.send_if_modified(|old| {
                            let changed = **old != *brick;
                            *old = brick;
                            changed
                        });
                    }
                    None => {
                        let volume = self.clone().follow_volume(key.clone(), brick);
                        followed.insert(key, volume);
                    }
                }
            }
        }
    }

    /// Events of objects of one kind that these fields select. Errors are said and tried again.
    fn events<K>(
        &self,
        api: Api<DeserializeGuard<K>>,
        fields: String,
    ) -> BoxStream<'static, Event<DeserializeGuard<K>>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    {
        let server = self.api.clone();
        let config = watcher::Config::default().fields(&fields);
        Box::pin(restarted(self.api.returns(), move || {
            let server = server.clone();
            watcher(api.clone(), config.clone()).backoff(Patience::default()).filter_map(move |event| {
                let event = match event {
                    Ok(event) => {
                        // The first event comes before anything was asked.
                        if !matches!(event, Event::Init) {
                            server.up();
                        }
                        Some(event)
                    }
                    Err(error) => {
                        server.down(&one_line(&error.to_string()));
                        None
                    }
                };
                std::future::ready(event)
            })
        }))
    }

    fn follow_volume(self: Arc<Self>, key: VolumeKey, brick: Arc<Brick>) -> Followed {
        let (own, receiver) = watch::channel(brick);
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move {
            let (jobs, list) = watch::channel(Vec::new());
            self.volumes.jobs(&key, list, stop.clone());
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.volume(&key, receiver, jobs, &stop) => {}
            }
        });
        Followed { own, _stop: guard }
    }

    async fn volume(
        &self,
        key: &VolumeKey,
        mut own: watch::Receiver<Arc<Brick>>,
        jobs: watch::Sender<Vec<Arc<HealJob>>>,
        stop: &CancellationToken,
    ) {
        enum Change {
            Volume(Box<Event<DeserializeGuard<WorkstationVolume>>>),
            Brick(Box<Event<DeserializeGuard<Brick>>>),
            Job(Event<DeserializeGuard<HealJob>>),
            Policy(Event<DeserializeGuard<HealPolicy>>),
            Conflict(Event<DeserializeGuard<FileConflict>>),
        }
        let namespace = &key.namespace;
        let by_volume = format!("spec.volumeRef.name={}", key.volume);
        let volumes = self.events(self.api.namespaced(namespace), format!("metadata.name={}", key.volume));
        let bricks = self.events(self.api.namespaced(namespace), by_volume.clone());
        let heals = self.events(self.api.namespaced(namespace), by_volume.clone());
        let conflicts = self.events(self.api.namespaced(namespace), by_volume);
        let policies = self.events(self.api.namespaced(namespace), String::new());
        let mut changes = select(
            select(
                volumes.map(|event| Change::Volume(Box::new(event))),
                bricks.map(|event| Change::Brick(Box::new(event))),
            ),
            select(
                select(heals.map(Change::Job), policies.map(Change::Policy)),
                conflicts.map(Change::Conflict),
            ),
        );
        let (mut volumes, mut bricks, mut heals, mut policies, mut conflicts) = (
            Tracked::default(),
            Tracked::default(),
            Tracked::default(),
            Tracked::default(),
            Tracked::default(),
        );
        loop {
            let look = tokio::select! {
                change = changes.next() => match change {
                    Some(Change::Volume(event)) => volumes.take(*event),
                    Some(Change::Brick(event)) => bricks.take(*event),
                    Some(Change::Policy(event)) => policies.take(event),
                    Some(Change::Conflict(event)) => conflicts.take(event),
                    Some(Change::Job(event)) => {
                        if heals.take(event) {
                            jobs.send_replace(heals.objects().cloned().collect());
                        }
                        false
                    }
                    None => return,
                },
                Ok(()) = own.changed() => true,
            };
            if look && volumes.is_synced() && bricks.is_synced() {
                let own = own.borrow_and_update().clone();
                let trigger = volumes.objects().next().and_then(|v| v.spec.trigger.as_deref());
                let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
                if stop.is_cancelled() {
                    return;
                }
                self.seen.set_trigger(key, trigger);
                self.decide(key, &own, volumes.objects().next(), &bricks, &policies, &conflicts);
            }
        }
    }

    fn decide(
        &self,
        key: &VolumeKey,
        own: &Brick,
        volume: Option<&Arc<WorkstationVolume>>,
        bricks: &Tracked<Brick>,
        policies: &Tracked<HealPolicy>,
        conflicts: &Tracked<FileConflict>,
    ) {
        match end_of(own, volume.map(|v| &**v), &self.bricks_dir) {
            Ok(None) => {}
            Ok(Some(end)) => return self.volumes.empty(key, end),
            Err(error) => return self.volumes.problem(key, Some(error.to_string())),
        }
        let Some(volume) = volume else {
            let why = format!("WorkstationVolume {key} is not there, or cannot be read");
            return self.volumes.problem(key, Some(why));
        };
        let previous = self.volumes.config(key);
        let members: Vec<_> = bricks.objects().cloned().collect();
        match volume_config(own, volume, &members, &self.bricks_dir, previous.as_deref()) {
            Ok(mut config) => {
                if policies.is_synced() {
                    config.healing = healing(volume, &policies.objects().collect::<Vec<_>>());
                }
                if conflicts.is_synced() {
                    config.upkeep.orders = orders(&conflicts.objects().collect::<Vec<_>>(), &config);
                }
                if previous.as_deref() != Some(&config) {
                    self.volumes.apply(config);
                }
                // Said last: from now on what was applied counts as the operator's word.
                self.volumes.problem(key, None);
            }
            Err(error) => self.volumes.problem(key, Some(error.to_string())),
        }
    }

    /// Whether the API serves this version's objects: for one clear line in the log at the start.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub async fn check(api: &ApiServer, node: &str) -> Result<(), String> {
        let bricks: Api<Brick> = Api::all(api.client.clone());
        let mine = ListParams::default().fields(&format!("spec.node={node}")).limit(1);
        match bricks.list(&mine).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                Err("the API server does not know nearbrick.io/v1alpha1 Bricks: install the CRDs (crds/yaml)"
                    .to_owned())
            }
            Err(error) => Err(one_line(&error.to_string())),
        }
    }
}

/// A stream that is made anew at each tick.
fn restarted<S: Stream + Send>(
    ticks: watch::Receiver<u64>,
    make: impl FnMut() -> S + Send,
) -> impl Stream<Item = S::Item> + Send
where
    S::Item: Send,
{
    futures::stream::unfold((None, ticks, make), |(stream, mut ticks, mut make)| async move {
        let mut stream = stream.unwrap_or_else(|| Box::pin(make()));
        loop {
            tokio::select! {
                item = stream.next() => return item.map(|item| (item, (Some(stream), ticks, make))),
                Ok(()) = ticks.changed() => {
                    ticks.borrow_and_update();
                    stream = Box::pin(make());
                }
            }
        }
    })
}
