//! Which `FileConflict`s a volume has, and what they say, from what its bricks report.
//!
//! Invariants:
//! - agents that have heard the same report the same, and name a file by its id: so there is one object for a file;
//! - an object goes only when every brick that reports at present lists all that it knows, and none lists the file. What a silent
//!   agent would say is not known; it says so when it is back;
//! - of reports that differ the one that knows of the later resolution counts: the other has not heard of it yet;
//! - a resolution that was carried out is not used again: for versions that are written apart afterwards a new
//!   object is made.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use nearbrick_crds::condition::{Finding, RESOLVED, Status};
use nearbrick_crds::conflict::{MOST_OBJECTS, conflict_object_name};
use nearbrick_crds::meta::brick_name;
use nearbrick_crds::pending::human_bytes;
use nearbrick_crds::{CarriedOut, ConflictPhase, ConflictReport, FileConflict, FileVersion, Time};

/// Versions that the summary names.
const NAMED: usize = 4;

/// What one brick, whose agent reports at present, says.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Its node.
    pub node: &'a str,
    /// How many conflicts are open.
    pub open: u64,
    /// Some of them, and resolved ones.
    pub list: &'a [ConflictReport],
}

impl Report<'_> {
    fn is_whole(&self) -> bool {
        self.list.iter().filter(|c| c.open).count() as u64 >= self.open
    }
}

/// The volume, as far as this asks.
#[derive(Clone, Copy, Debug)]
pub struct Volume<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// How long versions that gave way are kept.
    pub retention: SignedDuration,
}

/// What the status of one object says; its condition without the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// How far it is.
    pub phase: ConflictPhase,
    /// The versions in a line.
    pub summary: String,
    /// The versions.
    pub versions: Vec<FileVersion>,
    /// The resolution that was carried out last.
    pub carried_out: Option<CarriedOut>,
    /// Resolved.
    pub finding: Finding,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// Objects to make: name and path.
    pub make: Vec<(String, String)>,
    /// Objects to delete, by their names.
    pub remove: Vec<String>,
    /// What the others say, by their names.
    pub say: Vec<(String, Said)>,
}

/// What all reports say of one file.
struct Merged<'a> {
    report: &'a ConflictReport,
    open: bool,
    hindrance: Option<String>,
}

fn word(report: &ConflictReport) -> Option<(i64, i64)> {
    report.carried_out.as_ref().map(|c| (c.made, c.generation))
}

fn merged<'a>(reports: &[Report<'a>]) -> BTreeMap<&'a str, Merged<'a>> {
    let mut all: BTreeMap<&str, Vec<(&str, &ConflictReport)>> = BTreeMap::new();
    for report in reports {
        for conflict in report.list {
            all.entry(&conflict.file).or_default().push((report.node, conflict));
        }
    }
    let merge = |list: Vec<(&'a str, &'a ConflictReport)>| {
        let last = list.iter().map(|(_, c)| word(c)).max().flatten();
        let of_last = || list.iter().filter(move |(_, c)| word(c) == last);
        // The one that knows most versions speaks for all.
        let report = of_last().max_by_key(|(_, c)| (c.open, c.versions.len())).map(|(_, c)| *c)?;
        let hindrance = of_last().find_map(|(node, c)| Some(format!("{node}: {}", c.hindrance.as_ref()?)));
        Some(Merged { report, open: report.open, hindrance })
    };
    all.into_iter().filter_map(|(file, list)| Some((file, merge(list)?))).collect()
}

/// Decides.
pub fn plan(volume: &Volume, reports: &[Report], objects: &[&FileConflict]) -> Todo {
    let mut todo = Todo::default();
    let all = merged(reports);
    let known_whole = !reports.is_empty() && reports.iter().all(Report::is_whole);
    let mut seen = BTreeSet::new();
    for object in objects {
        let name = object.metadata.name.clone().unwrap_or_default();
        if object.metadata.deletion_timestamp.is_some() {
            seen.extend(object.file());
            continue;
        }
        let Some(file) = object.file() else { continue };
        let Some(conflict) = all.get(file) else {
            if known_whole {
                todo.remove.push(name);
            }
            continue;
        };
        seen.insert(file);
        let carried = conflict.report.carried_out.as_ref().filter(|c| Some(c.made) == object.made());
        let is_done = carried.is_some_and(|c| Some(c.generation) >= object.metadata.generation);
        // Written apart anew; or done with in the tree, by a person's hands.
        if conflict.open && is_done || !conflict.open && carried.is_none() {
            todo.remove.push(name);
            continue;
        }
        todo.say.push((name, said(volume, object, conflict, carried)));
    }
    let there = seen.iter().filter(|file| all.get(**file).is_some_and(|conflict| conflict.open)).count();
    let open = all.iter().filter(|(file, conflict)| conflict.open && !seen.contains(*file));
    for (file, conflict) in open.take(MOST_OBJECTS.saturating_sub(there)) {
        todo.make.push((conflict_object_name(volume.name, file), conflict.report.path.clone()));
    }
    todo
}

