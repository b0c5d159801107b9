//! Trees compared by plain tools (find, sha256sum), never by our own code: what is on the bricks and what
//! people see on the mounts.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::command::output;
use crate::error::{Context, Result};
use crate::workstation::Workstation;

/// Where a tree is looked at from.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// The machine itself.
    Machine,
    /// A workstation.
    At(&'a Workstation),
}

impl Place<'_> {
    /// Runs a shell script there; what it wrote to stdout.
    ///
    /// # Errors
    /// It fails.
    pub fn sh(&self, script: &str) -> Result<String> {
        match self {
            Self::At(workstation) => workstation.sh(script),
            Self::Machine => {
                let output = output(Command::new("sh").args(["-euc", script]))?;
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
        }
    }
}

/// Files and bytes of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Regular files, each once, however many names it has.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
}

/// A tree as lines, by path: what each is depends on who made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, String>);

impl Tree {
    /// SHA-256 of every regular file.
    ///
    /// # Errors
    /// A file cannot be read there.
    pub fn hashes(place: Place<'_>, dir: &str) -> Result<Self> {
        Self::hashes_in(place, dir, ".")
    }

    /// The same of one folder in it; paths are from `dir`.
    ///
    /// # Errors
    /// A file cannot be read there.
    pub fn hashes_in(place: Place<'_>, dir: &str, folder: &str) -> Result<Self> {
        let (dir, folder) = (quoted(dir), quoted(folder));
        let script = format!("cd {dir} && find {folder} -type f -print0 | xargs -0 -r sha256sum");
        let text = place.sh(&script).context(format!("cannot hash {dir}"))?;
        Ok(Self::from_sums(&text))
    }

    /// What sha256sum wrote.
    pub fn from_sums(text: &str) -> Self {
        let line = |line: &str| line.split_once("  ").map(|(hash, path)| (path.to_owned(), hash.to_owned()));
        Self(text.lines().filter_map(line).collect())
    }

    /// Type and permissions of every entry, and the size of every regular file.
    ///
    /// # Errors
    /// The tree cannot be listed there.
    pub fn listing(place: Place<'_>, dir: &str) -> Result<Self> {
        let format = r"-type f -printf '%y %m %s %P\n' -o -mindepth 1 -printf '%y %m - %P\n'";
        let script = format!("cd {} && find . {format}", quoted(dir));
        let text = place.sh(&script).context(format!("cannot list {dir}"))?;
        let line = |line: &str| {
            let mut parts = line.splitn(4, ' ');
            let what = [parts.next()?, parts.next()?, parts.next()?].join(" ");
            Some((parts.next()?.to_owned(), what))
        };
        Ok(Self(text.lines().filter_map(line).collect()))
    }

    /// All entries, by path.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, what)| (path.as_str(), what.as_str()))
    }

    /// What is at a path.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the entries of another tree, which win.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The entries below a folder, with their whole paths.
    pub fn below(&self, prefix: &str) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(p, _)| p.starts_with(prefix))
                .map(|(p, w)| (p.clone(), w.clone()))
                .collect(),
        )
    }

    /// The entries whose paths are in another tree, too.
    pub fn only(&self, other: &Self) -> Self {
        let both = self.0.iter().filter(|(p, _)| other.0.contains_key(*p));
        Self(both.map(|(p, w)| (p.clone(), w.clone())).collect())
    }

    /// Checks that this is what was expected.
    ///
    /// # Errors
    /// It is not: the line counts what is missing, too many and different, and names the first.
    pub fn must_be(&self, expected: &Self, what: &str) -> Result<()> {
        let missing: Vec<_> = expected.0.keys().filter(|path| !self.0.contains_key(*path)).collect();
        let extra: Vec<_> = self.0.keys().filter(|path| !expected.0.contains_key(*path)).collect();
        let differs = |(path, there): &(&String, &String)| expected.0.get(*path).is_some_and(|e| e != *there);
        let different: Vec<_> = self.0.iter().filter(differs).map(|(path, _)| path).collect();
        let first = [&missing, &extra, &different].into_iter().flatten().next();
        match first {
            None => Ok(()),
            Some(first) => crate::fail!(
                "{what}: {} missing, {} too many, {} different of {}; first: {first} (wanted {:?}, is {:?})",
                missing.len(),
                extra.len(),
                different.len(),
                expected.len(),
                expected.0.get(*first),
                self.0.get(*first)
            ),
        }
    }
}

/// Counts a tree.
///
/// # Errors
/// It cannot be listed there.
pub fn size(place: Place<'_>, dir: &str) -> Result<Size> {
    let script = format!("find {} -type f -printf '%i %s\\n' | sort -u", quoted(dir));
    let text = place.sh(&script).context(format!("cannot count {dir}"))?;
    let sizes: Vec<u64> = text.lines().filter_map(|line| line.split_once(' ')?.1.parse().ok()).collect();
    Ok(Size { files: sizes.len() as u64, bytes: sizes.iter().sum() })
}

/// A word as the shell shall take it.
pub fn quoted(word: impl AsRef<Path>) -> String {
    format!("'{}'", word.as_ref().display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_str().expect("plain");
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        put("a", "one");
        put("b it's", "two");
        let first = Tree::hashes(Place::Machine, path).expect("hashes");
        assert_eq!(first.len(), 2);
        first.must_be(&first, "itself").expect("equal");
        put("a", "other");
        put("c", "");
        let second = Tree::hashes(Place::Machine, path).expect("hashes");
        let error = second.must_be(&first, "changed").expect_err("different").to_string();
        assert!(error.starts_with("changed: 0 missing, 1 too many, 1 different of 2"), "{error}");
        assert_eq!(size(Place::Machine, path).expect("a size"), Size { files: 3, bytes: 8 });
        let listing = Tree::listing(Place::Machine, path).expect("a listing");
        assert_eq!(listing.len(), 3);
    }
}
