//! What the operator sees of the cluster: one watch and one store for each kind, whose events wake the
//! controllers that depend on the object, its own among them.
//!
//! An object that this version cannot read, because an older or a newer one made it, is said once and left out: it
//! stalls none of the others.
//!
//! Reconciliations read from here and never ask the API server for what is here. An event only wakes
//! whoever could decide differently because of it: a workstation's heartbeat, which is most of the
//! traffic, wakes nobody but the workstation's own controller; a brick's wakes nobody.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{Config, WatchStreamExt};
use kube::{Client, Resource, ResourceExt};
use nearbrick_crds::condition;
use nearbrick_crds::meta::FINALIZER_COPIES;
use nearbrick_crds::{
    Brick, FileConflict, HealJob, HealPolicy, JobPhase, ReplicaMigration, Workstation, WorkstationVolume,
};
use serde::de::DeserializeOwned;

use crate::index::BrickIndex;
use crate::workstation::is_to_leave;
use crate::world::is_active;

/// Free space is news by steps of 256 MiB.
const FREE_STEP: u32 = 28;

/// All that is known.
#[derive(Clone)]
pub struct Stores {
    /// Volumes.
    pub volumes: Store<WorkstationVolume>,
    /// Heal policies.
    pub policies: Store<HealPolicy>,
    /// Heal jobs.
    pub jobs: Store<HealJob>,
    /// Bricks.
    pub bricks: Store<Brick>,
    /// Workstations.
    pub workstations: Store<Workstation>,
    /// Conflicts.
    pub conflicts: Store<FileConflict>,
    /// Moves of replicas.
    pub migrations: Store<ReplicaMigration>,
    /// Nodes: names and labels only.
    pub nodes: Store<PartialObjectMeta<Node>>,
    index: Arc<BrickIndex>,
    filled: Arc<AtomicBool>,
}

impl Stores {
    /// Whether every kind has been listed once.
    pub fn are_filled(&self) -> bool {
        self.filled.load(Ordering::Relaxed)
    }

    /// Returns once every kind has been listed. No decision is made before: a node that has not been
    /// listed yet is not unknown.
    pub async fn wait_until_filled(&self) -> bool {
        let ready = tokio::join!(
            self.volumes.wait_until_ready(),
            self.policies.wait_until_ready(),
            self.jobs.wait_until_ready(),
            self.bricks.wait_until_ready(),
            self.workstations.wait_until_ready(),
            self.conflicts.wait_until_ready(),
            self.migrations.wait_until_ready(),
            self.nodes.wait_until_ready(),
        );
        let all = matches!(ready, (Ok(()), Ok(()), Ok(()), Ok(()), Ok(()), Ok(()), Ok(()), Ok(())));
        self.filled.store(all, Ordering::Relaxed);
        all
    }

    /// The bricks of a volume of this name.
    pub fn bricks_of_volume(&self, namespace: &str, name: &str) -> impl Iterator<Item = Arc<Brick>> {
        self.index.of_volume(namespace, name).into_iter().filter_map(|brick| self.bricks.get(&brick))
    }

    /// The bricks of a node.
    pub fn bricks_of_node(&self, node: &str) -> Vec<Arc<Brick>> {
        self.index.of_node(node).iter().filter_map(|brick| self.bricks.get(brick)).collect()
    }

    /// The policy to which a volume refers, if it does and it exists.
    pub fn policy_of(&self, volume: &WorkstationVolume) -> Option<Arc<HealPolicy>> {
        let name = &volume.spec.heal_policy_ref.as_ref()?.name;
        self.policies.get(&ObjectRef::new(name).within(&volume.namespace().unwrap_or_default()))
    }
}

