//! The controller of bricks that are being deleted: they stay until nothing has to be held there any more, and, where the volume asks for
//! it, until their files are deleted.

mod status;

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use nearbrick_crds::meta::{ANNOTATION_EMPTY, FINALIZER_COPIES};
use nearbrick_crds::{Brick, BrickState, DeletionPolicy, WorkstationVolume};
use serde_json::json;

use crate::agent::Agent;
use crate::context::Context;
use crate::error::{Error, is_conflict, is_not_found};
use crate::finalizer;
use crate::plan::evict;
use crate::plan::release::{Ending, Step, VolumeIs, step};
use crate::stores::volume_ref;
use kube::runtime::reflector::ObjectRef;

/// One that stays is looked at again after this time.
const AGAIN: Duration = Duration::from_secs(30);

/// Gives a brick its finalizer; of one that is being deleted, takes the next step.
pub async fn reconcile(brick: Arc<Brick>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = brick.namespace().unwrap_or_default();
    let api: Api<Brick> = Api::namespaced(context.client.clone(), &namespace);
    if brick.metadata.deletion_timestamp.is_none() {
        finalizer::add(&api, &*brick, FINALIZER_COPIES).await?;
        return Ok(Action::await_change());
    }
    if !brick.finalizers().iter().any(|f| f == FINALIZER_COPIES) {
        return Ok(Action::await_change());
    }
    match step(&ending(&context, &brick)) {
        Step::Wait(finding) => status::write(&context, &api, &brick, &finding).await?,
        Step::Empty(finding) => {
            ask_to_empty(&api, &brick).await?;
            status::write(&context, &api, &brick, &finding).await?;
        }
        Step::Free => {
            if finalizer::remove(&api, &*brick, FINALIZER_COPIES).await? {
                tracing::info!("let Brick {namespace}/{} go", brick.name_any());
            }
        }
    }
    Ok(Action::requeue(AGAIN))
}

/// What is known of it.
fn ending(context: &Context, brick: &Brick) -> Ending {
    let name = brick.name_any();
    let volume = context.stores.volumes.get(&volume_ref(brick.namespace(), &brick.spec.volume_ref.name));
    let volume = volume.filter(|v| v.uid().as_deref() == Some(&brick.spec.volume_uuid));
    let agent = Agent::of(context.stores.workstations.get(&ObjectRef::new(&brick.spec.node)).as_deref());
    let status = brick.status.clone().unwrap_or_default();
    let rules = volume.as_ref().and_then(|v| v.status.as_ref()).map(|s| s.placement.clone());
    Ending {
        delete: volume.as_ref().is_some_and(|v| deletes(v)),
        volume: match &volume {
            None => VolumeIs::Gone,
            Some(v) if v.metadata.deletion_timestamp.is_some() => VolumeIs::Ending,
            Some(_) => VolumeIs::Living,
        },
        // One that is only being opened may be in use before its agent says so.
        was_used: status.incarnation.is_some() || !matches!(status.state, None | Some(BrickState::Refused)),
        online: agent.online,
        lost: agent.lost,
        emptied: status.state == Some(BrickState::Emptied),
        view: evict::View::of(&name, &status, rules.as_deref().unwrap_or_default()),
    }
}

/// Whether the files of a volume go with it.
pub fn deletes(volume: &WorkstationVolume) -> bool {
    volume.spec.deletion_policy == Some(DeletionPolicy::Delete)
}

/// Says at the brick that its directory is to be emptied.
async fn ask_to_empty(api: &Api<Brick>, brick: &Brick) -> Result<(), Error> {
    if brick.annotations().get(ANNOTATION_EMPTY) == Some(&brick.spec.uuid) {
        return Ok(());
    }
    let name = brick.name_any();
    let patch = json!({ "metadata": {
        "resourceVersion": brick.meta().resource_version,
        "annotations": { ANNOTATION_EMPTY: brick.spec.uuid },
    }});
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        // It changed meanwhile: it is looked at again.
        Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(()),
        Err(error) => Err(Error::api(format!("annotate Brick {name}"))(error)),
    }
}
