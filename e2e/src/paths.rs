//! Where things are: the work tree, the caches, the build's output.

use std::path::{Path, PathBuf};

use crate::command::home;
use crate::error::{Context, Result};

/// The root of the work tree that this program was built from.
pub fn workspace() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir).to_path_buf()
}

/// A file or folder of this crate.
pub fn in_crate(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The folder for things that are built once and kept: `$XDG_CACHE_HOME/nearbrick`.
///
/// # Errors
/// Neither XDG_CACHE_HOME nor HOME is set.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => home()?.join(".cache"),
    };
    Ok(base.join("nearbrick"))
}

/// Cargo's home.
///
/// # Errors
/// Neither CARGO_HOME nor HOME is set.
pub fn cargo_home() -> Result<PathBuf> {
    match std::env::var_os("CARGO_HOME") {
        Some(dir) if !dir.is_empty() => Ok(PathBuf::from(dir)),
        _ => Ok(home()?.join(".cargo")),
    }
}

/// The folder of the profile into which this program was built, such as `target/debug`.
///
/// # Errors
/// The running program cannot be found.
pub fn profile_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("cannot find the running program")?;
    let dir = exe.parent().context("the running program has no folder")?;
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    Ok(dir.to_path_buf())
}

/// The folder for reports of this build, such as `target/bench`.
///
/// # Errors
/// The running program cannot be found.
pub fn target(part: &str) -> Result<PathBuf> {
    let profile = profile_dir()?;
    Ok(profile.parent().unwrap_or(&profile).join(part))
}
