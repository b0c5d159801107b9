//! `cargo lab test`: every test of the workspace, then those that need a lab.

use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};

use nearbrick_e2e::error::Context;
use nearbrick_e2e::testing::{CLUSTER, GATE};
use nearbrick_e2e::{Error, Result, lab, packages, paths, programs, progress};

/// Test programs that need a lab, the longest first.
const LAB_TESTS: &[&str] = &["flows", "flows_processes", "lab", "nodes"];

/// Runs all; the exit code is cargo's of the first run that failed.
pub fn run(filter: Option<&str>) -> Result<ExitCode> {
    lab::check_machine()?;
    packages::ensure(packages::LAB)?;
    // All at once, before tests run side by side.
    packages::ensure(packages::NODES)?;
    packages::ensure(packages::TESTS)?;
    packages::ensure(packages::MONITORING)?;
    packages::ensure(packages::PAGE)?;
    packages::ensure_pjdfstest()?;
    let mut closing = Vec::new();
    progress::step("Tests of the workspace");
    let first = cargo_test(
        &["--workspace", "--no-fail-fast"],
        filter,
        false,
        |line| println!("{line}"),
        &mut closing,
    )?;
    progress::step("Tests on labs");
    let second = on_labs(filter, &mut closing)?;
    progress::step("Results");
    for line in &closing {
        println!("{line}");
    }
    Ok(match first && second {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Runs the tests of a cluster that is there.
pub fn on_cluster(filter: Option<&str>) -> Result<ExitCode> {
    // The plugin is one of the things that are tried.
    programs::Programs::ensure()?;
    let mut command = programs::cargo();
    command.current_dir(paths::workspace()).args(["test", "--workspace", "--test", "cluster"]);
    command.args(programs::profile(&paths::profile_dir()?)).args(["--", "--nocapture"]).args(filter);
    let status = command.env(CLUSTER, "1").status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Most of the time they wait for their labs, so they run side by side: the first is shown as it goes, the others when they have ended.
fn on_labs(filter: Option<&str>, closing: &mut Vec<String>) -> Result<bool> {
    let build: Vec<&str> = LAB_TESTS.iter().flat_map(|name| ["--test", *name]).collect();
    let print = |line: &str| println!("{line}");
    if !cargo_test(&[&["--workspace", "--no-run"], &build[..]].concat(), None, true, print, closing)? {
        return Ok(false);
    }
    let run = |name: &str, show: &mut dyn FnMut(&str), closing: &mut Vec<String>| {
        cargo_test(&["--workspace", "--test", name], filter, true, show, closing)
    };
    let Some((first, others)) = LAB_TESTS.split_first() else { return Ok(true) };
    let mut said = (Vec::new(), Vec::new());
    let (good, good_too) = std::thread::scope(|scope| {
        let (lines, ends) = (&mut said.0, &mut said.1);
        let beside = scope.spawn(move || {
            let mut show = |line: &str| lines.push(line.to_owned());
            others.iter().try_fold(true, |good, name| Ok(run(name, &mut show, ends)? && good))
        });
        let good = run(first, &mut |line| println!("{line}"), closing);
        (good, beside.join().unwrap_or_else(|_| Err(Error::new("the tests' runner panicked"))))
    });
    said.0.iter().for_each(|line| println!("{line}"));
    closing.extend(said.1);
    Ok(good? && good_too?)
}

fn cargo_test(
    arguments: &[&str],
    filter: Option<&str>,
    lab: bool,
    mut show: impl FnMut(&str),
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
        show(&line);
        if line.starts_with("test result:") || line.starts_with("left out:") {
            closing.push(line);
        }
    }
    Ok(child.wait().context("cannot wait for cargo")?.success())
}
