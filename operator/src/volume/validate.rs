//! Second step: one typed value from the raw spec and what was found. Later steps see nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use nearbrick_crds::unacted::Unacted;
use nearbrick_crds::{HealPolicySpec, PlacementRule, ReplicaSet, WorkstationVolume};

use super::dereference::Found;
use crate::brick::deletes;
use crate::error::Error;
use crate::plan::members::{self, NodeInfo, Problem};
use crate::world::World;

/// A volume that can be worked on, with what is wrong with it.
pub struct Valid {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// The generation of the spec that was read.
    pub generation: Option<i64>,
    /// For the objects that belong to it.
    pub owner: OwnerReference,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether its files go with it.
    pub deletes: bool,
    /// Nodes that have or get a brick.
    pub members: BTreeSet<String>,
    /// What a person must correct.
    pub problems: Vec<Problem>,
    /// Copies of each file.
    pub replicas: u32,
    /// Explicit groups, only with nodes that are members.
    pub replica_sets: Vec<ReplicaSet>,
    /// After how long a silent workstation's copies are made elsewhere.
    pub replace_after: Option<Duration>,
    /// The operator's clock.
    pub now: Timestamp,
    /// Fields that are set and not acted on.
    pub unacted: Vec<&'static str>,
    /// What was decided before.
    pub previous_placement: Vec<PlacementRule>,
    /// Where it was said to be used.
    pub previously_used_on: Vec<String>,
    /// All nodes of the cluster.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Names of the workstations that have an object.
    pub workstations: BTreeSet<String>,
    /// The policy to which it refers, if there is one.
    pub policy: Option<HealPolicySpec>,
    /// Bricks and jobs.
    pub world: World,
}

/// Checks.
pub fn validate(volume: &WorkstationVolume, found: Found) -> Result<Valid, Error> {
    let name = volume.name_any();
    let missing = |what| Error::Incomplete(format!("WorkstationVolume {name}"), what);
    let namespace = volume.namespace().ok_or_else(|| missing("namespace"))?;
    let uid = volume.uid().ok_or_else(|| missing("uid"))?;
    let owner = volume.controller_owner_ref(&()).ok_or_else(|| missing("uid"))?;
    let Found { nodes, workstations, policy, world } = found;

    let with_brick: BTreeSet<String> = world.bricks.values().map(|e| e.brick.spec.node.clone()).collect();
    let resolved = members::resolve(&volume.spec, &nodes, &with_brick);
    let replica_sets = volume
        .spec
        .replica_sets
        .iter()
        .filter(|s| {
            !s.paths.iter().any(|p| {
                resolved.problems.iter().any(|x| matches!(x, Problem::BadGlob { glob, .. } if glob == p))
            })
        })
        .cloned()
        .collect();
    Ok(Valid {
        deletes: deletes(volume),
        terminating: volume.metadata.deletion_timestamp.is_some(),
        generation: volume.metadata.generation,
        members: resolved.nodes,
        problems: resolved.problems,
        replicas: volume.spec.replicas,
        replica_sets,
        replace_after: volume
            .spec
            .replace_after
            .as_deref()
            .and_then(|text| text.parse::<kube::core::Duration>().ok().map(Duration::from)),
        now: Timestamp::now(),
        unacted: volume.spec.unacted(),
        previously_used_on: volume.status.as_ref().map(|s| s.used_on.clone()).unwrap_or_default(),
        previous_placement: volume.status.as_ref().map(|s| s.placement.clone()).unwrap_or_default(),
        name,
        namespace,
        uid,
        owner,
        nodes,
        workstations,
        policy,
        world,
    })
}
