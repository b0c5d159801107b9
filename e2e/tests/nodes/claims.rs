//! Volumes for pods by claims: the CSI driver under a real kubelet, scheduler and csi-provisioner.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::DeleteParams;
use nearbrick_crds::WorkstationVolume;
use nearbrick_e2e::control_plane::binaries;
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::{self, eventually, wait_for};
use nearbrick_e2e::nodes::{chart, image};
use nearbrick_e2e::scene::{LIMIT, NODES, Scene};
use nearbrick_e2e::volumes::Volume;
use nearbrick_e2e::{Lab, Result, fail};
use serde_json::json;

use super::pods::sh;

/// The class of this test.
const CLASS: &str = "claims";
const CLAIM: &str = "work";

/// Gives all nodes the sidecars, and upgrades to a chart with the driver.
async fn install(lab: &Lab) -> Result<()> {
    let built = || Ok::<_, nearbrick_e2e::Error>((binaries::csi_provisioner()?, binaries::csi_resizer()?));
    let (provisioner, resizer) = tokio::task::spawn_blocking(built).await.context("building ended")??;
    for archive in image::pack_csi(&lab.identity().dir.join("packed"), &provisioner, &resizer)? {
        for node in lab.nodes() {
            node.import(&archive)?;
        }
    }
    let provisioner = format!("csi.provisioner.image={}", image::CSI_PROVISIONER);
    let resizer = format!("csi.resizer.image={}", image::CSI_RESIZER);
    chart::install(lab, &["csi.enabled=true", &provisioner, &resizer])
}

/// A pod with a shell and the claim at /work, on the node of this name.
async fn pod(scene: &Scene, name: &str, node: &str, read_only: bool) -> Result<()> {
    let there = json!({ "kubernetes.io/hostname": node });
    pod_among(scene, name, &there, read_only).await.map(drop)
}

/// The same, wherever the scheduler has it go among the nodes with these labels.
async fn pod_among(scene: &Scene, name: &str, nodes: &serde_json::Value, read_only: bool) -> Result<Pod> {
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": scene.volume.namespace },
        "spec": {
            "nodeSelector": nodes,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "shell", "image": image::SHELL, "imagePullPolicy": "Never",
                "command": ["/busybox", "sleep", "100000"],
                "volumeMounts": [{ "name": "work", "mountPath": "/work" }],
            }],
            "volumes": [{ "name": "work", "persistentVolumeClaim": { "claimName": CLAIM, "readOnly": read_only } }],
        },
    });
    kube_api::apply(&scene.client, &manifest.to_string()).await?;
    wait_for(&pods(scene), name, "it runs", LIMIT * 2, |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
        statuses.is_some_and(|all| all.iter().all(|c| c.ready))
    })
    .await
}

fn pods(scene: &Scene) -> Api<Pod> {
    Api::namespaced(scene.client.clone(), &scene.volume.namespace)
}

/// Ends a pod; `now`: without a word of its node.
async fn end(scene: &Scene, name: &str, now: bool) -> Result<()> {
    let params = if now { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
    pods(scene).delete(name, &params).await.context(format!("cannot delete {name}"))?;
    eventually(&format!("{name} is gone"), LIMIT, || async {
        match pods(scene).get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|p| p.and_then(|p| p.status)))),
        }
    })
    .await
}

