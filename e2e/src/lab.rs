//! A lab as a whole: up, down, and its parts while it runs.
//!
//! Invariants:
//! - `down` needs no memory of how far `up` came: it removes by name and by mark whatever is there.
//! - `up` on a lab that a crash left half made takes it down first.
//! - What changes a lab holds its lock.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kube::Client;

use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::control_plane::Binaries;
use crate::control_plane::binaries::NodeBinaries;
use crate::error::{Context, Error, Result};
use crate::lock::Lock;
use crate::nodes::{self, Node, cgroup};
use crate::pki::write_file;
use crate::process::{Daemon, find, has_mark, namespace};
use crate::programs::Programs;
use crate::record::{Identity, Kind, Phase, Record};
use crate::workstation::Workstation;
use crate::{disk, kube_api, kubeconfig, netns, packages, progress, tokens};

/// Free space that a lab needs to start: for images, logs and etcd.
const SPACE: u64 = 3 << 30;

/// A lab that is up.
#[derive(Clone, Debug)]
pub struct Lab {
    identity: Identity,
    record: Record,
}

/// What `up` shall do besides the usual.
#[derive(Clone, Debug)]
pub struct Options {
    /// Arguments for the agents besides the usual.
    pub agent: Vec<String>,
    /// Bytes of each workstation's disk.
    pub disk: u64,
    /// What its workstations are.
    pub kind: Kind,
}

impl Default for Options {
    fn default() -> Self {
        Self { agent: Vec::new(), disk: disk::SIZE, kind: Kind::Processes }
    }
}

impl Lab {
    /// Starts a lab, or finds that it is up; whether it was.
    ///
    /// # Errors
    /// One line that says what is missing on this machine, or which part did not start.
    pub async fn up(name: &str, options: &Options) -> Result<(Self, bool)> {
        let identity = Identity::new(name)?;
        check_machine()?;
        let lock = Lock::take(&identity.lock(), "works on this lab")?;
        let record = Record::read(&identity).unwrap_or(None);
        if let Some(record) = record.filter(|r| r.phase == Phase::Up) {
            let lab = Self { identity: identity.clone(), record };
            if lab.cluster().is_running() {
                return Ok((lab, true));
            }
        }
        if identity.dir.exists() || !netns::namespaces(&identity).is_empty() {
            progress::note("a lab was left half made: taking it down first");
            clear(&identity)?;
        }
        let lab = Self::make(&identity, options).await;
        drop(lock);
        lab.map(|lab| (lab, false))
    }

    async fn make(identity: &Identity, options: &Options) -> Result<Self> {
        progress::step("What the lab needs");
        packages::ensure(packages::LAB)?;
        if options.kind == Kind::Nodes {
            packages::ensure(packages::NODES)?;
        }
        disk::check_space(&identity.dir, SPACE)?;
        let binaries = Binaries::ensure()?;
        let programs = Programs::ensure()?;

        progress::step("Network and control plane");
        let record = netns::make(identity, options.kind, &programs)?;
        let lab = Self { identity: identity.clone(), record };
        let cluster = lab.cluster();
        cluster.make_keys(&lab.record)?;
        cluster.start(&binaries, &lab.record)?;

        progress::step("Workstations");
        for workstation in lab.workstations() {
            disk::make(&workstation.image(), workstation.seat.filesystem, options.disk)?;
            workstation.power_on()?;
            let (seat, image) = (&workstation.seat, workstation.image());
            let image = image.display();
            progress::note(format!("{} at {}, {:?} on {image}", seat.node, seat.address, seat.filesystem));
        }

        progress::step("Operator and agents");
        cluster.wait_ready().await?;
        cluster.start_controller_manager(options.kind, &binaries)?;
        if options.kind == Kind::Nodes {
            lab.start_nodes(options).await?;
            return lab.made();
        }
        cluster.install(&lab.record, &lab.client().await?).await?;
        cluster.start_operator(&lab.record.programs.operator)?;
        for workstation in lab.workstations() {
            workstation.start_agent(&lab.record.programs.agent, &options.agent)?;
        }
        lab.made()
    }

    fn made(mut self) -> Result<Self> {
        self.record.phase = Phase::Up;
        self.record.write(&self.identity)?;
        Ok(self)
    }

