//! Events for what a person must notice at this workstation: a brick that is not
//! used, and stale reads where the volume asks for a warning. Each when it
//! happens, not while it lasts. An Event that cannot be written is dropped: the
//! status says the same.

use std::collections::HashMap;
use std::time::Duration;

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

use nearbrick_core::Incarnation;
use nearbrick_core::brake::HeldId;

use super::api::one_line;
use super::convert::VolumeKey;
use super::facts::{Phase, VolumeFacts};
use super::status::{held_removals, refused_entry};
use super::watch::Seen;
use crate::config::StaleReads;
use crate::volume::VolumeStatus;

const WRITE: Duration = Duration::from_secs(3);
/// The API's own bound for a note.
const MAX_NOTE: usize = 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    fault: Option<String>,
    stale_reads: u64,
    sync_failures: u64,
    held: Vec<HeldId>,
    refused: Vec<Incarnation>,
}

/// Finds what is new, and publishes it.
pub struct Notices {
    recorder: Recorder,
    said: HashMap<VolumeKey, Said>,
}

impl Notices {
    /// For the agent of this node.
    pub fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter { controller: "brick-agent".to_owned(), instance: Some(node.to_owned()) };
        Notices { recorder: Recorder::new(client, reporter), said: HashMap::new() }
    }

    /// Publishes what is new since the last call.
    pub async fn publish(&mut self, all: &[VolumeFacts], seen: &Seen) {
        self.said.retain(|key, _| all.iter().any(|f| f.key == *key));
        for facts in all {
            let Some(brick) = seen.brick(&facts.key) else { continue };
            let said = self.said.entry(facts.key.clone()).or_insert_with(|| first(facts));
            let regarding = brick.object_ref(&());
            for event in news(said, facts) {
                let publish = self.recorder.publish(&event, &regarding);
                match tokio::time::timeout(WRITE, publish).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!("an Event was not written: {}", one_line(&error.to_string()));
                    }
                    Err(_) => tracing::debug!("an Event was not written in time"),
                }
            }
        }
    }
}

/// What counts as said when the volume is first seen: a fault is news even then, old stale reads are not.
fn first(facts: &VolumeFacts) -> Said {
    let count = |of: fn(&VolumeStatus) -> u64| facts.status.as_ref().map_or(0, of);
    let (stale_reads, sync_failures) = (count(|s| s.stale_reads), count(|s| s.sync_failures));
    Said { fault: None, held: Vec::new(), refused: Vec::new(), stale_reads, sync_failures }
}

fn news(said: &mut Said, facts: &VolumeFacts) -> Vec<Event> {
    let mut events = Vec::new();
    let warn = |reason: &str, note: String| Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(one_line(&note).chars().take(MAX_NOTE).collect()),
        action: "Serve".to_owned(),
        secondary: None,
    };
    let fault = match &facts.phase {
        Phase::Starting(_) => said.fault.clone(),
        Phase::Ready | Phase::Emptying(_) | Phase::Emptied => None,
        Phase::Degraded { message, .. } | Phase::Refused(message) => Some(message.clone()),
    };
    if let Some(fault) = &fault
        && said.fault.as_ref() != Some(fault)
    {
        let reason = if matches!(facts.phase, Phase::Refused(_)) { "BrickRefused" } else { "BrickDegraded" };
        events.push(warn(reason, fault.clone()));
    }
    said.fault = fault;
    if let Some(status) = &facts.status {
        // Once for each origin whose removals are held back.
        let known = |id: &HeldId| said.held.iter().any(|h| h.origin == id.origin);
        if status.held.iter().any(|held| !known(&held.id))
            && let Some(note) = held_removals(facts, status)
        {
            events.push(warn("RemovalsHeld", note));
        }
        said.held = status.held.iter().map(|held| held.id).collect();
        if status.refused.iter().any(|entry| !said.refused.contains(&entry.origin))
            && let Some(note) = refused_entry(facts, status)
        {
            events.push(warn("EntryRefused", note));
        }
        said.refused = status.refused.iter().map(|entry| entry.origin).collect();
    }
    if let Some(status) = &facts.status {
        let new = status.sync_failures.saturating_sub(said.sync_failures);
        if new > 0 {
            let times = if new == 1 { "once".to_owned() } else { format!("{new} times") };
            let last = status.last_error.as_ref().map_or("", |(_, line, _)| line.as_str());
            let note = format!("fsync failed {times}, because too few bricks had the bytes in time: {last}");
            events.push(warn("FsyncCopiesMissing", note));
        }
        said.sync_failures = status.sync_failures;
    }
    if let (Some(status), Some(config)) = (&facts.status, &facts.config) {
        let new = status.stale_reads.saturating_sub(said.stale_reads);
        if new > 0 && config.stale_reads == StaleReads::Warn {
            let times = if new == 1 { "once".to_owned() } else { format!("{new} times") };
            let note = format!(
                "an older version of a file was read here {times}, because no brick with the newest one could be reached"
            );
            events.push(warn("StaleRead", note));
        }
        said.stale_reads = status.stale_reads;
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(phase: Phase) -> VolumeFacts {
        let key = VolumeKey { namespace: "lab".to_owned(), volume: "home".to_owned() };
        VolumeFacts { key, config: None, phase, status: None }
    }

    #[test]
    fn a_fault_is_said_once_and_again_after_it_was_over() {
        let refused = facts(Phase::Refused("no\nxattrs".to_owned()));
        let mut said = first(&refused);
        let events = news(&mut said, &refused);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].reason, "BrickRefused");
        assert_eq!(events[0].note.as_deref(), Some("no xattrs"));
        assert!(news(&mut said, &refused).is_empty());
        assert!(news(&mut said, &facts(Phase::Starting("again".to_owned()))).is_empty());
        assert!(news(&mut said, &refused).is_empty());
        assert!(news(&mut said, &facts(Phase::Ready)).is_empty());
        assert_eq!(news(&mut said, &refused).len(), 1);
    }
}
