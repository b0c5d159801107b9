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
        uses: status.hottest.iter().fold(0, |sum, g| sum.saturating_add(g.uses())),
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
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn object<K: DeserializeOwned>(kind: &str, namespace: &str, name: &str, parts: Value) -> Arc<K> {
        let mut object = json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": kind,
            "metadata": { "name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z" },
        });
        for (part, value) in parts.as_object().unwrap() {
            object[part] = value.clone();
        }
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn said(type_: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({ "type": type_, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
    }

    fn brick(namespace: &str, node: &str, status: Value) -> Arc<Brick> {
        let spec = json!({ "volumeRef": { "name": "home" }, "volumeUuid": "v", "node": node, "uuid": "u" });
        object("Brick", namespace, &format!("home.{node}"), json!({ "spec": spec, "status": status }))
    }

    fn hot(path: &str, local: u64) -> Value {
        json!({ "path": path, "below": true, "local": local, "cached": 0, "remote": 0, "writes": 0,
                "files": 1, "bytes": 1, "awayFiles": 0, "awayBytes": 0, "bricks": ["home.ws-a"] })
    }

    fn conflict(namespace: &str, name: &str, phase: &str) -> Arc<FileConflict> {
        object(
            "FileConflict",
            namespace,
            name,
            json!({
                "spec": { "volumeRef": { "name": "home" }, "path": "secret/plan.txt" },
                "status": { "phase": phase, "summary": "ws-a 24 B, ws-b 10 B",
                    "versions": [{ "writer": "ws-a", "size": 24, "path": "secret/plan.txt" },
                                 { "writer": "ws-b", "size": 10 }],
                    "conditions": [said("Resolved", "False", "NotDecided", "secret/plan.txt: choose")] },
            }),
        )
    }

    /// Every text that can hold a path holds the word `secret`.
    fn lab() -> Objects {
        let volume = object(
            "WorkstationVolume",
            "lab",
            "home",
            json!({
                "spec": { "members": { "nodes": ["ws-a", "ws-b"] }, "replicas": 2 },
                "status": { "phase": "Ready", "health": "Conflicted", "files": 10, "bytes": 1000, "conflicts": 1,
                    "pending": { "files": 2, "bytes": 300, "oldestSince": "2026-01-01T00:00:00Z" },
                    "placement": [{ "creator": "", "paths": ["secret/**"], "bricks": ["home.ws-a"] }],
                    "conditions": [said("Ready", "True", "AllBricksReady", "secret"),
                                   said("ConflictFree", "False", "ConflictsOpen", "secret")] },
            }),
        );
        let workstation = |name: &str, state: &str| {
            object::<Workstation>(
                "Workstation",
                "",
                name,
                json!({ "spec": {}, "status": { "state": state, "lastSeen": "2026-01-01T00:00:00Z",
                    "conditions": [said("SafeToLeave", "False", "Pending", "secret")] } }),
            )
        };
        let node = |name: &str, zone: &str| {
            object("Node", "", name, json!({ "metadata": { "name": name, "labels": { ZONE: zone } } }))
        };
        let status = |groups: Value| {
            json!({ "state": "Ready", "message": "secret", "pending": { "files": 1, "bytes": 7 },
                "hottest": groups, "lastError": { "reason": "Corrupt", "message": "secret" },
                "unplacedBecause": "secret",
                "moves": [{ "migration": "m", "files": 1, "bytes": 1, "busy": 0 }],
                "conditions": [said("Ready", "True", "Mounted", "secret"),
                               said("RemovalsFollowed", "False", "TooMany", "secret")] })
        };
        let job = |name: &str, phase: &str| {
            object(
                "HealJob",
                "lab",
                name,
                json!({ "spec": { "volumeRef": { "name": "home" }, "reason": "Trigger", "paths": ["secret/job/*"] },
                    "status": { "phase": phase, "targets": ["home.ws-b"], "message": "secret",
                        "files": { "done": 1, "total": 2, "failed": 1 }, "failures": "1 Busy",
                        "transfers": [{ "target": "home.ws-b",
                            "failures": [{ "reason": "Busy", "count": 1, "message": "secret/x is open" }] }] } }),
            )
        };
        let moving = |name: &str, phase: &str| {
            object(
                "ReplicaMigration",
                "lab",
                name,
                json!({ "spec": { "volumeRef": { "name": "home" }, "paths": ["secret/**"], "to": "home.ws-b" },
                    "status": { "phase": phase, "message": "secret", "evidence": "secret", "from": "home.ws-a",
                        "group": { "files": 9, "bytes": 90 }, "left": { "files": 4, "bytes": 40 } } }),
            )
        };
        Objects {
            volumes: vec![volume],
            bricks: vec![
                brick("lab", "ws-a", status(json!([hot("secret/one", 5), hot("secret/two", 1)]))),
                brick("lab", "ws-b", status(json!([hot("secret/two", 9)]))),
            ],
            workstations: vec![workstation("ws-b", "Online"), workstation("ws-a", "Away")],
            conflicts: vec![conflict("lab", "home.0f", "Open"), conflict("lab", "home.1f", "Resolved")],
            jobs: vec![job("heal-1", "Running"), job("heal-0", "Completed")],
            moves: vec![moving("m-0", "Proposed"), moving("m-1", "Adding"), moving("m-2", "Done")],
            nodes: vec![node("ws-a", "east"), node("ws-b", "west")],
        }
    }

    fn view(rights: &Rights) -> (View, String) {
        let view = View::of(&lab(), rights, |_, _| Series::default());
        let text = serde_json::to_string(&view).unwrap();
        (view, text)
    }

    #[test]
    fn without_rights_no_path_is_shown_and_all_counts_are() {
        let (view, text) = view(&Rights::default());
        assert!(!text.contains("secret"), "{text}");
        assert!(view.leading && !view.names && view.conflicts.is_empty());
        let [volume] = &view.volumes[..] else { panic!("{text}") };
        assert_eq!((volume.conflicts, volume.pending.files, volume.pending.bytes), (1, 2, 300));
        assert_eq!(volume.trouble.len(), 1);
        assert_eq!(volume.trouble[0].reason, "ConflictsOpen");
        let [heat] = &view.heat[..] else { panic!("{text}") };
        assert_eq!((heat.groups, heat.top.len()), (2, 0));
        assert_eq!(heat.nodes[0], Uses { node: "ws-b".into(), uses: 9 });
        assert_eq!(heat.nodes[1], Uses { node: "ws-a".into(), uses: 6 });
    }

    #[test]
    fn with_rights_conflicts_and_groups_have_their_names() {
        let all = Rights { conflicts: Scope::All, bricks: Scope::All, moves: Scope::All };
        let (view, text) = view(&all);
        let [conflict] = &view.conflicts[..] else { panic!("{text}") };
        assert_eq!((conflict.name.as_str(), conflict.path.as_str()), ("home.0f", "secret/plan.txt"));
        assert_eq!(conflict.versions.len(), 2);
        let [one, two] = &view.heat[0].top[..] else { panic!("{text}") };
        assert_eq!((one.path.as_str(), one.uses, one.nodes.len()), ("secret/two", 10, 2));
        assert_eq!((two.path.as_str(), two.uses), ("secret/one", 5));
        assert_eq!(view.zones[0].workstations[0].bricks[0].message.as_deref(), Some("secret"));
        // Who heals reads the globs of a job elsewhere: nobody sees them here.
        assert!(!text.contains("secret/job") && !text.contains("is open"), "{text}");
    }

    #[test]
    fn rights_are_by_namespace_and_by_kind() {
        let only = |names: &str| Scope::Some([names.to_owned()].into());
        let none = Rights::default;
        for (rights, conflicts, groups, paths) in [
            (Rights { conflicts: only("lab"), ..none() }, 1, 0, 0),
            (Rights { bricks: only("lab"), ..none() }, 0, 2, 0),
            (Rights { moves: only("lab"), ..none() }, 0, 0, 1),
            (Rights { conflicts: only("other"), bricks: only("other"), moves: only("other") }, 0, 0, 0),
        ] {
            let (view, text) = view(&rights);
            let shown = (view.conflicts.len(), view.heat[0].top.len(), view.moves[0].paths.len());
            assert_eq!(shown, (conflicts, groups, paths), "{text}");
        }
    }

    #[test]
    fn workstations_are_by_zone_with_their_bricks_and_only_heals_in_flight_are_shown() {
        let (view, text) = view(&Rights::default());
        let [east, west] = &view.zones[..] else { panic!("{text}") };
        assert_eq!((east.name.as_str(), west.name.as_str()), ("east", "west"));
        let a = &east.workstations[0];
        assert_eq!((a.name.as_str(), a.state), ("ws-a", Some(WorkstationState::Away)));
        assert_eq!((a.safe_to_leave.as_deref(), a.safe_because.as_deref()), (Some("False"), Some("Pending")));
        assert!(a.last_seen.is_some() && west.workstations[0].last_seen.is_none());
        assert_eq!((a.bricks[0].volume.as_str(), a.bricks[0].uses), ("home", 6));
        assert!(a.bricks[0].removals_held);
        let [heal] = &view.heals[..] else { panic!("{text}") };
        assert_eq!((heal.name.as_str(), heal.reason, heal.files.done), ("heal-1", "Trigger", 1));
        assert_eq!(heal.failures.as_deref(), Some("1 Busy"));
        let [moving, proposed] = &view.moves[..] else { panic!("{text}") };
        assert_eq!((moving.name.as_str(), moving.phase), ("m-1", MigrationPhase::Adding));
        assert_eq!((moving.from.as_deref(), moving.to.as_str()), (Some("home.ws-a"), "home.ws-b"));
        assert_eq!((moving.group.files, moving.left.files), (9, 4));
        assert_eq!(proposed.name, "m-0");
    }
}
