//! `csi.v1.Node`: shows a volume, which the agent has mounted, to a pod.
//!
//! A pod's mount is a bind mount of the volume's one mount on this node, so pods and people see the same at the same time. There is
//! nothing to stage. The API server is asked only about volumes that the agent does not know: cut off from it, pods start all the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Api;
use nearbrick_crds::WorkstationVolume;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tonic::Status;

use crate::control::api::one_line;
use crate::control::convert::VolumeKey;
use crate::control::facts::{Facts, Phase};

use super::mounts::{self, ShowError};
use super::server::{Reply, Request, Service, not_offered, unary};
use super::types::{
    NodeCan, NodeCapabilities, NodeCapability, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodeInfo, NodePublishVolumeRequest, NodeRpc, NodeUnpublishVolumeRequest, Nothing, Topology,
    VolumeCondition,
};
use super::{TOPOLOGY, capability, id, identity};

/// How long a volume may take to be mounted; kubelet itself waits two minutes, and tries again.
const MOUNTED_WITHIN: Duration = Duration::from_secs(60);
/// How long the kernel may take; whoever serves a mount may be dead.
const KERNEL: Duration = Duration::from_secs(10);
/// How long the API server may take to say whether there is such a volume.
const API: Duration = Duration::from_secs(5);
/// Between two looks, if nothing says that something changed.
const LOOK: Duration = Duration::from_millis(500);
/// Questions to the kernel at a time. Those that never end keep theirs.
const QUESTIONS: usize = 32;

/// The service.
pub struct NodeService {
    node: String,
    mounts_dir: PathBuf,
    facts: Arc<dyn Facts>,
    client: kube::Client,
    questions: Arc<Semaphore>,
}

impl std::fmt::Debug for NodeService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeService").field("node", &self.node).finish_non_exhaustive()
    }
}

/// How far a volume is here, as far as pods ask.
enum Here {
    Mounted,
    /// Not yet, or not now; why.
    Waiting(String),
    /// It is about to go.
    Leaving,
    /// The agent knows of none.
    Unknown,
}

impl Service for NodeService {
    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Reply> {
        async move {
            match request.uri().path() {
                "/csi.v1.Node/NodePublishVolume" => unary(request, |asked| self.publish(asked)).await,
                "/csi.v1.Node/NodeUnpublishVolume" => unary(request, |asked| self.unpublish(asked)).await,
                "/csi.v1.Node/NodeGetVolumeStats" => unary(request, |asked| self.stats(asked)).await,
                "/csi.v1.Node/NodeGetCapabilities" => {
                    unary(request, |_: Nothing| async { Ok(capabilities()) }).await
                }
                "/csi.v1.Node/NodeGetInfo" => unary(request, |_: Nothing| async { Ok(self.info()) }).await,
                path if path.starts_with("/csi.v1.Identity/") => identity::answer(request).await,
                _ => not_offered(&request),
            }
        }
        .boxed()
    }
}

impl NodeService {
    /// Of this node, for what is mounted below `mounts_dir`.
    pub fn new(node: &str, mounts_dir: &Path, facts: Arc<dyn Facts>, client: kube::Client) -> Self {
        let (node, mounts_dir) = (node.to_owned(), mounts_dir.to_owned());
        NodeService { node, mounts_dir, facts, client, questions: Arc::new(Semaphore::new(QUESTIONS)) }
    }

    fn info(&self) -> NodeInfo {
        let segments = [(TOPOLOGY.to_owned(), self.node.clone())].into();
        NodeInfo { node_id: self.node.clone(), accessible_topology: Some(Topology { segments }) }
    }

