//! What a power cut left of files that programs here had written, where nothing proves which version that is.
//!
//! It is read and written like any file, but it does not become a version before others were heard: if a former life of this brick had
//! made a version of the file that the index did not keep, and another brick holds it, then that is the file, and no side of a
//! conflict with what the power cut left of it. Those bytes are kept in `versions/`, or are that version after all. Who writes to the file, or
//! has it made durable, makes it an edit, as it would have been without others.
//!
//! The mark says how the file was found, so that a restart changes nothing.

use std::time::Duration;

use nearbrick_core::recover::{End, Unproven, former_version};
use nearbrick_core::scrub::hash_of;
use nearbrick_core::{Content, FileId, Op, Reg};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::{At, Core};
use super::files::hash;
use super::types::FsResult;
use crate::brick::access;
use crate::brick::disk::File;
use crate::brick::mark::{Found, Mark, Origin};
use crate::index::{Local, Print};

/// From when the first other member was heard to when the file is what it is, whoever may come later.
const OTHERS: Duration = Duration::from_secs(60);

/// A file that another version takes the place of, and what is to be known for that.
struct Former {
    content: Content,
    known: Option<[u8; 32]>,
    open: File,
    print: Print,
    local: Local,
}

impl Volume {
    /// A file is not proven to be any version: `mark` is what its mark is to say, `was` what it said, and `now` how it looks.
    pub(super) fn is_unproven(
        &self,
        core: &mut Core,
        at: &At,
        mark: Mark,
        was: Option<Mark>,
        now: &Print,
    ) -> FsResult<()> {
        let (origin, version) = was.map_or((Origin::Here, None), |was| (was.origin, was.version));
        let found = match origin {
            // By an earlier start, and marking it has moved its times.
            Origin::Found(found) if now.has_bytes_of(&found.print) => found,
            _ => Found { print: *now, marked: version.filter(|version| !version.is_empty()) },
        };
        core.unproven.insert(mark.file);
        access::set_mark(&at.dir, &at.name, &Mark { origin: Origin::Found(found), ..mark })
    }

    /// What is here may be a version that a former life had made: nobody is to say an older one again in its place before that is known. So
    /// others are told that it is not settled, as this life's word.
    pub(super) fn say_unproven(&self, change: &mut Change<'_>, file: FileId) -> FsResult<()> {
        let object = change.object(file)?;
        let is_said = |reg: &Reg<bool>| reg.value && reg.stamp.origin == self.incarnation;
        if change.local(file)?.is_some_and(|l| l.dirty) && !object.writers.get(&self.me).is_some_and(is_said)
        {
            change.emit(file, Op::Dirty { brick: self.me })?;
        }
        Ok(())
    }

    /// How a dirty file was found, if nobody has written to it since.
    pub(super) fn found_as(
        &self,
        core: &mut Core,
        at: &At,
        file: FileId,
        local: &Local,
        now: &Print,
    ) -> FsResult<Option<Found>> {
        if !core.unproven.contains(&file) {
            return Ok(None);
        }
        let found = match access::get_mark(&at.dir, &at.name)? {
            Some(Mark { file: of, origin: Origin::Found(found), .. }) if of == file => Some(found),
            _ => None,
        };
        let found =
            found.filter(|found| local.dirty && local.snapshot.is_none() && now.has_bytes_of(&found.print));
        if found.is_none() {
            core.unproven.remove(&file);
        }
        Ok(found)
    }

    /// Dirty files of an index that was not just looked through, of which the marks say that they were found so.
    pub(super) fn load_unproven(&self, core: &mut Core, dirty: &[FileId]) -> FsResult<()> {
        for file in dirty {
            let local = self.local_or_none(*file)?;
            let there = self.at(core, *file, &local).and_then(|at| access::get_mark(&at.dir, &at.name));
            let mark = match there {
                Err(Errno::NOENT) => continue,
                there => there?,
            };
            if local.dirty && mark.is_some_and(|mark| matches!(mark.origin, Origin::Found(_))) {
                core.unproven.insert(*file);
            }
        }
        Ok(())
    }

    /// A program has the file made durable as it is: it is what it is.
    pub(super) fn is_proven(&self, file: FileId) -> FsResult<()> {
        let core = &mut *self.lock();
        if !core.unproven.remove(&file) {
            return Ok(());
        }
        let local = self.local_or_none(file)?;
        let at = self.at(core, file, &local)?;
        match access::get_mark(&at.dir, &at.name)? {
            Some(mark @ Mark { origin: Origin::Found(_), .. }) if mark.file == file => {
                access::set_mark(&at.dir, &at.name, &Mark { origin: Origin::Here, ..mark })
            }
            _ => Ok(()),
        }
    }

