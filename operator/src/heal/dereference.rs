//! First step: the policy, the bricks and the jobs of the volume, from the stores.

use std::sync::Arc;

use kube::ResourceExt;
use nearbrick_crds::{HealPolicy, WorkstationVolume};

use crate::stores::Stores;
use crate::world::World;

/// What was found.
pub struct Found {
    /// The policy to which the volume refers, if there is one.
    pub policy: Option<Arc<HealPolicy>>,
    /// Bricks and jobs.
    pub world: World,
}

/// Looks it up.
pub fn dereference(stores: &Stores, volume: &WorkstationVolume) -> Found {
    Found {
        policy: stores.policy_of(volume),
        world: World::collect(
            stores,
            &volume.namespace().unwrap_or_default(),
            &volume.name_any(),
            &volume.uid().unwrap_or_default(),
        ),
    }
}
