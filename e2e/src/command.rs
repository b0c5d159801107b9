//! Runs a program to its end and turns its failure into one line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::{Context, Error, Result};

/// Runs `command` without input; its output, if it ended well.
///
/// # Errors
/// The program is missing or failed; the line has its name and the last line that it wrote to stderr.
pub fn output(command: &mut Command) -> Result<Output> {
    let name = describe(command);
    let output = command.stdin(Stdio::null()).output().map_err(|e| missing(&name, &e))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = last_line(&output.stderr).or_else(|| last_line(&output.stdout)).unwrap_or_default();
    Err(Error::new(format!("`{name}` failed ({}): {said}", output.status)))
}

/// Runs a program with these arguments; what it wrote to stdout.
///
/// # Errors
/// As [`output`].
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    let output = output(Command::new(program).args(args))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program whose output the person shall see as it comes.
///
/// # Errors
/// The program is missing or failed.
pub fn shown(command: &mut Command) -> Result<()> {
    let name = describe(command);
    let status = command.status().map_err(|e| missing(&name, &e))?;
    if !status.success() {
        return Err(Error::new(format!("`{name}` failed ({status})")));
    }
    Ok(())
}

fn missing(name: &str, error: &std::io::Error) -> Error {
    Error::new(format!("cannot start `{name}`: {error}"))
}

/// The command line as a person would write it, cut off where it gets long.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().map(str::trim).find(|l| !l.is_empty()).map(str::to_owned)
}

/// The full path of a program, searched on PATH and where Debian keeps programs for root.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The home directory.
///
/// # Errors
/// HOME is not set.
pub fn home() -> Result<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set: set it to a directory for caches")
}
