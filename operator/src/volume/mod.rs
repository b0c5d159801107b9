//! The controller of volumes: bricks and workstations for members, placement, and the summary of what
//! the bricks report.

mod apply;
mod build;
mod dereference;
mod status;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use nearbrick_crds::WorkstationVolume;

pub(crate) use self::build::standing;
pub(crate) use self::dereference::dereference;
pub(crate) use self::validate::{Valid, validate};
use crate::context::Context;
use crate::error::Error;

/// All of it is derived again after this time, so that a lost event heals.
const AGAIN: Duration = Duration::from_secs(600);
/// And not before this, when time alone may change something.
const SOON: Duration = Duration::from_secs(1);

/// Brings what belongs to a volume in line with its spec, and its status in line with what is.
pub async fn reconcile(volume: Arc<WorkstationVolume>, context: Arc<Context>) -> Result<Action, Error> {
    let found = dereference(&context.stores, &volume);
    let valid = validate(&volume, found)?;
    let built = build::build(&valid);
    apply::apply(&context, &built).await?;
    if apply::finalize(&context, &volume, &valid).await? {
        return Ok(Action::await_change());
    }
    status::write(&context, &volume, &valid, &built).await?;
    Ok(Action::requeue(built.again_in.map_or(AGAIN, |wait| wait.clamp(SOON, AGAIN))))
}
