//! Fields that are in the schema and that this version does not act on yet.
//!
//! Invariant: destructuring without `..`, so that a new field does not compile until somebody has
//! decided whether it is acted on.

use crate::conflict::FileConflictSpec;
use crate::job::HealJobSpec;
use crate::migration::ReplicaMigrationSpec;
use crate::policy::HealPolicySpec;
use crate::volume::WorkstationVolumeSpec;
use crate::workstation::WorkstationSpec;

/// A spec that knows which of its fields that are set are not acted on.
pub trait Unacted {
    /// Names of these fields, as a person wrote them; empty if all are acted on.
    fn unacted(&self) -> Vec<&'static str>;
}

fn listed(fields: &[(&'static str, bool)]) -> Vec<&'static str> {
    fields.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect()
}

impl Unacted for WorkstationVolumeSpec {
    fn unacted(&self) -> Vec<&'static str> {
        let Self {
            members: _,
            replicas: _,
            replica_sets: _,
            replace_after: _,
            heal_policy_ref: _,
            trigger: _,
            stale_reads: _,
            conflicts: _,
            conflict_rules: _,
            version_retention: _,
            migration: _,
            ignore,
            min_sync_copies: _,
            capacity,
            deletion_policy: _,
        } = self;
        listed(&[("ignore", !ignore.is_empty()), ("capacity", capacity.is_some())])
    }
}

impl Unacted for HealPolicySpec {
    fn unacted(&self) -> Vec<&'static str> {
        let Self {
            interval: _,
            cron: _,
            jitter: _,
            starting_deadline: _,
            when_settled: _,
            paused: _,
            history_limits: _,
            max_pending_age: _,
            max_pending_bytes: _,
            windows: _,
            bandwidth: _,
            concurrency: _,
            order: _,
            retry: _,
            verify_schedule: _,
        } = self;
        Vec::new()
    }
}

impl Unacted for HealJobSpec {
    fn unacted(&self) -> Vec<&'static str> {
        let Self {
            volume_ref: _,
            reason: _,
            target_bricks: _,
            source_brick: _,
            not_after: _,
            paths: _,
            bandwidth: _,
            concurrency: _,
            order: _,
            retry: _,
        } = self;
        Vec::new()
    }
}

impl Unacted for WorkstationSpec {
    fn unacted(&self) -> Vec<&'static str> {
        let Self { lost: _, eviction_requested: _, expected_offline: _, trigger: _ } = self;
        Vec::new()
    }
}

impl Unacted for ReplicaMigrationSpec {
    fn unacted(&self) -> Vec<&'static str> {
        let Self { volume_ref: _, paths: _, to: _, from: _, dry_run: _ } = self;
        Vec::new()
    }
}

impl Unacted for FileConflictSpec {
    fn unacted(&self) -> Vec<&'static str> {
        let Self { volume_ref: _, path: _, resolution: _ } = self;
        Vec::new()
    }
}
