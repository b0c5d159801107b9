//! Answers for people, made of what agents say. Agents are asked in a fixed order, and each answer says who gave it, and of whom nothing was
//! heard: what is only a part of the truth is never shown as all of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use nearbrick_crds::condition::{READY, find};
use nearbrick_crds::files::{
    Answer, Ask, BrickHolding, FileVerification, FileWhereabouts, KeptVersionList, PendingAsk,
    PendingFileList, Refusal, RestoreRequest, RestoredFile, Silent, VerifyRequest, Verifying, VolumeMeta,
    Whereabouts,
};
use nearbrick_crds::{Brick, Time, WorkstationVolume};
use tokio::sync::Semaphore;

use super::agents::{self, Failure, Target};
use super::identity::Identity;
use super::routes::{Refused, checked};

/// How long one agent is waited for, where others may know it too.
const SHORT: Duration = Duration::from_secs(5);
/// How long it is waited for where it alone can do it. The API server waits a minute.
const LONG: Duration = Duration::from_secs(45);
/// How long what is read is waited for; then it is asked again.
const READING: Duration = Duration::from_secs(20);
/// Agents that are asked at a time for one request.
const AT_ONCE: usize = 16;
/// Requests that are answered at a time.
const REQUESTS: usize = 32;

/// What stands where the next answer begins, if an agent reads for longer than it is waited for.
const MORE: &str = "reading";

/// A volume, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Volume {
    fn meta(&self) -> VolumeMeta {
        VolumeMeta { name: self.name.clone(), namespace: self.namespace.clone() }
    }
}

/// A volume and its bricks, as the API has them now.
struct Known {
    uuid: String,
    next_heal_time: Option<Time>,
    targets: Vec<Target>,
}

/// Makes answers.
#[derive(Clone)]
pub struct Answers {
    client: Client,
    identity: Arc<Identity>,
    slots: Arc<Semaphore>,
}

impl Answers {
    /// By these ways to the API server and to agents.
    pub fn new(client: Client, identity: Arc<Identity>) -> Self {
        Answers { client, identity, slots: Arc::new(Semaphore::new(REQUESTS)) }
    }

    fn slot(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Refused> {
        let full = |_| {
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too much is asked at once: try again in a moment")
        };
        self.slots.try_acquire().map_err(full)
    }

    async fn known(&self, volume: &Volume) -> Result<Known, Refused> {
        let said = |error: kube::Error| match error {
            kube::Error::Api(status) if status.code == 404 => {
                Refused::new(StatusCode::NOT_FOUND, format!("there is no volume {volume}"))
            }
            error => Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("volume {volume}: {error}")),
        };
        let volumes: Api<WorkstationVolume> = Api::namespaced(self.client.clone(), &volume.namespace);
        let found = volumes.get(&volume.name).await.map_err(said)?;
        let bricks: Api<Brick> = Api::namespaced(self.client.clone(), &volume.namespace);
        let of_it = ListParams::default().fields(&format!("spec.volumeRef.name={}", volume.name));
        let bricks = bricks.list(&of_it).await.map_err(said)?.items;
        let uuid = found.uid().unwrap_or_default();
        let targets = bricks.iter().filter(|brick| brick.spec.volume_uuid == uuid).map(target).collect();
        Ok(Known { uuid, next_heal_time: found.status.and_then(|s| s.next_heal_time), targets })
    }

    async fn ask(
        &self,
        known: &Known,
        target: &Target,
        ask: &Ask,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        agents::ask(&self.identity, &known.uuid, target, ask, limit).await
    }

    /// Asks many at once; their answers in the order of the targets.
    async fn ask_all(
        &self,
        known: &Known,
        targets: &[Target],
        ask: &Ask,
        limit: Duration,
    ) -> Vec<(Target, Result<Answer, Failure>)> {
        let asked: Vec<_> =
            targets.iter().map(|target| self.ask(known, target, ask, limit).boxed()).collect();
        let answers: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        targets.iter().cloned().zip(answers).collect()
    }

