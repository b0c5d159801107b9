//! How much groups of related files are used at this workstation: what the operator decides by when copies are to move.
//!
//! Opens are noted by directory, since that costs next to nothing; which group a directory belongs to, and what else there is to say of
//! a group, is found out for the few hottest of them, now and then. Reads and writes of an open file go past the agent, so they
//! are not counted.
//!
//! Invariant: memory is bounded (`core/heat`), and so is the work of one look ([`MOST_FILES`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nearbrick_core::coaccess::CoAccess;
use nearbrick_core::heat::{Access, Heat, Uses};
use nearbrick_core::{BrickId, FileId, Place};
use nearbrick_crds::RelatedFiles;
use rustix::io::Errno;

use super::count::Count;
use super::types::FsResult;
use super::{Volume, index_failed};
use crate::index::{Index, IndexError, encode};

/// Where uses are kept in the index, and which directories are used together.
const USAGE: &str = "usage";
const TOGETHER: &str = "together";
/// Directories that are told apart for the reports.
const MOST_DIRS: usize = 4096;
/// Groups that are reported.
pub const MOST_GROUPS: usize = 16;
/// Files of all reported groups that are looked at.
const MOST_FILES: u64 = 200_000;
/// After a look that took longer there is a rest.
const LONG: Duration = Duration::from_millis(100);
/// A group that is worth less is not reported.
const WORTH: f64 = 0.5;
/// What makes a directory a project.
const MARKERS: &[&str] = &[
    ".git",
    ".hg",
    ".svn",
    ".jj",
    "Cargo.toml",
    "package.json",
    "pyproject.toml",
    "setup.py",
    "go.mod",
    "pom.xml",
    "build.gradle",
    "build.gradle.kts",
    "CMakeLists.txt",
    "meson.build",
    "Makefile",
    "Gemfile",
    "composer.json",
    "mix.exs",
    "dune-project",
    "stack.yaml",
    "flake.nix",
    "renv.lock",
    ".project",
];

/// A group and its use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HotGroup {
    /// The directory's path from the root.
    pub path: String,
    /// Whether all below it belongs to it.
    pub below: bool,
    /// Paths of the other directories of the group.
    pub with: Vec<String>,
    /// What its uses are worth.
    pub uses: Uses,
    /// Its files.
    pub all: Count,
    /// Those of them that this brick need not hold.
    pub away: Count,
    /// The commonest replica set.
    pub bricks: Vec<BrickId>,
}

#[derive(Debug, Default)]
struct State {
    heat: Heat,
    /// Only kept where the volume asks for it.
    together: CoAccess,
    /// Something was noted since the last look.
    noted: bool,
    /// Something was noted since it was last kept.
    unkept: bool,
    hottest: Vec<HotGroup>,
    /// When the next look may be, by the clock's `passed`.
    rests_until: Duration,
}

/// What is known of uses.
#[derive(Debug, Default)]
pub(super) struct Usage(Mutex<State>);

