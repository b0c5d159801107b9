//! A lab whose workstations are real nodes: containerd, kubelet and kube-proxy in each, and Nearbrick installed in the cluster by its chart, as
//! people do.
//!
//! Invariants:
//! - Whatever a node runs is in its namespaces, or in its control groups: so all of it is found after any crash.
//! - Its state is in the lab's folder; `/run`, `/var/log` and `/var/lib` of the machine get no file of it.

pub mod cgroup;
pub mod chart;
mod config;
pub mod image;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{find, output, run};
use crate::control_plane::binaries::NodeBinaries;
use crate::error::{Context, Result};
use crate::pki::write_file;
use crate::process::{Daemon, wait_until};
use crate::record::{Identity, Record, Seat};
use crate::workstation::Workstation;

/// The addresses of services.
const SERVICES: &str = "10.96.0.0/16";
/// kubelet's folder, of each node's own.
const KUBELET: &str = "/var/lib/kubelet";
/// How long a program of a node may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// The programs of one node.
#[derive(Clone, Debug)]
pub struct Node {
    identity: Identity,
    workstation: Workstation,
    seat: Seat,
}

impl Node {
    /// The node at this seat.
    pub fn new(identity: &Identity, seat: &Seat) -> Self {
        let workstation = Workstation::new(identity, seat);
        Self { identity: identity.clone(), workstation, seat: seat.clone() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.seat.node
    }

    /// Where its state is.
    pub fn dir(&self) -> PathBuf {
        self.identity.dir.join(&self.seat.node)
    }

    fn daemon(&self, program: &str) -> Daemon {
        Daemon::new(&self.identity.dir, &format!("{}-{program}", self.seat.node))
    }

    /// containerd, kubelet and kube-proxy, in the order of their start.
    pub fn daemons(&self) -> [Daemon; 3] {
        ["containerd", "kubelet", "kube-proxy"].map(|program| self.daemon(program))
    }

    /// Where containerd listens.
    fn socket(&self) -> PathBuf {
        self.dir().join("containerd.sock")
    }

    /// Writes what its programs read.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn configure(&self, record: &Record, authority: &Path) -> Result<()> {
        let (dir, seat) = (self.dir(), &self.seat);
        let folder = |name: &str| dir.join(name);
        let write = |name: &str, text: &str| write_file(&folder(name), text, 0o644);
        write("containerd.toml", &config::containerd(&dir, &self.socket()))?;
        write("cni/10-lab.conflist", &config::network(&dir, &record.pods(seat)))?;
        let group = self.identity.namespace(&seat.node);
        write("kubelet.yaml", &config::kubelet(&dir, &self.socket(), &group, authority))?;
        write("kube-proxy.yaml", &config::proxy(&dir, &seat.node))
    }

    /// Starts its programs, those that do not run, and gives it the images.
    ///
    /// # Errors
    /// One does not start; the line has its last words.
    pub fn start(&self, binaries: &NodeBinaries, record: &Record, images: &[PathBuf]) -> Result<()> {
        let (dir, seat) = (self.dir(), &self.seat);
        cgroup::make(&self.identity.namespace(&seat.node))?;
        self.route(record)?;
        let begin = |name: &str, program: &Path, arguments: &[String]| -> Result<()> {
            let mut command = self.workstation.command(program)?;
            self.daemon(name).start(command.args(arguments), &self.identity.dir)?;
            Ok(())
        };
        let containerd = find("containerd").context("containerd is not installed")?;
        begin(
            "containerd",
            &containerd,
            &["--config".to_owned(), dir.join("containerd.toml").display().to_string()],
        )?;
        let daemon = self.daemon("containerd");
        wait_until("containerd", LIMIT, || {
            if daemon.running().is_none() {
                crate::fail!("containerd of {} ended: {}", seat.node, daemon.last_words());
            }
            Ok(self.ctr(&["version"]).is_ok())
        })?;
        for image in images {
            self.import(image)?;
        }
        let option = |name: &str, value: &Path| format!("--{name}={}", value.display());
        begin(
            "kubelet",
            &binaries.kubelet,
            &[
                option("config", &dir.join("kubelet.yaml")),
                option("kubeconfig", &dir.join("kubelet.kubeconfig")),
                option("root-dir", Path::new(KUBELET)),
                format!("--hostname-override={}", seat.node),
                format!("--node-ip={}", seat.address),
                "--node-labels=nearbrick.io/workstation=true".to_owned(),
            ],
        )?;
        begin("kube-proxy", &binaries.proxy, &[option("config", &dir.join("kube-proxy.yaml"))])
    }

    /// Gives it an image more.
    ///
    /// # Errors
    /// containerd does not take it.
    pub fn import(&self, image: &Path) -> Result<()> {
        self.ctr(&["images", "import", &image.display().to_string()])
    }

    /// Pods of all nodes reach each other, and the control plane.
    fn route(&self, record: &Record) -> Result<()> {
        // Addresses of services are changed on their way out, and are sent nowhere: but there must be a way.
        let mut script = format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward && ip route replace {SERVICES} via {}",
            record.control_address()
        );
        for other in record.seats.iter().filter(|other| other.node != self.seat.node) {
            script += &format!(" && ip route replace {} via {}", record.pods(other), other.address);
        }
        self.workstation.sh(&script).map(drop)
    }

    fn ctr(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.workstation.command("ctr")?;
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(arguments);
        output(&mut command).map(drop)
    }
}

/// The routes from the control plane to the pods.
///
/// # Errors
/// `ip` fails.
pub fn route_from_control(identity: &Identity, record: &Record) -> Result<()> {
    let control = identity.namespace(crate::netns::CONTROL);
    for seat in &record.seats {
        let line = format!("-n {control} route replace {} via {}", record.pods(seat), seat.address);
        run("ip", line.split_whitespace())?;
    }
    Ok(())
}
