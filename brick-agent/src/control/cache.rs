//! The last configuration of each volume, kept on disk, so that mounts come up
//! while the API is away. It lies beside the brick's own files, so that it goes
//! and comes with the brick's disk; for a brick with a path of its own a copy lies in
//! the agent's folder of bricks, where it is found again.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::brick::{OWN, write_durably};
use crate::config::VolumeConfig;

use super::convert::VolumeKey;

const FILE: &str = "config.json";
/// Bytes of one, at most: thousands of members and of rules are less.
const MAX_BYTES: u64 = 64 << 20;
/// In the folder of bricks. No namespace has such a name.
const ELSEWHERE: &str = ".elsewhere";

fn beside(brick: &Path) -> PathBuf {
    brick.join(OWN).join(FILE)
}

fn elsewhere(bricks_dir: &Path, key: &VolumeKey) -> PathBuf {
    key.below(&bricks_dir.join(ELSEWHERE)).with_extension("json")
}

/// Keeps it, if it is not what is kept already. The brick is open, so that its own folder is there.
///
/// # Errors
/// What the disk says.
pub fn save(bricks_dir: &Path, config: &VolumeConfig) -> io::Result<()> {
    // What is kept is of a brick in use: found empty later, its disk is missing.
    let config = VolumeConfig { was_initialised: true, ..config.clone() };
    let text = serde_json::to_vec_pretty(&config).map_err(io::Error::other)?;
    let write = |path: PathBuf| {
        if fs::read(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        write_durably(&path, &text)
    };
    write(beside(&config.path))?;
    let key = VolumeKey::of(&config);
    if config.path != key.below(bricks_dir) {
        let path = elsewhere(bricks_dir, &key);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        write(path)?;
    }
    Ok(())
}

/// Forgets it: the brick is no longer of this node, its data stays.
///
/// # Errors
/// What the disk says.
pub fn forget(bricks_dir: &Path, config: &VolumeConfig) -> io::Result<()> {
    let remove = |path: PathBuf| match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    remove(beside(&config.path))?;
    remove(elsewhere(bricks_dir, &VolumeKey::of(config)))
}

/// All that are kept for this node. One that cannot be used is logged and left out.
pub fn load_all(bricks_dir: &Path, node: &str) -> Vec<VolumeConfig> {
    let mut found: Vec<VolumeConfig> = Vec::new();
    for namespace in folders(bricks_dir) {
        for volume in folders(&namespace) {
            found.extend(load(&beside(&volume), node).filter(|c| c.path == volume));
        }
    }
    for namespace in folders(&bricks_dir.join(ELSEWHERE)) {
        for file in entries(&namespace) {
            found.extend(load(&file, node).filter(|c| elsewhere(bricks_dir, &VolumeKey::of(c)) == file));
        }
    }
    found
}

/// Reads a plain file that is no larger than one that was written here.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    // A FIFO in its place would hold up all volumes.
    let file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Err(io::Error::other(format!("it is no file of at most {MAX_BYTES} bytes")));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

fn load(path: &Path, node: &str) -> Option<VolumeConfig> {
    let skip = |why: String| tracing::warn!("{} is left out: {why}", path.display());
    let text = match read(path) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return None,
        Err(e) => {
            skip(e.to_string());
            return None;
        }
    };
    match serde_json::from_slice::<VolumeConfig>(&text) {
        Ok(config) if config.node == node => Some(config),
        Ok(config) => {
            skip(format!("it is of node {}, this is {node}", config.node));
            None
        }
        Err(e) => {
            skip(e.to_string());
            None
        }
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut list: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().filter_map(|e| e.ok().map(|e| e.path())).collect();
    list.sort();
    list
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let visible = |p: &PathBuf| p.file_name().is_some_and(|n| !n.to_string_lossy().starts_with('.'));
    entries(dir).into_iter().filter(visible).filter(|p| p.is_dir()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nearbrick_core::BrickId;
    use uuid::Uuid;

    pub(crate) fn config(path: PathBuf, name: &str) -> VolumeConfig {
        VolumeConfig {
            namespace: "lab".to_owned(),
            name: name.to_owned(),
            volume_uuid: Uuid::from_u128(1),
            node: "ws-a".to_owned(),
            brick: BrickId([1; 16]),
            path,
            was_initialised: false,
            members: Vec::new(),
            placement: Vec::new(),
            stale_reads: Default::default(),
            conflicts: Vec::new(),
            retention_ms: crate::config::RETENTION_MS,
            healing: Default::default(),
            min_sync_copies: 1,
            release_removals: None,
            take_back_removals: None,
            upkeep: Default::default(),
        }
    }

    #[test]
    fn configurations_are_found_again_wherever_the_brick_is() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let bricks = dir.path();
        let near = config(bricks.join("lab/home"), "home");
        let far = config(other.path().join("x"), "big");
        for c in [&near, &far] {
            fs::create_dir_all(c.path.join(OWN)).unwrap();
            save(bricks, c).unwrap();
            save(bricks, c).unwrap();
        }
        let found = load_all(bricks, "ws-a");
        assert_eq!(found.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["home", "big"]);
        assert!(found.iter().all(|c| c.was_initialised));
        assert_eq!(load_all(bricks, "ws-b"), []);
        forget(bricks, &near).unwrap();
        forget(bricks, &far).unwrap();
        forget(bricks, &far).unwrap();
        assert_eq!(load_all(bricks, "ws-a"), []);
        assert!(near.path.is_dir() && far.path.is_dir());
    }

    #[test]
    fn one_that_is_damaged_or_was_copied_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let good = config(dir.path().join("lab/home"), "home");
        fs::create_dir_all(good.path.join(OWN)).unwrap();
        save(dir.path(), &good).unwrap();
        for name in ["bad", "copy"] {
            fs::create_dir_all(dir.path().join("lab").join(name).join(OWN)).unwrap();
        }
        fs::write(dir.path().join("lab/bad").join(OWN).join(FILE), "{").unwrap();
        fs::copy(beside(&good.path), beside(&dir.path().join("lab/copy"))).unwrap();
        fs::write(dir.path().join("lab/file"), "").unwrap();
        let found = load_all(dir.path(), "ws-a");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, good.path);
    }
}