    /// The version that a former life made of a file that was found so, and that another brick holds.
    pub(super) fn former_of(&self, file: FileId, local: &Local, found: &Found) -> FsResult<Option<Content>> {
        let Print { mtime, ctime, .. } = found.print;
        let ms = |(sec, nsec): (i64, u32)| {
            u64::try_from(sec).unwrap_or(0).saturating_mul(1000).saturating_add(u64::from(nsec) / 1_000_000)
        };
        let unproven = Unproven {
            base: &local.base,
            marked: found.marked.as_ref(),
            marked_last: mtime < ctime,
            changed_ms: ms(ctime),
        };
        let is_former = |life| self.brick.former.contains(&life);
        Ok(former_version(&self.object_of(file)?, self.me, is_former, &unproven).cloned())
    }

    /// Whether a member that was not heard yet is waited for, as it may have such a version.
    pub(super) fn others_may_hold(&self, core: &mut Core) -> bool {
        let config = self.config();
        let Core { told, heads, heard_since, .. } = core;
        let others = config.members.iter().filter(|m| m.brick != self.me);
        let (mut any, mut all) = (false, true);
        for member in others {
            let heard = told.is_heard(member.brick, heads);
            any |= heard;
            all &= heard;
        }
        if any {
            heard_since.get_or_insert_with(|| self.clock.passed());
        }
        let is_over = heard_since.is_some_and(|since| self.clock.passed().saturating_sub(since) >= OTHERS);
        !all && !is_over
    }

    /// Others said something of `files`, or how far they had heard: what waits for that is looked at.
    pub(super) fn wake_unproven<'a>(&self, core: &mut Core, files: impl IntoIterator<Item = &'a FileId>) {
        if core.unproven.is_empty() {
            return;
        }
        if self.others_may_hold(core) {
            files.into_iter().filter(|f| core.unproven.contains(f)).for_each(|f| self.settler.soon(*f));
        } else {
            core.unproven.iter().for_each(|f| self.settler.soon(*f));
        }
    }

    /// What takes the place of a file that was found so, as long as no program has it open for writing.
    fn former(&self, core: &mut Core, file: FileId) -> FsResult<Option<Former>> {
        let local = self.local_or_none(file)?;
        if !local.dirty || !local.on_disk() || core.nodes.of(file).is_some_and(|n| n.writers > 0) {
            return Ok(None);
        }
        let at = self.at(core, file, &local)?;
        let open = access::open(&at.dir, &at.name, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
        let print = print_of(&open.stat()?);
        let Some(found) = self.found_as(core, &at, file, &local, &print)? else { return Ok(None) };
        let Some(content) = self.former_of(file, &local, &found)? else { return Ok(None) };
        let known = hash_of(&self.object_of(file)?, &content.version);
        Ok(Some(Former { content, known, open, print, local }))
    }

    /// Puts the version that a former life made in the place of what was found, or finds that it is that. The bytes are read without
    /// the lock.
    pub(super) fn former_comes_back(&self, file: FileId) -> FsResult<()> {
        let Some(former) = self.former(&mut self.lock(), file)? else { return Ok(()) };
        let may_be = former.known.filter(|_| former.print.size == former.content.size);
        let is_it = match may_be {
            Some(known) => hash(&*former.open)? == known,
            None => false,
        };
        let core = &mut *self.lock();
        let again = self.former(core, file)?;
        let same = again.is_some_and(|a| {
            a.content == former.content && a.print == former.print && a.local == former.local
        });
        if !same {
            self.settler.soon(file);
            return Ok(());
        }
        core.unproven.remove(&file);
        if is_it {
            let version = former.content.version;
            access::set_file_mark(&*former.open, &Mark::new(file, Some(version.clone())))?;
            let now = print_of(&former.open.stat()?);
            self.is_version(core, file, version, now, End::PowerLost)?;
        } else {
            let object = self.object_of(file)?;
            self.keep_open(core, file);
            let why =
                (former.print.size > 0).then_some("is what a power cut left of a version that others hold");
            self.give_up_bytes(core, file, &former.local, &object, why)?;
        }
        self.bring_about(core, vec![file]);
        Ok(())
    }
}
