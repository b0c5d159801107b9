//! What the page shows, from the objects: a pure function, and all that leaves this process.
//!
//! Invariant: without a reader's rights ([`Rights`]) nothing in a [`View`] is a path of a file, or a text in which one could be: no
//! messages, no globs, no groups of files. What is left are names of namespaces, volumes and nodes, states, counts and times,
//! which `/metrics` says too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;
use nearbrick_crds::{
    Brick, BrickState, Condition, ConflictPhase, FileConflict, FileVersion, HealJob, JobBytes, JobFiles,
    JobPhase, MigrationPhase, Pending, ReplicaMigration, Time, VolumeHealth, VolumePhase, Workstation,
    WorkstationState, WorkstationVolume, condition,
};
use serde::Serialize;

use super::history::Series;
use crate::stores::Stores;
use crate::world::is_active;

/// Groups of files that are shown of a volume: those that are used most.
const MOST_GROUPS: usize = 10;
/// Conflicts that are shown: the oldest.
const MOST_CONFLICTS: usize = 100;
/// Heals that are shown.
const MOST_HEALS: usize = 50;
/// Moves that are shown.
const MOST_MOVES: usize = 50;
/// The label by which workstations are put together.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Of which namespaces somebody may read objects of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Of none.
    #[default]
    None,
    /// Of these.
    Some(BTreeSet<String>),
    /// Of all.
    All,
}

impl Scope {
    fn has(&self, namespace: &str) -> bool {
        match self {
            Self::None => false,
            Self::Some(names) => names.contains(namespace),
            Self::All => true,
        }
    }

    /// Whether it is no namespace.
    pub fn is_none(&self) -> bool {
        match self {
            Self::None => true,
            Self::Some(names) => names.is_empty(),
            Self::All => false,
        }
    }
}

/// What a reader may see besides counts and states; the API server's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// `FileConflict`s: paths of files in conflict.
    pub conflicts: Scope,
    /// `Brick`s: groups of files that are used, and what agents say.
    pub bricks: Scope,
    /// `ReplicaMigration`s: paths of files that move, and why.
    pub moves: Scope,
}

impl Rights {
    /// Whether nothing has names for them.
    pub fn is_none(&self) -> bool {
        self.conflicts.is_none() && self.bricks.is_none() && self.moves.is_none()
    }
}

/// The objects from which a view is made.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Volumes.
    pub volumes: Vec<Arc<WorkstationVolume>>,
    /// Bricks.
    pub bricks: Vec<Arc<Brick>>,
    /// Workstations.
    pub workstations: Vec<Arc<Workstation>>,
    /// Conflicts.
    pub conflicts: Vec<Arc<FileConflict>>,
    /// Heal jobs.
    pub jobs: Vec<Arc<HealJob>>,
    /// Moves.
    pub moves: Vec<Arc<ReplicaMigration>>,
    /// Nodes, for their labels.
    pub nodes: Vec<Arc<PartialObjectMeta<Node>>>,
}

impl Objects {
    /// As they are now.
    pub fn of(stores: &Stores) -> Self {
        Self {
            volumes: stores.volumes.state(),
            bricks: stores.bricks.state(),
            workstations: stores.workstations.state(),
            conflicts: stores.conflicts.state(),
            jobs: stores.jobs.state(),
            moves: stores.migrations.state(),
            nodes: stores.nodes.state(),
        }
    }
}

/// All that the page shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Whether this operator leads; one that stands by knows nothing.
    pub leading: bool,
    /// Whether the reader may see names of files somewhere.
    pub names: bool,
    /// Volumes, by namespace and name.
    pub volumes: Vec<VolumeView>,
    /// Workstations, by zone.
    pub zones: Vec<Zone>,
    /// Heals that have not ended, the oldest first.
    pub heals: Vec<HealView>,
    /// Moves that have not ended, the oldest first.
    pub moves: Vec<MoveView>,
    /// Conflicts that are not resolved, the oldest first, as far as the reader may see them.
    pub conflicts: Vec<ConflictView>,
    /// What is used most, by volume.
    pub heat: Vec<HeatView>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeView {
    namespace: String,
    name: String,
    phase: Option<VolumePhase>,
    health: Option<VolumeHealth>,
    replicas: u32,
    files: u64,
    bytes: u64,
    pending: Amount,
    conflicts: u64,
    last_heal: Option<Time>,
    next_heal: Option<Time>,
    /// Conditions that do not hold, and why.
    trouble: Vec<Trouble>,
    /// Bytes that were pending.
    history: Series,
}

/// What is pending.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Amount {
    files: u64,
    bytes: u64,
    oldest: Option<Time>,
}

