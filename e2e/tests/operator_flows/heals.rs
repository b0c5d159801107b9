//! When heal jobs are made.

use kube::api::ListParams;
use nearbrick_crds::{HealJob, HealPolicy, JobPhase, JobReason, WorkstationVolume};
use serde_json::json;

use crate::support::Namespace;
use crate::support::agent::{Agent, Nodes};
use crate::support::eventually;
use crate::{event, says, world};

struct Lab {
    ns: Namespace,
    nodes: Nodes,
    a: Agent,
    b: Agent,
}

impl Lab {
    /// Two members, with agents, under this policy.
    async fn new(name: &str, policy: serde_json::Value) -> Self {
        let (ns, nodes) = world(name, &["a", "b"]).await;
        ns.create::<HealPolicy>(json!({ "metadata": { "name": "p" }, "spec": policy })).await;
        let spec = json!({ "members": { "nodes": nodes.names }, "healPolicyRef": { "name": "p" } });
        ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
        let a = Agent::start(&ns, "home", &nodes.names[0]).await;
        let b = Agent::start(&ns, "home", &nodes.names[1]).await;
        ns.until("Protected", "home", |v| says(v, "Protected", "True", "NothingPending")).await;
        Self { ns, nodes, a, b }
    }

    fn brick_b(&self) -> String {
        format!("home.{}", self.nodes.names[1])
    }

    async fn jobs(&self) -> Vec<HealJob> {
        self.ns.api::<HealJob>().list(&ListParams::default()).await.unwrap().items
    }

    /// The one job that has not ended, once there is one.
    async fn active(&self) -> HealJob {
        let job = eventually("a heal job", || async {
            self.jobs().await.into_iter().find(|j| phase(j).is_some_and(|p| !p.is_ended()))
        })
        .await;
        let active = self.jobs().await.iter().filter(|j| !phase(j).is_some_and(JobPhase::is_ended)).count();
        assert_eq!(active, 1, "never two at once");
        job
    }

    /// B does its part of a job, and has all that it lacked.
    async fn heal(&self, job: &HealJob, files: u64) {
        let name = job.metadata.name.clone().unwrap();
        let running = json!({
            "target": self.brick_b(), "phase": "Running", "filesTotal": files, "filesDone": 0, "filesFailed": 0,
            "bytesTotal": files * 1024, "bytesDone": 0, "bytesPerSecond": 512, "etaSeconds": 2,
        });
        self.b.transfer(&name, running.clone()).await;
        self.ns
            .until("Running", &name, |j: &HealJob| (phase(j) == Some(JobPhase::Running)).then_some(()))
            .await;
        self.b.report(&self.brick_b(), json!({ "pendingIn": { "files": 0, "bytes": 0 } })).await;
        let mut done = running;
        done["phase"] = json!("Completed");
        done["filesDone"] = json!(files);
        done["bytesDone"] = json!(files * 1024);
        self.b.transfer(&name, done).await;
        self.ns
            .until("Completed", &name, |j: &HealJob| (phase(j) == Some(JobPhase::Completed)).then_some(()))
            .await;
    }
}

fn phase(job: &HealJob) -> Option<JobPhase> {
    job.status.as_ref().and_then(|s| s.phase)
}

