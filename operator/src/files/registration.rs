//! The API server is told whom to trust when it passes requests on: `caBundle` of the APIService. The chart makes that object; without it
//! there is nothing to tell.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use nearbrick_crds::files::{GROUP, VERSION};
use serde_json::json;

use super::identity::{Identity, Material};

/// Between two looks: somebody may have made the object anew.
const LOOK: Duration = Duration::from_secs(30);
/// Between two tries.
const SOON: Duration = Duration::from_secs(2);

/// Keeps it right.
pub async fn keep(client: Client, identity: &Identity) {
    let api: Api<APIService> = Api::all(client);
    let mut changes = identity.subscribe();
    let mut said = String::new();
    loop {
        let material = changes.borrow_and_update().clone();
        let rest = match material {
            None => LOOK,
            Some(material) => match tell(&api, &material).await {
                Ok(()) => {
                    said.clear();
                    LOOK
                }
                Err(why) => {
                    if why != said {
                        tracing::warn!("the files API is not registered: {why}; tries again");
                        said = why;
                    }
                    SOON
                }
            },
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(rest) => {}
        }
    }
}

async fn tell(api: &Api<APIService>, material: &Arc<Material>) -> Result<(), String> {
    let name = format!("{VERSION}.{GROUP}");
    let known = api.get_opt(&name).await.map_err(|e| format!("APIService {name}: {e}"))?;
    let known = known.ok_or_else(|| format!("there is no APIService {name}: the chart makes it"))?;
    let wanted = ByteString(material.trusted.clone().into_bytes());
    if known.spec.and_then(|spec| spec.ca_bundle).as_ref() == Some(&wanted) {
        return Ok(());
    }
    let patch = json!({ "spec": { "caBundle": wanted } });
    let done = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    done.map(drop).map_err(|e| format!("APIService {name}: {e}"))?;
    tracing::info!("told the API server what to trust for the files API");
    Ok(())
}
