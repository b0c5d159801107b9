//! The API objects of the group `nearbrick.io/v1alpha1`, typed; one module for each kind.
//!
//! This crate is the only place where they are defined: the operator, the brick-agent, the lab, the
//! generated YAML under `crds/yaml/` and the chart all come from here (`crdgen` writes the files, and
//! `crdgen --check` says when they are not current).
//!
//! Invariants:
//! - A field that the schema has is either acted on, or [`unacted`] lists it, and the operator says
//!   so in the condition `SpecActedOn`.
//! - Every field of a status is optional in the schema, so that each writer can apply its own part.
//! - The schema has no default in a status: what nobody reported is absent, and never zero.

// The lists of printer columns repeat their keys by nature, which this lint takes for a mistake.
#![allow(clippy::duplicated_attributes)]

pub mod brick;
pub mod condition;
pub mod conflict;
pub mod files;
pub mod job;
pub mod meta;
pub mod migration;
pub mod paths;
pub mod pending;
pub mod policy;
pub mod quantity;
pub mod schedule;
pub mod schema;
pub mod times;
pub mod timetable;
pub mod unacted;
pub mod verifying;
pub mod volume;
pub mod workstation;

pub use brick::{
    Brick, BrickSpec, BrickState, BrickStatus, HotGroup, LastError, Move, PendingOut, Verification, Verified,
};
pub use conflict::{
    CarriedOut, ConflictPhase, ConflictPolicy, ConflictReport, FileConflict, FileConflictSpec,
    FileConflictStatus, FileVersion,
};
pub use job::{
    FailureReason, HealJob, HealJobSpec, HealJobStatus, JobBytes, JobFiles, JobPhase, JobReason, Transfer,
    TransferFailure, TransferPhase,
};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
pub use k8s_openapi::jiff;
pub use meta::LocalRef;
pub use migration::{MigrationPhase, ReplicaMigration, ReplicaMigrationSpec, ReplicaMigrationStatus};
pub use pending::Pending;
pub use policy::{HealOrder, HealPolicy, HealPolicySpec, HealPolicyStatus, HistoryLimits, Retry};
pub use schedule::{CronSchedule, TimeWindow};
pub use volume::{
    ConflictRule, DeletionPolicy, Joining, Members, Migration, MigrationMode, PlacementRule, RelatedFiles,
    ReplicaSet, StaleReads, StandIn, VolumeHealth, VolumePhase, WorkstationVolume, WorkstationVolumeSpec,
    WorkstationVolumeStatus, placement_name,
};
pub use workstation::{OnlineShare, Workstation, WorkstationSpec, WorkstationState, WorkstationStatus};
