//! Who may pass requests on: the API server. It publishes the authority and the names of its certificate in a ConfigMap, and the headers in
//! which it says who asks.

use std::sync::Arc;

use futures::StreamExt;
use http::HeaderMap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Where the ConfigMap is.
const NAMESPACE: &str = "kube-system";
/// Its name.
const NAME: &str = "extension-apiserver-authentication";

/// What the API server says of itself.
#[derive(Clone, Debug)]
pub struct Front {
    /// Who signs the certificate with which it passes requests on.
    pub roots: Arc<RootCertStore>,
    /// The common names that this may have; empty: any.
    names: Vec<String>,
    /// The headers that name the user.
    users: Vec<String>,
}

impl Front {
    /// From the ConfigMap.
    ///
    /// # Errors
    /// One line: what is missing in it.
    pub fn read(map: &ConfigMap) -> Result<Self, String> {
        let value = |key: &str| map.data.as_ref().and_then(|data| data.get(key)).map(String::as_str);
        let lacks = |key: &str| format!("ConfigMap {NAMESPACE}/{NAME} has no usable {key}");
        const CA: &str = "requestheader-client-ca-file";
        let pem = value(CA).ok_or_else(|| {
            format!("{}: kube-apiserver runs without --{CA}, and can pass no requests on", lacks(CA))
        })?;
        let mut roots = RootCertStore::empty();
        for one in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let one = one.map_err(|e| format!("{}: {e}", lacks(CA)))?;
            roots.add(one).map_err(|e| format!("{}: {e}", lacks(CA)))?;
        }
        if roots.is_empty() {
            return Err(lacks(CA));
        }
        let list = |key: &str| -> Result<Vec<String>, String> {
            value(key).map_or(Ok(Vec::new()), |text| {
                serde_json::from_str(text).map_err(|e| format!("{}: {e}", lacks(key)))
            })
        };
        let mut users = list("requestheader-username-headers")?;
        if users.is_empty() {
            users.push("X-Remote-User".to_owned());
        }
        Ok(Front { roots: Arc::new(roots), names: list("requestheader-allowed-names")?, users })
    }

    /// Whether a certificate that its authority has signed is the API server's.
    pub fn allows(&self, certificate: &CertificateDer<'_>) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
        let mut names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.any(|name| self.names.iter().any(|allowed| allowed == name))
    }

    /// Who asks, as the API server says.
    pub fn user(&self, headers: &HeaderMap) -> Option<String> {
        let mut found = self.users.iter().filter_map(|name| headers.get(name.as_str())?.to_str().ok());
        found.find(|user| !user.is_empty()).map(str::to_owned)
    }
}

/// What the API server says of itself now; none: it cannot be read, and nobody may connect.
#[derive(Debug)]
pub struct Fronts(watch::Sender<Option<Front>>);

impl Default for Fronts {
    fn default() -> Self {
        Fronts(watch::Sender::new(None))
    }
}

impl Fronts {
    /// As it is now, and as it changes.
    pub fn subscribe(&self) -> watch::Receiver<Option<Front>> {
        self.0.subscribe()
    }

    /// Follows the ConfigMap.
    pub async fn keep(&self, client: Client) {
        let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        let mut events = Box::pin(watch_object(api, NAME).default_backoff());
        let mut said = String::new();
        while let Some(event) = events.next().await {
            let read = match event {
                Ok(Some(map)) => Front::read(&map),
                Ok(None) => Err(format!("there is no ConfigMap {NAMESPACE}/{NAME}")),
                // What was read before stays: the API server is away, and then nobody asks anyhow.
                Err(error) => {
                    tracing::debug!("ConfigMap {NAMESPACE}/{NAME}: {error}");
                    continue;
                }
            };
            match read {
                Ok(front) => {
                    said.clear();
                    self.0.send_replace(Some(front));
                }
                Err(why) => {
                    if why != said {
                        tracing::warn!("the files API is closed: {why}");
                        said = why;
                    }
                    self.0.send_replace(None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn map(data: &[(&str, &str)]) -> ConfigMap {
        let data: BTreeMap<String, String> =
            data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    fn authority() -> (String, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (pem, Issuer::new(params, key))
    }

    fn certificate(issuer: &Issuer<'static, KeyPair>, name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
    }

    #[test]
    fn only_the_names_that_are_allowed_may_pass_requests_on() {
        let (ca, issuer) = authority();
        let of = |names: &str| {
            let all = [("requestheader-client-ca-file", ca.as_str()), ("requestheader-allowed-names", names)];
            Front::read(&map(&all)).unwrap()
        };
        let (proxy, other) = (certificate(&issuer, "front-proxy-client"), certificate(&issuer, "ws-a"));
        let front = of(r#"["front-proxy-client"]"#);
        assert!(front.allows(&proxy) && !front.allows(&other));
        // As Kubernetes has it: no name means any that the authority has signed.
        assert!(of("[]").allows(&other));
        assert!(!front.allows(&CertificateDer::from(vec![1, 2, 3])));
    }

    #[test]
    fn without_an_authority_nobody_may() {
        let (ca, _) = authority();
        for (data, part) in [
            (map(&[]), "requestheader-client-ca-file"),
            (map(&[("requestheader-client-ca-file", "")]), "requestheader-client-ca-file"),
            (
                map(&[("requestheader-client-ca-file", &ca), ("requestheader-allowed-names", "a, b")]),
                "requestheader-allowed-names",
            ),
        ] {
            let line = Front::read(&data).unwrap_err();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn the_user_is_in_the_headers_that_the_api_server_names() {
        let (ca, _) = authority();
        let front = Front::read(&map(&[
            ("requestheader-client-ca-file", &ca),
            ("requestheader-username-headers", r#"["X-Who"]"#),
        ]));
        let front = front.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", "eve".parse().unwrap());
        assert_eq!(front.user(&headers), None);
        headers.insert("x-who", "ann".parse().unwrap());
        assert_eq!(front.user(&headers).as_deref(), Some("ann"));
    }
}
