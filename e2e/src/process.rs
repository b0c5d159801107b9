//! Processes that the lab starts and leaves running: known by pid, start time and boot, so that a pid
//! that another program got later is never taken for ours.
//!
//! Invariants:
//! - A signal goes only to a process whose start time is the recorded one (checked on a pidfd, so that
//!   nothing can come in between).
//! - Every process carries [`MARK`] in its environment, and so do its children: what a crash left without a
//!   pid file is found by it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use serde::{Deserialize, Serialize};

use crate::command::describe;
use crate::error::{Context, Result};

/// The environment variable that names the lab to which a process belongs (its state directory).
pub const MARK: &str = "NEARBRICK_LAB_MARK";

/// How long a process may take to end after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(20);

/// A process, as it is told apart from all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid.
    pub pid: i32,
    /// Its start, in ticks since the machine's.
    pub start: u64,
    /// The machine's start.
    pub boot: String,
}

/// State letter and start time of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything: what follows the last one is sure.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl ProcessId {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Self> {
        let (_, start) = stat(pid)?;
        Some(Self { pid, start, boot: boot() })
    }

    /// Whether it still runs. One that ended and that its parent has not noticed does not.
    pub fn is_alive(&self) -> bool {
        match stat(self.pid) {
            Some((state, start)) if start == self.start && boot() == self.boot => {
                if state != 'Z' {
                    return true;
                }
                // If it is our own child, this is where it is laid to rest.
                if let Some(pid) = Pid::from_raw(self.pid) {
                    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
                }
                false
            }
            _ => false,
        }
    }

    /// Sends a signal, unless the process is gone.
    pub fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // The descriptor is of one process for good; is it the recorded one?
        if self.is_alive() {
            let _ = pidfd_send_signal(&fd, signal);
        }
    }

    /// Waits until it is gone; whether that came within `limit`.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.is_alive() {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }

    /// SIGTERM, and SIGKILL if that is not enough within `grace`.
    ///
    /// # Errors
    /// It is still there after SIGKILL.
    pub fn stop(&self, grace: Duration) -> Result<()> {
        self.signal(Signal::TERM);
        if self.wait_gone(grace) {
            return Ok(());
        }
        self.kill()
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It is still there after a while: it hangs in the kernel.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL);
        if !self.wait_gone(Duration::from_secs(20)) {
            crate::fail!(
                "process {} does not end: it hangs in the kernel; look at /proc/{0}/stack",
                self.pid
            );
        }
        Ok(())
    }
}

/// A program that runs in the background, with its pid file and its log.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// What it is called.
    pub name: String,
    /// Where its process is recorded.
    pub pid_file: PathBuf,
    /// Where what it writes goes.
    pub log: PathBuf,
}

impl Daemon {
    /// A program of the lab whose state is in `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            pid_file: dir.join("run").join(format!("{name}.pid")),
            log: dir.join("logs").join(format!("{name}.log")),
        }
    }

    /// Its process, if it runs.
    pub fn running(&self) -> Option<ProcessId> {
        let text = std::fs::read_to_string(&self.pid_file).ok()?;
        let id: ProcessId = serde_json::from_str(&text).ok()?;
        id.is_alive().then_some(id)
    }

    /// Starts it, unless it runs already. Programs such as nsenter that replace themselves are fine.
    ///
    /// # Errors
    /// It cannot be started, or its pid cannot be recorded.
    pub fn start(&self, command: &mut Command, mark: &Path) -> Result<ProcessId> {
        use std::os::unix::process::CommandExt;
        if let Some(id) = self.running() {
            return Ok(id);
        }
        for file in [&self.pid_file, &self.log] {
            if let Some(dir) = file.parent() {
                std::fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
            }
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .context(format!("cannot write {}", self.log.display()))?;
        let error_log = log.try_clone().context("cannot share the log")?;
        let child = command
            .env(MARK, mark)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(error_log)
            // Ctrl-C is for the lab's own program, not for what it leaves running.
            .process_group(0)
            .spawn()
            .context(format!("cannot start `{}`", describe(command)))?;
        let pid = i32::try_from(child.id()).context("odd pid")?;
        let id =
            ProcessId::of(pid).context(format!("{} ended at once: see {}", self.name, self.log.display()))?;
        let text = serde_json::to_string(&id).context("cannot record a process")?;
        write_whole(&self.pid_file, text.as_bytes())?;
        Ok(id)
    }

    /// Ends it if it runs, with SIGTERM first.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self, grace: Duration) -> Result<()> {
        if let Some(id) = self.running() {
            id.stop(grace)?;
        }
        let _ = std::fs::remove_file(&self.pid_file);
        Ok(())
    }

    /// The last lines of its log.
    pub fn tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The last line of its log that says something: why it ended.
    pub fn last_words(&self) -> String {
        let text = self.tail(20);
        let line = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
        line.trim().to_owned()
    }
}

