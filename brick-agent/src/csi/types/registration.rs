//! Messages of `pluginregistration.Registration`, by which kubelet learns of a driver.

/// Who registers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Registrant {
    /// What kind of plugin.
    #[prost(string, tag = "1")]
    pub(crate) r#type: String,
    /// The driver's name.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    /// The driver's own socket, as kubelet sees it.
    #[prost(string, tag = "3")]
    pub(crate) endpoint: String,
    /// Versions of the driver's interface.
    #[prost(string, repeated, tag = "4")]
    pub(crate) supported_versions: Vec<String>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct RegistrationStatus {
    /// It was taken.
    #[prost(bool, tag = "1")]
    pub(crate) plugin_registered: bool,
    /// Why it was not.
    #[prost(string, tag = "2")]
    pub(crate) error: String,
}
