//! T28: the agent is killed again and again, at moments that nobody chose, while programs work. They never notice but
//! by waiting: no call fails, nothing is done twice, and all that was acknowledged is there.
//!
//! `NEARBRICK_SEED` chooses the programs' steps and the moments, `NEARBRICK_KILLS` how often the agent is killed.

#![allow(clippy::unwrap_used)]

mod peer_common;
mod support;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use peer_common::Ca;
use support::agent::{Machine, within};
use support::{LIMIT, wait};

const PROGRAMS: u64 = 6;
const NAMES: usize = 6;
const KILLS: u64 = 12;

/// One program, in a directory of its own, that knows what must be there.
struct Program {
    rng: StdRng,
    dir: PathBuf,
    /// What each name stands for: several names may be of one file.
    names: BTreeMap<String, usize>,
    /// What the files hold. Those without a name are there as long as they are open.
    files: Vec<Vec<u8>>,
    open: Vec<(usize, File)>,
    dirs: BTreeMap<String, bool>,
    steps: Arc<AtomicU64>,
    trace: Vec<String>,
}

impl Program {
    fn new(dir: PathBuf, seed: u64, steps: Arc<AtomicU64>) -> Self {
        fs::create_dir(&dir).unwrap();
        Program {
            rng: StdRng::seed_from_u64(seed),
            dir,
            names: BTreeMap::new(),
            files: Vec::new(),
            open: Vec::new(),
            dirs: BTreeMap::new(),
            steps,
            trace: Vec::new(),
        }
    }