fn said(volume: &Volume, object: &FileConflict, conflict: &Merged, carried: Option<&CarriedOut>) -> Said {
    let versions = &conflict.report.versions;
    let finding = |status, reason, message: String| Finding::new(RESOLVED, status, reason, message);
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let is_carried_out = |c: &&CarriedOut| {
        object.spec.resolution.is_none() || Some(c.generation) >= object.metadata.generation
    };
    let (phase, finding) = match (&object.spec.resolution, carried.filter(is_carried_out)) {
        (_, Some(carried)) if !conflict.open => {
            (ConflictPhase::Resolved, finding(Status::True, "Resolved", outcome(volume, carried, versions)))
        }
        (Some(wanted), _) if !is_offered(volume, wanted, versions) => {
            let writers: Vec<&str> = versions.iter().filter_map(|v| v.writer.as_deref()).collect();
            let line = format!(
                "no version was written at {}: choose Brick/NAME with one of {}, or KeepBoth, Newest, Largest",
                wanted.trim_start_matches("Brick/"),
                writers.join(", ")
            );
            (ConflictPhase::Open, finding(Status::False, "NoSuchVersion", line))
        }
        (Some(wanted), _) => {
            let found = match &conflict.hindrance {
                Some(line) => finding(Status::False, "Waiting", format!("{wanted} waits: {line}")),
                None => {
                    let line =
                        format!("{wanted} is carried out by the next workstation that has the version");
                    finding(Status::False, "UnderWay", line)
                }
            };
            (ConflictPhase::Resolving, found)
        }
        (None, _) => {
            let line = format!(
                "choose: kubectl patch wfc -n {} {name} --type merge -p '{{\"spec\":{{\"resolution\":\"Newest\"}}}}' (or \
                 KeepBoth, Largest, Brick/NAME); or settle it in the tree: keep one of the names, delete or rename the other",
                volume.namespace
            );
            (ConflictPhase::Open, finding(Status::False, "NotDecided", line))
        }
    };
    Said {
        phase,
        summary: summary(versions),
        versions: versions.clone(),
        carried_out: carried.cloned(),
        finding,
    }
}

/// Whether there is a version that this resolution would choose.
fn is_offered(volume: &Volume, resolution: &str, versions: &[FileVersion]) -> bool {
    let Some(name) = resolution.strip_prefix("Brick/") else { return true };
    let is_it = |writer: &str| writer == name || brick_name(volume.name, writer) == name;
    versions.iter().filter_map(|v| v.writer.as_deref()).any(is_it)
}

fn outcome(volume: &Volume, carried: &CarriedOut, versions: &[FileVersion]) -> String {
    let what = match versions.iter().find(|v| v.chosen == Some(true)).and_then(|v| v.writer.as_deref()) {
        Some(writer) => format!(
            "the version of {writer} has the name, the others are kept: a brick that has one puts it into versions/ when a heal replaces it"
        ),
        None => "all versions stay, as files of their own".to_string(),
    };
    let until = carried.at.as_ref().and_then(|at| at.0.checked_add(volume.retention).ok());
    let until =
        until.map_or_else(String::new, |at: Timestamp| at.strftime(" until %Y-%m-%dT%H:%M:%SZ").to_string());
    format!("{}: {what}; another spec.resolution takes another version{until}", carried.resolution)
}

/// `ws-a 24 B, ws-b 10 B`.
fn summary(versions: &[FileVersion]) -> String {
    let one = |v: &FileVersion| {
        let writer = v.writer.as_deref().unwrap_or("?");
        v.size.map_or_else(|| writer.to_string(), |size| format!("{writer} {}", human_bytes(size)))
    };
    let mut line = versions.iter().take(NAMED).map(one).collect::<Vec<_>>().join(", ");
    if versions.len() > NAMED {
        line.push_str(&format!(" and {} more", versions.len() - NAMED));
    }
    line
}

