//! `cargo lab demo`: what a new user sees first, with real input and real checks.
//!
//! Invariant: it leaves nothing behind, however it ends, unless it is asked to keep the lab.

mod input;
mod steps;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::error::{Context, Error, Result};
use crate::lab::{self, Lab};
use crate::volumes::Volume;
use crate::{paths, progress};

/// Options of the demo.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Leave the lab running at the end.
    #[arg(long)]
    pub keep: bool,
    /// Have the agents serve all reads and writes themselves.
    #[arg(long)]
    pub no_passthrough: bool,
}

/// Runs the demo on a lab of its own, whose name is that of the lab with `-demo` behind it.
///
/// # Errors
/// The first check that failed, in one line.
pub async fn run(name: &str, options: &Options) -> Result<()> {
    let name = format!("{name}-demo");
    lab::check_machine()?;
    if Lab::down(&name)? {
        progress::note("took down what an earlier demo left");
    }
    let result = tokio::select! {
        result = play(&name, options) => result,
        _ = tokio::signal::ctrl_c() => Err(Error::new("interrupted")),
    };
    if let Err(error) = &result {
        match save_logs(&name) {
            Ok(dir) => eprintln!("lab: logs and objects are in {}", dir.display()),
            Err(other) => progress::warn(format!("logs cannot be saved after {error:?}: {other}")),
        }
    }
    if options.keep {
        println!("The lab runs on: use `cargo lab --name {name} ...`, and `cargo lab --name {name} down`.");
    } else {
        progress::step("Taking the lab down");
        Lab::down(&name)?;
    }
    result
}

async fn play(name: &str, options: &Options) -> Result<()> {
    let agent = if options.no_passthrough { vec!["--no-passthrough".to_owned()] } else { Vec::new() };
    let (lab, _) = Lab::up(name, &lab::Options { agent }).await?;
    progress::step("Manifests of e2e/manifests");
    let volume = Volume::apply_home(&lab.client().await?, "home.yaml").await?;
    volume.wait_ready(&["ws-a", "ws-b", "ws-c"], Duration::from_secs(60)).await?;
    steps::all(&lab, &volume).await
}

/// Copies the logs, and the objects as they are, to a place that stays.
///
/// # Errors
/// It cannot be written.
pub fn save_logs(name: &str) -> Result<PathBuf> {
    let lab = Lab::open(name);
    let identity = crate::record::Identity::new(name)?;
    let dir = paths::target("lab-logs")?.join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).context(format!("cannot make {}", dir.display()))?;
    for entry in std::fs::read_dir(identity.dir.join("logs")).into_iter().flatten().flatten() {
        let to = dir.join(entry.file_name());
        std::fs::copy(entry.path(), &to).context(format!("cannot write {}", to.display()))?;
    }
    // Where the control plane still answers.
    let lab = lab.ok().filter(|lab| lab.cluster().is_running());
    let kinds = ["get", "nearbrick,events", "--all-namespaces", "--request-timeout=5s", "--output=yaml"];
    if let Some(Ok(text)) = lab.map(|lab| lab.kubectl_output(&kinds)) {
        let to = dir.join("objects.yaml");
        std::fs::write(&to, text).context(format!("cannot write {}", to.display()))?;
    }
    Ok(dir)
}
