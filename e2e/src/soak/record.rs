//! What the programs of a soak say that they do: one line of JSON for each, written outside of the
//! workstations before and after the fact, so that no fault of theirs takes it away.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::document::Version;
use crate::error::{Context, Result};

/// How a version is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// A new file.
    Create,
    /// Over the bytes that are there: between begin and end the file is neither one nor the other.
    InPlace,
    /// A new file, renamed over the old one.
    Replace,
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// A version is about to be written.
    Begin {
        /// Of this document.
        document: Version,
        /// This one.
        version: Version,
        /// The versions that were read before.
        parents: Vec<Version>,
        /// In which way.
        how: How,
    },
    /// It is written, and `fsync` has said so, of the file and of the folder that its name is in.
    Durable {
        /// Which.
        version: Version,
    },
    /// The file with this version is about to be deleted.
    Delete {
        /// Of this document.
        document: Version,
        /// What it held.
        seen: Version,
    },
    /// A file was read that is no whole version.
    Torn {
        /// Where.
        path: String,
        /// In what way.
        why: String,
    },
    /// A call failed.
    Failed {
        /// What was being done.
        what: String,
        /// What the call said.
        error: String,
    },
    /// The program has ended, because it was asked to.
    End {
        /// So many things were done.
        done: u64,
    },
}

/// Where a program writes what it does.
pub struct Record(File);

impl Record {
    /// Goes on at the end of a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        Ok(Self(file.context(format!("cannot write {}", path.display()))?))
    }

    /// Writes a line; it is there when this returns, whatever happens to the program then.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn say(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_vec(event).context("odd event")?;
        line.push(b'\n');
        self.0.write_all(&line).context("cannot write what was done")
    }
}

/// All that was said of documents so far, and what follows from it.
#[derive(Debug, Default)]
pub struct History {
    parents: HashMap<Version, (Version, Vec<Version>)>,
    durable: HashSet<Version>,
    deleted: HashMap<Version, Vec<Version>>,
    /// Documents that somebody began to change in place and did not end.
    unfinished: HashMap<Version, HashSet<Version>>,
    /// Files that were read and were not whole, with their documents.
    torn: Vec<(String, String)>,
    /// How often calls failed, by what was done and the error.
    pub failures: HashMap<String, u64>,
    /// Calls of the programs that ended in order.
    pub calls: u64,
}

/// What a history and the files at its end say together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Versions acknowledged by `fsync` that nothing in the tree includes.
    pub lost: Vec<String>,
    /// Files that are not whole, though nobody was interrupted in writing them.
    pub torn: Vec<String>,
    /// Acknowledged versions looked for.
    pub checked: usize,
    /// Documents left out: somebody was interrupted while writing in place.
    pub interrupted: usize,
}

impl History {
    /// Adds one event.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Begin { document, version, parents, how } => {
                if how != How::Replace {
                    self.unfinished.entry(document.clone()).or_default().insert(version.clone());
                }
                self.parents.insert(version, (document, parents));
            }
            Event::Durable { version } => {
                if let Some((document, _)) = self.parents.get(&version)
                    && let Some(open) = self.unfinished.get_mut(document)
                {
                    open.remove(&version);
                }
                self.durable.insert(version);
            }
            Event::Delete { document, seen } => self.deleted.entry(document).or_default().push(seen),
            Event::Torn { path, why } => self.torn.push((path, why)),
            Event::Failed { what, error } => {
                *self.failures.entry(format!("{what}: {error}")).or_default() += 1
            }
            Event::End { done } => self.calls += done,
        }
    }

    /// How many versions were acknowledged.
    pub fn durable(&self) -> usize {
        self.durable.len()
    }

    /// Judges the files that are there now: each with its path and what it holds. `kept` are versions that somebody deleted or replaced
    /// without having seen them, as two work on one document, and that bricks keep aside.
    pub fn judge(
        &self,
        present: &[(String, std::result::Result<super::document::Document, String>)],
        kept: &[Version],
    ) -> Verdict {
        let mut roots: Vec<Version> = self.deleted.values().flatten().chain(kept).cloned().collect();
        roots.extend(present.iter().filter_map(|(_, d)| d.as_ref().ok()).map(|d| d.version.clone()));
        let mut covered = HashSet::new();
        while let Some(version) = roots.pop() {
            if !covered.insert(version.clone()) {
                continue;
            }
            if let Some((_, parents)) = self.parents.get(&version) {
                roots.extend(parents.iter().cloned());
            }
        }
        let is_interrupted =
            |document: &Version| self.unfinished.get(document).is_some_and(|u| !u.is_empty());
        let mut verdict = Verdict::default();
        for version in &self.durable {
            let Some((document, _)) = self.parents.get(version) else { continue };
            if is_interrupted(document) {
                continue;
            }
            verdict.checked += 1;
            if !covered.contains(version) {
                verdict.lost.push(format!("{version} of {document}"));
            }
        }
        let named = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            super::document::document_of(name)
        };
        let now = present.iter().filter_map(|(path, d)| Some((path, d.as_ref().err()?)));
        for (path, why) in self.torn.iter().map(|(path, why)| (path, why)).chain(now) {
            if named(path).is_some_and(|document| !is_interrupted(&document)) {
                verdict.torn.push(format!("{path}: {why}"));
            }
        }
        verdict.interrupted = self.unfinished.values().filter(|open| !open.is_empty()).count();
        verdict.lost.sort();
        verdict.torn.sort();
        verdict
    }
}

