//! Files whose bytes are elsewhere: they are read from a holder as programs ask
//! for them, and kept here. A completely filled stub is a cached copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nearbrick_core::ahead::Window;
use nearbrick_core::heal::Reason;
use nearbrick_core::pending::sources;
use nearbrick_core::scrub::hash_of;
use nearbrick_core::{BrickId, FileId, Object, VersionVector};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::Core;
use super::files::read_at;
use super::types::{FsResult, NodeId, SetTime};
use crate::brick::access;
use crate::brick::disk::{self, File};
use crate::brick::mark::Mark;
use crate::index::{Local, Unseen};

/// Bytes hashed at a time.
const CHUNK: u64 = 1 << 20;

/// A file that is being filled.
pub struct Stub {
    version: VersionVector,
    size: u64,
    file: File,
    /// start -> end, apart from each other.
    filled: Mutex<BTreeMap<u64, u64>>,
    /// One asks at a time: who waits mostly finds then what it wanted. How programs read it.
    asking: Mutex<Window>,
    whole: AtomicBool,
    /// Who gave what is here.
    givers: Mutex<BTreeSet<BrickId>>,
    /// Programs got some of it, of which nobody knows yet whether it is right.
    given: AtomicBool,
    /// They got wrong bytes: who has it open so gets no more of it.
    spoiled: AtomicBool,
    /// How often all that was here was given up.
    given_up: AtomicU64,
    /// A heal has brought the same version: the bytes are there.
    healed: OnceLock<File>,
}

/// What came of looking at a stub of which all ranges are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completed {
    /// It is a copy, or something else has taken its place.
    Done,
    /// The bytes had not the hash of the version, and are given up. Nobody has got any of them: another holder may be asked.
    Wrong,
    /// The same, and programs have got some of them: for those that have it open it is over, and not for who opens it next.
    Spoiled,
}

/// Adds a range to ranges that are apart from each other.
fn add(ranges: &mut BTreeMap<u64, u64>, mut start: u64, mut end: u64) {
    if start >= end {
        return;
    }
    if let Some((&before, &until)) = ranges.range(..=start).next_back()
        && until >= start
    {
        start = before;
        end = end.max(until);
    }
    while let Some((&next, &until)) = ranges.range(start..=end).next() {
        end = end.max(until);
        ranges.remove(&next);
    }
    ranges.insert(start, end);
}

/// What lacks between `start` and `end`.
fn gaps(ranges: &BTreeMap<u64, u64>, start: u64, end: u64) -> Vec<(u64, u64)> {
    let mut at = start;
    let mut out = Vec::new();
    if let Some((_, &until)) = ranges.range(..=start).next_back() {
        at = at.max(until);
    }
    for (&from, &until) in ranges.range(start..end) {
        if from > at {
            out.push((at, from));
        }
        at = at.max(until);
    }
    if at < end {
        out.push((at, end));
    }
    out
}

impl Stub {
    /// Bytes of the version.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The version whose bytes it gets.
    pub fn version(&self) -> &VersionVector {
        &self.version
    }

    /// The sparse file.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn filled(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is here.
    pub fn ranges(&self) -> BTreeMap<u64, u64> {
        self.filled().clone()
    }

    /// Whether the brick file alone has the bytes.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// The brick file is what counts from now on: nothing is filled in any more.
    pub fn becomes_whole(&self) {
        // Under the lock under which bytes are filled in.
        let _filled = self.filled();
        self.whole.store(true, Ordering::Release);
    }

    /// The same, once `empty` has emptied it. Should that fail, it is filled as before.
    pub fn is_emptied(&self, empty: impl FnOnce() -> FsResult<()>) -> FsResult<()> {
        let _filled = self.filled();
        empty()?;
        self.whole.store(true, Ordering::Release);
        Ok(())
    }

    /// A heal has brought this version to another brick file.
    pub fn healed_as(&self, version: &VersionVector, file: File) {
        if *version == self.version {
            let _ = self.healed.set(file);
        }
    }

