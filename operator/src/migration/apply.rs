//! Makes the moves that the use of files calls for, and deletes those that nothing calls for any more.

use jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use nearbrick_crds::meta::{LABEL_VOLUME, OPERATOR_MANAGER};
use nearbrick_crds::{LocalRef, MigrationMode, ReplicaMigration, ReplicaMigrationSpec, WorkstationVolume};

use crate::context::Context;
use crate::error::{Error, is_conflict, is_not_found};
use crate::plan::migrate::Todo;
use crate::volume::Valid;

/// Carries it out.
pub async fn apply(
    context: &Context,
    volume: &WorkstationVolume,
    valid: &Valid,
    todo: &Todo,
    mode: MigrationMode,
) -> Result<(), Error> {
    let api: Api<ReplicaMigration> = Api::namespaced(context.client.clone(), &valid.namespace);
    for name in &todo.remove {
        let Some(object) = valid.world.migrations.iter().find(|m| m.name_any() == *name) else { continue };
        // Not what a person has changed in the meantime.
        let as_seen = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
        let params = DeleteParams { preconditions: Some(as_seen), ..DeleteParams::default() };
        match api.delete(name, &params).await {
            Ok(_) => tracing::info!("deleted ReplicaMigration {}/{name}", valid.namespace),
            Err(error) if is_not_found(&error) || is_conflict(&error) => {}
            Err(error) => return Err(Error::api(format!("delete ReplicaMigration {name}"))(error)),
        }
    }
    if todo.make.is_empty() {
        return Ok(());
    }
    // The store may be a moment behind: what this operator, or the one before it, has just made counts.
    let only = ListParams::default().labels(&format!("{LABEL_VOLUME}={}", valid.name));
    let what = format!("list the migrations of {}", valid.name);
    let known = api.list(&only).await.map_err(Error::api(what))?;
    let params = PostParams { field_manager: Some(OPERATOR_MANAGER.to_string()), ..PostParams::default() };
    for wanted in &todo.make {
        let paths = wanted.group.globs();
        let is_unseen = |m: &ReplicaMigration| {
            !valid.world.migrations.iter().any(|seen| seen.uid() == m.uid()) && m.spec.paths == paths
        };
        if known.iter().any(is_unseen) {
            continue;
        }
        let spec = ReplicaMigrationSpec {
            volume_ref: LocalRef::new(&valid.name),
            paths,
            to: wanted.to.clone(),
            from: None,
            dry_run: mode == MigrationMode::Propose,
        };
        let time = Timestamp::now().strftime("%Y%m%d-%H%M%S");
        let mut object =
            ReplicaMigration::new(&format!("{}-{time}-{:04x}", valid.name, rand::random::<u16>()), spec);
        object.metadata.namespace = Some(valid.namespace.clone());
        object.metadata.owner_references = volume.controller_owner_ref(&()).map(|owner| vec![owner]);
        object.metadata.labels = Some([(LABEL_VOLUME.to_string(), valid.name.clone())].into());
        let name = object.name_any();
        api.create(&params, &object).await.map_err(Error::api(format!("make ReplicaMigration {name}")))?;
        tracing::info!("made ReplicaMigration {}/{name}: {}", valid.namespace, wanted.evidence);
    }
    Ok(())
}