/// Writes a file so that it is there as a whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    std::fs::write(&new, content).context(format!("cannot write {}", new.display()))?;
    std::fs::rename(&new, path).context(format!("cannot write {}", path.display()))
}

/// Waits until `ready` says so.
///
/// # Errors
/// `ready` fails, or `limit` passes; the line says what was waited for.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        if ready()? {
            return Ok(());
        }
        if start.elapsed() > limit {
            crate::fail!("waited {} s in vain for {what}", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// All processes for which `is_ours` says so, but for this one and those that it came from.
pub fn find(is_ours: impl Fn(i32) -> bool) -> Vec<ProcessId> {
    let spared = ancestors();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| !spared.contains(pid) && is_ours(*pid))
        .filter_map(ProcessId::of)
        .filter(ProcessId::is_alive)
        .collect()
}

/// Whether a process carries the mark of the lab whose state directory is `mark`.
pub fn has_mark(pid: i32, mark: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let wanted = [MARK.as_bytes(), b"=", mark.as_os_str().as_bytes()].concat();
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|b| *b == 0).any(|entry| entry == wanted)
}

/// Device and inode of a namespace of a process, such as `mnt` or `net`.
pub fn namespace(pid: i32, kind: &str) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok()?;
    Some((meta.dev(), meta.ino()))
}

fn ancestors() -> Vec<i32> {
    let mut all = Vec::new();
    let mut pid = i32::try_from(std::process::id()).unwrap_or(0);
    while pid > 1 && !all.contains(&pid) {
        all.push(pid);
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        pid = parent.unwrap_or(0);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let daemon = Daemon::new(dir.path(), "sleeper");
        let id = daemon.start(Command::new("sleep").arg("600"), dir.path()).expect("it starts");
        assert!(id.is_alive());
        // The kernel lets the parent go on a moment before the new environment can be seen.
        wait_until("the mark", Duration::from_secs(10), || Ok(has_mark(id.pid, dir.path())))
            .expect("it is there");
        assert_eq!(find(|pid| has_mark(pid, dir.path())), vec![id.clone()]);
        let other = ProcessId { start: id.start + 1, ..id.clone() };
        assert!(!other.is_alive(), "the same pid with another start is another process");
        other.signal(Signal::KILL);
        assert!(id.is_alive(), "and it gets no signal");
        daemon.stop(Duration::from_secs(5)).expect("it ends");
        assert!(!id.is_alive() && daemon.running().is_none());
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed() {
        let dir = tempfile::tempdir().expect("a directory");
        let daemon = Daemon::new(dir.path(), "deaf");
        let ready = dir.path().join("ready");
        let script = format!("trap '' TERM; touch {}; while :; do sleep 1; done", ready.display());
        let id = daemon.start(Command::new("sh").args(["-c", &script]), dir.path()).expect("it starts");
        wait_until("the trap", Duration::from_secs(10), || Ok(ready.exists())).expect("it is set");
        daemon.stop(Duration::from_millis(100)).expect("it is killed");
        assert!(!id.is_alive());
        for rest in find(|pid| has_mark(pid, dir.path())) {
            rest.kill().expect("its child ends too");
        }
    }
}
