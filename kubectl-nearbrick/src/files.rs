//! Files of one volume, as its agents know them: `pending`, `where`, `versions` and `verify`. Asked through the API server, with the person's
//! own rights (`files.nearbrick.io`).

use std::process::ExitCode;
use std::time::{Duration, Instant};

use http::{Method, Request};
use nearbrick_crds::files::{
    BrickHolding, FileVerification, FileWhereabouts, Holding, KeptVersionList, MOST_ROWS, PendingFile,
    PendingFileList, RestoreRequest, RestoredFile, Silent, Subject, VerifyRequest, Verifying,
};
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{Brick, Time, Verification};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::{Cluster, Scope};
use crate::table::{Cell, Paint, Tone, age, table};
use crate::{Error, Output, print, structured};

/// Between two looks at what is read.
const LOOK: Duration = Duration::from_secs(1);

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Of this workstation.
    pub node: Option<String>,
    /// Of this file, or below this directory.
    pub path: Option<String>,
    /// So many rows at most; none: all.
    pub limit: Option<u64>,
}

/// A volume in its namespace.
struct Named<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    volume: &'a str,
}

impl<'a> Named<'a> {
    fn of(cluster: &'a Cluster, scope: &'a Scope, volume: &'a str) -> Result<Self, Error> {
        let all = || Error::Said("files are of one volume: say which by -n NAMESPACE, not by -A".to_owned());
        Ok(Named { cluster, namespace: scope.0.as_deref().ok_or_else(all)?, volume })
    }

    fn what(&self, subject: Subject) -> String {
        let what = match subject {
            Subject::Pending => "list what is pending",
            Subject::Where => "find who holds it",
            Subject::Versions => "list kept versions",
            Subject::Restore => "restore it",
            Subject::Verify => "have copies read",
        };
        format!("{what}, in volume {}/{}", self.namespace, self.volume)
    }

    async fn get<T: DeserializeOwned>(&self, subject: Subject, query: &[(&str, &str)]) -> Result<T, Error> {
        let mut uri = subject.path(self.namespace, self.volume) + "?";
        form_urlencoded::Serializer::new(&mut uri).extend_pairs(query);
        self.ask(subject, Method::GET, &uri, Vec::new()).await
    }

    async fn post<T: DeserializeOwned>(&self, subject: Subject, body: &impl Serialize) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|e| Error::Said(e.to_string()))?;
        self.ask(subject, Method::POST, &subject.path(self.namespace, self.volume), body).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        subject: Subject,
        method: Method,
        uri: &str,
        body: Vec<u8>,
    ) -> Result<T, Error> {
        let failed = |why: String| Error::Api { what: self.what(subject), why };
        let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
        let request = request.body(body).map_err(|e| failed(e.to_string()))?;
        self.cluster.client().request(request).await.map_err(|error| failed(reason(error)))
    }
}

/// Why the API server, or who answers for it, says no.
fn reason(error: kube::Error) -> String {
    let line = match error {
        kube::Error::Api(status) => match (status.code, status.reason.as_str()) {
            // Our own errors have a reason, and those of RBAC.
            (404, "NotFound") if !status.message.contains("could not find the requested resource") => {
                status.message.clone()
            }
            (404, _) => {
                "the cluster has no files API: is Nearbrick installed by its chart, with files.enabled?"
                    .to_owned()
            }
            (503, reason)
                if reason != "ServiceUnavailable" || status.message.contains("unable to handle") =>
            {
                "the cluster's files API does not answer: does the operator run? kubectl get apiservice \
                 v1alpha1.files.nearbrick.io says why"
                    .to_owned()
            }
            _ => status.message.clone(),
        },
        error => error.to_string(),
    };
    line.replace('\n', " ").trim().to_owned()
}

/// Who did not answer, on stderr: what is shown may lack something.
fn say_silent(silent: &[Silent], paint: Paint) {
    for Silent { node, why } in silent {
        eprintln!("{}", paint.paint(&format!("{node} was not heard: {why}"), Tone::Notice));
    }
}

