//! The CSI driver by csi-sanity, the test suite of the people who keep the specification: the real driver (an agent that mounts volumes,
//! and the controller with no rights but those that the chart gives it), the real operator, a real API server.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "../operator_support/mod.rs"]
mod support;

mod controller;
mod sanity;
mod world;
