//! The version that a person chose takes its place: what gives way is kept, and all becomes true together.

use nearbrick_core::resolution::{Decision, Order, Side};
use nearbrick_core::{FileId, LinkId, Object, Op, Place, VersionVector};
use rustix::io::Errno;

use super::sides::Staged;
use super::{AGAIN, Hindrance, Plan, SOON, Step};
use crate::brick::access;
use crate::brick::disk::Dir;
use crate::index::{Local, Shown};
use crate::volume::Volume;
use crate::volume::change::{Change, print_of};
use crate::volume::core::{At, Core};
use crate::volume::types::FsResult;
use crate::volume::versions::{Label, Linked, Why, name_of};

/// A file beside that is to go.
struct Going {
    file: FileId,
    /// Its names that were given to it because of the conflict.
    links: Vec<LinkId>,
    /// Those of them that are in `data/`.
    shown: Vec<(Place, Shown, At)>,
    /// Its bytes, if they are here and under no other name.
    keep: Option<VersionVector>,
    object: Object,
    local: Local,
}

/// What was put into `versions/` by this, and where its bytes were.
type Kept = Vec<(FileId, VersionVector, Dir, Vec<u8>)>;

impl Volume {
    pub(super) fn take_chosen(&self, order: &Order, plan: &Plan, chosen: usize) -> Result<Step, Hindrance> {
        {
            let core = &mut *self.lock();
            for of in [Some(order.file), plan.sides[chosen].beside].into_iter().flatten() {
                let local = self.local_or_none(of)?;
                if self.is_changed(core, of, &local)? {
                    return Ok(Step::Later(AGAIN));
                }
            }
        }
        let head = plan.object.head().map(|head| &head.version);
        // By an earlier word the file has these bytes already.
        let is_there = plan
            .last
            .as_ref()
            .is_some_and(|last| Some(&last.outcome) == head && usize::try_from(last.holds) == Ok(chosen));
        let staged = match is_there {
            true => None,
            false => Some(self.staged_side(order.file, &plan.sides[chosen], plan)?),
        };
        let done = self.put_chosen(order, plan, chosen, staged.as_ref());
        if let Some(staged) = staged.filter(|_| !matches!(done, Ok(Step::Done))) {
            self.unstage(&staged.name);
        }
        done
    }

    fn put_chosen(
        &self,
        order: &Order,
        plan: &Plan,
        chosen: usize,
        staged: Option<&Staged>,
    ) -> Result<Step, Hindrance> {
        let file = order.file;
        let core = &mut *self.lock();
        if self.plan(core, order)?.as_ref() != Some(plan) {
            return Ok(Step::Later(SOON));
        }
        if plan.local.placed.is_empty() {
            return Err(Hindrance::NotPlaced);
        }
        let mut changed = self.is_changed(core, file, &plan.local)?;
        let mut going = Vec::new();
        for (n, side) in plan.sides.iter().enumerate() {
            if let Some(gone) = self.going(core, side, n == chosen)? {
                changed |= self.is_changed(core, gone.file, &gone.local)?;
                going.push(gone);
            }
        }
        if changed {
            return Ok(Step::Later(AGAIN));
        }
        let mut kept = Kept::new();
        let done =
            self.keep_what_gives_way(core, file, plan, chosen, staged.is_some(), &going, &mut kept).and_then(
                |()| self.say_chosen(core, order, plan, chosen, staged, &going).map_err(Hindrance::from),
            );
        if let Err(hindrance) = done {
            self.take_back(core, kept, going.iter().map(|gone| gone.file).chain([file]));
            return Err(hindrance);
        }
        tracing::info!(%file, "a conflict is resolved: one version is chosen, the others are kept in versions/");
        Ok(Step::Done)
    }

