//! The messages of CSI v1 (package `csi.v1`, spec 1.12) and of kubelet's plugin registration that are served here, by their field numbers.
//!
//! * A `oneof` is written as optional fields of the same numbers, which is the same on the wire.
//! * Fields that this driver does not look at (secrets, contexts, content sources) are left out: what is not known is skipped.

mod controller;
mod identity;
mod node;
mod registration;

use std::collections::BTreeMap;

pub(crate) use controller::*;
pub(crate) use identity::*;
pub(crate) use node::*;
pub(crate) use registration::*;

/// How a volume is to be used.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VolumeCapability {
    /// As a block device.
    #[prost(message, optional, tag = "1")]
    pub(crate) block: Option<Nothing>,
    /// As a file system.
    #[prost(message, optional, tag = "2")]
    pub(crate) mount: Option<MountVolume>,
    /// By whom.
    #[prost(message, optional, tag = "3")]
    pub(crate) access_mode: Option<AccessMode>,
}

/// A file system.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MountVolume {
    /// Its type.
    #[prost(string, tag = "1")]
    pub(crate) fs_type: String,
    /// Options of its mount.
    #[prost(string, repeated, tag = "2")]
    pub(crate) mount_flags: Vec<String>,
}

/// Who uses it.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct AccessMode {
    /// See [`Mode`].
    #[prost(enumeration = "Mode", tag = "1")]
    pub(crate) mode: i32,
}

/// How many nodes use a volume, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Mode {
    /// Not said.
    Unknown = 0,
    /// One writes.
    SingleNodeWriter = 1,
    /// One reads.
    SingleNodeReaderOnly = 2,
    /// Several read.
    MultiNodeReaderOnly = 3,
    /// One of several writes.
    MultiNodeSingleWriter = 4,
    /// Several write.
    MultiNodeMultiWriter = 5,
}

/// A size that is wanted; 0 is not said.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct CapacityRange {
    /// At least.
    #[prost(int64, tag = "1")]
    pub(crate) required_bytes: i64,
    /// At most.
    #[prost(int64, tag = "2")]
    pub(crate) limit_bytes: i64,
}

/// A volume.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Volume {
    /// Its size; 0: not known.
    #[prost(int64, tag = "1")]
    pub(crate) capacity_bytes: i64,
    /// Its id.
    #[prost(string, tag = "2")]
    pub(crate) volume_id: String,
    /// What the node service is told.
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) volume_context: BTreeMap<String, String>,
    /// From where it can be used: any of these.
    #[prost(message, repeated, tag = "5")]
    pub(crate) accessible_topology: Vec<Topology>,
}

/// Nodes, by labels that all hold.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Topology {
    /// Labels.
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) segments: BTreeMap<String, String>,
}

/// From where a volume is to be used.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TopologyRequirement {
    /// From one of these at least.
    #[prost(message, repeated, tag = "1")]
    pub(crate) requisite: Vec<Topology>,
    /// Rather from these, the best first.
    #[prost(message, repeated, tag = "2")]
    pub(crate) preferred: Vec<Topology>,
}

/// Whether a volume is as it should be.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct VolumeCondition {
    /// It is not.
    #[prost(bool, tag = "1")]
    pub(crate) abnormal: bool,
    /// What is to be said of it.
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// A message without fields, or of which none are looked at.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Nothing {}
