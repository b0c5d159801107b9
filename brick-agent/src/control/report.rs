//! Writes the statuses of this workstation's `Brick`s and of its `Workstation`.
//!
//! At most one write per object and second; one when something changed, and a
//! heartbeat: the workstation's, every ten seconds, vouches for the bricks too, for it is only
//! written when nothing that is new of them is still to be. A brick of which nothing is new
//! is written every few minutes, so that an idle cluster stays idle. What could not be written is written when the server answers again:
//! nothing is queued, the next report is of what is so then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use nearbrick_crds::meta::{brick_name, now};
use nearbrick_crds::{Brick, BrickStatus, Condition, Workstation, WorkstationStatus};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::{ApiServer, Meta, Written};
use super::convert::VolumeKey;
use super::events::Notices;
use super::facts::{Facts, VolumeFacts};
use super::status::{Reporting, brick_status, workstation_status};
use super::watch::{Asked, Seen};

const HEARTBEAT: Duration = Duration::from_secs(10);
/// Of a brick of which nothing is new.
const BRICK_HEARTBEAT: Duration = Duration::from_secs(300);
/// For so long a brick knows the same before it says so.
const STEADY: Duration = Duration::from_secs(5);
const COALESCE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(3);
/// Writes under way at a time.
const CONCURRENT: usize = 8;

/// The reporting task's state.
pub struct Reporter {
    api: ApiServer,
    node: String,
    reporting: Reporting,
    facts: Arc<dyn Facts>,
    seen: Arc<Seen>,
    bricks: HashMap<VolumeKey, Sent>,
    steady: HashMap<VolumeKey, Steady>,
    workstation: Option<WorkstationStatus>,
    notices: Notices,
}

/// What a brick knows, and since when it has been the same.
struct Steady {
    sum: u128,
    since: Instant,
}

/// What was last written of a brick.
struct Sent {
    status: BrickStatus,
    at: Instant,
}

impl Reporter {
    /// Reports `facts`; `seen` is what the watches know of the objects.
    pub fn new(
        api: ApiServer,
        node: &str,
        reporting: Reporting,
        facts: Arc<dyn Facts>,
        seen: Arc<Seen>,
    ) -> Self {
        Reporter {
            notices: Notices::new(api.client.clone(), node),
            api,
            node: node.to_owned(),
            reporting,
            facts,
            seen,
            bricks: HashMap::new(),
            steady: HashMap::new(),
            workstation: None,
        }
    }

