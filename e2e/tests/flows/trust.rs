//! Somebody who has taken over ws-a, with its token and its key, against what is not ws-a's.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use nearbrick_crds::meta::{SIGNER, brick_name};
use nearbrick_crds::{Brick, HealJob, Workstation, WorkstationVolume};
use nearbrick_e2e::cluster::SYSTEM_NAMESPACE;
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::pki::signing_request;
use nearbrick_e2e::scene::{LIMIT, Scene};
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