    /// A page of what is pending, as the first agent that answers knows it.
    pub async fn pending(&self, volume: &Volume, wanted: PendingAsk) -> Result<PendingFileList, Refused> {
        let _slot = self.slot()?;
        let known = self.known(volume).await?;
        let mut silent = Vec::new();
        for target in in_order(&known.targets, wanted.node.as_deref()) {
            match self.ask(&known, &target, &Ask::Pending(wanted.clone()), SHORT).await {
                Ok(Answer::Pending(page)) => {
                    let metadata = ListMeta { continue_: page.after, ..ListMeta::default() };
                    let next = known.next_heal_time;
                    return Ok(PendingFileList::new(
                        metadata,
                        target.node,
                        page.total,
                        next,
                        silent,
                        page.files,
                    ));
                }
                Ok(_) => silent.push(mixed_up(&target)),
                Err(Failure::Refused(why @ (Refusal::Bad | Refusal::NotFound), line)) => {
                    return Err(refused(why, line));
                }
                Err(failure) => silent.push(silence(&target, &failure)),
            }
        }
        Err(nobody(volume, &silent))
    }

    /// Who holds which version: of each brick what its own agent says, and of those that are silent what another one knows.
    pub async fn whereabouts(&self, volume: &Volume, path: &str) -> Result<FileWhereabouts, Refused> {
        let _slot = self.slot()?;
        if path.is_empty() {
            return Err(Refused::new(StatusCode::BAD_REQUEST, "say of which file: path=PATH"));
        }
        let known = self.known(volume).await?;
        let ask = Ask::Where { path: path.to_owned() };
        let targets = in_order(&known.targets, None);
        let (mut found, mut silent, mut no) = (Vec::new(), Vec::new(), None);
        for (target, answer) in self.ask_all(&known, &targets, &ask, SHORT).await {
            match answer {
                Ok(Answer::Where(known)) => found.push((target.node, *known)),
                Ok(_) => silent.push(mixed_up(&target)),
                Err(failure) => {
                    silent.push(silence(&target, &failure));
                    if let Failure::Refused(why @ (Refusal::Bad | Refusal::NotFound), line) = failure {
                        no.get_or_insert(refused(why, line));
                    }
                }
            }
        }
        match merged(found) {
            Some((by, status)) => {
                Ok(FileWhereabouts::new(volume.meta(), path.to_owned(), by, silent, status))
            }
            None => Err(no.unwrap_or_else(|| nobody(volume, &silent))),
        }
    }

    /// What is kept on all bricks, or on one.
    pub async fn versions(
        &self,
        volume: &Volume,
        node: Option<&str>,
        path: &str,
    ) -> Result<KeptVersionList, Refused> {
        let _slot = self.slot()?;
        let known = self.known(volume).await?;
        let targets = chosen(volume, &known.targets, node)?;
        let ask = Ask::Versions { path: path.to_owned() };
        let (mut items, mut cut, mut silent, mut heard) = (Vec::new(), Vec::new(), Vec::new(), false);
        for (target, answer) in self.ask_all(&known, &targets, &ask, LONG).await {
            match answer {
                Ok(Answer::Versions(page)) => {
                    heard = true;
                    if page.cut {
                        cut.push(target.node);
                    }
                    items.extend(page.versions);
                }
                Ok(_) => silent.push(mixed_up(&target)),
                Err(failure) => silent.push(silence(&target, &failure)),
            }
        }
        if !heard {
            return Err(nobody(volume, &silent));
        }
        items.sort_by(|a, b| (&a.since, &a.version, &a.node).cmp(&(&b.since, &b.version, &b.node)));
        Ok(KeptVersionList::new(ListMeta::default(), cut, silent, items))
    }

