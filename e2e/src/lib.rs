//! The lab: a real cluster of workstations on one machine, for people, tests, demo and benchmarks.
//!
//! Everything that the lab makes on the machine is recorded before it is made (see [`process`] for
//! processes), so that `lab down` finds it after any crash.

pub mod command;
pub mod control_plane;
pub mod error;
pub mod kube_api;
pub mod kubeconfig;
pub mod lock;
pub mod paths;
pub mod pki;
pub mod process;
pub mod progress;

pub use control_plane::ControlPlane;
pub use error::{Error, Result};
