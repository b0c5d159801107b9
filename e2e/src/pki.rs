//! Keys and certificates of the lab: the cluster's CA, the agents' CA, and what they sign.

use std::net::IpAddr;
use std::path::Path;

use chrono::Datelike;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::error::{Context, Result};

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: String,
}

impl Pair {
    /// Writes `NAME.crt` and `NAME.key` (only for the owner's eyes).
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<()> {
        write_file(&dir.join(format!("{name}.crt")), &self.cert, 0o644)?;
        write_file(&dir.join(format!("{name}.key")), &self.key, 0o600)
    }
}

/// Writes a file with this mode, and makes the folder that it is in.
///
/// # Errors
/// It cannot be written.
pub fn write_file(path: &Path, content: &str, mode: u32) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
    }
    let mut options = std::fs::File::options();
    let file = options.create(true).write(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut f| f.write_all(content.as_bytes())).context(format!("cannot write {}", path.display()))
}

/// Whom a certificate is for.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    /// Common name: the user, for the API server.
    pub name: &'a str,
    /// Organisation: the group, for the API server.
    pub group: Option<&'a str>,
    /// DNS names.
    pub dns: &'a [&'a str],
    /// Addresses.
    pub addresses: &'a [IpAddr],
}

/// A certificate authority that lives as long as this value; only its certificate is written down.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = params(name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("cannot make a key")?;
        let cert = params.self_signed(&key).context(format!("cannot sign the CA {name}"))?.pem();
        Ok(Self { issuer: Issuer::new(params, key), cert })
    }

    /// Its certificate, as PEM.
    pub fn cert(&self) -> &str {
        &self.cert
    }

    /// A certificate for both ends of a connection.
    ///
    /// # Errors
    /// A name cannot stand in a certificate.
    pub fn sign(&self, subject: &Subject<'_>) -> Result<Pair> {
        let mut params = params(subject.name)?;
        if let Some(group) = subject.group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        for dns in subject.dns {
            let name = (*dns).try_into().context(format!("{dns} is no DNS name"))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(subject.addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().context("cannot make a key")?;
        let cert = params
            .signed_by(&key, &self.issuer)
            .context(format!("cannot sign a certificate for {}", subject.name))?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    }
}

/// A key pair without a certificate, for service account tokens: (public, private) as PEM.
///
/// # Errors
/// No key can be made.
pub fn token_keys() -> Result<(String, String)> {
    let key = KeyPair::generate().context("cannot make a key")?;
    Ok((key.public_key_pem(), key.serialize_pem()))
}

fn params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).context("cannot make a certificate")?;
    params.distinguished_name.push(DnType::CommonName, name);
    let year = chrono::Utc::now().year();
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + 10, 1, 1);
    Ok(params)
}

/// A request for a certificate with these DNS names, and the key for it; both PEM.
///
/// # Errors
/// A name cannot stand in a certificate.
pub fn signing_request(names: &[&str]) -> Result<(String, String)> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let params = CertificateParams::new(names).context("odd names for a certificate")?;
    let key = KeyPair::generate().context("cannot make a key")?;
    let request = params.serialize_request(&key).and_then(|r| r.pem()).context("cannot make a request")?;
    Ok((request, key.serialize_pem()))
}
