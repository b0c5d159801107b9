//! `flush` and `leave`: heals are asked for, and waited for with what is left, the rate and the time that it takes.
//!
//! What is said in the end is what the objects say, never that enough time has passed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use nearbrick_crds::condition::{self, find};
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{HealJob, JobPhase, Workstation, WorkstationState, WorkstationVolume};

use crate::Error;
use crate::cluster::{Cluster, Scope};
use crate::status::may_leave;
use crate::table::{Paint, Tone};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks for an answer of an agent.
const SOON: Duration = Duration::from_millis(200);
/// An agent that has not answered after this time has not heard.
const ANSWER: Duration = Duration::from_secs(30);
/// A heal that ended and left something is asked for again after this time.
const AGAIN: Duration = Duration::from_secs(20);

/// How far a flush of one volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The operator has not acted on it yet.
    Asked,
    /// It goes on; in words.
    Running(String),
    /// All is copied.
    Done,
    /// No heal runs, and this is left.
    Left(String),
}

/// How far it is, from the objects.
pub fn progress(volume: &WorkstationVolume, jobs: &[HealJob], trigger: &str) -> Progress {
    let status = volume.status.clone().unwrap_or_default();
    if status.last_trigger.as_deref() != Some(trigger) {
        return Progress::Asked;
    }
    let running = jobs
        .iter()
        .filter(|j| j.metadata.deletion_timestamp.is_none())
        .find(|j| !j.status.as_ref().and_then(|s| s.phase).is_some_and(JobPhase::is_ended));
    let protected = find(&status.conditions, condition::PROTECTED);
    if protected.is_some_and(|c| c.status == "True") && running.is_none() {
        return Progress::Done;
    }
    let left = status.pending.as_ref().map(|p| (p.files, p.bytes)).unwrap_or_default();
    let left = format!("{} ({}) left", human_files(left.0), human_bytes(left.1));
    match running {
        Some(job) => {
            let job = job.status.clone().unwrap_or_default();
            let rate = job.bytes_per_second.map(|r| format!(", {}/s", human_bytes(r))).unwrap_or_default();
            let eta = job.eta_seconds.map(|s| format!(", about {s} s")).unwrap_or_default();
            Progress::Running(format!("{left}{rate}{eta}"))
        }
        None => Progress::Left(protected.map_or(left, |c| c.message.clone())),
    }
}

/// What a volume's flush said last, so that only news is printed.
struct Flush {
    namespace: String,
    name: String,
    trigger: String,
    said: Option<Progress>,
    /// Since when nothing runs and something is left.
    left_since: Option<Instant>,
}

impl Flush {
    async fn begin(cluster: &Cluster, namespace: String, name: String) -> Result<Self, Error> {
        let trigger = cluster.trigger(&namespace, &name).await?;
        Ok(Flush { namespace, name, trigger, said: None, left_since: None })
    }

    async fn look(&mut self, cluster: &Cluster) -> Result<Progress, Error> {
        let volume = cluster.volume(&self.namespace, &self.name).await?;
        let jobs = cluster.jobs(&self.namespace, &self.name).await?;
        let now = progress(&volume, &jobs, &self.trigger);
        if self.said.as_ref() != Some(&now) {
            let line = match &now {
                Progress::Asked => "asked for a heal".to_owned(),
                Progress::Running(line) => line.clone(),
                Progress::Done => "all is copied".to_owned(),
                Progress::Left(line) => format!("not all is copied: {line}"),
            };
            eprintln!("{}/{}: {line}", self.namespace, self.name);
            self.said = Some(now.clone());
        }
        match now {
            Progress::Left(_) => drop(self.left_since.get_or_insert_with(Instant::now)),
            _ => self.left_since = None,
        }
        Ok(now)
    }

    /// Whether it has been left with something for so long that no job comes by itself.
    fn is_stuck(&self, after: Duration) -> bool {
        self.left_since.is_some_and(|since| since.elapsed() >= after)
    }
}

