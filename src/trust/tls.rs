//! TLS as farms use it: version 1.3, the farm's own authority and no other, both sides with certificates.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use super::identity::Identity;
use super::join_string::Mark;

/// Certificates that a peer may send: its own and the authority's.
const CHAIN_MAX: usize = 4;

/// Whether peers without a certificate may connect, to join; what they may call is decided elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    /// They may.
    Heard,
    /// They may not.
    Refused,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn damaged(what: &str) -> Error {
    Error::General(format!("{what} cannot be read"))
}

fn roots(authority: &str) -> Result<(Arc<RootCertStore>, CertificateDer<'static>), Error> {
    let authority =
        CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|_| damaged("the farm's certificate"))?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok((Arc::new(roots), authority))
}

/// Makes a server's configuration out of PEM texts. The authority's certificate goes along, for those who join.
pub fn server(authority: &str, certificate: &str, key: &str, strangers: Strangers) -> Result<Arc<ServerConfig>, Error> {
    let (roots, authority) = roots(authority)?;
    let own = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| damaged("the certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| damaged("the key"))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let verifier = match strangers {
        Strangers::Heard => verifier.allow_unauthenticated(),
        Strangers::Refused => verifier,
    };
    let verifier = verifier.build().map_err(|error| Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own, authority], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Reads who a verified peer is; `None` for a stranger, and for a certificate that names nobody of a farm.
pub fn identity_of(chain: Option<&[CertificateDer<'_>]>) -> Option<Identity> {
    let certificate = webpki::EndEntityCert::try_from(chain?.first()?).ok()?;
    let mut names = certificate.valid_dns_names();
    match (names.next(), names.next()) {
        (Some(name), None) => Identity::from_dns_name(name),
        _ => None,
    }
}

/// Makes the configuration of a machine that joins: it knows nothing of the farm but the mark.
pub fn joining(mark: Mark) -> Result<Arc<ClientConfig>, Error> {
    let verifier = MarkVerifier {
        mark,
        provider: provider(),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Takes a coordinator whose certificate is signed by the authority with the mark, and no other server.
#[derive(Debug)]
struct MarkVerifier {
    mark: Mark,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for MarkVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .take(CHAIN_MAX)
            .find(|authority| Mark::of(authority) == self.mark);
        let authority = authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone());
        let verifier = verifier.build().map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
