//! Flows that handle the agents and the operator themselves: on a lab where these are processes.

mod bad_input;
mod clocks;
mod files;
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
            files::the_group_is_known_to_kubectl,
            files::what_is_pending_is_listed_in_pages,
            files::where_a_file_is_and_its_versions_come_back,
            files::only_who_may_see_a_namespace_may_ask_and_only_by_the_api_server,
            // After them: agents go on with what they heard of clocks that were ahead. Before those whose bricks do not open: nobody may leave then.
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
