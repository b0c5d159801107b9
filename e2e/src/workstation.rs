//! A workstation: a network, mount and host name namespace, a disk image, and the agent in them.
//!
//! Invariants:
//! - A tiny process keeps the namespaces alive. When it and all that runs in them are dead, the kernel
//!   removes every mount and loop device: nothing of a workstation outlives its processes but the image.
//! - `/bricks` and `/volumes` exist only inside, so that the machine and other labs have no part in them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::command::output;
use crate::error::{Context, Result};
use crate::nodes::cgroup;
use crate::process::{Daemon, GRACE, MARK, ProcessId, find, namespace, wait_until};
use crate::record::{Identity, Kind, Record, Seat};
use crate::{disk, netns};

/// Where the brick's disk is mounted in a workstation.
pub const BRICKS: &str = "/bricks";
/// Where volumes are mounted in a workstation.
pub const VOLUMES: &str = "/volumes";
/// The port of the peer API.
pub const PEER_PORT: u16 = 7443;
/// The port of the agent's metrics.
pub const METRICS_PORT: u16 = 7444;

const SCRIPT: &str = include_str!("workstation.sh");

/// One workstation of a lab.
#[derive(Clone, Debug)]
pub struct Workstation {
    identity: Identity,
    /// What it is.
    pub seat: Seat,
}

impl Workstation {
    /// The workstation of a lab at this seat.
    pub fn new(identity: &Identity, seat: &Seat) -> Self {
        Self { identity: identity.clone(), seat: seat.clone() }
    }

    fn dir(&self) -> PathBuf {
        self.identity.dir.join(&self.seat.node)
    }

    /// Its disk image.
    pub fn image(&self) -> PathBuf {
        self.identity.dir.join("images").join(format!("{}.img", self.seat.node))
    }

    /// Where its certificates are.
    pub fn tls_dir(&self) -> PathBuf {
        // In a node it is the chart's default, in a folder of the node's own.
        self.dir().join(if self.is_node() { "var-lib/nearbrick/tls" } else { "tls" })
    }

    /// Whether it is a node that runs pods.
    fn is_node(&self) -> bool {
        let record = Record::read(&self.identity).unwrap_or_default();
        record.is_some_and(|r| r.kind == Kind::Nodes)
    }

    /// Where its agent's kubeconfig is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// Where its agent's token for the API server is.
    pub fn token(&self) -> PathBuf {
        self.dir().join("token")
    }

    fn holder(&self) -> Daemon {
        Daemon::new(&self.identity.dir, &format!("{}-namespaces", self.seat.node))
    }

    /// Its agent.
    pub fn agent(&self) -> Daemon {
        Daemon::new(&self.identity.dir, &self.seat.node)
    }

    /// Whether it is switched on.
    pub fn is_on(&self) -> bool {
        self.holder().running().is_some()
    }

    /// The address of its agent's metrics, as the lab's own network knows it.
    pub fn metrics(&self) -> SocketAddr {
        SocketAddr::new(self.seat.address.into(), METRICS_PORT)
    }

    /// Switches it on, without the agent: namespaces, network, disk.
    ///
    /// # Errors
    /// A namespace or a mount cannot be made.
    pub fn power_on(&self) -> Result<()> {
        netns::set_link(&self.identity, &self.seat.node, true)?;
        disk::make(&self.image(), self.seat.filesystem, disk::SIZE)?;
        self.make_namespaces()?;
        let image = self.image().display().to_string();
        let mount = "mountpoint -q \"$1\" || mount -o loop \"$0\" \"$1\"";
        output(self.command("sh")?.args(["-c", mount, &image, BRICKS]))?;
        Ok(())
    }

