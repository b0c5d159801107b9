//! What programs were told, and what follows from it: which bytes must still be somewhere, and which
//! bytes a reader may be shown.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use nearbrick_agent::peer::wire::Heads;
use nearbrick_core::{FileId, Incarnation, VersionVector};

use super::machine::{End, Machine};

/// Stands for the bytes of a file. Each write of a program writes other bytes than any before.
pub type Content = u64;

pub fn content_of(bytes: &[u8]) -> Content {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// What a member knows of a file.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// How far it has heard of the journals.
    pub heads: Heads,
    /// What the versions that it knows include: of one it may have been told by its writer, past the journals.
    pub versions: VersionVector,
}

impl Known {
    /// Whether it is later than `before` in what this life has written.
    fn is_later(&self, before: &Known, life: Incarnation) -> bool {
        let heard = |known: &Known| known.heads.get(&life).copied().unwrap_or(0);
        heard(self) > heard(before) || self.versions.get(life) > before.versions.get(life)
    }
}

/// A program was told that these bytes of a file are durable.
#[derive(Debug)]
struct Promise {
    member: usize,
    file: FileId,
    content: Content,
    /// What that member knew then: the version that these bytes got comes after that, or they had it already.
    before: Known,
    /// Who wrote them, and the versions that were known there when they were written: theirs comes after that.
    written: Option<Written>,
    what: String,
}

#[derive(Clone, Debug)]
struct Written {
    member: usize,
    versions: VersionVector,
}

#[derive(Default)]
pub struct Oracle {
    /// Bytes that a file had between two calls of a program.
    whole: BTreeSet<Content>,
    /// What a file is by now, up to the size that it had when a version was made of it while a program was writing.
    torn: BTreeSet<Content>,
    promises: Vec<Promise>,
    /// Bytes of a file that a program replaced or removed, knowing them.
    given_up: BTreeSet<(FileId, Content)>,
    /// Versions of a file that were known where a program emptied or removed it.
    replaced: BTreeMap<FileId, VersionVector>,
    /// Who wrote these bytes of a file last.
    writers: BTreeMap<(FileId, Content), Written>,
    /// What disks made of bytes by turning a bit, and where; and which bytes they were.
    flipped: BTreeMap<(usize, Content), Content>,
    /// Whose lives those are.
    lives: BTreeMap<Incarnation, usize>,
    /// Inodes that programs wrote since they were last made durable: after a crash they may have any bytes.
    written: BTreeSet<(usize, u64)>,
    /// What a power cut made of copies, and of which versions of which files they were.
    torn_copies: BTreeMap<Content, Vec<(FileId, VersionVector)>>,
    /// Readers were shown that.
    shown_torn: Vec<(Content, String)>,
    /// The power fails: what a program removed is gone from the disk, and may be there again by the index.
    pub cuts: bool,
    tokens: u64,
}

