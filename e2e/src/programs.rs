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
        progress::note("building the operator and the agent");
        let mut cargo = Command::new(cargo());
        // Without `--package`: a part of the workspace has other features than the whole, and would be built again.
        cargo.current_dir(paths::workspace()).args(["build", "--quiet"]);
        cargo.args(["--bin", "nearbrick-operator", "--bin", "brick-agent"]);
        cargo.args(profile(&dir));
        shown(&mut cargo)?;
        Ok(Self::in_dir(&dir))
    }
}

/// Cargo, as the one that runs us or on PATH.
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Cargo's option for the profile that fills this folder.
pub fn profile(dir: &Path) -> Option<String> {
    match dir.file_name()?.to_str()? {
        "debug" => None,
        name => Some(format!("--profile={name}")),
    }
}
