//! Whether the replica sets of all files are as the placement wants them.
//!
//! Each agent knows all files, and counts those that are not; it says by which placement it looked. So one that looked by the
//! present one, and is not silent, is enough to say that some are not; and all have to be heard to say that none is.

use nearbrick_crds::Brick;
use nearbrick_crds::condition::{Finding, PLACED, Status};
use nearbrick_crds::pending::{human_bytes, human_files};

use super::volume::to_second;
use jiff::Timestamp;

/// What one brick says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its name.
    pub brick: String,
    /// Whether its agent reports at present.
    pub online: bool,
    /// Since when it has been silent, if it is.
    pub silent_since: Option<Timestamp>,
    /// Whether a person said that it will not return: then it is not waited for.
    pub lost: bool,
    /// Whether its node is a member.
    pub member: bool,
    /// By which placement it looked at all files.
    pub looked_by: Option<String>,
    /// Files that are not as that wants them, and their bytes.
    pub unplaced: Option<(u64, u64)>,
    /// What they wait for.
    pub because: Option<String>,
    /// Files that it has to hold.
    pub in_set: Option<u64>,
}

impl View {
    /// From a `Brick`.
    pub fn of(name: &str, brick: &Brick) -> Self {
        let status = brick.status.clone().unwrap_or_default();
        Self {
            brick: name.to_string(),
            looked_by: status.placement,
            unplaced: status.unplaced.map(|p| (p.files, p.bytes)),
            because: status.unplaced_because,
            in_set: status.in_set.map(|p| p.files),
            ..Self::default()
        }
    }
}

/// The condition. `name` identifies the present placement; none if there is none.
pub fn placed(views: &[View], name: Option<&str>) -> Finding {
    let finding = |status, reason, line: String| Finding::new(PLACED, status, reason, line);
    let Some(name) = name else {
        return finding(Status::Unknown, "NoPlacement", "there is no member yet".to_string());
    };
    let current = |v: &&View| v.online && v.looked_by.as_deref() == Some(name);
    let most = views
        .iter()
        .filter(current)
        .filter(|v| v.unplaced.is_some_and(|u| u.0 > 0))
        .max_by_key(|v| v.unplaced);
    if let Some(View { unplaced: Some((files, bytes)), because, .. }) = most {
        let because = because.as_deref().map(|b| format!(": {b}")).unwrap_or_default();
        let line = format!(
            "{} ({}) are not held yet by just the bricks that are to hold them{because}",
            human_files(*files),
            human_bytes(*bytes)
        );
        return finding(Status::False, "Placing", line);
    }
    let names = |list: Vec<&View>| list.iter().map(|v| v.brick.clone()).collect::<Vec<_>>().join(", ");
    let waited_for = || views.iter().filter(|v| v.member && !v.lost);
    let behind: Vec<&View> =
        views.iter().filter(|v| v.online && v.looked_by.as_deref() != Some(name)).collect();
    if !behind.is_empty() {
        let line = format!("{} has not looked at all files by the present placement yet", names(behind));
        return finding(Status::Unknown, "NotLookedYet", line);
    }
    let silent: Vec<String> = waited_for()
        .filter(|v| !v.online)
        .map(|v| match v.silent_since {
            Some(at) => format!("{} since {}", v.brick, to_second(at)),
            None => v.brick.clone(),
        })
        .collect();
    if !silent.is_empty() {
        return finding(Status::Unknown, "AgentSilent", format!("no report from {}", silent.join(", ")));
    }
    // A brick that is to leave and holds nothing any more can go.
    let left: Vec<&View> = views.iter().filter(|v| !v.member && v.in_set.unwrap_or(0) == 0).collect();
    let mut line = "every file is held by the bricks that are to hold it".to_string();
    if !left.is_empty() {
        line.push_str(&format!(
            "; {} of former members holds nothing that is needed and can be deleted",
            names(left)
        ));
    }
    finding(Status::True, "AllPlaced", line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(brick: &str, looked_by: &str, unplaced: u64) -> View {
        View {
            brick: brick.into(),
            online: true,
            member: true,
            looked_by: Some(looked_by.into()),
            unplaced: Some((unplaced, unplaced << 10)),
            because: (unplaced > 0).then(|| "1 are being written".to_string()),
            in_set: Some(3),
            ..View::default()
        }
    }

    #[test]
    fn table() {
        let away =
            || View { online: false, silent_since: Some(Timestamp::UNIX_EPOCH), ..view("v.c", "r", 0) };
        for (views, status, reason, part) in [
            (vec![view("v.a", "r", 0), view("v.b", "r", 0)], Status::True, "AllPlaced", "every file"),
            // One is enough to say that some are not, and the best informed counts.
            (
                vec![view("v.a", "r", 2), view("v.b", "r", 5), away()],
                Status::False,
                "Placing",
                "5 files (5.0 KiB)",
            ),
            (vec![view("v.a", "r", 2)], Status::False, "Placing", ": 1 are being written"),
            // By another placement nothing is known.
            (
                vec![view("v.a", "r", 0), view("v.b", "old", 7)],
                Status::Unknown,
                "NotLookedYet",
                "v.b has not",
            ),
            (
                vec![view("v.a", "r", 0), View { looked_by: None, unplaced: None, ..view("v.b", "r", 0) }],
                Status::Unknown,
                "NotLookedYet",
                "v.b has not",
            ),
            (
                vec![view("v.a", "r", 0), away()],
                Status::Unknown,
                "AgentSilent",
                "v.c since 1970-01-01T00:00:00Z",
            ),
            (
                vec![view("v.a", "r", 0), View { lost: true, ..away() }],
                Status::True,
                "AllPlaced",
                "every file",
            ),
            (
                vec![view("v.a", "r", 0), View { member: false, ..away() }],
                Status::True,
                "AllPlaced",
                "held by the",
            ),
            (
                vec![view("v.a", "r", 0), View { member: false, in_set: Some(0), ..view("v.d", "r", 0) }],
                Status::True,
                "AllPlaced",
                "v.d of former members holds nothing",
            ),
        ] {
            let found = placed(&views, Some("r"));
            assert_eq!((found.status, found.reason), (status, reason), "{views:?}");
            assert!(found.message.contains(part), "{}", found.message);
        }
        assert_eq!(placed(&[], None).reason, "NoPlacement");
    }
}
