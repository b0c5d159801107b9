//! `FileConflict`s: made and deleted as agents report, chosen in by a person, described by the operator.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, Patch, PatchParams, PostParams};
use nearbrick_crds::{ConflictPhase, FileConflict, WorkstationVolume};
use serde_json::{Value, json};

use crate::support::agent::{Agent, Nodes};
use crate::support::{Namespace, ago, eventually};
use crate::{condition, event, says, world};

const FILE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const NAME: &str = "home.0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// What an agent says of a conflict between the two nodes.
fn report(nodes: &Nodes, carried_out: Option<(&FileConflict, &str)>) -> Value {
    let version = |n: usize, size: u64, chosen: bool| {
        let node = &nodes.names[n];
        let mut version = json!({ "writer": node, "brick": format!("home.{node}"), "size": size });
        if chosen {
            version["chosen"] = json!(true);
        }
        version
    };
    let mut report = json!({
        "file": FILE, "path": "a/plan.txt", "open": carried_out.is_none(),
        "versions": [version(0, 24, false), version(1, 10, carried_out.is_some())],
    });
    if let Some((object, resolution)) = carried_out {
        report["carriedOut"] = json!({
            "made": object.made().unwrap(), "generation": object.metadata.generation.unwrap(),
            "resolution": resolution, "by": format!("home.{}", nodes.names[1]), "at": ago(1),
        });
    }
    report
}

async fn says_of(agents: &[Agent], list: &[Value]) {
    let open = list.iter().filter(|c| c["open"] == true).count();
    for agent in agents {
        let status = json!({ "conflicts": open, "conflictList": list });
        agent.report(&format!("home.{}", agent.node), status).await;
    }
}

