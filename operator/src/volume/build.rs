//! Third step: what should exist, and what the status should say. No client.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use nearbrick_crds::condition::{SPACE_LEFT, find};
use nearbrick_crds::meta::{FINALIZER_COPIES, LABEL_NODE, LABEL_VOLUME, brick_name};
use nearbrick_crds::times::expected_off;
use nearbrick_crds::verifying::Verifying;
use nearbrick_crds::{
    Brick, BrickSpec, BrickState, BrickStatus, Condition, Joining, LocalRef, MigrationPhase, PlacementRule,
    ReplicaMigration, Workstation, WorkstationSpec, placement_name,
};

use super::validate::Valid;
use crate::plan::away::is_to_be_replaced;
use crate::plan::placed;
use crate::plan::placement::{Candidate, Moving, Standing, place_with_moves};
use crate::plan::share::share_now;
use crate::plan::used::used_on;
use crate::plan::verified::Looked;
use crate::plan::volume::{Input, MemberView, Summary, summarise};
use crate::workstation::is_to_leave;
use crate::world::BrickEntry;

/// The label that names a node's failure zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What should exist.
pub struct Built {
    /// Workstations that are missing.
    pub workstations: Vec<Workstation>,
    /// Bricks that are missing. One that is deleted stays until nothing has to be held there any more (a finalizer).
    pub bricks: Vec<Brick>,
    /// Replica sets of files.
    pub placement: Vec<PlacementRule>,
    /// Where it is used.
    pub used_on: Vec<String>,
    /// When the placement may be another one, though no object changes.
    pub again_in: Option<Duration>,
    /// The rest of the status.
    pub summary: Summary,
}

/// Builds.
pub fn build(valid: &Valid) -> Built {
    let own = |node: &str| valid.world.bricks.get(&brick_name(&valid.name, node));
    let (mut workstations, mut bricks) = (vec![], vec![]);
    if !valid.terminating {
        for node in &valid.members {
            if !valid.workstations.contains(node) {
                let mut workstation = Workstation::new(node, WorkstationSpec::default());
                workstation.metadata.finalizers = Some(vec![FINALIZER_COPIES.to_owned()]);
                workstations.push(workstation);
            }
            if own(node).is_none() {
                bricks.push(new_brick(valid, node));
            }
        }
    }
    let mut again_in: Option<Duration> = None;
    let mut candidates = vec![];
    let former = valid.world.bricks.values().map(|e| &e.brick.spec.node);
    for node in valid.members.iter().chain(former).collect::<BTreeSet<_>>() {
        let (standing, wait) = standing(valid, node);
        again_in = [again_in, wait].into_iter().flatten().min();
        let entry = own(node);
        let status = entry.and_then(|e| e.brick.status.as_ref());
        candidates.push(Candidate {
            brick: brick_name(&valid.name, node),
            standing,
            usable: entry.is_none_or(|e| e.brick.metadata.deletion_timestamp.is_none())
                && status.and_then(|s| s.state) != Some(BrickState::Refused),
            online: entry.is_some_and(|e| e.agent.online),
            share: share(valid, entry),
            free: status.and_then(|s| s.free_bytes),
            full: status.is_some_and(|s| is_full(&s.conditions)),
            zone: valid.nodes.get(node).and_then(|n| n.labels.get(ZONE)).cloned(),
            node: node.clone(),
        });
    }
    // What ends is not moved any more.
    let placement = if valid.terminating {
        valid.previous_placement.clone()
    } else {
        place_with_moves(
            &candidates,
            valid.replicas,
            &valid.replica_sets,
            &valid.previous_placement,
            &moving(valid),
        )
    };
    let summary = summary(valid, &placement);
    // Where no agent is, a pod would not get its volume.
    let said = valid.world.bricks.values();
    let said = said.filter(|e| e.agent.online && valid.members.contains(&e.brick.spec.node));
    let uses =
        said.map(|e| (e.brick.spec.node.as_str(), e.brick.status.as_ref().map_or(0, BrickStatus::uses)));
    let used_on = used_on(uses, &valid.previously_used_on);
    Built { workstations, bricks, placement, used_on, again_in, summary }
}

/// Whether a brick's agent last said that its disk is full.
fn is_full(conditions: &[Condition]) -> bool {
    find(conditions, SPACE_LEFT).is_some_and(|c| c.status == "False")
}

