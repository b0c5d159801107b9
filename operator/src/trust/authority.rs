//! The certificate authority of the agents: its key and certificate, and what it signs.

use nearbrick_crds::files::OPERATOR;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::plan::certificate::Asked;

/// How long an authority is good for.
const YEARS: i64 = 10;
/// A certificate is good from so long before it is made on, for clocks that are behind.
const BEFORE: Duration = Duration::hours(24);
/// The longest that a certificate is good for, and what it is where nothing is asked for.
pub const LONGEST: Duration = Duration::hours(24);
/// The shortest.
const SHORTEST: Duration = Duration::minutes(10);

/// An authority.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A request, as far as it can be used.
pub struct Request(CertificateSigningRequestParams);

impl Request {
    /// From PEM. Its signature shows that who made it has the key.
    ///
    /// # Errors
    /// It is no request, or not signed by its key.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(pem).map_err(|_| "it is no PEM".to_owned())?;
        CertificateSigningRequestParams::from_pem(text).map(Request).map_err(|e| e.to_string())
    }

    /// The names that are asked for.
    pub fn asked(&self) -> Asked {
        let names = &self.0.params.subject_alt_names;
        let dns: Vec<String> = names
            .iter()
            .filter_map(|name| match name {
                SanType::DnsName(name) => Some(name.as_str().to_owned()),
                _ => None,
            })
            .collect();
        Asked { others: names.len() - dns.len(), dns }
    }
}

impl Authority {
    /// A new one: its certificate and its key, as PEM.
    ///
    /// # Errors
    /// No key can be made.
    pub fn make() -> Result<(String, String), rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "nearbrick agents");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - BEFORE, now + Duration::days(365 * YEARS));
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// From what [`Authority::make`] made.
    ///
    /// # Errors
    /// One of the two cannot be read.
    pub fn read(certificate: &str, key: &str) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        Ok(Authority { certificate: certificate.to_owned(), issuer })
    }

    /// Its certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a node, as PEM: for the key of the request, and of the request nothing else.
    ///
    /// # Errors
    /// The node's name cannot stand in a certificate.
    pub fn sign(
        &self,
        request: &Request,
        node: &str,
        asked_for: Option<Duration>,
    ) -> Result<String, rcgen::Error> {
        let params = both_ends(node, node, asked_for.unwrap_or(LONGEST))?;
        Ok(params.signed_by(&request.0.public_key, &self.issuer)?.pem())
    }

    /// A certificate and a key for the operator itself, as PEM: the API server calls it `dns`, and agents know it by its URI.
    ///
    /// # Errors
    /// The name cannot stand in a certificate.
    pub fn sign_operator(&self, dns: &str) -> Result<(String, String), rcgen::Error> {
        let mut params = both_ends("nearbrick operator", dns, LONGEST)?;
        params.subject_alt_names.push(SanType::URI(OPERATOR.try_into()?));
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

/// What is in a certificate for both ends of a connection.
fn both_ends(name: &str, dns: &str, good_for: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([dns.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - BEFORE, now + good_for.clamp(SHORTEST, LONGEST));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn what_it_made_signs_and_takes_of_a_request_the_key_alone() {
        let (certificate, key) = Authority::make().unwrap();
        let authority = Authority::read(&certificate, &key).unwrap();
        let wanted = request(&["ws-b", "10.0.0.1"]);
        let request = Request::parse(wanted.as_bytes()).unwrap();
        assert_eq!(request.asked(), Asked { dns: vec!["ws-b".to_owned()], others: 1 });
        let signed = authority.sign(&request, "ws-a", Some(Duration::hours(48))).unwrap();
        let again = Issuer::from_ca_cert_pem(&signed, KeyPair::generate().unwrap());
        assert!(again.is_ok(), "it can be read: {signed}");
    }

    /// The names of a certificate.
    fn names(pem: &str) -> Vec<String> {
        use rustls_pki_types::pem::PemObject;
        use x509_parser::prelude::{FromDer, X509Certificate};
        let der = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        names.value.general_names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_node_gets_the_operators_name_whatever_it_asks_for() {
        let (certificate, key) = Authority::make().unwrap();
        let authority = Authority::read(&certificate, &key).unwrap();
        let mut params = CertificateParams::new(["ws-a".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(OPERATOR.try_into().unwrap()));
        let wanted = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let request = Request::parse(wanted.as_bytes()).unwrap();
        assert_eq!(request.asked(), Asked { dns: vec!["ws-a".to_owned()], others: 1 }, "it would be denied");
        let signed = authority.sign(&request, "ws-a", None).unwrap();
        assert_eq!(names(&signed), ["DNSName(ws-a)"]);
        let (own, _) = authority.sign_operator("files.lab.svc").unwrap();
        assert_eq!(names(&own), ["DNSName(files.lab.svc)", &format!("URI({OPERATOR})")]);
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        for bad in [
            &b"\xff\xfe"[..],
            b"",
            b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        ] {
            assert!(Request::parse(bad).is_err());
        }
        // One byte of it changed: then it is not signed by its key.
        let good = request(&["ws-a"]);
        let at = good.len() / 2;
        let other = if good.as_bytes()[at] == b'A' { 'B' } else { 'A' };
        let bad = format!("{}{other}{}", &good[..at], &good[at + 1..]);
        assert!(Request::parse(bad.as_bytes()).is_err());
    }
}