    fn givers(&self) -> MutexGuard<'_, BTreeSet<BrickId>> {
        self.givers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::Acquire)
    }

    /// The bytes have not the hash of the version: none of them stays. Says whether programs had got some.
    fn give_up(&self) -> bool {
        let mut filled = self.filled();
        filled.clear();
        self.given_up.fetch_add(1, Ordering::AcqRel);
        let given = self.given.load(Ordering::Acquire);
        self.spoiled.store(given, Ordering::Release);
        given
    }

    /// A program gets bytes that were read when everything had been given up so often, or not if that has happened once more since.
    /// Says too whether all ranges are filled.
    fn gives(&self, given_up: u64) -> Option<bool> {
        let filled = self.filled();
        if self.given_up.load(Ordering::Acquire) != given_up {
            return None;
        }
        let is_full = gaps(&filled, 0, self.size).is_empty();
        if !is_full {
            self.given.store(true, Ordering::Release);
        }
        Some(is_full)
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> FsResult<()> {
        let mut filled = self.filled();
        if self.is_whole() {
            return Ok(());
        }
        if self.is_spoiled() {
            return Err(Errno::IO);
        }
        disk::write_all_at(&*self.file, bytes, offset)?;
        add(&mut filled, offset, offset + bytes.len() as u64);
        Ok(())
    }
}

impl Volume {
    /// The stub of a node, made ready to be filled.
    pub(super) fn stub_of(
        &self,
        core: &mut Core,
        node: NodeId,
        file: FileId,
        object: &Object,
        local: &Local,
    ) -> FsResult<Arc<Stub>> {
        let head = object.head().ok_or(Errno::IO)?;
        if let Some(stub) = core.nodes.get(node).and_then(|n| n.stub.clone()) {
            if stub.version == head.version {
                return Ok(stub);
            }
            // Who has the older one open keeps it; the name gets a new file.
            self.renew_stub(core, file, object, local)?;
            return Err(Errno::STALE);
        }
        if self.changed_behind(core, file, local)? {
            self.adopt_change(core, file, local)?;
            return Err(Errno::STALE);
        }
        let at = self.at(core, file, local)?;
        let open = access::open(&at.dir, &at.name, OFlags::RDWR, 0)?;
        let mut filled = local.filled.clone();
        // Of another version, or emptied past the mount.
        let is_other = local.filling.as_ref() != Some(&head.version)
            || local
                .print
                .is_some_and(|then| !open.stat().is_ok_and(|raw| print_of(&raw).has_bytes_of(&then)));
        if is_other && self.is_whole_after_all(core, file, &at)? {
            return Err(Errno::STALE);
        }
        if is_other || local.print.is_some() {
            let mut change = Change::new(self, core);
            let local = change.local_mut(file)?;
            // From now on it changes, and nobody else is blamed for that.
            local.print = None;
            if is_other {
                local.filling = Some(head.version.clone());
                local.filled.clear();
                filled.clear();
            }
            change.commit()?;
        }
        if is_other {
            open.truncate(0)?;
            access::set_file_mark(&*open, &Mark::stub(file, Some(&head.version)))?;
        }
        open.truncate(head.size)?;
        Ok(Arc::new(Stub {
            version: head.version.clone(),
            size: head.size,
            file: open,
            filled: Mutex::new(filled),
            asking: Mutex::default(),
            whole: AtomicBool::new(false),
            givers: Mutex::default(),
            given: AtomicBool::new(false),
            spoiled: AtomicBool::new(false),
            given_up: AtomicU64::new(0),
            healed: OnceLock::new(),
        }))
    }

    /// Reads from a stub.
    pub(super) fn read_stub(
        &self,
        file: FileId,
        stub: &Arc<Stub>,
        offset: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> FsResult<()> {
        if stub.is_spoiled() {
            return Err(Errno::IO);
        }
        if stub.is_whole() {
            return read_at(&*stub.file, offset, len, buf);
        }
        if let Some(healed) = stub.healed.get() {
            return read_at(&**healed, offset, len, buf);
        }
        let end = offset.saturating_add(len as u64).min(stub.size);
        buf.clear();
        if offset >= end {
            return Ok(());
        }
        let len = usize::try_from(end - offset).unwrap_or(len);
        let began = stub.given_up.load(Ordering::Acquire);
        loop {
            if stub.is_spoiled() {
                return Err(Errno::IO);
            }
            let given_up = stub.given_up.load(Ordering::Acquire);
            self.fill(file, stub, offset, end, began)?;
            read_at(&*stub.file, offset, len, buf)?;
            match stub.gives(given_up) {
                None => continue,
                Some(false) => return Ok(()),
                Some(true) => {}
            }
            match self.complete_stub(file, stub) {
                Ok(Completed::Done) => return Ok(()),
                Ok(Completed::Wrong | Completed::Spoiled) => {}
                Err(error) => {
                    tracing::warn!(%file, %error, "a file that was read from a peer is not kept as a copy");
                    return Err(error);
                }
            }
        }
    }

    /// Has all of it filled in, from another holder if what came is wrong. Waits for holders.
    pub(super) fn fill_whole(&self, file: FileId, stub: &Arc<Stub>) -> FsResult<Completed> {
        let began = stub.given_up.load(Ordering::Acquire);
        loop {
            self.fill(file, stub, 0, stub.size(), began)?;
            match self.complete_stub(file, stub)? {
                Completed::Wrong => {}
                completed => return Ok(completed),
            }
        }
    }

    /// Has the bytes between `start` and `end` filled in. Waits for a holder. `began`: how often all was given up when whoever waits for it
    /// began to.
    fn fill(&self, file: FileId, stub: &Stub, start: u64, end: u64, began: u64) -> FsResult<()> {
        let lacking = || gaps(&stub.filled(), start, end);
        if stub.is_whole() || lacking().is_empty() {
            return Ok(());
        }
        let mut window = stub.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some((first, _)), Some((_, last)), false) =
            (lacking().first().copied(), lacking().last().copied(), stub.is_whole())
        else {
            return Ok(());
        };
        let (from, to) = window.wants(first, last, stub.size);
        // Not in the head of the loop: what is locked there stays so.
        let lacking = gaps(&stub.filled(), from, to);
        for (mut at, end) in lacking {
            while at < end {
                let until = end.min(at + window.most());
                let asked = self.clock.now_ms();
                let bytes = self.ask(file, stub, at, until, began)?;
                window.took(until - at, self.clock.now_ms().saturating_sub(asked));
                stub.put(at, &bytes)?;
                at = until;
            }
        }
        Ok(())
    }