impl Oracle {
    /// Bytes that no other write has.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.tokens += 1;
        let token = format!("{:06x}.", self.tokens).into_bytes();
        token.iter().copied().cycle().take(len).collect()
    }

    /// A member goes on under this incarnation.
    pub fn lives(&mut self, member: usize, life: Incarnation) {
        self.lives.insert(life, member);
    }

    /// A program wrote the file, or tried to, and this is in it now: it is not what was given up.
    pub fn wrote(&mut self, member: usize, file: FileId, bytes: &[u8], known: Option<Known>) {
        let this = (file, content_of(bytes));
        self.given_up.remove(&this);
        match known {
            Some(known) => self.writers.insert(this, Written { member, versions: known.versions }),
            None => self.writers.remove(&this),
        };
    }

    /// A program left a file like this.
    pub fn saw(&mut self, bytes: &[u8]) {
        self.whole.insert(content_of(bytes));
    }

    /// A program went on writing a file of which a version had been made when it had this size: where the disk keeps no copy of that moment, who
    /// asks for the version gets this.
    pub fn tore(&mut self, bytes: &[u8], size: u64) {
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
        self.torn.insert(content_of(&bytes[..size]));
    }

    /// Whether who reads a file of which programs elsewhere are writing a newer version may be shown this.
    pub fn is_of_several_moments(&self, bytes: &[u8]) -> bool {
        self.torn.contains(&content_of(bytes))
    }

    /// Whether a reader may be shown this.
    pub fn is_whole(&self, bytes: &[u8]) -> bool {
        bytes.is_empty() || self.whole.contains(&content_of(bytes))
    }

    /// The disk of a member turned a bit.
    pub fn flips(&mut self, member: usize, was: &[u8], now: &[u8]) {
        let was = content_of(was);
        let was = self.flipped.get(&(member, was)).copied().unwrap_or(was);
        self.flipped.insert((member, content_of(now)), was);
    }

    /// Whether a program may remove or replace these bytes. Of what a disk damaged elsewhere they may be the last whole copy, and
    /// if a power cut undoes the word of that but not the removal nobody can mend the other one.
    pub fn may_go(&self, member: usize, bytes: &[u8]) -> bool {
        let content = content_of(bytes);
        !self.cuts || !self.flipped.iter().any(|((m, _), was)| *m != member && *was == content)
    }

    /// Whether its disk made these bytes: who reads there may be shown them, until they are found.
    pub fn is_flipped(&self, member: usize, bytes: &[u8]) -> bool {
        self.flipped.contains_key(&(member, content_of(bytes)))
    }

    /// Whether any disk made them: who reads at a member that has not heard of the version's hash may be shown them.
    pub fn is_flipped_anywhere(&self, bytes: &[u8]) -> bool {
        let content = content_of(bytes);
        self.flipped.keys().any(|(_, now)| *now == content)
    }

    /// A program begins to write an inode, by which of all it is.
    pub fn writes(&mut self, member: usize, made: u64) {
        self.written.insert((member, made));
    }

    /// All that programs wrote at a member was made durable.
    pub fn is_all_synced(&mut self, member: usize) {
        self.written.retain(|(m, _)| *m != member);
    }

    /// The inode's bytes were made durable.
    pub fn is_synced(&mut self, member: usize, made: u64) {
        self.written.remove(&(member, made));
    }

    /// The agent ended without notice: what programs were writing may be there in part. What is not durable
    /// after a kill may still be lost to a power cut that comes later. `open`: what they had open for writing, and so, for all that the
    /// brick can tell after a power cut, may have written, unless its disk did that.
    /// `before`: what each inode had until then.
    pub fn crashed(
        &mut self,
        member: usize,
        how: End,
        machine: &Machine,
        open: &BTreeSet<FileId>,
        before: &BTreeMap<u64, Content>,
    ) {
        let in_data = machine.disk.files_below(&[b"data"]).into_iter().map(|found| (found, true));
        // Also what was just being moved out of another's way.
        let in_staging =
            machine.disk.files_below(&[b".nearbrick", b"staging"]).into_iter().map(|found| (found, false));
        for (found, new) in in_data.chain(in_staging) {
            let was_open = how == End::PowerCut
                && found.mark.as_ref().is_some_and(|mark| open.contains(&mark.file))
                && !self.is_flipped(member, &found.bytes);
            if new && found.mark.is_none() || was_open || self.written.contains(&(member, found.made)) {
                self.saw(&found.bytes);
            }
            let now = content_of(&found.bytes);
            if how == End::PowerCut
                && before.get(&found.made).is_some_and(|was| *was != now)
                && let Some(mark) = &found.mark
                && let Some(of) = mark.copy_of()
            {
                self.torn_copies.entry(now).or_default().push((mark.file, of.clone()));
            }
        }
        if how == End::PowerCut {
            self.is_all_synced(member);
        }
    }

    /// A reader was shown what a power cut may have left of a copy. Says whether that is what it is; [`Oracle::is_there_whole`] whether it may
    /// have been.
    pub fn shows_torn(&mut self, bytes: &[u8], what: &str) -> bool {
        let content = content_of(bytes);
        let is_torn = self.torn_copies.contains_key(&content);
        if is_torn {
            self.shown_torn.push((content, what.to_owned()));
        }
        is_torn
    }

    /// What readers were shown of torn copies though a member has the version whole, or what came in its place. Of what nobody has any more
    /// what is left is all that there is.
    pub fn is_there_whole(&mut self, machines: &[Machine]) -> Option<String> {
        let shown = std::mem::take(&mut self.shown_torn);
        let has = |machine: &Machine, (file, of): &(FileId, VersionVector)| {
            let local = machine.index().local(*file).ok().flatten().unwrap_or_default();
            !local.dirty && local.have.is_some_and(|have| have.includes(of))
        };
        let is_whole = |copy: &(FileId, VersionVector)| machines.iter().any(|machine| has(machine, copy));
        let torn = shown.into_iter().find(|(content, _)| self.torn_copies[content].iter().all(is_whole))?;
        Some(format!("a reader of {} got half a file, and a member has all of it", torn.1))
    }

    /// A program was told that these bytes are durable. If another had replaced them by then, knowing them, and nobody
    /// wrote them anew, they are older than what it made of them, as if both had been programs of one workstation: an
    /// `fsync` makes no new version.
    pub fn promise(&mut self, member: usize, file: FileId, bytes: &[u8], before: Known, what: String) {
        let content = content_of(bytes);
        let written = self.writers.get(&(file, content)).cloned();
        let replaced = match (&written, self.replaced.get(&file)) {
            (Some(written), Some(versions)) => self.has_later(versions, &written.versions, written.member),
            _ => false,
        };
        if !bytes.is_empty() && !replaced && !self.given_up.contains(&(file, content)) {
            self.promises.push(Promise { member, file, content, before, written, what });
        }
    }

    /// A program replaces or removes these bytes of a file. What fails for it may have been carried out all the same.
    pub fn release(&mut self, file: Option<FileId>, bytes: &[u8]) {
        let content = content_of(bytes);
        // Who replaces what a disk made of bytes replaces those.
        let were = self.flipped.iter().filter(|((_, now), _)| *now == content).map(|(_, was)| *was);
        for content in were.chain([content]) {
            self.given_up.extend(file.map(|file| (file, content)));
            self.promises.retain(|p| p.content != content);
        }
    }

    /// Whether these include a version that the member made after those.
    fn has_later(&self, versions: &VersionVector, than: &VersionVector, member: usize) -> bool {
        let mut lives = self.lives.iter().filter(|(_, m)| **m == member);
        lives.any(|(life, _)| versions.get(*life) > than.get(*life))
    }

    /// A program empties or removes the file where so much is known: all versions that may be known there.
    pub fn release_known(&mut self, file: FileId, known: &Known) {
        self.replaced.entry(file).or_default().merge(&known.versions);
        let promises = std::mem::take(&mut self.promises);
        let (of_file, mut kept): (Vec<_>, Vec<_>) = promises.into_iter().partition(|p| p.file == file);
        for p in of_file {
            let mut lives = self.lives.iter().filter(|(_, m)| **m == p.member);
            let had_it = self.has_later(&known.versions, &p.before.versions, p.member)
                || p.written.as_ref().is_some_and(|w| self.has_later(&known.versions, &w.versions, w.member));
            if had_it {
                self.given_up.insert((file, p.content));
            } else if !lives.any(|(life, _)| known.is_later(&p.before, *life)) {
                kept.push(p);
            }
        }
        self.promises = kept;
    }

    /// Whether a program removed or replaced the last whole copy of bytes, and the file is there all the same, as another had moved it apart: with
    /// what a disk made of them. Nobody can mend that.
    pub fn last_copy_was_given_up(&self, machines: &[Machine]) -> bool {
        let there = Self::on_bricks(machines);
        machines.iter().enumerate().any(|(n, machine)| {
            machine.disk.files_below(&[b"data"]).into_iter().any(|found| {
                let was = self.flipped.get(&(n, content_of(&found.bytes)));
                found.mark.zip(was).is_some_and(|(mark, was)| {
                    self.given_up.contains(&(mark.file, *was)) && !there.contains(was)
                })
            })
        })
    }

    /// What bricks have of files, wherever.
    fn on_bricks(machines: &[Machine]) -> BTreeSet<Content> {
        let folders: [&[&[u8]]; 3] =
            [&[b"data"], &[b".nearbrick", b"versions"], &[b".nearbrick", b"staging"]];
        let mut there = BTreeSet::new();
        for machine in machines {
            for folder in folders {
                there.extend(machine.disk.files_below(folder).iter().map(|f| content_of(&f.bytes)));
            }
        }
        there
    }

    /// What was promised and is on no brick.
    pub fn lost(&self, machines: &[Machine]) -> Option<String> {
        if self.promises.is_empty() {
            return None;
        }
        let there = Self::on_bricks(machines);
        let lost = self.promises.iter().find(|p| !there.contains(&p.content))?;
        Some(format!(
            "member {} was told that it is durable, and it is on no brick: {}",
            lost.member, lost.what
        ))
    }

    /// What was promised and is not shown, though all is well.
    pub fn not_shown(&self, shown: &BTreeSet<Content>) -> Option<String> {
        let lost = self.promises.iter().find(|p| !shown.contains(&p.content))?;
        Some(format!(
            "member {} was told that it is durable, and it is not shown: {}",
            lost.member, lost.what
        ))
    }
}