    /// Brings a kept version back, at the first brick that has it. Once an agent was asked to and did not answer, nobody else is.
    pub async fn restore(&self, volume: &Volume, wanted: &RestoreRequest) -> Result<RestoredFile, Refused> {
        let _slot = self.slot()?;
        checked(&wanted.path)?;
        wanted.to.as_deref().map(checked).transpose()?;
        let known = self.known(volume).await?;
        let mut silent = Vec::new();
        let mut not_there = 0;
        for target in chosen(volume, &known.targets, wanted.node.as_deref())? {
            match self.ask(&known, &target, &Ask::Restore(wanted.clone()), LONG).await {
                Ok(Answer::Restored(path)) => {
                    return Ok(RestoredFile::new(volume.meta(), wanted.version.clone(), path, target.node));
                }
                Ok(_) => silent.push(mixed_up(&target)),
                Err(Failure::Refused(Refusal::NotFound, _)) => not_there += 1,
                Err(Failure::Refused(why, line)) => {
                    return Err(refused(why, format!("{}: {line}", target.node)));
                }
                Err(Failure::Slow(limit)) => {
                    let line = format!(
                        "the agent of {} was asked and has not answered within {} s: it may still do it, so look before you ask again",
                        target.node,
                        limit.as_secs()
                    );
                    return Err(Refused::new(StatusCode::GATEWAY_TIMEOUT, line));
                }
                Err(failure) => silent.push(silence(&target, &failure)),
            }
        }
        if not_there == 0 {
            return Err(nobody(volume, &silent));
        }
        let of = if wanted.path.is_empty() { String::new() } else { format!(" of {}", wanted.path) };
        let line =
            format!("no brick that answers keeps version {}{of}{}", wanted.version, and_silent(&silent));
        Err(Refused::new(StatusCode::NOT_FOUND, line))
    }

    /// Has copies read.
    pub async fn verify(&self, volume: &Volume, wanted: &VerifyRequest) -> Result<FileVerification, Refused> {
        let _slot = self.slot()?;
        wanted.path.as_deref().map(checked).transpose()?;
        let known = self.known(volume).await?;
        let targets = chosen(volume, &known.targets, wanted.node.as_deref())?;
        let (mut bricks, mut silent, mut no) = (Vec::new(), Vec::new(), None);
        for (target, answer) in self.ask_all(&known, &targets, &Ask::Verify(wanted.clone()), READING).await {
            match answer {
                Ok(Answer::Verify(said)) => bricks.push(Verifying { node: target.node, ..said }),
                Ok(_) => silent.push(mixed_up(&target)),
                Err(Failure::Slow(_)) if wanted.path.is_some() => {
                    bricks.push(Verifying {
                        node: target.node,
                        after: Some(MORE.to_owned()),
                        ..Verifying::default()
                    });
                }
                Err(failure) => {
                    silent.push(silence(&target, &failure));
                    if let Failure::Refused(why, line) = failure {
                        no.get_or_insert(refused(why, line));
                    }
                }
            }
        }
        match bricks.is_empty() {
            false => Ok(FileVerification::new(volume.meta(), silent, bricks)),
            true => Err(no.unwrap_or_else(|| nobody(volume, &silent))),
        }
    }
}

fn target(brick: &Brick) -> Target {
    let status = brick.status.clone().unwrap_or_default();
    Target {
        node: brick.spec.node.clone(),
        brick: brick.spec.uuid.clone(),
        reports: find(&status.conditions, READY).is_some_and(|c| c.status == "True"),
        address: status.address,
    }
}

/// In which order agents are asked: the one that is preferred, those that report, the others; and by their names.
fn in_order(targets: &[Target], preferred: Option<&str>) -> Vec<Target> {
    let mut all = targets.to_vec();
    all.sort_by_cached_key(|t| (Some(t.node.as_str()) != preferred, !t.reports, t.node.clone()));
    all
}

/// The one of a node, or all.
fn chosen(volume: &Volume, targets: &[Target], node: Option<&str>) -> Result<Vec<Target>, Refused> {
    let mut all = in_order(targets, None);
    let Some(node) = node else { return Ok(all) };
    all.retain(|target| target.node == node);
    match all.is_empty() {
        false => Ok(all),
        true => {
            let line = format!("{node} carries no brick of volume {volume}");
            Err(Refused::new(StatusCode::NOT_FOUND, line))
        }
    }
}