    /// Asks holders for a range: first who gave the rest, so that wrong bytes have one giver; and not those who gave wrong ones before.
    fn ask(&self, file: FileId, stub: &Stub, from: u64, to: u64, began: u64) -> FsResult<Vec<u8>> {
        let version = &stub.version;
        let object = self.object_of(file)?;
        let holders: Vec<_> = if object.head().is_some_and(|h| h.version == *version) {
            sources(&object).into_iter().filter(|b| *b != self.me).collect()
        } else {
            object.holders_of(version).filter(|b| *b != self.me).collect()
        };
        let len = usize::try_from(to - from).map_err(|_| Errno::FBIG)?;
        let remote = self.remote().ok_or(Errno::IO)?;
        let failed = |reason: Reason| {
            let config = self.config();
            let names: Vec<_> = holders
                .iter()
                .map(|b| config.member(*b).map_or_else(|| b.to_string(), |m| m.node.clone()))
                .collect();
            let message = format!(
                "file {file} could not be read from {}: {}",
                if names.is_empty() { "anyone: no brick holds it".to_owned() } else { names.join(", ") },
                reason.as_str()
            );
            tracing::warn!("{message}");
            self.note_error(reason, message);
            Errno::IO
        };
        let doubted = self.doubted(file, version);
        let mut left: Vec<_> = holders.iter().copied().filter(|b| !doubted.contains(b)).collect();
        if left.is_empty() && stub.given_up.load(Ordering::Acquire) > began {
            // The next one asks all of them again.
            self.lock().doubted.remove(&file);
            return Err(failed(if doubted.is_empty() { Reason::Unreachable } else { Reason::Corrupt }));
        }
        let mut why = Reason::Unreachable;
        while !left.is_empty() {
            let before: Vec<_> = left.iter().copied().filter(|b| stub.givers().contains(b)).collect();
            let asked = if before.is_empty() { &left } else { &before };
            match remote.read(file, version, from, len, asked) {
                Ok((giver, bytes)) if bytes.len() == len => {
                    stub.givers().insert(giver);
                    return Ok(bytes);
                }
                Ok((giver, _)) => {
                    why = Reason::Corrupt;
                    left.retain(|b| *b != giver);
                }
                Err(reason) => {
                    if reason != Reason::Unreachable || why == Reason::Unreachable {
                        why = reason;
                    }
                    if before.is_empty() {
                        break;
                    }
                    left.retain(|b| !before.contains(b));
                }
            }
        }
        if !doubted.is_empty() && stub.given_up.load(Ordering::Acquire) == began {
            // That was when it was read before: what those have may be whole by now.
            self.lock().doubted.remove(&file);
            return self.ask(file, stub, from, to, began);
        }
        Err(failed(why))
    }

    /// Holders that gave wrong bytes of this version.
    fn doubted(&self, file: FileId, version: &VersionVector) -> BTreeSet<BrickId> {
        let core = &*self.lock();
        core.doubted
            .get(&file)
            .filter(|(of, _)| of == version)
            .map(|(_, who)| who.clone())
            .unwrap_or_default()
    }

