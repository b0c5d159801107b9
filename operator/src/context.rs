//! What every reconciliation may use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::plan::job::Limits;
use crate::stores::Stores;

/// Times that a person can set.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Silence after which an agent is away.
    pub away_after: Duration,
    /// How long a heal job waits for its targets.
    pub job_limits: Limits,
}

/// Shared by all controllers. What is kept in memory here is only what a new operator finds out again
/// by waiting: nothing is lost when this process ends.
pub struct Context {
    /// The way to the API server.
    pub client: Client,
    /// Times.
    pub settings: Settings,
    /// What is known of the cluster.
    pub stores: Stores,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Failures in a row.
    pub backoff: Backoff,
    /// By workstation.
    pub heartbeats: Mutex<HashMap<String, Heartbeat>>,
    recorder: Recorder,
}

impl Context {
    /// A context for the operator called `identity`.
    pub fn new(
        client: Client,
        settings: Settings,
        stores: Stores,
        metrics: Arc<Metrics>,
        identity: &str,
    ) -> Self {
        let reporter =
            Reporter { controller: "nearbrick-operator".into(), instance: Some(identity.to_string()) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            stores,
            metrics,
            backoff: Backoff::default(),
            heartbeats: Mutex::default(),
        }
    }

    /// Tells a person. An Event that cannot be sent is logged and never stops the work.
    pub async fn tell(&self, about: &ObjectReference, news: News<'_>) {
        let event = Event {
            type_: if news.warning { EventType::Warning } else { EventType::Normal },
            reason: news.reason.to_string(),
            note: Some(shorten(&news.note)),
            action: news.action.to_string(),
            secondary: news.related,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::warn!("cannot send the Event {}: {error}", news.reason);
        }
    }
}

/// The last heartbeat of a workstation, as this process saw it.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// `lastSeen`, by the workstation's clock.
    pub last_seen: Option<Timestamp>,
    /// Since when it has been this, by our own clock.
    pub since: Instant,
    /// Whether we saw it change, and did not only find it.
    pub changed: bool,
}

/// What a person must notice.
#[derive(Clone, Debug, Default)]
pub struct News<'a> {
    /// Whether it is something to act on.
    pub warning: bool,
    /// One word.
    pub reason: &'a str,
    /// What the operator did or tried.
    pub action: &'a str,
    /// One line.
    pub note: String,
    /// Another object that it is about.
    pub related: Option<ObjectReference>,
}

/// The API server takes notes of less than 1 KiB.
fn shorten(note: &str) -> String {
    const MOST: usize = 1000;
    if note.len() <= MOST {
        return note.to_string();
    }
    let cut = (0..=MOST).rev().find(|i| note.is_char_boundary(*i)).unwrap_or(0);
    format!("{}...", &note[..cut])
}

#[cfg(test)]
mod tests {
    #[test]
    fn notes_are_cut_between_characters() {
        let long = "ä".repeat(900);
        let cut = super::shorten(&long);
        assert!(cut.len() < 1024 && cut.ends_with("..."));
        assert_eq!(super::shorten("x"), "x");
    }
}
