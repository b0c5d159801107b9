//! Disk images: sparse files with a file system, mounted by loop devices inside workstations.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::statvfs;

use crate::command::run;
use crate::error::{Context, Result};
use crate::process::wait_until;
use crate::record::FileSystem;

/// Size of a workstation's disk. The file is sparse: it takes what is written to it.
pub const SIZE: u64 = 6 << 30;

/// Makes an image with a file system, unless it is there.
///
/// # Errors
/// The file cannot be written, or mkfs fails.
pub fn make(image: &Path, filesystem: FileSystem, size: u64) -> Result<()> {
    if image.exists() {
        return Ok(());
    }
    if let Some(dir) = image.parent() {
        std::fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
    }
    let mut new = image.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let file = File::create(&new).context(format!("cannot make {}", new.display()))?;
    file.set_len(size).context(format!("cannot make {}", new.display()))?;
    let name = new.display().to_string();
    match filesystem {
        FileSystem::Xfs => run("mkfs.xfs", ["-q", "-f", &name])?,
        FileSystem::Ext4 => run("mkfs.ext4", ["-q", "-F", &name])?,
    };
    std::fs::rename(&new, image).context(format!("cannot make {}", image.display()))
}

/// Checks that the folder's file system has room for `needed` bytes.
///
/// # Errors
/// It has not; the line says how much there is.
pub fn check_space(dir: &Path, needed: u64) -> Result<()> {
    let there = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    let stat = statvfs(there).context(format!("cannot look at {}", there.display()))?;
    let free = stat.f_bavail * stat.f_frsize;
    if free < needed {
        let gib = |bytes: u64| bytes as f64 / (1_u64 << 30) as f64;
        crate::fail!(
            "{}: {:.1} GiB free, {:.1} GiB needed: make room, or set NEARBRICK_LAB_DIR to a larger disk",
            there.display(),
            gib(free),
            gib(needed)
        );
    }
    Ok(())
}

/// The loop devices that use an image.
///
/// # Errors
/// losetup fails.
pub fn loop_devices(image: &Path) -> Result<Vec<String>> {
    let image = image.display().to_string();
    let text = run("losetup", ["--noheadings", "--output", "NAME", "--associated", &image])?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Waits until no loop device uses an image. Devices go by themselves with the last mount; one that a
/// crash left without a mount is detached here.
///
/// # Errors
/// One stays in use.
pub fn release(image: &Path) -> Result<()> {
    let gone = || Ok(loop_devices(image)?.is_empty());
    if gone()? || wait_until("a disk to be unmounted", Duration::from_secs(15), gone).is_ok() {
        return Ok(());
    }
    for device in loop_devices(image)? {
        run("losetup", ["--detach", &device])?;
    }
    let what = format!("{} to be free: a program outside of the lab still uses it", image.display());
    wait_until(&what, Duration::from_secs(15), gone)
}
