//! The controller of moves: proposes them where files are used, and says how far each is. The controller of volumes writes the
//! rules for those under way, agents follow these, and the controller of heals has the brick that joins healed.

mod apply;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use nearbrick_crds::{
    BrickState, BrickStatus, PlacementRule, ReplicaMigration, WorkstationVolume, placement_name,
};

use crate::context::Context;
use crate::error::Error;
use crate::plan::migrate::{BrickView, Group, Input, MoveView, Settings, plan};
use crate::plan::placement::Standing;
use crate::volume::{Valid, dereference, standing, validate};

/// All of it is derived again after this time, so that a lost event heals, and because uses are worth less with time.
const AGAIN: Duration = Duration::from_secs(60);
/// And not before this.
const SOON: Duration = Duration::from_secs(1);

/// Brings the moves of one volume further.
pub async fn reconcile(volume: Arc<WorkstationVolume>, context: Arc<Context>) -> Result<Action, Error> {
    if volume.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let found = dereference(&context.stores, &volume);
    let valid = validate(&volume, found)?;
    let statuses: BTreeMap<&str, BrickStatus> = valid
        .world
        .bricks
        .iter()
        .map(|(n, e)| (n.as_str(), e.brick.status.clone().unwrap_or_default()))
        .collect();
    let input = input(&volume, &valid, &statuses);
    let moves: Vec<MoveView> = valid.world.migrations.iter().map(|m| view(m)).collect();
    let todo = plan(&input, &moves, |m| present(m, &statuses, &valid.previous_placement));
    status::write(&context, &valid.world.migrations, &todo.say).await?;
    apply::apply(&context, &volume, &valid, &todo, input.settings.mode).await?;
    let again = todo.say.iter().filter_map(|(_, said)| said.again).min();
    Ok(Action::requeue(again.map_or(AGAIN, |wait| wait.clamp(SOON, AGAIN))))
}

fn input<'a>(
    volume: &WorkstationVolume,
    valid: &'a Valid,
    statuses: &'a BTreeMap<&str, BrickStatus>,
) -> Input<'a> {
    let rules = &valid.previous_placement;
    let bricks = valid.world.bricks.iter().filter_map(|(name, entry)| {
        let status = statuses.get(name.as_str())?;
        let in_use = matches!(status.state, Some(BrickState::Ready | BrickState::Degraded));
        let since = status.heartbeat.as_ref().map(|t| valid.now.duration_since(t.0));
        Some(BrickView {
            name,
            node: &entry.brick.spec.node,
            online: entry.agent.online && in_use,
            stays: standing(valid, &entry.brick.spec.node).0 == Standing::Stays
                && entry.brick.metadata.deletion_timestamp.is_none()
                && status.state != Some(BrickState::Refused),
            space: status.free_bytes.zip(status.capacity_bytes),
            hottest: &status.hottest,
            // A clock that is ahead makes nothing hotter.
            age: since.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default(),
            looked_by: status.placement.as_deref(),
            moves: &status.moves,
        })
    });
    Input {
        settings: Settings::of(volume.spec.migration.as_ref()),
        bricks: bricks.collect(),
        sets: &valid.replica_sets,
        rules: placement_name(rules),
        in_rules: rules.iter().filter_map(|r| Some((r.migration.as_deref()?, r.joining))).collect(),
        replicas: valid.replicas as usize,
        now: valid.now,
    }
}

/// A move as its object says.
fn view(object: &ReplicaMigration) -> MoveView {
    let status = object.status.clone().unwrap_or_default();
    let at = |time: Option<nearbrick_crds::Time>| time.map(|t| t.0);
    let by_us = object.owner_references().iter().any(|o| o.kind == WorkstationVolume::kind(&()));
    MoveView {
        name: object.name_any(),
        // Whoever changes it takes it over.
        automatic: by_us && object.metadata.generation.unwrap_or(1) == 1,
        paths: object.spec.paths.clone(),
        to: object.spec.to.clone(),
        from: object.spec.from.clone(),
        dry_run: object.spec.dry_run,
        phase: status.phase,
        made: at(object.creation_timestamp()).unwrap_or(Timestamp::UNIX_EPOCH),
        started: at(status.started_at),
        completed: at(status.completed_at),
        bricks: status.bricks,
        leaves: status.from,
        group: status.group.map(|p| (p.files, p.bytes)),
        evidence: status.evidence,
    }
}

/// Which bricks hold the files of a move that a person wants, as far as anybody says.
fn present(view: &MoveView, statuses: &BTreeMap<&str, BrickStatus>, rules: &[PlacementRule]) -> Vec<String> {
    let group = Group::of_globs(&view.paths);
    let of_group = |status: &BrickStatus| {
        let group = group.as_ref()?;
        status.hottest.iter().find(|hot| Group::of(hot) == *group).map(|hot| hot.bricks.clone())
    };
    let reported = statuses.values().find_map(of_group);
    let moved =
        || rules.iter().find(|r| r.creator.is_empty() && r.paths == view.paths).map(|r| r.bricks.clone());
    let of_home = || {
        let from = view.from.as_ref()?;
        rules
            .iter()
            .rfind(|r| !r.creator.is_empty() && r.bricks.first() == Some(from))
            .map(|r| r.bricks.clone())
    };
    reported.or_else(moved).or_else(of_home).unwrap_or_default()
}
