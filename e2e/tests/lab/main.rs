//! The lab itself: up and down, also after a crash of either, two side by side, and what it says where
//! something is missing.

use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use nearbrick_e2e::error::Context;
use nearbrick_e2e::nodes::cgroup;
use nearbrick_e2e::record::Identity;
use nearbrick_e2e::{Lab, Result, fail, netns, process, testing};

fn main() -> ExitCode {
    testing::run_alone(vec![
        ("down_without_a_lab_is_fine", down_without_a_lab_is_fine),
        ("without_root_it_says_so", without_root_it_says_so),
        ("without_fuse_it_says_so", without_fuse_it_says_so),
        ("without_room_it_says_so", without_room_it_says_so),
        ("two_labs_side_by_side", two_labs_side_by_side),
        ("a_killed_up_leaves_nothing_after_down", a_killed_up_leaves_nothing_after_down),
        ("up_after_a_crash_starts_again", up_after_a_crash_starts_again),
        ("nodes_that_were_killed_leave_nothing_after_down", nodes_that_were_killed_leave_nothing_after_down),
    ])
}

/// A lab that is up soon.
const UP: &[&str] = &["up", "--processes"];

fn lab(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["--name", name]).args(arguments).stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Result<Output> {
    command.output().context("cannot run lab")
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

fn must_succeed(name: &str, arguments: &[&str]) -> Result<String> {
    let output = output(&mut lab(name, arguments))?;
    match output.status.success() {
        true => Ok(said(&output)),
        false => fail!("lab {}: {}", arguments.join(" "), said(&output)),
    }
}

/// Checks that nothing of a lab is left on the machine.
fn must_be_gone(name: &str) -> Result<()> {
    let identity = Identity::new(name)?;
    let prefix = identity.namespace_prefix();
    let processes = process::find(|pid| process::has_mark(pid, &identity.dir) || cgroup::has(pid, &prefix));
    let loops = nearbrick_e2e::command::run("losetup", ["--noheadings", "--output", "BACK-FILE"])?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("mounts")?;
    let dir = format!("{}/", identity.dir.display());
    let left = [
        (!processes.is_empty()).then(|| format!("processes {processes:?}")),
        loops.lines().find(|l| l.starts_with(&dir)).map(|l| format!("loop device {l}")),
        mounts.lines().find(|l| l.contains(&dir)).map(|l| format!("mount {l}")),
        netns::namespaces(&identity).pop().map(|n| format!("namespace {n}")),
        cgroup::all(&identity.namespace_prefix()).pop().map(|g| format!("control group {}", g.display())),
        Path::new("/sys/class/net").join(identity.uplink()).exists().then(|| "the link".to_owned()),
        identity.dir.exists().then(|| format!("{}", identity.dir.display())),
        identity.lock().exists().then(|| format!("{}", identity.lock().display())),
    ];
    match left.into_iter().flatten().next() {
        None => Ok(()),
        Some(what) => fail!("lab {name} is down, and left {what}"),
    }
}

/// Labs of a test: taken down however the test ends.
struct Labs(&'static [&'static str]);

impl Drop for Labs {
    fn drop(&mut self) {
        for name in self.0 {
            if let Err(error) = must_succeed(name, &["down"]) {
                eprintln!("{error}");
            }
        }
    }
}

fn down_without_a_lab_is_fine() -> Result<()> {
    must_succeed("none", &["down"])?;
    must_succeed("none", &["down"])?;
    must_be_gone("none")
}

fn without_root_it_says_so() -> Result<()> {
    let program = env!("CARGO_BIN_EXE_lab");
    let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    // The build may be where only root can look: a copy that everybody may run.
    let dir = tempfile::tempdir().context("a directory")?;
    let copy = dir.path().join("lab");
    std::fs::copy(program, &copy).context("a copy")?;
    nearbrick_e2e::command::run("chmod", ["-R", "a+rx", &dir.path().display().to_string()])?;
    must_refuse(Command::new("setpriv").args(as_nobody).arg(&copy).arg("up"), "root")
}

/// Runs `lab up` where something is missing: it must say one line with this word in it.
fn must_refuse(command: &mut Command, word: &str) -> Result<()> {
    let output = output(command)?;
    let text = said(&output);
    let lines = text.lines().filter(|line| line.starts_with("lab: ")).count();
    match !output.status.success() && lines == 1 && text.contains(word) {
        true => Ok(()),
        false => fail!("{word} is missing, and `lab up` says: {text:?}"),
    }
}

/// Runs a script in a mount namespace of its own; `$0` is the lab's program.
fn apart(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", script, env!("CARGO_BIN_EXE_lab")]);
    command
}

