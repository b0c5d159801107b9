//! What a lab that failed leaves for a person to read.

use std::path::PathBuf;

use crate::error::{Context, Result};
use crate::lab::Lab;
use crate::paths;
use crate::record::Identity;

/// Copies the logs, and the objects as they are, to a place that stays.
///
/// # Errors
/// It cannot be written.
pub fn save(name: &str) -> Result<PathBuf> {
    let lab = Lab::open(name);
    let identity = Identity::new(name)?;
    let dir = paths::target("lab-logs")?.join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).context(format!("cannot make {}", dir.display()))?;
    for entry in std::fs::read_dir(identity.dir.join("logs")).into_iter().flatten().flatten() {
        let to = dir.join(entry.file_name());
        std::fs::copy(entry.path(), &to).context(format!("cannot write {}", to.display()))?;
    }
    let pods = crate::command::run(
        "find",
        [&identity.dir.display().to_string(), "-path", "*/pods/nearbrick-*", "-name", "*.log"],
    );
    for path in pods.unwrap_or_default().lines() {
        let name = path.strip_prefix(&identity.dir.display().to_string()).unwrap_or(path);
        let to = dir.join(name.trim_matches('/').replace('/', "-"));
        // The pod may go at the same moment.
        let _ = std::fs::copy(path, to);
    }
    // Where the control plane still answers.
    let lab = lab.ok().filter(|lab| lab.cluster().is_running());
    let kinds = ["get", "nearbrick,events", "--all-namespaces", "--request-timeout=5s", "--output=yaml"];
    if let Some(Ok(text)) = lab.map(|lab| lab.kubectl_output(&kinds)) {
        let to = dir.join("objects.yaml");
        std::fs::write(&to, text).context(format!("cannot write {}", to.display()))?;
    }
    Ok(dir)
}
