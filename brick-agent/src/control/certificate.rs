//! This agent's certificate, asked for and renewed: a key that never leaves this node, a signing request that the operator grants for the
//! node in the agent's token, and the certificates that are to be trusted. All of it is in the folder from which [`crate::peer::tls`] reads.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use nearbrick_crds::meta::{AGENT_CA, AGENT_CA_CERTIFICATE, SIGNER};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::one_line;
use crate::peer::tls::{CA, CERTIFICATE, KEY, Tls, certificates, validity};

/// What is asked for; the operator may give less.
const GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
/// Between two looks at what is to be trusted.
const LOOK: Duration = Duration::from_secs(60);
/// Between two renewals that this node's clock asks for, however far it is ahead.
const LEAST: Duration = Duration::from_secs(600);
/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Between two looks for the answer to a request.
const ANSWER: Duration = Duration::from_millis(500);
/// A request that is not answered after this time is given up, and made anew.
const UNANSWERED: Duration = Duration::from_secs(60);

/// The certificate of one node.
pub struct Certificate {
    client: Client,
    node: String,
    namespace: String,
    dir: PathBuf,
}

impl Certificate {
    /// Of this node; what to trust is said in `namespace`, and `dir` has the files.
    pub fn new(client: Client, node: &str, namespace: &str, dir: &Path) -> Self {
        Certificate { client, node: node.to_owned(), namespace: namespace.to_owned(), dir: dir.to_owned() }
    }

