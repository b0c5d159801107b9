//! Where a test works: a namespace, a volume in it, and a pod with a shell on each of its workstations.

use std::process::{Command, Output};
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use nearbrick_crds::condition::find;
use nearbrick_crds::{Workstation, WorkstationVolume};
use nearbrick_e2e::control_plane::binaries;
use nearbrick_e2e::error::{Context, Error};
use nearbrick_e2e::kube_api::{self, eventually, wait_for};
use nearbrick_e2e::volumes::Volume;
use nearbrick_e2e::{Result, fail, paths};
use serde_json::json;

/// An image with a shell, for the pods; any busybox will do.
const IMAGE: &str = "NEARBRICK_SHELL_IMAGE";
const AGENTS: &str = "app.kubernetes.io/name=nearbrick-agent";
const LIMIT: Duration = Duration::from_secs(180);

pub struct Site {
    client: Client,
    pub volume: Volume,
    /// Up to three workstations; the first two hold copies.
    pub nodes: Vec<String>,
    bricks: String,
    mounts: String,
}

impl Site {
    /// With a volume that heals every `interval`.
    pub async fn new(interval: &str) -> Result<Self> {
        let client = Client::try_default().await.context("KUBECONFIG names no cluster that can be used")?;
        let all: Api<Pod> = Api::all(client.clone());
        let agents =
            all.list(&ListParams::default().labels(AGENTS)).await.context("cannot look for agents")?;
        let mut nodes: Vec<String> = agents.into_iter().filter_map(|pod| pod.spec?.node_name).collect();
        nodes.sort();
        nodes.dedup();
        nodes.truncate(3);
        if nodes.len() < 2 {
            fail!("{} nodes run an agent, and two are needed: install the chart first", nodes.len());
        }
        let sets: Api<DaemonSet> = Api::all(client.clone());
        let set = sets.list(&ListParams::default()).await.context("cannot look for the DaemonSet")?;
        let set =
            set.into_iter().find(|s| s.name_any() == "nearbrick-agent").context("no DaemonSet of agents")?;
        let spec = set.spec.and_then(|s| s.template.spec).context("an odd DaemonSet")?;
        let words: Vec<String> =
            spec.containers.into_iter().flat_map(|c| c.args.unwrap_or_default()).collect();
        let flag = |name: &str| words.iter().find_map(|w| w.strip_prefix(name)).map(str::to_owned);
        let bricks = flag("--bricks-dir=").context("agents without --bricks-dir")?;
        let mounts = flag("--mounts-dir=").context("agents without --mounts-dir")?;

        let metadata = ObjectMeta {
            generate_name: Some("nearbrick-test-".to_owned()),
            labels: Some([("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned())].into()),
            ..Default::default()
        };
        let api: Api<Namespace> = Api::all(client.clone());
        let namespace = Namespace { metadata, ..Default::default() };
        let made = api.create(&PostParams::default(), &namespace).await.context("cannot make a namespace")?;
        let namespace = made.name_any();
        let volume = Volume::new(&client, &namespace, "tree");
        let site = Self { client, volume, nodes, bricks, mounts };
        site.apply(interval).await?;
        Ok(site)
    }

    fn namespace(&self) -> &str {
        &self.volume.namespace
    }

    async fn apply(&self, interval: &str) -> Result<()> {
        let metadata = |name: &str| json!({ "name": name, "namespace": self.namespace() });
        let policy = json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "HealPolicy", "metadata": metadata("policy"),
            "spec": { "interval": interval },
        });
        let volume = json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "WorkstationVolume", "metadata": metadata("tree"),
            "spec": {
                "members": { "nodes": self.nodes }, "replicas": 2, "replicaSets": [{ "nodes": self.nodes[..2] }],
                "healPolicyRef": { "name": "policy" },
            },
        });
        for object in [policy, volume] {
            kube_api::apply(&self.client, &object.to_string()).await?;
        }
        Ok(())
    }

    /// Waits until the volume is in use, and there is a shell on each workstation.
    pub async fn ready(&self) -> Result<()> {
        let nodes: Vec<&str> = self.nodes.iter().map(String::as_str).collect();
        self.volume.wait_ready(&nodes, LIMIT).await?;
        let image = std::env::var(IMAGE).unwrap_or_else(|_| "busybox:1".to_owned());
        let place = |dir: &str| format!("{dir}/{}/tree", self.namespace());
        for node in &self.nodes {
            let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "mountPropagation": "HostToContainer" });
            let host = |name: &str, path: String| json!({ "name": name, "hostPath": { "path": path, "type": "Directory" } });
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": node, "namespace": self.namespace() },
                "spec": {
                    "nodeName": node, "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                    "containers": [{
                        "name": "shell", "image": image, "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "100000"],
                        "volumeMounts": [mount("volume", "/volume"), mount("brick", "/brick")],
                    }],
                    "volumes": [host("volume", place(&self.mounts)), host("brick", place(&self.bricks))],
                },
            });
            kube_api::apply(&self.client, &pod.to_string()).await?;
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace());
        for node in &self.nodes {
            wait_for(&pods, node, "it runs", LIMIT, |pod: &Pod| {
                let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
                statuses.is_some_and(|all| all.iter().all(|c| c.ready))
            })
            .await?;
        }
        Ok(())
    }

    fn kubectl(&self) -> Result<Command> {
        let mut command = Command::new(binaries::kubectl()?);
        // It finds our plugin, as it was built, on PATH.
        let before = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(paths::profile_dir()?).chain(std::env::split_paths(&before));
        command.env("PATH", std::env::join_paths(all).context("an odd PATH")?);
        Ok(command)
    }

    /// Runs a script in the pod on a node: the volume is /volume, the brick /brick.
    pub fn sh(&self, node: &str, script: &str) -> Result<String> {
        let mut kubectl = self.kubectl()?;
        kubectl.args(["exec", "--namespace", self.namespace(), node, "--", "sh", "-euc", script]);
        let output = nearbrick_e2e::command::output(&mut kubectl)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `kubectl nearbrick`.
    pub fn plugin(&self, arguments: &[&str]) -> Result<Output> {
        let mut kubectl = self.kubectl()?;
        kubectl.arg("nearbrick").args(arguments).args(["--namespace", self.namespace()]);
        kubectl.output().context("cannot start kubectl")
    }

    /// Waits until a condition of a workstation is True. Other volumes count too: their work is not waited for.
    pub async fn wait_workstation(&self, node: &str, condition: &str, limit: Duration) -> Result<()> {
        let api: Api<Workstation> = Api::all(self.client.clone());
        wait_for(&api, node, condition, limit, |w: &Workstation| {
            let conditions = w.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
            find(conditions, condition).is_some_and(|c| c.status == "True")
        })
        .await
        .map(drop)
    }

    /// Removes all that was made, the files too.
    pub async fn remove(&self) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace());
        pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await.context("pods")?;
        self.volume.patch_spec(json!({ "deletionPolicy": "Delete" })).await?;
        let volumes: Api<WorkstationVolume> = Api::namespaced(self.client.clone(), self.namespace());
        self.volume.wait("a finalizer", LIMIT, |v| !v.finalizers().is_empty()).await?;
        volumes.delete("tree", &DeleteParams::default()).await.context("cannot delete the volume")?;
        eventually("the volume's files are deleted", LIMIT, || async {
            match volumes.get_opt("tree").await {
                Ok(None) => Ok(()),
                Ok(Some(volume)) => Err(format!("{:?}", volume.status.map(|s| s.conditions))),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let done = namespaces.delete(self.namespace(), &DeleteParams::default()).await;
        done.map(drop).map_err(|e| Error::new(format!("cannot delete {}: {e}", self.namespace())))
    }
}
