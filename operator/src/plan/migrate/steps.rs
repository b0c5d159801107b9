//! The steps of a move under way: adding, verifying, dropping.

use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{Joining, MigrationPhase, Move};

use super::views::{BrickView, Input, MoveView, Said};
use super::{refused, said};

/// What becomes of a move under way.
pub(super) fn go_on(input: &Input<'_>, view: &MoveView) -> Said {
    let phase = view.phase();
    let Some(to) = input.brick(&view.to).filter(|b| b.stays) else {
        if phase == MigrationPhase::Dropping {
            // The rules see to that: they always name bricks that stay.
            return done(input, view);
        }
        let line = format!("{} is gone, or is to leave; the files stay where they were", view.to);
        return refused(view, "NotUsable", line, input.now);
    };
    let wanted = match phase {
        MigrationPhase::Adding => Some(Joining::Adding),
        MigrationPhase::Verifying => Some(Joining::Verifying),
        _ => None,
    };
    let of = |b: &BrickView<'_>| b.moves.iter().find(|m| m.migration == view.name).cloned();
    let counted: Vec<Move> = input.bricks.iter().filter(|b| b.online).filter_map(of).collect();
    let files = counted.iter().map(|m| m.files).max().unwrap_or(0);
    let bytes = counted.iter().map(|m| m.bytes).max().unwrap_or(0);
    let busy = counted.iter().map(|m| m.busy).max().unwrap_or(0);
    let with_left = |s: Said| Said { left: Some((files, bytes)), ..s };
    let late: Vec<&str> = input
        .bricks
        .iter()
        .filter(|b| b.online && b.stays && b.looked_by != Some(input.rules.as_str()))
        .map(|b| b.name)
        .collect();
    if input.in_rules.get(view.name.as_str()) != Some(&wanted) {
        return said(view.clone(), phase.as_str(), "the rules are being written".to_owned());
    }
    if !to.online {
        return with_left(said(
            view.clone(),
            "Waiting",
            format!("waits: the agent of {} is silent", view.to),
        ));
    }
    if !late.is_empty() {
        let line = format!("{} has not looked at all files by these rules yet", late.join(", "));
        return with_left(said(view.clone(), phase.as_str(), line));
    }
    if files > 0 {
        let line = format!("{} ({}) left", human_files(files), human_bytes(bytes));
        return with_left(said(view.clone(), phase.as_str(), line));
    }
    let next = |phase, line: String| {
        let view = MoveView { phase: Some(phase), ..view.clone() };
        Said { left: Some((0, 0)), ..said(view, phase.as_str(), line) }
    };
    match phase {
        MigrationPhase::Adding => {
            next(MigrationPhase::Verifying, format!("{} has the files, and reads them once more", view.to))
        }
        MigrationPhase::Verifying => match of(to).and_then(|m| m.verified) {
            None => {
                with_left(said(view.clone(), "Verifying", format!("{} reads what it has once more", view.to)))
            }
            Some(found) if found.damaged > 0 => {
                let line = format!(
                    "{} at {} were damaged, and are copied again",
                    human_files(found.damaged),
                    view.to
                );
                next(MigrationPhase::Adding, line)
            }
            Some(found) => {
                let line = format!(
                    "{} ({}) are right at {}",
                    human_files(found.files),
                    human_bytes(found.bytes),
                    view.to
                );
                let said = next(MigrationPhase::Dropping, line);
                let group = Some((found.files, found.bytes)).filter(|_| view.group.is_none());
                Said { view: MoveView { group: view.group.or(group), ..said.view }, ..said }
            }
        },
        _ => {
            let said = done(input, view);
            let follow = format!("; {} that are being written follow when that is over", human_files(busy));
            Said { message: said.message + if busy > 0 { &follow } else { "" }, ..said }
        }
    }
}

fn done(input: &Input<'_>, view: &MoveView) -> Said {
    let (files, bytes) = view.group.unwrap_or_default();
    let gave_up = view.leaves.as_ref().map_or(String::new(), |from| format!(", given up at {from}"));
    let line = format!(
        "{} ({}) are at {}{gave_up}",
        human_files(files),
        human_bytes(bytes),
        view.bricks.join(" and ")
    );
    let view = MoveView { phase: Some(MigrationPhase::Done), completed: Some(input.now), ..view.clone() };
    Said { left: Some((0, 0)), ..said(view, "Moved", line) }
}
