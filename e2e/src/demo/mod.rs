//! `cargo lab demo`: what a new user sees first, with real input and real checks.
//!
//! Invariant: it leaves nothing behind, however it ends, unless it is asked to keep the lab.

mod input;
mod steps;

use std::time::Duration;

use clap::Args;

use crate::error::{Error, Result};
use crate::lab::{self, Lab};
use crate::logs::save;
use crate::progress;
use crate::record::Kind;
use crate::volumes::Volume;

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
        match save(&name) {
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
    let (lab, _) =
        Lab::up(name, &lab::Options { agent, kind: Kind::Nodes, ..lab::Options::default() }).await?;
    progress::step("Manifests of e2e/manifests");
    let volume = Volume::apply_home(&lab.client().await?, "home.yaml").await?;
    volume.wait_ready(&["ws-a", "ws-b", "ws-c"], Duration::from_secs(60)).await?;
    steps::all(&lab, &volume).await
}
