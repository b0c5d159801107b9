//! Messages of `csi.v1.Identity`.

/// Who the driver is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct PluginInfo {
    /// Its name.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub(crate) vendor_version: String,
}

/// What the driver as a whole can do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct PluginCapabilities {
    /// Each.
    #[prost(message, repeated, tag = "1")]
    pub(crate) capabilities: Vec<PluginCapability>,
}

/// One of these two.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct PluginCapability {
    /// A service.
    #[prost(message, optional, tag = "1")]
    pub(crate) service: Option<ServiceCapability>,
    /// Volumes can grow.
    #[prost(message, optional, tag = "2")]
    pub(crate) volume_expansion: Option<VolumeExpansion>,
}

/// A service, by its number.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct ServiceCapability {
    /// See [`PluginService`].
    #[prost(enumeration = "PluginService", tag = "1")]
    pub(crate) r#type: i32,
}

/// Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum PluginService {
    /// None.
    Unknown = 0,
    /// There is a controller.
    Controller = 1,
    /// Not every volume can be used from every node.
    AccessibilityConstraints = 2,
}

/// How volumes grow.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct VolumeExpansion {
    /// See [`Expansion`].
    #[prost(enumeration = "Expansion", tag = "1")]
    pub(crate) r#type: i32,
}

/// How volumes grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Expansion {
    /// They do not.
    Unknown = 0,
    /// While they are in use.
    Online = 1,
}

/// Whether the driver is ready.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Ready {
    /// Whether it is; a wrapped value, as a missing one would mean yes.
    #[prost(message, optional, tag = "1")]
    pub(crate) ready: Option<bool>,
}