async fn start(name: &str) -> (Namespace, Nodes, Vec<Agent>) {
    let (ns, nodes) = world(name, &["a", "b"]).await;
    let spec = json!({ "members": { "nodes": nodes.names } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let mut agents = vec![];
    for node in &nodes.names {
        agents.push(Agent::start(&ns, "home", node).await);
    }
    (ns, nodes, agents)
}

/// Whether it is in this phase, for this reason.
fn is(phase: ConflictPhase, reason: &'static str) -> impl Fn(&FileConflict) -> Option<FileConflict> {
    move |c| {
        let status = c.status.as_ref()?;
        let said = nearbrick_crds::condition::find(&status.conditions, "Resolved")?;
        let current = status.observed_generation == c.metadata.generation;
        (current && status.phase == Some(phase) && said.reason == reason).then(|| c.clone())
    }
}

fn line(conflict: &FileConflict) -> String {
    conflict.status.as_ref().unwrap().conditions[0].message.clone()
}

#[tokio::test]
async fn t08_a_conflict_is_an_object_until_it_is_settled_in_the_tree() {
    let (ns, nodes, agents) = start("conflict-tree").await;
    // Only one has heard of it so far.
    says_of(&agents[..1], &[report(&nodes, None)]).await;
    let open = ns.until("it is open", NAME, is(ConflictPhase::Open, "NotDecided")).await;
    let status = open.status.as_ref().unwrap();
    let [a, b] = [&nodes.names[0], &nodes.names[1]];
    assert_eq!(status.summary, Some(format!("{a} 24 B, {b} 10 B")));
    assert_eq!((open.spec.path.as_str(), status.versions.len()), ("a/plan.txt", 2));
    assert_eq!(open.metadata.owner_references.as_ref().unwrap()[0].kind, "WorkstationVolume");
    assert!(line(&open).contains(&format!("kubectl patch wfc -n {} {NAME}", ns.name)), "{}", line(&open));
    ns.until("the volume says it", "home", |v| says(v, "ConflictFree", "False", "ConflictsOpen")).await;
    let volume: WorkstationVolume = ns.api().get("home").await.unwrap();
    assert!(condition(&volume, "ConflictFree").unwrap().message.contains("kubectl get wfc"));
    says_of(&agents, &[]).await;
    let api = ns.api::<FileConflict>();
    eventually("the object goes", || async { api.get_opt(NAME).await.unwrap().is_none().then_some(()) })
        .await;
}

#[tokio::test]
async fn t08_a_resolution_is_refused_waits_is_carried_out_and_changed() {
    let (ns, nodes, agents) = start("conflict-chosen").await;
    says_of(&agents, &[report(&nodes, None)]).await;
    ns.until("it is open", NAME, is(ConflictPhase::Open, "NotDecided")).await;
    let choose =
        |resolution: Value| ns.patch::<FileConflict>(NAME, json!({ "spec": { "resolution": resolution } }));
    let api = ns.api::<FileConflict>();
    let nonsense = Patch::Merge(json!({ "spec": { "resolution": "Mine" } }));
    let refused = api.patch(NAME, &PatchParams::default(), &nonsense).await.unwrap_err().to_string();
    assert!(refused.contains("resolution is KeepBoth, Newest, Largest or Brick/NAME"), "{refused}");

    choose(json!("Brick/ws-z")).await;
    let none = ns.until("nobody wrote it", NAME, is(ConflictPhase::Open, "NoSuchVersion")).await;
    assert!(
        line(&none).contains(&format!("one of {}, {}", nodes.names[0], nodes.names[1])),
        "{}",
        line(&none)
    );
    eventually("the Event", || event(&ns, NAME, "NoSuchVersion", "a/plan.txt: no version")).await;

    choose(json!("Newest")).await;
    ns.until("under way", NAME, is(ConflictPhase::Resolving, "UnderWay")).await;
    let mut waits = report(&nodes, None);
    waits["hindrance"] = json!("a/plan.txt is being written here: close it");
    says_of(&agents[1..], &[waits]).await;
    let waiting = ns.until("it waits", NAME, is(ConflictPhase::Resolving, "Waiting")).await;
    assert!(line(&waiting).contains("being written here"), "{}", line(&waiting));

    // One has carried it out, the other has not heard of that.
    says_of(&agents[1..], &[report(&nodes, Some((&waiting, "Newest")))]).await;
    let done = ns.until("resolved", NAME, is(ConflictPhase::Resolved, "Resolved")).await;
    let status = done.status.as_ref().unwrap();
    assert!(status.resolved_at.is_some());
    assert_eq!(status.resolved_by, Some(format!("home.{}", nodes.names[1])));
    assert_eq!(status.resolution.as_deref(), Some("Newest"));
    assert!(
        line(&done).contains(&format!("the version of {} has the name", nodes.names[1])),
        "{}",
        line(&done)
    );
    eventually("the Event", || event(&ns, NAME, "ConflictResolved", "a/plan.txt: Newest")).await;
    says_of(&agents, &[report(&nodes, Some((&done, "Newest")))]).await;
    ns.until("no conflict is open", "home", |v| says(v, "ConflictFree", "True", "NoConflicts")).await;

    choose(json!("Largest")).await;
    let anew = ns.until("under way", NAME, is(ConflictPhase::Resolving, "UnderWay")).await;
    assert_eq!(anew.status.as_ref().unwrap().resolved_at, None);
    says_of(&agents, &[report(&nodes, Some((&anew, "Largest")))]).await;
    let done = ns.until("resolved again", NAME, is(ConflictPhase::Resolved, "Resolved")).await;

    // Written apart again afterwards: that is another conflict, in which nobody has chosen.
    let mut again = report(&nodes, Some((&done, "Largest")));
    again["open"] = json!(true);
    says_of(&agents, &[again]).await;
    let other = ns.until("a new object", NAME, is(ConflictPhase::Open, "NotDecided")).await;
    assert_ne!(other.metadata.uid, done.metadata.uid);
    assert_eq!(other.spec.resolution, None);
}

#[tokio::test]
async fn s07_agents_read_conflicts_and_change_none() {
    let (ns, ..) = start("conflict-rights").await;
    let reviews: Api<SubjectAccessReview> = Api::all(ns.client.clone());
    let may = |account: &'static str, verb: &'static str, subresource: Option<&'static str>| {
        let reviews = reviews.clone();
        let namespace = ns.name.clone();
        async move {
            let asked = ResourceAttributes {
                group: Some("nearbrick.io".into()),
                resource: Some("fileconflicts".into()),
                subresource: subresource.map(Into::into),
                verb: Some(verb.into()),
                namespace: Some(namespace),
                ..Default::default()
            };
            let spec = SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:nearbrick-system:{account}")),
                resource_attributes: Some(asked),
                ..Default::default()
            };
            let review = SubjectAccessReview { spec, ..Default::default() };
            reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
        }
    };
    for verb in ["get", "list", "watch"] {
        assert!(may("nearbrick-agent", verb, None).await, "{verb}");
    }
    for verb in ["create", "update", "patch", "delete"] {
        assert!(!may("nearbrick-agent", verb, None).await, "{verb}");
        assert!(!may("nearbrick-agent", verb, Some("status")).await, "{verb}");
    }
    // What a person chose is not the operator's to change.
    for (verb, allowed) in [("create", true), ("delete", true), ("patch", false), ("update", false)] {
        assert_eq!(may("nearbrick-operator", verb, None).await, allowed, "{verb}");
    }
    assert!(may("nearbrick-operator", "patch", Some("status")).await);
}
