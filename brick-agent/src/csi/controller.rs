//! `csi.v1.Controller`: makes a `WorkstationVolume` for a claim, deletes it, lets it grow, says how it is.
//!
//! State is in the API alone. Whatever is asked a second time, after a crash or a lost answer, ends as it did the first time: the object's
//! name follows from the name that CSI gives, and its annotations say what was asked for.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use nearbrick_crds::{VolumeHealth, WorkstationVolume, condition};
use serde_json::json;
use tokio::time::Instant;
use tonic::Status;

use crate::control::api::one_line;
use crate::control::convert::VolumeKey;

use super::parameters::{self, Capacity, NAME};
use super::server::{Reply, Request, Service, not_offered, unary};
use super::types::{
    Confirmed, ControllerCan, ControllerCapabilities, ControllerCapability, ControllerExpandVolumeRequest,
    ControllerExpandVolumeResponse, ControllerRpc, CreateVolumeRequest, CreateVolumeResponse,
    ListVolumesRequest, ListVolumesResponse, Nothing, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse, VolumeCapability, VolumeCondition, VolumeEntry, VolumeId,
    VolumeStatus,
};
use super::{capability, id, identity};

/// How long one request to the API server may take.
const REQUEST: Duration = Duration::from_secs(10);
/// How long an object may take to go; then it is asked for again later.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks whether it has gone.
const LOOK: Duration = Duration::from_millis(200);
/// Who writes.
const MANAGER: &str = "nearbrick-csi";

/// The service.
#[derive(Clone)]
pub struct ControllerService {
    client: Client,
}

impl std::fmt::Debug for ControllerService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ControllerService")
    }
}

impl Service for ControllerService {
    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Reply> {
        async move {
            match request.uri().path() {
                "/csi.v1.Controller/CreateVolume" => unary(request, |asked| self.create(asked)).await,
                "/csi.v1.Controller/DeleteVolume" => unary(request, |asked| self.delete(asked)).await,
                "/csi.v1.Controller/ValidateVolumeCapabilities" => {
                    unary(request, |asked| self.validate(asked)).await
                }
                "/csi.v1.Controller/ListVolumes" => unary(request, |asked| self.list(asked)).await,
                "/csi.v1.Controller/ControllerGetVolume" => unary(request, |asked| self.look(asked)).await,
                "/csi.v1.Controller/ControllerExpandVolume" => {
                    unary(request, |asked| self.expand(asked)).await
                }
                "/csi.v1.Controller/ControllerGetCapabilities" => {
                    unary(request, |_: Nothing| async { Ok(capabilities()) }).await
                }
                path if path.starts_with("/csi.v1.Identity/") => identity::answer(request).await,
                _ => not_offered(&request),
            }
        }
        .boxed()
    }
}

impl ControllerService {
    /// With the rights of this client.
    pub fn new(client: Client) -> Self {
        ControllerService { client }
    }

    fn api(&self, namespace: &str) -> Api<WorkstationVolume> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn create(&self, asked: CreateVolumeRequest) -> Result<CreateVolumeResponse, Status> {
        if asked.name.is_empty() {
            return Err(Status::invalid_argument("no name is given"));
        }
        check_all(&asked.volume_capabilities)?.map_err(Status::invalid_argument)?;
        if asked.volume_content_source.is_some() {
            return Err(Status::invalid_argument(
                "snapshots and clones are not offered: leave dataSource out of the claim",
            ));
        }
        if !asked.mutable_parameters.is_empty() {
            return Err(Status::invalid_argument(
                "a VolumeAttributesClass is not offered: change the WorkstationVolume itself",
            ));
        }
        let wanted = parameters::wanted(&asked).map_err(Status::invalid_argument)?;
        let requisite = asked.accessibility_requirements.unwrap_or_default().requisite;
        if !parameters::is_reachable(&wanted.object.spec, &requisite) {
            return Err(Status::resource_exhausted(
                "none of the nodes from which the volume is to be used is in the parameter nodes of its StorageClass: add one there, or \
                 leave it out of allowedTopologies",
            ));
        }
        let key = key(&wanted.object);
        let api = self.api(&key.namespace);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let made = match within(api.create(&params, &wanted.object)).await {
            Ok(made) => {
                tracing::info!(volume = %key, "made for a claim");
                made
            }
            Err(Failed::Api(status)) if status.is_already_exists() => {
                let there = within(api.get(&key.volume)).await.map_err(|e| said(&key, &e))?;
                if there.metadata.deletion_timestamp.is_some() {
                    return Err(Status::aborted(format!(
                        "volume {key} is still being deleted: {}",
                        condition_of(&there).message
                    )));
                }
                if let Some(why) = parameters::differs(&there, &wanted) {
                    return Err(Status::already_exists(format!("there is a volume {key}: {why}")));
                }
                there
            }
            Err(Failed::Api(status)) if status.is_not_found() => {
                return Err(Status::failed_precondition(format!(
                    "volume {key} cannot be made: {}: does the namespace exist, and are the definitions installed?",
                    one_line(&status.message)
                )));
            }
            Err(error) => return Err(said(&key, &error)),
        };
        Ok(CreateVolumeResponse { volume: Some(parameters::volume(&made)) })
    }

