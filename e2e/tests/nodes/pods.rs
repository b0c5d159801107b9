//! Pods that use volumes beside the people at the workstations.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::{self, eventually, wait_for};
use nearbrick_e2e::nodes::image::SHELL;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result, fail};
use serde_json::json;

/// A pod with a shell on a node, with the scene's volume at /work; it has no rights but those.
pub async fn shell(scene: &Scene, name: &str, node: &str) -> Result<()> {
    let namespace = &scene.volume.namespace;
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "shell", "image": SHELL, "imagePullPolicy": "Never",
                "command": ["/busybox", "sleep", "100000"],
                "volumeMounts": [{ "name": "work", "mountPath": "/work", "mountPropagation": "HostToContainer" }],
            }],
            "volumes": [{ "name": "work", "hostPath": { "path": scene.volume.mount(), "type": "Directory" } }],
        },
    });
    kube_api::apply(&scene.client, &manifest.to_string()).await?;
    let api: Api<Pod> = Api::namespaced(scene.client.clone(), namespace);
    wait_for(&api, name, "it runs", LIMIT, |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
        statuses.is_some_and(|all| all.iter().all(|c| c.ready))
    })
    .await
    .map(drop)
}

/// Runs a script in the volume, in a pod.
pub fn sh(scene: &Scene, pod: &str, script: &str) -> Result<String> {
    let script = format!("cd /work && {script}");
    let namespace = &scene.volume.namespace;
    scene.lab.kubectl_output(&["exec", "-n", namespace, pod, "--", "/busybox", "sh", "-euc", &script])
}

pub async fn pods_and_people_share_a_volume_and_it_heals(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    let written = scene.write(&scene.a, "work", 8)?;
    shell(&scene, "one", "ws-a").await?;
    shell(&scene, "two", "ws-c").await?;
    sh(&scene, "one", "echo of a pod > of-one && test -s work/large").context("a pod on ws-a")?;
    scene.wait_settled().await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    scene.on_brick(&scene.b)?.below("./work/").must_be(&written, "the brick of ws-b")?;
    // A pod on a workstation that holds no copy reads all.
    scene.wait_same_listing(&scene.c, &scene.a, LIMIT).await?;
    let read = sh(&scene, "two", "cat of-one && sha256sum work/large")?;
    let large = written.get("./work/large").context("it was written")?;
    if !read.starts_with("of a pod\n") || !read.contains(large) {
        fail!("a pod on ws-c reads {read}");
    }
    // And what it writes is there for people elsewhere.
    sh(&scene, "two", "echo answer > work/answer")?;
    eventually("the answer on ws-a", LIMIT, || async {
        match scene.sh(&scene.a, "cat work/answer") {
            Ok(text) if text == "answer\n" => Ok(()),
            Ok(text) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}
