//! What a lab installs: the chart, on nodes with kubelet and containerd, with pods and programs that use volumes.

mod bundle;
mod claims;
mod existing;
mod operators;
mod pods;
mod power;
mod tour;
mod uninstall;
mod upgrade;

use std::process::ExitCode;

use nearbrick_e2e::record::Kind;
use nearbrick_e2e::{cases, testing};

fn main() -> ExitCode {
    testing::run(
        "nodes",
        env!("CARGO_BIN_EXE_lab"),
        Kind::Nodes,
        cases![
            pods::pods_and_people_share_a_volume_and_it_heals,
            claims::pods_share_a_claim_and_find_their_files_wherever_they_are,
            upgrade::agents_are_replaced_while_programs_work,
            operators::another_one_takes_over,
            power::a_node_whose_plug_was_pulled_comes_back,
            bundle::has_objects_events_and_logs_and_no_more_than_the_person_may_read,
            tour::every_line_does_what_the_readme_says,
            existing::tests_of_a_cluster_pass,
            // Afterwards there is nothing to test.
            uninstall::leaves_all_data_where_it_was,
        ],
    )
}
