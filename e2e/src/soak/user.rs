//! A person's programs on a workstation (`lab soak-user`): they read and write documents as fast as they are
//! allowed to, check what they read, and say outside what was acknowledged.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result as IoResult, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::document::{Document, Version, document_of, file_name};
use super::record::{Event, How, Record};
use crate::error::{Context, Result};

/// Folders that documents are in.
const FOLDERS: u32 = 12;
/// Folders in each of those.
const INNER: u32 = 3;
/// A folder with more documents gets no new ones.
const FULL: usize = 60;
/// `statfs` of FUSE.
const FUSE: u64 = 0x6573_5546;

/// Who works where, and until when.
#[derive(Args, Clone, Debug)]
pub struct User {
    /// The volume's mount.
    #[arg(long)]
    pub mount: PathBuf,
    /// Where to say what was done.
    #[arg(long)]
    pub record: PathBuf,
    /// The workstation.
    #[arg(long)]
    pub node: String,
    /// Which program on it this is.
    #[arg(long)]
    pub life: u32,
    /// What is done.
    #[arg(long)]
    pub seed: u64,
    /// It ends when this file is there.
    #[arg(long)]
    pub stop: PathBuf,
    /// Things done in a second, at most.
    #[arg(long, default_value_t = 40)]
    pub rate: u32,
}

struct Work {
    user: User,
    random: StdRng,
    record: Record,
    count: u64,
}

/// Works until it is told to stop.
///
/// # Errors
/// What was done cannot be recorded. Calls that fail are recorded.
pub fn run(user: &User) -> Result<()> {
    let record = Record::open(&user.record)?;
    let random = StdRng::seed_from_u64(user.seed);
    let mut work = Work { user: user.clone(), random, record, count: 0 };
    let pause = Duration::from_secs(1) / user.rate.max(1);
    let mut done = 0;
    while !user.stop.exists() {
        let began = Instant::now();
        work.step()?;
        done += 1;
        std::thread::sleep(pause.saturating_sub(began.elapsed()));
    }
    work.record.say(&Event::End { done })
}

/// Whether the volume is mounted there.
fn is_mounted(mount: &Path) -> bool {
    rustix::fs::statfs(mount).is_ok_and(|s| s.f_type as u64 == FUSE)
}