#[tokio::test]
async fn by_schedule_only_where_something_is_pending() {
    let lab = Lab::new("schedule", json!({ "interval": "2s" })).await;
    // At least one time of the schedule passes with nothing pending: the heartbeat after it says so.
    let created = lab.ns.api::<WorkstationVolume>().get("home").await.unwrap();
    let created = created.metadata.creation_timestamp.unwrap().0.as_second();
    lab.ns
        .until("time goes on", &lab.brick_b(), |b: &nearbrick_crds::Brick| {
            let seen = b.status.as_ref()?.heartbeat.as_ref()?.0.as_second();
            (seen > created + 5).then_some(())
        })
        .await;
    assert!(lab.jobs().await.is_empty(), "nothing pending: no job");

    lab.b.lacks(&lab.brick_b(), 3, 0).await;
    let job = lab.active().await;
    assert_eq!(job.spec.reason, JobReason::Scheduled);
    assert_eq!(job.spec.target_bricks, [lab.brick_b()]);
    assert_eq!(job.metadata.owner_references.as_ref().unwrap()[0].name, "home");
    eventually("the Event", || event(&lab.ns, "home", "HealStarted", "3 files")).await;
    lab.heal(&job, 3).await;
    let name = job.metadata.name.unwrap();
    let status = lab.ns.api::<HealJob>().get(&name).await.unwrap().status.unwrap();
    assert_eq!(status.files.unwrap().done, 3);
    assert_eq!(status.bytes.unwrap().done, 3072);
    assert!(status.message.unwrap().starts_with("3 files, 3.0 KiB copied in "));
    lab.ns
        .until("lastHealTime", "home", |v: &WorkstationVolume| v.status.as_ref()?.last_heal_time.clone())
        .await;
    lab.ns
        .until("no next heal", "home", |v: &WorkstationVolume| {
            v.status.as_ref()?.next_heal_time.is_none().then_some(())
        })
        .await;
    eventually("the Event", || event(&lab.ns, "home", "HealCompleted", &name)).await;
    lab.ns
        .until("the policy's status", "p", |p: &HealPolicy| {
            let s = p.status.as_ref()?;
            (s.schedule.as_deref() == Some("every 2s") && s.volumes == Some(1) && s.last_run.is_some())
                .then_some(())
        })
        .await;
    drop(lab.a);
}

#[tokio::test]
async fn heals_by_the_policy_wait_for_its_window_and_end_with_it() {
    let new_year = json!([{ "start": { "schedule": "0 0 1 1 *" }, "duration": "1s" }]);
    let lab = Lab::new("windows", json!({ "interval": "1s", "windows": new_year })).await;
    lab.b.lacks(&lab.brick_b(), 3, 60).await;
    let next = lab
        .ns
        .until("the next heal", "home", |v: &WorkstationVolume| v.status.as_ref()?.next_heal_time.clone())
        .await;
    assert_eq!(next.0.strftime("%m-%d %H:%M:%S").to_string(), "01-01 00:00:00");
    assert!(lab.jobs().await.is_empty(), "no window is open");
    // A person is not held back.
    lab.ns.patch::<WorkstationVolume>("home", json!({ "spec": { "trigger": "now" } })).await;
    let job = lab.active().await;
    assert_eq!((job.spec.reason, &job.spec.not_after), (JobReason::Trigger, &None));
    lab.heal(&job, 3).await;

    // A window that is open for up to ten minutes from now on.
    let now = nearbrick_crds::meta::now().0;
    let start = json!({ "schedule": now.strftime("%M %H * * *").to_string() });
    let open = json!([{ "start": start, "duration": "10m" }]);
    lab.ns.patch::<HealPolicy>("p", json!({ "spec": { "windows": open } })).await;
    lab.b.lacks(&lab.brick_b(), 2, 60).await;
    let job = lab.active().await;
    let ends = job.spec.not_after.clone().expect("a job of a window ends with it").0;
    assert_eq!(job.spec.reason, JobReason::Scheduled);
    assert!(ends > now && ends.as_second() <= now.as_second() + 600, "{ends}");
    assert_eq!(ends.strftime("%S").to_string(), "00");
}

