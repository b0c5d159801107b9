//! Mounts outlive the agent: a tiny process, the *holder*, keeps what a mount is made of while
//! no agent serves it, and hands it to the next agent.
//!
//! * [`wire`]: what is said between them, with descriptors.
//! * [`server`]: the holder's side; [`client`]: the agent's.
//!
//! The kernel ends a FUSE connection when the last descriptor of its device is closed. The
//! holder has a second one of each mount, so an agent's death leaves programs waiting instead of broken. It also
//! has the mount's ledger of open files ([`crate::fuse::ledger`]) and the brick files that programs
//! have open and that have no name any more.
//!
//! Invariants:
//! - The holder knows nothing of volumes, and does nothing with a device but hold it and, when its agent is
//!   gone, ask the kernel to give out again what that one had read and not answered. So it hardly ever
//!   has to be replaced.
//! - What has no agent for longer than the limit is let go: then programs get ENOTCONN, as without a holder.
//! - A mount has one agent at a time: the connection that kept it or took it.

pub mod client;
pub mod server;
pub mod wire;

use std::path::{Path, PathBuf};

/// Where the holder listens.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("holder.sock")
}

/// Where the holder's pid is.
pub fn pid_file(run_dir: &Path) -> PathBuf {
    run_dir.join("holder.pid")
}
