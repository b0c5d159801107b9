//! Messages of `csi.v1.Controller`.

use std::collections::BTreeMap;

use super::{CapacityRange, Nothing, TopologyRequirement, Volume, VolumeCapability, VolumeCondition};

/// A volume is to be made.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateVolumeRequest {
    /// Who asks again with the same name means the same volume.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// How large.
    #[prost(message, optional, tag = "2")]
    pub(crate) capacity_range: Option<CapacityRange>,
    /// For which uses.
    #[prost(message, repeated, tag = "3")]
    pub(crate) volume_capabilities: Vec<VolumeCapability>,
    /// Those of the StorageClass.
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) parameters: BTreeMap<String, String>,
    /// From what it is to be filled; only that this is asked is looked at.
    #[prost(message, optional, tag = "6")]
    pub(crate) volume_content_source: Option<Nothing>,
    /// From where it is to be used.
    #[prost(message, optional, tag = "7")]
    pub(crate) accessibility_requirements: Option<TopologyRequirement>,
    /// Those of a VolumeAttributesClass.
    #[prost(btree_map = "string, string", tag = "8")]
    pub(crate) mutable_parameters: BTreeMap<String, String>,
}

/// It is made.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateVolumeResponse {
    /// The volume.
    #[prost(message, optional, tag = "1")]
    pub(crate) volume: Option<Volume>,
}

/// A volume is to be deleted, or looked at.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct VolumeId {
    /// Which.
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
}

/// Whether a volume can be used so.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValidateVolumeCapabilitiesRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    /// What the node service would be told.
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) volume_context: BTreeMap<String, String>,
    /// So.
    #[prost(message, repeated, tag = "3")]
    pub(crate) volume_capabilities: Vec<VolumeCapability>,
    /// With what it was made.
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) parameters: BTreeMap<String, String>,
}

/// Whether it can.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValidateVolumeCapabilitiesResponse {
    /// It can.
    #[prost(message, optional, tag = "1")]
    pub(crate) confirmed: Option<Confirmed>,
    /// Why it cannot.
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// What was confirmed.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Confirmed {
    /// The context that was given.
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) volume_context: BTreeMap<String, String>,
    /// The uses.
    #[prost(message, repeated, tag = "2")]
    pub(crate) volume_capabilities: Vec<VolumeCapability>,
    /// The parameters that were given.
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) parameters: BTreeMap<String, String>,
}

/// Which volumes there are.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ListVolumesRequest {
    /// At most so many; 0: all.
    #[prost(int32, tag = "1")]
    pub(crate) max_entries: i32,
    /// Where the last page ended.
    #[prost(string, tag = "2")]
    pub(crate) starting_token: String,
}

/// A page of volumes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListVolumesResponse {
    /// Each.
    #[prost(message, repeated, tag = "1")]
    pub(crate) entries: Vec<VolumeEntry>,
    /// Where the next page begins; empty: there is none.
    #[prost(string, tag = "2")]
    pub(crate) next_token: String,
}

/// A volume and how it is; also the answer of `ControllerGetVolume`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VolumeEntry {
    /// The volume.
    #[prost(message, optional, tag = "1")]
    pub(crate) volume: Option<Volume>,
    /// How it is.
    #[prost(message, optional, tag = "2")]
    pub(crate) status: Option<VolumeStatus>,
}

/// How a volume is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct VolumeStatus {
    /// Whether it is as it should be.
    #[prost(message, optional, tag = "2")]
    pub(crate) volume_condition: Option<VolumeCondition>,
}

/// What the controller can do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ControllerCapabilities {
    /// Each.
    #[prost(message, repeated, tag = "1")]
    pub(crate) capabilities: Vec<ControllerCapability>,
}

/// One thing that it can do.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct ControllerCapability {
    /// Always set.
    #[prost(message, optional, tag = "1")]
    pub(crate) rpc: Option<ControllerRpc>,
}

/// By its number.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct ControllerRpc {
    /// See [`ControllerCan`].
    #[prost(enumeration = "ControllerCan", tag = "1")]
    pub(crate) r#type: i32,
}

/// What a controller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ControllerCan {
    /// Nothing.
    Unknown = 0,
    /// Make and delete volumes.
    CreateDeleteVolume = 1,
    /// List them.
    ListVolumes = 3,
    /// Let them grow.
    ExpandVolume = 9,
    /// Say how they are.
    VolumeCondition = 11,
    /// Look at one.
    GetVolume = 12,
}

/// A volume is to grow.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ControllerExpandVolumeRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    /// To this.
    #[prost(message, optional, tag = "2")]
    pub(crate) capacity_range: Option<CapacityRange>,
}

/// It has.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct ControllerExpandVolumeResponse {
    /// To this.
    #[prost(int64, tag = "1")]
    pub(crate) capacity_bytes: i64,
    /// Nodes have something to do about it.
    #[prost(bool, tag = "2")]
    pub(crate) node_expansion_required: bool,
}
