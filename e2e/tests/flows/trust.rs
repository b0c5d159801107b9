//! Somebody who has taken over ws-a, with its token and its key, against what is not ws-a's.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use nearbrick_crds::meta::{AGENT_CA, SIGNER, brick_name};
use nearbrick_crds::{Brick, HealJob, Workstation, WorkstationVolume};
use nearbrick_e2e::cluster::SYSTEM_NAMESPACE;
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::{self, eventually};
use nearbrick_e2e::pki::signing_request;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::volumes::Volume;
use nearbrick_e2e::workstation::{PEER_PORT, Workstation as Machine};
use nearbrick_e2e::{Lab, Result, fail};
use serde_json::{Value, json};

/// What the API server said no with.
fn refused<T>(what: &str, done: kube::Result<T>, part: &str) -> Result<()> {
    match done {
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(part) => Ok(()),
        Err(error) => fail!("{what}: refused, but not as it should be ({part}): {error}"),
        Ok(_) => fail!("{what}: the API server did it"),
    }
}

fn status(kind: &str, name: &str, status: &Value) -> Patch<Value> {
    Patch::Apply(json!({
        "apiVersion": "nearbrick.io/v1alpha1", "kind": kind, "metadata": { "name": name }, "status": status,
    }))
}

/// A signing request by this client; its answer.
async fn ask_for_certificate(
    client: &Client,
    signer: &str,
    names: &[&str],
) -> Result<kube::Result<CertificateSigningRequest>> {
    let (request, _) = signing_request(names)?;
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "generateName": "attack-" },
        "spec": { "signerName": signer, "request": ByteString(request.into_bytes()), "usages": ["client auth"] },
    });
    let object = serde_json::from_value(object).context("odd request")?;
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    Ok(api.create(&PostParams::default(), &object).await)
}

pub async fn s07_a_token_of_one_node_says_nothing_of_another(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    scene.write(&scene.a, "work", 1)?;
    scene.heal("one").await?;
    let namespace = &scene.volume.namespace;
    let attacker = lab.agent_client("ws-a").await?;
    let params = PatchParams::apply("attacker").force();

    let bricks: Api<Brick> = Api::namespaced(attacker.clone(), namespace);
    let workstations: Api<Workstation> = Api::all(attacker.clone());
    let jobs: Api<HealJob> = Api::namespaced(attacker.clone(), namespace);
    // The policy is there a moment after it was made.
    let lie = json!({ "message": "all is well" });
    let other = brick_name("tree", "ws-b");
    eventually("the status of another node's brick is refused", LIMIT, || async {
        let done = bricks.patch_status(&other, &params, &status("Brick", &other, &lie)).await;
        refused("the status of a brick", done, "is of node ws-b").map_err(|e| e.to_string())
    })
    .await?;
    let lie = json!({ "agentVersion": "0" });
    let done = workstations.patch_status("ws-b", &params, &status("Workstation", "ws-b", &lie)).await;
    refused("the status of a workstation", done, "does not report of workstation ws-b")?;

    let job = scene.volume.jobs().await?.pop().context("there was a heal")?;
    let name = job.name_any();
    let lie = json!({ "transfers": [{ "target": other, "filesDone": 1000 }] });
    let done = jobs.patch_status(&name, &params, &status("HealJob", &name, &lie)).await;
    refused("the transfer to another node", done, "writes the transfer to tree.ws-a only")?;
    let lie = json!({ "message": "all is copied" });
    let done = jobs.patch_status(&name, &params, &status("HealJob", &name, &lie)).await;
    refused("the operator's part of a job", done, "the rest of its status is the operator's")?;

    // What it may say is said all the time: its own brick is reported, and its own transfer was.
    let own = brick_name("tree", "ws-a");
    let before = bricks.get(&own).await.context("its own brick")?;
    let truth = json!({ "message": before.status.and_then(|s| s.message) });
    let done = bricks.patch_status(&own, &params, &status("Brick", &own, &truth)).await;
    done.context("the status of its own brick")?;

    // No spec, no secret, no certificate of another kind.
    let spec = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    let volumes: Api<WorkstationVolume> = Api::namespaced(attacker.clone(), namespace);
    refused("a spec", volumes.patch("tree", &PatchParams::default(), &spec).await, "cannot patch resource")?;
    let secrets: Api<Secret> = Api::namespaced(attacker.clone(), SYSTEM_NAMESPACE);
    refused("secrets", secrets.list(&Default::default()).await, "cannot list resource")?;
    let other = ask_for_certificate(&attacker, "kubernetes.io/kube-apiserver-client", &["ws-a"]).await?;
    refused("a certificate for the API server", other, "nearbrick.io/agent only")?;
    // One for another node may be asked for, and is not given.
    for names in [&["ws-b"][..], &["ws-a", "ws-b"], &[]] {
        let asked = ask_for_certificate(&attacker, SIGNER, names).await?.context("a request")?;
        let decided = decided(&scene.client, &asked.name_any()).await?;
        if decided != Err("OtherNode".to_owned()) {
            fail!("a certificate for {names:?}, asked for by ws-a: {decided:?}");
        }
    }
    let asked = ask_for_certificate(&attacker, SIGNER, &["ws-a"]).await?.context("a request")?;
    if decided(&scene.client, &asked.name_any()).await?.is_err() {
        fail!("ws-a gets no certificate for itself");
    }
    Ok(())
}

