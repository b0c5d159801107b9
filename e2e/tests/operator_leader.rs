//! Two operators, one leader; and what a person sees of them.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "operator_support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use nearbrick_crds::{Brick, HealJob, WorkstationVolume};
use serde_json::json;
use support::agent::{Agent, Nodes};
use support::operator::{Operator, SYSTEM};
use support::{Namespace, eventually};

#[tokio::test]
async fn one_leads_the_other_takes_over_and_no_job_is_made_twice() {
    let ns = Namespace::new("leader").await;
    let nodes = Nodes::new(&ns, &["a", "b"]).await;
    let ready = |operator: &Operator, wanted: &'static str| {
        let address = operator.address;
        move || async move {
            support::operator::page(address, "/readyz").await.filter(|text| text.contains(wanted))
        }
    };
    let first = Operator::start("first").await;
    eventually("the first leads", ready(&first, "leads\n")).await;
    assert!(first.page("/healthz").await.unwrap().contains("ok"));
    let second = Operator::start("second").await;
    eventually("the second stands by", ready(&second, "stands by")).await;

    let policy = json!({ "metadata": { "name": "p" }, "spec": { "interval": "1s" } });
    ns.create::<nearbrick_crds::HealPolicy>(policy).await;
    let spec = json!({ "members": { "nodes": nodes.names }, "healPolicyRef": { "name": "p" } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let _a = Agent::start(&ns, "home", &nodes.names[0]).await;
    let b = Agent::start(&ns, "home", &nodes.names[1]).await;
    let brick_b = format!("home.{}", nodes.names[1]);
    let uuid = ns.until("its identity", &brick_b, |b: &Brick| Some(b.spec.uuid.clone())).await;
    b.lacks(&brick_b, 2, 30).await;
    let jobs = ns.api::<HealJob>();
    eventually("a job", || async { jobs.list(&Default::default()).await.ok()?.items.pop() }).await;
    let text = first.page("/metrics").await.unwrap();
    assert!(text.contains("nearbrick_operator_leader 1"), "{text}");
    assert!(text.contains("nearbrick_operator_heal_jobs_created_total{reason=\"Scheduled\"} 1"), "{text}");
    assert!(text.contains(&format!(
        "nearbrick_operator_volume_pending_files{{namespace=\"{}\",volume=\"home\"}} 2",
        ns.name
    )));
    assert!(second.page("/metrics").await.unwrap().contains("nearbrick_operator_leader 0"));

    // Heartbeats go on, and nothing else changes: nothing is written.
    let writes = || async {
        let text = first.page("/metrics").await.unwrap();
        let lines = text.lines().filter(|l| l.starts_with("nearbrick_operator_status_writes_total"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let heartbeat = |b: &Brick| b.status.as_ref().and_then(|s| s.heartbeat.clone());
    eventually("two heartbeats without a write", || async {
        let before = writes().await;
        for _ in 0..2 {
            let seen = heartbeat(&ns.api().get(&brick_b).await.ok()?);
            ns.until("a heartbeat", &brick_b, |b: &Brick| (heartbeat(b) > seen).then_some(())).await;
        }
        (writes().await == before).then_some(())
    })
    .await;

    first.stop().await.unwrap();
    eventually("the second leads", ready(&second, "leads\n")).await;
    use k8s_openapi::api::coordination::v1::Lease;
    let leases: kube::Api<Lease> = kube::Api::namespaced(ns.client.clone(), SYSTEM);
    let lease = leases.get("nearbrick-operator").await.unwrap().spec.unwrap();
    assert_eq!(lease.holder_identity.as_deref(), Some("second"));

    // The job has not ended: the new leader makes no other, and the brick is the same.
    b.lacks(&brick_b, 3, 30).await;
    ns.until("the new leader sums up", "home", |v: &WorkstationVolume| {
        (v.status.as_ref()?.pending.as_ref()?.files == 3).then_some(())
    })
    .await;
    assert_eq!(jobs.list(&Default::default()).await.unwrap().items.len(), 1);
    assert_eq!(ns.api::<Brick>().get(&brick_b).await.unwrap().spec.uuid, uuid);

    // Whoever takes the lease by force makes it stand by; when that one is silent, it leads again.
    let stolen = json!({ "spec": { "holderIdentity": "thief", "leaseDurationSeconds": 2 } });
    let params = kube::api::PatchParams::default();
    leases.patch("nearbrick-operator", &params, &kube::api::Patch::Merge(&stolen)).await.unwrap();
    eventually("the second stands by", ready(&second, "stands by")).await;
    eventually("the second leads again", ready(&second, "leads\n")).await;
    b.lacks(&brick_b, 4, 30).await;
    ns.until("and sums up", "home", |v: &WorkstationVolume| {
        (v.status.as_ref()?.pending.as_ref()?.files == 4).then_some(())
    })
    .await;
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_holder_that_dies_is_replaced_after_the_duration_and_one_that_was_replaced_notices() {
    use nearbrick_operator::lease::{Config, Elector, Lost};
    let ns = Namespace::new("lease").await;
    let config = |identity: &str| Config {
        duration: Duration::from_secs(2),
        renew_within: Duration::from_secs(1),
        retry: Duration::from_millis(100),
        ..Config::new(ns.name.clone(), "l".into(), identity.into())
    };
    let candidate = |identity: &str| Elector::new(ns.client.clone(), config(identity), || {});
    let mut dies = candidate("dies");
    dies.acquire().await;
    let mut next = candidate("next");
    let start = Instant::now();
    next.acquire().await;
    assert!(start.elapsed() >= Duration::from_secs(2), "not before the duration is over");
    // The first one was only asleep: it sees who leads now, and ends.
    let lost = dies.hold().await;
    assert!(
        matches!(&lost, Lost::Taken(lease, holder) if lease.ends_with("/l") && holder == "next"),
        "{lost}"
    );
    // Whoever does not lead gives nothing back.
    dies.release().await;
    let mut third = candidate("third");
    let waits = tokio::time::timeout(Duration::from_millis(500), third.acquire()).await;
    assert!(waits.is_err(), "the lease is still held");
    next.release().await;
    third.acquire().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let line = nearbrick_operator::http::bind(address).await.unwrap_err();
    assert!(line.starts_with(&format!("cannot listen on {address}: ")), "{line}");
    assert!(line.ends_with("choose another address with --listen") && !line.contains('\n'), "{line}");
}
