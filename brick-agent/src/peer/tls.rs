//! Certificates: who this agent is, and which node the other side is, or whether it is the operator.
//!
//! The folder has `ca.crt`, `tls.crt` and `tls.key` (PEM). A certificate names
//! one node, in its only DNS subject alternative name. TLS 1.3 both ways;
//! no session is resumed, so each connection is checked anew. The files are
//! looked at before each handshake: a renewed certificate is used without a
//! restart, and a bad renewal leaves the old one in use, with one log line.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nearbrick_crds::files::OPERATOR;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The certificates of the CA, in the folder.
pub const CA: &str = "ca.crt";
/// This agent's certificate chain, in the folder.
pub const CERTIFICATE: &str = "tls.crt";
/// Its private key, in the folder.
pub const KEY: &str = "tls.key";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or cannot be read.
    #[error("{0}: {1}; --tls-dir needs {CA}, {CERTIFICATE} and {KEY}")]
    Read(PathBuf, String),
    /// A file has no PEM section of the right kind, or a damaged one.
    #[error("{0} has no usable {1} in PEM: {2}")]
    Pem(PathBuf, &'static str, String),
    /// Key and certificate do not belong together, or are of a kind that is not supported.
    #[error("{0}: the key and the certificate do not fit together: {1}")]
    Pair(PathBuf, String),
    /// The certificate names no node, or several.
    #[error("{0}: {1}")]
    Name(PathBuf, BadPeerName),
    /// The certificate names another node.
    #[error("{path} is the certificate of node {found:?}, but this agent is of node {wanted:?}")]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// The node that it names.
        found: String,
        /// This node.
        wanted: String,
    },
    /// TLS as such refuses.
    #[error("{0}: {1}")]
    Tls(PathBuf, String),
}

/// Why a certificate does not say which node it is of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPeerName {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It must have one DNS name.
    #[error("the certificate has {0} DNS names; it needs exactly one, the node's name")]
    Count(usize),
    /// Its DNS name is not a node's.
    #[error("the certificate's DNS name is not a node's name")]
    NotANode,
    /// It is the operator's.
    #[error("the certificate is the operator's, and no node's")]
    Operator,
}

/// Who asks, by a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The agent of this node.
    Node(String),
    /// The operator.
    Operator,
}

/// Whether `name` can be a node's name here: a DNS subdomain as Kubernetes has
/// it, and not an IP address.
pub fn is_node_name(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label) && name.parse::<IpAddr>().is_err()
}

/// Which node a certificate is of, and when it ends (seconds since 1970).
///
/// # Errors
/// The certificate does not name one node.
pub fn node_of(certificate: &CertificateDer<'_>) -> Result<(String, i64), BadPeerName> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| BadPeerName::Unreadable)?;
    let names = parsed.subject_alternative_name().map_err(|_| BadPeerName::Unreadable)?;
    let dns: Vec<&str> = names
        .iter()
        .flat_map(|san| &san.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some(*dns),
            _ => None,
        })
        .collect();
    if is_operators(&parsed) {
        return Err(BadPeerName::Operator);
    }
    match dns.as_slice() {
        [name] if is_node_name(name) => Ok(((*name).to_owned(), parsed.validity().not_after.timestamp())),
        [_] => Err(BadPeerName::NotANode),
        other => Err(BadPeerName::Count(other.len())),
    }
}

/// Whether it has the operator's URI. No node's certificate has one: whoever signs those says which names are in them.
fn is_operators(certificate: &X509Certificate<'_>) -> bool {
    let names = certificate.subject_alternative_name().ok().flatten();
    let mut all = names.iter().flat_map(|san| &san.value.general_names);
    all.any(|name| matches!(name, GeneralName::URI(uri) if *uri == OPERATOR))
}

/// Who a certificate is of, and when it ends (seconds since 1970).
///
/// # Errors
/// It is neither the operator's nor of one node.
pub fn who_of(certificate: &CertificateDer<'_>) -> Result<(Who, i64), BadPeerName> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| BadPeerName::Unreadable)?;
    match is_operators(&parsed) {
        true => Ok((Who::Operator, parsed.validity().not_after.timestamp())),
        false => node_of(certificate).map(|(node, ends)| (Who::Node(node), ends)),
    }
}

/// From when to when a certificate is good, in seconds since 1970; none if it cannot be read.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some((parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()))
}

