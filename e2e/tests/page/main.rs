//! The operator's status page: what it says to whom, by HTTP, and what a browser makes of it.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]
// What other tests use of them.
#![allow(dead_code)]

#[path = "../operator_support/mod.rs"]
mod support;

mod browser;
mod log;
mod markup;
mod names;
mod polling;
mod world;