/// The certificate that was given, or the reason why none was.
async fn decided(client: &Client, name: &str) -> Result<std::result::Result<Vec<u8>, String>> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    eventually("a decision", LIMIT, || async {
        let request = api.get(name).await.map_err(|e| e.to_string())?;
        let status = request.status.unwrap_or_default();
        if let Some(certificate) = status.certificate {
            return Ok(Ok(certificate.0));
        }
        let no = status.conditions.into_iter().flatten().find(|c| c.type_ == "Denied");
        no.map(|c| Err(c.reason.unwrap_or_default())).ok_or_else(|| "none yet".to_owned())
    })
    .await
}

/// What an agent answers to a request from ws-a: with the certificate of ws-a, or without one.
fn ask_peer(scene: &Scene, at: &Machine, certificate: bool, path: &str) -> Result<String> {
    let tls = scene.a.tls_dir().display().to_string();
    let (node, address) = (&at.seat.node, at.seat.address);
    let own = if certificate { format!("--cert {tls}/tls.crt --key {tls}/tls.key") } else { String::new() };
    let script = format!(
        "curl -s -m 10 --cacert {tls}/ca.crt {own} --resolve {node}:{PEER_PORT}:{address} -d '' \
         -o /dev/null -w '%{{http_code}}' https://{node}:{PEER_PORT}{path} || echo ' {REFUSED}'"
    );
    Ok(scene.a.sh(&script)?.trim().to_owned())
}

/// What curl's line ends with where there was no answer.
const REFUSED: &str = "no answer";

pub async fn s07_a_certificate_of_one_node_opens_nothing_of_another(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    // Another volume, of which ws-a has no brick.
    let (namespace, client) = (&scene.volume.namespace, &scene.client);
    let private = format!(
        "apiVersion: nearbrick.io/v1alpha1\nkind: WorkstationVolume\nmetadata: {{name: private, namespace: {namespace}}}\n\
         spec: {{members: {{nodes: [ws-b, ws-c]}}, replicas: 2}}\n"
    );
    kube_api::apply(client, &private).await?;
    let private = Volume::new(client, namespace, "private");
    private.wait_ready(&["ws-b", "ws-c"], LIMIT).await?;
    let paths = |brick: &Brick, verb: &str| {
        let spec = &brick.spec;
        format!("/v2/volumes/{}/bricks/{}/{verb}", spec.volume_uuid, spec.uuid)
    };
    let (own, others) = (scene.volume.brick("ws-b").await?, private.brick("ws-b").await?);
    for verb in ["journal", "compare", "fetch", "read", "hint", "acks", "newest"] {
        let code = ask_peer(&scene, &scene.b, true, &paths(&others, verb))?;
        if code != "403" {
            fail!("{verb} of a volume that ws-a does not carry: {code}");
        }
        // Where the volume is its own, what it asks of another brick than that which is there is misdirected.
        let elsewhere = scene.volume.brick("ws-c").await?;
        let code = ask_peer(&scene, &scene.b, true, &paths(&elsewhere, verb))?;
        if code != "421" {
            fail!("{verb} of another brick than the one that is asked: {code}");
        }
        let code = ask_peer(&scene, &scene.b, false, &paths(&own, verb))?;
        if !code.ends_with(REFUSED) {
            fail!("{verb} without a certificate: {code}");
        }
    }
    let code = ask_peer(&scene, &scene.b, true, &paths(&own, "journal"))?;
    if code == "403" || code.ends_with(REFUSED) {
        fail!("what ws-a may ask is refused too: {code}");
    }
    Ok(())
}

pub async fn s08_another_authority_takes_over_while_people_work(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    let before = own_certificates(&scene)?;
    // That takes two minutes.
    scene.volume.patch_policy(json!({ "bandwidth": "256Ki" })).await?;
    scene.sh(&scene.a, "head -c 30M /dev/urandom > large")?;
    scene.wait_settled().await?;
    scene.volume.trigger("slow").await?;
    let moving = |j: &HealJob| {
        let bytes = j.status.as_ref().and_then(|s| s.bytes);
        bytes.is_some_and(|b| b.done > 0 && b.done < b.total)
    };
    scene.volume.wait_job("a heal that goes on", LIMIT, moving).await?;
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), SYSTEM_NAMESPACE);
    secrets.delete(AGENT_CA, &Default::default()).await.context("cannot delete the authority")?;
    // All get another certificate, without a restart, while the heal goes on.
    eventually("another certificate on each workstation", LIMIT * 4, || async {
        let now = own_certificates(&scene).map_err(|e| e.to_string())?;
        let same = now.iter().zip(&before).filter(|(now, before)| now == before).count();
        if same > 0 { Err(format!("{same} have the old one")) } else { Ok(()) }
    })
    .await?;
    scene.volume.patch_policy(json!({ "bandwidth": null })).await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT * 2).await?;
    let failed = scene.volume.jobs().await?.iter().find_map(|j| j.status.as_ref()?.failures.clone());
    if let Some(failed) = failed {
        fail!("the heal did not go through: {failed}");
    }
    let written = scene.read(&scene.a)?;
    scene.on_brick(&scene.b)?.must_be(&written, "the brick of ws-b")?;
    scene.read(&scene.c)?.must_be(&written, "read on ws-c")
}

/// The certificates that the three agents have.
fn own_certificates(scene: &Scene) -> Result<Vec<String>> {
    [&scene.a, &scene.b, &scene.c]
        .iter()
        .map(|w| {
            let path = w.tls_dir().join("tls.crt");
            std::fs::read_to_string(&path).context(format!("cannot read {}", path.display()))
        })
        .collect()
}
