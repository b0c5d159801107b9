//! Debian packages and programs from the Rust registry that lab and tests need: installed if they are
//! missing, saying what and why.

use std::process::Command;

use crate::command::{find, output};
use crate::error::{Context, Error, Result};
use crate::{paths, programs, progress};

/// A package, known by a program that it brings.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    program: &'static str,
    name: &'static str,
    why: &'static str,
}

const fn package(program: &'static str, name: &'static str, why: &'static str) -> Package {
    Package { program, name, why }
}

/// What every lab needs.
pub const LAB: &[Package] = &[
    package("ip", "iproute2", "networks of the workstations"),
    package("unshare", "util-linux", "namespaces of the workstations"),
    package("losetup", "mount", "disk images"),
    package("mkfs.xfs", "xfsprogs", "XFS on the disks of ws-a and ws-c"),
    package("mkfs.ext4", "e2fsprogs", "ext4 on the disk of ws-b"),
    package("fusermount3", "fuse3", "mounts of volumes"),
    package("curl", "curl", "requests of somebody who means harm"),
];

/// What nodes need besides.
pub const NODES: &[Package] = &[
    package("containerd", "containerd", "runs containers"),
    package("runc", "runc", "starts containers"),
    package("/usr/lib/cni/ptp", "containernetworking-plugins", "networks of pods"),
    package("nft", "nftables", "addresses of services"),
    package("conntrack", "conntrack", "addresses of services"),
    package("iptables", "iptables", "addresses of services"),
    package("busybox", "busybox-static", "a shell in pods"),
];

/// What the bench needs besides.
pub const BENCH: &[Package] = &[
    package("fio", "fio", "sequential and random I/O"),
    package("glusterd", "glusterfs-server", "the file system to compare with"),
    package("mount.glusterfs", "glusterfs-client", "its mount"),
];

/// What tests of programs on a mount need besides.
pub const TESTS: &[Package] = &[
    package("git", "git", "a test: histories on a volume"),
    package("sqlite3", "sqlite3", "a test: databases on a volume"),
    package("rsync", "rsync", "a test: copies on a volume"),
    package("tar", "tar", "a test: archives on a volume"),
    package("vim", "vim", "a test: an editor on a volume"),
    package("setfattr", "attr", "a test: attributes on a volume"),
    package("valgrind", "valgrind", "a test: numbers of instructions"),
    package("faketime", "faketime", "a test: workstations whose clocks are wrong"),
];

/// What tests of the alert rules need besides.
pub const MONITORING: &[Package] = &[package("promtool", "prometheus", "a test: alert rules")];

/// What tests of the operator's status page need besides.
pub const PAGE: &[Package] = &[package("chromium", "chromium", "a test: the status page in a browser")];

/// A suite of POSIX cases for file systems, and the version that is known to work.
const PJDFSTEST: (&str, &str) = ("pjdfstest", "0.2.2");

/// Builds pjdfstest once, into the folder of the project's tools; later runs find it there.
///
/// # Errors
/// Cargo fails.
pub fn ensure_pjdfstest() -> Result<()> {
    let (name, version) = PJDFSTEST;
    let tools = paths::cache()?.join("tools");
    if find(name).is_some() || tools.join("bin").join(name).exists() {
        return Ok(());
    }
    let line = progress::Line::new(format!("cargo install {name} (POSIX cases for the tests of the mount)"));
    let mut cargo = programs::cargo();
    cargo.args(["install", name, "--version", version, "--locked", "--quiet", "--root"]).arg(&tools);
    std::fs::create_dir_all(&tools).context(format!("cannot make {}", tools.display()))?;
    // Elsewhere than in the workspace, whose settings for Cargo are not meant for it.
    output(cargo.current_dir(&tools))?;
    line.done("installed");
    Ok(())
}

/// Installs what is missing.
///
/// # Errors
/// There is no apt-get, or it fails.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = packages.iter().filter(|p| find(p.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|p| p.name).collect();
    let Some(apt) = find("apt-get") else {
        crate::fail!("missing: {}; there is no apt-get here: install them by hand", names.join(", "));
    };
    for package in &missing {
        progress::note(format!(
            "installing {} with apt-get: {} ({})",
            package.name, package.why, package.program
        ));
    }
    let line = progress::Line::new(format!("apt-get install {}", names.join(" ")));
    let run = |arguments: &[&str]| {
        output(Command::new(&apt).env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
    };
    let install = [&["install", "--yes", "--no-install-recommends"], &names[..]].concat();
    // The lists of packages may be missing or old: only then they are fetched.
    if run(&install).is_err() {
        run(&["update"])?;
        run(&install).map_err(|e| Error::new(format!("{e}; try `apt-get install {}`", names.join(" "))))?;
    }
    line.done("installed");
    match missing.iter().find(|p| find(p.program).is_none()) {
        Some(p) => Err(Error::new(format!("{} is installed and brings no {}", p.name, p.program))),
        None => Ok(()),
    }
}
