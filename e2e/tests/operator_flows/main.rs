//! The operator on a real API server, with agents whose statuses the test writes.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "../operator_support/mod.rs"]
mod support;

mod conflicts;
mod heals;
mod jobs;
mod migration;
mod placement;
mod removal;
mod silence;
mod volumes;

use nearbrick_crds::{Condition, PlacementRule, WorkstationVolume};
use support::Namespace;
use support::agent::Nodes;

/// A namespace and nodes, with the operator at work.
async fn world(name: &str, letters: &[&str]) -> (Namespace, Nodes) {
    let ns = Namespace::new(name).await;
    support::operator::shared().await;
    let nodes = Nodes::new(&ns, letters).await;
    (ns, nodes)
}

/// The rules in force of the volume `home`, once `check` holds.
async fn rules(ns: &Namespace, what: &str, check: impl Fn(&[PlacementRule]) -> bool) -> Vec<PlacementRule> {
    ns.until(what, "home", |v: &WorkstationVolume| {
        let rules = v.status.as_ref()?.placement.clone();
        (!rules.is_empty() && check(&rules)).then_some(rules)
    })
    .await
}

/// The condition of this type.
fn condition<'a>(volume: &'a WorkstationVolume, type_: &str) -> Option<&'a Condition> {
    nearbrick_crds::condition::find(&volume.status.as_ref()?.conditions, type_)
}

/// Whether the condition says this.
fn says(volume: &WorkstationVolume, type_: &str, status: &str, reason: &str) -> Option<()> {
    let c = condition(volume, type_)?;
    (c.status == status && c.reason == reason).then_some(())
}

/// Whether an Event with this reason, about this object, contains `part`.
async fn event(ns: &Namespace, about: &str, reason: &str, part: &str) -> Option<()> {
    use k8s_openapi::api::events::v1::Event;
    let events = ns.api::<Event>().list(&Default::default()).await.unwrap();
    events
        .iter()
        .any(|e| {
            e.reason.as_deref() == Some(reason)
                && e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(about)
                && e.note.as_deref().is_some_and(|n| n.contains(part))
        })
        .then_some(())
}