    /// Starts what nodes run, and installs the chart.
    async fn start_nodes(&self, options: &Options) -> Result<()> {
        let binaries = NodeBinaries::ensure()?;
        self.cluster().start_scheduler(&binaries)?;
        nodes::route_from_control(&self.identity, &self.record)?;
        let images = nodes::image::pack_all(&self.identity.dir.join("packed"), &self.record.programs)?;
        for node in self.nodes() {
            node.start(&binaries, &self.record, &images)?;
        }
        let api: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(self.client().await?);
        for seat in &self.record.seats {
            kube_api::wait_for(&api, &seat.node, "a node that is ready", PATIENCE, |node| {
                let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
                conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
            })
            .await?;
        }
        progress::step("Nearbrick, by its chart");
        let arguments: Vec<_> =
            options.agent.iter().enumerate().map(|(n, word)| format!("agent.args[{n}]={word}")).collect();
        nodes::chart::install(self, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Ends the operator, all of it.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_operator(&self) -> Result<()> {
        match self.record.kind {
            Kind::Processes => self.cluster().stop_operator(),
            Kind::Nodes => self.scale_operator(0),
        }
    }

    /// Starts the operator, unless it runs.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_operator(&self) -> Result<()> {
        match self.record.kind {
            // It gives up when it cannot renew its lease; a Deployment would start it again.
            Kind::Processes => self.cluster().start_operator(&self.record.programs.operator),
            Kind::Nodes => self.scale_operator(2),
        }
    }

    fn scale_operator(&self, replicas: u32) -> Result<()> {
        let (count, of) = (format!("--replicas={replicas}"), ["-n", SYSTEM_NAMESPACE]);
        self.kubectl_output(&["scale", of[0], of[1], "deployment/nearbrick-operator", &count])?;
        let pods = ["pods", of[0], of[1], "-l", "app.kubernetes.io/name=nearbrick-operator"];
        let state = if replicas == 0 { "--for=delete" } else { "--for=condition=Ready" };
        self.kubectl_output(&[&["wait"], &pods[..], &[state, "--timeout=90s"]].concat()).map(drop)
    }

    /// The pods of our own on a node, as `kubectl get` or `kubectl logs` take them.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn pods_of(&self, node: &str) -> Result<Vec<String>> {
        let field = format!("spec.nodeName={node}");
        let names = ["get", "pods", "-n", SYSTEM_NAMESPACE, "--field-selector", &field, "-o", "name"];
        Ok(self.kubectl_output(&names)?.lines().map(str::to_owned).collect())
    }

    /// What runs on its workstations, if they are nodes.
    pub fn nodes(&self) -> Vec<Node> {
        let is = self.record.kind == Kind::Nodes;
        self.record.seats.iter().filter(|_| is).map(|seat| Node::new(&self.identity, seat)).collect()
    }

    /// A lab that is up.
    ///
    /// # Errors
    /// It is not.
    pub fn open(name: &str) -> Result<Self> {
        let identity = Identity::new(name)?;
        let record = Record::read(&identity)?.filter(|r| r.phase == Phase::Up);
        let record = record.context(format!("no lab {name:?} is up: `cargo lab up` starts one"))?;
        Ok(Self { identity, record })
    }

    /// Removes every trace of a lab; whether there was anything.
    ///
    /// # Errors
    /// This is not root, or something cannot be removed.
    pub fn down(name: &str) -> Result<bool> {
        let identity = Identity::new(name)?;
        check_root()?;
        let lock = Lock::take(&identity.lock(), "works on this lab")?;
        let found = clear(&identity);
        lock.remove();
        if let Some(base) = identity.dir.parent() {
            // Only if this was the last lab in it.
            let _ = std::fs::remove_dir(base);
        }
        found
    }