    /// Whether what is here was changed past the mount: then that is a version first. An error if programs here are writing it.
    fn is_changed(&self, core: &mut Core, file: FileId, local: &Local) -> Result<bool, Hindrance> {
        if local.dirty || core.nodes.of(file).is_some_and(|node| node.writers > 0) {
            let path = self.path_to_keep(&self.object_of(file)?, local);
            return Err(Hindrance::Writing(String::from_utf8_lossy(&path).into_owned()));
        }
        if local.on_disk() && self.changed_behind(core, file, local)? {
            self.adopt_change(core, file, local)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// The file beside that is this side, if it is to go: nobody has gone on with it, or given it another name.
    fn going(&self, core: &mut Core, side: &Side, is_chosen: bool) -> FsResult<Option<Going>> {
        let Some(file) = side.beside else { return Ok(None) };
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        let version = &side.content.version;
        let is_as_it_was = object.current().all(|c| c.version == *version);
        let Some(name) = object.kept.as_ref().map(|kept| kept.value.1.clone()).filter(|_| is_as_it_was)
        else {
            return Ok(None);
        };
        let named = object.live_links().filter(|(_, place)| place.value.name == name);
        let links: Vec<LinkId> = named.map(|(link, _)| link).collect();
        if links.is_empty() {
            return Ok(None);
        }
        let mut shown = Vec::new();
        for (link, place) in local.placed.iter().filter(|(link, _)| links.contains(link)) {
            if let Some(there) = self.shown(place)?.filter(|there| there.file == file && there.link == *link)
            {
                let at = self.at_place(core, place)?;
                shown.push((place.clone(), there, at));
            }
        }
        let is_last = local.placed.len() == shown.len();
        let keep = local.have.clone().filter(|have| is_last && !is_chosen && have == version);
        Ok(Some(Going { file, links, shown, keep, object, local }))
    }

    /// All that gives way here goes to `versions/` too, durably.
    #[allow(clippy::too_many_arguments)]
    fn keep_what_gives_way(
        &self,
        core: &mut Core,
        file: FileId,
        plan: &Plan,
        chosen: usize,
        is_replaced: bool,
        going: &[Going],
        kept: &mut Kept,
    ) -> Result<(), Hindrance> {
        let mut keep =
            |of: FileId, version: &VersionVector, at: &At, label: &Label| -> Result<(), Hindrance> {
                match self.link_to_versions(at, of, version, label)? {
                    Linked::Now => kept.push((of, version.clone(), at.dir.clone(), at.name.clone())),
                    Linked::Before => {}
                    Linked::NoRoom => return Err(Hindrance::NoRoom),
                }
                Ok(())
            };
        if let Some(have) = plan.local.have.as_ref().filter(|_| is_replaced) {
            let of_last = plan.last.as_ref().filter(|last| last.outcome == *have).and_then(Decision::held);
            // So that a later word finds what an earlier one had chosen.
            let (of, version) = of_last.map_or((file, have), |side| (side.file(file), &side.content.version));
            let side = &plan.sides[chosen];
            if (of, version) != (side.file(file), &side.content.version) {
                let path = self.path_to_keep(&plan.object, &plan.local);
                let label = self.label(&plan.object, version, path, Why::Lost);
                let at = self.at(core, file, &plan.local)?;
                keep(of, version, &at, &label)?;
            }
        }
        for gone in going {
            if let (Some(version), Some((_, _, at))) = (&gone.keep, gone.shown.first()) {
                let path = self.path_to_keep(&gone.object, &gone.local);
                let label = self.label(&gone.object, version, path, Why::Lost);
                keep(gone.file, version, at, &label)?;
            }
        }
        if !kept.is_empty() {
            self.brick.versions.sync()?;
        }
        Ok(())
    }

    /// It was not carried out: what was put into `versions/` for it goes again, but for what is nowhere else by now.
    fn take_back(&self, core: &mut Core, kept: Kept, files: impl Iterator<Item = FileId>) {
        if kept.is_empty() {
            return;
        }
        for (of, version, dir, name) in &kept {
            let versions = &self.brick.versions;
            let there = access::stat(versions, name_of(*of, version).as_bytes()).map(|raw| raw.st_ino);
            if there.is_ok() && access::stat(dir, name).map(|raw| raw.st_ino) == there {
                self.unlink_from_versions(*of, version);
            }
        }
        let mut change = Change::new(self, core);
        let mut files = files;
        let righted = files.try_for_each(|of| change.refresh_print(of));
        if let Err(error) = righted.and_then(|()| change.commit().map(drop)) {
            tracing::debug!(%error, "what a file looks like is not noted");
        }
    }

    /// The chosen bytes take their place, the files beside go, and all of it is said.
    fn say_chosen(
        &self,
        core: &mut Core,
        order: &Order,
        plan: &Plan,
        chosen: usize,
        staged: Option<&Staged>,
        going: &[Going],
    ) -> FsResult<()> {
        let (file, side) = (order.file, &plan.sides[chosen]);
        let holds = u32::try_from(chosen).unwrap_or(0);
        for gone in going {
            self.keep_open(core, gone.file);
            if let Some((_, _, at)) = gone.shown.first() {
                self.hold(core, gone.file, at);
            }
        }
        let outcome = match (staged, &plan.last) {
            (None, Some(last)) => last.outcome.clone(),
            _ => {
                // Of the file's own line: versions of the files beside count other edits.
                let mut base = plan.object.seen();
                plan.object.losers.iter().for_each(|loser| base.merge(loser));
                self.next_version(core, &plan.object, &base)
            }
        };
        if let Some(Staged { name, data }) = staged {
            let at = self.dress_kept(file, &outcome, side.content.mtime, &plan.object, name, data)?;
            self.keep_open(core, file);
            self.rename_over(core, &at, &plan.local)?;
        }
        let mut change = Change::new(self, core);
        if let Some(Staged { data, .. }) = staged {
            let print = print_of(&data.stat()?);
            let said = Op::Content {
                brick: self.me,
                version: outcome.clone(),
                size: print.size,
                mtime_sec: print.mtime.0,
                mtime_nsec: print.mtime.1,
                still_dirty: false,
            };
            let entry = change.emit(file, said)?;
            let local = change.local_mut(file)?;
            local.have = Some(outcome.clone());
            // Until it is synced again the older file may come back.
            local.synced = local.synced.take().filter(|synced| outcome.includes(synced));
            local.print = Some(print);
            local.unseen = None;
            local.overlay = None;
            local.filling = None;
            local.filled.clear();
            local.snapshot = None;
            local.mtime_at = entry.time;
        }
        for gone in going {
            for (place, shown, _) in &gone.shown {
                self.forget_name(&mut change, place, *shown)?;
            }
            let is_shown = |link: &&LinkId| gone.shown.iter().any(|(_, shown, _)| shown.link == **link);
            for link in gone.links.iter().filter(|link| !is_shown(link)) {
                change.emit(gone.file, Op::Unlink { link: *link, seen: gone.object.seen() })?;
            }
        }
        let sides = plan.sides.clone();
        let decision =
            Decision { word: order.word, choice: order.choice, sides, outcome: outcome.clone(), holds };
        change.emit(file, Op::Decide { brick: self.me, decision })?;
        let done = change.commit()?;
        for (place, _, at) in going.iter().flat_map(|gone| &gone.shown) {
            // Said first, so that after a crash in between it is not taken for a new file.
            match access::unlink(&at.dir, &at.name) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    tracing::warn!(%error, "a file that lost a conflict cannot be removed; it comes back as a new one");
                    self.names_not_said(core, [place.parent]);
                }
            }
            self.invalidate_entry(core, place);
        }
        if let Some(Staged { data, .. }) = staged {
            self.is_unsynced(core, file);
            self.show_replaced(core, file, &plan.local, &outcome, data.clone());
        }
        self.follow(core, done)?;
        self.bring_about(core, going.iter().map(|gone| gone.file).chain([file]).collect());
        Ok(())
    }
}