fn since(time: Option<&Time>) -> String {
    time.map_or_else(|| "?".to_owned(), |t| age(jiff::Timestamp::now().as_second() - t.0.as_second()))
}

/// What is pending in a volume: all pages of it, each as it comes.
///
/// # Errors
/// A request; there is no such volume.
pub async fn pending(
    cluster: &Cluster,
    scope: &Scope,
    volume: &str,
    part: &Part,
    output: Output,
    paint: Paint,
) -> Result<ExitCode, Error> {
    let volume = Named::of(cluster, scope, volume)?;
    let mut left = part.limit.unwrap_or(u64::MAX);
    let mut whole: Option<PendingFileList> = None;
    let (mut after, mut shown) = (String::new(), 0);
    loop {
        let limit = left.min(MOST_ROWS.into()).to_string();
        let query = [
            ("node", part.node.as_deref().unwrap_or_default()),
            ("path", part.path.as_deref().unwrap_or_default()),
            ("limit", &limit),
            ("continue", &after),
        ];
        let mut page: PendingFileList = volume.get(Subject::Pending, &query).await?;
        after = page.metadata.continue_.clone().unwrap_or_default();
        let rows = page.items.len() as u64;
        left = left.saturating_sub(rows);
        let first = whole.is_none();
        if matches!(output, Output::Table | Output::Wide) {
            if first {
                say_silent(&page.silent, paint);
            }
            if rows > 0 {
                let text = pending_table(&page.items, output == Output::Wide, paint);
                // One heading for all pages.
                print(if shown == 0 { &text } else { text.split_once('\n').map_or("", |(_, rest)| rest) });
            }
            shown += rows;
            page.items.clear();
        }
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => {
                whole.metadata = page.metadata;
                whole.items.append(&mut page.items);
            }
        }
        if after.is_empty() || left == 0 {
            break;
        }
    }
    let Some(whole) = whole else { return Ok(ExitCode::SUCCESS) };
    match output {
        Output::Json | Output::Yaml => print(&structured(&whole, output)?),
        Output::Table | Output::Wide => eprintln!("{}", pending_summary(&whole, shown, !after.is_empty())),
    }
    Ok(ExitCode::SUCCESS)
}

fn pending_summary(list: &PendingFileList, shown: u64, more: bool) -> String {
    let by = &list.as_known_by;
    if list.total == 0 {
        return format!("nothing is pending, as {by} knows it");
    }
    let mut line = format!("{shown} of {} pending, as {by} knows it", human_files(list.total));
    if more {
        line.push_str("; there are more: give a higher --limit");
    }
    if let Some(next) = &list.next_heal_time {
        line.push_str(&format!("; the next heal is at {}", next.0));
    }
    line
}

fn pending_table(files: &[PendingFile], wide: bool, paint: Paint) -> String {
    let rows: Vec<Vec<Cell>> = files
        .iter()
        .map(|file| {
            let oldest = file.lacking.iter().filter_map(|l| l.since.as_ref()).min();
            let reasons: Vec<_> = file
                .lacking
                .iter()
                .filter_map(|l| l.reason.as_ref().map(|reason| format!("{reason} ({})", l.node)))
                .collect();
            let lacking: Vec<_> = file.lacking.iter().map(|l| l.node.as_str()).collect();
            let why = if reasons.is_empty() {
                Cell::from("next heal")
            } else {
                Cell::new(reasons.join(", "), Tone::Notice)
            };
            let mut row: Vec<Cell> =
                vec![lacking.join(", ").into(), since(oldest).into(), human_bytes(file.size).into(), why];
            if wide {
                row.push(file.held_by.join(", ").into());
                row.push(file.file.as_str().into());
            }
            row.push(file.path.as_str().into());
            row
        })
        .collect();
    let mut heading = vec!["LACKED-BY", "SINCE", "SIZE", "WAITS-FOR"];
    if wide {
        heading.extend(["HELD-BY", "FILE"]);
    }
    heading.push("PATH");
    table(&heading, &rows, paint)
}

