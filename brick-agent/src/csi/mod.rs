//! The CSI driver `nearbrick.io`: volumes for pods, by claims.
//!
//! * [`node`] shows a volume, which the agent has mounted on its node, to pods: part of every agent;
//! * [`controller`] makes `WorkstationVolume`s for claims: a process of its own, with an identity of its own, because an agent's
//!   must not be able to make or delete anybody's volumes (`docs/SECURITY.md`);
//! * `identity` is the same in both; [`server`] is gRPC on a Unix socket (`authority`: also for kubelet), [`register`] tells kubelet of it;
//! * `id`, `parameters`, `capability` are the rules, as functions on values; `mounts` asks the kernel; `types` are the messages.
//!
//! Invariant: nothing here touches files of a volume. What is unpublished or deleted is a mount or an object of the API.

mod authority;
mod capability;
pub mod controller;
mod id;
mod identity;
mod mounts;
pub mod node;
mod parameters;
pub mod register;
pub mod server;
mod types;

use nearbrick_crds::meta::{GROUP, LABEL_NODE};

/// The driver's name.
pub const DRIVER: &str = GROUP;
/// The label by which volumes say from which nodes they can be used; kubelet puts it on the node.
pub const TOPOLOGY: &str = LABEL_NODE;
