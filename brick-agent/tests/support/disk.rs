//! Directories and disk images that a test makes and that do not outlive it. What a
//! test left that was killed is taken away by the next one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{UnmountFlags, unmount};

/// On what a brick lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// The file system of the temporary directory.
    Here,
    /// An image with XFS on a loop device.
    Xfs,
    /// An image with ext4 on a loop device.
    Ext4,
}

/// A directory of this test.
pub struct TestDir(PathBuf);

fn base() -> PathBuf {
    std::env::temp_dir().join("nearbrick-tests")
}

impl TestDir {
    pub fn new() -> Self {
        static LEFTOVERS: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        LEFTOVERS.call_once(clear_leftovers);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base().join(format!("{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TestDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A new directory in it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A directory on a disk of this kind. None, with a line that says why, if there is no such disk here.
    pub fn disk(&self, name: &str, disk: Disk) -> Option<PathBuf> {
        let at = self.dir(name);
        let mkfs = match disk {
            Disk::Here => return Some(at),
            Disk::Xfs => ["mkfs.xfs", "-q"],
            Disk::Ext4 => ["mkfs.ext4", "-q"],
        };
        let image = self.0.join(format!("{name}.img"));
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let made = Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image).output();
        if !made.is_ok_and(|made| made.status.success()) {
            println!("left out: {} does not work here", mkfs[0]);
            return None;
        }
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at).output().unwrap();
        if !mounted.status.success() {
            println!("left out: no loop device: {}", String::from_utf8_lossy(&mounted.stderr).trim());
            return None;
        }
        Some(at)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        clear(&self.0);
    }
}

fn clear(dir: &Path) {
    for at in mounts_below(dir) {
        if unmount(&at, UnmountFlags::NOFOLLOW).is_err() {
            let _ = unmount(&at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
    let _ = std::fs::remove_dir_all(dir);
}

/// Innermost first.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts: Vec<_> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|at| at.starts_with(dir))
        .collect();
    mounts.reverse();
    mounts
}

/// Those of processes that are gone.
fn clear_leftovers() {
    for entry in std::fs::read_dir(base()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.split('-').next()).and_then(|n| n.parse::<u32>().ok());
        if let Some(pid) = pid
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            clear(&entry.path());
        }
    }
}
