//! `cargo lab test`: every test of the workspace, then those that need a lab.

use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};

use nearbrick_e2e::error::Context;
use nearbrick_e2e::testing::GATE;
use nearbrick_e2e::{Result, lab, packages, paths, programs, progress};

/// Test programs that need a lab.
const LAB_TESTS: &[&str] = &["lab", "flows"];

/// Runs all; the exit code is cargo's of the first run that failed.
pub fn run(filter: Option<&str>) -> Result<ExitCode> {
    lab::check_machine()?;
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::TESTS)?;
    packages::ensure(packages::MONITORING)?;
    packages::ensure(packages::PAGE)?;
    packages::ensure_pjdfstest()?;
    let mut closing = Vec::new();
    progress::step("Tests of the workspace");
    let first = cargo_test(&["--workspace", "--no-fail-fast"], filter, false, &mut closing)?;
    progress::step("Tests on a lab");
    let chosen: Vec<&str> = LAB_TESTS.iter().flat_map(|name| ["--test", *name]).collect();
    let arguments = [&["--workspace", "--no-fail-fast"], &chosen[..]].concat();
    let second = cargo_test(&arguments, filter, true, &mut closing)?;
    progress::step("Results");
    for line in &closing {
        println!("{line}");
    }
    Ok(match first && second {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn cargo_test(
    arguments: &[&str],
    filter: Option<&str>,
    lab: bool,
    closing: &mut Vec<String>,
) -> Result<bool> {
    let mut command = programs::cargo();
    command.current_dir(paths::workspace()).arg("test").args(arguments);
    command.args(programs::profile(&paths::profile_dir()?));
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    if lab {
        command.env(GATE, "1");
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    for line in child.stdout.take().into_iter().flat_map(|o| BufReader::new(o).lines()).map_while(|l| l.ok())
    {
        println!("{line}");
        if line.starts_with("test result:") || line.starts_with("left out:") {
            closing.push(line);
        }
    }
    Ok(child.wait().context("cannot wait for cargo")?.success())
}
