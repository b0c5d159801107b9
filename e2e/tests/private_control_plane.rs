//! The private control plane itself: it answers, it serves our kinds, and it goes.

use std::path::Path;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use nearbrick_e2e::{ControlPlane, kube_api};

#[tokio::test]
async fn it_answers_serves_our_kinds_and_goes() {
    let plane = ControlPlane::start_private().await.expect("it starts");
    let client = plane.client().await.expect("a client");
    kube_api::install_crds(&client).await.expect("our definitions are served");
    let namespace = plane.namespace(&client, "try").await.expect("a namespace");
    assert!(namespace.starts_with("try-"));
    Api::<Namespace>::all(client).get(&namespace).await.expect("it is there");
    let kubeconfig = plane.kubeconfig();
    drop(plane);
    assert!(!kubeconfig.parent().is_some_and(Path::exists), "the directory is gone");
}

#[tokio::test]
async fn a_process_has_one_to_share() {
    let (one, other) = tokio::join!(ControlPlane::shared(), ControlPlane::shared());
    let (one, other) = (one.expect("it starts"), other.expect("it starts"));
    assert_eq!(one.kubeconfig(), other.kubeconfig());
}
