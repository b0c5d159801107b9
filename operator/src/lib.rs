//! The operator.
pub mod plan;