/// Asks for heals; with `wait` until all is copied.
///
/// # Errors
/// A request; there is no such volume; not within the time.
pub async fn flush(
    cluster: &Cluster,
    scope: &Scope,
    names: &[String],
    wait: Option<Duration>,
) -> Result<ExitCode, Error> {
    let all = cluster.volumes(scope).await?;
    if let Some(unknown) = names.iter().find(|n| !all.iter().any(|v| v.name_any() == **n)) {
        return Err(Error::Said(format!(
            "there is no volume {unknown} {}: see kubectl get wsv -A",
            scope.say()
        )));
    }
    let wanted = all.iter().filter(|v| names.is_empty() || names.contains(&v.name_any()));
    let mut flushes = Vec::new();
    for volume in wanted {
        flushes.push(Flush::begin(cluster, volume.namespace().unwrap_or_default(), volume.name_any()).await?);
    }
    if flushes.is_empty() {
        return Err(Error::Said(format!("there is no volume {}", scope.say())));
    }
    let Some(limit) = wait else {
        for flush in &flushes {
            println!("{}/{}: asked for a heal", flush.namespace, flush.name);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let begin = Instant::now();
    loop {
        let mut open = false;
        for flush in &mut flushes {
            let done = flush.look(cluster).await? == Progress::Done;
            open |= !done && !flush.is_stuck(AGAIN);
        }
        let done = flushes.iter().all(|f| f.said == Some(Progress::Done));
        if done {
            println!("all is copied");
            return Ok(ExitCode::SUCCESS);
        }
        if !open {
            return Err(Error::Said("not all is copied: see above, and kubectl get whj".to_owned()));
        }
        if begin.elapsed() >= limit {
            return Err(Error::Said(format!("not all is copied within {} s", limit.as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the agent of a workstation has looked since it was asked, or is known not to answer.
fn has_answered(workstation: &Workstation, trigger: &str) -> bool {
    let Some(status) = &workstation.status else { return false };
    let silent = status.state.is_some_and(|state| state != WorkstationState::Online);
    silent || status.last_trigger.as_deref() == Some(trigger)
}

/// Says whether a workstation may leave, as its agent finds it after it was asked; with `wait` makes it so, as far as heals can.
///
/// # Errors
/// A request; there is no such workstation; not within the time.
pub async fn leave(
    cluster: &Cluster,
    node: &str,
    wait: Option<Duration>,
    paint: Paint,
) -> Result<ExitCode, Error> {
    let missing = || Error::Said(format!("there is no workstation {node}: see kubectl get wsn"));
    if cluster.workstation(node).await?.is_none() {
        return Err(missing());
    }
    let begin = Instant::now();
    let trigger = cluster.ask(node).await?;
    let mut answered = false;
    let mut asked: Option<Instant> = None;
    let mut flushes: Vec<Flush> = Vec::new();
    let mut said = String::new();
    loop {
        let workstation = cluster.workstation(node).await?.ok_or_else(missing)?;
        answered |= has_answered(&workstation, &trigger);
        if !answered {
            if begin.elapsed() >= ANSWER {
                let limit = ANSWER.as_secs();
                let why = format!("its agent does not answer within {limit} s: see kubectl get wsn {node}");
                println!("{}: {why}", paint.paint("unknown", Tone::Bad));
                return Ok(ExitCode::FAILURE);
            }
            tokio::time::sleep(SOON).await;
            continue;
        }
        let (safe, why) = may_leave(&workstation);
        if safe == Some(true) {
            println!("{}: {why}", paint.paint(&format!("yes, {node} may leave"), Tone::Good));
            return Ok(ExitCode::SUCCESS);
        }
        let answer = if safe.is_some() { "not yet" } else { "unknown" };
        let Some(limit) = wait else {
            println!("{}: {why}", paint.paint(answer, if safe.is_some() { Tone::Notice } else { Tone::Bad }));
            return Ok(ExitCode::FAILURE);
        };
        let line = format!("{answer}: {why}");
        if line != said {
            eprintln!("{line}");
            said = line;
        }
        if begin.elapsed() >= limit {
            return Err(Error::Said(format!("{node} may not leave within {} s; {said}", limit.as_secs())));
        }
        if asked.is_none_or(|at| at.elapsed() >= AGAIN) {
            flushes.clear();
            for brick in cluster.bricks_of(node).await? {
                let pending = brick.status.as_ref().and_then(|s| s.pending.as_ref()).map_or(0, |p| p.files);
                let volume = brick.spec.volume_ref.name.clone();
                if pending > 0 {
                    flushes.push(Flush::begin(cluster, brick.namespace().unwrap_or_default(), volume).await?);
                }
            }
            // Without anything pending it waits for programs, or for others to hear: that is looked at again soon.
            asked = (!flushes.is_empty()).then(Instant::now);
        }
        let mut running = false;
        for flush in &mut flushes {
            running |= matches!(flush.look(cluster).await?, Progress::Asked | Progress::Running(_));
        }
        if running {
            // No other heal is asked for while one runs.
            asked = Some(Instant::now());
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn volume(last: &str, protected: &str, files: u64) -> WorkstationVolume {
        serde_json::from_value(json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "WorkstationVolume",
            "metadata": { "name": "home", "namespace": "lab" },
            "spec": { "members": { "nodes": ["a"] } },
            "status": {
                "lastTrigger": last, "pending": { "files": files, "bytes": files * 1024 },
                "conditions": [{
                    "type": "Protected", "status": protected, "reason": "R", "message": "home.b lacks 2 files",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn an_answer_is_one_that_was_found_out_after_the_question() {
        let workstation = |state: &str, last: Option<&str>| -> Workstation {
            serde_json::from_value(json!({
                "apiVersion": "nearbrick.io/v1alpha1", "kind": "Workstation", "metadata": { "name": "a" }, "spec": {},
                "status": { "state": state, "lastTrigger": last },
            }))
            .unwrap()
        };
        assert!(!has_answered(&workstation("Online", None), "2"));
        assert!(!has_answered(&workstation("Online", Some("1")), "2"));
        assert!(has_answered(&workstation("Online", Some("2")), "2"));
        assert!(has_answered(&workstation("Away", Some("1")), "2"), "nobody is there to answer");
    }

    fn job(phase: &str) -> HealJob {
        serde_json::from_value(json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "HealJob", "metadata": { "name": "j" },
            "spec": { "volumeRef": { "name": "home" } },
            "status": { "phase": phase, "bytesPerSecond": 2048, "etaSeconds": 3 },
        }))
        .unwrap()
    }

    #[test]
    fn how_far_a_flush_is() {
        let of =
            |last, protected, files, jobs: &[HealJob]| progress(&volume(last, protected, files), jobs, "t");
        assert_eq!(of("before", "True", 0, &[]), Progress::Asked, "what was true before is no answer");
        let line = "2 files (2.0 KiB) left, 2.0 KiB/s, about 3 s".to_owned();
        assert_eq!(of("t", "False", 2, &[job("Completed"), job("Running")]), Progress::Running(line));
        assert_eq!(
            of("t", "False", 2, &[job("Completed")]),
            Progress::Left("home.b lacks 2 files".to_owned())
        );
        assert_eq!(of("t", "True", 0, &[job("Completed")]), Progress::Done);
        assert!(
            matches!(of("t", "True", 0, &[job("Running")]), Progress::Running(_)),
            "its end is waited for"
        );
        assert!(matches!(of("t", "Unknown", 0, &[]), Progress::Left(_)), "not known is not done");
    }
}
