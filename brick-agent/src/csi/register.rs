//! Tells kubelet of the driver: the service `pluginregistration.Registration`, on a socket in the folder that kubelet watches.
//!
//! That is all that a separate registrar would do beside the driver. The endpoint is the path of the driver's own socket, which must
//! be the same to kubelet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::DRIVER;
use super::server::{Reply, Request, Service, not_offered, unary};
use super::types::{Nothing, Registrant, RegistrationStatus};

/// What kubelet calls a CSI driver.
const KIND: &str = "CSIPlugin";
/// The version of CSI.
const VERSION: &str = "1.0.0";

/// The socket in the folder that kubelet watches.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join(format!("{DRIVER}-reg.sock"))
}

/// The service.
#[derive(Debug)]
pub struct Registration {
    /// The driver's own socket.
    pub endpoint: PathBuf,
}

impl Service for Registration {
    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Reply> {
        async move {
            match request.uri().path() {
                "/pluginregistration.Registration/GetInfo" => {
                    unary(request, |_: Nothing| async { Ok(self.info()) }).await
                }
                "/pluginregistration.Registration/NotifyRegistrationStatus" => {
                    unary(request, |status: RegistrationStatus| async move {
                        notified(&status);
                        Ok(Nothing {})
                    })
                    .await
                }
                _ => not_offered(&request),
            }
        }
        .boxed()
    }
}

impl Registration {
    fn info(&self) -> Registrant {
        Registrant {
            r#type: KIND.to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec![VERSION.to_owned()],
        }
    }
}

/// Kubelet tries again by itself.
fn notified(status: &RegistrationStatus) {
    if status.plugin_registered {
        tracing::info!("kubelet has registered the CSI driver");
    } else {
        tracing::warn!("kubelet does not take the CSI driver, pods cannot use claims here: {}", status.error);
    }
}