    /// Waits for the lab's lock: for a command that changes it.
    ///
    /// # Errors
    /// The lock cannot be taken.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(&self.identity.lock(), "works on this lab")
    }

    /// What it is called.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What it is made of.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its control plane and operator.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(&self.identity)
    }

    /// All its workstations.
    pub fn workstations(&self) -> Vec<Workstation> {
        self.record.seats.iter().map(|seat| Workstation::new(&self.identity, seat)).collect()
    }

    /// One workstation.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn workstation(&self, node: &str) -> Result<Workstation> {
        self.record.seat(node).map(|seat| Workstation::new(&self.identity, seat))
    }

    /// The administrator's kubeconfig, for the machine's own namespace.
    pub fn kubeconfig(&self) -> PathBuf {
        self.identity.dir.join("kubeconfig")
    }

    /// An administrator's client.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub async fn client(&self) -> Result<Client> {
        kubeconfig::client(&self.kubeconfig()).await
    }

    /// A client with the rights of the agent of a node, and no others.
    ///
    /// # Errors
    /// There is no such workstation, or its kubeconfig cannot be used.
    pub async fn agent_client(&self, node: &str) -> Result<Client> {
        let server = format!("https://{}:{}", self.record.uplink_address(), crate::cluster::API_PORT);
        let workstation = self.workstation(node)?;
        if self.record.kind == Kind::Nodes {
            // As somebody with root there finds it in the pod.
            let token = tokens::for_node(&self.client().await?, node).await?;
            write_file(&workstation.token(), &token, 0o600)?;
        }
        kubeconfig::client_at(&workstation.kubeconfig(), Some(&server)).await
    }

    /// kubectl with the lab's kubeconfig.
    ///
    /// # Errors
    /// There is no kubectl, and it cannot be built.
    pub fn kubectl(&self) -> Result<Command> {
        let mut command = Command::new(crate::control_plane::binaries::kubectl()?);
        command.env("KUBECONFIG", self.kubeconfig());
        // kubectl finds its plugins, ours among them, on PATH.
        let before = std::env::var_os("PATH").unwrap_or_default();
        let ours = self.record.programs.agent.parent().map(PathBuf::from);
        let all = ours.into_iter().chain(std::env::split_paths(&before));
        if let Ok(path) = std::env::join_paths(all) {
            command.env("PATH", path);
        }
        command.env("NO_PROXY", self.record.uplink_address().to_string());
        Ok(command)
    }

    /// What kubectl writes for these arguments.
    ///
    /// # Errors
    /// kubectl fails.
    pub fn kubectl_output(&self, arguments: &[&str]) -> Result<String> {
        let output = crate::command::output(self.kubectl()?.args(arguments))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Cuts a workstation off, or connects it again.
    ///
    /// # Errors
    /// There is no such workstation.
    pub fn set_link(&self, node: &str, up: bool) -> Result<()> {
        self.record.seat(node)?;
        netns::set_link(&self.identity, node, up)
    }

    /// What has crossed a workstation's link so far.
    ///
    /// # Errors
    /// There is no such workstation.
    pub fn counters(&self, node: &str) -> Result<netns::Counters> {
        self.record.seat(node)?;
        netns::counters(&self.identity, node)
    }

    /// Switches a workstation on, with its agent.
    ///
    /// # Errors
    /// A part of it does not start.
    pub fn start(&self, node: &str) -> Result<()> {
        let workstation = self.workstation(node)?;
        workstation.power_on()?;
        if self.record.kind == Kind::Nodes {
            // What it had of images is on its disk.
            return Node::new(&self.identity, &workstation.seat).start(
                &NodeBinaries::ensure()?,
                &self.record,
                &[],
            );
        }
        workstation.start_agent(&self.record.programs.agent, &[])
    }

    /// Everything that has a log: agents and the control plane.
    pub fn logs(&self) -> Vec<Daemon> {
        let agents = self.workstations().into_iter().map(|w| w.agent()).filter(|d| d.log.exists());
        let of_nodes = self.nodes().into_iter().flat_map(|node| node.daemons());
        agents.chain(of_nodes).chain(self.cluster().daemons()).collect()
    }

    /// The folder of the logs.
    pub fn log_dir(&self) -> PathBuf {
        self.identity.dir.join("logs")
    }
}

/// What no lab can do without.
///
/// # Errors
/// One line for the first thing that is missing.
pub fn check_machine() -> Result<()> {
    check_root()?;
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        crate::fail!(
            "/dev/fuse cannot be opened ({error}): volumes are mounted by FUSE; `modprobe fuse` brings it"
        );
    }
    if !Path::new("/dev/loop-control").exists() {
        crate::fail!(
            "/dev/loop-control is missing: disks of the lab need loop devices; `modprobe loop` brings them"
        );
    }
    Ok(())
}

fn check_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new(
            "the lab makes namespaces and mounts: run it as root (`sudo -E cargo lab ...`)",
        ));
    }
    Ok(())
}

/// Removes what is there of a lab, whatever it is.
fn clear(identity: &Identity) -> Result<bool> {
    let mut found = false;
    // What starts processes comes to its end first; then a second look finds what they started meanwhile.
    for _ in 0..50 {
        let processes = processes(identity);
        if processes.is_empty() {
            break;
        }
        found = true;
        for process in &processes {
            process.signal(rustix::process::Signal::KILL);
        }
        for process in &processes {
            process.kill()?;
        }
    }
    found |= !netns::namespaces(identity).is_empty() || identity.dir.exists();
    release_state(&identity.dir)?;
    cgroup::remove(&identity.namespace_prefix())?;
    netns::remove(identity)?;
    if identity.dir.exists() {
        let what = format!("cannot remove {}", identity.dir.display());
        std::fs::remove_dir_all(&identity.dir).context(what)?;
    }
    Ok(found)
}

/// The lab's processes: those with its mark, and those in its network namespaces.
fn processes(identity: &Identity) -> Vec<crate::process::ProcessId> {
    use std::os::unix::fs::MetadataExt;
    let files = netns::namespaces(identity).into_iter().map(|name| Path::new("/run/netns").join(name));
    let groups = identity.namespace_prefix();
    let networks: Vec<_> = files.filter_map(|f| f.metadata().ok()).map(|m| (m.dev(), m.ino())).collect();
    find(|pid| {
        has_mark(pid, &identity.dir)
            || cgroup::has(pid, &groups)
            || namespace(pid, "net").is_some_and(|net| networks.contains(&net))
    })
}

/// Unmounts what is mounted from, or in, the state directory, and frees loop devices.
fn release_state(dir: &Path) -> Result<()> {
    let images = std::fs::read_dir(dir.join("images")).into_iter().flatten().flatten();
    for image in images {
        disk::release(&image.path())?;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the list of mounts")?;
    let mut inside: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    inside.retain(|point| Path::new(point).starts_with(dir));
    for point in inside.iter().rev() {
        crate::command::run("umount", ["--lazy", point])?;
    }
    Ok(())
}

/// How long the parts of a cluster may take to come.
pub const PATIENCE: Duration = Duration::from_secs(120);
