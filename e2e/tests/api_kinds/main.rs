//! The kinds of `nearbrick.io` on a real API server, without anybody who acts on them: what the server
//! refuses by itself, and what it prints.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "../operator_support/mod.rs"]
mod support;

mod columns;
mod rules;
