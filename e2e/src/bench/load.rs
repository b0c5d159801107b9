//! A small load generator for what fio does not measure: creating, looking at and listing files. It runs on
//! a workstation as a program of its own (`lab load`), so that it sees what a user's program sees.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

/// Files that `stat` and `readdir` work on, in one folder.
const KNOWN: usize = 500;
/// Files in one folder, for `create`.
const PER_FOLDER: usize = 200;

/// What is done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Create a file, write 4 KiB, close it.
    Create,
    /// Look at known files, in an order that no cache expects.
    Stat,
    /// List a folder with its entries' types.
    Readdir,
}

/// Which load, where, for how long.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// What to do.
    pub work: Work,
    /// An empty folder.
    pub dir: PathBuf,
    /// For how long.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Done {
    /// How many files or entries.
    pub count: u64,
    /// In which time.
    pub seconds: f64,
}

/// Makes the load.
///
/// # Errors
/// A call fails.
pub fn run(load: &Load) -> Result<Done> {
    let limit = Duration::from_secs_f64(load.seconds);
    let what = format!("{:?} in {}", load.work, load.dir.display());
    match load.work {
        Work::Create => create(&load.dir, limit),
        Work::Stat => stat(&load.dir, limit),
        Work::Readdir => readdir(&load.dir, limit),
    }
    .context(what)
}

fn measure(limit: Duration, mut step: impl FnMut(u64) -> std::io::Result<u64>) -> std::io::Result<Done> {
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < limit {
        count += step(count)?;
    }
    Ok(Done { count, seconds: begin.elapsed().as_secs_f64() })
}

fn create(dir: &Path, limit: Duration) -> std::io::Result<Done> {
    let content = [0x5a_u8; 4096];
    measure(limit, |count| {
        let folder = dir.join(format!("{}", count as usize / PER_FOLDER));
        if count.is_multiple_of(PER_FOLDER as u64) {
            fs::create_dir(&folder)?;
        }
        File::create_new(folder.join(format!("file-{count}")))?.write_all(&content)?;
        Ok(1)
    })
}

fn known(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let files: Vec<PathBuf> = (0..KNOWN).map(|n| dir.join(format!("known-{n}"))).collect();
    for file in &files {
        fs::write(file, b"known")?;
    }
    Ok(files)
}

fn stat(dir: &Path, limit: Duration) -> std::io::Result<Done> {
    let files = known(dir)?;
    // A stride that has no factor in common with the number of files visits all of them.
    measure(limit, |count| {
        fs::metadata(&files[(count as usize * 211) % KNOWN])?;
        Ok(1)
    })
}

fn readdir(dir: &Path, limit: Duration) -> std::io::Result<Done> {
    known(dir)?;
    measure(limit, |_| {
        let mut entries = 0;
        for entry in fs::read_dir(dir)? {
            entry?.file_type()?;
            entries += 1;
        }
        Ok(entries)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_does_something() {
        for work in [Work::Create, Work::Stat, Work::Readdir] {
            let dir = tempfile::tempdir().expect("a directory");
            let load = Load { work, dir: dir.path().to_path_buf(), seconds: 0.05 };
            assert!(run(&load).expect("it works").count > 0, "{work:?}");
        }
    }
}
