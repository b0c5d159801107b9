//! Makes the objects that are missing, and deletes those whose conflict is over.

use std::sync::Arc;

use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use nearbrick_crds::meta::{LABEL_VOLUME, OPERATOR_MANAGER};
use nearbrick_crds::{FileConflict, FileConflictSpec, LocalRef, WorkstationVolume};

use crate::context::Context;
use crate::error::{Error, is_conflict, is_not_found};
use crate::plan::conflict::Todo;

/// Carries it out.
pub async fn apply(
    context: &Context,
    volume: &WorkstationVolume,
    objects: &[Arc<FileConflict>],
    todo: &Todo,
) -> Result<(), Error> {
    let namespace = volume.namespace().unwrap_or_default();
    let api: Api<FileConflict> = Api::namespaced(context.client.clone(), &namespace);
    let params = PostParams { field_manager: Some(OPERATOR_MANAGER.to_string()), ..PostParams::default() };
    for (name, path) in &todo.make {
        let spec = FileConflictSpec {
            volume_ref: LocalRef::new(volume.name_any()),
            path: path.clone(),
            resolution: None,
        };
        let mut object = FileConflict::new(name, spec);
        object.metadata.namespace = Some(namespace.clone());
        object.metadata.owner_references = volume.controller_owner_ref(&()).map(|owner| vec![owner]);
        object.metadata.labels = Some([(LABEL_VOLUME.to_string(), volume.name_any())].into());
        match api.create(&params, &object).await {
            Ok(_) => tracing::info!("made FileConflict {namespace}/{name}"),
            // The store is a moment behind: it is there.
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(Error::api(format!("make FileConflict {name}"))(error)),
        }
    }
    for name in &todo.remove {
        let Some(object) = objects.iter().find(|o| o.name_any() == *name) else { continue };
        // Not what a person has changed in the meantime.
        let as_seen = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
        let params = DeleteParams { preconditions: Some(as_seen), ..DeleteParams::default() };
        match api.delete(name, &params).await {
            Ok(_) => tracing::info!("deleted FileConflict {namespace}/{name}: it is over"),
            Err(error) if is_not_found(&error) || is_conflict(&error) => {}
            Err(error) => return Err(Error::api(format!("delete FileConflict {name}"))(error)),
        }
    }
    Ok(())
}
