//! Copies are read and compared with their hashes because a person asks: the whole brick, which goes on by itself, or what is at a path.
//!
//! Of paths one is read at a time. Who asked first waits for all of it; whoever asks for the same path meanwhile hears how far it is, so a
//! request that was given up is taken up again by the next one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nearbrick_core::{FileId, Kind};
use nearbrick_crds::Verified;
use nearbrick_crds::files::{Refusal, VerifyRequest, Verifying};

use super::super::Volume;
use super::super::scrub::Looked;
use super::super::types::FsResult;
use super::{Told, checked, failed, text, time};
use crate::peer::Refused;

/// Files between two looks at the index.
const AT_ONCE: usize = 256;
/// So long the news of what somebody else reads is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Damaged files that are named.
const MOST_NAMED: usize = 20;
/// What stands where the next answer begins.
const MORE: &str = "reading";

/// What is read of a path, or was last.
#[derive(Debug, Default)]
pub struct Reading {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    path: String,
    running: bool,
    said: Verifying,
}

impl Reading {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the reading is over, however that came.
struct Turn<'a>(&'a Reading);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().running = false;
        self.0.ended.notify_all();
    }
}

impl Volume {
    pub(super) fn verify_now(&self, wanted: &VerifyRequest) -> Told<Verifying> {
        Self::is_whole(&self.lock())?;
        let path = wanted.path.as_deref().map(checked).transpose()?.filter(|path| !path.is_empty());
        let Some(path) = path else {
            let began = self.want_scrub().map_err(failed("it cannot begin"))?;
            let node = self.node_of_brick(self.me);
            return Ok(Verifying { node, began: time(began), ..Verifying::default() });
        };
        let none = || Refused(Refusal::NotFound, format!("there is no {path:?} in the volume"));
        let at = self.file_at(path.as_bytes()).map_err(failed("names cannot be read"))?.ok_or_else(none)?;
        let reading = &self.reading;
        {
            let state = reading.state();
            let same = state.path == path;
            if state.running && !same {
                let line = format!("{} is being read: ask again later", state.path);
                return Err(Refused(Refusal::Busy, line));
            }
            if state.running || same && wanted.after.is_some() {
                let waited = reading.ended.wait_timeout_while(state, PATIENCE, |state| state.running);
                let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                let more = state.running.then(|| MORE.to_owned());
                return Ok(Verifying { after: more, ..state.said.clone() });
            }
        }
        let turn = {
            let mut state = reading.state();
            if state.running {
                return Err(Refused(Refusal::Busy, "another path is being read: ask again later".to_owned()));
            }
            let node = self.node_of_brick(self.me);
            let said = Verifying { node, read: Some(Verified::default()), ..Verifying::default() };
            *state = State { path: path.to_owned(), running: true, said };
            Turn(reading)
        };
        self.read_below(at).map_err(failed("the index cannot be read"))?;
        drop(turn);
        Ok(reading.state().said.clone())
    }

    fn read_below(&self, at: FileId) -> FsResult<()> {
        if self.object_of(at)?.kind.as_ref().is_some_and(Kind::is_file) {
            self.read_one(at);
            return Ok(());
        }
        let mut last = None;
        loop {
            let files = self.index.locals_after(last, AT_ONCE).map_err(super::super::index_failed)?;
            if files.is_empty() || self.closed.load(Ordering::Acquire) {
                return Ok(());
            }
            last = files.last().copied();
            for file in files {
                if self.is_file_below(file, at)? {
                    self.read_one(file);
                }
            }
        }
    }

    fn is_file_below(&self, file: FileId, dir: FileId) -> FsResult<bool> {
        let _core = self.lock();
        let Some(place) = self.local_or_none(file)?.place().cloned() else { return Ok(false) };
        Ok(self.object_of(file)?.kind.as_ref().is_some_and(Kind::is_file)
            && self.is_below(place.parent, dir)?)
    }

    fn read_one(&self, file: FileId) {
        let (throttle, never) = (self.scrub.throttle(), AtomicBool::new(false));
        let looked = self.scrub_file(file, &throttle, &never).unwrap_or_else(|error| {
            tracing::warn!(%file, %error, "cannot be read now");
            Looked::Left
        });
        let damaged = matches!(looked, Looked::Damaged(_)).then(|| self.path_for_people(file));
        let state = &mut *self.reading.state();
        let read = state.said.read.get_or_insert_with(Verified::default);
        match looked {
            Looked::Right(bytes) => {
                read.files += 1;
                read.bytes = read.bytes.saturating_add(bytes);
            }
            Looked::Damaged(_) => read.damaged += 1,
            Looked::Edited | Looked::Left | Looked::Stopped => read.left += 1,
            Looked::Nothing => {}
        }
        if let Some(Ok(path)) = damaged
            && state.said.damaged.len() < MOST_NAMED
        {
            state.said.damaged.push(text(&path));
        }
    }
}