    /// Returns when there is one that can be used; asks until then, or until `stop`. One that is over counts as well: others refuse it until
    /// [`Certificate::keep`] has renewed it, and people here work on meanwhile.
    pub async fn wait(&self, stop: &CancellationToken) {
        let mut said = String::new();
        while Tls::load(&self.dir, &self.node).is_err() {
            match self.obtain().await {
                Ok(()) => tracing::info!("got a certificate"),
                Err(why) => {
                    if why != said {
                        tracing::warn!(
                            "no certificate yet, so volumes cannot be mounted: {why}; tries again"
                        );
                        said = why;
                    }
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(TRY_AGAIN) => {}
                    }
                }
            }
        }
    }

    /// Renews it in time, and when another authority signs, until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let mut other = false;
        let mut said = String::new();
        let mut renewed: Option<Instant> = None;
        loop {
            let result = async {
                other |= self.trust().await?;
                let long_ago = renewed.is_none_or(|at| at.elapsed() >= LEAST);
                if other || long_ago && is_due(&self.dir, SystemTime::now()) {
                    self.obtain().await?;
                    other = false;
                    renewed = Some(Instant::now());
                }
                Ok(())
            };
            let rest = match result.await {
                Ok(()) => {
                    said.clear();
                    LOOK.mul_f64(rand::random_range(0.5..1.0))
                }
                Err(why) => {
                    let why: String = why;
                    if why != said {
                        tracing::warn!("the certificate cannot be looked after: {why}; tries again");
                        said = why;
                    }
                    TRY_AGAIN.mul_f64(rand::random_range(1.0..3.0))
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Takes over what is to be trusted. Says whether another authority signs now.
    async fn trust(&self) -> Result<bool, String> {
        let now = self.trusted().await?;
        let path = self.dir.join(CA);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        if before == now {
            return Ok(false);
        }
        let other = first(&before) != first(&now);
        write(&path, &now, 0o644)?;
        Ok(other)
    }

    async fn trusted(&self) -> Result<String, String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = format!("ConfigMap {}/{AGENT_CA}", self.namespace);
        let map = maps.get(AGENT_CA).await.map_err(|e| format!("{what}: {}", one_line(&e.to_string())))?;
        let text = map.data.and_then(|mut d| d.remove(AGENT_CA_CERTIFICATE));
        text.filter(|t| !t.is_empty()).ok_or_else(|| format!("{what} has no {AGENT_CA_CERTIFICATE}"))
    }

    /// A new key, and a certificate for it.
    async fn obtain(&self) -> Result<(), String> {
        let odd = |e: rcgen::Error| format!("cannot make a request for node {}: {e}", self.node);
        let key = KeyPair::generate().map_err(odd)?;
        let params = CertificateParams::new([self.node.clone()]).map_err(odd)?;
        let request = params.serialize_request(&key).and_then(|r| r.pem()).map_err(odd)?;
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": { "generateName": format!("nearbrick-agent-{}-", self.node) },
            "spec": {
                "signerName": SIGNER, "request": ByteString(request.into_bytes()),
                "expirationSeconds": GOOD_FOR.as_secs(), "usages": ["digital signature", "client auth", "server auth"],
            },
        });
        let object: CertificateSigningRequest = serde_json::from_value(object).map_err(|e| e.to_string())?;
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let said = |e: kube::Error| format!("certificate request: {}", one_line(&e.to_string()));
        let made = api.create(&PostParams::default(), &object).await.map_err(said)?;
        let certificate = self.answer(&api, &made.name_any()).await?;
        let trusted = self.trusted().await?;
        std::fs::create_dir_all(&self.dir).map_err(|e| format!("{}: {e}", self.dir.display()))?;
        write(&self.dir.join(CA), &trusted, 0o644)?;
        // Between these two they do not fit together: who reads then goes on with what was read before.
        write(&self.dir.join(KEY), &key.serialize_pem(), 0o600)?;
        write(&self.dir.join(CERTIFICATE), &certificate, 0o644)
    }

    async fn answer(&self, api: &Api<CertificateSigningRequest>, name: &str) -> Result<String, String> {
        let begin = Instant::now();
        loop {
            let request = api.get(name).await.map_err(|e| one_line(&e.to_string()))?;
            let status = request.status.unwrap_or_default();
            if let Some(certificate) = status.certificate {
                return String::from_utf8(certificate.0)
                    .map_err(|_| format!("{name}: the certificate is no PEM"));
            }
            if let Some(no) = status.conditions.iter().flatten().find(|c| c.type_ != "Approved") {
                let why = no.message.clone().unwrap_or_default();
                return Err(format!("certificate request {name} was refused: {why}"));
            }
            if begin.elapsed() >= UNANSWERED {
                let limit = UNANSWERED.as_secs();
                return Err(format!(
                    "nobody has signed certificate request {name} within {limit} s: is the operator running?"
                ));
            }
            tokio::time::sleep(ANSWER).await;
        }
    }
}

/// The first certificate of several, as it stands there.
fn first(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END).next().unwrap_or_default().trim()
}

/// Whether two thirds of its time are over.
fn is_due(dir: &Path, now: SystemTime) -> bool {
    let Ok(chain) = certificates(&dir.join(CERTIFICATE)) else { return true };
    let Some((from, to)) = chain.first().and_then(validity) else { return true };
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    is_late(from, to, now)
}

fn is_late(from: i64, to: i64, now: i64) -> bool {
    now >= to.saturating_sub(to.saturating_sub(from) / 3)
}

/// Replaces a file as a whole.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let new = path.with_extension("new");
    let done = (|| {
        let mut file =
            std::fs::File::options().create(true).write(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    })();
    done.map_err(|e: std::io::Error| format!("cannot write {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_when_two_thirds_are_over() {
        assert!(!is_late(0, 300, 199));
        assert!(is_late(0, 300, 200));
        assert!(is_late(0, 300, 1000));
        assert!(is_due(Path::new("/nowhere"), SystemTime::now()), "there is none");
    }

    #[test]
    fn the_first_of_several_is_who_signs() {
        let pem = |n: usize| format!("-----BEGIN CERTIFICATE-----\n{n}\n-----END CERTIFICATE-----\n");
        assert_eq!(first(&(pem(1) + &pem(2))), pem(1).trim());
        assert_eq!(first(""), "");
    }
}