    async fn publish(&self, asked: NodePublishVolumeRequest) -> Result<Nothing, Status> {
        let target = given_path(&asked.target_path, "target_path", given_id(&asked.volume_id)?)?;
        let Some(wanted) = &asked.volume_capability else {
            return Err(Status::invalid_argument("no volume_capability is given"));
        };
        let wanted = capability::check(wanted).map_err(Status::invalid_argument)?;
        let key = known_id(&asked.volume_id)?;
        self.wait_mounted(&key).await?;
        let (source, read_only) = (key.below(&self.mounts_dir), wanted.read_only || asked.readonly);
        let at = target.clone();
        let shown = self.ask_kernel("mount", move || mounts::show(&source, &at, read_only)).await?;
        shown.map_err(|error| match error {
            ShowError::OtherWay { .. } => Status::already_exists(error.to_string()),
            ShowError::NoSource(_) => {
                Status::unavailable(format!("{error}: volume {key} is not mounted on this node"))
            }
            ShowError::Refused { .. } => Status::internal(error.to_string()),
        })?;
        tracing::info!(volume = %key, at = %target.display(), read_only, "shown to a pod");
        Ok(Nothing {})
    }

    async fn unpublish(&self, asked: NodeUnpublishVolumeRequest) -> Result<Nothing, Status> {
        let id = given_id(&asked.volume_id)?;
        let target = given_path(&asked.target_path, "target_path", id)?;
        let at = target.clone();
        let hidden = self.ask_kernel("unmount", move || mounts::hide(&at)).await?;
        hidden.map_err(|e| Status::internal(format!("cannot unmount {}: {e}", target.display())))?;
        tracing::info!(volume = id, at = %target.display(), "shown to a pod no longer");
        Ok(Nothing {})
    }

    async fn stats(&self, asked: NodeGetVolumeStatsRequest) -> Result<NodeGetVolumeStatsResponse, Status> {
        let id = given_id(&asked.volume_id)?;
        if asked.volume_path.is_empty() {
            return Err(Status::invalid_argument("no volume_path is given"));
        }
        let key = known_id(id)?;
        let (at, source) = (PathBuf::from(&asked.volume_path), key.below(&self.mounts_dir));
        let here = self.here(&key).await;
        let found = {
            let at = at.clone();
            let look = move || Ok::<_, std::io::Error>((mounts::mounted(&at)?, mounts::mounted(&source)?));
            self.ask_kernel("look for mounts", look).await?
        };
        let (shown, own) =
            found.map_err(|e| Status::internal(format!("cannot read which mounts there are: {e}")))?;
        let Some(shown) = shown else {
            return Err(Status::not_found(format!("volume {id} is not mounted at {}", at.display())));
        };
        let wrong = match here {
            Here::Mounted if own.is_none_or(|own| own.device == shown.device) => None,
            Here::Mounted => {
                Some("the volume was mounted anew since the pod has started: delete the pod".to_owned())
            }
            Here::Waiting(why) => Some(why),
            Here::Leaving => Some("the volume is being deleted".to_owned()),
            Here::Unknown => Some(format!("node {} carries the volume no longer", self.node)),
        };
        let usage = self.ask_kernel("ask for the room in a volume", move || mounts::usage(&at)).await;
        // Whoever serves it may be dead: that it does not answer is said, and not an error.
        let (usage, wrong) = match usage {
            Ok(Ok(usage)) => (usage, wrong),
            Ok(Err(error)) => (vec![], wrong.or_else(|| Some(format!("its mount does not answer: {error}")))),
            Err(status) => (vec![], wrong.or_else(|| Some(status.message().to_owned()))),
        };
        let message = wrong.clone().unwrap_or_else(|| "in use".to_owned());
        let volume_condition = Some(VolumeCondition { abnormal: wrong.is_some(), message });
        Ok(NodeGetVolumeStatsResponse { usage, volume_condition })
    }

    /// Returns once the volume can be used here.
    async fn wait_mounted(&self, key: &VolumeKey) -> Result<(), Status> {
        let end = Instant::now() + MOUNTED_WITHIN;
        let mut changed = self.facts.changed();
        let mut exists = false;
        loop {
            changed.borrow_and_update();
            let why = match self.here(key).await {
                Here::Mounted => return Ok(()),
                Here::Waiting(why) => why,
                Here::Leaving => {
                    return Err(Status::failed_precondition(format!("volume {key} is being deleted")));
                }
                Here::Unknown => {
                    if !exists {
                        exists = self.exists(key).await?;
                    }
                    format!("node {} has no brick of it: is the node one of its members?", self.node)
                }
            };
            if Instant::now() >= end {
                return Err(Status::unavailable(format!(
                    "volume {key} is not mounted on node {} after {} s: {why}",
                    self.node,
                    MOUNTED_WITHIN.as_secs()
                )));
            }
            let _ = tokio::time::timeout(LOOK, changed.changed()).await;
        }
    }

