//! A member's side of joining and renewing: makes the key, has it signed, keeps both.
//!
//! Invariant: nothing is said to a coordinator before it has been checked, against the mark when joining and against the
//! farm's authority from then on.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::transport::Channel;

use super::authority::{CertificateError, new_key, public_key};
use super::credentials::{Credentials, Kept, Trust, TrustError};
use super::identity::Identity;
use super::join_string::JoinString;
use super::tls;
use crate::ids::Name;
use crate::protocol::wire::{self, enrolment_client::EnrolmentClient};
use crate::runtime::backoff::Backoff;
use crate::runtime::channel;
use crate::runtime::tasks::Tasks;

/// Where coordinators listen when an address does not say.
const PORT_USUAL: u16 = 7420;
/// For an answer; signing takes milliseconds, a refusal a second.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// Why a machine has not joined, or not got another certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// The address is none.
    #[error("`{0}` is no address of a coordinator: give HOST or HOST:PORT")]
    Address(String),
    /// It cannot be reached, or is not that farm's coordinator.
    #[error("cannot reach the farm's coordinator at `{address}`")]
    Unreachable {
        /// Where.
        address: String,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// It does not answer.
    #[error("the coordinator at `{0}` does not answer")]
    Silent(String),
    /// It says no.
    #[error("the coordinator refuses: {}", .0.message())]
    Refused(Box<Status>),
    /// What it answered makes no sense.
    #[error("the coordinator's answer makes no sense: {0}")]
    Nonsense(String),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// No key can be made.
    #[error(transparent)]
    Key(#[from] CertificateError),
    /// What was got cannot be kept.
    #[error(transparent)]
    Keep(#[from] TrustError),
}

/// Takes HOST, HOST:PORT or a URL, and returns HOST:PORT.
fn host_and_port(text: &str) -> Result<String, EnrolmentError> {
    let bare = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let wrong = || EnrolmentError::Address(text.to_owned());
    let plain = |host: &str| !host.is_empty() && !host.contains(['/', '@', ' ', '?', '#']);
    let (host, port) = match bare.rsplit_once(':') {
        // A bare IPv6 address has colons, and no brackets.
        Some(_) if bare.matches(':').count() > 1 && !bare.starts_with('[') => (format!("[{bare}]"), PORT_USUAL),
        Some((host, port)) if !bare.ends_with(']') => (host.to_owned(), port.parse().map_err(|_| wrong())?),
        _ => (bare.to_owned(), PORT_USUAL),
    };
    if plain(&host) {
        Ok(format!("{host}:{port}"))
    } else {
        Err(wrong())
    }
}

/// Joins the farm at `address` under a name. What is returned is not kept yet.
pub async fn join(address: &str, string: &JoinString, name: &Name) -> Result<Credentials, EnrolmentError> {
    let place = host_and_port(address)?;
    let channel = joining_channel(&place, string).await?;
    let key = new_key()?;
    let request = wire::JoinRequest {
        secret: string.secret.to_vec(),
        name: name.to_string(),
        public_key: public_key(&key),
    };
    let mut client = EnrolmentClient::new(channel);
    let answer = tokio::time::timeout(ANSWER_WAIT, client.join(request)).await;
    let answer = answer.map_err(|_| EnrolmentError::Silent(place.clone()))?;
    let membership = answer
        .map_err(|status| EnrolmentError::Refused(Box::new(status)))?
        .into_inner();
    credentials(membership, format!("https://{place}"), key.serialize_pem())
}

/// Connects to a coordinator that is known by its authority's mark only.
async fn joining_channel(place: &str, string: &JoinString) -> Result<Channel, EnrolmentError> {
    let connector = TlsConnector::from(tls::joining(string.mark)?);
    let server = ServerName::try_from(Identity::coordinator().dns_name())
        .map_err(|error| EnrolmentError::Nonsense(error.to_string()))?;
    let target: Arc<str> = place.into();
    let connect = tower::service_fn(move |_| {
        let (connector, server, target) = (connector.clone(), server.clone(), target.clone());
        async move {
            let stream = TcpStream::connect(&*target).await?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(server, stream).await?))
        }
    });
    let unreachable = |source| EnrolmentError::Unreachable {
        address: place.to_owned(),
        source,
    };
    // The scheme is for the library's eyes: the connector brings TLS along.
    let endpoint = channel::endpoint(place).map_err(unreachable)?;
    endpoint.connect_with_connector(connect).await.map_err(unreachable)
}