impl Amount {
    fn of(pending: Option<&Pending>) -> Self {
        pending.map_or_else(Self::default, |p| Self {
            files: p.files,
            bytes: p.bytes,
            oldest: p.oldest_since.clone(),
        })
    }
}

/// A condition that does not hold, or of which nobody knows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    condition: String,
    /// One of the operator's words.
    reason: String,
    /// Whether nobody knows.
    unknown: bool,
}

/// Workstations that are close to each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Zone {
    /// The label of their nodes; empty without one.
    name: String,
    workstations: Vec<WorkstationView>,
}

/// A workstation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkstationView {
    name: String,
    state: Option<WorkstationState>,
    /// `True`, `False` or `Unknown`.
    safe_to_leave: Option<String>,
    /// Why, in one word.
    safe_because: Option<String>,
    /// While it is not online. Otherwise it is now, and what is shown would be new each second.
    last_seen: Option<Time>,
    pending_out: Amount,
    bricks: Vec<BrickView>,
}

/// A brick.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BrickView {
    namespace: String,
    volume: String,
    state: Option<BrickState>,
    /// `True`, `False` or `Unknown`.
    ready: Option<String>,
    /// What its agent says: only for who may read it.
    message: Option<String>,
    pending_out: Amount,
    pending_in: Amount,
    capacity: Option<u64>,
    free: Option<u64>,
    /// A person is asked whether removals are right.
    removals_held: bool,
    /// Uses of files there.
    uses: u64,
}

/// A heal that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealView {
    namespace: String,
    volume: String,
    name: String,
    reason: &'static str,
    phase: JobPhase,
    files: JobFiles,
    bytes: JobBytes,
    bytes_per_second: Option<u64>,
    eta_seconds: Option<u64>,
    started: Option<Time>,
    /// The bricks that receive.
    targets: Vec<String>,
    /// How many files failed, for each reason.
    failures: Option<String>,
}

/// A move of files towards who uses them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MoveView {
    namespace: String,
    volume: String,
    name: String,
    phase: MigrationPhase,
    /// It only shows what would be done.
    dry_run: bool,
    /// The brick that leaves the set, once that is known.
    from: Option<String>,
    /// The brick that joins it.
    to: String,
    /// The files of the group.
    group: Amount,
    /// Those for which the present step is still to be done.
    left: Amount,
    started: Option<Time>,
    /// What moves: only for who may read it.
    paths: Vec<String>,
    /// Why, and what it waits for: the same.
    message: Option<String>,
}

/// A conflict.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConflictView {
    namespace: String,
    volume: String,
    name: String,
    path: String,
    phase: ConflictPhase,
    resolution: Option<String>,
    message: Option<String>,
    versions: Vec<FileVersion>,
}

/// What is used most of a volume.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeatView {
    namespace: String,
    volume: String,
    /// How many groups of files are used.
    groups: usize,
    /// By workstation, the most first.
    nodes: Vec<Uses>,
    /// The groups that are used most: only for who may read bricks.
    top: Vec<GroupView>,
}

/// Uses at a workstation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Uses {
    node: String,
    uses: u64,
}

/// A group of files that is used.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupView {
    path: String,
    uses: u64,
    /// By workstation, the most first.
    nodes: Vec<Uses>,
    /// The bricks that must hold most of it.
    bricks: Vec<String>,
}

type Key = (String, String);

fn key(namespace: Option<String>, volume: &str) -> Key {
    (namespace.unwrap_or_default(), volume.to_owned())
}

fn most_first(uses: BTreeMap<String, u64>) -> Vec<Uses> {
    let mut list: Vec<Uses> = uses.into_iter().map(|(node, uses)| Uses { node, uses }).collect();
    list.sort_by_key(|u| (Reverse(u.uses), u.node.clone()));
    list
}

impl View {
    /// What an operator says that stands by.
    pub fn standing_by() -> Self {
        Self::default()
    }

    /// What is shown to somebody with these rights; `history` has what was pending of each volume.
    pub fn of(objects: &Objects, rights: &Rights, history: impl Fn(&str, &str) -> Series) -> Self {
        let mut volumes: Vec<VolumeView> = objects.volumes.iter().map(|v| volume(v, &history)).collect();
        volumes.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Self {
            leading: true,
            names: !rights.is_none(),
            volumes,
            zones: zones(objects, rights),
            heals: heals(&objects.jobs),
            moves: moves(&objects.moves, &rights.moves),
            conflicts: conflicts(&objects.conflicts, &rights.conflicts),
            heat: heat(&objects.bricks, &rights.bricks),
        }
    }
}