/// The ends of the queues at the controllers.
pub struct Queues {
    /// Volumes whose bricks, placement or status may have to change.
    pub volume: UnboundedReceiver<ObjectRef<WorkstationVolume>>,
    /// Volumes for which a heal may be due.
    pub heal: UnboundedReceiver<ObjectRef<WorkstationVolume>>,
    /// Jobs whose progress may have changed.
    pub job: UnboundedReceiver<ObjectRef<HealJob>>,
    /// Policies whose volumes may have changed.
    pub policy: UnboundedReceiver<ObjectRef<HealPolicy>>,
    /// Volumes whose conflicts may have changed.
    pub conflict: UnboundedReceiver<ObjectRef<WorkstationVolume>>,
    /// Volumes whose replicas may have to move.
    pub migration: UnboundedReceiver<ObjectRef<WorkstationVolume>>,
    /// Workstations that reported, or are to be judged anew.
    pub workstation: UnboundedReceiver<ObjectRef<Workstation>>,
    /// Bricks that came, or whose end may have come nearer.
    pub brick: UnboundedReceiver<ObjectRef<Brick>>,
}

/// The ends of the queues at the watches.
#[derive(Clone)]
struct Wake {
    stores: Stores,
    volume: UnboundedSender<ObjectRef<WorkstationVolume>>,
    heal: UnboundedSender<ObjectRef<WorkstationVolume>>,
    job: UnboundedSender<ObjectRef<HealJob>>,
    policy: UnboundedSender<ObjectRef<HealPolicy>>,
    conflict: UnboundedSender<ObjectRef<WorkstationVolume>>,
    migration: UnboundedSender<ObjectRef<WorkstationVolume>>,
    workstation: UnboundedSender<ObjectRef<Workstation>>,
    brick: UnboundedSender<ObjectRef<Brick>>,
}

/// The stores, the queues, and the watches as a future that must be polled for as long as they are used.
pub fn watch_all(client: &Client) -> (Stores, Queues, impl Future<Output = ()> + Send + use<>) {
    let (volumes, w_volumes) = reflector::store();
    let (policies, w_policies) = reflector::store();
    let (jobs, w_jobs) = reflector::store();
    let (bricks, w_bricks) = reflector::store();
    let (workstations, w_workstations) = reflector::store();
    let (conflicts, w_conflicts) = reflector::store();
    let (migrations, w_migrations) = reflector::store();
    let (nodes, w_nodes) = reflector::store();
    let filled = Arc::new(AtomicBool::new(false));
    let index = Arc::new(BrickIndex::default());
    let stores =
        Stores { volumes, policies, jobs, bricks, workstations, conflicts, migrations, nodes, index, filled };

    let (volume, volume_rx) = unbounded();
    let (heal, heal_rx) = unbounded();
    let (job, job_rx) = unbounded();
    let (policy, policy_rx) = unbounded();
    let (conflict, conflict_rx) = unbounded();
    let (migration, migration_rx) = unbounded();
    let (workstation, workstation_rx) = unbounded();
    let (brick, brick_rx) = unbounded();
    let wake =
        Wake { stores: stores.clone(), volume, heal, job, policy, conflict, migration, workstation, brick };

    // The order of the arguments: kind, events, store's writer, whom to wake.
    let w = wake.clone();
    let volumes = follow(watch::<WorkstationVolume>(client), w_volumes, move |v, _| w.volume_touched(v));
    let w = wake.clone();
    let policies = follow(watch::<HealPolicy>(client), w_policies, move |p, _| w.policy_changed(p));
    let w = wake.clone();
    let jobs = follow(watch::<HealJob>(client), w_jobs, move |j, gone| w.job_changed(j, gone));
    let w = wake.clone();
    let (mut seen, mut seen_moves, mut seen_news) = (HashMap::new(), HashMap::new(), HashMap::new());
    let bricks = follow(watch::<Brick>(client), w_bricks, move |b, gone| {
        w.stores.index.touch(b, gone);
        if changed(&mut seen_news, b, gone, news_of) {
            w.brick_changed(b, gone);
            w.brick_itself(b);
        }
        if changed(&mut seen_moves, b, gone, moves_of) {
            w.migrations_changed(b.namespace(), &b.spec.volume_ref.name);
        }
        if changed(&mut seen, b, gone, conflicts_of) {
            w.conflicts_changed(b.namespace(), &b.spec.volume_ref.name);
        }
    });
    let w = wake.clone();
    let conflicts = follow(watch::<FileConflict>(client), w_conflicts, move |c, _| {
        w.conflicts_changed(c.namespace(), &c.spec.volume_ref.name);
    });
    let w = wake.clone();
    let migrations = follow(watch::<ReplicaMigration>(client), w_migrations, move |m, _| {
        w.migrations_changed(m.namespace(), &m.spec.volume_ref.name);
        // The rules follow it, and so do heals.
        w.both(&volume_ref(m.namespace(), &m.spec.volume_ref.name));
    });
    let w = wake.clone();
    let mut seen = HashMap::new();
    let workstations = follow(watch::<Workstation>(client), w_workstations, move |ws, gone| {
        let _ = w.workstation.unbounded_send(ObjectRef::from_obj(ws));
        if changed(&mut seen, ws, gone, |ws| {
            // Windows have no hash, but a text.
            let expected = format!("{:?}", ws.spec.expected_offline);
            let state = ws.status.as_ref().and_then(|s| s.state).map(|s| s as u8);
            (ws.spec.lost, is_to_leave(ws), expected, state)
        }) {
            w.workstation_changed(ws);
        }
    });
    let w = wake;
    let mut seen = HashMap::new();
    let nodes = follow(watch::<PartialObjectMeta<Node>>(client), w_nodes, move |node, gone| {
        if changed(&mut seen, node, gone, |n| n.metadata.labels.clone()) {
            w.all_volumes();
        }
    });
    let all = async move {
        tokio::join!(volumes, policies, jobs, bricks, workstations, conflicts, migrations, nodes);
    };
    let queues = Queues {
        volume: volume_rx,
        heal: heal_rx,
        job: job_rx,
        policy: policy_rx,
        conflict: conflict_rx,
        migration: migration_rx,
        workstation: workstation_rx,
        brick: brick_rx,
    };
    (stores, queues, all)
}

