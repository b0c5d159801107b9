//! First step: the objects to which the volume refers, from the stores.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;
use nearbrick_crds::{HealPolicySpec, WorkstationVolume};

use crate::plan::members::NodeInfo;
use crate::stores::Stores;
use crate::world::World;

/// What was found.
pub struct Found {
    /// All nodes of the cluster.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Names of the workstations that have an object.
    pub workstations: BTreeSet<String>,
    /// The policy to which the volume refers, if there is one.
    pub policy: Option<HealPolicySpec>,
    /// Bricks and jobs.
    pub world: World,
}

/// Looks it up.
pub fn dereference(stores: &Stores, volume: &WorkstationVolume) -> Found {
    let info = |n: &PartialObjectMeta<Node>| NodeInfo { labels: n.labels().clone() };
    Found {
        nodes: stores.nodes.state().iter().map(|n| (n.name_any(), info(n))).collect(),
        workstations: stores.workstations.state().iter().map(|w| w.name_any()).collect(),
        policy: stores.policy_of(volume).map(|policy| policy.spec.clone()),
        world: World::collect(
            stores,
            &volume.namespace().unwrap_or_default(),
            &volume.name_any(),
            &volume.uid().unwrap_or_default(),
        ),
    }
}