fn volume(volume: &WorkstationVolume, history: &impl Fn(&str, &str) -> Series) -> VolumeView {
    let (namespace, name) = key(volume.namespace(), &volume.name_any());
    let status = volume.status.clone().unwrap_or_default();
    let trouble = |c: &Condition| {
        (c.status != "True").then(|| Trouble {
            condition: c.type_.clone(),
            reason: c.reason.clone(),
            unknown: c.status == "Unknown",
        })
    };
    VolumeView {
        history: history(&namespace, &name),
        namespace,
        name,
        phase: status.phase,
        health: status.health,
        replicas: volume.spec.replicas,
        files: status.files.unwrap_or(0),
        bytes: status.bytes.unwrap_or(0),
        pending: Amount::of(status.pending.as_ref()),
        conflicts: status.conflicts.unwrap_or(0),
        last_heal: status.last_heal_time,
        next_heal: status.next_heal_time,
        trouble: status.conditions.iter().filter_map(trouble).collect(),
    }
}

fn zones(objects: &Objects, rights: &Rights) -> Vec<Zone> {
    let zone_of: BTreeMap<String, String> = objects
        .nodes
        .iter()
        .filter_map(|n| Some((n.name_any(), n.metadata.labels.as_ref()?.get(ZONE)?.clone())))
        .collect();
    let mut bricks: BTreeMap<&str, Vec<BrickView>> = BTreeMap::new();
    for brick in &objects.bricks {
        bricks.entry(&brick.spec.node).or_default().push(brick_view(brick, rights));
    }
    let mut zones: BTreeMap<String, Vec<WorkstationView>> = BTreeMap::new();
    for workstation in &objects.workstations {
        let name = workstation.name_any();
        let mut bricks = bricks.remove(name.as_str()).unwrap_or_default();
        bricks.sort_by(|a, b| (&a.namespace, &a.volume).cmp(&(&b.namespace, &b.volume)));
        let status = workstation.status.clone().unwrap_or_default();
        let safe = condition::find(&status.conditions, condition::SAFE_TO_LEAVE);
        zones.entry(zone_of.get(&name).cloned().unwrap_or_default()).or_default().push(WorkstationView {
            name,
            state: status.state,
            safe_to_leave: safe.map(|c| c.status.clone()),
            safe_because: safe.map(|c| c.reason.clone()),
            last_seen: status.last_seen.filter(|_| status.state != Some(WorkstationState::Online)),
            pending_out: Amount::of(status.pending_out.as_ref()),
            bricks,
        });
    }
    let sorted = |(name, mut workstations): (String, Vec<WorkstationView>)| {
        workstations.sort_by(|a, b| a.name.cmp(&b.name));
        Zone { name, workstations }
    };
    zones.into_iter().map(sorted).collect()
}

fn brick_view(brick: &Brick, rights: &Rights) -> BrickView {
    let status = brick.status.clone().unwrap_or_default();
    let said = |type_| condition::find(&status.conditions, type_).map(|c| c.status.clone());
    let namespace = brick.namespace().unwrap_or_default();
    BrickView {
        message: status.message.clone().filter(|_| rights.bricks.has(&namespace)),
        namespace,
        volume: brick.spec.volume_ref.name.clone(),
        state: status.state,
        ready: said(condition::READY),
        pending_out: Amount::of(status.pending.as_ref()),
        pending_in: Amount::of(status.pending_in.as_ref()),
        capacity: status.capacity_bytes,
        free: status.free_bytes,
        removals_held: said(condition::REMOVALS_FOLLOWED).as_deref() == Some("False"),
        uses: status.uses(),
    }
}

fn heals(jobs: &[Arc<HealJob>]) -> Vec<HealView> {
    let mut active: Vec<&Arc<HealJob>> = jobs.iter().filter(|j| is_active(j)).collect();
    active.sort_by_key(|j| (j.creation_timestamp(), j.namespace(), j.name_any()));
    let view = |job: &Arc<HealJob>| {
        let status = job.status.clone().unwrap_or_default();
        HealView {
            namespace: job.namespace().unwrap_or_default(),
            volume: job.spec.volume_ref.name.clone(),
            name: job.name_any(),
            reason: job.spec.reason.as_str(),
            phase: status.phase.unwrap_or_default(),
            files: status.files.unwrap_or_default(),
            bytes: status.bytes.unwrap_or_default(),
            bytes_per_second: status.bytes_per_second,
            eta_seconds: status.eta_seconds,
            started: status.started_at,
            targets: status.targets,
            failures: status.failures,
        }
    };
    active.into_iter().take(MOST_HEALS).map(view).collect()
}

