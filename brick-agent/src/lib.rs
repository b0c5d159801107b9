//! The brick agent: one per workstation. It mounts each volume that the
//! workstation carries, keeps the brick on the local disk, exchanges journals
//! with its peers, heals, and reports to the API.
//!
//! * [`config`]: what it knows of a volume.
//! * [`brick`]: access to the brick's directory, below which nothing escapes.
//! * [`index`]: the embedded store: journal, objects, pending.
//! * [`volume`]: the file system as a plain library.
//! * [`heal`]: bringing pending files here.
//! * [`fuse`]: the kernel's requests translated to calls of [`volume`].
//! * [`peer`]: talking to other agents.
//! * [`control`]: the Kubernetes API: what to mount, when to heal, reports.
//! * [`supervisor`]: the volumes of this workstation, each by a task of its own.
//! * [`csi`]: volumes for pods, by claims.
//! * [`commands`]: what a person asks the running agent.
//! * [`metrics`]: counts for Prometheus, without names of files.

pub mod brick;
pub mod commands;
pub mod config;
pub mod control;
pub mod csi;
pub mod fuse;
pub mod heal;
pub mod holder;
pub mod index;
pub mod metrics;
pub mod peer;
pub mod supervisor;
pub mod volume;