/// What the first said, but of each other brick what its own agent did. Of others an agent is not believed more than that.
fn merged(found: Vec<(String, Whereabouts)>) -> Option<(String, Whereabouts)> {
    let own: BTreeMap<String, BrickHolding> = found
        .iter()
        .filter_map(|(node, known)| {
            let row = known.bricks.iter().find(|row| row.node == *node)?;
            Some((node.clone(), BrickHolding { first_hand: true, ..row.clone() }))
        })
        .collect();
    let (by, mut all) = found.into_iter().next()?;
    for row in &mut all.bricks {
        match own.get(&row.node) {
            Some(said) => *row = said.clone(),
            None => row.first_hand = false,
        }
    }
    Some((by, all))
}

fn silence(target: &Target, failure: &Failure) -> Silent {
    Silent { node: target.node.clone(), why: failure.line() }
}

fn mixed_up(target: &Target) -> Silent {
    Silent { node: target.node.clone(), why: "it answered another question".to_owned() }
}

fn and_silent(silent: &[Silent]) -> String {
    let all: Vec<_> = silent.iter().map(|s| format!("{} ({})", s.node, s.why)).collect();
    if all.is_empty() { String::new() } else { format!("; not heard: {}", all.join(", ")) }
}

fn nobody(volume: &Volume, silent: &[Silent]) -> Refused {
    let line = match silent.is_empty() {
        true => format!("volume {volume} has no brick yet"),
        false => format!("no agent of volume {volume} answers{}", and_silent(silent)),
    };
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, line)
}

fn refused(why: Refusal, line: String) -> Refused {
    let code = match why {
        Refusal::Bad => StatusCode::BAD_REQUEST,
        Refusal::NotFound => StatusCode::NOT_FOUND,
        Refusal::Busy => StatusCode::CONFLICT,
        Refusal::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refused::new(code, line)
}

#[cfg(test)]
mod tests {
    use nearbrick_crds::files::Holding;

    use super::*;

    fn at(node: &str, reports: bool) -> Target {
        Target { node: node.to_owned(), brick: String::new(), address: None, reports }
    }

    fn row(node: &str, holds: Holding) -> BrickHolding {
        BrickHolding { node: node.to_owned(), holds, ..BrickHolding::default() }
    }

    #[test]
    fn agents_are_asked_in_a_fixed_order() {
        let all = [at("c", true), at("b", false), at("a", true)];
        let order = |preferred| in_order(&all, preferred).into_iter().map(|t| t.node).collect::<Vec<_>>();
        assert_eq!(order(None), ["a", "c", "b"]);
        assert_eq!(order(Some("b")), ["b", "a", "c"]);
        let volume = Volume { namespace: "lab".into(), name: "home".into() };
        assert_eq!(chosen(&volume, &all, Some("b")).unwrap(), [at("b", false)]);
        assert_eq!(chosen(&volume, &all, Some("x")).unwrap_err().code, StatusCode::NOT_FOUND);
    }

    #[test]
    fn of_its_own_brick_each_agent_is_believed_and_of_no_other() {
        let known = |rows: &[BrickHolding]| Whereabouts { bricks: rows.to_vec(), ..Whereabouts::default() };
        let a = known(&[row("a", Holding::Newest), row("b", Holding::Older), row("c", Holding::Stub)]);
        let b = known(&[row("a", Holding::Stub), row("b", Holding::Newest), row("c", Holding::Newest)]);
        let (by, all) = merged(vec![("a".into(), a), ("b".into(), b)]).unwrap();
        let rows: Vec<_> = all.bricks.iter().map(|r| (r.node.as_str(), r.holds, r.first_hand)).collect();
        assert_eq!(by, "a");
        assert_eq!(
            rows,
            [("a", Holding::Newest, true), ("b", Holding::Newest, true), ("c", Holding::Stub, false)]
        );
        assert_eq!(merged(Vec::new()), None);
    }

    #[test]
    fn who_is_silent_is_said() {
        let volume = Volume { namespace: "lab".into(), name: "home".into() };
        let silent = [Silent { node: "ws-a".into(), why: "no answer within 5 s".into() }];
        assert_eq!(
            nobody(&volume, &silent).line,
            "no agent of volume lab/home answers; not heard: ws-a (no answer within 5 s)"
        );
    }
}