/// Waits until a pod reads this.
async fn reads(scene: &Scene, pod: &str, file: &str, wanted: &str) -> Result<()> {
    eventually(&format!("{file} in the pod {pod}"), LIMIT, || async {
        match sh(scene, pod, &format!("cat {file}")) {
            Ok(text) if text.trim() == wanted => Ok(()),
            Ok(text) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

/// A claim that is bound, and the volume that was made for it.
async fn claim(scene: &mut Scene) -> Result<()> {
    let namespace = scene.volume.namespace.clone();
    for object in [
        json!({ "apiVersion": "nearbrick.io/v1alpha1", "kind": "HealPolicy",
            "metadata": { "name": "policy", "namespace": namespace }, "spec": { "interval": "5s" } }),
        json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": CLASS },
            "provisioner": "nearbrick.io", "reclaimPolicy": "Delete", "allowVolumeExpansion": true,
            "parameters": { "nodes": NODES.join(","), "replicas": "3", "healPolicy": "policy", "deletionPolicy": "Delete" } }),
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": CLAIM, "namespace": namespace },
            "spec": { "storageClassName": CLASS, "accessModes": ["ReadWriteMany"],
                "resources": { "requests": { "storage": "1Gi" } } } }),
    ] {
        kube_api::apply(&scene.client, &object.to_string()).await?;
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(scene.client.clone(), &namespace);
    let bound =
        |c: &PersistentVolumeClaim| c.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let bound = wait_for(&claims, CLAIM, "bound", LIMIT * 2, bound).await?;
    let name = bound.spec.and_then(|s| s.volume_name).context("a bound claim names its volume")?;
    scene.volume = Volume::new(&scene.client, &namespace, &name);
    let made = scene.volume.get().await?;
    let annotations = made.metadata.annotations.unwrap_or_default();
    if annotations.get("nearbrick.io/claim") != Some(&format!("{namespace}/{CLAIM}"))
        || made.spec.capacity.as_deref() != Some("1Gi")
    {
        fail!("the volume is not what was claimed: {annotations:?}, capacity {:?}", made.spec.capacity);
    }
    Ok(())
}

/// A pod that may go anywhere goes where the files of its claim are used; and elsewhere, if it cannot.
async fn goes_where_files_are_used(scene: &Scene) -> Result<()> {
    sh(scene, "two", "for i in $(seq 300); do echo $i > of-many-$((i % 10)); done")?;
    scene
        .volume
        .wait("used on ws-c", LIMIT * 2, |v| {
            v.status.as_ref().is_some_and(|s| s.used_on.first().is_some_and(|node| node == "ws-c"))
        })
        .await?;
    let node_of = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
    for name in ["anywhere", "anywhere-else"] {
        let wanted = if name == "anywhere" { "ws-c" } else { "" };
        if wanted.is_empty() {
            scene.lab.kubectl_output(&["cordon", "ws-c"])?;
        }
        let made = pod_among(scene, name, &json!({}), false).await;
        if wanted.is_empty() {
            scene.lab.kubectl_output(&["uncordon", "ws-c"])?;
        }
        let made = made?;
        let node = node_of(&made);
        let affinity = serde_json::to_value(made.spec.and_then(|s| s.affinity)).unwrap_or_default();
        let preferred = &affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
        let of = json!([{ "key": "metadata.name", "operator": "In", "values": ["ws-c"] }]);
        if preferred[0]["preference"]["matchFields"] != of || wanted.is_empty() == (node == "ws-c") {
            fail!("{name} went to {node}; its affinity: {affinity}");
        }
        end(scene, name, false).await?;
    }
    Ok(())
}

/// A claim asks for more room, with pods at work.
async fn grows(scene: &Scene) -> Result<()> {
    let more = r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#;
    let namespace = scene.volume.namespace.as_str();
    scene.lab.kubectl_output(&["patch", "pvc", CLAIM, "-n", namespace, "--type=merge", "-p", more])?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(scene.client.clone(), namespace);
    wait_for(&claims, CLAIM, "grown", LIMIT * 2, |c: &PersistentVolumeClaim| {
        let capacity = c.status.as_ref().and_then(|s| s.capacity.as_ref());
        capacity.and_then(|c| c.get("storage")).is_some_and(|q| q.0 == "2Gi")
    })
    .await?;
    match scene.volume.get().await?.spec.capacity.as_deref() {
        Some("2Gi") => Ok(()),
        other => fail!("the claim has grown, and its volume has a capacity of {other:?}"),
    }
}

pub async fn pods_share_a_claim_and_find_their_files_wherever_they_are(lab: Lab) -> Result<()> {
    install(&lab).await?;
    let mut scene = Scene::without_volume(&lab).await?;
    claim(&mut scene).await?;

    // Two pods on two nodes, and a person at a third: one tree.
    pod(&scene, "one", "ws-a", false).await?;
    pod(&scene, "two", "ws-c", false).await?;
    sh(&scene, "one", "echo one > of-one")?;
    reads(&scene, "two", "of-one", "one").await?;
    sh(&scene, "two", "echo two > of-two")?;
    reads(&scene, "one", "of-two", "two").await?;
    eventually("what pods wrote, at ws-b", LIMIT, || async {
        scene.sh(&scene.b, "cat of-one of-two").map(drop).map_err(|e| e.to_string())
    })
    .await?;
    // One that may only read.
    pod(&scene, "reader", "ws-b", true).await?;
    reads(&scene, "reader", "of-one", "one").await?;
    if sh(&scene, "reader", "echo no > of-one").is_ok() {
        fail!("a pod writes through a claim that is mounted for reading only");
    }
    end(&scene, "reader", false).await?;

    // One that moves.
    end(&scene, "one", false).await?;
    pod(&scene, "one", "ws-b", false).await?;
    reads(&scene, "one", "of-one", "one").await?;
    sh(&scene, "one", "echo moved > of-one")?;
    reads(&scene, "two", "of-one", "moved").await?;
    scene.volume.wait_healed(&NODES, LIMIT).await?;

    // A node is lost with its pod: another pod does not wait for it.
    scene.c.power_off(true)?;
    pod(&scene, "three", "ws-a", false).await?;
    reads(&scene, "three", "of-one", "moved").await?;
    reads(&scene, "three", "of-two", "two").await?;
    sh(&scene, "three", "echo three > of-two")?;
    reads(&scene, "one", "of-two", "three").await?;
    end(&scene, "two", true).await?;
    lab.start("ws-c")?;
    scene.volume.wait_ready(&NODES, LIMIT * 3).await?;
    pod(&scene, "two", "ws-c", false).await?;
    reads(&scene, "two", "of-two", "three").await?;

    goes_where_files_are_used(&scene).await?;
    grows(&scene).await?;

    // Pods leave no mounts; a claim leaves no volume, and no PersistentVolume.
    for name in ["one", "two", "three"] {
        end(&scene, name, false).await?;
    }
    for workstation in [&scene.a, &scene.b, &scene.c] {
        eventually("no mount for pods is left", LIMIT, || async {
            let count = "grep -c kubernetes.io~csi /proc/self/mountinfo || true";
            match workstation.sh(count) {
                Ok(text) if text.trim() == "0" => Ok(()),
                Ok(text) => Err(format!("{} on {}", text.trim(), workstation.seat.node)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(scene.client.clone(), &scene.volume.namespace);
    claims.delete(CLAIM, &DeleteParams::default()).await.context("cannot delete the claim")?;
    let volumes: Api<WorkstationVolume> = Api::namespaced(scene.client.clone(), &scene.volume.namespace);
    let provisioned: Api<PersistentVolume> = Api::all(scene.client.clone());
    eventually("the volume goes with its claim", LIMIT * 2, || async {
        let name = &scene.volume.name;
        match (volumes.get_opt(name).await, provisioned.get_opt(name).await) {
            (Ok(None), Ok(None)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    lab.kubectl_output(&["delete", "storageclass", CLASS])?;
    chart::install(&lab, &[])
}
