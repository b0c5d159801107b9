//! Names of one file that an end without notice left as several files.
//!
//! A heal puts a new file in the place of each name, one after the other. Where the end came in between, some of them stand for the new
//! file and some for the old one. All get the newest by its mark. What is there under the others is what the index has noted, or is
//! kept in `versions/`; a name under which somebody put another file is left alone.

use nearbrick_core::{FileId, Kind, Relation, VersionVector};
use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use super::Volume;
use super::change::print_of;
use super::core::{At, Core};
use super::types::{FsResult, SetTime};
use crate::brick::access;
use crate::index::Print;

/// A file that has one of the names.
struct Named {
    at: At,
    print: Print,
    version: Option<VersionVector>,
}

/// Whether the one is of a newer version than the other; a stub is of none.
fn is_newer(one: &Named, other: &Named) -> bool {
    match (&one.version, &other.version) {
        (Some(one), Some(other)) => one.relation(other) == Relation::After,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

impl Volume {
    /// Has all names of a file stand for one again. Says whether they did not.
    pub(super) fn rejoin(&self, core: &mut Core, file: FileId) -> FsResult<bool> {
        let local = self.local_or_none(file)?;
        if local.dirty || local.placed.len() < 2 {
            return Ok(false);
        }
        if !self.object_of(file)?.kind.as_ref().is_some_and(Kind::is_file) {
            return Ok(false);
        }
        let mut all: Vec<Named> = Vec::new();
        for place in local.placed.values() {
            let at = self.at_place(core, place);
            let there = at.and_then(|at| Ok((access::stat(&at.dir, &at.name)?, at)));
            let (raw, at) = match there {
                Err(Errno::NOENT) => continue,
                there => there?,
            };
            if FileType::from_raw_mode(raw.st_mode) != FileType::RegularFile {
                continue;
            }
            let mark = access::get_mark(&at.dir, &at.name)?.filter(|mark| mark.file == file);
            let Some(mark) = mark else { continue };
            let version = mark.version.filter(|version| !version.is_empty());
            all.push(Named { at, print: print_of(&raw), version });
        }
        let mut newest = 0;
        for n in 1..all.len() {
            if is_newer(&all[n], &all[newest]) {
                newest = n;
            }
        }
        let Some(ino) = all.get(newest).map(|named| named.print.ino) else { return Ok(false) };
        let mut others = all.iter().filter(|named| named.print.ino != ino).peekable();
        if others.peek().is_none() {
            return Ok(false);
        }
        for other in others {
            let is_known = local.print.is_some_and(|then| other.print.has_bytes_of(&then));
            if !is_known && other.version.is_some() {
                let name = self.keep_damaged(&other.at, file)?;
                self.note_damaged(name, file);
            }
            self.take_name_of(file, &all[newest].at, &other.at)?;
        }
        tracing::warn!(%file, "its names stood for different files, as a heal was cut off: they are one again");
        Ok(true)
    }

    /// One more name of what is at `from`, in the place of what is at `to`.
    fn take_name_of(&self, file: FileId, from: &At, to: &At) -> FsResult<()> {
        let (staging, name) = (&self.brick.staging, format!("join-{file}").into_bytes());
        let _ = access::unlink(staging, &name);
        access::link(&from.dir, &from.name, staging, &name)?;
        let (sec, nsec) = print_of(&to.dir.stat_self()?).mtime;
        access::rename(staging, &name, &to.dir, &to.name, RenameFlags::empty())?;
        access::utimens(&to.dir, b".", None, Some(SetTime::At(access::time(sec, nsec))))
    }
}