fn watch<K>(client: &Client) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut said = HashSet::new();
    watcher(Api::<DeserializeGuard<K>>::all(client.clone()), watcher::Config::default()).filter_map(
        move |event| std::future::ready(event.map(|event| readable(event, &mut said)).transpose()),
    )
}

/// The event, if its object can be read. One that cannot is said, once for each version of it.
fn readable<K>(event: Event<DeserializeGuard<K>>, said: &mut HashSet<String>) -> Option<Event<K>>
where
    K: Resource<DynamicType = ()>,
{
    let mut read = |guarded: DeserializeGuard<K>| {
        guarded
            .0
            .map_err(|invalid| {
                let meta = &invalid.metadata;
                let text = |part: &Option<String>| part.clone().unwrap_or_default();
                let which = format!("{} {}/{}", K::kind(&()), text(&meta.namespace), text(&meta.name));
                if said.insert(format!("{which} {}", text(&meta.resource_version))) {
                    tracing::warn!(
                        "{which} cannot be read, and is left out: {}: correct or delete it",
                        invalid.error
                    );
                }
            })
            .ok()
    };
    Some(match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(object) => Event::InitApply(read(object)?),
        Event::Apply(object) => Event::Apply(read(object)?),
        Event::Delete(object) => Event::Delete(read(object)?),
    })
}

/// Keeps a store current, and calls `touched` for each object that came, changed or went (`true`).
async fn follow<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    writer: reflector::store::Writer<K>,
    mut touched: impl FnMut(&K, bool) + Send,
) where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let mut said = false;
    // Who wrote which field is most of an object, and nobody asks.
    let events = events.default_backoff().modify(|object| object.managed_fields_mut().clear());
    let mut events = std::pin::pin!(events.reflect(writer));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => touched(&object, false),
            Ok(Event::Delete(object)) => touched(&object, true),
            Ok(Event::Init) => {}
            Ok(Event::InitDone) => {
                if std::mem::take(&mut said) {
                    tracing::info!("watches {} again", K::plural(&()));
                }
            }
            Err(error) => {
                if !said {
                    tracing::warn!("{}", explain(&K::plural(&()), &error));
                    said = true;
                }
            }
        }
    }
}

