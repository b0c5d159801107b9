//! The directory on which a volume is mounted.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

/// Dead mounts that may lie upon each other.
const MAX_STACKED: usize = 16;

/// Makes the mount point, and takes away what a killed agent left there.
///
/// # Errors
/// One clear line.
pub fn prepare(at: &Path) -> Result<(), String> {
    let said = |e: io::Error| format!("cannot make the mount point {}: {e}", at.display());
    clear(at).map_err(said)?;
    std::fs::create_dir_all(at).map_err(said)?;
    let parent = at.parent().unwrap_or(at);
    let device = |p: &Path| std::fs::metadata(p).map(|m| std::os::unix::fs::MetadataExt::dev(&m));
    if device(at).map_err(said)? != device(parent).map_err(said)? {
        return Err(format!("something else is mounted at {} already: unmount it", at.display()));
    }
    Ok(())
}

/// Detaches dead mounts: those that nobody serves any more.
///
/// # Errors
/// What the kernel says.
pub fn clear(at: &Path) -> io::Result<()> {
    for _ in 0..MAX_STACKED {
        match rustix::fs::stat(at) {
            Err(Errno::NOTCONN | Errno::CONNABORTED) => {
                unmount(at, UnmountFlags::DETACH)?;
                tracing::info!("detached a dead mount at {}", at.display());
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_made_and_a_foreign_mount_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("lab/home");
        prepare(&at).unwrap();
        prepare(&at).unwrap();
        assert!(at.is_dir());
        let error = prepare(Path::new("/proc")).unwrap_err();
        assert!(error.contains("something else is mounted at /proc"), "{error}");
    }
}
