//! The controller of workstations: Online, Away or Lost; Unknown where the agent is silent; and how far an eviction is.

mod status;

pub use self::status::is_to_leave;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;
use nearbrick_crds::meta::FINALIZER_COPIES;
use nearbrick_crds::times::expected_off;
use nearbrick_crds::{Workstation, condition};
use tokio::time::Instant;

use crate::backoff::lock;
use crate::context::{Context, Heartbeat};
use crate::error::Error;
use crate::finalizer;
use crate::plan::away::{Seen, judge};

/// All of it is derived again after this time, so that a lost event heals.
const AGAIN: Duration = Duration::from_secs(600);
/// One that is being deleted is looked at more often: its bricks end before it.
const ENDING: Duration = Duration::from_secs(10);

/// Judges a workstation.
pub async fn reconcile(workstation: Arc<Workstation>, context: Arc<Context>) -> Result<Action, Error> {
    let api: Api<Workstation> = Api::all(context.client.clone());
    let ending = workstation.metadata.deletion_timestamp.is_some();
    if !ending {
        finalizer::add(&api, &*workstation, FINALIZER_COPIES).await?;
    } else if context.stores.bricks_of_node(&workstation.name_any()).is_empty() {
        // With a brick of a volume there it would be made again, and what a person said in it would be forgotten.
        if finalizer::remove(&api, &*workstation, FINALIZER_COPIES).await? {
            tracing::info!("let Workstation {} go", workstation.name_any());
        }
        return Ok(Action::await_change());
    }
    let seen = see(&context, &workstation);
    let written = workstation.status.as_ref().and_then(|s| s.state);
    let judgement = judge(workstation.spec.lost, written, seen, context.settings.away_after);
    let expected = expected_off(&workstation.spec.expected_offline, Timestamp::now());
    status::write(&context, &workstation, judgement.state, &expected).await?;
    let again = judgement.again_in.unwrap_or(if ending { ENDING } else { AGAIN });
    Ok(Action::requeue(again.max(Duration::from_millis(100))))
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