fn explain(plural: &str, error: &watcher::Error) -> String {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(s))
        | watcher::Error::WatchStartFailed(kube::Error::Api(s)) => s.code,
        _ => 0,
    };
    match code {
        404 => {
            format!("cannot list {plural}: this cluster does not have the kind: apply the CRDs; tries again")
        }
        401 | 403 => format!("may not list {plural}: apply the operator's RBAC; tries again"),
        _ => format!("the watch of {plural} broke: {error}; tries again"),
    }
}

/// Whether the part of an object that `part` takes differs from when it was last seen.
fn changed<K, P>(seen: &mut HashMap<String, u64>, object: &K, gone: bool, part: impl FnOnce(&K) -> P) -> bool
where
    K: Resource,
    P: Hash,
{
    let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    if gone {
        seen.remove(&name);
        return true;
    }
    let mut hasher = std::hash::DefaultHasher::new();
    part(object).hash(&mut hasher);
    let hash = hasher.finish();
    seen.insert(name, hash) != Some(hash)
}

/// What a brick says besides the time, and besides what the summary of its volume does not show.
fn news_of(brick: &Brick) -> String {
    let mut brick = brick.clone();
    brick.metadata.resource_version = None;
    if let Some(status) = &mut brick.status {
        status.heartbeat = None;
        status.hottest.clear();
        // What is used of a disk changes all the time: a decision looks at the order of magnitude.
        status.free_bytes = status.free_bytes.map(|free| free >> FREE_STEP);
    }
    format!("{brick:?}")
}

/// What a brick says of moves, and of what is used there: not how much, which is looked at now and then.
fn moves_of(brick: &Brick) -> String {
    let status = brick.status.clone().unwrap_or_default();
    let groups: Vec<_> =
        status.hottest.iter().map(|g| (&g.path, g.below, &g.with, g.away_files > 0)).collect();
    format!("{:?} {:?} {:?} {groups:?}", status.state, status.placement, status.moves)
}

/// What a brick says of conflicts, and whether that counts.
fn conflicts_of(brick: &Brick) -> String {
    let status = brick.status.clone().unwrap_or_default();
    let reason = condition::find(&status.conditions, condition::READY).map(|c| c.reason.clone());
    // Of the same order each time, as it comes from the object.
    let list = serde_json::to_string(&status.conflict_list).unwrap_or_default();
    format!("{:?} {reason:?} {:?} {list}", status.state, status.conflicts)
}

/// A reference to the volume that `spec.volumeRef` of an object names.
pub fn volume_ref(namespace: Option<String>, name: &str) -> ObjectRef<WorkstationVolume> {
    ObjectRef::new(name).within(&namespace.unwrap_or_default())
}

impl Wake {
    // A queue whose receiver is gone belongs to a controller that has ended: then nobody needs waking.

    fn both(&self, volume: &ObjectRef<WorkstationVolume>) {
        let _ = self.volume.unbounded_send(volume.clone());
        let _ = self.heal.unbounded_send(volume.clone());
    }

    /// A volume itself is another one, or says something else.
    fn volume_touched(&self, volume: &WorkstationVolume) {
        let this = ObjectRef::from_obj(volume);
        self.both(&this);
        let _ = self.conflict.unbounded_send(this.clone());
        let _ = self.migration.unbounded_send(this);
        self.ending_bricks(
            self.stores.bricks_of_volume(&volume.namespace().unwrap_or_default(), &volume.name_any()),
        );
        self.volume_changed(volume);
    }

    fn volume_changed(&self, volume: &WorkstationVolume) {
        // Also policies to which it no longer refers.
        let namespace = volume.namespace();
        for policy in self.stores.policies.state() {
            if policy.namespace() == namespace {
                let _ = self.policy.unbounded_send(ObjectRef::from_obj(&*policy));
            }
        }
    }

    fn policy_changed(&self, policy: &HealPolicy) {
        let _ = self.policy.unbounded_send(ObjectRef::from_obj(policy));
        let (namespace, name) = (policy.namespace(), policy.name_any());
        for volume in self.stores.volumes.state() {
            let refers = volume.spec.heal_policy_ref.as_ref().is_some_and(|r| r.name == name);
            if refers && volume.namespace() == namespace {
                let _ = self.heal.unbounded_send(ObjectRef::from_obj(&*volume));
            }
        }
    }

