//! How heal jobs end, and jobs that people make.

use nearbrick_crds::{HealJob, JobPhase, WorkstationVolume};
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::eventually;
use crate::{event, says, world};

fn ended(job: &HealJob) -> Option<nearbrick_crds::HealJobStatus> {
    job.status.clone().filter(|s| s.phase.is_some_and(JobPhase::is_ended))
}

#[tokio::test]
async fn a_target_that_is_away_counts_as_failed_and_the_job_ends() {
    let (ns, nodes) = world("away", &["a", "b"]).await;
    let spec = json!({ "members": { "nodes": nodes.names } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let a = Agent::start(&ns, "home", &nodes.names[0]).await;
    let b = Agent::start(&ns, "home", &nodes.names[1]).await;
    let brick = |i: usize| format!("home.{}", nodes.names[i]);
    let lacks = json!([{ "brick": brick(1), "files": 4, "bytes": 4096 }]);
    a.report(&brick(0), json!({ "pendingIn": { "files": 0, "bytes": 0 }, "pendingOut": lacks })).await;
    drop(b);
    ns.until("b is silent", "home", |v| says(v, "Ready", "Unknown", "AgentSilent")).await;
    ns.patch::<WorkstationVolume>("home", json!({ "spec": { "trigger": "now" } })).await;
    let job = eventually("the job ended", || async {
        ns.api::<HealJob>().list(&Default::default()).await.unwrap().items.into_iter().find_map(|j| ended(&j))
    })
    .await;
    assert_eq!(job.phase, Some(JobPhase::Failed));
    assert_eq!(job.files.unwrap().failed, 4);
    let line = job.message.unwrap();
    assert!(line.contains(&format!("4 Unreachable ({} is away)", nodes.names[1])), "{line}");
    eventually("the Event", || event(&ns, "home", "HealFailed", "is away")).await;
}

#[tokio::test]
async fn a_persons_job_belongs_to_the_volume_and_ends_where_nothing_is_pending() {
    let (ns, nodes) = world("manual", &["a", "b"]).await;
    let spec = json!({ "members": { "nodes": nodes.names } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let _a = Agent::start(&ns, "home", &nodes.names[0]).await;
    let _b = Agent::start(&ns, "home", &nodes.names[1]).await;
    ns.until("Protected", "home", |v| says(v, "Protected", "True", "NothingPending")).await;
    let spec = json!({ "volumeRef": { "name": "home" } });
    ns.create::<HealJob>(json!({ "metadata": { "name": "mine" }, "spec": spec })).await;
    let status = ns.until("ended", "mine", ended).await;
    assert_eq!(status.phase, Some(JobPhase::Completed));
    assert_eq!(status.message.as_deref(), Some("nothing was pending"));
    ns.until("it belongs to the volume", "mine", |j: &HealJob| {
        j.metadata.owner_references.as_ref()?.iter().any(|o| o.name == "home").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_for_no_volume_says_so() {
    let (ns, _nodes) = world("novolume", &[]).await;
    let spec = json!({ "volumeRef": { "name": "hoem" } });
    ns.create::<HealJob>(json!({ "metadata": { "name": "typo" }, "spec": spec })).await;
    let status = ns.until("ended", "typo", ended).await;
    assert_eq!(status.phase, Some(JobPhase::Failed));
    assert_eq!(
        status.message.as_deref(),
        Some("WorkstationVolume hoem does not exist in this namespace: correct volumeRef in a new HealJob")
    );
    eventually("the Event", || event(&ns, "typo", "VolumeNotFound", "hoem")).await;
}