/// Reads what a program wrote from `from` on; where it ends.
///
/// # Errors
/// It cannot be read, or a line makes no sense.
pub fn read_on(path: &Path, from: &mut u64, history: &mut History) -> Result<()> {
    use std::io::{BufRead, BufReader, Seek, SeekFrom};
    let what = format!("cannot read {}", path.display());
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(what),
    };
    file.seek(SeekFrom::Start(*from)).context(&what)?;
    let mut lines = BufReader::new(file);
    let mut line = String::new();
    // A last line without its end is of a program that was killed while it wrote it.
    while lines.read_line(&mut line).context(&what)? > 0 && line.ends_with('\n') {
        history.add(serde_json::from_str(&line).context(&what)?);
        *from += line.len() as u64;
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::document::{Document, file_name};
    use super::*;

    fn version(node: &str, count: u64) -> Version {
        Version { node: node.to_owned(), life: 1, count }
    }

    fn write(history: &mut History, document: &Version, version: &Version, parents: &[&Version], how: How) {
        let parents = parents.iter().map(|v| (*v).clone()).collect();
        let (document, version) = (document.clone(), version.clone());
        history.add(Event::Begin { document, version: version.clone(), parents, how });
        history.add(Event::Durable { version });
    }

    fn file(document: &Version, version: &Version) -> (String, std::result::Result<Document, String>) {
        let held =
            Document { name: document.clone(), version: version.clone(), parents: Vec::new(), length: 0 };
        (format!("0/{}", file_name(document, 0)), Ok(held))
    }

    #[test]
    fn what_nothing_includes_is_lost_and_what_somebody_deleted_or_wrote_on_is_not() {
        let (a, b, c) = (version("a", 1), version("a", 2), version("b", 1));
        let mut history = History::default();
        write(&mut history, &a, &a, &[], How::Create);
        assert_eq!(history.judge(&[], &[]).lost, ["a_1_1 of a_1_1"]);
        assert_eq!(history.judge(&[], std::slice::from_ref(&a)).lost, [""; 0]);
        assert_eq!(history.judge(&[file(&a, &a)], &[]).lost, [""; 0]);
        write(&mut history, &a, &b, &[&a], How::Replace);
        assert_eq!(history.judge(&[file(&a, &b)], &[]).lost, [""; 0]);
        assert_eq!(history.judge(&[file(&a, &a)], &[]).lost, ["a_1_2 of a_1_1"]);
        // Written elsewhere at the same time: both are wanted.
        write(&mut history, &a, &c, &[&a], How::Replace);
        assert_eq!(history.judge(&[file(&a, &c)], &[]).lost, ["a_1_2 of a_1_1"]);
        assert_eq!(history.judge(&[file(&a, &c), file(&a, &b)], &[]).lost, [""; 0]);
        // Somebody saw one of them and deleted it.
        history.add(Event::Delete { document: a.clone(), seen: c });
        assert_eq!(history.judge(&[], &[]).lost, ["a_1_2 of a_1_1"]);
        assert_eq!(history.judge(&[file(&a, &b)], &[]).checked, 3);
    }

    #[test]
    fn half_a_file_counts_unless_its_writer_was_interrupted() {
        let (a, b) = (version("a", 1), version("a", 2));
        let mut history = History::default();
        write(&mut history, &a, &a, &[], How::Create);
        let half = (format!("0/{}", file_name(&a, 0)), Err("half".to_owned()));
        assert_eq!(history.judge(std::slice::from_ref(&half), &[]).torn.len(), 1);
        history.add(Event::Begin { document: a, version: b, parents: Vec::new(), how: How::InPlace });
        let verdict = history.judge(&[half], &[]);
        assert_eq!((verdict.torn.len(), verdict.lost.len(), verdict.interrupted), (0, 0, 1));
    }
}
