//! Debian packages that the lab needs: installed if their program is missing, saying what and why.

use std::process::Command;

use crate::command::{find, output};
use crate::error::{Error, Result};
use crate::progress;

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
];

/// What the bench needs besides.
pub const BENCH: &[Package] = &[
    package("fio", "fio", "sequential and random I/O"),
    package("glusterd", "glusterfs-server", "the file system to compare with"),
    package("mount.glusterfs", "glusterfs-client", "its mount"),
];

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
