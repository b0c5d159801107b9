//! What tests on a lab share.
/// Set to 1, tests that need a lab (and root) run.
pub const GATE: &str = "NEARBRICK_LAB_TESTS";
