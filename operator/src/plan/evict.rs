//! Whether nothing has to be held by a workstation any more that a person wants to take away.

use nearbrick_crds::condition::{EVICTED, Finding, Status};
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{BrickStatus, Pending, PlacementRule, placement_name};

/// One brick of the workstation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its name.
    pub brick: String,
    /// Whether the placement of its volume names it all the same: there are too few others.
    pub named: bool,
    /// Whether its agent has looked at all files by that placement.
    pub looked: bool,
    /// Files that it has to hold, and their bytes; none if it is not open.
    pub in_set: Option<(u64, u64)>,
    /// Files that no other brick holds, and their bytes.
    pub only_here: (u64, u64),
    /// Files that programs there are writing.
    pub dirty: u64,
}

impl View {
    /// From what an agent says of its brick, and the placement of its volume.
    pub fn of(name: &str, status: &BrickStatus, rules: &[PlacementRule]) -> Self {
        let count = |p: Option<&Pending>| p.map(|p| (p.files, p.bytes));
        Self {
            named: rules.iter().any(|rule| rule.bricks.iter().any(|brick| brick == name)),
            looked: status.placement.as_ref() == Some(&placement_name(rules)),
            in_set: count(status.in_set.as_ref()),
            only_here: count(status.only_here.as_ref()).unwrap_or_default(),
            dirty: status.dirty_files.unwrap_or(0),
            brick: name.to_owned(),
        }
    }
}

fn count((files, bytes): (u64, u64)) -> String {
    format!("{} ({})", human_files(files), human_bytes(bytes))
}

/// The condition Evicted, of a workstation whose agent reports.
pub fn evicted(views: &[View]) -> Finding {
    let finding = |status, reason, line: String| Finding::new(EVICTED, status, reason, line);
    let lines = |of: &dyn Fn(&View) -> Option<String>| {
        let lines: Vec<String> = views.iter().filter_map(of).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    };
    let too_few = |v: &View| v.named.then(|| v.brick.clone());
    if let Some(bricks) = lines(&too_few) {
        let line = format!(
            "{bricks} has to go on holding files, because there are too few others that can: add members to the volume, or lower its replicas"
        );
        return finding(Status::False, "TooFewOthers", line);
    }
    let not_open = |v: &View| v.in_set.is_none().then(|| v.brick.clone());
    if let Some(bricks) = lines(&not_open) {
        return finding(
            Status::Unknown,
            "BrickNotOpen",
            format!(
                "what {bricks} holds is not known: it is not open, and says why in its own status; if its files are gone for good, set lost of its Workstation"
            ),
        );
    }
    let left = |v: &View| {
        let in_set = v.in_set.unwrap_or_default();
        (in_set.0 > 0 || !v.looked).then(|| match v.looked {
            true => format!("{} has still to hold {}", v.brick, count(in_set)),
            false => format!("{} has not looked at all files yet; it holds {}", v.brick, count(in_set)),
        })
    };
    if let Some(line) = lines(&left) {
        return finding(Status::False, "Moving", line);
    }
    let written = |v: &View| (v.dirty > 0).then(|| format!("{}: {}", v.brick, human_files(v.dirty)));
    if let Some(line) = lines(&written) {
        let line = format!("files are being written there: close them ({line})");
        return finding(Status::False, "BeingWritten", line);
    }
    let alone = |v: &View| (v.only_here.0 > 0).then(|| format!("{}: {}", v.brick, count(v.only_here)));
    if let Some(line) = lines(&alone) {
        let line = format!(
            "no other brick holds what is there: {line}; see ConflictFree and Protected of the volume"
        );
        return finding(Status::False, "OnlyHere", line);
    }
    let line = "nothing has to be held there any more: take the node out of the volumes' members, and delete its Bricks";
    finding(Status::True, "NothingHeld", line.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let done = View { brick: "v.a".into(), looked: true, in_set: Some((0, 0)), ..View::default() };
        let moving = View { brick: "v.b".into(), in_set: Some((2, 2048)), ..done.clone() };
        for (views, status, reason, part) in [
            (vec![], Status::True, "NothingHeld", "delete its Bricks"),
            (vec![done.clone()], Status::True, "NothingHeld", "delete its Bricks"),
            (
                vec![done.clone(), moving.clone()],
                Status::False,
                "Moving",
                "v.b has still to hold 2 files (2.0 KiB)",
            ),
            (vec![View { looked: false, ..done.clone() }], Status::False, "Moving", "v.a has not looked"),
            (vec![View { named: true, ..moving.clone() }], Status::False, "TooFewOthers", "v.b has to go on"),
            (vec![View { in_set: None, ..done.clone() }, moving], Status::Unknown, "BrickNotOpen", "v.a"),
            (vec![View { dirty: 1, ..done.clone() }], Status::False, "BeingWritten", "v.a: 1 file"),
            (vec![View { only_here: (1, 3), ..done }], Status::False, "OnlyHere", "v.a: 1 file (3 B)"),
        ] {
            let found = evicted(&views);
            assert_eq!((found.status, found.reason), (status, reason), "{views:?}");
            assert!(found.message.contains(part), "{}", found.message);
        }
    }
}
