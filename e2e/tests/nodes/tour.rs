//! The tour in the README, line by line.

use std::process::Command;
use std::time::Duration;

use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::scene::{NODES, Scene};
use nearbrick_e2e::{Lab, Result, fail, paths};

const LIMIT: Duration = Duration::from_secs(90);

/// A line of the tour: what is run, and what is said to come of it.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    command: &'a str,
    shows: Option<&'a str>,
    refuses: Option<&'a str>,
}

/// The lines of the chapter's code.
fn lines(readme: &str) -> Vec<Line<'_>> {
    let chapter = readme.split("\n## ").find(|part| part.starts_with("A ten-minute tour"));
    let blocks =
        chapter.unwrap_or_default().split("```sh\n").skip(1).filter_map(|part| part.split("```").next());
    let line = |line| match str::split_once(line, " # ") {
        Some((command, comment)) => {
            let command = str::trim(command);
            Line {
                command,
                shows: comment.strip_prefix("shows: "),
                refuses: comment.strip_prefix("refuses: "),
            }
        }
        None => Line { command: line, shows: None, refuses: None },
    };
    blocks.flat_map(str::lines).map(line).collect()
}

pub async fn every_line_does_what_the_readme_says(lab: Lab) -> Result<()> {
    // All workstations are on, as in a lab that has just come up.
    let scene = Scene::without_volume(&lab).await?;
    let readme = std::fs::read_to_string(paths::workspace().join("README.md")).context("README.md")?;
    let lines = lines(&readme);
    let (first, last) = (lines.first().map(|l| l.command), lines.last().map(|l| l.command));
    if lines.len() < 20 || first != Some("cargo lab up") || last != Some("cargo lab down") {
        fail!("the tour is another one: {lines:?}");
    }
    let done = walk(&lab, &lines[1..lines.len() - 1]).await;
    lab.set_link("ws-b", true)?;
    for node in NODES {
        lab.start(node)?;
    }
    let manifest = paths::in_crate("manifests/tour.yaml").display().to_string();
    lab.kubectl_output(&["delete", "-f", &manifest, "--ignore-not-found"])?;
    drop(scene);
    done
}

async fn walk(lab: &Lab, lines: &[Line<'_>]) -> Result<()> {
    let ours = format!("{} --name {}", env!("CARGO_BIN_EXE_lab"), lab.identity().name);
    for line in lines {
        println!("{}", line.command);
        let script = line.command.replace("cargo lab", &ours);
        let run = || {
            let output = Command::new("sh").current_dir(paths::workspace()).args(["-c", &script]).output();
            let output = output.map_err(|e| e.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let wanted = line.shows.or(line.refuses).unwrap_or_default();
            let fine = output.status.success() == line.refuses.is_none() && text.contains(wanted);
            if fine { Ok(()) } else { Err(format!("{}: {text}", output.status)) }
        };
        match line.shows {
            // Comes within seconds.
            Some(_) => eventually(line.command, LIMIT, || async { run() }).await?,
            None => run().map_err(|e| nearbrick_e2e::Error::new(format!("{}: {e}", line.command)))?,
        }
    }
    Ok(())
}