    fn make_namespaces(&self) -> Result<()> {
        let state = if self.is_node() { self.dir().into_os_string() } else { Default::default() };
        let root = self.dir().join("root");
        std::fs::create_dir_all(&root).context(format!("cannot make {}", root.display()))?;
        let network = netns::path(&self.identity, &self.seat.node);
        let holder = self.holder();
        let id = holder.start(
            Command::new("nsenter")
                .arg(format!("--net={}", network.display()))
                .args(["--", "unshare", "--mount", "--uts", "--propagation", "slave", "--"])
                .args(["sh", "-c", SCRIPT, "workstation"])
                .arg(&root)
                .arg(&self.seat.node)
                .arg(state),
            &self.identity.dir,
        )?;
        // The script ends in a program of another name: only then is all of it done.
        let comm = format!("/proc/{}/comm", id.pid);
        let what = format!("the namespaces of {}", self.seat.node);
        wait_until(&what, Duration::from_secs(20), || {
            if !id.is_alive() {
                crate::fail!("{what}: {}", holder.last_words());
            }
            Ok(std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() == "sleep"))
        })
    }

    /// A command that runs inside.
    ///
    /// # Errors
    /// The workstation is off.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let node = &self.seat.node;
        let holder = self.holder().running();
        let holder = holder.context(format!("{node} is off: `cargo lab start {node}` switches it on"))?;
        let network = netns::path(&self.identity, node);
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", network.display()))
            .arg(format!("--mount=/proc/{}/ns/mnt", holder.pid))
            .arg(format!("--uts=/proc/{}/ns/uts", holder.pid))
            .arg("--")
            .arg(program)
            .env(MARK, &self.identity.dir);
        Ok(command)
    }

    /// Runs a shell script inside; what it wrote to stdout.
    ///
    /// # Errors
    /// The workstation is off, or the script fails.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = output(self.command("sh")?.args(["-euc", script]))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The command line of an agent inside, as the lab starts it.
    ///
    /// # Errors
    /// The workstation is off.
    pub fn agent_command(&self, program: &Path, extra: &[String]) -> Result<Command> {
        let mut command = self.command(program)?;
        command
            .args(["run", "--node", &self.seat.node])
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(["--bricks-dir", BRICKS, "--mounts-dir", VOLUMES])
            .arg("--listen")
            .arg(SocketAddr::new(self.seat.address.into(), PEER_PORT).to_string())
            .arg("--run-dir")
            .arg(self.dir().join("run"))
            .arg("--tls-dir")
            .arg(self.tls_dir())
            .arg("--tls-from-cluster")
            .arg("--metrics")
            .arg(self.metrics().to_string())
            .args(extra);
        Ok(command)
    }

    /// Starts the agent, unless it runs.
    ///
    /// # Errors
    /// It ends within a moment; the line has its last words.
    pub fn start_agent(&self, program: &Path, extra: &[String]) -> Result<()> {
        let agent = self.agent();
        if agent.running().is_some() {
            return Ok(());
        }
        let id = agent.start(&mut self.agent_command(program, extra)?, &self.identity.dir)?;
        let port = format!("{}:{}", self.seat.address, METRICS_PORT);
        let what = format!("the agent of {} to answer on {port}", self.seat.node);
        wait_until(&what, Duration::from_secs(60), || {
            if !id.is_alive() {
                crate::fail!("the agent of {} ended: {}", self.seat.node, agent.last_words());
            }
            let listening = output(self.command("ss")?.args(["-Hltn", "src", &port]))?;
            Ok(!listening.stdout.is_empty())
        })
    }

    /// Ends the agent: SIGTERM first.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_agent(&self) -> Result<()> {
        self.agent().stop(GRACE)
    }

    /// Takes the power away: the network first, then every process at once. What the disk image holds
    /// stays. With `lose_unwritten` what was not yet written to the disk is lost too, as with a real cut.
    ///
    /// # Errors
    /// A process does not end.
    pub fn power_off(&self, lose_unwritten: bool) -> Result<()> {
        netns::set_link(&self.identity, &self.seat.node, false)?;
        let Some(holder) = self.holder().running() else { return Ok(()) };
        if lose_unwritten {
            output(self.command("xfs_io")?.args(["-x", "-c", "shutdown", BRICKS]))?;
        }
        let processes = self.processes(&holder);
        for process in &processes {
            process.signal(Signal::KILL);
        }
        for process in &processes {
            process.kill()?;
        }
        for daemon in [self.agent(), self.holder()] {
            let _ = std::fs::remove_file(daemon.pid_file);
        }
        disk::release(&self.image())
    }

    /// Every process that runs inside, in pods too, the one that keeps the namespaces among them.
    fn processes(&self, holder: &ProcessId) -> Vec<ProcessId> {
        let inside = namespace(holder.pid, "mnt");
        let group = self.identity.namespace(&self.seat.node);
        find(|pid| inside.is_some() && namespace(pid, "mnt") == inside || cgroup::has(pid, &group))
    }
}