    fn name(&mut self) -> String {
        format!("f{}", self.rng.random_range(0..NAMES))
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.rng.random_range(0..10) {
            0 => self.rng.random_range(10_000..200_000),
            _ => self.rng.random_range(1..3000),
        };
        let mut bytes = vec![0; len];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// An open file, opened now if none is.
    fn some_open(&mut self) -> Option<(usize, File)> {
        if self.open.is_empty() || (self.open.len() < 8 && self.rng.random_bool(0.2)) {
            let name = self.name();
            let id = *self.names.get(&name)?;
            let file = OpenOptions::new().read(true).write(true).open(self.at(&name));
            self.open.push((id, self.must(&name, "open", file)));
        }
        let n = self.rng.random_range(0..self.open.len());
        Some((self.open[n].0, self.open[n].1.try_clone().unwrap()))
    }

    fn must<T>(&self, name: &str, what: &str, result: io::Result<T>) -> T {
        result.unwrap_or_else(|error| {
            panic!("{what} of {name} in {}: {error}; {}", self.dir.display(), self.last())
        })
    }

    fn last(&self) -> String {
        self.trace.iter().rev().take(12).cloned().collect::<Vec<_>>().join("; ")
    }

    /// The result must be what the program knows.
    fn expect<T>(&self, name: &str, what: &str, result: io::Result<T>, errno: Option<i32>) -> Option<T> {
        match (result, errno) {
            (Ok(value), None) => Some(value),
            (Err(error), Some(errno)) if error.raw_os_error() == Some(errno) => None,
            (Ok(_), Some(errno)) => panic!("{what} of {name} must fail with {errno}; {}", self.last()),
            (Err(error), errno) => panic!("{what} of {name}: {error}, not {errno:?}; {}", self.last()),
        }
    }

    fn overwrite(&mut self, id: usize, at: usize, bytes: &[u8]) {
        let content = &mut self.files[id];
        content.resize(content.len().max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn check(&self, name: &str, id: usize, file: &File) {
        let len = self.must(name, "stat", file.metadata()).len();
        let expected = &self.files[id];
        assert_eq!(len, expected.len() as u64, "size of {name}; {}", self.last());
        let mut bytes = vec![0; expected.len()];
        self.must(name, "read", file.read_exact_at(&mut bytes, 0));
        let differs = bytes.iter().zip(expected).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{name} differs at that byte; {}", self.last());
    }

    fn step(&mut self) {
        let (name, other) = (self.name(), self.name());
        let (path, other_path) = (self.at(&name), self.at(&other));
        let known = self.names.get(&name).copied();
        let (exists, missing) = (Some(libc::EEXIST), Some(libc::ENOENT));
        let choice = self.rng.random_range(0..15);
        self.trace.push(format!("{choice} {name} {other}"));
        match choice {
            0 | 1 => {
                let made = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
                if let Some(file) = self.expect(&name, "create", made, known.and(exists)) {
                    self.files.push(Vec::new());
                    self.names.insert(name, self.files.len() - 1);
                    self.open.push((self.files.len() - 1, file));
                }
            }
            2..=4 => {
                let bytes = self.bytes();
                if let Some((id, file)) = self.some_open() {
                    let at = self.rng.random_range(0..=self.files[id].len());
                    self.must("an open file", "write", file.write_all_at(&bytes, at as u64));
                    self.overwrite(id, at, &bytes);
                }
            }
            5 => {
                let bytes = self.bytes();
                let file = OpenOptions::new().append(true).open(&path);
                if let (Some(mut file), Some(id)) =
                    (self.expect(&name, "open to append", file, known.map_or(missing, |_| None)), known)
                {
                    self.must(&name, "append", file.write_all(&bytes));
                    self.files[id].extend_from_slice(&bytes);
                }
            }
            6 => {
                if let Some((id, file)) = self.some_open() {
                    self.check("an open file", id, &file);
                }
            }
            7 => {
                let file = File::open(&path);
                if let (Some(file), Some(id)) =
                    (self.expect(&name, "open", file, known.map_or(missing, |_| None)), known)
                {
                    self.check(&name, id, &file);
                }
            }
            8 => {
                let moved = fs::rename(&path, &other_path);
                if self.expect(&name, "rename", moved, known.map_or(missing, |_| None)).is_some()
                    && let Some(id) = known
                    // Two names of one file: a rename of one over the other does nothing.
                    && self.names.get(&other) != Some(&id)
                {
                    self.names.remove(&name);
                    self.names.insert(other, id);
                }
            }
            9 => {
                let gone = fs::remove_file(&path);
                self.expect(&name, "unlink", gone, known.map_or(missing, |_| None));
                self.names.remove(&name);
            }
            10 => {
                let linked = fs::hard_link(&path, &other_path);
                let errno = match (known, self.names.contains_key(&other)) {
                    (None, _) => missing,
                    (_, true) => exists,
                    _ => None,
                };
                if self.expect(&name, "link", linked, errno).is_some()
                    && let Some(id) = known
                {
                    self.names.insert(other, id);
                }
            }
            11 => {
                if let Some((id, file)) = self.some_open() {
                    let len = self.rng.random_range(0..=self.files[id].len() + 100);
                    self.must("an open file", "truncate", file.set_len(len as u64));
                    self.files[id].resize(len, 0);
                    if self.rng.random_bool(0.3) {
                        self.must("an open file", "fsync", file.sync_all());
                    }
                }
            }
            12 => {
                if !self.open.is_empty() {
                    let n = self.rng.random_range(0..self.open.len());
                    drop(self.open.swap_remove(n));
                }
            }
            13 => {
                let dir = format!("d{}", self.rng.random_range(0..3));
                let path = self.at(&dir);
                if self.dirs.remove(&dir).is_some() {
                    self.must(&dir, "rmdir", fs::remove_dir(path));
                } else {
                    self.must(&dir, "mkdir", fs::create_dir(path));
                    self.dirs.insert(dir, true);
                }
            }
            _ => self.list(),
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn list(&self) {
        let listing = self.must(".", "list", fs::read_dir(&self.dir));
        let mut found: Vec<_> =
            listing.map(|entry| self.must(".", "list", entry).file_name().into_string().unwrap()).collect();
        found.sort();
        let mut expected: Vec<_> = self.names.keys().chain(self.dirs.keys()).cloned().collect();
        expected.sort();
        assert_eq!(found, expected, "{}; {}", self.dir.display(), self.last());
    }

    /// Everything is as the program knows it, seen from `dir`.
    fn verify(&self, dir: &Path) {
        self.list();
        for (name, id) in &self.names {
            let file = self.must(name, "open", File::open(dir.join(name)));
            self.check(name, *id, &file);
            let names = self.names.values().filter(|other| *other == id).count() as u64;
            assert_eq!(file.metadata().unwrap().nlink(), names, "names of {name}");
        }
        for (id, file) in &self.open {
            self.check("an open file", *id, file);
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// Kills the agent at random moments of the programs' work.
fn storm(m: &mut Machine, seed: u64, kills: u64) {
    let (stop, steps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let programs: Vec<_> = (0..PROGRAMS)
        .map(|n| {
            let mut program = Program::new(m.at().join(format!("p{n}")), seed * 1000 + n, steps.clone());
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    program.step();
                }
                program
            })
        })
        .collect();
    let mut rng = StdRng::seed_from_u64(seed);
    let failed = || programs.iter().any(std::thread::JoinHandle::is_finished);
    for _ in 0..kills {
        // Sometimes at once, while the last agent is still coming up.
        let more = if rng.random_bool(0.2) { 0 } else { rng.random_range(1..1500) };
        let target = steps.load(Ordering::Relaxed) + more;
        wait("the programs go on", || steps.load(Ordering::Relaxed) >= target || failed());
        if failed() {
            break;
        }
        m.kill();
        m.start();
    }
    let target = steps.load(Ordering::Relaxed) + 200;
    wait("the programs go on after the last kill", || steps.load(Ordering::Relaxed) >= target || failed());
    stop.store(true, Ordering::Relaxed);
    let programs = within("the programs end", move || {
        programs
            .into_iter()
            .map(|p| p.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
            .collect::<Vec<_>>()
    });
    println!("{kills} kills, {} steps, {} times gone on", steps.load(Ordering::Relaxed), m.takeovers());
    let (at, data) = (m.at(), m.data());
    let programs = within("the mount says the same", move || {
        for (n, program) in programs.iter().enumerate() {
            program.verify(&at.join(format!("p{n}")));
        }
        programs
    });
    let mut programs = programs;
    programs.iter_mut().for_each(|program| program.open.clear());
    m.terminate();
    wait("the holder ends", || m.holder().is_none());
    for (n, program) in programs.iter().enumerate() {
        for (name, id) in &program.names {
            let bytes = fs::read(data.join(format!("p{n}/{name}"))).unwrap();
            assert!(bytes == program.files[*id], "{name} of program {n} on the brick's disk");
        }
    }
    // Once more from the index that was left.
    m.start();
    m.wait_mounted();
    for (n, program) in programs.iter().enumerate() {
        program.verify(&m.at().join(format!("p{n}")));
    }
    let staged = m.staging();
    assert_eq!(staged, Vec::<String>::new(), "nothing is left in staging");
}

fn run(passthrough: bool) {
    let seed = number("NEARBRICK_SEED", rand::random_range(0..1_000_000));
    let kills = number("NEARBRICK_KILLS", KILLS);
    println!("NEARBRICK_SEED={seed} NEARBRICK_KILLS={kills} (programs wait at most {LIMIT:?})");
    let ca = Ca::new();
    let mut m = Machine::new(ca.issue("ws-a"), if passthrough { &[] } else { &["--no-passthrough"] });
    m.start();
    m.wait_mounted();
    storm(&mut m, seed, kills);
}

#[test]
fn t28_programs_work_through_kills_of_the_agent_with_passthrough() {
    needs!(Fuse);
    run(true);
}

#[test]
fn t28_programs_work_through_kills_of_the_agent_served() {
    needs!(Fuse);
    run(false);
}