#[tokio::test]
async fn a_heal_starts_early_so_that_the_policys_limits_hold() {
    let lab = Lab::new("early", json!({ "interval": "24h", "maxPendingAge": "20s" })).await;
    let bounded = |status: &'static str, reason: &'static str| {
        move |v: &WorkstationVolume| says(v, "LossBounded", status, reason)
    };
    lab.ns.until("within limits", "home", bounded("True", "WithinLimits")).await;
    // Not before the volume was made: that is a time of its schedule.
    lab.b.lacks(&lab.brick_b(), 2, 0).await;
    let job = lab.active().await;
    assert_eq!(job.spec.reason, JobReason::MaxPendingAge);
    lab.ns.until("too old, nobody copies", "home", bounded("False", "TooOld")).await;
    eventually("the Event", || event(&lab.ns, "home", "TooOld", "maxPendingAge")).await;
    lab.heal(&job, 2).await;
    lab.ns.until("within limits again", "home", bounded("True", "WithinLimits")).await;
    let policy = json!({ "spec": { "maxPendingAge": null } });
    lab.ns.patch::<HealPolicy>("p", policy).await;
    lab.ns
        .until("no limit, no condition", "home", |v: &WorkstationVolume| {
            crate::condition(v, "LossBounded").is_none().then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_heal_starts_when_writing_pauses() {
    let lab = Lab::new("settled", json!({ "interval": "24h", "whenSettled": "1s" })).await;
    let now = nearbrick_crds::meta::now();
    let pending = json!({ "files": 2, "bytes": 2048, "oldestSince": now, "newestSince": now });
    lab.b.report(&lab.brick_b(), json!({ "pendingIn": pending })).await;
    let job = lab.active().await;
    assert_eq!(job.spec.reason, JobReason::Settled);
    lab.heal(&job, 2).await;
}

#[tokio::test]
async fn a_job_that_is_deleted_is_not_made_again_at_once() {
    let lab = Lab::new("cancel", json!({ "interval": "24h", "maxPendingBytes": "1Ki" })).await;
    lab.b.lacks(&lab.brick_b(), 3, 10).await;
    let job = lab.active().await;
    assert_eq!(job.spec.reason, JobReason::MaxPendingBytes);
    let name = job.metadata.name.unwrap();
    lab.ns.api::<HealJob>().delete(&name, &Default::default()).await.unwrap();
    // The next one is minutes away, though all of it is still pending.
    let next = lab
        .ns
        .until("the next heal", "home", |v: &WorkstationVolume| v.status.as_ref()?.next_heal_time.clone())
        .await;
    let since = nearbrick_crds::meta::now();
    assert!(next.0.as_second() > since.0.as_second() + 200, "{next:?}");
    lab.ns
        .until("a report after that", &lab.brick_b(), |b: &nearbrick_crds::Brick| {
            (b.status.as_ref()?.heartbeat.as_ref()? > &since).then_some(())
        })
        .await;
    assert!(lab.jobs().await.is_empty());
}

#[tokio::test]
async fn by_trigger_once_and_only_where_something_is_pending() {
    let lab = Lab::new("trigger", json!({ "paused": true })).await;
    lab.ns.until("Paused", "home", |v| says(v, "Scheduled", "False", "Paused")).await;
    let trigger = |t: &str| json!({ "spec": { "trigger": t } });
    let acted_on = |t: &'static str| {
        move |v: &WorkstationVolume| (v.status.as_ref()?.last_trigger.as_deref() == Some(t)).then_some(())
    };
    lab.ns.patch::<WorkstationVolume>("home", trigger("one")).await;
    lab.ns.until("acknowledged", "home", acted_on("one")).await;
    assert!(lab.jobs().await.is_empty(), "nothing pending: no job");
    eventually("the Event", || event(&lab.ns, "home", "NothingPending", "no heal job")).await;

    lab.b.lacks(&lab.brick_b(), 2, 0).await;
    lab.ns.until("Pending", "home", |v| says(v, "Protected", "False", "Pending")).await;
    assert!(lab.jobs().await.is_empty(), "the policy is paused");
    lab.ns.patch::<WorkstationVolume>("home", trigger("two")).await;
    let job = lab.active().await;
    assert_eq!((job.spec.reason, &job.spec.target_bricks), (JobReason::Trigger, &vec![lab.brick_b()]));
    lab.ns.until("acknowledged", "home", acted_on("two")).await;
    lab.heal(&job, 2).await;
    lab.ns.until("Protected", "home", |v| says(v, "Protected", "True", "NothingPending")).await;
    assert_eq!(lab.jobs().await.len(), 1, "one trigger, one job");
}

#[tokio::test]
async fn history_keeps_the_newest() {
    let limits = json!({ "paused": true, "historyLimits": { "successful": 2, "failed": 0 } });
    let lab = Lab::new("history", limits).await;
    let mut made = vec![];
    for n in 0..3 {
        lab.b.lacks(&lab.brick_b(), 1, 0).await;
        lab.ns.patch::<WorkstationVolume>("home", json!({ "spec": { "trigger": format!("t{n}") } })).await;
        let job = lab.active().await;
        lab.heal(&job, 1).await;
        made.push(job.metadata.name.unwrap());
        // Completion is kept to the second; the next one shall be later.
        let second = nearbrick_crds::meta::now();
        eventually("the next second", || async { (nearbrick_crds::meta::now() > second).then_some(()) })
            .await;
    }
    eventually("the oldest is gone", || async {
        let names: Vec<_> = lab.jobs().await.into_iter().filter_map(|j| j.metadata.name).collect();
        (names == made[1..]).then_some(())
    })
    .await;

    // A failed job is not kept at all; what it could not do is still pending.
    lab.b.lacks(&lab.brick_b(), 1, 0).await;
    lab.ns.patch::<WorkstationVolume>("home", json!({ "spec": { "trigger": "fails" } })).await;
    let job = lab.active().await.metadata.name.unwrap();
    let failure = json!({ "reason": "NoSpace", "count": 1, "message": "the disk is full" });
    let failed = json!({
        "target": lab.brick_b(), "phase": "Failed", "filesTotal": 1, "filesFailed": 1, "failures": [failure],
    });
    lab.b.transfer(&job, failed).await;
    eventually("the Event", || event(&lab.ns, "home", "HealFailed", "1 NoSpace (the disk is full)")).await;
    eventually("it is gone", || async {
        lab.jobs().await.iter().all(|j| j.metadata.name.as_ref() != Some(&job)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_schedule_that_cannot_be_followed_is_said_in_one_line() {
    let (ns, nodes) = world("cron", &["a", "b"]).await;
    let policy = json!({ "cron": { "schedule": "61 * * * *" } });
    ns.create::<HealPolicy>(json!({ "metadata": { "name": "p" }, "spec": policy })).await;
    let ready = |wanted: &'static str| {
        move |p: &HealPolicy| {
            let c = nearbrick_crds::condition::find(&p.status.as_ref()?.conditions, "Ready")?;
            (c.reason == wanted).then(|| c.message.clone())
        }
    };
    let line = ns.until("InvalidSchedule", "p", ready("InvalidSchedule")).await;
    assert!(line.starts_with("the cron schedule \"61 * * * *\" cannot be parsed: "), "{line}");
    assert!(line.ends_with("write five fields such as \"0 18 * * 1-5\"") && !line.contains('\n'), "{line}");
    eventually("the Event", || event(&ns, "p", "InvalidSchedule", "61 * * * *")).await;

    let spec = json!({ "members": { "nodes": nodes.names }, "healPolicyRef": { "name": "p" } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    ns.until("InvalidSchedule", "home", |v| says(v, "Scheduled", "False", "InvalidSchedule")).await;

    let zone = json!({ "spec": { "cron": { "schedule": "0 18 * * *", "timeZone": "Mars/Olympus" } } });
    ns.patch::<HealPolicy>("p", zone).await;
    let mars = |p: &HealPolicy| ready("InvalidSchedule")(p).filter(|line| line.contains("Mars/Olympus"));
    ns.until("the time zone", "p", mars).await;
    ns.patch::<HealPolicy>("p", json!({ "spec": { "cron": { "timeZone": "Europe/Berlin" } } })).await;
    ns.until("Scheduled", "p", ready("Scheduled")).await;
    ns.until("Scheduled", "home", |v| says(v, "Scheduled", "True", "Scheduled")).await;

    let patch = json!({ "spec": { "healPolicyRef": { "name": "other" } } });
    ns.patch::<WorkstationVolume>("home", patch).await;
    ns.until("no such policy", "home", |v| says(v, "Scheduled", "False", "HealPolicyNotFound")).await;
}
