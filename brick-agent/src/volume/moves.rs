//! Before a brick gives up its copies of files that move, the one that has joined reads its own once more and compares them with their
//! hashes: a copy counts by evidence.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use nearbrick_core::FileId;
use nearbrick_crds::{Joining, Verified};

use super::replace::Wanted;
use super::scrub::Looked;
use super::types::FsResult;
use super::{Configured, Volume, index_failed, read};
use crate::heal::limit::Throttle;

/// Files looked at between two looks at the index.
const AT_ONCE: usize = 256;

/// What was read of moves under way, by their names.
#[derive(Debug, Default)]
pub(super) struct Moves {
    verified: Mutex<BTreeMap<String, Verified>>,
    one: Mutex<()>,
}

impl Moves {
    /// What was read, of all that were read wholly.
    pub(super) fn verified(&self) -> BTreeMap<String, Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Volume {
    /// Reads what is here of each move that is to be verified, and was not yet. Blocks.
    ///
    /// # Errors
    /// The index; the next call begins that move anew.
    pub fn verify_moves(&self, throttle: &Throttle, cancel: &AtomicBool) -> FsResult<()> {
        let _one = match self.moves.one.try_lock() {
            Ok(one) => one,
            Err(TryLockError::Poisoned(one)) => one.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let configured = read(&self.configured).clone();
        let rules = &configured.config.placement;
        let is_current = |name: &String| {
            rules.iter().any(|r| r.joining == Some(Joining::Verifying) && r.migration.as_ref() == Some(name))
        };
        let known = {
            let mut verified = self.moves.verified.lock().unwrap_or_else(PoisonError::into_inner);
            verified.retain(|name, _| is_current(name));
            verified.clone()
        };
        for (n, rule) in rules.iter().enumerate() {
            let Some(name) = rule.migration.as_ref().filter(|name| is_current(name)) else { continue };
            if known.contains_key(name) || !rule.bricks.contains(&self.me) || self.is_rebuilding() {
                continue;
            }
            let Some(found) = self.verify_rule(&configured, n, throttle, cancel)? else { return Ok(()) };
            tracing::info!(
                migration = %name, files = found.files, bytes = found.bytes, damaged = found.damaged, left = found.left,
                "read what moved here once more"
            );
            let mut verified = self.moves.verified.lock().unwrap_or_else(PoisonError::into_inner);
            verified.insert(name.clone(), found);
            drop(verified);
            self.tick();
        }
        Ok(())
    }

    /// None if it is to stop.
    fn verify_rule(
        &self,
        configured: &Configured,
        rule: usize,
        throttle: &Throttle,
        cancel: &AtomicBool,
    ) -> FsResult<Option<Verified>> {
        let mut found = Verified::default();
        let mut after: Option<FileId> = None;
        loop {
            let files = self.index.locals_after(after, AT_ONCE).map_err(index_failed)?;
            let Some(last) = files.last() else { return Ok(Some(found)) };
            after = Some(*last);
            for file in files {
                if cancel.load(Ordering::Relaxed) || self.is_closed() {
                    return Ok(None);
                }
                let Some(object) = self.index.object(file).map_err(index_failed)? else { continue };
                let is_file = object.kind.as_ref().is_some_and(|kind| kind.is_file());
                if !is_file || !object.replica_set().contains(&self.me) {
                    continue;
                }
                let local = self.index.local(file).map_err(index_failed)?;
                if !matches!(self.wanted_for(configured, &object, local.as_ref())?, Wanted::By(n) if n == rule)
                {
                    continue;
                }
                match self.scrub_file(file, throttle, cancel) {
                    Ok(Looked::Right(bytes)) => {
                        found.files += 1;
                        found.bytes = found.bytes.saturating_add(bytes);
                    }
                    Ok(Looked::Damaged(_)) => found.damaged += 1,
                    Ok(Looked::Edited | Looked::Left) => found.left += 1,
                    Ok(Looked::Nothing) => {}
                    Ok(Looked::Stopped) => return Ok(None),
                    Err(error) => {
                        tracing::warn!(%file, %error, "cannot be read once more now");
                        found.left += 1;
                    }
                }
            }
        }
    }
}
