//! Messages of `csi.v1.Node`.

use super::{Topology, VolumeCapability, VolumeCondition};

/// A volume is to be shown at a path.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodePublishVolumeRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    /// Where.
    #[prost(string, tag = "4")]
    pub(crate) target_path: String,
    /// How.
    #[prost(message, optional, tag = "5")]
    pub(crate) volume_capability: Option<VolumeCapability>,
    /// For reading only.
    #[prost(bool, tag = "6")]
    pub(crate) readonly: bool,
}

/// A volume is to be shown at a path no longer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct NodeUnpublishVolumeRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    /// Where.
    #[prost(string, tag = "2")]
    pub(crate) target_path: String,
}

/// How much room there is in a volume.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct NodeGetVolumeStatsRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    /// Where it is shown.
    #[prost(string, tag = "2")]
    pub(crate) volume_path: String,
}

/// How much there is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct NodeGetVolumeStatsResponse {
    /// By unit.
    #[prost(message, repeated, tag = "1")]
    pub(crate) usage: Vec<VolumeUsage>,
    /// Whether the volume is as it should be here.
    #[prost(message, optional, tag = "2")]
    pub(crate) volume_condition: Option<VolumeCondition>,
}

/// How much of something.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct VolumeUsage {
    /// That can still be had.
    #[prost(int64, tag = "1")]
    pub(crate) available: i64,
    /// In all.
    #[prost(int64, tag = "2")]
    pub(crate) total: i64,
    /// That is taken.
    #[prost(int64, tag = "3")]
    pub(crate) used: i64,
    /// Of what; see [`Unit`].
    #[prost(enumeration = "Unit", tag = "4")]
    pub(crate) unit: i32,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Unit {
    /// Not said.
    Unknown = 0,
    /// Bytes.
    Bytes = 1,
    /// Files.
    Inodes = 2,
}

/// What the node service can do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct NodeCapabilities {
    /// Each.
    #[prost(message, repeated, tag = "1")]
    pub(crate) capabilities: Vec<NodeCapability>,
}

/// One thing that it can do.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct NodeCapability {
    /// Always set.
    #[prost(message, optional, tag = "1")]
    pub(crate) rpc: Option<NodeRpc>,
}

/// By its number.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct NodeRpc {
    /// See [`NodeCan`].
    #[prost(enumeration = "NodeCan", tag = "1")]
    pub(crate) r#type: i32,
}

/// What a node service can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum NodeCan {
    /// Nothing.
    Unknown = 0,
    /// Say how much room there is.
    GetVolumeStats = 2,
    /// Say whether a volume is as it should be.
    VolumeCondition = 4,
}

/// Which node this is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct NodeInfo {
    /// Its id.
    #[prost(string, tag = "1")]
    pub(crate) node_id: String,
    /// The labels by which volumes say from where they can be used.
    #[prost(message, optional, tag = "3")]
    pub(crate) accessible_topology: Option<Topology>,
}
