//! Two operators, of which one leads.

use nearbrick_e2e::cluster::SYSTEM_NAMESPACE;
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result, fail};

fn get(lab: &Lab, kind: &str, path: &str) -> Result<String> {
    let path = format!("jsonpath={path}");
    lab.kubectl_output(&["get", kind, "-n", SYSTEM_NAMESPACE, "nearbrick-operator", "-o", &path])
}

fn leader(lab: &Lab) -> Result<String> {
    get(lab, "lease", "{.spec.holderIdentity}")
}

pub async fn another_one_takes_over(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    let before = leader(&lab)?;
    let ready = get(&lab, "deployment", "{.status.readyReplicas}")?;
    if ready != "2" || before.is_empty() {
        fail!("{ready} operators are ready, and {before:?} leads");
    }
    // Without a word to anybody.
    let kill = ["delete", "pod", "-n", SYSTEM_NAMESPACE, &before, "--grace-period=0", "--force"];
    lab.kubectl_output(&kill).context("cannot kill the leader")?;
    eventually("another leader", LIMIT, || async {
        let now = leader(&lab).map_err(|e| e.to_string())?;
        if now.is_empty() || now == before { Err(format!("{now:?} leads")) } else { Ok(()) }
    })
    .await?;
    let written = scene.write(&scene.b, "after", 1)?;
    scene.wait_settled_at(&scene.b).await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    scene.on_brick(&scene.a)?.must_be(&written, "the brick of ws-a")
}
