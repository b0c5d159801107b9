//! The control groups of a node: one in each hierarchy, all pods below it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::process::wait_until;

const ROOT: &str = "/sys/fs/cgroup";

/// The hierarchies that there are: one for each controller, or one for all.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|dir| dir.join("cgroup.procs").exists()).collect()
}

/// Makes the group `name` in each.
///
/// # Errors
/// The kernel refuses it.
pub fn make(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        std::fs::create_dir_all(&group).context(format!("cannot make {}", group.display()))?;
        // Without these nothing can be put into it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (hierarchy.join(file), group.join(file));
            if let Ok(text) = std::fs::read_to_string(from) {
                std::fs::write(&to, text.trim()).context(format!("cannot write {}", to.display()))?;
            }
        }
    }
    Ok(())
}

/// Whether a process is in a group whose name begins so.
pub fn has(pid: i32, prefix: &str) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let begin = format!(":/{prefix}");
    text.lines().any(|line| line.contains(&begin))
}

/// Removes all groups whose names begin so, and those in them. Their processes are gone.
///
/// # Errors
/// One stays in use.
pub fn remove(prefix: &str) -> Result<()> {
    for group in all(prefix) {
        // The kernel takes a moment to notice that a group is empty.
        wait_until(&format!("{} to be empty", group.display()), Duration::from_secs(20), || {
            remove_below(&group);
            Ok(!group.exists())
        })?;
    }
    Ok(())
}

/// The groups whose names begin so, in all hierarchies.
pub fn all(prefix: &str) -> Vec<PathBuf> {
    let entries =
        hierarchies().into_iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path()).collect()
}

fn remove_below(group: &Path) {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove_below(&entry.path());
    }
    let _ = std::fs::remove_dir(group);
}