impl Work {
    fn step(&mut self) -> Result<()> {
        // What is below the mount point is not the volume's.
        if !is_mounted(&self.user.mount) {
            return self.record.say(&Event::Failed { what: "mount".into(), error: "not mounted".into() });
        }
        let folder = self.folder();
        let what = self.random.random_range(0..100);
        let (name, result) = match what {
            0..14 => ("create", self.create(&folder)),
            14..50 => ("read", self.read(&folder)),
            50..70 => ("replace", self.replace(&folder)),
            70..84 => ("write", self.write(&folder)),
            84..92 => ("move", self.rename(&folder)),
            92..99 => ("delete", self.delete(&folder)),
            _ => ("folder", self.remove_folder(&folder)),
        };
        match result {
            Ok(()) => Ok(()),
            // Somebody else was first: the name or the folder is gone, or there is another.
            Err(Failure::Call(error))
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Ok(())
            }
            Err(Failure::Call(error)) => {
                self.record.say(&Event::Failed { what: name.to_owned(), error: error.to_string() })
            }
            Err(Failure::Record(error)) => Err(error),
        }
    }

    fn folder(&mut self) -> PathBuf {
        let (outer, inner) = (self.random.random_range(0..FOLDERS), self.random.random_range(0..INNER));
        self.user.mount.join("soak").join(outer.to_string()).join(inner.to_string())
    }

    fn version(&mut self) -> Version {
        self.count += 1;
        Version { node: self.user.node.clone(), life: self.user.life, count: self.count }
    }

    fn length(&mut self) -> usize {
        match self.random.random_range(0..200) {
            0 => self.random.random_range(1_000_000..6_000_000),
            1..20 => self.random.random_range(20_000..300_000),
            _ => self.random.random_range(0..16_000),
        }
    }

    fn documents(&self, folder: &Path) -> IoResult<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            if let Ok(name) = entry?.file_name().into_string()
                && document_of(&name).is_some()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn choose(&mut self, folder: &Path) -> Step<(PathBuf, Version)> {
        let names = self.documents(folder)?;
        if names.is_empty() {
            return Err(Error::from(ErrorKind::NotFound).into());
        }
        let name = &names[self.random.random_range(0..names.len())];
        let document = document_of(name).ok_or(Error::from(ErrorKind::NotFound))?;
        Ok((folder.join(name), document))
    }

    /// What an open file holds. `None` if it is no whole version; that is recorded.
    fn held(&mut self, path: &Path, file: &mut File) -> Step<Option<Document>> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        match Document::read(&bytes) {
            Ok(document) => Ok(Some(document)),
            // New, and its first version is not known here yet.
            Err(_) if bytes.is_empty() => Ok(None),
            Err(why) => {
                // What can be seen of it only now.
                let zeros = bytes.iter().filter(|b| **b == 0).count();
                let shown = file.metadata().map(|m| (m.len(), m.ino(), m.mtime(), m.mtime_nsec()));
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                let why = format!(
                    "{why}; {} bytes, {zeros} of them 0; size, inode, time of change: {shown:?}; at {now:.3}",
                    bytes.len()
                );
                let path = path.display().to_string();
                self.record.say(&Event::Torn { path, why })?;
                Ok(None)
            }
        }
    }

    fn begin(&mut self, name: Option<&Version>, parents: Vec<Version>, how: How) -> Step<Document> {
        let version = self.version();
        let length = self.length();
        let name = name.unwrap_or(&version).clone();
        let document =
            Document { name: name.clone(), version: version.clone(), parents: parents.clone(), length };
        self.record.say(&Event::Begin { document: name, version, parents, how })?;
        Ok(document)
    }

    fn durable(&mut self, document: &Document) -> Step<()> {
        Ok(self.record.say(&Event::Durable { version: document.version.clone() })?)
    }

    fn create(&mut self, folder: &Path) -> Step<()> {
        std::fs::create_dir_all(folder)?;
        if self.documents(folder)?.len() > FULL {
            return Ok(());
        }
        let document = self.begin(None, Vec::new(), How::Create)?;
        let mut file = File::create_new(folder.join(file_name(&document.name, 0)))?;
        file.write_all(&document.bytes())?;
        file.sync_all()?;
        self.sync_folders(folder)?;
        self.durable(&document)
    }

    /// The folder, and those that it is in, which may be new.
    fn sync_folders(&self, folder: &Path) -> IoResult<()> {
        for dir in folder.ancestors().take_while(|dir| dir.starts_with(&self.user.mount)) {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    fn read(&mut self, folder: &Path) -> Step<()> {
        let (path, _) = self.choose(folder)?;
        let mut file = File::open(&path)?;
        self.held(&path, &mut file).map(drop)
    }

    /// Opens a document for writing: from then on what is read is what is written on.
    fn take(&mut self, folder: &Path) -> Step<Option<(PathBuf, File, Document)>> {
        let (path, _) = self.choose(folder)?;
        let mut file = File::options().read(true).write(true).open(&path)?;
        Ok(self.held(&path, &mut file)?.map(|held| (path, file, held)))
    }

    fn write(&mut self, folder: &Path) -> Step<()> {
        let Some((_path, file, held)) = self.take(folder)? else { return Ok(()) };
        let next = self.begin(Some(&held.name), vec![held.version], How::InPlace)?;
        let bytes = next.bytes();
        file.write_all_at(&bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        self.durable(&next)
    }

    fn replace(&mut self, folder: &Path) -> Step<()> {
        let Some((path, _old, held)) = self.take(folder)? else { return Ok(()) };
        let next = self.begin(Some(&held.name), vec![held.version], How::Replace)?;
        let new = folder.join(format!(".new~{}", next.version));
        let mut file = File::create_new(&new)?;
        file.write_all(&next.bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()?;
        self.durable(&next)
    }

    fn rename(&mut self, folder: &Path) -> Step<()> {
        let (path, document) = self.choose(folder)?;
        let other = self.folder();
        std::fs::create_dir_all(&other)?;
        let to = other.join(file_name(&document, self.random.random()));
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, &path, CWD, &to, RenameFlags::NOREPLACE).map_err(Error::from)?;
        Ok(())
    }

    fn delete(&mut self, folder: &Path) -> Step<()> {
        let Some((path, _file, held)) = self.take(folder)? else { return Ok(()) };
        self.record.say(&Event::Delete { document: held.name, seen: held.version })?;
        std::fs::remove_file(&path)?;
        Ok(())
    }

    fn remove_folder(&mut self, folder: &Path) -> Step<()> {
        std::fs::remove_dir(folder)?;
        Ok(())
    }
}

type Step<T> = std::result::Result<T, Failure>;

enum Failure {
    /// A call of the volume.
    Call(Error),
    /// What was done cannot be recorded: then nothing more is to be done.
    Record(crate::error::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<crate::error::Error> for Failure {
    fn from(error: crate::error::Error) -> Self {
        Self::Record(error)
    }
}

/// Waits until the volume is mounted.
///
/// # Errors
/// Not within `limit`.
pub fn wait_mounted(mount: &Path, limit: Duration) -> Result<()> {
    crate::process::wait_until("the mount", limit, || Ok(is_mounted(mount)))
        .context(format!("{} is not mounted", mount.display()))
}
