//! Real input for the demo: the sources of the crates that Cargo fetched for this very build, and one
//! large file, a tar archive of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::paths;
use crate::trees::{Place, Size, quoted, size};

const FILES: u64 = 4000;
const BYTES: u64 = 160 << 20;
const LARGE: u64 = 100 << 20;

/// A folder with the input, and what is in it.
pub struct Input {
    /// Where it is.
    pub dir: PathBuf,
    /// How much it is.
    pub size: Size,
    /// How many crates.
    pub crates: usize,
    /// Size of the large file.
    pub large: u64,
}

/// Puts the input together in `dir`: crates until there are enough files and bytes.
///
/// # Errors
/// Cargo's sources cannot be found, or are too few.
pub fn collect(dir: &Path) -> Result<Input> {
    let crates_dir = dir.join("crates");
    std::fs::create_dir_all(&crates_dir).context(format!("cannot make {}", crates_dir.display()))?;
    let (mut total, mut crates) = (Size::default(), 0);
    for source in fetched_crates()? {
        let this = size(Place::Machine, &source.display().to_string())?;
        // Linked where that is possible: the input is only read.
        let (from, to) = (quoted(&source), quoted(&crates_dir));
        Place::Machine.sh(&format!("cp -rl {from} {to}/ 2>/dev/null || cp -r {from} {to}/"))?;
        total = Size { files: total.files + this.files, bytes: total.bytes + this.bytes };
        crates += 1;
        if total.files >= FILES && total.bytes >= BYTES {
            break;
        }
    }
    let archive = dir.join("crates.tar");
    Place::Machine.sh(&format!("tar -C {} -cf {} crates", quoted(dir), quoted(&archive)))?;
    let large = archive.metadata().context("no archive")?.len();
    let size = size(Place::Machine, &dir.display().to_string())?;
    if size.files < 2000 || size.bytes < 200 << 20 || large < LARGE {
        crate::fail!(
            "Cargo's sources in {} are too few for the demo: {} files, {} bytes",
            paths::cargo_home()?.join("registry/src").display(),
            size.files,
            size.bytes
        );
    }
    Ok(Input { dir: dir.to_path_buf(), size, crates, large })
}

/// The folders of all crates in this build's lock file that Cargo has fetched.
fn fetched_crates() -> Result<Vec<PathBuf>> {
    let lock = paths::workspace().join("Cargo.lock");
    let text = std::fs::read_to_string(&lock).context(format!("cannot read {}", lock.display()))?;
    let wanted = locked(&text);
    let sources = paths::cargo_home()?.join("registry/src");
    let registries = std::fs::read_dir(&sources);
    let registries = registries.context(format!("no crate sources in {}", sources.display()))?;
    let mut found: Vec<PathBuf> = registries
        .flatten()
        .flat_map(|registry| wanted.iter().map(move |name| registry.path().join(name)))
        .filter(|dir| dir.is_dir())
        .collect();
    found.sort();
    Ok(found)
}

/// `NAME-VERSION` of every package in a lock file.
fn locked(text: &str) -> BTreeSet<String> {
    let value = |line: &str, key: &str| {
        Some(line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned())
    };
    let mut name = None;
    let mut all = BTreeSet::new();
    for line in text.lines() {
        if let Some(found) = value(line, "name") {
            name = Some(found);
        } else if let (Some(version), Some(name)) = (value(line, "version"), name.take()) {
            all.insert(format!("{name}-{version}"));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_names_folders() {
        let text = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\n\n\
                    [[package]]\nname = \"b-c\"\nversion = \"0.1.0+d\"\n";
        assert_eq!(locked(text), BTreeSet::from(["a-1.0.0".to_owned(), "b-c-0.1.0+d".to_owned()]));
    }
}
