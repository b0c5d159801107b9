//! Our own programs: the operator and the agent, built by Cargo in the profile of the lab itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::command::shown;
use crate::error::Result;
use crate::{paths, progress};

/// A folder with built programs, to be taken as they are.
pub const PROGRAMS_DIR: &str = "NEARBRICK_PROGRAMS";

/// Where the programs are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// nearbrick-operator.
    pub operator: PathBuf,
    /// brick-agent.
    pub agent: PathBuf,
}

impl Programs {
    fn in_dir(dir: &Path) -> Self {
        Self { operator: dir.join("nearbrick-operator"), agent: dir.join("brick-agent") }
    }

    /// Builds both, or takes those in `NEARBRICK_PROGRAMS`.
    ///
    /// # Errors
    /// Cargo fails, or a program is not there.
    pub fn ensure() -> Result<Self> {
        let given = std::env::var_os(PROGRAMS_DIR).filter(|dir| !dir.is_empty());
        let programs = match &given {
            Some(dir) => Self::in_dir(Path::new(dir)),
            None => Self::build()?,
        };
        for file in [&programs.operator, &programs.agent] {
            if !file.exists() {
                crate::fail!("{} is not there: unset {PROGRAMS_DIR} to have it built", file.display());
            }
        }
        Ok(programs)
    }

    fn build() -> Result<Self> {
        let dir = paths::profile_dir()?;
        progress::note("building the operator, the agent and the plugin of kubectl");
        let mut cargo = cargo();
        // Without `--package`: a part of the workspace has other features than the whole, and would be built again.
        cargo.current_dir(paths::workspace()).args(["build", "--quiet"]);
        cargo.args(["--bin", "nearbrick-operator", "--bin", "brick-agent", "--bin", "kubectl-nearbrick"]);
        cargo.args(profile(&dir));
        shown(&mut cargo)?;
        Ok(Self::in_dir(&dir))
    }
}

/// Cargo, as the one that runs us or on PATH.
///
/// It is started as a person would start it: what the one that runs us says of our own package is taken away. Build scripts
/// look at that (ring's does), so that each would undo what the other has built, and all that depends on it.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_a_package) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn is_of_a_package(name: &str) -> bool {
    let starts = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    starts.iter().any(|start| name.starts_with(start)) || matches!(name, "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
}

/// Cargo's option for the profile that fills this folder.
pub fn profile(dir: &Path) -> Option<String> {
    match dir.file_name()?.to_str()? {
        "debug" => None,
        name => Some(format!("--profile={name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_not_told_which_package_started_it() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_BIN_NAME", "OUT_DIR"] {
            assert!(is_of_a_package(name), "{name}");
        }
        for name in ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "PATH", "CC"] {
            assert!(!is_of_a_package(name), "{name}");
        }
    }
}