    /// Returns when the object has gone: before that a claim of the same name could not be served, and people would not see what holds
    /// it back.
    async fn delete(&self, asked: VolumeId) -> Result<Nothing, Status> {
        // What is no id was never made.
        let Some(key) = id::parse(given_id(&asked.volume_id)?) else { return Ok(Nothing {}) };
        let api = self.api(&key.namespace);
        let Some(there) = within(api.get_opt(&key.volume)).await.map_err(|e| said(&key, &e))? else {
            return Ok(Nothing {});
        };
        if !there.annotations().contains_key(NAME) {
            return Err(Status::failed_precondition(format!(
                "volume {key} was not made for a claim, and is not deleted with one: set the PersistentVolume's reclaim policy to Retain, \
                 or delete the WorkstationVolume yourself"
            )));
        }
        if there.metadata.deletion_timestamp.is_none() {
            let preconditions = Preconditions { uid: there.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match within(api.delete(&key.volume, &params)).await {
                Ok(_) => tracing::info!(volume = %key, "deleted with its claim"),
                Err(Failed::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(said(&key, &error)),
            }
        }
        let end = Instant::now() + GONE_WITHIN;
        loop {
            let now = within(api.get_opt(&key.volume)).await.map_err(|e| said(&key, &e))?;
            match now {
                Some(now) if now.uid() == there.uid() => {
                    if Instant::now() >= end {
                        return Err(Status::aborted(format!(
                            "volume {key} is being deleted: {}",
                            condition_of(&now).message
                        )));
                    }
                    tokio::time::sleep(LOOK).await;
                }
                _ => return Ok(Nothing {}),
            }
        }
    }

    async fn validate(
        &self,
        asked: ValidateVolumeCapabilitiesRequest,
    ) -> Result<ValidateVolumeCapabilitiesResponse, Status> {
        given_id(&asked.volume_id)?;
        let checked = check_all(&asked.volume_capabilities)?;
        let volume = self.volume(&asked.volume_id).await?;
        let message = match checked {
            Err(why) => why,
            Ok(()) if !asked.parameters.is_empty() && !parameters::made_with(&volume, &asked.parameters) => {
                "the volume was made with other parameters".to_owned()
            }
            Ok(()) => {
                let confirmed = Confirmed {
                    volume_context: asked.volume_context,
                    volume_capabilities: asked.volume_capabilities,
                    parameters: asked.parameters,
                };
                return Ok(ValidateVolumeCapabilitiesResponse {
                    confirmed: Some(confirmed),
                    message: String::new(),
                });
            }
        };
        Ok(ValidateVolumeCapabilitiesResponse { confirmed: None, message })
    }

    /// All volumes, also those that a person made: a PersistentVolume may name any. A page ends with the id of its last one, so that it
    /// does not matter what comes and goes between two.
    async fn list(&self, asked: ListVolumesRequest) -> Result<ListVolumesResponse, Status> {
        let Ok(most) = usize::try_from(asked.max_entries) else {
            return Err(Status::invalid_argument(format!(
                "max_entries is {}: give a number of volumes",
                asked.max_entries
            )));
        };
        let from = match asked.starting_token.as_str() {
            "" => Bound::Unbounded,
            token => Bound::Excluded(id::parse(token).ok_or_else(|| {
                Status::aborted(format!(
                    "starting_token {token:?} is not one that this driver gives: begin at the first page"
                ))
            })?),
        };
        let api: Api<WorkstationVolume> = Api::all(self.client.clone());
        let all = within(api.list(&ListParams::default()))
            .await
            .map_err(|e| Status::unavailable(format!("volumes cannot be listed: {}", e.line())))?;
        Ok(page(&all.items, from, most))
    }

    async fn look(&self, asked: VolumeId) -> Result<VolumeEntry, Status> {
        Ok(entry(&self.volume(given_id(&asked.volume_id)?).await?))
    }

    async fn expand(
        &self,
        asked: ControllerExpandVolumeRequest,
    ) -> Result<ControllerExpandVolumeResponse, Status> {
        given_id(&asked.volume_id)?;
        let range =
            asked.capacity_range.ok_or_else(|| Status::invalid_argument("no capacity_range is given"))?;
        let range = Capacity::of(Some(range)).map_err(Status::out_of_range)?;
        let wanted = range.size().ok_or_else(|| Status::invalid_argument("capacity_range has no size"))?;
        let volume = self.volume(&asked.volume_id).await?;
        let key = key(&volume);
        let size = match parameters::size(&volume.spec) {
            // Not bounded: there is room for what is asked for, and nothing to change.
            None => wanted,
            Some(now) if range.fits(Some(now)) => now,
            Some(now) if now > wanted => {
                return Err(Status::out_of_range(format!(
                    "volume {key} has a capacity of {now} bytes: it is not made smaller"
                )));
            }
            Some(_) => {
                let patch = Patch::Merge(json!({ "spec": { "capacity": parameters::shown(wanted) } }));
                let params =
                    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                let api = self.api(&key.namespace);
                within(api.patch(&key.volume, &params, &patch)).await.map_err(|e| said(&key, &e))?;
                tracing::info!(volume = %key, capacity = parameters::shown(wanted), "grown with its claim");
                wanted
            }
        };
        let capacity_bytes = i64::try_from(size).unwrap_or(i64::MAX);
        Ok(ControllerExpandVolumeResponse { capacity_bytes, node_expansion_required: false })
    }

    async fn volume(&self, id: &str) -> Result<WorkstationVolume, Status> {
        let none = || Status::not_found(format!("there is no volume {id:?}"));
        let key = id::parse(id).ok_or_else(none)?;
        within(self.api(&key.namespace).get_opt(&key.volume))
            .await
            .map_err(|e| said(&key, &e))?
            .ok_or_else(none)
    }
}

/// The next `most` volumes (0: all) in the order of their ids.
fn page(all: &[WorkstationVolume], from: Bound<VolumeKey>, most: usize) -> ListVolumesResponse {
    let all: BTreeMap<VolumeKey, &WorkstationVolume> = all.iter().map(|v| (key(v), v)).collect();
    let mut rest = all.range((from, Bound::Unbounded));
    let most = if most == 0 { usize::MAX } else { most };
    let page: Vec<_> = rest.by_ref().take(most).collect();
    let next_token = match (rest.next(), page.last()) {
        (Some(_), Some((last, _))) => last.to_string(),
        _ => String::new(),
    };
    ListVolumesResponse { entries: page.into_iter().map(|(_, volume)| entry(volume)).collect(), next_token }
}

fn key(volume: &WorkstationVolume) -> VolumeKey {
    VolumeKey { namespace: volume.namespace().unwrap_or_default(), volume: volume.name_any() }
}

fn given_id(id: &str) -> Result<&str, Status> {
    if id.is_empty() { Err(Status::invalid_argument("no volume_id is given")) } else { Ok(id) }
}

/// Whether all of these uses are offered; that none is given is an error of who asks.
fn check_all(capabilities: &[VolumeCapability]) -> Result<Result<(), String>, Status> {
    if capabilities.is_empty() {
        return Err(Status::invalid_argument("no volume_capabilities are given"));
    }
    Ok(capabilities.iter().try_for_each(|c| capability::check(c).map(drop)))
}

fn capabilities() -> ControllerCapabilities {
    let one = |can: ControllerCan| ControllerCapability { rpc: Some(ControllerRpc { r#type: can.into() }) };
    let all = [
        ControllerCan::CreateDeleteVolume,
        ControllerCan::ListVolumes,
        ControllerCan::ExpandVolume,
        ControllerCan::VolumeCondition,
        ControllerCan::GetVolume,
    ];
    ControllerCapabilities { capabilities: all.into_iter().map(one).collect() }
}

fn entry(volume: &WorkstationVolume) -> VolumeEntry {
    let status = VolumeStatus { volume_condition: Some(condition_of(volume)) };
    VolumeEntry { volume: Some(parameters::volume(volume)), status: Some(status) }
}

/// What the operator says of the volume. Copies that are still to be made are its normal work.
fn condition_of(volume: &WorkstationVolume) -> VolumeCondition {
    let status = volume.status.as_ref();
    let Some(ready) = status.and_then(|s| condition::find(&s.conditions, condition::READY)) else {
        return VolumeCondition {
            abnormal: false,
            message: "the operator has not looked at it yet".to_owned(),
        };
    };
    let health = status.and_then(|s| s.health);
    let health_is_bad = matches!(health, Some(VolumeHealth::Degraded | VolumeHealth::Unknown));
    let message = match (ready.message.as_str(), health) {
        ("", _) => ready.reason.clone(),
        (message, Some(health)) if health_is_bad => format!("{message} ({health:?})"),
        (message, _) => message.to_owned(),
    };
    VolumeCondition { abnormal: ready.status != "True" || health_is_bad, message }
}

/// Why the API server did not do it.
enum Failed {
    Api(Box<kube::core::Status>),
    Other(String),
}

impl Failed {
    fn line(&self) -> String {
        match self {
            Failed::Api(status) => one_line(&status.message),
            Failed::Other(line) => line.clone(),
        }
    }
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(kube::Error::Api(status))) => Err(Failed::Api(status)),
        Ok(Err(error)) => Err(Failed::Other(one_line(&error.to_string()))),
        Err(_) => {
            Err(Failed::Other(format!("the API server does not answer within {} s", REQUEST.as_secs())))
        }
    }
}

fn said(key: &VolumeKey, failed: &Failed) -> Status {
    let line = format!("volume {key}: {}", failed.line());
    match failed {
        Failed::Api(status) => match status.code {
            400 | 422 => Status::invalid_argument(line),
            401 | 403 => Status::permission_denied(line),
            404 => Status::not_found(line),
            409 => Status::aborted(line),
            _ => Status::unavailable(line),
        },
        Failed::Other(_) => Status::unavailable(line),
    }
}

#[cfg(test)]
#[path = "controller/tests.rs"]
mod tests;
