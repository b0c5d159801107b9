//! pjdfstest, a suite of some four hundred POSIX cases, on a mounted volume: as root, who is also its other
//! users in turn, and as a user without rights. Nothing may fail that the brick's own
//! file system passes.
//!
//! `cargo lab test` installs the program; without it these tests are left out.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::disk::{Disk, TestDir};
use support::mounts::MountedLab;

/// What does not pass on a volume and does on the disk below it. Each is in `docs/SEMANTICS.md`, *Calls*.
const EXPECTED: &[&str] = &[
    // Left out by the suite: it asks the C library for the most names of a file, which knows that by the kind of
    // the file system, and of FUSE only the least that POSIX allows.
    "link::link_count_max",
];

/// What passes or fails by chance, for a reason that is there too.
const CHANCE: &[&str] = &[
    // Its last case empties a running program by O_RDONLY | O_TRUNC. The kernel has FUSE truncate with the open, and looks
    // only then whether the file is being executed; if the program has died of it by then, the open succeeds.
    "open::etxtbsy",
];

/// A user of every Debian system who owns nothing here, and that user's group.
const USER: (u32, u32) = (1, 1);

const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = REMOUNT
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped,
    Failed(String),
}

fn program() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let ours = cache.map(|dir| dir.join("nearbrick/tools/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = ours
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join("pjdfstest"))
        .find(|p| p.is_file());
    if found.is_none() {
        println!("left out: pjdfstest is not here: `cargo lab test` installs it");
    }
    found
}

/// Runs the cases that match, in a new folder `name` of `at`.
struct Suite {
    program: PathBuf,
    dir: TestDir,
}

impl Suite {
    /// The program where any user can run it. None, with a line that says why, if there is none.
    fn new() -> Option<Self> {
        let (from, dir) = (program()?, TestDir::new());
        let program = dir.path().join("pjdfstest");
        std::fs::copy(from, &program).unwrap();
        // By itself mount(8) hands a FUSE file system to a helper of that name, and volumes have none.
        let mount = dir.dir("bin").join("mount");
        std::fs::write(&mount, "#!/bin/sh\nPATH=/usr/bin:/bin exec mount -i \"$@\"\n").unwrap();
        std::fs::set_permissions(&mount, std::fs::Permissions::from_mode(0o755)).unwrap();
        dir.dir("second");
        Some(Suite { program, dir })
    }

    fn run(
        &self,
        at: &Path,
        name: &str,
        user: Option<(u32, u32)>,
        remounts: bool,
    ) -> BTreeMap<String, Outcome> {
        let folder = at.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = self.dir.path().join(format!("{name}.toml"));
        std::fs::write(&config, CONFIG.replace("REMOUNT", if remounts { "true" } else { "false" })).unwrap();
        let mut command = Command::new(&self.program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.dir.path().join("bin").display()));
        command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").current_dir("/");
        command.arg("-c").arg(config).arg("-p").arg(&folder);
        command.arg("-s").arg(self.dir.path().join("second"));
        if remounts {
            // Alone: what other cases leave open would keep the disk from becoming read-only.
            command.arg("erofs");
        }
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
            command.uid(uid).gid(gid);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("Summary:"), "no summary: {said}{}", String::from_utf8_lossy(&output.stderr));
        let mut outcomes = BTreeMap::new();
        let mut failed = None;
        for line in said.lines() {
            if let (Some(case), true) = (&failed, line.starts_with('\t')) {
                if let Some(Outcome::Failed(why)) = outcomes.get_mut(case) {
                    why.push_str(line.trim());
                    why.push(' ');
                }
                continue;
            }
            failed = None;
            let mut words = line.split_whitespace();
            let (Some(case), Some(how)) = (words.next(), words.next()) else { continue };
            let outcome = match how {
                "ok" => Outcome::Passed,
                "skipped" => Outcome::Skipped,
                "FAILED" => {
                    failed = Some(case.to_owned());
                    Outcome::Failed(String::new())
                }
                _ => continue,
            };
            if case.contains("::") {
                outcomes.insert(case.to_owned(), outcome);
            }
        }
        outcomes
    }

    /// All three runs, by name of the case and the run.
    fn all(&self, at: &Path) -> BTreeMap<(String, &'static str), Outcome> {
        let mut all = BTreeMap::new();
        for (name, user, remounts) in
            [("root", None, false), ("user", Some(USER), false), ("remount", None, true)]
        {
            let outcomes = self.run(at, name, user, remounts);
            all.extend(outcomes.into_iter().map(|(case, outcome)| ((case, name), outcome)));
        }
        all
    }
}

fn compare(disk: Disk) {
    let Some(suite) = Suite::new() else { return };
    let bare = TestDir::new();
    let Some(at) = bare.disk("bare", disk) else { return };
    let on_disk = suite.all(&at);
    let ran = on_disk.values().filter(|o| **o != Outcome::Skipped).count();
    assert!(ran > 400, "only {ran} cases ran on the disk itself");
    for passthrough in [true, false] {
        println!("{disk:?}, passthrough wanted: {passthrough}");
        let Some(m) = MountedLab::on(disk, 1, 1, passthrough) else { return };
        let on_volume = suite.all(m.at(0));
        let mut worse = Vec::new();
        for (case, outcome) in &on_disk {
            let here = on_volume.get(case).unwrap_or(&Outcome::Skipped);
            let expected = EXPECTED.contains(&case.0.as_str());
            match (outcome, here) {
                _ if CHANCE.contains(&case.0.as_str()) => {}
                (Outcome::Passed, Outcome::Passed) if expected => worse.push(format!("{case:?} passes now")),
                (Outcome::Passed, Outcome::Passed) => {}
                (Outcome::Passed, _) if !expected => worse.push(format!("{case:?}: {here:?}")),
                _ => {}
            }
        }
        let failed: Vec<_> = on_volume.iter().filter(|(_, o)| matches!(o, Outcome::Failed(_))).collect();
        let passed = on_volume.values().filter(|o| **o == Outcome::Passed).count();
        println!("{passed} passed, {} failed of {}", failed.len(), on_volume.len());
        assert!(worse.is_empty(), "worse than {disk:?} itself:\n{}", worse.join("\n"));
        m.lab.settle(0);
    }
}

#[test]
fn nothing_fails_that_xfs_passes() {
    needs!(Fuse);
    compare(Disk::Xfs);
}

#[test]
fn nothing_fails_that_ext4_passes() {
    needs!(Fuse);
    compare(Disk::Ext4);
}
