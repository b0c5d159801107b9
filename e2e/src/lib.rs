//! The lab: a real cluster of workstations on one machine, for people, tests, demo and benchmarks.
//!
//! Everything that the lab makes on the machine follows from its record ([`record`]), which is written first,
//! or carries its mark ([`process`]): so `lab down` finds it after any crash.

pub mod bench;
pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod demo;
pub mod disk;
pub mod error;
pub mod fleet;
pub mod kube_api;
pub mod kubeconfig;
pub mod lab;
pub mod lock;
pub mod logs;
pub mod netns;
pub mod nodes;
pub mod observer;
pub mod packages;
pub mod paths;
pub mod pki;
pub mod process;
pub mod programs;
pub mod progress;
pub mod record;
pub mod scene;
pub mod soak;
pub mod story;
pub mod testing;
pub mod tokens;
pub mod trees;
pub mod volumes;
pub mod workstation;

pub use control_plane::ControlPlane;
pub use error::{Error, Result};
pub use lab::Lab;
