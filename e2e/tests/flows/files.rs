//! Lists of files through the API server: what is pending, who holds what, kept versions and the way back, copies read; and who may ask.

use std::collections::BTreeSet;

use kube::{Api, ResourceExt};
use nearbrick_crds::Brick;
use nearbrick_crds::files::{
    FileWhereabouts, Holding, KeptVersionList, PendingFileList, RestoredFile, Subject,
};
use nearbrick_crds::meta::brick_name;
use nearbrick_e2e::cluster::{FILES_PORT, SYSTEM_NAMESPACE};
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::{self, eventually};
use nearbrick_e2e::record::Kind;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::workstation::PEER_PORT;
use nearbrick_e2e::{Lab, Result, fail};
use serde::de::DeserializeOwned;

use crate::plugin::{plugin, text};

/// Files below `many`.
const MANY: usize = 1200;

/// What the plugin says, as an object.
fn said<T: DeserializeOwned>(scene: &Scene, arguments: &[&str]) -> Result<T> {
    let output = plugin(scene, &[arguments, &["-o", "json"]].concat())?;
    if !output.status.success() {
        fail!("{arguments:?}: {}", text(&output));
    }
    serde_json::from_slice(&output.stdout).context(format!("{arguments:?}"))
}

fn raw<T: DeserializeOwned>(scene: &Scene, subject: Subject, query: &str) -> Result<T> {
    let path = subject.path(&scene.volume.namespace, &scene.volume.name) + query;
    let answer = scene.lab.kubectl_output(&["get", "--raw", &path])?;
    serde_json::from_str(&answer).context(path)
}

/// A volume with many files that are pending, and one called `one`.
async fn with_pending(lab: &Lab) -> Result<Scene> {
    // No heal falls into the test, whenever it runs.
    let scene = Scene::new(lab, "24h").await?;
    let script =
        format!("mkdir many && for i in $(seq {MANY}); do echo $i > many/$i; done && echo first > one");
    scene.sh(&scene.a, &script)?;
    scene.wait_settled_at(&scene.a).await?;
    Ok(scene)
}

pub async fn what_is_pending_is_listed_in_pages(lab: Lab) -> Result<()> {
    let scene = with_pending(&lab).await?;
    eventually("all is listed", LIMIT, || async {
        let list: PendingFileList = said(&scene, &["pending", "tree"]).map_err(|e| e.to_string())?;
        (list.items.len() == MANY + 1).then_some(()).ok_or(format!("{} files", list.items.len()))
    })
    .await?;
    let (mut names, mut pages, mut after) = (BTreeSet::new(), 0, String::new());
    loop {
        let query = format!("?limit=500&continue={after}");
        let page: PendingFileList = raw(&scene, Subject::Pending, &query)?;
        pages += 1;
        for file in &page.items {
            let lacking: Vec<_> = file.lacking.iter().map(|l| l.node.as_str()).collect();
            if lacking != ["ws-b"] || file.lacking[0].since.is_none() || file.held_by != ["ws-a"] {
                fail!("a row says {file:?}");
            }
        }
        names.extend(page.items.into_iter().map(|file| file.path));
        after = page.metadata.continue_.unwrap_or_default();
        if after.is_empty() {
            break;
        }
    }
    if pages != 3 || names.len() != MANY + 1 || !names.contains("one") {
        fail!("{pages} pages with {} names", names.len());
    }
    let below: PendingFileList = said(&scene, &["pending", "tree", "--node", "ws-b", "--path", "/many/"])?;
    let outside: PendingFileList = said(&scene, &["pending", "tree", "--node", "ws-c"])?;
    if below.items.len() != MANY || below.as_known_by != "ws-b" || !outside.items.is_empty() {
        fail!(
            "{} below many, as {} knows it; {} on ws-c",
            below.items.len(),
            below.as_known_by,
            outside.items.len()
        );
    }
    let table = text(&plugin(&scene, &["pending", "tree", "--path", "one"])?);
    if !table.starts_with("LACKED-BY") || !table.contains("one") || !table.contains("pending, as ws-") {
        fail!("the table is: {table}");
    }
    let odd = plugin(&scene, &["pending", "nothing"])?;
    if odd.status.success() || !text(&odd).contains("there is no volume") {
        fail!("an unknown volume: {}", text(&odd));
    }
    // Who asks while the preferred workstation is off hears what another one knows, and that.
    scene.b.power_off(false)?;
    let without: PendingFileList = said(&scene, &["pending", "tree", "--node", "ws-b"])?;
    let silent: Vec<_> = without.silent.iter().map(|s| s.node.as_str()).collect();
    if without.items.len() != MANY + 1 || without.as_known_by != "ws-a" || silent != ["ws-b"] {
        fail!(
            "without ws-b: {} files, as {} knows it; silent {silent:?}",
            without.items.len(),
            without.as_known_by
        );
    }
    lab.start("ws-b")
}

