//! Certificates of agents: an authority of the operator's own signs what [`crate::plan::certificate`] allows.
//!
//! The key is in a Secret of the operator's namespace, where nobody else may read it; the certificates that agents are to trust are in a
//! ConfigMap beside it, the present one first. Who deletes the Secret gets a new authority; agents trust the old one until it ends, and
//! ask for new certificates.

mod authority;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use nearbrick_crds::meta::{
    AGENT_CA as NAME, AGENT_CA_CERTIFICATE as CERTIFICATE, OPERATOR_MANAGER, SIGNER, now,
};
use serde_json::json;

use crate::context::{Context, News};
use crate::error::{Error, is_conflict};
use crate::plan::certificate::{Verdict, judge};
use crate::shutdown::Shutdown;
pub(crate) use authority::Authority;
use authority::Request;

const KEY: &str = "ca.key";
/// Between two looks at Secret and ConfigMap.
const LOOK: Duration = Duration::from_secs(30);
/// Certificates that agents are told to trust, at most: the present one, and those before it.
const MOST_TRUSTED: usize = 4;

/// What signing needs.
struct Signer {
    context: Arc<Context>,
    /// Where Secret and ConfigMap are.
    namespace: String,
    /// Who all agents are.
    agents: String,
}

/// Signs until the shutdown.
pub async fn run(context: Arc<Context>, namespace: String, shutdown: Shutdown) {
    let agents = format!("system:serviceaccount:{namespace}:nearbrick-agent");
    let signer = Arc::new(Signer { context, namespace, agents });
    let watched: Api<CertificateSigningRequest> = Api::all(signer.context.client.clone());
    let requests = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
    let signing = Controller::new(watched, requests)
        .graceful_shutdown_on(shutdown.clone().wait())
        .run(reconcile, rest, signer.clone())
        .for_each(|_| std::future::ready(()));
    let publishing = async {
        loop {
            if let Err(error) = signer.authority().await {
                tracing::warn!("certificates: {error}; tries again");
            }
            tokio::select! {
                () = shutdown.clone().wait() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    };
    tokio::join!(signing, publishing);
}

fn rest(request: Arc<CertificateSigningRequest>, error: &Error, signer: Arc<Signer>) -> Action {
    let rest = signer.context.backoff.failed(&format!("certificate/{}", request.name_any()), rand::random());
    tracing::warn!("certificates: {error}; tries again in {rest:.1?}");
    Action::requeue(rest)
}

async fn reconcile(request: Arc<CertificateSigningRequest>, signer: Arc<Signer>) -> Result<Action, Error> {
    let status = request.status.clone().unwrap_or_default();
    let has = |type_: &str| status.conditions.iter().flatten().any(|c| c.type_ == type_);
    if status.certificate.is_some() || has("Denied") || has("Failed") {
        return Ok(Action::await_change());
    }
    let parsed = Request::parse(&request.spec.request.0);
    let asked = parsed.as_ref().map(Request::asked);
    let extra: BTreeMap<String, Vec<String>> =
        request.spec.extra.clone().unwrap_or_default().into_iter().collect();
    let user = request.spec.username.clone().unwrap_or_default();
    let verdict = judge(&signer.agents, &user, &extra, asked.as_ref().map_err(|why| why.to_string()));
    let (node, parsed) = match (verdict, parsed) {
        (Verdict::Sign(node), Ok(parsed)) => (node, parsed),
        (Verdict::Deny(reason, line), _) => {
            signer.decide(&request, "Denied", reason, &line).await?;
            tracing::warn!("no certificate for {}: {line}", request.name_any());
            let news = News { warning: true, reason, action: "Sign", note: line, related: None };
            signer.context.tell(&request.object_ref(&()), news).await;
            return Ok(Action::await_change());
        }
        (Verdict::Sign(_), Err(_)) => return Ok(Action::await_change()),
    };
    let authority = signer.authority().await?;
    let asked_for = request.spec.expiration_seconds.map(|s| time::Duration::seconds(s.into()));
    let certificate = authority.sign(&parsed, &node, asked_for).map_err(|e| signer.odd(&e))?;
    if !has("Approved") {
        let line = format!("it is of the agent of node {node}");
        signer.decide(&request, "Approved", "NodeInToken", &line).await?;
    }
    let status = json!({ "status": { "certificate": ByteString(certificate.into_bytes()) } });
    let api: Api<CertificateSigningRequest> = Api::all(signer.context.client.clone());
    let name = request.name_any();
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .map_err(Error::api(format!("give the certificate of {name}")))?;
    tracing::info!("signed a certificate for node {node}");
    signer.context.backoff.succeeded(&format!("certificate/{name}"));
    Ok(Action::await_change())
}

impl Signer {
    fn client(&self) -> Client {
        self.context.client.clone()
    }

    fn odd(&self, why: &rcgen::Error) -> Error {
        odd(&self.namespace, why)
    }

    /// Says whether a request is granted.
    async fn decide(
        &self,
        request: &CertificateSigningRequest,
        type_: &str,
        reason: &str,
        line: &str,
    ) -> Result<(), Error> {
        let condition = CertificateSigningRequestCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(line.to_owned()),
            last_update_time: Some(now()),
            last_transition_time: None,
        };
        let name = request.name_any();
        let api: Api<CertificateSigningRequest> = Api::all(self.client());
        let patch = json!({ "status": { "conditions": [condition] } });
        api.patch_approval(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map(drop)
            .map_err(Error::api(format!("decide on the certificate request {name}")))
    }

    /// The authority that signs now, made if there is none; agents are told to trust it.
    async fn authority(&self) -> Result<Authority, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client(), &self.namespace);
        let what = format!("read Secret {}/{NAME}", self.namespace);
        let secret = match secrets.get_opt(NAME).await.map_err(Error::api(what.clone()))? {
            Some(secret) => secret,
            None => self.make(&secrets).await?,
        };
        let authority = in_secret(&secret, &self.namespace)?;
        self.publish(authority.certificate()).await?;
        Ok(authority)
    }

    async fn make(&self, secrets: &Api<Secret>) -> Result<Secret, Error> {
        let (certificate, key) = Authority::make().map_err(|e| self.odd(&e))?;
        let mut secret = Secret { type_: Some("Opaque".to_owned()), ..Secret::default() };
        secret.metadata.name = Some(NAME.to_owned());
        secret.string_data =
            Some(BTreeMap::from([(CERTIFICATE.to_owned(), certificate), (KEY.to_owned(), key)]));
        let what = format!("make Secret {}/{NAME}", self.namespace);
        match secrets.create(&PostParams::default(), &secret).await {
            Ok(made) => {
                tracing::info!("made an authority for the certificates of agents");
                Ok(made)
            }
            // Another operator made it.
            Err(error) if is_conflict(&error) => secrets.get(NAME).await.map_err(Error::api(what)),
            Err(error) => Err(Error::api(what)(error)),
        }
    }

    /// Has agents trust this authority, first, and those before it.
    async fn publish(&self, certificate: &str) -> Result<(), Error> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client(), &self.namespace);
        let what = format!("write ConfigMap {}/{NAME}", self.namespace);
        let known = maps.get_opt(NAME).await.map_err(Error::api(what.clone()))?;
        let before = known.and_then(|m| m.data?.remove(CERTIFICATE)).unwrap_or_default();
        let trusted = trusted(certificate, &before);
        if trusted == before {
            return Ok(());
        }
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": NAME }, "data": { CERTIFICATE: trusted },
        });
        let params = PatchParams::apply(OPERATOR_MANAGER).force();
        maps.patch(NAME, &params, &Patch::Apply(&map)).await.map(drop).map_err(Error::api(what))
    }
}

