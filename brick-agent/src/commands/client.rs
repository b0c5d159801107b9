//! The other side of the socket: asks, and shows what is answered.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};

use nearbrick_crds::jiff::Timestamp;
use nearbrick_crds::pending::{human_bytes, human_files};

use super::{Answer, Ask, Progress, Version, socket};

/// Asks the agent with this run directory, and gives each part of the answer to `hear`.
///
/// # Errors
/// One clear line.
pub fn ask(run_dir: &Path, ask: &Ask, mut hear: impl FnMut(Answer)) -> Result<(), String> {
    let at = socket(run_dir);
    let mut stream = UnixStream::connect(&at).map_err(|error| {
        format!(
            "the agent of this workstation cannot be asked at {}: {error}: does it run, and are you root? --run-dir says \
             where it is",
            at.display()
        )
    })?;
    let gone = |error: io::Error| format!("the agent did not answer to the end: {error}");
    let mut line = serde_json::to_vec(ask).map_err(|error| error.to_string())?;
    line.push(b'\n');
    stream.write_all(&line).map_err(gone)?;
    for line in BufReader::new(stream).lines() {
        match serde_json::from_str(&line.map_err(gone)?).map_err(|error| gone(error.into()))? {
            Answer::Failed(line) => return Err(line),
            Answer::End => return Ok(()),
            restored @ Answer::Restored(_) => {
                hear(restored);
                return Ok(());
            }
            part @ (Answer::Version(_) | Answer::Scrub(_)) => hear(part),
        }
    }
    Err("the agent did not answer to the end: its log says why".to_owned())
}

/// A path as the agent takes it: absolute, without dots. Symbolic links in it are not followed.
///
/// # Errors
/// The working directory is gone.
pub fn absolute(path: &Path) -> Result<Vec<u8>, String> {
    let whole = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut plain = PathBuf::new();
    for part in whole.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    Ok(plain.as_os_str().as_bytes().to_vec())
}

/// Heads of the columns of [`line`].
pub const HEADS: &str =
    "KEPT SINCE           WHY       SIZE          WRITTEN              ON            VERSION\n    PATH";

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms)
        .map_or_else(|_| "?".to_owned(), |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A version, for a terminal: its path is on a line of its own, with what is not text escaped.
pub fn line(version: &Version) -> String {
    let path = version.path.as_ref().map_or_else(
        || "(not known)".to_owned(),
        |path| Path::new(OsStr::from_bytes(path)).display().to_string().escape_debug().to_string(),
    );
    format!(
        "{:<20} {:<9} {:<13} {:<20} {:<13} {}\n    {path}",
        time(i64::try_from(version.since_ms).unwrap_or(i64::MAX)),
        version.why,
        version.size,
        time(version.mtime.saturating_mul(1000)),
        version.writer.as_deref().unwrap_or("?"),
        version.id,
    )
}

/// How far a look through a brick is, in a line for a terminal.
pub fn progress(of: &Progress) -> String {
    let Progress { done, files, bytes, names, edited, damaged, left, unrepaired } = of;
    let mut line = format!("{} ({}) as they should be", human_files(*files), human_bytes(*bytes));
    let more = [
        (*names, "names changed past the mount"),
        (*edited, "files changed past the mount"),
        (*damaged, "damaged"),
        (*left, "not looked at, mostly because programs write them"),
        (*unrepaired, "not repaired yet"),
    ];
    for (count, what) in more.iter().filter(|(count, _)| *count > 0) {
        line.push_str(&format!("; {count} {what}"));
    }
    line.push_str(if *done { "; done" } else { " ..." });
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_without_dots() {
        assert_eq!(absolute(Path::new("/volumes/lab/../lab/./home/a")).unwrap(), b"/volumes/lab/home/a");
        assert!(absolute(Path::new("a")).unwrap().starts_with(b"/"));
    }

    #[test]
    fn progress_says_what_there_is_to_say() {
        let well = Progress { files: 2, bytes: 2048, ..Progress::default() };
        assert_eq!(progress(&well), "2 files (2.0 KiB) as they should be ...");
        let ill = Progress { done: true, damaged: 1, unrepaired: 3, ..well };
        assert_eq!(
            progress(&ill),
            "2 files (2.0 KiB) as they should be; 1 damaged; 3 not repaired yet; done"
        );
    }

    #[test]
    fn a_line_has_no_control_characters() {
        let version = Version {
            id: "x".to_owned(),
            file: None,
            path: Some(b"/v/a\n\x1b[31mb".to_vec()),
            why: "lost".to_owned(),
            since_ms: 0,
            size: 5,
            mtime: -1,
            writer: None,
        };
        let line = line(&version);
        assert!(line.ends_with("\n    /v/a\\n\\u{1b}[31mb"), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }
}
