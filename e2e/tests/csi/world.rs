//! One workstation with the CSI driver. All that it mounts is below a directory of its own, and goes with it.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use nearbrick_e2e::pki::{self, Authority, Subject};
use nearbrick_e2e::programs::Programs;
use nearbrick_e2e::{ControlPlane, kube_api};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::agent::Nodes;
use crate::support::operator::SYSTEM;
use crate::support::{self, Namespace};

/// A process that is ended as kubelet ends a container.
struct Running(Child);

impl Running {
    /// Tells it to end, and waits: after that nothing of it is mounted.
    fn end(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.end();
        }
    }
}

/// What is mounted below a directory when a test fails is taken away with it.
struct Mounts(PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below =
            |line: &str| line.split(' ').nth(4).map(PathBuf::from).filter(|at| at.starts_with(&self.0));
        for at in table.lines().rev().filter_map(below) {
            let _ = rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// The driver on one workstation.
pub struct World {
    // In this order: what runs ends first, then mounts go, then the directory.
    agent: Running,
    controller: Running,
    _mounts: Mounts,
    dir: TempDir,
    /// The namespace of its volumes.
    pub ns: Namespace,
    /// The workstation.
    pub node: String,
}

impl World {
    /// Starts all. None where the machine cannot mount.
    pub async fn start(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            println!("left out: mounting needs root and /dev/fuse");
            return None;
        }
        let ns = Namespace::new(name).await;
        support::operator::shared().await;
        apply_rights(&ns.client).await;
        let node = Nodes::new(&ns, &["a"]).await.names.remove(0);
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("agents").unwrap();
        let subject = Subject { name: &node, dns: &[&node], ..Subject::default() };
        authority.sign(&subject).unwrap().write(dir.path(), "tls").unwrap();
        pki::write_file(&dir.path().join("ca.crt"), authority.cert(), 0o644).unwrap();
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [peers, metrics] = ports.each_ref().map(|port| port.local_addr().unwrap());
        drop(ports);
        let program = Programs::ensure().unwrap().agent;
        let at = |name: &str| dir.path().join(name);
        let agent = Command::new(&program)
            .args(["run", "--holder", "none", "--node", &node])
            .args(["--listen", &peers.to_string(), "--metrics", &metrics.to_string()])
            .arg("--kubeconfig")
            .arg(rights(&ns.client, dir.path(), "nearbrick-agent").await)
            .arg("--bricks-dir")
            .arg(at("bricks"))
            .arg("--mounts-dir")
            .arg(at("volumes"))
            .arg("--run-dir")
            .arg(at("run"))
            .arg("--tls-dir")
            .arg(dir.path())
            .arg("--csi-socket")
            .arg(at("node.sock"))
            .arg("--csi-registration-dir")
            .arg(at("registry"))
            .spawn();
        let controller = Command::new(&program)
            .arg("csi-controller")
            .arg("--kubeconfig")
            .arg(rights(&ns.client, dir.path(), "nearbrick-csi").await)
            .arg("--socket")
            .arg(at("controller.sock"))
            .spawn();
        let (agent, controller) = (Running(agent.unwrap()), Running(controller.unwrap()));
        let world = World { agent, controller, _mounts: Mounts(dir.path().to_owned()), dir, ns, node };
        // They are there a moment before anybody listens, and csi-sanity does not try again.
        support::eventually("both sockets", || async {
            let listens = |name: &&str| UnixStream::connect(world.at(name)).is_ok();
            ["node.sock", "controller.sock"].iter().all(listens).then_some(())
        })
        .await;
        Some(world)
    }

    /// A path in the workstation's directory.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a StorageClass of this workstation says.
    pub fn parameters(&self) -> Value {
        json!({ "namespace": self.ns.name, "nodes": self.node, "replicas": "1", "deletionPolicy": "Delete" })
    }

    /// Ends both as SIGTERM does: no socket and no mount is left.
    pub fn end(mut self) {
        for running in [&mut self.agent, &mut self.controller] {
            let status = running.end();
            assert!(status.success(), "code {:?}, signal {:?}", status.code(), status.signal());
        }
        for name in ["node.sock", "controller.sock"] {
            assert!(!self.at(name).exists(), "{name} is still there");
        }
        let left: Vec<_> = std::fs::read_dir(self.at("registry")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(self.dir.path().to_str().unwrap()), "{table}");
    }
}

/// The chart's rights for agents and for the driver's controller.
pub async fn apply_rights(client: &Client) {
    for file in ["rbac.yaml", "csi-rbac.yaml", "csi-admission.yaml"] {
        let file = nearbrick_e2e::paths::workspace().join("charts/nearbrick/files").join(file);
        kube_api::apply_file(client, &file).await.unwrap();
    }
}

/// A client with the rights of this ServiceAccount, and the token itself.
pub async fn token(client: &Client, account: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SYSTEM);
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: vec![], ..Default::default() },
        ..Default::default()
    };
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
    made.status.unwrap().token
}

/// A kubeconfig with the rights of this ServiceAccount.
async fn rights(client: &Client, dir: &Path, account: &str) -> PathBuf {
    let token = token(client, account).await;
    let plane = ControlPlane::shared().await.unwrap();
    let text = std::fs::read_to_string(plane.kubeconfig()).unwrap();
    let mut config: Value = serde_norway::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({ "token": token });
    let file = dir.join(format!("{account}.kubeconfig"));
    std::fs::write(&file, serde_norway::to_string(&config).unwrap()).unwrap();
    file
}

/// How long csi-sanity may take: each of its volumes is made, mounted, deleted and emptied.
pub const SANITY: Duration = Duration::from_secs(600);
