//! Why a brick that is being deleted is still there.

use kube::ResourceExt;
use kube::api::Api;
use nearbrick_crds::condition::{self, Finding};
use nearbrick_crds::meta::now;
use nearbrick_crds::{Brick, BrickStatus};

use crate::context::Context;
use crate::error::Error;
use crate::patch::{Owned, apply_status};

/// Of a manager of its own: what the operator says while an agent is silent is another's.
const OWNED: Owned =
    Owned { manager: "nearbrick-operator-release", fields: &[], conditions: &[condition::RELEASED] };

/// Writes it, if it says something new.
pub async fn write(
    context: &Context,
    api: &Api<Brick>,
    brick: &Brick,
    finding: &Finding,
) -> Result<(), Error> {
    let before = brick.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let generation = brick.metadata.generation;
    let condition = condition::condition(before, finding, generation, &now());
    let status = BrickStatus { conditions: vec![condition], ..BrickStatus::default() };
    if apply_status(api, brick, &status, &OWNED).await? {
        context.metrics.wrote("brick");
        tracing::info!("Brick {} stays: {}", brick.name_any(), finding.message);
    }
    Ok(())
}