fn without_fuse_it_says_so() -> Result<()> {
    let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$0\" --name none up";
    must_refuse(&mut apart(script), "/dev/fuse")?;
    must_be_gone("none")
}

fn without_room_it_says_so() -> Result<()> {
    let dir = tempfile::tempdir().context("a directory")?;
    let script = "mount -t tmpfs -o size=64m none \"$NEARBRICK_LAB_DIR\" && exec \"$0\" --name none up";
    must_refuse(apart(script).env("NEARBRICK_LAB_DIR", dir.path()), "GiB needed")
}

fn two_labs_side_by_side() -> Result<()> {
    let _labs = Labs(&["one", "two"]);
    for name in ["one", "two"] {
        must_succeed(name, UP)?;
    }
    let again = must_succeed("one", UP)?;
    if !again.contains("already up") {
        fail!("up twice says: {again}");
    }
    let ids =
        ["one", "two"].map(|name| must_succeed(name, &["kubectl", "get", "ns", "default", "-o", "uid"]));
    let _ = ids;
    let subnets = [Lab::open("one")?.record().subnet, Lab::open("two")?.record().subnet];
    if subnets[0] == subnets[1] {
        fail!("both labs have the network 10.199.{}.0/24", subnets[0]);
    }
    must_succeed("one", &["exec", "ws-a", "--", "sh", "-c", "echo one > /volumes/default/home/name"])?;
    must_succeed("one", &["down"])?;
    must_be_gone("one")?;
    let other = must_succeed("two", &["exec", "ws-a", "--", "ls", "/volumes/default/home"])?;
    if !other.trim().is_empty() {
        fail!("the other lab sees {other}");
    }
    must_succeed("two", &["down"])?;
    must_be_gone("two")
}

/// Starts `lab up`, kills it (SIGKILL) after a time, and waits for its end.
fn killed_up(name: &str, up: &[&str], after: Duration) -> Result<bool> {
    let mut child =
        lab(name, up).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot run lab")?;
    let begin = Instant::now();
    let mut ended = None;
    process::wait_until("the moment to kill", after * 2 + Duration::from_secs(60), || {
        ended = child.try_wait().context("cannot wait")?;
        Ok(ended.is_some() || begin.elapsed() >= after)
    })?;
    if ended.is_none() {
        child.kill().context("cannot kill")?;
        child.wait().context("cannot wait")?;
    }
    Ok(ended.is_none())
}

fn a_killed_up_leaves_nothing_after_down() -> Result<()> {
    let _labs = Labs(&["crash"]);
    must_succeed("crash", &["down"])?;
    // Moments all over the way: from the network to the volume's first mount.
    for step in 1..=14_u32 {
        let killed = killed_up("crash", UP, Duration::from_millis(u64::from(step * step) * 40))?;
        must_succeed("crash", &["down"])?;
        must_be_gone("crash")?;
        if !killed {
            break;
        }
    }
    Ok(())
}

fn up_after_a_crash_starts_again() -> Result<()> {
    let _labs = Labs(&["crash"]);
    must_succeed("crash", &["down"])?;
    killed_up("crash", UP, Duration::from_millis(1500))?;
    must_succeed("crash", UP)?;
    must_succeed("crash", &["kubectl", "get", "nodes"])?;
    // Everything dies, as after a power cut of the machine: up notices and starts again.
    let identity = Identity::new("crash")?;
    for process in process::find(|pid| process::has_mark(pid, &identity.dir)) {
        process.kill()?;
    }
    let text = must_succeed("crash", UP)?;
    if text.contains("already up") {
        fail!("up on a dead lab says: {text}");
    }
    must_succeed("crash", &["down"])?;
    must_be_gone("crash")
}

fn nodes_that_were_killed_leave_nothing_after_down() -> Result<()> {
    let _labs = Labs(&["crash"]);
    must_succeed("crash", &["down"])?;
    let there = || ["/var/lib/cni", "/var/lib/kubelet", "/run/nearbrick"].map(|f| Path::new(f).exists());
    let before = there();
    // While images are packed, while kubelets begin, while pods begin; and when all runs, pods, mounts and all.
    for seconds in [6, 12, 20, 60] {
        killed_up("crash", &["up"], Duration::from_secs(seconds))?;
        must_succeed("crash", &["down"])?;
        must_be_gone("crash")?;
    }
    // What it has on the machine is in its own folder: none of what containers usually leave.
    match there() == before {
        true => Ok(()),
        false => fail!("the lab is down, and left a folder of containers, networks or holders"),
    }
}
