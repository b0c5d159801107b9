//! `csi.v1.Identity`: who the driver is, and what it can do as a whole. The same on every node and in the controller.

use tonic::Status;

use super::DRIVER;
use super::server::{Reply, Request, not_offered, unary};
use super::types::{
    Expansion, Nothing, PluginCapabilities, PluginCapability, PluginInfo, PluginService, Ready,
    ServiceCapability, VolumeExpansion,
};

/// Answers calls of this service.
pub(super) async fn answer(request: Request) -> Reply {
    match request.uri().path() {
        "/csi.v1.Identity/GetPluginInfo" => unary(request, |_: Nothing| async { Ok(info()) }).await,
        "/csi.v1.Identity/GetPluginCapabilities" => {
            unary(request, |_: Nothing| async { Ok(capabilities()) }).await
        }
        "/csi.v1.Identity/Probe" => {
            unary(request, |_: Nothing| async { Ok::<_, Status>(Ready { ready: Some(true) }) }).await
        }
        _ => not_offered(&request),
    }
}

fn info() -> PluginInfo {
    PluginInfo { name: DRIVER.to_owned(), vendor_version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn capabilities() -> PluginCapabilities {
    let service = |service: PluginService| PluginCapability {
        service: Some(ServiceCapability { r#type: service.into() }),
        volume_expansion: None,
    };
    let grows = VolumeExpansion { r#type: Expansion::Online.into() };
    PluginCapabilities {
        capabilities: vec![
            service(PluginService::Controller),
            service(PluginService::AccessibilityConstraints),
            PluginCapability { service: None, volume_expansion: Some(grows) },
        ],
    }
}