/// What each workstation holds of the file `one`.
fn holdings(scene: &Scene) -> Result<Vec<Holding>> {
    let found: FileWhereabouts = said(scene, &["where", "tree", "one"])?;
    if !found.silent.is_empty() {
        fail!("not heard: {:?}", found.silent);
    }
    Ok(found.status.bricks.iter().map(|brick| brick.holds).collect())
}

pub async fn where_a_file_is_and_its_versions_come_back(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "24h").await?;
    scene.sh(&scene.a, "mkdir many && for i in $(seq 20); do echo $i > many/$i; done && echo first > one")?;
    scene.wait_settled().await?;
    let is = |wanted: &[Holding]| {
        let found = holdings(&scene).map_err(|e| e.to_string())?;
        (found == wanted).then_some(()).ok_or(format!("{found:?}"))
    };
    use Holding::{Newest, Stub};
    eventually("one holder, two stubs", LIMIT, || async { is(&[Newest, Stub, Stub]) }).await?;
    scene.heal("one").await?;
    eventually("two holders, one stub", LIMIT, || async { is(&[Newest, Newest, Stub]) }).await?;
    let found: FileWhereabouts = said(&scene, &["where", "tree", "one"])?;
    let of = |n: usize| &found.status.bricks[n];
    if of(0).writer.as_deref() != Some("ws-a") || of(1).size != Some(6) || !of(1).in_set || of(2).in_set {
        fail!("where says {found:?}");
    }

    scene.sh(&scene.b, "rm one")?;
    // By the one that had to hold it and did not delete it.
    let kept = eventually("it is kept", LIMIT, || async {
        let list: KeptVersionList = said(&scene, &["versions", "tree", "one"]).map_err(|e| e.to_string())?;
        list.items.first().cloned().ok_or(format!("{list:?}"))
    })
    .await?;
    let version = &kept.version;
    if (kept.node.as_str(), kept.why.as_str(), kept.size) != ("ws-a", "deleted", 6) {
        fail!("kept: {kept:?}");
    }
    let wrong = plugin(&scene, &["versions", "tree", "many", "--restore", version])?;
    if wrong.status.success() || !text(&wrong).contains("no brick that answers keeps version") {
        fail!("a version of another path: {}", text(&wrong));
    }
    let done = plugin(&scene, &["versions", "tree", "one", "--restore", version])?;
    if !done.status.success() {
        fail!("restore: {}", text(&done));
    }
    eventually("it is back everywhere", LIMIT, || async {
        for at in [&scene.a, &scene.b, &scene.c] {
            let read = scene.sh(at, "cat one").map_err(|e| e.to_string())?;
            if read.trim() != "first" {
                return Err(format!("{}: {read}", at.seat.node));
            }
        }
        Ok(())
    })
    .await?;
    // And beside where it was, from the workstation that is named.
    let body = format!("{{\"version\":\"{version}\",\"to\":\"back/again\",\"node\":\"ws-a\"}}");
    let path = Subject::Restore.path(&scene.volume.namespace, "tree");
    let request = http::Request::post(path).body(body.into_bytes()).context("odd request")?;
    let restored: RestoredFile = scene.client.request(request).await.context("restore by a request")?;
    if (restored.path.as_str(), restored.node.as_str()) != ("back/again", "ws-a") {
        fail!("restored: {restored:?}");
    }
    eventually("it is there too", LIMIT, || async {
        let read = scene.sh(&scene.a, "cat back/again").map_err(|e| e.to_string())?;
        (read.trim() == "first").then_some(()).ok_or(read)
    })
    .await?;

    scene.wait_settled().await?;
    let some = text(&plugin(&scene, &["verify", "tree", "--path", "many", "--node", "ws-b"])?);
    if !some.contains("ws-b: 20 files") || some.contains("ws-a") {
        fail!("verify of a path: {some}");
    }
    let all = plugin(&scene, &["verify", "tree", "--timeout", "2m"])?;
    let lines = text(&all);
    if !all.status.success() || !["ws-a: ", "ws-b: ", "ws-c: "].iter().all(|node| lines.contains(node)) {
        fail!("verify: {lines}");
    }
    eventually("the copy is known to be good", LIMIT, || async {
        let found: FileWhereabouts = said(&scene, &["where", "tree", "one"]).map_err(|e| e.to_string())?;
        let known = found.status.bricks[0].verified_at.is_some();
        known.then_some(()).ok_or(format!("{found:?}"))
    })
    .await
}