    fn job_changed(&self, job: &HealJob, gone: bool) {
        let _ = self.job.unbounded_send(ObjectRef::from_obj(job));
        let volume = volume_ref(job.namespace(), &job.spec.volume_ref.name);
        self.both(&volume);
        if let Some(volume) = self.stores.volumes.get(&volume) {
            self.volume_changed(&volume);
        }
        if gone || job.status.as_ref().and_then(|s| s.phase).is_some_and(JobPhase::is_ended) {
            self.jobs_behind(job);
        }
    }

    /// Wakes the jobs of the same volume that may have waited for this one.
    fn jobs_behind(&self, job: &HealJob) {
        let waiting = self.stores.jobs.state_filter(|j| {
            j.spec.volume_ref == job.spec.volume_ref
                && j.metadata.namespace == job.metadata.namespace
                && j.metadata.uid != job.metadata.uid
                && is_active(j)
        });
        for job in waiting {
            let _ = self.job.unbounded_send(ObjectRef::from_obj(&*job));
        }
    }

    fn brick_changed(&self, brick: &Brick, gone: bool) {
        self.both(&volume_ref(brick.namespace(), &brick.spec.volume_ref.name));
        if gone {
            self.active_jobs_for(&[(brick.namespace().unwrap_or_default(), brick.name_any())]);
        }
    }

    /// Few have to do anything for that: those that came, and those that are being deleted.
    fn brick_itself(&self, brick: &Brick) {
        let settled = brick.finalizers().iter().any(|f| f == FINALIZER_COPIES);
        if !settled || brick.metadata.deletion_timestamp.is_some() {
            let _ = self.brick.unbounded_send(ObjectRef::from_obj(brick));
        }
    }

    fn ending_bricks(&self, bricks: impl IntoIterator<Item = Arc<Brick>>) {
        bricks
            .into_iter()
            .filter(|b| b.metadata.deletion_timestamp.is_some())
            .for_each(|b| self.brick_itself(&b));
    }

    fn migrations_changed(&self, namespace: Option<String>, volume: &str) {
        let _ = self.migration.unbounded_send(volume_ref(namespace, volume));
    }

    fn conflicts_changed(&self, namespace: Option<String>, volume: &str) {
        let _ = self.conflict.unbounded_send(volume_ref(namespace, volume));
    }

    fn workstation_changed(&self, workstation: &Workstation) {
        let node = workstation.name_any();
        let bricks = self.stores.bricks_of_node(&node);
        for brick in &bricks {
            self.both(&volume_ref(brick.namespace(), &brick.spec.volume_ref.name));
            self.conflicts_changed(brick.namespace(), &brick.spec.volume_ref.name);
            self.migrations_changed(brick.namespace(), &brick.spec.volume_ref.name);
        }
        self.ending_bricks(bricks.clone());
        let names: Vec<_> =
            bricks.iter().map(|b| (b.namespace().unwrap_or_default(), b.name_any())).collect();
        self.active_jobs_for(&names);
    }

    /// Wakes the jobs that have not ended and wait for one of these bricks.
    fn active_jobs_for(&self, bricks: &[(String, String)]) {
        for job in self.stores.jobs.state() {
            let Some(status) = &job.status else { continue };
            let namespace = job.namespace().unwrap_or_default();
            let waits = bricks.iter().any(|(ns, b)| *ns == namespace && status.targets.contains(b));
            if waits && !status.phase.is_some_and(JobPhase::is_ended) {
                let _ = self.job.unbounded_send(ObjectRef::from_obj(&*job));
            }
        }
    }

    fn all_volumes(&self) {
        for volume in self.stores.volumes.state() {
            let _ = self.volume.unbounded_send(ObjectRef::from_obj(&*volume));
        }
    }
}

/// How controllers take their queues: events that come close together are one reconciliation.
pub fn controller_config() -> Config {
    Config::default().debounce(std::time::Duration::from_millis(100)).concurrency(8)
}
