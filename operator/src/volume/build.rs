//! Third step: what should exist, and what the status should say. No client.

use nearbrick_crds::meta::{LABEL_NODE, LABEL_VOLUME, brick_name};
use nearbrick_crds::{Brick, BrickSpec, BrickState, LocalRef, PlacementRule, Workstation, WorkstationSpec};

use super::validate::Valid;
use crate::plan::placement::{Candidate, place};
use crate::plan::volume::{Input, MemberView, Summary, summarise};

/// The label that names a node's failure zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What should exist.
pub struct Built {
    /// Workstations that are missing.
    pub workstations: Vec<Workstation>,
    /// Bricks that are missing. They have no finalizer: the data outlives the object, since no
    /// deletion policy but Retain is acted on, and so a brick that goes takes no file with it.
    pub bricks: Vec<Brick>,
    /// Replica sets of new files.
    pub placement: Vec<PlacementRule>,
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
                workstations.push(Workstation::new(node, WorkstationSpec::default()));
            }
            if own(node).is_none() {
                bricks.push(new_brick(valid, node));
            }
        }
    }
    let candidates: Vec<Candidate> = valid
        .members
        .iter()
        .map(|node| {
            let entry = own(node);
            let status = entry.and_then(|e| e.brick.status.as_ref());
            Candidate {
                brick: brick_name(&valid.name, node),
                usable: entry.is_none_or(|e| !e.agent.lost && e.brick.metadata.deletion_timestamp.is_none())
                    && status.and_then(|s| s.state) != Some(BrickState::Refused),
                online: entry.is_some_and(|e| e.agent.online),
                free: status.and_then(|s| s.free_bytes),
                zone: valid.nodes.get(node).and_then(|n| n.labels.get(ZONE)).cloned(),
                node: node.clone(),
            }
        })
        .collect();
    let placement = place(&candidates, valid.replicas, &valid.replica_sets, &valid.previous_placement);
    Built { workstations, bricks, placement, summary: summary(valid) }
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

fn summary(valid: &Valid) -> Summary {
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
                        message: status.message,
                        silent_since: entry.agent.silent_since.filter(|_| !entry.agent.online),
                        lost: entry.agent.lost,
                        files: status.files,
                        bytes: status.bytes,
                        conflicts: status.conflicts,
                        node: node.clone(),
                        brick,
                    }
                }
                None => MemberView { node: node.clone(), brick, ..MemberView::default() },
            }
        })
        .collect();
    let leftover_bricks: Vec<String> = valid
        .world
        .bricks
        .iter()
        .filter(|(_, e)| !valid.members.contains(&e.brick.spec.node))
        .map(|(name, _)| name.clone())
        .collect();
    summarise(&Input {
        terminating: valid.terminating,
        problems: &valid.problems,
        members: &members,
        targets: &valid.world.targets(),
        healing: valid.world.is_healing(),
        unacted: &valid.unacted,
        leftover_bricks: &leftover_bricks,
    })
}
