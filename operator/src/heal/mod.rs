//! The controller that decides when a volume is healed: makes heal jobs on schedule and on trigger, and
//! deletes old ones.

mod apply;
mod dereference;
mod status;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::controller::Action as Requeue;
use nearbrick_crds::WorkstationVolume;

use crate::context::Context;
use crate::error::Error;
use crate::plan::due::{self, Action};

/// All of it is derived again after this time, so that a lost event heals.
const AGAIN: Duration = Duration::from_secs(600);
/// How soon it is looked again whether all agents have reported since a trigger.
const SOON: Duration = Duration::from_secs(1);

/// Decides for one volume.
pub async fn reconcile(volume: Arc<WorkstationVolume>, context: Arc<Context>) -> Result<Requeue, Error> {
    if volume.metadata.deletion_timestamp.is_some() {
        return Ok(Requeue::await_change());
    }
    let now = Timestamp::now();
    let found = dereference::dereference(&context.stores, &volume);
    let valid = validate::validate(&volume, found, now)?;
    let decision = due::decide(&valid.input(now));
    let applied = apply::apply(&context, &volume, &valid, &decision.action).await?;
    status::write(&context, &volume, &valid, &decision, applied).await?;
    apply::prune(&context, &valid).await?;

    let waits_for_reports = valid.trigger.is_some() && decision.action == Action::Wait && !valid.active;
    // Also when nothing else happens, a limit that ends is said.
    let until_next = [decision.next, valid.too_old_at].into_iter().flatten().min().map_or(AGAIN, |next| {
        // A job that is due but was not made (another came first) is looked at when that one changes.
        let left = next.as_millisecond().saturating_sub(now.as_millisecond()).max(1000);
        Duration::from_millis(left.unsigned_abs())
    });
    Ok(Requeue::requeue(if waits_for_reports { SOON } else { until_next.min(AGAIN) }))
}
