//! Where a bench runs: on ws-a, with a disk image for each file system that is measured.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::command::output;
use crate::error::Result;
use crate::lab::Lab;
use crate::process::{Daemon, wait_until};
use crate::workstation::Workstation;
use crate::{disk, progress};

const SCRIPT: &str = include_str!("bench.sh");
const IMAGES: [&str; 3] = ["native", "gluster-1", "gluster-2"];

/// A place for measuring.
pub struct Place {
    workstation: Workstation,
    holder: Daemon,
    gluster: Daemon,
    address: String,
}

impl Place {
    /// Makes it on ws-a: images with the same file system and size as the brick's, mounted there.
    ///
    /// # Errors
    /// An image cannot be made or mounted.
    pub fn make(lab: &Lab) -> Result<Self> {
        let workstation = lab.workstation("ws-a")?;
        let dir = &lab.identity().dir;
        let images: PathBuf = dir.join("images");
        for name in IMAGES {
            disk::make(&images.join(format!("{name}.img")), workstation.seat.filesystem, disk::SIZE)?;
        }
        let holder = Daemon::new(dir, "bench-namespace");
        let script = ["--mount", "--propagation", "slave", "--", "sh", "-c", SCRIPT, "bench"];
        let id = holder.start(workstation.command("unshare")?.args(script).arg(&images), dir)?;
        wait_until("the place for the bench", Duration::from_secs(30), || {
            if !id.is_alive() {
                crate::fail!("the place for the bench: {}", holder.last_words());
            }
            Ok(std::fs::read_to_string(format!("/proc/{}/comm", id.pid)).is_ok_and(|n| n.trim() == "sleep"))
        })?;
        let address = workstation.seat.address.to_string();
        Ok(Self { workstation, holder, gluster: Daemon::new(dir, "glusterd"), address })
    }

    /// A command that runs there.
    ///
    /// # Errors
    /// The place is gone.
    pub fn command(&self, program: &str) -> Result<Command> {
        let Some(holder) = self.holder.running() else { crate::fail!("the place for the bench is gone") };
        let mut command = self.workstation.command("nsenter")?;
        command.arg(format!("--mount=/proc/{}/ns/mnt", holder.pid)).arg("--").arg(program);
        Ok(command)
    }

    /// Runs a shell script there; what it wrote to stdout.
    ///
    /// # Errors
    /// It fails.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = output(self.command("sh")?.args(["-euc", script]))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts GlusterFS with two bricks and mounts its volume at `/bench/gluster`.
    ///
    /// # Errors
    /// A step of it fails.
    pub fn start_gluster(&self, mark: &std::path::Path) -> Result<()> {
        let id = self.gluster.start(self.command("glusterd")?.arg("--no-daemon"), mark)?;
        wait_until("glusterd", Duration::from_secs(60), || {
            if !id.is_alive() {
                crate::fail!("glusterd: {}", self.gluster.last_words());
            }
            Ok(self.sh("gluster --mode=script volume list").is_ok())
        })?;
        let address = &self.address;
        self.sh(&format!(
            "gluster --mode=script volume create bench replica 2 \
             {address}:/bench/gluster-1/brick {address}:/bench/gluster-2/brick force && \
             gluster --mode=script volume start bench && \
             mount -t glusterfs {address}:/bench /bench/gluster && \
             mountpoint -q /bench/gluster"
        ))?;
        progress::note("GlusterFS: a volume with two replicas, two bricks on this machine");
        Ok(())
    }
}