impl Usage {
    /// What the index has. What cannot be read is forgotten: it is no one's work.
    pub(super) fn load(index: &Index) -> Result<Self, IndexError> {
        let heat = index.meta(USAGE)?.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        let together =
            index.meta(TOGETHER)?.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        Ok(Usage(Mutex::new(State { heat, together, noted: true, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group of one directory, or of all below it; or of several directories, the first of which it is called by.
type Group = (Vec<FileId>, bool);

impl Volume {
    /// A program opened a file of this directory.
    pub(super) fn note_use(&self, dir: FileId, access: Access) {
        let now = self.clock.now_ms();
        let together = self.config().upkeep.related == RelatedFiles::CoAccess;
        let state = &mut *self.usage.state();
        state.heat.note(dir, access, 1, now);
        if together {
            state.together.note(dir, now);
        }
        (state.noted, state.unkept) = (true, true);
    }

    /// What is used most here, hottest first, as of the last look.
    pub fn hottest(&self) -> Vec<HotGroup> {
        self.usage.state().hottest.clone()
    }

    /// Looks at what is used most here. Blocks on the index.
    ///
    /// # Errors
    /// The index.
    pub fn look_at_usage(&self) -> FsResult<()> {
        let (now, began) = (self.clock.now_ms(), self.clock.passed());
        let related = self.config().upkeep.related;
        let (dirs, together) = {
            let state = &mut *self.usage.state();
            if began < state.rests_until
                || state.heat.is_empty()
                || (!state.noted && state.hottest.is_empty())
            {
                return Ok(());
            }
            state.noted = false;
            let together = match related {
                RelatedFiles::CoAccess => state.together.groups(),
                RelatedFiles::Directory | RelatedFiles::Project => BTreeMap::new(),
            };
            (state.heat.hottest(MOST_DIRS, now), together)
        };
        let mut groups: HashMap<Group, Uses> = HashMap::new();
        let mut known: HashMap<FileId, Option<Group>> = HashMap::new();
        for (dir, uses) in dirs {
            let group = match together.get(&dir) {
                Some(all) => Some((all.clone(), false)),
                None => self.group_of(dir, related, &mut known)?,
            };
            let Some(group) = group else { continue };
            let sum = groups.entry(group).or_default();
            sum.local += uses.local;
            sum.cached += uses.cached;
            sum.remote += uses.remote;
            sum.writes += uses.writes;
        }
        let mut list: Vec<(Group, Uses)> =
            groups.into_iter().filter(|(_, uses)| uses.total() >= WORTH).collect();
        list.sort_by(|(a, x), (b, y)| y.total().total_cmp(&x.total()).then(a.cmp(b)));
        list.truncate(MOST_GROUPS);
        let mut left = MOST_FILES;
        let mut hottest = Vec::with_capacity(list.len());
        for ((dirs, below), uses) in list {
            // The API has texts only: what cannot be named there cannot be moved. Nor can what is gone.
            let mut named = Vec::with_capacity(dirs.len());
            for dir in dirs {
                match self.path_of(dir) {
                    Ok(path) => {
                        let path = String::from_utf8(path).ok();
                        named.extend(path.map(|path| (path.trim_end_matches('/').to_owned(), dir)));
                    }
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
            }
            named.sort_unstable();
            let mut paths = named.iter().map(|(path, _)| path.clone());
            let Some(path) = paths.next() else { continue };
            let mut group = HotGroup { path, below, with: paths.collect(), uses, ..HotGroup::default() };
            self.survey(named.iter().map(|(_, dir)| *dir).collect(), &mut group, &mut left)?;
            hottest.push(group);
        }
        let state = &mut *self.usage.state();
        state.hottest = hottest;
        // One part in fifty of the time at most.
        let now = self.clock.passed();
        let took = now.saturating_sub(began);
        if took > LONG {
            state.rests_until = now.saturating_add(took * 50);
        }
        Ok(())
    }

    /// Keeps what was noted, for after a restart.
    ///
    /// # Errors
    /// The index.
    pub fn keep_usage(&self) -> FsResult<()> {
        let (heat, together) = {
            let state = &mut *self.usage.state();
            if !std::mem::take(&mut state.unkept) {
                return Ok(());
            }
            (encode(&state.heat), encode(&state.together))
        };
        let mut batch = self.index.batch();
        batch.meta(USAGE, &heat);
        batch.meta(TOGETHER, &together);
        batch.commit().map_err(index_failed)
    }

    /// The group to which the files of a directory belong. None if it is gone.
    fn group_of(
        &self,
        dir: FileId,
        related: RelatedFiles,
        known: &mut HashMap<FileId, Option<Group>>,
    ) -> FsResult<Option<Group>> {
        let mut passed = Vec::new();
        let mut at = dir;
        let project = loop {
            if let Some(group) = known.get(&at) {
                break group.clone();
            }
            passed.push(at);
            if related == RelatedFiles::Project && self.has_marker(at)? {
                break Some((vec![at], true));
            }
            if at == FileId::ROOT || passed.len() > super::names::MAX_DEPTH {
                break None;
            }
            match self.index.local(at).map_err(index_failed)?.as_ref().and_then(|local| local.place()) {
                Some(place) => at = place.parent,
                // It has no place in the tree any more.
                None => return Ok(None),
            }
        };
        known.extend(passed.into_iter().map(|dir| (dir, project.clone())));
        let is_there = dir == FileId::ROOT || self.index.local(dir).map_err(index_failed)?.is_some();
        Ok(project.or(is_there.then_some((vec![dir], false))))
    }

    fn has_marker(&self, dir: FileId) -> FsResult<bool> {
        for marker in MARKERS {
            let place = Place { parent: dir, name: marker.as_bytes().to_vec() };
            if self.index.shown(&place).map_err(index_failed)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Counts the files of a group, as far as `left` goes.
    fn survey(&self, mut dirs: Vec<FileId>, group: &mut HotGroup, left: &mut u64) -> FsResult<()> {
        let mut sets: BTreeMap<Vec<BrickId>, u64> = BTreeMap::new();
        while let Some(dir) = dirs.pop() {
            for (_, shown) in self.index.shown_in(dir).map_err(index_failed)? {
                match shown.kind {
                    libc::DT_DIR if group.below => dirs.push(shown.file),
                    libc::DT_REG if *left > 0 => {
                        *left -= 1;
                        let Some(object) = self.index.object(shown.file).map_err(index_failed)? else {
                            continue;
                        };
                        let set = object.replica_set();
                        let size = object.size();
                        let mut counts = vec![&mut group.all];
                        if !set.contains(&self.me) {
                            counts.push(&mut group.away);
                        }
                        for count in counts {
                            count.files += 1;
                            count.bytes = count.bytes.saturating_add(size);
                        }
                        match sets.get_mut(set) {
                            Some(files) => *files += 1,
                            None => {
                                sets.insert(set.to_vec(), 1);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        let commonest = sets.into_iter().max_by_key(|(_, files)| *files);
        group.bricks = commonest.map(|(set, _)| set).unwrap_or_default();
        Ok(())
    }
}
