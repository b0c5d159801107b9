//! The objects around one volume, from the stores: what the first step of several controllers collects.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use nearbrick_crds::{Brick, HealJob, JobPhase, ReplicaMigration, Workstation};

use crate::agent::Agent;
use crate::plan::pending::{Report, Target, by_target};
use crate::stores::Stores;

/// A brick and its agent.
#[derive(Clone, Debug)]
pub struct BrickEntry {
    /// The object.
    pub brick: Arc<Brick>,
    /// The agent of its node.
    pub agent: Agent,
    /// Its node, if it has an object.
    pub workstation: Option<Arc<Workstation>>,
}

/// The objects around one volume.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Its bricks, by name.
    pub bricks: BTreeMap<String, BrickEntry>,
    /// Its heal jobs.
    pub jobs: Vec<Arc<HealJob>>,
    /// Moves of its files that are not being deleted, the newest first.
    pub migrations: Vec<Arc<ReplicaMigration>>,
}

impl World {
    /// Collects what belongs to the volume called `name` with this UID. A brick of an earlier volume of
    /// the same name is not this volume's: it goes with its owner.
    pub fn collect(stores: &Stores, namespace: &str, name: &str, uid: &str) -> Self {
        let bricks = stores
            .bricks_of_volume(namespace, name)
            .filter(|b| b.spec.volume_uuid == uid)
            .map(|brick| {
                let ws = stores.workstations.get(&ObjectRef::new(&brick.spec.node));
                let agent = Agent::of(ws.as_deref());
                (brick.name_any(), BrickEntry { brick, agent, workstation: ws })
            })
            .collect();
        let jobs = stores.jobs.state_filter(|j| {
            j.spec.volume_ref.name == name && j.metadata.namespace.as_deref() == Some(namespace)
        });
        let mut migrations = stores.migrations.state_filter(|m| {
            m.spec.volume_ref.name == name
                && m.metadata.namespace.as_deref() == Some(namespace)
                && m.metadata.deletion_timestamp.is_none()
        });
        migrations.sort_by_key(|m| std::cmp::Reverse((m.creation_timestamp(), m.name_any())));
        Self { bricks, jobs, migrations }
    }

    /// What each brick lacks.
    pub fn targets(&self) -> BTreeMap<String, Target> {
        let reports: Vec<Report> =
            self.bricks.iter().map(|(name, e)| Report::of(name, &e.brick, e.agent.online)).collect();
        by_target(&reports)
    }

    /// Whether a job has not ended.
    pub fn is_healing(&self) -> bool {
        self.jobs.iter().any(|j| is_active(j))
    }
}

/// Whether a job has not ended and is not being deleted.
pub fn is_active(job: &HealJob) -> bool {
    job.metadata.deletion_timestamp.is_none()
        && !job.status.as_ref().and_then(|s| s.phase).is_some_and(JobPhase::is_ended)
}