impl Said {
    /// When it was resolved, if it is.
    pub fn resolved_at(&self) -> Option<Time> {
        self.carried_out.as_ref()?.at.clone().filter(|_| self.phase == ConflictPhase::Resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_crds::meta::time_from_unix;
    use nearbrick_crds::{FileConflictSpec, LocalRef};
    use proptest::prelude::*;

    const FILE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

    fn volume() -> Volume<'static> {
        Volume { namespace: "lab", name: "home", retention: SignedDuration::from_hours(168) }
    }

    fn version(writer: &str, size: u64) -> FileVersion {
        FileVersion { writer: Some(writer.into()), size: Some(size), ..FileVersion::default() }
    }

    fn reported(open: bool, carried: Option<(i64, i64)>) -> ConflictReport {
        ConflictReport {
            file: FILE.into(),
            path: "a/plan.txt".into(),
            open,
            versions: vec![version("ws-a", 24), version("ws-b", 10)],
            carried_out: carried.map(|(made, generation)| CarriedOut {
                made,
                generation,
                resolution: "Newest".into(),
                by: Some("home.ws-a".into()),
                at: Some(time_from_unix(1000)),
            }),
            hindrance: None,
        }
    }

    fn object(resolution: Option<&str>, generation: i64) -> FileConflict {
        let spec = FileConflictSpec {
            volume_ref: LocalRef::new("home"),
            path: "a/plan.txt".into(),
            resolution: resolution.map(str::to_string),
        };
        let mut object = FileConflict::new(&conflict_object_name("home", FILE), spec);
        object.metadata.creation_timestamp = Some(time_from_unix(50));
        object.metadata.generation = Some(generation);
        object
    }

    fn report<'a>(node: &'static str, list: &'a [ConflictReport]) -> Report<'a> {
        Report { node, open: list.iter().filter(|c| c.open).count() as u64, list }
    }

    fn one_said(todo: &Todo) -> (ConflictPhase, Status, &'static str, &str) {
        let [(_, said)] = todo.say.as_slice() else { panic!("{todo:?}") };
        (said.phase, said.finding.status, said.finding.reason, &said.finding.message)
    }

    #[test]
    fn t08_whoever_lists_it_first_there_is_one_object_with_a_name_that_follows_from_the_file() {
        let list = [reported(true, None)];
        let (a, b) = (report("ws-a", &list), report("ws-b", &[]));
        let made = vec![(format!("home.{FILE}"), "a/plan.txt".to_string())];
        for reports in [vec![a], vec![a, b], vec![b, a], vec![a, a]] {
            assert_eq!(plan(&volume(), &reports, &[]).make, made);
        }
        let open = object(None, 1);
        let todo = plan(&volume(), &[a, b], &[&open]);
        assert_eq!((todo.make.len(), todo.remove.len()), (0, 0));
        let (phase, status, reason, line) = one_said(&todo);
        assert_eq!((phase, status, reason), (ConflictPhase::Open, Status::False, "NotDecided"));
        assert!(line.contains(&format!("kubectl patch wfc -n lab home.{FILE}")), "{line}");
        assert_eq!(todo.say[0].1.summary, "ws-a 24 B, ws-b 10 B");
    }

    #[test]
    fn an_object_goes_when_all_that_report_have_no_such_conflict_and_say_all_they_know() {
        let open = object(None, 1);
        let gone = |reports: &[Report]| plan(&volume(), reports, &[&open]).remove.len();
        assert_eq!(gone(&[]), 0, "nobody reports");
        assert_eq!(gone(&[report("ws-a", &[])]), 1);
        let cut_off = Report { node: "ws-b", open: 7, list: &[] };
        assert_eq!(gone(&[report("ws-a", &[]), cut_off]), 0);
        let list = [reported(true, None)];
        assert_eq!(gone(&[report("ws-a", &[]), report("ws-b", &list)]), 0, "the other has not heard yet");
        // Settled in the tree, while it is listed for a resolution of an object that is no more.
        let list = [reported(false, Some((7, 2)))];
        assert_eq!(gone(&[report("ws-a", &list)]), 1);
    }

    #[test]
    fn a_resolution_is_under_way_waits_or_is_carried_out() {
        let chosen = object(Some("Newest"), 2);
        let say = |list: &[ConflictReport]| plan(&volume(), &[report("ws-a", list)], &[&chosen]);
        let todo = say(&[reported(true, None)]);
        assert_eq!(one_said(&todo).0, ConflictPhase::Resolving);
        assert_eq!(one_said(&todo).2, "UnderWay");
        let waits = ConflictReport { hindrance: Some("x is written".into()), ..reported(true, None) };
        let todo = say(&[waits]);
        assert_eq!((one_said(&todo).2, one_said(&todo).3), ("Waiting", "Newest waits: ws-a: x is written"));
        let mut done = reported(false, Some((50, 2)));
        done.versions[1].chosen = Some(true);
        let todo = say(&[done]);
        let (phase, status, reason, line) = one_said(&todo);
        assert_eq!((phase, status, reason), (ConflictPhase::Resolved, Status::True, "Resolved"));
        assert!(line.starts_with("Newest: the version of ws-b has the name"), "{line}");
        assert!(line.ends_with("until 1970-01-08T00:16:40Z"), "{line}");
        assert_eq!(todo.say[0].1.resolved_at(), Some(time_from_unix(1000)));
        // The next word is under way.
        let changed = object(Some("Largest"), 3);
        let list = [reported(false, Some((50, 2)))];
        let todo = plan(&volume(), &[report("ws-a", &list)], &[&changed]);
        assert_eq!((one_said(&todo).0, one_said(&todo).2), (ConflictPhase::Resolving, "UnderWay"));
        assert_eq!(todo.say[0].1.resolved_at(), None);
        // Taken out, what was done stays.
        let taken_out = object(None, 3);
        let todo = plan(&volume(), &[report("ws-a", &list)], &[&taken_out]);
        assert_eq!(one_said(&todo).0, ConflictPhase::Resolved);
    }

    #[test]
    fn who_has_not_heard_of_the_resolution_does_not_count() {
        let chosen = object(Some("Newest"), 2);
        let (late, done) = ([reported(true, None)], [reported(false, Some((50, 2)))]);
        for reports in
            [[report("ws-a", &late), report("ws-b", &done)], [report("ws-a", &done), report("ws-b", &late)]]
        {
            let todo = plan(&volume(), &reports, &[&chosen]);
            assert_eq!(one_said(&todo).0, ConflictPhase::Resolved);
            assert!(todo.make.is_empty() && todo.remove.is_empty());
        }
    }

    #[test]
    fn versions_that_are_written_apart_after_a_resolution_are_a_new_object() {
        let chosen = object(Some("Newest"), 2);
        let list = [reported(true, Some((50, 2)))];
        let todo = plan(&volume(), &[report("ws-a", &list)], &[&chosen]);
        assert_eq!((todo.remove.len(), todo.make.len(), todo.say.len()), (1, 0, 0));
        let todo = plan(&volume(), &[report("ws-a", &list)], &[]);
        assert_eq!(todo.make.len(), 1);
    }

    #[test]
    fn a_version_that_nobody_wrote_cannot_be_chosen() {
        let list = [reported(true, None)];
        let of = |resolution: &str| {
            let object = object(Some(resolution), 2);
            let todo = plan(&volume(), &[report("ws-a", &list)], &[&object]);
            let (_, _, reason, line) = one_said(&todo);
            (reason, line.to_string())
        };
        assert_eq!(of("Brick/ws-b").0, "UnderWay");
        assert_eq!(of("Brick/home.ws-b").0, "UnderWay");
        let (reason, line) = of("Brick/ws-z");
        assert_eq!(reason, "NoSuchVersion");
        assert_eq!(
            line,
            "no version was written at ws-z: choose Brick/NAME with one of ws-a, ws-b, or KeepBoth, Newest, Largest"
        );
    }

    proptest! {
        #[test]
        fn objects_are_bounded_and_the_order_of_reports_does_not_matter(
            a in prop::collection::vec(any::<bool>(), 0..300), b in prop::collection::vec(any::<bool>(), 0..300)
        ) {
            let list = |bits: &[bool]| -> Vec<ConflictReport> {
                let of = |(n, _): (usize, &bool)| ConflictReport { file: format!("{n:032x}"), ..reported(true, None) };
                bits.iter().enumerate().filter(|(_, there)| **there).map(of).collect()
            };
            let (a, b) = (list(&a), list(&b));
            let one = plan(&volume(), &[report("a", &a), report("b", &b)], &[]);
            let two = plan(&volume(), &[report("b", &b), report("a", &a)], &[]);
            prop_assert!(one.make.len() <= MOST_OBJECTS);
            prop_assert_eq!(one, two);
        }
    }
}
