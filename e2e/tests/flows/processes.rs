//! Flows that handle the agents and the operator themselves: on a lab where these are processes.

mod bad_input;
mod clocks;
#[allow(dead_code)]
mod plugin;

use std::process::ExitCode;

use nearbrick_e2e::record::Kind;
use nearbrick_e2e::{cases, testing};

fn main() -> ExitCode {
    testing::run(
        "processes",
        env!("CARGO_BIN_EXE_lab"),
        Kind::Processes,
        cases![
            clocks::that_are_apart_neither_stop_heals_nor_decide_what_is_newer,
            bad_input::a_folder_that_is_no_brick,
            bad_input::a_brick_of_another_volume,
            bad_input::a_file_system_without_attributes,
            bad_input::no_fuse,
            bad_input::no_root,
            bad_input::port_taken,
        ],
    )
}