pub async fn only_who_may_see_a_namespace_may_ask_and_only_by_the_api_server(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "24h").await?;
    let other = Scene::new(&lab, "24h").await?;
    let (namespace, foreign) = (&scene.volume.namespace, &other.volume.namespace);
    let rights = format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: reader, namespace: {namespace}}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: reader, namespace: {namespace}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}\n\
         subjects: [{{kind: ServiceAccount, name: reader, namespace: {namespace}}}]\n"
    );
    kube_api::apply(&scene.client, &rights).await?;
    let reader = format!("system:serviceaccount:{namespace}:reader");
    eventually("the reader may ask there", LIMIT, || async {
        let asked = plugin(&scene, &["pending", "tree", "--as", &reader]).map_err(|e| e.to_string())?;
        asked.status.success().then_some(()).ok_or(text(&asked))
    })
    .await?;
    for (scene, arguments, part) in [
        (&other, &["pending", "tree"][..], "workstationvolumes/pending"),
        (&other, &["where", "tree", "one"], "workstationvolumes/where"),
        (&other, &["versions", "tree"], "workstationvolumes/versions"),
        (&scene, &["versions", "tree", "--restore", "x"], "workstationvolumes/restore"),
        (&scene, &["verify", "tree"], "workstationvolumes/verify"),
    ] {
        let asked = plugin(scene, &[arguments, &["--as", &reader]].concat())?;
        let line = text(&asked);
        if asked.status.success() || !line.contains(part) || !line.contains("cannot") {
            fail!("{arguments:?} in {foreign} or {namespace}: {line}");
        }
    }

    // Whoever is not the API server gets no answer, whatever certificate of a node they have.
    let address = match lab.record().kind {
        Kind::Processes => lab.record().control_address().to_string(),
        Kind::Nodes => {
            let of = [
                "-l",
                "app.kubernetes.io/name=nearbrick-operator",
                "-o",
                "jsonpath={.items[0].status.podIP}",
            ];
            lab.kubectl_output(&[&["get", "pods", "-n", SYSTEM_NAMESPACE][..], &of].concat())?
        }
    };
    let tls = scene.a.tls_dir().display().to_string();
    let own = format!("--cert {tls}/tls.crt --key {tls}/tls.key");
    let path = Subject::Pending.path(namespace, "tree");
    for certificate in ["", own.as_str()] {
        let script = format!(
            "curl -sk -m 10 {certificate} -H 'X-Remote-User: admin' -H 'X-Remote-Group: system:masters' \
             -w '%{{http_code}}' https://{address}:{FILES_PORT}{path} || true"
        );
        let answer = scene.a.sh(&script)?;
        if answer.trim() != "000" {
            fail!("{certificate:?}: the operator answers {answer}");
        }
    }
    // A node's certificate does not make its agent the operator.
    let bricks: Api<Brick> = Api::namespaced(scene.client.clone(), namespace);
    let brick = bricks.get(&brick_name("tree", "ws-b")).await.context("a brick")?;
    let (node, at) = (&scene.b.seat.node, scene.b.seat.address);
    let (volume, uuid) = (&brick.spec.volume_uuid, &brick.spec.uuid);
    let script = format!(
        "curl -s -m 10 --cacert {tls}/ca.crt {own} --resolve {node}:{PEER_PORT}:{at} -d '{{\"versions\":{{\"path\":\"\"}}}}' \
         -w ' %{{http_code}}' https://{node}:{PEER_PORT}/v2/operator/volumes/{volume}/bricks/{uuid}"
    );
    let answer = scene.a.sh(&script)?;
    if !answer.contains("node ws-a is not the operator") || !answer.trim().ends_with("403") {
        fail!("{}: a node asks as the operator does: {answer}", brick.name_any());
    }
    Ok(())
}

/// kubectl finds the group, and the API server has nothing to complain of.
pub async fn the_group_is_known_to_kubectl(lab: Lab) -> Result<()> {
    let _scene = Scene::without_volume(&lab).await?;
    eventually("the APIService is available", LIMIT, || async {
        let path = "jsonpath={.status.conditions[?(@.type==\"Available\")].status} {.status.conditions[?(@.type==\"Available\")].message}";
        let said = lab
            .kubectl_output(&["get", "apiservice", "v1alpha1.files.nearbrick.io", "-o", path])
            .map_err(|e| e.to_string())?;
        said.starts_with("True").then_some(()).ok_or(said)
    })
    .await?;
    let said = lab.kubectl_output(&["api-resources", "--cached=false"])?;
    let kinds = lab.kubectl_output(&["get", "workstationvolumes", "-A", "--ignore-not-found"])?;
    if !said.contains("workstationvolumes") || kinds.contains("error") {
        fail!("{said}\n{kinds}");
    }
    let versions = lab.kubectl_output(&["api-versions"])?;
    if !versions.contains("files.nearbrick.io/v1alpha1") {
        fail!("{versions}");
    }
    Ok(())
}
