//! The lab's control plane and operator: they run in the lab's first network namespace.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Client;
use serde_json::json;

use crate::control_plane::binaries::NodeBinaries;
use crate::control_plane::{Binaries, flags};
use crate::error::{Context, Result};
use crate::kube_api::{self, eventually};
use crate::lab::PATIENCE;
use crate::pki::write_file;
use crate::process::{Daemon, GRACE};
use crate::record::{Identity, Kind, Record};
use crate::workstation::Workstation;
use crate::{kubeconfig, netns, nodes, paths, tokens};

/// The namespace of Nearbrick's own objects.
pub const SYSTEM_NAMESPACE: &str = "nearbrick-system";
/// The service account of all agents.
pub const AGENT: &str = "nearbrick-agent";
/// The port of the API server.
pub const API_PORT: u16 = 6443;
/// The port of the operator's metrics and health.
pub const OPERATOR_PORT: u16 = 8080;

/// The port at which the API server asks the operator for lists of files.
pub const FILES_PORT: u16 = 8443;

/// The operator is no pod where workstations are processes: so its Service is told where it is.
fn files_service(record: &Record) -> String {
    let address = record.control_address();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: nearbrick-files, namespace: {SYSTEM_NAMESPACE}}}\n\
         spec: {{ports: [{{name: files, port: 443, targetPort: {FILES_PORT}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: nearbrick-files, namespace: {SYSTEM_NAMESPACE}, labels: {{kubernetes.io/service-name: nearbrick-files}}}}\n\
         addressType: IPv4\nports: [{{name: files, port: {FILES_PORT}, protocol: TCP}}]\n\
         endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]\n---\n\
         apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {{name: v1alpha1.files.nearbrick.io}}\n\
         spec:\n  group: files.nearbrick.io\n  version: v1alpha1\n  groupPriorityMinimum: 100\n  versionPriority: 10\n  \
         service: {{name: nearbrick-files, namespace: {SYSTEM_NAMESPACE}, port: 443}}\n"
    )
}

/// The control plane and the operator of a lab.
#[derive(Clone, Debug)]
pub struct Cluster {
    identity: Identity,
}

impl Cluster {
    /// That of this lab.
    pub fn new(identity: &Identity) -> Self {
        Self { identity: identity.clone() }
    }

    fn keys_dir(&self) -> PathBuf {
        self.identity.dir.join("pki")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.identity.dir.join(name)
    }

    fn daemon(&self, name: &str) -> Daemon {
        Daemon::new(&self.identity.dir, name)
    }

    /// etcd.
    pub fn etcd(&self) -> Daemon {
        self.daemon("etcd")
    }

    /// kube-apiserver.
    pub fn apiserver(&self) -> Daemon {
        self.daemon("kube-apiserver")
    }

    /// kube-controller-manager.
    pub fn controller_manager(&self) -> Daemon {
        self.daemon("kube-controller-manager")
    }

    /// kube-scheduler.
    pub fn scheduler(&self) -> Daemon {
        self.daemon("kube-scheduler")
    }

    /// The operator.
    pub fn operator(&self) -> Daemon {
        self.daemon("operator")
    }

    /// All that there are, in the order of their start.
    pub fn daemons(&self) -> Vec<Daemon> {
        let all =
            [self.etcd(), self.apiserver(), self.controller_manager(), self.scheduler(), self.operator()];
        all.into_iter().filter(|daemon| daemon.log.exists()).collect()
    }

    /// Whether the control plane runs.
    pub fn is_running(&self) -> bool {
        [self.etcd(), self.apiserver(), self.controller_manager()].iter().all(|d| d.running().is_some())
    }