    async fn here(&self, key: &VolumeKey) -> Here {
        let (facts, key) = (self.facts.clone(), key.clone());
        // It may block on the disk.
        let found =
            tokio::task::spawn_blocking(move || facts.facts().into_iter().find(|f| f.key == key)).await;
        match found.ok().flatten().map(|f| f.phase) {
            None => Here::Unknown,
            Some(Phase::Ready | Phase::Degraded { mounted: true, .. }) => Here::Mounted,
            Some(
                Phase::Starting(why) | Phase::Refused(why) | Phase::Degraded { message: why, mounted: false },
            ) => Here::Waiting(why),
            Some(Phase::Emptying(_) | Phase::Emptied) => Here::Leaving,
        }
    }

    /// Whether there is such a volume, so that it is worth waiting for.
    async fn exists(&self, key: &VolumeKey) -> Result<bool, Status> {
        let api: Api<WorkstationVolume> = Api::namespaced(self.client.clone(), &key.namespace);
        match tokio::time::timeout(API, api.get_metadata_opt(&key.volume)).await {
            Ok(Ok(Some(_))) => Ok(true),
            Ok(Ok(None)) => Err(Status::not_found(format!("there is no WorkstationVolume {key}"))),
            Ok(Err(error)) => {
                tracing::debug!(volume = %key, "not known whether it exists: {}", one_line(&error.to_string()));
                Ok(false)
            }
            Err(_) => Ok(false),
        }
    }

    /// Runs `work` on a thread of its own, which is left to itself if it does not end.
    async fn ask_kernel<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let Ok(place) = self.questions.clone().try_acquire_owned() else {
            return Err(Status::unavailable(format!(
                "cannot {what}: {QUESTIONS} questions to the kernel have no answer yet: is a mount on this node dead?"
            )));
        };
        let (answer, answered) = oneshot::channel();
        // Not one of the runtime's: those are waited for at the end.
        let thread = std::thread::Builder::new().name("csi".to_owned()).spawn(move || {
            let _ = answer.send(work());
            drop(place);
        });
        thread.map_err(|e| Status::unavailable(format!("cannot {what}: no thread is to be had: {e}")))?;
        match tokio::time::timeout(KERNEL, answered).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(Status::internal(format!("cannot {what}: a fault in the agent, see its log"))),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "cannot {what}: no answer within {} s",
                KERNEL.as_secs()
            ))),
        }
    }
}

fn capabilities() -> NodeCapabilities {
    let one = |can: NodeCan| NodeCapability { rpc: Some(NodeRpc { r#type: can.into() }) };
    NodeCapabilities { capabilities: vec![one(NodeCan::GetVolumeStats), one(NodeCan::VolumeCondition)] }
}

fn given_id(id: &str) -> Result<&str, Status> {
    if id.is_empty() { Err(Status::invalid_argument("no volume_id is given")) } else { Ok(id) }
}

fn given_path(path: &str, field: &str, id: &str) -> Result<PathBuf, Status> {
    match path {
        "" => Err(Status::invalid_argument(format!("no {field} is given for volume {id}"))),
        path if !path.starts_with('/') => {
            Err(Status::invalid_argument(format!("{field} {path:?} is not absolute")))
        }
        path => Ok(PathBuf::from(path)),
    }
}

fn known_id(id: &str) -> Result<VolumeKey, Status> {
    id::parse(id).ok_or_else(|| {
        Status::not_found(format!("there is no volume {id:?}: the volumeHandle of a PersistentVolume is NAMESPACE/NAME of a WorkstationVolume"))
    })
}

#[cfg(test)]
#[path = "node/tests.rs"]
mod tests;
