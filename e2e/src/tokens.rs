//! Tokens of agents, as a kubelet asks for them: bound to a pod, and by it to a node, whose name the API server then puts into what it knows
//! of the user.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::cluster::{AGENT, SYSTEM_NAMESPACE};
use crate::error::{Context, Result};

/// How long a lab's tokens are good for: nobody renews them.
const SECONDS: u32 = 365 * 24 * 3600;

/// A token of the agent on this node. If the lab's nodes have no kubelet, its pod is an object and no more.
///
/// # Errors
/// The API server refuses one of the two.
pub async fn for_node(client: &Client, node: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let running = ListParams::default()
        .labels(&format!("app.kubernetes.io/name={AGENT}"))
        .fields(&format!("spec.nodeName={node}"));
    let running = pods.list(&running).await.context("cannot look for the agent's pod")?.items;
    if let Some(pod) = running.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none()) {
        return bound_to(client, &pod).await;
    }
    let name = format!("{AGENT}-{node}");
    let pod: Pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "nodeName": node, "serviceAccountName": AGENT, "containers": [{ "name": "agent", "image": AGENT }],
        },
    }))
    .context("odd pod")?;
    let pod = match pods.get_opt(&name).await.context("cannot look for the agent's pod")? {
        Some(pod) => pod,
        None => pods.create(&PostParams::default(), &pod).await.context("cannot make the agent's pod")?,
    };
    bound_to(client, &pod).await
}

async fn bound_to(client: &Client, pod: &Pod) -> Result<String> {
    let name = pod.name_any();
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": [], "expirationSeconds": SECONDS,
            "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod.uid() },
        },
    });
    let path = format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/serviceaccounts/{AGENT}/token");
    let request = http::Request::post(path)
        .header("Content-Type", "application/json")
        .body(serde_json::to_vec(&request).context("odd request")?)
        .context("odd request")?;
    let what = format!("cannot get a token for the pod {name}");
    let answer: TokenRequest = client.request(request).await.context(&what)?;
    Ok(answer.status.context(what)?.token)
}
