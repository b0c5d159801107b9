//! Fourth step: makes what is missing. What exists is left alone: a brick's identity is given once. Of a volume that is deleted, and its
//! files with it, deletes the bricks, and lets it go when they are gone.

use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use nearbrick_crds::meta::{FINALIZER_BRICKS, OPERATOR_MANAGER};
use nearbrick_crds::{Brick, Workstation, WorkstationVolume};

use super::build::Built;
use super::validate::Valid;
use crate::brick::deletes;
use crate::context::Context;
use crate::error::{Error, is_conflict, is_not_found};
use crate::finalizer;

/// Makes it.
pub async fn apply(context: &Context, built: &Built) -> Result<(), Error> {
    let Built { workstations, bricks, placement: _, used_on: _, again_in: _, summary: _ } = built;
    let params = PostParams { field_manager: Some(OPERATOR_MANAGER.to_string()), ..PostParams::default() };
    let api: Api<Workstation> = Api::all(context.client.clone());
    for workstation in workstations {
        match api.create(&params, workstation).await {
            Ok(_) => tracing::info!("made Workstation {}", workstation.name_any()),
            // The store is a moment behind: it is there.
            Err(error) if is_conflict(&error) => {}
            Err(error) => {
                return Err(Error::api(format!("make Workstation {}", workstation.name_any()))(error));
            }
        }
    }
    for brick in bricks {
        let namespace = brick.namespace().unwrap_or_default();
        let api: Api<Brick> = Api::namespaced(context.client.clone(), &namespace);
        match api.create(&params, brick).await {
            Ok(_) => tracing::info!("made Brick {namespace}/{}", brick.name_any()),
            Err(error) if is_conflict(&error) => {}
            Err(error) => {
                return Err(Error::api(format!("make Brick {namespace}/{}", brick.name_any()))(error));
            }
        }
    }
    Ok(())
}

/// Keeps the volume's object until the bricks' files are deleted, where its policy asks for that. Says whether it may go now.
pub async fn finalize(context: &Context, volume: &WorkstationVolume, valid: &Valid) -> Result<bool, Error> {
    let api: Api<WorkstationVolume> = Api::namespaced(context.client.clone(), &valid.namespace);
    if !valid.terminating {
        if deletes(volume) {
            finalizer::add(&api, volume, FINALIZER_BRICKS).await?;
        } else {
            finalizer::remove(&api, volume, FINALIZER_BRICKS).await?;
        }
        return Ok(false);
    }
    if deletes(volume) && volume.finalizers().iter().any(|f| f == FINALIZER_BRICKS) {
        let bricks: Api<Brick> = Api::namespaced(context.client.clone(), &valid.namespace);
        let left = valid.world.bricks.values().map(|entry| &entry.brick);
        for brick in left.clone().filter(|b| b.metadata.deletion_timestamp.is_none()) {
            let name = brick.name_any();
            let as_seen = Preconditions { uid: brick.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(as_seen), ..DeleteParams::default() };
            match bricks.delete(&name, &params).await {
                Ok(_) => tracing::info!("deleted Brick {}/{name}, as its volume is", valid.namespace),
                Err(error) if is_not_found(&error) || is_conflict(&error) => {}
                Err(error) => return Err(Error::api(format!("delete Brick {name}"))(error)),
            }
        }
        if left.count() > 0 {
            return Ok(false);
        }
    }
    if finalizer::remove(&api, volume, FINALIZER_BRICKS).await? {
        tracing::info!("let WorkstationVolume {}/{} go", valid.namespace, valid.name);
    }
    Ok(true)
}