fn moves(moves: &[Arc<ReplicaMigration>], readable: &Scope) -> Vec<MoveView> {
    let phase = |m: &ReplicaMigration| {
        m.status.as_ref().and_then(|status| status.phase).unwrap_or(MigrationPhase::Proposed)
    };
    let mut open: Vec<&Arc<ReplicaMigration>> = moves.iter().filter(|m| !phase(m).is_ended()).collect();
    // What moves before what is proposed.
    open.sort_by_key(|m| (!phase(m).is_under_way(), m.creation_timestamp(), m.namespace(), m.name_any()));
    let view = |one: &Arc<ReplicaMigration>| {
        let status = one.status.clone().unwrap_or_default();
        let namespace = one.namespace().unwrap_or_default();
        let may_read = readable.has(&namespace);
        MoveView {
            namespace,
            volume: one.spec.volume_ref.name.clone(),
            name: one.name_any(),
            phase: phase(one),
            dry_run: one.spec.dry_run,
            from: status.from.or_else(|| one.spec.from.clone()),
            to: one.spec.to.clone(),
            group: Amount::of(status.group.as_ref()),
            left: Amount::of(status.left.as_ref()),
            started: status.started_at,
            paths: if may_read { one.spec.paths.clone() } else { Vec::new() },
            message: status.message.filter(|_| may_read),
        }
    };
    open.into_iter().take(MOST_MOVES).map(view).collect()
}

fn conflicts(conflicts: &[Arc<FileConflict>], readable: &Scope) -> Vec<ConflictView> {
    let phase = |c: &FileConflict| c.status.as_ref().and_then(|s| s.phase).unwrap_or(ConflictPhase::Open);
    let mut open: Vec<&Arc<FileConflict>> = conflicts
        .iter()
        .filter(|c| readable.has(&c.namespace().unwrap_or_default()))
        .filter(|c| phase(c) != ConflictPhase::Resolved)
        .collect();
    open.sort_by_key(|c| (c.creation_timestamp(), c.namespace(), c.name_any()));
    let view = |conflict: &Arc<FileConflict>| {
        let status = conflict.status.clone().unwrap_or_default();
        ConflictView {
            namespace: conflict.namespace().unwrap_or_default(),
            volume: conflict.spec.volume_ref.name.clone(),
            name: conflict.name_any(),
            path: conflict.spec.path.clone(),
            phase: phase(conflict),
            resolution: conflict.spec.resolution.clone(),
            message: condition::find(&status.conditions, condition::RESOLVED).map(|c| c.message.clone()),
            versions: status.versions,
        }
    };
    open.into_iter().take(MOST_CONFLICTS).map(view).collect()
}

fn heat(bricks: &[Arc<Brick>], readable: &Scope) -> Vec<HeatView> {
    #[derive(Default)]
    struct Group {
        nodes: BTreeMap<String, u64>,
        bricks: Vec<String>,
    }
    let mut volumes: BTreeMap<Key, BTreeMap<String, Group>> = BTreeMap::new();
    for brick in bricks {
        let groups = volumes.entry(key(brick.namespace(), &brick.spec.volume_ref.name)).or_default();
        for hot in brick.status.iter().flat_map(|s| &s.hottest) {
            let group = groups.entry(hot.path.clone()).or_default();
            let uses = group.nodes.entry(brick.spec.node.clone()).or_default();
            *uses = uses.saturating_add(hot.uses());
            group.bricks.clone_from(&hot.bricks);
        }
    }
    let view = |((namespace, volume), groups): (Key, BTreeMap<String, Group>)| {
        let mut nodes: BTreeMap<String, u64> = BTreeMap::new();
        for (node, uses) in groups.values().flat_map(|g| &g.nodes) {
            let sum = nodes.entry(node.clone()).or_default();
            *sum = sum.saturating_add(*uses);
        }
        let count = groups.len();
        let mut top: Vec<GroupView> = groups
            .into_iter()
            .filter(|_| readable.has(&namespace))
            .map(|(path, group)| GroupView {
                path,
                uses: group.nodes.values().fold(0, |sum, n| sum.saturating_add(*n)),
                nodes: most_first(group.nodes),
                bricks: group.bricks,
            })
            .collect();
        top.sort_by_key(|g| (Reverse(g.uses), g.path.clone()));
        top.truncate(MOST_GROUPS);
        HeatView { namespace, volume, groups: count, nodes: most_first(nodes), top }
    };
    volumes.into_iter().filter(|(_, groups)| !groups.is_empty()).map(view).collect()
}

#[cfg(test)]
mod tests;
