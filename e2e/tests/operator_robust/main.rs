//! The operator where things go wrong around it: killed between any two of its steps, an API server that answers with errors, late or not at
//! all, and objects that it cannot read.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "../operator_support/mod.rs"]
mod support;

mod faults;
mod invalid;
mod killed;
mod proxy;
mod story;

/// All tests share one control plane, and an operator acts on all of it: one test at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
