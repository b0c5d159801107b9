//! What the driver's controller may do by the rights of the chart, whatever is asked of it.

use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use nearbrick_crds::{Brick, WorkstationVolume};
use nearbrick_e2e::kube_api;
use serde_json::{Value, json};

use crate::support::{self, Namespace};
use crate::world::{apply_rights, token};

fn volume(name: &str, annotations: Value) -> WorkstationVolume {
    serde_json::from_value(json!({
        "apiVersion": "nearbrick.io/v1alpha1", "kind": "WorkstationVolume",
        "metadata": { "name": name, "annotations": annotations },
        "spec": { "members": { "nodeSelector": {} }, "replicas": 1, "capacity": "1Gi" },
    }))
    .unwrap()
}

/// The line of a refusal.
fn refused<T: std::fmt::Debug>(result: kube::Result<T>) -> String {
    match result.unwrap_err() {
        kube::Error::Api(status) if status.code == 403 => status.message,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn it_may_change_only_what_was_made_for_claims() {
    let ns = Namespace::new("csi-rights").await;
    support::operator::service_account(&ns.client).await;
    apply_rights(&ns.client).await;
    let mut config = support::config().await;
    let token = token(&ns.client, "nearbrick-csi").await;
    config.auth_info = kube::config::AuthInfo { token: Some(token.into()), ..Default::default() };
    let client = Client::try_from(config).unwrap();
    let driver: Api<WorkstationVolume> = Api::namespaced(client.clone(), &ns.name);
    let people = ns.api::<WorkstationVolume>();
    let post = PostParams::default();
    people.create(&post, &volume("home", json!({}))).await.unwrap();

    // A policy acts some time after it was made.
    kube_api::eventually("the policy acts", support::LIMIT, || async {
        match driver.create(&PostParams { dry_run: true, ..post.clone() }, &volume("other", json!({}))).await
        {
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    let grow = |capacity: &str| Patch::Merge(json!({ "spec": { "capacity": capacity } }));
    let params = PatchParams::default();
    for line in [
        refused(driver.delete("home", &DeleteParams::default()).await),
        refused(driver.patch("home", &params, &grow("2Gi")).await),
        refused(
            driver
                .patch(
                    "home",
                    &params,
                    &Patch::Merge(
                        json!({ "metadata": { "annotations": { "nearbrick.io/csi-name": "home" } } }),
                    ),
                )
                .await,
        ),
    ] {
        assert!(line.contains("volume home was not made for a claim"), "{line}");
    }
    let bricks: Api<Brick> = Api::namespaced(client, &ns.name);
    refused(bricks.delete("home.a", &DeleteParams::default()).await);

    let made =
        driver.create(&post, &volume("pvc-1", json!({ "nearbrick.io/csi-name": "pvc-1" }))).await.unwrap();
    driver.patch(&made.name_any(), &params, &grow("2Gi")).await.unwrap();
    for change in [
        json!({ "spec": { "replicas": 2 } }),
        json!({ "spec": { "deletionPolicy": "Delete" } }),
        json!({ "metadata": { "annotations": { "nearbrick.io/csi-name": null } } }),
    ] {
        let line = refused(driver.patch("pvc-1", &params, &Patch::Merge(change)).await);
        assert!(line.contains("changes the capacity only"), "{line}");
    }
    assert_eq!(people.get("pvc-1").await.unwrap().spec.capacity.as_deref(), Some("2Gi"));
    driver.delete("pvc-1", &DeleteParams::default()).await.unwrap();
    people.delete("home", &DeleteParams::default()).await.unwrap();
}
