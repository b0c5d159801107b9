//! The controller of workstations: Online, Away or Lost; Unknown where the agent is silent; and how far an eviction is.

mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use nearbrick_crds::times::expected_off;
use nearbrick_crds::{Workstation, condition};
use tokio::time::Instant;

use crate::backoff::lock;
use crate::context::{Context, Heartbeat};
use crate::error::Error;
use crate::plan::away::{Seen, judge};

/// All of it is derived again after this time, so that a lost event heals.
const AGAIN: Duration = Duration::from_secs(600);

/// Judges a workstation.
pub async fn reconcile(workstation: Arc<Workstation>, context: Arc<Context>) -> Result<Action, Error> {
    let seen = see(&context, &workstation);
    let written = workstation.status.as_ref().and_then(|s| s.state);
    let judgement = judge(workstation.spec.lost, written, seen, context.settings.away_after);
    let expected = expected_off(&workstation.spec.expected_offline, Timestamp::now());
    status::write(&context, &workstation, judgement.state, &expected).await?;
    Ok(Action::requeue(judgement.again_in.unwrap_or(AGAIN).max(Duration::from_millis(100))))
}

/// Notes the heartbeat, and for how long it has been the same by our own clock.
fn see(context: &Context, workstation: &Workstation) -> Seen {
    let last_seen = workstation.status.as_ref().and_then(|s| s.last_seen.as_ref()).map(|t| t.0);
    let conditions = workstation.status.iter().flat_map(|s| &s.conditions);
    let has_spoken = conditions.clone().any(|c| c.type_ == condition::READY && c.status != "Unknown");
    let now = Instant::now();
    let mut heartbeats = lock(&context.heartbeats);
    let beat = heartbeats.entry(workstation.name_any()).or_insert(Heartbeat {
        last_seen,
        since: now,
        changed: false,
    });
    if beat.last_seen != last_seen {
        *beat = Heartbeat { last_seen, since: now, changed: true };
    }
    Seen {
        ever: last_seen.is_some(),
        unchanged_for: now.saturating_duration_since(beat.since),
        changed_before_my_eyes: beat.changed,
        has_spoken,
    }
}