/// Who stands in for it, each once.
fn stand_ins_of(full: &str, placement: &[PlacementRule]) -> Vec<String> {
    let pairs = placement.iter().flat_map(|rule| &rule.stand_ins).filter(|pair| pair.full == full);
    pairs.map(|pair| pair.brick.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// How much of the time a brick's workstation is online, of a thousand.
fn share(valid: &Valid, entry: Option<&BrickEntry>) -> u32 {
    let workstation = entry.and_then(|e| e.workstation.as_ref()?.status.as_ref());
    share_now(
        workstation.and_then(|s| s.online_share.as_ref()),
        entry.is_some_and(|e| e.agent.online),
        valid.now,
    )
}

/// The moves under way, the newest first.
fn moving(valid: &Valid) -> Vec<Moving> {
    let of = |m: &Arc<ReplicaMigration>| {
        let status = m.status.as_ref()?;
        let joining = match status.phase? {
            MigrationPhase::Adding => Some(Joining::Adding),
            MigrationPhase::Verifying => Some(Joining::Verifying),
            MigrationPhase::Dropping => None,
            _ => return None,
        };
        let (paths, bricks) = (m.spec.paths.clone(), status.bricks.clone());
        Some(Moving { name: m.name_any(), paths, bricks, joining })
    };
    valid.world.migrations.iter().filter_map(of).collect()
}

/// Whether a node's brick is to go on holding files, and when that may change by itself.
pub(crate) fn standing(valid: &Valid, node: &str) -> (Standing, Option<Duration>) {
    if !valid.members.contains(node) {
        return (Standing::Removed, None);
    }
    let entry = valid.world.bricks.get(&brick_name(&valid.name, node));
    let Some((entry, spec)) = entry.and_then(|e| Some((e, &e.workstation.as_ref()?.spec))) else {
        return (Standing::Stays, None);
    };
    if spec.lost {
        return (Standing::Lost, None);
    }
    if entry.brick.metadata.deletion_timestamp.is_some() {
        return (Standing::Removed, None);
    }
    if entry.workstation.as_deref().is_some_and(is_to_leave) {
        return (Standing::Evicted, None);
    }
    // The workstation's own status says what is wrong with a window; until then it counts as none.
    let expected = expected_off(&spec.expected_offline, valid.now).unwrap_or_default();
    // One that never reported has nothing that could be made elsewhere.
    let silent_since = entry.agent.silent_since.filter(|_| entry.agent.last_seen.is_some());
    match is_to_be_replaced(silent_since, expected, valid.replace_after, valid.now) {
        (true, wait) => (Standing::Replaced, wait),
        (false, wait) => (Standing::Stays, wait),
    }
}

fn new_brick(valid: &Valid, node: &str) -> Brick {
    let spec = BrickSpec {
        volume_ref: LocalRef::new(&valid.name),
        volume_uuid: valid.uid.clone(),
        node: node.to_string(),
        path: None,
        uuid: uuid::Uuid::new_v4().to_string(),
    };
    let mut brick = Brick::new(&brick_name(&valid.name, node), spec);
    brick.metadata.finalizers = Some(vec![FINALIZER_COPIES.to_owned()]);
    brick.metadata.namespace = Some(valid.namespace.clone());
    brick.metadata.owner_references = Some(vec![valid.owner.clone()]);
    brick.metadata.labels = Some(
        [(LABEL_VOLUME, valid.name.as_str()), (LABEL_NODE, node)]
            .into_iter()
            // A node's name can be longer than a label's value may be; the field selector works always.
            .filter(|(_, value)| value.len() <= 63)
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
    );
    brick
}

/// What a brick says of its last look through all that it holds.
fn looked(status: &BrickStatus, verifying: Option<&Verifying>) -> Looked {
    let began = status.verification.as_ref().and_then(|v| v.started_at.as_ref()).map(|t| t.0);
    Looked {
        ended: status.last_verified_time.as_ref().map(|t| t.0),
        holds_until: began.zip(verifying).and_then(|(began, v)| v.holds_until(began)),
        unrepaired: status.unrepaired_files,
    }
}

fn summary(valid: &Valid, placement: &[PlacementRule]) -> Summary {
    // One that cannot be followed is not followed: bricks go by the week then.
    let verifying = Verifying::of(valid.policy.as_ref(), Timestamp::UNIX_EPOCH, "")
        .or_else(|_| Verifying::of(None, Timestamp::UNIX_EPOCH, ""))
        .ok();
    let members: Vec<MemberView> = valid
        .members
        .iter()
        .map(|node| {
            let brick = brick_name(&valid.name, node);
            match valid.world.bricks.get(&brick) {
                Some(entry) => {
                    let status = entry.brick.status.clone().unwrap_or_default();
                    MemberView {
                        state: status.state,
                        message: status.message.clone(),
                        silent_since: entry.agent.silent_since.filter(|_| !entry.agent.online),
                        lost: entry.agent.lost,
                        files: status.files,
                        bytes: status.bytes,
                        conflicts: status.conflicts,
                        tree_sum: status.tree_sum.clone(),
                        looked: looked(&status, verifying.as_ref()),
                        node: node.clone(),
                        brick,
                    }
                }
                None => MemberView { node: node.clone(), brick, ..MemberView::default() },
            }
        })
        .collect();
    let placed: Vec<placed::View> = valid
        .world
        .bricks
        .iter()
        .map(|(name, e)| placed::View {
            online: e.agent.online,
            silent_since: e.agent.silent_since,
            lost: e.agent.lost,
            member: valid.members.contains(&e.brick.spec.node),
            ..placed::View::of(name, &e.brick)
        })
        .collect();
    let bricks = valid.world.bricks.iter();
    let left: Vec<(String, bool)> = bricks.map(|(name, e)| (name.clone(), e.agent.online)).collect();
    let full: Vec<(String, Vec<String>)> = valid
        .world
        .bricks
        .iter()
        .filter(|(_, e)| e.brick.status.as_ref().is_some_and(|s| is_full(&s.conditions)))
        .map(|(name, _)| (name.clone(), stand_ins_of(name, placement)))
        .collect();
    let name = (!placement.is_empty()).then(|| placement_name(placement));
    summarise(&Input {
        terminating: valid.terminating,
        problems: &valid.problems,
        members: &members,
        targets: &valid.world.targets(),
        healing: valid.world.is_healing(),
        unacted: &valid.unacted,
        placed: &placed,
        placement: name.as_deref(),
        full: &full,
        ends: (valid.terminating && valid.deletes).then_some(&left),
        now: valid.now,
    })
}