/// One reading of the folder, ready for use.
#[derive(Debug)]
pub struct Material {
    /// Counts the readings: connections made with an older one are not used again.
    pub generation: u64,
    /// For connections that come in.
    pub server: Arc<ServerConfig>,
    /// For connections that go out.
    pub client: Arc<ClientConfig>,
    /// When the certificate begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

type Stamp = [Option<(SystemTime, u64)>; 3];

#[derive(Debug)]
struct State {
    stamp: Stamp,
    current: Arc<Material>,
}

/// The certificates of this agent, kept up to date.
#[derive(Debug)]
pub struct Tls {
    dir: PathBuf,
    node: String,
    state: Mutex<State>,
}

impl Tls {
    /// Reads the folder. `node` is this agent's node, and the certificate must say so.
    ///
    /// # Errors
    /// One clear line.
    pub fn load(dir: &Path, node: &str) -> Result<Arc<Self>, TlsError> {
        let stamp = stamp(dir);
        let current = Arc::new(read(dir, node, 1)?);
        warn_if_over(dir, &current);
        Ok(Arc::new(Tls {
            dir: dir.to_owned(),
            node: node.to_owned(),
            state: Mutex::new(State { stamp, current }),
        }))
    }

    /// This agent's node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What to use for the next handshake. Looks whether the files have changed.
    pub fn current(&self) -> Arc<Material> {
        let stamp = stamp(&self.dir);
        let mut state = self.state();
        if state.stamp != stamp {
            // Remembered even if it cannot be used: one log line per change.
            state.stamp = stamp;
            match read(&self.dir, &self.node, state.current.generation + 1) {
                Ok(material) => {
                    warn_if_over(&self.dir, &material);
                    tracing::info!(dir = %self.dir.display(), "certificates were renewed");
                    state.current = Arc::new(material);
                }
                Err(error) => tracing::warn!("{error}; the certificates read before stay in use"),
            }
        }
        state.current.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(dir: &Path) -> Stamp {
    [CA, CERTIFICATE, KEY].map(|name| {
        let meta = std::fs::metadata(dir.join(name)).ok()?;
        Some((meta.modified().ok()?, std::os::unix::fs::MetadataExt::ino(&meta)))
    })
}

fn warn_if_over(dir: &Path, material: &Material) {
    if material.not_after < SystemTime::now() {
        tracing::warn!(
            "{} has expired; peers will refuse this agent until it is renewed",
            dir.join(CERTIFICATE).display()
        );
    }
}

/// The certificates in a PEM file; at least one.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = std::fs::read(path).map_err(|e| TlsError::Read(path.to_owned(), e.to_string()))?;
    let bad = |why: String| TlsError::Pem(path.to_owned(), "certificate", why);
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, pem::Error>>()
        .map_err(|e| bad(e.to_string()))?;
    if found.is_empty() {
        return Err(bad("none was found".to_owned()));
    }
    Ok(found)
}

fn since_1970(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0))
}

fn read(dir: &Path, node: &str, generation: u64) -> Result<Material, TlsError> {
    let (ca_path, chain_path, key_path) = (dir.join(CA), dir.join(CERTIFICATE), dir.join(KEY));
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());

    let mut roots = RootCertStore::empty();
    for root in certificates(&ca_path)? {
        roots.add(root).map_err(|e| TlsError::Pem(ca_path.clone(), "CA certificate", e.to_string()))?;
    }
    let roots = Arc::new(roots);

    let chain = certificates(&chain_path)?;
    let own =
        chain.first().cloned().ok_or_else(|| TlsError::Name(chain_path.clone(), BadPeerName::Unreadable))?;
    let (found, not_after) = node_of(&own).map_err(|e| TlsError::Name(chain_path.clone(), e))?;
    if found != node {
        return Err(TlsError::OtherNode { path: chain_path, found, wanted: node.to_owned() });
    }
    let key_bytes = std::fs::read(&key_path).map_err(|e| TlsError::Read(key_path.clone(), e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&key_bytes)
        .map_err(|e| TlsError::Pem(key_path.clone(), "private key", e.to_string()))?;
    let pair = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|e| TlsError::Pair(chain_path.clone(), e.to_string()))?;
    let pair = Arc::new(SingleCertAndKey::from(pair));

    let tls = |e: &dyn std::fmt::Display| TlsError::Tls(dir.to_owned(), e.to_string());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|e| tls(&e))?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| tls(&e))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(pair.clone());
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| tls(&e))?
        .with_root_certificates(roots)
        .with_client_cert_resolver(pair);
    client.resumption = rustls::client::Resumption::disabled();
    let not_after = since_1970(not_after);
    let not_before = validity(&own).map_or(UNIX_EPOCH, |(from, _)| since_1970(from));
    Ok(Material { generation, server: Arc::new(server), client: Arc::new(client), not_before, not_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_may_be_called() {
        for good in ["ws-a", "node1.lab.example", "1", "a.1b"] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", "WS-A", "-a", "a-", "a..b", "*.lab", "10.0.0.1", "a/b", "é", &"a".repeat(64)] {
            assert!(!is_node_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_missing_folder_is_one_clear_line() {
        let error = Tls::load(Path::new("/nowhere"), "ws-a").unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/ca.crt: ") && error.contains("--tls-dir needs"), "{error}");
        assert!(!error.contains('\n'));
    }
}