    /// Reports until `stop`, and then once more what is so at the end.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changed = self.facts.changed();
        let mut appeared = self.seen.appeared();
        let mut beat = Instant::now();
        let mut wake = beat;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(wake) => {}
                Ok(()) = changed.changed() => {}
                Ok(()) = appeared.changed() => {}
            }
            changed.borrow_and_update();
            appeared.borrow_and_update();
            let beating = Instant::now() >= beat;
            let all_written = self.report(beating).await;
            if beating && all_written {
                beat = Instant::now() + HEARTBEAT;
            }
            wake = if all_written { beat } else { Instant::now() + RETRY };
            // Changes from here on wait for the next round.
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(COALESCE) => {}
            }
        }
        self.report(false).await;
    }

    /// Writes what changed; with `beating` also what alone is worth no write, and what is due by time.
    /// Says whether all of it arrived.
    async fn report(&mut self, beating: bool) -> bool {
        // Before anything is looked at, so that what is found is so after it was asked.
        let asked = self.seen.asked();
        let facts = self.facts.clone();
        let Ok(volumes) = tokio::task::spawn_blocking(move || facts.facts()).await else { return true };
        self.notices.publish(&volumes, &self.seen).await;
        self.bricks.retain(|key, _| volumes.iter().any(|f| f.key == *key));
        self.note_steady(&volumes, Instant::now());
        let due: Vec<_> = volumes.iter().filter_map(|facts| self.brick_due(facts, &asked, beating)).collect();
        let (api, node) = (&self.api, &self.node);
        let writes = due.into_iter().map(|(key, status)| async move {
            let name = brick_name(&key.volume, node);
            let object = Meta { namespace: Some(&key.namespace), name: &name };
            let bricks = api.namespaced::<Brick>(&key.namespace);
            let written = api.apply_status(&bricks, &object, &status).await;
            (key, status, written)
        });
        let results: Vec<_> = futures::stream::iter(writes).buffer_unordered(CONCURRENT).collect().await;
        let mut all_written = true;
        for (key, status, written) in results {
            all_written &= written != Written::Failed;
            if written == Written::Done {
                self.bricks.insert(key, Sent { status, at: Instant::now() });
            }
        }
        // Its beat says that what the bricks' statuses say is so.
        all_written && self.report_workstation(&volumes, &asked, beating).await
    }

    /// Notes of each brick what it knows.
    fn note_steady(&mut self, volumes: &[VolumeFacts], now: Instant) {
        self.steady.retain(|key, _| volumes.iter().any(|f| f.key == *key));
        for facts in volumes {
            let Some(status) = &facts.status else { continue };
            let sum = status.tree_sum;
            match self.steady.get(&facts.key) {
                Some(known) if known.sum == sum => {}
                _ => drop(self.steady.insert(facts.key.clone(), Steady { sum, since: now })),
            }
        }
    }

    /// Whether what a brick knows has been the same for long enough that it is worth saying: not with each change of everybody's work.
    fn is_steady(&self, key: &VolumeKey) -> bool {
        self.steady.get(key).is_some_and(|known| known.since.elapsed() >= STEADY)
    }

    fn brick_due(
        &self,
        facts: &VolumeFacts,
        asked: &Asked,
        beating: bool,
    ) -> Option<(VolumeKey, BrickStatus)> {
        let object = self.seen.brick(&facts.key)?;
        let known = object.status.as_ref();
        let sent = self.bricks.get(&facts.key);
        let previous = previous(
            known.map(|s| s.conditions.as_slice()).unwrap_or_default(),
            sent.map(|s| s.status.conditions.as_slice()),
        );
        let generation = object.metadata.generation;
        let mut new = brick_status(facts, &self.reporting, known, previous, generation, &now());
        new.last_trigger = asked.volumes.get(&facts.key).cloned();
        if !self.is_steady(&facts.key) {
            new.tree_sum = None;
        }
        // One that was made anew, or whose status somebody took away, has to be told all again.
        let due =
            known.is_none() || sent.is_none_or(|sent| is_due(&sent.status, sent.at.elapsed(), &new, beating));
        due.then(|| (facts.key.clone(), new))
    }

    async fn report_workstation(&mut self, volumes: &[VolumeFacts], asked: &Asked, all: bool) -> bool {
        let Some(object) = self.seen.workstation() else { return true };
        let known = object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let sent = self.workstation.as_ref();
        let previous = previous(known, sent.map(|s| s.conditions.as_slice()));
        let generation = object.metadata.generation;
        let new = WorkstationStatus {
            last_trigger: asked.workstation.clone(),
            ..workstation_status(volumes, &self.reporting, previous, generation, &now())
        };
        let same = sent.is_some_and(|sent| {
            let as_sent = WorkstationStatus { last_seen: sent.last_seen.clone(), ..new.clone() };
            as_sent == *sent
        });
        if same && !all {
            return true;
        }
        let api: Api<Workstation> = Api::all(self.api.client.clone());
        let object = Meta { namespace: None, name: &self.node };
        let written = self.api.apply_status(&api, &object, &new).await;
        if written == Written::Done {
            self.workstation = Some(new);
        }
        written != Written::Failed
    }
}

/// Whether `new` is to be written where `sent` was, so long ago.
fn is_due(sent: &BrickStatus, ago: Duration, new: &BrickStatus, beating: bool) -> bool {
    let as_sent = BrickStatus { heartbeat: sent.heartbeat.clone(), ..new.clone() };
    if beating {
        return as_sent != *sent || ago >= BRICK_HEARTBEAT;
    }
    // Neither the free space, nor how far a look through the brick is, nor what is used, alone is worth a write at once.
    let (verifying, hottest) = (sent.verifying.clone(), sent.hottest.clone());
    BrickStatus { free_bytes: sent.free_bytes, verifying, hottest, ..as_sent } != *sent
}

/// The conditions with which new ones are compared: those that were sent, because the
/// watch lags behind; but not where the operator has since said Unknown.
fn previous<'a>(known: &'a [Condition], sent: Option<&'a [Condition]>) -> &'a [Condition] {
    match sent {
        Some(sent) if !known.iter().any(|c| c.status == "Unknown") => sent,
        _ => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brick_of_which_nothing_is_new_is_written_every_few_minutes() {
        let sent = BrickStatus { files: Some(3), free_bytes: Some(1000), ..BrickStatus::default() };
        let beat = BrickStatus { heartbeat: Some(now()), ..sent.clone() };
        let soon = Duration::from_secs(20);
        assert!(!is_due(&sent, soon, &beat, false) && !is_due(&sent, soon, &beat, true));
        assert!(is_due(&sent, BRICK_HEARTBEAT, &beat, true));
        assert!(!is_due(&sent, BRICK_HEARTBEAT, &beat, false), "with the next beat");
        let fuller = BrickStatus { free_bytes: Some(900), ..beat.clone() };
        assert!(!is_due(&sent, soon, &fuller, false) && is_due(&sent, soon, &fuller, true));
        let more = BrickStatus { files: Some(4), ..beat };
        assert!(is_due(&sent, soon, &more, false) && is_due(&sent, soon, &more, true));
    }
}