    /// What came of a version has not its hash. Whoever gave it is not asked again, as long as there are others.
    fn came_wrong(&self, core: &mut Core, file: FileId, stub: &Arc<Stub>) -> FsResult<Completed> {
        let spoiled = stub.give_up();
        let givers = std::mem::take(&mut *stub.givers());
        let doubted = core.doubted.entry(file).or_insert_with(|| (stub.version.clone(), BTreeSet::new()));
        if doubted.0 != stub.version {
            *doubted = (stub.version.clone(), BTreeSet::new());
        }
        doubted.1.extend(givers.iter().copied());
        let names: Vec<_> = givers.iter().map(ToString::to_string).collect();
        let message =
            format!("file {file} came with wrong bytes from {}; they were given up", names.join(", "));
        self.note_error(Reason::Corrupt, message);
        let mut change = Change::new(self, core);
        change.local_mut(file)?.filled.clear();
        change.commit()?;
        if !spoiled {
            return Ok(Completed::Wrong);
        }
        // The next one who opens it begins anew.
        if let Some(node) = core.nodes.id_of(file).and_then(|id| core.nodes.get_mut(id)) {
            node.stub.take_if(|known| Arc::ptr_eq(known, stub));
        }
        Ok(Completed::Spoiled)
    }

    /// All ranges are filled: checks the hash of the whole, and keeps it as a copy. Bytes that are not what the version's hash says are
    /// given up.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn complete_stub(&self, file: FileId, stub: &Arc<Stub>) -> FsResult<Completed> {
        if stub.is_whole() {
            return Ok(Completed::Done);
        }
        if stub.is_spoiled() {
            return Ok(Completed::Spoiled);
        }
        let mut hasher = blake3::Hasher::new();
        let mut buf = Vec::new();
        let mut at = 0;
        while at < stub.size {
            let len = usize::try_from((stub.size - at).min(CHUNK)).unwrap_or(1 << 20);
            read_at(&*stub.file, at, len, &mut buf)?;
            if buf.is_empty() {
                return Err(Errno::IO);
            }
            hasher.update(&buf);
            at += buf.len() as u64;
        }
        let hash = *hasher.finalize().as_bytes();
        let core = &mut *self.lock();
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        let known = core.nodes.of(file).and_then(|n| n.stub.as_ref());
        let ours = known.is_none_or(|known| Arc::ptr_eq(known, stub));
        if stub.is_whole() || !ours || local.dirty || local.have.is_some() || !local.on_disk() {
            return Ok(Completed::Done);
        }
        if local.filling.as_ref() != Some(&stub.version) {
            return Ok(Completed::Done);
        }
        if hash_of(&object, &stub.version).is_some_and(|expected| expected != hash) {
            return self.came_wrong(core, file, stub);
        }
        core.doubted.remove(&file);
        stub.becomes_whole();
        let at = self.at(core, file, &local)?;
        if let Some(mtime) = &object.mtime {
            let time = SetTime::At(access::time(mtime.value.0, mtime.value.1));
            access::utimens(&at.dir, &at.name, None, Some(time))?;
        }
        access::set_mark(&at.dir, &at.name, &Mark::copied(file, stub.version.clone(), &hash))?;
        let print = print_of(&access::stat(&at.dir, &at.name)?);
        let newest = object.head().is_some_and(|h| h.version == stub.version);
        let mut change = Change::new(self, core);
        let local = change.local_mut(file)?;
        local.have = Some(stub.version.clone());
        local.synced = None;
        local.print = Some(print);
        local.unseen = local.unseen.map(|u| Unseen { ctime: print.ctime, ..u });
        local.filling = None;
        local.filled.clear();
        if newest {
            local.overlay = None;
        }
        change.commit()?;
        // It is said to others only when it is durable here, and whoever reads does not wait for that.
        core.copies.insert(file, (stub.version.clone(), hash));
        core.unsynced.insert(file);
        self.settler.copied();
        Ok(Completed::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_what_was_added(list in prop::collection::vec((0u64..60, 0u64..20), 0..12), start in 0u64..70, len in 0u64..40) {
            let (mut ranges, mut bits) = (BTreeMap::new(), [false; 128]);
            for (at, len) in list {
                add(&mut ranges, at, at + len);
                (at..at + len).for_each(|i| bits[i as usize] = true);
            }
            let mut last = None;
            for (&a, &b) in &ranges {
                prop_assert!(a < b && last.is_none_or(|l| l < a));
                last = Some(b);
            }
            let lacking: Vec<u64> = gaps(&ranges, start, start + len).into_iter().flat_map(|(a, b)| a..b).collect();
            let expected: Vec<u64> = (start..start + len).filter(|i| !bits[*i as usize]).collect();
            prop_assert_eq!(lacking, expected);
        }
    }
}
