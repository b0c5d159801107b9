//! Volumes as the API shows them: make them, wait for them, read what is pending.

use std::time::Duration;

use futures::future::try_join_all;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use nearbrick_crds::condition::find;
use nearbrick_crds::meta::brick_name;
use nearbrick_crds::{Brick, BrickState, HealJob, HealPolicy, JobPhase, Pending, WorkstationVolume};
use serde_json::json;

use crate::error::{Context, Result};
use crate::kube_api::{self, MANAGER, eventually, wait_for};
use crate::paths;

/// A volume of a lab.
#[derive(Clone)]
pub struct Volume {
    client: Client,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Volume {
    /// The volume of this name.
    pub fn new(client: &Client, namespace: &str, name: &str) -> Self {
        Self { client: client.clone(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Applies the policies and the volume `default/home`, as a manifest of this crate describes it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn apply_home(client: &Client, manifest: &str) -> Result<Self> {
        kube_api::apply_file(client, &paths::in_crate("manifests/policies.yaml")).await?;
        kube_api::apply_file(client, &paths::in_crate("manifests").join(manifest)).await?;
        Ok(Self::new(client, "default", "home"))
    }

    fn volumes(&self) -> Api<WorkstationVolume> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn bricks(&self) -> Api<Brick> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Where it is mounted on a workstation.
    pub fn mount(&self) -> String {
        format!("{}/{}/{}", crate::workstation::VOLUMES, self.namespace, self.name)
    }

    /// Where its brick is on a workstation.
    pub fn brick_dir(&self) -> String {
        format!("{}/{}/{}", crate::workstation::BRICKS, self.namespace, self.name)
    }

    /// The volume as it is now.
    ///
    /// # Errors
    /// It is not there.
    pub async fn get(&self) -> Result<WorkstationVolume> {
        self.volumes().get(&self.name).await.context(format!("volume {}", self.name))
    }

    /// The brick of a node as it is now.
    ///
    /// # Errors
    /// It is not there.
    pub async fn brick(&self, node: &str) -> Result<Brick> {
        let name = brick_name(&self.name, node);
        self.bricks().get(&name).await.context(format!("brick {name}"))
    }

    /// Waits until the bricks of these nodes are in use and the operator has said where files go.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn wait_ready(&self, nodes: &[&str], limit: Duration) -> Result<()> {
        wait_for(&self.volumes(), &self.name, "a placement for each member", limit, |v| {
            let status = v.status.as_ref();
            status.is_some_and(|s| nodes.iter().all(|n| s.placement.iter().any(|p| p.creator == **n)))
        })
        .await?;
        try_join_all(nodes.iter().map(|node| self.wait_brick_ready(node, limit))).await?;
        Ok(())
    }

    /// Waits until a brick is in use.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn wait_brick_ready(&self, node: &str, limit: Duration) -> Result<Brick> {
        wait_for(&self.bricks(), &brick_name(&self.name, node), "Ready", limit, |b| {
            b.status.as_ref().and_then(|s| s.state) == Some(BrickState::Ready)
        })
        .await
    }

    /// Waits until a brick satisfies a condition.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn wait_brick(
        &self,
        node: &str,
        what: &str,
        limit: Duration,
        ready: impl FnMut(&Brick) -> bool,
    ) -> Result<Brick> {
        wait_for(&self.bricks(), &brick_name(&self.name, node), what, limit, ready).await
    }

    /// Waits until the volume satisfies a condition.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn wait(
        &self,
        what: &str,
        limit: Duration,
        ready: impl FnMut(&WorkstationVolume) -> bool,
    ) -> Result<WorkstationVolume> {
        wait_for(&self.volumes(), &self.name, what, limit, ready).await
    }

