//! The operator's certificate: for the API server its name is that of the Service, for agents it has a URI that no node's certificate can have
//! ([`OPERATOR`]): of a node's request the signer takes over nothing but the key.
//!
//! Its own authority signs it, anew for each process and each day; nothing of it is kept. Where somebody else gives out certificates, it is in
//! a folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::Client;
use nearbrick_crds::files::OPERATOR;
use rustls::crypto::{CryptoProvider, ring};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::trust;

/// Between two looks at what signs, and at what is to be trusted.
const LOOK: Duration = Duration::from_secs(30);
/// The same while there is no certificate.
const SOON: Duration = Duration::from_secs(2);

/// Where the certificate comes from.
pub enum Source {
    /// The operator's own authority, in its namespace.
    Authority {
        /// The way to it.
        client: Client,
        /// Where it is.
        namespace: String,
    },
    /// `ca.crt`, `tls.crt` and `tls.key`.
    Folder(PathBuf),
}

/// What is used now.
#[derive(Debug)]
pub struct Material {
    /// Certificates that are trusted, as PEM: the agents', and what the API server is to trust.
    pub trusted: String,
    /// Certificate and key.
    pub pair: Arc<SingleCertAndKey>,
    /// For connections to agents.
    pub client: Arc<ClientConfig>,
    /// Who signed it, or the certificate itself: tells whether it is to be made anew.
    made_of: String,
    /// From when to when it is good, in seconds since 1970.
    validity: (i64, i64),
}

/// The certificate, kept up to date.
pub struct Identity {
    source: Source,
    dns: String,
    current: watch::Sender<Option<Arc<Material>>>,
}

impl Identity {
    /// None yet. `dns` is how the API server calls this process.
    pub fn new(source: Source, dns: String) -> Self {
        Identity { source, dns, current: watch::Sender::new(None) }
    }

    /// As it is now, and as it changes.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Material>>> {
        self.current.subscribe()
    }

    /// As it is now.
    pub fn current(&self) -> Option<Arc<Material>> {
        self.current.borrow().clone()
    }

    /// Makes it, and makes it anew in time.
    pub async fn keep(&self) {
        let mut said = String::new();
        loop {
            match self.look().await {
                Ok(()) => said.clear(),
                Err(why) => {
                    if why != said {
                        tracing::warn!("the files API has no certificate: {why}; tries again");
                        said = why;
                    }
                }
            }
            tokio::time::sleep(if self.current().is_some() { LOOK } else { SOON }).await;
        }
    }

    async fn look(&self) -> Result<(), String> {
        let before = self.current();
        let made = match &self.source {
            Source::Authority { client, namespace } => {
                let found = trust::published(client, namespace).await.map_err(|e| e.to_string())?;
                let Some((authority, trusted)) = found else {
                    return Err("there is no authority yet: the operator that leads makes one".to_owned());
                };
                let fits =
                    |m: &Arc<Material>| m.made_of == authority.certificate() && !is_late(m.validity, now());
                if before.filter(fits).is_some_and(|m| m.trusted == trusted) {
                    return Ok(());
                }
                let (certificate, key) = authority.sign_operator(&self.dns).map_err(|e| e.to_string())?;
                let made_of = authority.certificate().to_owned();
                material(trusted, &certificate, &key, made_of)?
            }
            Source::Folder(dir) => {
                let read = |name: &str| {
                    let at = dir.join(name);
                    std::fs::read_to_string(&at).map_err(|e| format!("{}: {e}", at.display()))
                };
                let (trusted, certificate) = (read("ca.crt")?, read("tls.crt")?);
                if before.is_some_and(|m| m.made_of == certificate && m.trusted == trusted) {
                    return Ok(());
                }
                material(trusted, &certificate, &read("tls.key")?, certificate.clone())?
            }
        };
        self.current.send_replace(Some(Arc::new(made)));
        Ok(())
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Whether two thirds of its time are over.
fn is_late((from, to): (i64, i64), now: i64) -> bool {
    now >= to.saturating_sub(to.saturating_sub(from) / 3)
}

fn material(trusted: String, certificate: &str, key: &str, made_of: String) -> Result<Material, String> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for one in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        let one = one.map_err(|e| format!("what agents trust: {e}"))?;
        roots.add(one).map_err(|e| format!("what agents trust: {e}"))?;
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| format!("the operator's certificate: {e}"))?;
    let own = chain.first().ok_or("the operator's certificate: there is none in the file")?;
    let validity = checked(own)?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| format!("the operator's key: {e}"))?;
    let pair = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|e| format!("the operator's key and certificate do not fit together: {e}"))?;
    let pair = Arc::new(SingleCertAndKey::from(pair));
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_client_cert_resolver(pair.clone());
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Material { trusted, pair, client: Arc::new(client), made_of, validity })
}

/// Whether it is one by which agents know the operator; from when to when it is good.
fn checked(certificate: &CertificateDer<'_>) -> Result<(i64, i64), String> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| "the operator's certificate cannot be read".to_owned())?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let mut all = names.iter().flat_map(|san| &san.value.general_names);
    if !all.any(|name| matches!(name, GeneralName::URI(uri) if *uri == OPERATOR)) {
        return Err(format!("the operator's certificate has not the URI {OPERATOR} by which agents know it"));
    }
    let validity = parsed.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Authority;

    #[test]
    fn what_the_authority_signs_for_the_operator_can_be_used() {
        let (certificate, key) = Authority::make().unwrap();
        let authority = Authority::read(&certificate, &key).unwrap();
        let (own, own_key) = authority.sign_operator("files.lab.svc").unwrap();
        let made = material(certificate.clone(), &own, &own_key, String::new()).unwrap();
        assert!(!is_late(made.validity, now()));
        // The authority's own certificate is not the operator's.
        let error = material(certificate.clone(), &certificate, &key, String::new()).unwrap_err();
        assert!(error.contains(OPERATOR), "{error}");
        assert!(material(String::new(), "", "", String::new()).is_err());
    }
}
