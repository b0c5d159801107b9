//! The tests for clusters that are there, on this one as on any other.

use std::process::Command;

use nearbrick_e2e::error::Context;
use nearbrick_e2e::nodes::image::SHELL;
use nearbrick_e2e::{Lab, Result, fail};

pub async fn tests_of_a_cluster_pass(lab: Lab) -> Result<()> {
    // Built beside this one; how Cargo would start it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .args(["test", "--cluster"])
        .env("KUBECONFIG", lab.kubeconfig())
        .env("NEARBRICK_SHELL_IMAGE", SHELL);
    command.env("NO_PROXY", lab.record().uplink_address().to_string());
    let output = command.output().context("cannot run lab")?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    match output.status.success() && text.contains("2 passed") {
        true => Ok(()),
        false => fail!("{text}"),
    }
}
