//! A farm's authority: its key, and the certificates that it signs.
//!
//! ECDSA on P-256 throughout: every TLS library takes it, and a board signs in milliseconds. The authority signs public keys; it never
//! sees a member's private one. Invariant: what it signs names one identity, and is good for what that role does only.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use time::{Duration, OffsetDateTime};

use super::identity::{Identity, Role};
use super::join_string::Mark;

/// How long an authority is good for. A farm that lives longer has its members join anew.
const AUTHORITY_DAYS: i64 = 20 * 365;
/// From when certificates are good: from the beginning of time. A board whose clock has no battery starts in 1970, and on a
/// network of its own nobody corrects it. What has to end does so by the other date, and by revocation.
const GOOD_FROM: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
/// A public key as it travels: one uncompressed point of P-256.
pub const PUBLIC_KEY_BYTES: usize = 65;

/// What goes wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The library refuses.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// No key that can be signed.
    #[error("a public key of {PUBLIC_KEY_BYTES} bytes was expected")]
    PublicKey,
    /// Kept text that is no certificate.
    #[error("the farm's certificate is damaged")]
    Damaged,
}

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: Vec<u8>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

/// A public key that came from a member.
struct PublicKey([u8; PUBLIC_KEY_BYTES]);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn parameters(common_name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters
}

fn authority_parameters() -> CertificateParams {
    let mut parameters = parameters("rdcc farm");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    parameters
}

/// Makes a member's key pair. Its public half is [`public_key`].
pub fn new_key() -> Result<KeyPair, CertificateError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// Returns what the authority signs of a key pair.
pub fn public_key(key: &KeyPair) -> Vec<u8> {
    key.der_bytes().to_vec()
}

impl Authority {
    /// Makes a new authority. Returns its private key, in PEM, too.
    pub fn new(now: OffsetDateTime) -> Result<(Self, String), CertificateError> {
        let key = new_key()?;
        let secret = key.serialize_pem();
        let mut parameters = authority_parameters();
        parameters.not_before = GOOD_FROM;
        parameters.not_after = now + Duration::days(AUTHORITY_DAYS);
        let certificate = parameters.self_signed(&key)?;
        let authority = Self {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            issuer: Issuer::new(parameters, key),
        };
        Ok((authority, secret))
    }

    /// Takes up an authority from its certificate and its private key, both in PEM.
    pub fn load(certificate: &str, key: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::from_pem(key)?;
        Ok(Self {
            der: der_of(certificate)?,
            pem: certificate.to_owned(),
            issuer: Issuer::new(authority_parameters(), key),
        })
    }

    /// Returns its certificate, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns the mark that join strings carry.
    pub fn mark(&self) -> Mark {
        Mark::of(&self.der)
    }

    /// Signs a certificate that is good from now for `valid`, in PEM.
    pub fn sign(
        &self,
        identity: &Identity,
        public_key: &[u8],
        now: OffsetDateTime,
        valid: std::time::Duration,
    ) -> Result<String, CertificateError> {
        let key = PublicKey(public_key.try_into().map_err(|_| CertificateError::PublicKey)?);
        let mut parameters = parameters(&format!("rdcc {identity}"));
        let dns = identity.dns_name().try_into()?;
        parameters.subject_alt_names = vec![rcgen::SanType::DnsName(dns)];
        parameters.not_before = GOOD_FROM;
        parameters.not_after = now + valid;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = match identity.role {
            Role::Coordinator => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Role::Worker => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Client | Role::Admin => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        Ok(parameters.signed_by(&key, &self.issuer)?.pem())
    }
}

/// Returns the first certificate of a PEM text.
pub fn der_of(pem: &str) -> Result<Vec<u8>, CertificateError> {
    use rustls_pki_types::pem::PemObject;
    let certificate = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes());
    certificate
        .map(|der| der.to_vec())
        .map_err(|_| CertificateError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Name;

    #[test]
    fn authority_signs_what_it_can_take_up_again() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let (authority, secret) = Authority::new(now).unwrap();
        let again = Authority::load(authority.pem(), &secret).unwrap();
        assert_eq!(authority.mark(), again.mark());
        let identity = Identity {
            role: Role::Worker,
            name: Name::new("node+1").unwrap(),
        };
        let key = new_key().unwrap();
        let signed = again
            .sign(&identity, &public_key(&key), now, std::time::Duration::from_secs(3600))
            .unwrap();
        let der = rustls_pki_types::CertificateDer::from(der_of(&signed).unwrap());
        let certificate = webpki::EndEntityCert::try_from(&der).unwrap();
        let names: Vec<&str> = certificate.valid_dns_names().collect();
        assert_eq!(names, [identity.dns_name()]);
        let root = rustls_pki_types::CertificateDer::from(authority.der.clone());
        let anchor = webpki::anchor_from_trusted_cert(&root).unwrap();
        let good_at = |unix_s| {
            let at = rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(unix_s));
            let usage = webpki::KeyUsage::server_auth();
            let anchors = std::slice::from_ref(&anchor);
            certificate
                .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, anchors, &[], at, usage, None, None)
                .is_ok()
        };
        // A board that has just been switched on, and a clock that runs a little behind.
        assert!(good_at(60) && good_at(1_799_999_000) && good_at(1_800_003_000));
        assert!(!good_at(1_800_004_000));
        assert!(
            authority
                .sign(&identity, b"short", now, std::time::Duration::from_secs(1))
                .is_err()
        );
        assert!(matches!(der_of("no PEM"), Err(CertificateError::Damaged)));
    }
}