/// Who holds which version of a file.
///
/// # Errors
/// A request; there is no such volume or file.
pub async fn whereabouts(
    cluster: &Cluster,
    scope: &Scope,
    volume: &str,
    path: &str,
    output: Output,
    paint: Paint,
) -> Result<ExitCode, Error> {
    let volume = Named::of(cluster, scope, volume)?;
    let found: FileWhereabouts = volume.get(Subject::Where, &[("path", path)]).await?;
    match output {
        Output::Json | Output::Yaml => print(&structured(&found, output)?),
        Output::Table | Output::Wide => {
            say_silent(&found.silent, paint);
            print(&where_table(&found, output == Output::Wide, paint));
            if found.status.in_conflict {
                eprintln!("it is in conflict: kubectl nearbrick conflicts says between which versions");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn where_table(found: &FileWhereabouts, wide: bool, paint: Paint) -> String {
    let none = || Cell::from("-");
    let cells = |brick: &BrickHolding| {
        let tone = match brick.holds {
            Holding::Newest => Tone::Good,
            Holding::Conflicting => Tone::Bad,
            Holding::Older if brick.in_set => Tone::Notice,
            Holding::Stub | Holding::Nothing if brick.in_set => Tone::Notice,
            _ => Tone::Plain,
        };
        let state = match (brick.damaged, &brick.verified_at) {
            (true, _) => Cell::new("damaged", Tone::Bad),
            (false, Some(at)) => Cell::new(format!("verified {} ago", since(Some(at))), Tone::Good),
            (false, None) => none(),
        };
        let holds = match brick.being_written {
            true => format!("{}, being written", brick.holds.as_str()),
            false => brick.holds.as_str().to_owned(),
        };
        let mut row = vec![
            brick.node.as_str().into(),
            Cell::new(holds, tone),
            if brick.in_set { "yes" } else { "no" }.into(),
            brick.size.map_or_else(none, |size| human_bytes(size).into()),
            brick.writer.as_deref().map_or_else(none, Cell::from),
            brick.written_at.as_ref().map_or_else(none, |at| format!("{} ago", since(Some(at))).into()),
            state,
        ];
        if wide {
            let by = if brick.first_hand { "itself" } else { found.as_known_by.as_str() };
            row.push(by.into());
        }
        row
    };
    let rows: Vec<Vec<Cell>> = found.status.bricks.iter().map(cells).collect();
    let mut heading = vec!["WORKSTATION", "HOLDS", "IN-SET", "SIZE", "WRITTEN-ON", "WRITTEN", "COPY"];
    if wide {
        heading.push("AS-KNOWN-BY");
    }
    table(&heading, &rows, paint)
}

/// The versions that are kept.
///
/// # Errors
/// A request; there is no such volume.
pub async fn versions(
    cluster: &Cluster,
    scope: &Scope,
    volume: &str,
    part: &Part,
    output: Output,
    paint: Paint,
) -> Result<ExitCode, Error> {
    let volume = Named::of(cluster, scope, volume)?;
    let query = [
        ("path", part.path.as_deref().unwrap_or_default()),
        ("node", part.node.as_deref().unwrap_or_default()),
    ];
    let list: KeptVersionList = volume.get(Subject::Versions, &query).await?;
    match output {
        Output::Json | Output::Yaml => print(&structured(&list, output)?),
        Output::Table | Output::Wide => {
            say_silent(&list.silent, paint);
            if list.items.is_empty() {
                eprintln!("no version is kept, as far as was heard");
            } else {
                print(&versions_table(&list, paint));
            }
            for node in &list.cut {
                eprintln!("{node} keeps more: older ones are left out, name a path");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn versions_table(list: &KeptVersionList, paint: Paint) -> String {
    let rows: Vec<Vec<Cell>> = list
        .items
        .iter()
        .map(|kept| {
            vec![
                kept.version.as_str().into(),
                kept.node.as_str().into(),
                kept.why.as_str().into(),
                since(kept.since.as_ref()).into(),
                human_bytes(kept.size).into(),
                kept.written_at.as_ref().map_or_else(|| "?".to_owned(), |at| at.0.to_string()).into(),
                kept.writer.as_deref().unwrap_or("?").into(),
                kept.path.as_deref().unwrap_or("(not known)").into(),
            ]
        })
        .collect();
    table(&["VERSION", "KEPT-ON", "WHY", "KEPT", "SIZE", "WRITTEN", "WRITTEN-ON", "PATH"], &rows, paint)
}

/// Brings a kept version back.
///
/// # Errors
/// A request; there is no such version.
pub async fn restore(
    cluster: &Cluster,
    scope: &Scope,
    volume: &str,
    wanted: &RestoreRequest,
) -> Result<ExitCode, Error> {
    let named = Named::of(cluster, scope, volume)?;
    let done: RestoredFile = named.post(Subject::Restore, wanted).await?;
    println!(
        "{} is again as in version {}, on {}; what was there before is kept",
        done.path, done.version, done.node
    );
    Ok(ExitCode::SUCCESS)
}

/// Has copies read, and waits for what that finds. The code is the answer: 0 if nothing is damaged.
///
/// # Errors
/// A request; there is no such volume or path; not within the time.
pub async fn verify(
    cluster: &Cluster,
    scope: &Scope,
    volume: &str,
    part: &Part,
    wait: Option<Duration>,
) -> Result<ExitCode, Error> {
    let named = Named::of(cluster, scope, volume)?;
    let mut wanted = VerifyRequest { node: part.node.clone(), path: part.path.clone(), after: None };
    let asked: FileVerification = named.post(Subject::Verify, &wanted).await?;
    say_silent(&asked.silent, Paint(false));
    let Some(limit) = wait else {
        for brick in &asked.bricks {
            println!("{}", line_of(brick));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let (begin, mut well) = (Instant::now(), asked.silent.is_empty());
    let late =
        || Error::Said(format!("not all was read within {} s; it goes on: ask again", limit.as_secs()));
    for mut brick in asked.bricks {
        // One after the other: they read side by side.
        wanted.node = Some(brick.node.clone());
        while brick.after.is_some() {
            if begin.elapsed() >= limit {
                return Err(late());
            }
            wanted.after = brick.after.take();
            let said: FileVerification = named.post(Subject::Verify, &wanted).await?;
            brick = said.bricks.into_iter().next().unwrap_or(brick);
        }
        let found = match &brick.began {
            None => brick.clone(),
            Some(began) => whole(&named, &brick, began, begin, limit).await?.ok_or_else(late)?,
        };
        let read = found.read.unwrap_or_default();
        well &= read.damaged == 0;
        println!("{}", line_of(&found));
        for path in &found.damaged {
            println!("  {path}");
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until a look through the whole brick that began then, or later, has come to its end.
async fn whole(
    named: &Named<'_>,
    asked: &Verifying,
    began: &Time,
    begin: Instant,
    limit: Duration,
) -> Result<Option<Verifying>, Error> {
    loop {
        let bricks = named.cluster.bricks(&Scope(Some(named.namespace.to_owned()))).await?;
        let is_it = |b: &&Brick| b.spec.node == asked.node && b.spec.volume_ref.name == named.volume;
        let status = bricks.iter().find(is_it).and_then(|b| b.status.clone()).unwrap_or_default();
        let done = |v: &Verification| v.started_at.as_ref().is_some_and(|at| at.0 >= began.0);
        if let Some(found) = status.verification.filter(done) {
            let read = nearbrick_crds::Verified {
                files: found.files,
                bytes: found.bytes,
                damaged: found.damaged,
                left: found.left,
            };
            return Ok(Some(Verifying { read: Some(read), ..asked.clone() }));
        }
        if begin.elapsed() >= limit {
            return Ok(None);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn line_of(brick: &Verifying) -> String {
    let node = &brick.node;
    let Some(read) = &brick.read else {
        return format!("{node}: reads its copies; kubectl get wsb -o wide says when it has");
    };
    let mut line =
        format!("{node}: {} ({}) as they should be", human_files(read.files), human_bytes(read.bytes));
    if read.damaged > 0 {
        line.push_str(&format!("; {} damaged: a heal repairs them from another copy", read.damaged));
    }
    if read.left > 0 {
        line.push_str(&format!("; {} not looked at, mostly because programs write them", read.left));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
    use kube::core::Status;
    use nearbrick_crds::Verified;
    use nearbrick_crds::files::{Lacking, VolumeMeta, Whereabouts};

    fn error(code: u16, reason: &str, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure(message, reason).with_code(code)))
    }

    #[test]
    fn what_is_missing_is_said() {
        for (error, part) in [
            (error(404, "Failed to parse error data", "404 page not found\n"), "no files API"),
            (error(404, "NotFound", "the server could not find the requested resource"), "no files API"),
            (error(404, "NotFound", "there is no volume lab/home"), "there is no volume"),
            (error(503, "Failed to parse error data", "service unavailable\n"), "does the operator run?"),
            (
                error(503, "ServiceUnavailable", "the server is currently unable to handle the request"),
                "does the operator run?",
            ),
            (error(503, "ServiceUnavailable", "no agent of volume lab/home answers"), "no agent"),
            (
                error(403, "Forbidden", "user cannot get resource \"workstationvolumes/pending\""),
                "workstationvolumes/pending",
            ),
        ] {
            let line = reason(error);
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn what_is_pending_has_who_lacks_it_and_what_it_waits_for() {
        let lacking = |node: &str, reason: Option<&str>| Lacking {
            node: node.to_owned(),
            since: None,
            reason: reason.map(str::to_owned),
        };
        let file = PendingFile {
            path: "a b".to_owned(),
            file: "00".to_owned(),
            size: 2048,
            lacking: vec![lacking("ws-b", Some("Busy")), lacking("ws-c", None)],
            held_by: vec!["ws-a".to_owned()],
        };
        let text = pending_table(&[file], true, Paint(false));
        assert!(text.lines().nth(1).unwrap().starts_with("ws-b, ws-c   ?"), "{text}");
        for part in ["2.0 KiB", "Busy (ws-b)", "ws-a", "a b"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let list = PendingFileList::new(ListMeta::default(), "ws-a".into(), 0, None, Vec::new(), Vec::new());
        assert_eq!(pending_summary(&list, 0, false), "nothing is pending, as ws-a knows it");
    }

    #[test]
    fn where_says_of_each_brick_what_it_has() {
        let row = |node: &str, holds, first_hand| BrickHolding {
            node: node.to_owned(),
            holds,
            first_hand,
            ..BrickHolding::default()
        };
        let bricks = vec![row("ws-a", Holding::Newest, true), row("ws-b", Holding::Stub, false)];
        let status = Whereabouts { bricks, ..Whereabouts::default() };
        let found =
            FileWhereabouts::new(VolumeMeta::default(), "f".into(), "ws-a".into(), Vec::new(), status);
        let text = where_table(&found, true, Paint(false));
        let rows: Vec<&str> = text.lines().collect();
        assert!(
            rows[1].starts_with("ws-a") && rows[1].contains("newest") && rows[1].ends_with("itself"),
            "{text}"
        );
        assert!(rows[2].contains("stub") && rows[2].ends_with("ws-a"), "{text}");
    }

    #[test]
    fn what_was_read_is_said_in_a_line() {
        let read = Verified { files: 1, bytes: 5, damaged: 1, left: 0 };
        let found = Verifying { node: "ws-a".to_owned(), read: Some(read), ..Verifying::default() };
        assert_eq!(
            line_of(&found),
            "ws-a: 1 file (5 B) as they should be; 1 damaged: a heal repairs them from another copy"
        );
    }
}