    /// Makes all keys, and the kubeconfigs of the administrator, the operator and each agent.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn make_keys(&self, record: &Record) -> Result<()> {
        let (bridge, uplink) = (record.control_address(), record.uplink_address());
        let keys = flags::Keys::make(&self.keys_dir(), &[Ipv4Addr::LOCALHOST.into(), bridge, uplink])?;
        let outside = format!("https://{uplink}:{API_PORT}");
        let local = format!("https://127.0.0.1:{API_PORT}");
        let inside = format!("https://{bridge}:{API_PORT}");
        let account = |name: &str| format!("system:serviceaccount:{SYSTEM_NAMESPACE}:{name}");
        keys.kubeconfig(&self.file("kubeconfig"), &outside, "admin", Some("system:masters"))?;
        if record.kind == Kind::Nodes {
            self.make_node_keys(record, &keys, &local, &inside)?;
        }
        let manager = "system:kube-controller-manager";
        keys.kubeconfig(&self.file("controller-manager.kubeconfig"), &local, manager, None)?;
        let operator = account("nearbrick-operator");
        keys.kubeconfig(&self.file("operator.kubeconfig"), &local, &operator, None)?;
        for seat in &record.seats {
            let workstation = Workstation::new(&self.identity, seat);
            let token = workstation.token();
            kubeconfig::write_with_token(
                &workstation.kubeconfig(),
                &inside,
                keys.authority.cert(),
                AGENT,
                &token,
            )?;
        }
        Ok(())
    }

    fn make_node_keys(&self, record: &Record, keys: &flags::Keys, local: &str, inside: &str) -> Result<()> {
        let scheduler = "system:kube-scheduler";
        keys.kubeconfig(&self.file("scheduler.kubeconfig"), local, scheduler, None)?;
        keys.user("kube-apiserver-kubelet-client", Some("system:masters"))?
            .write(&keys.dir, "kubelet-client")?;
        for seat in &record.seats {
            let node = nodes::Node::new(&self.identity, seat);
            let user = format!("system:node:{}", seat.node);
            keys.kubeconfig(&node.dir().join("kubelet.kubeconfig"), inside, &user, Some("system:nodes"))?;
            keys.kubeconfig(&node.dir().join("kube-proxy.kubeconfig"), inside, "system:kube-proxy", None)?;
            node.configure(record, &keys.dir.join("ca.crt"))?;
        }
        Ok(())
    }

    fn command(&self, program: &Path) -> Command {
        let network = netns::path(&self.identity, netns::CONTROL);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", network.display())).arg("--").arg(program);
        command
    }

    /// Starts etcd and kube-apiserver, without waiting for them.
    ///
    /// # Errors
    /// One cannot be started.
    pub fn start(&self, binaries: &Binaries, record: &Record) -> Result<()> {
        let mark = &self.identity.dir;
        let arguments = flags::etcd(&self.file("etcd"), 2379, 2380);
        self.etcd().start(self.command(&binaries.etcd).args(arguments), mark)?;
        self.start_apiserver(binaries, record)
    }

    /// Starts kube-controller-manager. It gives up if the API server has not made its first roles yet.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_controller_manager(&self, kind: Kind, binaries: &Binaries) -> Result<()> {
        let arguments =
            flags::controller_manager(kind, &self.keys_dir(), &self.file("controller-manager.kubeconfig"));
        let mut command = self.command(&binaries.controller_manager);
        self.controller_manager().start(command.args(arguments), &self.identity.dir)?;
        Ok(())
    }

    /// Starts kube-scheduler.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_scheduler(&self, binaries: &NodeBinaries) -> Result<()> {
        let mut command = self.command(&binaries.scheduler);
        let arguments = flags::scheduler(&self.file("scheduler.kubeconfig"));
        self.scheduler().start(command.args(arguments), &self.identity.dir)?;
        Ok(())
    }

    /// Starts kube-apiserver, without waiting for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_apiserver(&self, binaries: &Binaries, record: &Record) -> Result<()> {
        let any = Ipv4Addr::UNSPECIFIED.into();
        let mut arguments = flags::apiserver(&self.keys_dir(), 2379, any, record.control_address(), API_PORT);
        arguments.extend(flags::apiserver_for(record.kind, &self.keys_dir()));
        self.apiserver().start(self.command(&binaries.apiserver).args(arguments), &self.identity.dir)?;
        Ok(())
    }

    /// Ends kube-apiserver; etcd goes on.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_apiserver(&self) -> Result<()> {
        // It would wait a minute for open watches.
        self.apiserver().stop(std::time::Duration::from_secs(2))
    }

    /// Waits until the API server is ready.
    ///
    /// # Errors
    /// A program of the control plane ended, or it takes too long.
    pub async fn wait_ready(&self) -> Result<()> {
        let client = kubeconfig::client(&self.file("kubeconfig")).await?;
        eventually("the API server", PATIENCE, || async {
            match kube_api::is_ready(&client).await {
                true => Ok(()),
                false => Err(format!("its log says: {}", self.apiserver().last_words())),
            }
        })
        .await
    }

    /// Applies what a cluster with Nearbrick has: definitions, rights, and a node for each workstation.
    ///
    /// # Errors
    /// The API server refuses something.
    pub async fn install(&self, record: &Record, client: &Client) -> Result<()> {
        kube_api::install_crds(client).await?;
        let namespace: Namespace = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE},
        }))
        .context("odd namespace")?;
        kube_api::apply_typed(client, &namespace).await?;
        for file in ["rbac.yaml", "admission.yaml", "files-rbac.yaml"] {
            kube_api::apply_file(client, &paths::workspace().join("charts/nearbrick/files").join(file))
                .await?;
        }
        kube_api::apply(client, &files_service(record)).await?;
        for seat in &record.seats {
            let node: Node = serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": seat.node, "labels": {
                    "kubernetes.io/hostname": seat.node,
                    "kubernetes.io/os": "linux",
                    "nearbrick.io/workstation": "true",
                }},
            }))
            .context("odd node")?;
            kube_api::apply_typed(client, &node).await?;
            let workstation = Workstation::new(&self.identity, seat);
            write_file(&workstation.token(), &tokens::for_node(client, &seat.node).await?, 0o600)?;
        }
        Ok(())
    }

    /// Starts the operator.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_operator(&self, program: &Path) -> Result<()> {
        let mut command = self.command(program);
        command
            .arg("run")
            .arg("--kubeconfig")
            .arg(self.file("operator.kubeconfig"))
            .arg("--listen")
            .arg(format!("0.0.0.0:{OPERATOR_PORT}"))
            .args(["--lease-namespace", SYSTEM_NAMESPACE, "--identity", "lab"])
            .arg("--files-listen")
            .arg(format!("0.0.0.0:{FILES_PORT}"));
        self.operator().start(&mut command, &self.identity.dir)?;
        Ok(())
    }

    /// Ends the operator.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_operator(&self) -> Result<()> {
        self.operator().stop(GRACE)
    }
}