fn odd(namespace: &str, why: &rcgen::Error) -> Error {
    Error::Certificate(format!("Secret {namespace}/{NAME}: {why}; delete it, and a new authority is made"))
}

fn in_secret(secret: &Secret, namespace: &str) -> Result<Authority, Error> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|d| d.get(key));
        bytes.map(|b| String::from_utf8_lossy(&b.0).into_owned()).unwrap_or_default()
    };
    Authority::read(&text(CERTIFICATE), &text(KEY)).map_err(|e| odd(namespace, &e))
}

/// The authority that signs now, and all that agents are told to trust, as PEM; none while the operator that leads has not made and
/// published it.
///
/// # Errors
/// A request; what is there cannot be used.
pub(crate) async fn published(
    client: &Client,
    namespace: &str,
) -> Result<Option<(Authority, String)>, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let what = format!("read Secret {namespace}/{NAME}");
    let Some(secret) = secrets.get_opt(NAME).await.map_err(Error::api(what))? else { return Ok(None) };
    let authority = in_secret(&secret, namespace)?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let what = format!("read ConfigMap {namespace}/{NAME}");
    let map = maps.get_opt(NAME).await.map_err(Error::api(what))?;
    let trusted = map.and_then(|m| m.data?.remove(CERTIFICATE)).unwrap_or_default();
    // What it signs is of use only where it is trusted.
    let is_trusted = trusted.contains(authority.certificate().trim());
    Ok(is_trusted.then_some((authority, trusted)))
}

/// The certificates to trust, in PEM: this one first, then those of `before`, without a double, and not more than [`MOST_TRUSTED`].
fn trusted(certificate: &str, before: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let mut all = vec![certificate.trim()];
    for one in before.split_inclusive(END).map(str::trim).filter(|one| one.ends_with(END)) {
        if !all.contains(&one) && all.len() < MOST_TRUSTED {
            all.push(one);
        }
    }
    all.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_authority_comes_first_and_those_before_it_stay_trusted() {
        let pem = |n: usize| format!("-----BEGIN CERTIFICATE-----\n{n}\n-----END CERTIFICATE-----\n");
        let one = trusted(&pem(1), "");
        assert_eq!(one, pem(1));
        assert_eq!(trusted(&pem(1), &one), one, "nothing is new");
        let two = trusted(&pem(2), &one);
        assert_eq!(two, pem(2) + &pem(1));
        let many = (3..9).fold(two, |before, n| trusted(&pem(n), &before));
        assert_eq!(many, [8, 7, 6, 5].map(pem).concat());
    }
}