    /// Waits until these conditions are True, of the spec as it is now.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn wait_true(&self, types: &[&str], limit: Duration) -> Result<WorkstationVolume> {
        self.wait(&format!("{} True", types.join(", ")), limit, |v| {
            let conditions = v.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
            types.iter().all(|type_| {
                find(conditions, type_)
                    .is_some_and(|c| c.status == "True" && c.observed_generation == v.metadata.generation)
            })
        })
        .await
    }

    /// Changes its spec.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn patch_spec(&self, spec: serde_json::Value) -> Result<()> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
        let patch = Patch::Merge(json!({ "spec": spec }));
        let done = self.volumes().patch(&self.name, &params, &patch).await;
        done.map(|_| ()).context(format!("cannot change the volume {}", self.name))
    }

    /// Waits until nothing is pending: not on the volume, and not on the bricks of these nodes.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn wait_healed(&self, nodes: &[&str], limit: Duration) -> Result<()> {
        eventually("nothing pending", limit, || async {
            let volume = self.get().await.map_err(|e| e.to_string())?;
            let pending = volume.status.and_then(|s| s.pending);
            none(pending.as_ref()).map_err(|e| format!("volume: {e}"))?;
            for node in nodes {
                let status = self.brick(node).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
                none(status.pending.as_ref()).map_err(|e| format!("out of {node}: {e}"))?;
                none(status.pending_in.as_ref()).map_err(|e| format!("into {node}: {e}"))?;
            }
            Ok(())
        })
        .await
    }

    /// Asks for a heal at once.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn trigger(&self, value: &str) -> Result<()> {
        self.patch_spec(json!({ "trigger": value })).await
    }

    /// Changes the policy of a scene.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn patch_policy(&self, spec: serde_json::Value) -> Result<()> {
        let api: Api<HealPolicy> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
        let done = api.patch("policy", &params, &Patch::Merge(json!({ "spec": spec }))).await;
        done.map(|_| ()).context("cannot change the policy")
    }

    /// Deletes a heal job.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn delete_job(&self, job: &HealJob) -> Result<()> {
        let name = job.metadata.name.clone().unwrap_or_default();
        let api: Api<HealJob> = Api::namespaced(self.client.clone(), &self.namespace);
        api.delete(&name, &Default::default()).await.map(|_| ()).context(format!("cannot delete {name}"))
    }

    /// The volume's heal jobs.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn jobs(&self) -> Result<Vec<HealJob>> {
        let api: Api<HealJob> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut jobs = api.list(&Default::default()).await.context("cannot list heal jobs")?.items;
        jobs.retain(|job| job.spec.volume_ref.name == self.name);
        jobs.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
        Ok(jobs)
    }

    /// Waits until a job satisfies a condition.
    ///
    /// # Errors
    /// None does within `limit`.
    pub async fn wait_job(
        &self,
        what: &str,
        limit: Duration,
        ready: impl Fn(&HealJob) -> bool,
    ) -> Result<HealJob> {
        eventually(what, limit, || async {
            let jobs = self.jobs().await.map_err(|e| e.to_string())?;
            let seen: Vec<String> = jobs.iter().map(describe_job).collect();
            let found = jobs.into_iter().find(|job| ready(job));
            found.ok_or_else(|| format!("heal jobs: [{}]", seen.join(", ")))
        })
        .await
    }
}

/// Whether a job has ended.
pub fn has_ended(job: &HealJob) -> bool {
    let phase = job.status.as_ref().and_then(|s| s.phase);
    matches!(phase, Some(JobPhase::Completed | JobPhase::Failed))
}

fn describe_job(job: &HealJob) -> String {
    let phase = job.status.as_ref().and_then(|s| s.phase);
    format!("{} {:?}", job.metadata.name.as_deref().unwrap_or_default(), phase)
}

fn none(pending: Option<&Pending>) -> std::result::Result<(), String> {
    match pending {
        Some(pending) if pending.is_empty() => Ok(()),
        Some(pending) => Err(format!("{} files pending", pending.files)),
        None => Err("nothing reported".to_owned()),
    }
}
