//! The table of what is pending, in pages: what a page costs follows from what it looks at, never from what else there is.

use std::ops::Bound;

use nearbrick_core::heal::{Decision, Local as Held, decide};
use nearbrick_core::pending::sources;
use nearbrick_core::{BrickId, FileId, Object, pending::Pending};
use nearbrick_crds::files::{Lacking, MOST_ROWS, PendingAsk, PendingFile, PendingPage, Refusal, USUAL_ROWS};

use super::super::Volume;
use super::super::types::FsResult;
use super::{Told, checked, failed, is_within, text, time};
use crate::index::Local;
use crate::peer::{Refused, Remote};

/// Files that are looked at while the lock is held once.
const AT_ONCE: usize = 256;
/// Files that are looked at for one page.
const LOOKED_AT: usize = 20_000;
/// Bytes of the paths of a page.
const MOST_BYTES: usize = 1 << 20;

impl Volume {
    pub(super) fn pending_page(&self, ask: &PendingAsk) -> Told<PendingPage> {
        let bad = |why: String| Refused(Refusal::Bad, why);
        let path = checked(&ask.path)?;
        let limit = if ask.limit == 0 { USUAL_ROWS } else { ask.limit.min(MOST_ROWS) } as usize;
        let lacks = match &ask.node {
            None => None,
            Some(node) => {
                let config = self.config();
                let member = config.members.iter().find(|m| m.node == *node);
                let none = || Refused(Refusal::NotFound, format!("{node} carries no brick of the volume"));
                Some(member.ok_or_else(none)?.brick)
            }
        };
        let mut after: Option<FileId> = match &ask.after {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| bad("this is not where a page ended".to_owned()))?),
        };
        let remote = self.remote();
        let mut page = PendingPage::default();
        let (mut looked_at, mut bytes) = (0, 0);
        loop {
            let core = self.lock();
            Self::is_whole(&core)?;
            let pending = &core.tally.pending;
            page.total = pending.len() as u64;
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut rest = pending.range((from, Bound::Unbounded));
            for (file, found) in rest.by_ref().take(AT_ONCE) {
                (looked_at, after) = (looked_at + 1, Some(*file));
                if lacks.is_some_and(|brick| !found.bricks.iter().any(|p| p.brick == brick)) {
                    continue;
                }
                let row = self.pending_row(*file, &found.bricks, path, remote.as_deref());
                if let Some(row) = row.map_err(failed("what is pending cannot be read"))? {
                    bytes += row.path.len();
                    page.files.push(row);
                }
                if page.files.len() >= limit || bytes >= MOST_BYTES {
                    break;
                }
            }
            if rest.next().is_none() {
                return Ok(page);
            }
            if page.files.len() >= limit || bytes >= MOST_BYTES || looked_at >= LOOKED_AT {
                page.after = after.map(|file| file.to_string());
                return Ok(page);
            }
        }
    }

    /// None if it is not within the path that is asked for.
    fn pending_row(
        &self,
        file: FileId,
        bricks: &[Pending],
        within: &str,
        remote: Option<&dyn Remote>,
    ) -> FsResult<Option<PendingFile>> {
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        let path = self.path_to_keep(&object, &local);
        if !is_within(&path, within) {
            return Ok(None);
        }
        let lacking = bricks
            .iter()
            .map(|pending| Lacking {
                node: self.node_of_brick(pending.brick),
                since: time(pending.since),
                reason: self.why_not_now(&object, &local, pending.brick, remote).map(str::to_owned),
            })
            .collect();
        let held_by = sources(&object).into_iter().map(|brick| self.node_of_brick(brick)).collect();
        Ok(Some(PendingFile {
            path: text(&path),
            file: file.to_string(),
            size: object.size(),
            lacking,
            held_by,
        }))
    }

    /// Why a heal cannot bring a file to a brick now, as far as that is known here.
    fn why_not_now(
        &self,
        object: &Object,
        local: &Local,
        brick: BrickId,
        remote: Option<&dyn Remote>,
    ) -> Option<&'static str> {
        let own = brick == self.me;
        let have =
            if own { local.have.as_ref() } else { object.holders.get(&brick).and_then(|r| r.value.as_ref()) };
        let dirty = if own { local.dirty } else { object.writing().any(|writer| writer == brick) };
        let is_reached = |b: BrickId| b == self.me || remote.is_some_and(|remote| remote.is_reached(b));
        match decide(object, brick, Held { have, dirty }) {
            Decision::Wait(reason) => Some(reason.as_str()),
            Decision::Fetch { from, .. } if !is_reached(brick) || !from.iter().any(|b| is_reached(*b)) => {
                Some("Unreachable")
            }
            _ => None,
        }
    }
}