/// Gets a new certificate for a new key, by the present one. What is returned is not kept yet.
async fn renew(trust: &Trust, present: &Credentials) -> Result<Credentials, EnrolmentError> {
    let place = &present.coordinator;
    let channel = trust
        .coordinator(place)
        .await
        .map_err(|source| EnrolmentError::Unreachable {
            address: place.clone(),
            source,
        })?;
    let key = new_key()?;
    let request = wire::RenewRequest {
        public_key: public_key(&key),
    };
    let mut client = EnrolmentClient::new(channel);
    let answer = tokio::time::timeout(ANSWER_WAIT, client.renew(request)).await;
    let answer = answer.map_err(|_| EnrolmentError::Silent(place.clone()))?;
    let membership = answer
        .map_err(|status| EnrolmentError::Refused(Box::new(status)))?
        .into_inner();
    credentials(membership, place.clone(), key.serialize_pem())
}

fn credentials(membership: wire::Membership, coordinator: String, key: String) -> Result<Credentials, EnrolmentError> {
    let nonsense = |error: &dyn std::fmt::Display| EnrolmentError::Nonsense(error.to_string());
    Ok(Credentials {
        identity: Identity {
            role: membership
                .role
                .parse()
                .map_err(|error: super::identity::RoleError| nonsense(&error))?,
            name: Name::new(&membership.name).map_err(|error| nonsense(&error))?,
        },
        coordinator,
        authority: membership.authority,
        certificate: membership.certificate,
        key,
        signed_unix_s: membership.signed_unix_s,
        expires_unix_s: membership.expires_unix_s,
    })
}

fn now_unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Returns once the certificate has been renewed, which is when two thirds of its time are over. Tries for ever.
pub async fn renewed(kept: &Arc<Kept>, tasks: &Tasks) {
    let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_secs(3600));
    loop {
        let present = kept.current();
        let due = kept.due_in(now_unix_s());
        if !due.is_zero() {
            // In pieces: a machine that slept, or whose clock was set, should not miss it by as much.
            tokio::time::sleep(due.clamp(Duration::from_millis(200), Duration::from_secs(3600))).await;
            continue;
        }
        match renew(&Trust::Farm(kept.clone()), &present).await {
            Ok(credentials) => {
                let keeping = kept.clone();
                match tasks.blocking(move || keeping.renew(credentials)).await {
                    Ok(()) => {
                        tracing::info!("the certificate is renewed");
                        return;
                    }
                    Err(error) => tracing::warn!(%error, "the new certificate cannot be kept"),
                }
            }
            Err(error) => tracing::warn!(%error, "the certificate is not renewed yet"),
        }
        tokio::time::sleep(pauses.next_delay(rand::random())).await;
    }
}

/// Keeps the certificate renewed until dropped.
pub async fn renew_regularly(kept: Arc<Kept>, tasks: Tasks) {
    loop {
        renewed(&kept, &tasks).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_usual_port() {
        for (text, expected) in [
            ("farm", "farm:7420"),
            ("farm:1", "farm:1"),
            ("https://farm:1/", "farm:1"),
            ("10.0.0.1", "10.0.0.1:7420"),
            ("fd00::1", "[fd00::1]:7420"),
            ("[fd00::1]", "[fd00::1]:7420"),
            ("[fd00::1]:99", "[fd00::1]:99"),
        ] {
            assert_eq!(host_and_port(text).unwrap(), expected, "{text}");
        }
        for text in ["", "http://farm", "a/b", ":7420", "farm:port", "farm:99999"] {
            assert!(host_and_port(text).is_err(), "{text}");
        }
    }
}
