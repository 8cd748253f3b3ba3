//! What a member of a farm keeps, and how it reaches others with it.
//!
//! One file, mode 0600, that appears by rename, so there is a whole membership or none. [`Trust`] is what connections are made with: the
//! address of the coordinator says which kind, `https` for a farm with certificates. Invariant: an `https` coordinator is never
//! spoken to without its certificate having been checked against the farm's authority.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::identity::{Identity, Role};
use crate::ids::Name;
use crate::runtime::channel;
use crate::runtime::clock::unix_ms;

/// The file's name within its directory.
const FILE: &str = "member.json";
/// A certificate is renewed when a third of its time is left.
const RENEWED_AT_PART: f64 = 2.0 / 3.0;
/// By so much the clocks of two machines differ without one of them being wrong, seconds.
const CLOCKS_DIFFER_S: u64 = 3600;

/// A membership.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who this is.
    pub identity: Identity,
    /// `https://HOST:PORT` of the coordinator that let it in.
    pub coordinator: String,
    /// The farm's authority, in PEM.
    pub authority: String,
    /// This member's certificate, in PEM.
    pub certificate: String,
    /// Its private key, in PEM.
    pub key: String,
    /// When the certificate was signed, and when it ends; seconds since 1970.
    pub signed_unix_s: u64,
    /// See `signed_unix_s`.
    pub expires_unix_s: u64,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.identity)
    }
}

/// The file, as it stands there.
#[derive(Serialize, Deserialize)]
struct Stored {
    role: String,
    name: String,
    coordinator: String,
    authority: String,
    certificate: String,
    key: String,
    signed_unix_s: u64,
    expires_unix_s: u64,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The coordinator wants certificates, and there are none here.
    #[error("`{coordinator}` is a farm's coordinator, and this machine has not joined the farm (no `{}`)", path.display())]
    NotJoined {
        /// The address.
        coordinator: String,
        /// What is missing.
        path: PathBuf,
    },
    /// They cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("`{}` is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Credentials {
    /// Reads what is kept in `directory`; `None` when nothing is. Blocks on the disk.
    pub fn load(directory: &Path) -> Result<Option<Self>, TrustError> {
        let path = directory.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TrustError::File { path, source }),
        };
        let damaged = |why: String| TrustError::Damaged {
            path: path.clone(),
            why,
        };
        let stored: Stored = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        Ok(Some(Self {
            identity: Identity {
                role: stored
                    .role
                    .parse()
                    .map_err(|error: super::identity::RoleError| damaged(error.to_string()))?,
                name: Name::new(&stored.name).map_err(|error| damaged(error.to_string()))?,
            },
            coordinator: stored.coordinator,
            authority: stored.authority,
            certificate: stored.certificate,
            key: stored.key,
            signed_unix_s: stored.signed_unix_s,
            expires_unix_s: stored.expires_unix_s,
        }))
    }

    /// Keeps them in `directory`, which is made, closed to others, when missing. Blocks on the disk.
    pub fn save(&self, directory: &Path) -> Result<(), TrustError> {
        let path = directory.join(FILE);
        let failed = |source| TrustError::File {
            path: path.clone(),
            source,
        };
        let stored = Stored {
            role: self.identity.role.to_string(),
            name: self.identity.name.to_string(),
            coordinator: self.coordinator.clone(),
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            signed_unix_s: self.signed_unix_s,
            expires_unix_s: self.expires_unix_s,
        };
        let text = serde_json::to_vec_pretty(&stored).expect("plain fields can be written as JSON");
        write_secret(directory, FILE, &text).map_err(failed)
    }

    /// Returns how long it is until a new certificate is wanted.
    ///
    /// One that this process got itself is as old as that is long ago; what the coordinator's clock said then may differ by
    /// any amount. Of one that was kept from before nobody knows the age when the clock is behind its signature, and a new
    /// one is wanted at once.
    fn due_in(&self, now_unix_s: u64, got: Option<Got>) -> Duration {
        let whole = self.expires_unix_s.saturating_sub(self.signed_unix_s);
        let good_for = Duration::from_secs((whole as f64 * RENEWED_AT_PART) as u64);
        let since_signed_s = now_unix_s.saturating_sub(self.signed_unix_s);
        let age = match got {
            // The wall clock counts while the machine sleeps, the other one goes on when somebody sets it. One that is set
            // forward by years is no reason either, when the signature is young.
            Some(got) => got.ago.max(Duration::from_secs(
                now_unix_s.saturating_sub(got.at_unix_s).min(since_signed_s),
            )),
            None if now_unix_s.saturating_add(CLOCKS_DIFFER_S) < self.signed_unix_s => good_for,
            None => Duration::from_secs(since_signed_s),
        };
        good_for.saturating_sub(age)
    }
}

/// When this process got a certificate.
#[derive(Debug, Clone, Copy)]
struct Got {
    /// By a clock that is never set.
    ago: Duration,
    /// By the one on the wall.
    at_unix_s: u64,
}

/// Writes a file that only its owner may read, mode 0600, in place of what was there; and its directory, mode 0700.
pub fn write_secret(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(directory.join(name)).map_err(|error| error.error)?;
    Ok(())
}

/// How connections are made. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Without certificates.
    Plain,
    /// With this member's.
    Farm(Arc<Kept>),
}

/// Credentials that may be renewed while they are in use.
#[derive(Debug)]
pub struct Kept {
    directory: PathBuf,
    present: RwLock<Present>,
}

#[derive(Debug, Clone)]
struct Present {
    credentials: Arc<Credentials>,
    /// When this process got them, by both clocks, if it did.
    got: Option<(Instant, u64)>,
}

impl Kept {
    /// Holds credentials that are kept in `directory`.
    pub fn new(directory: &Path, credentials: Credentials) -> Self {
        Self {
            directory: directory.to_owned(),
            present: RwLock::new(Present {
                credentials: Arc::new(credentials),
                got: None,
            }),
        }
    }

    /// Returns the present ones.
    pub fn current(&self) -> Arc<Credentials> {
        self.present().credentials
    }

    /// Returns how long it is until new ones are wanted.
    pub fn due_in(&self, now_unix_s: u64) -> Duration {
        let Present { credentials, got } = self.present();
        let got = got.map(|(at, at_unix_s)| Got {
            ago: at.elapsed(),
            at_unix_s,
        });
        credentials.due_in(now_unix_s, got)
    }

    fn present(&self) -> Present {
        self.present.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes new ones, and keeps them. Blocks on the disk.
    pub fn renew(&self, credentials: Credentials) -> Result<(), TrustError> {
        credentials.save(&self.directory)?;
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = Present {
            credentials: Arc::new(credentials),
            got: Some((Instant::now(), unix_ms() / 1000)),
        };
        Ok(())
    }
}

impl Trust {
    /// Finds out how the coordinator at `address` is to be spoken to, with what is kept in `directory`. Blocks on the disk.
    pub fn with(address: &str, directory: &Path) -> Result<Self, TrustError> {
        if !is_secure(address) {
            return Ok(Trust::Plain);
        }
        let credentials = Credentials::load(directory)?.ok_or_else(|| TrustError::NotJoined {
            coordinator: address.to_owned(),
            path: directory.join(FILE),
        })?;
        Ok(Trust::Farm(Arc::new(Kept::new(directory, credentials))))
    }

    /// Describes a peer, at `HOST:PORT` or with a scheme in front, that has to be `expected`. Does not connect yet.
    pub fn endpoint(&self, address: &str, expected: &Identity) -> Result<Endpoint, tonic::transport::Error> {
        let Trust::Farm(kept) = self else {
            return channel::endpoint(address);
        };
        let credentials = kept.current();
        let bare = address.split_once("://").map_or(address, |(_, bare)| bare);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&credentials.authority))
            .identity(tonic::transport::Identity::from_pem(
                &credentials.certificate,
                &credentials.key,
            ))
            .domain_name(expected.dns_name());
        channel::endpoint(&format!("https://{bare}"))?.tls_config(tls)
    }

    /// Connects to the coordinator.
    pub async fn coordinator(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        self.endpoint(address, &Identity::coordinator())?.connect().await
    }

    /// Connects to the worker `name`.
    pub async fn worker(&self, address: &str, name: &Name) -> Result<Channel, tonic::transport::Error> {
        let expected = Identity {
            role: Role::Worker,
            name: name.clone(),
        };
        self.endpoint(address, &expected)?.connect().await
    }
}

/// Says whether an address asks for certificates.
pub fn is_secure(address: &str) -> bool {
    address.starts_with("https://")
}

/// Where a member keeps its credentials within its state directory.
pub fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("trust")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn credentials() -> Credentials {
        Credentials {
            identity: Identity {
                role: Role::Client,
                name: Name::new("pc").unwrap(),
            },
            coordinator: "https://host:7420".to_owned(),
            authority: "a".to_owned(),
            certificate: "c".to_owned(),
            key: "k".to_owned(),
            signed_unix_s: 1000,
            expires_unix_s: 4000,
        }
    }

    #[test]
    fn membership_is_kept_closed_to_others_and_read_back() {
        let state = tempfile::tempdir().unwrap();
        let directory = directory(state.path());
        assert_eq!(Credentials::load(&directory).unwrap(), None);
        credentials().save(&directory).unwrap();
        assert_eq!(Credentials::load(&directory).unwrap(), Some(credentials()));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join(FILE))), (0o700, 0o600));
        std::fs::write(directory.join(FILE), "{}").unwrap();
        assert!(matches!(Credentials::load(&directory), Err(TrustError::Damaged { .. })));
    }

    #[test]
    fn renewed_when_a_third_is_left() {
        let kept = credentials();
        for (now, left) in [(1000, 2000), (900, 2000), (2999, 1), (3000, 0), (5000, 0)] {
            assert_eq!(kept.due_in(now, None), Duration::from_secs(left), "{now}");
        }
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_not_asked() {
        let kept = Credentials {
            signed_unix_s: 1_800_000_000,
            expires_unix_s: 1_800_003_000,
            ..credentials()
        };
        assert_eq!(kept.due_in(100, None), Duration::ZERO, "a board in 1970");
        let due_in = |now_unix_s, ago_s, at_unix_s| {
            let ago = Duration::from_secs(ago_s);
            kept.due_in(now_unix_s, Some(Got { ago, at_unix_s })).as_secs()
        };
        for (ago_s, left) in [(0, 2000), (1500, 500), (9000, 0)] {
            assert_eq!(due_in(100 + ago_s, ago_s, 100), left, "{ago_s}");
        }
        assert_eq!(due_in(1_800_001_000, 900, 100), 1000, "set right meanwhile");
    }

    #[test]
    fn clocks_that_jump_or_differ_renew_once_and_not_for_ever() {
        const DAY: u64 = 86_400;
        let kept = Credentials {
            signed_unix_s: 100 * DAY,
            expires_unix_s: 100 * DAY + 30 * 3600,
            ..credentials()
        };
        let good_for = 20 * 3600;
        for (what, now, ago_s, at, left) in [
            ("got a minute ago", 100 * DAY + 60, 60, 100 * DAY, good_for - 60),
            ("a day forward since", 101 * DAY + 60, 60, 100 * DAY, 0),
            ("a day back since", 99 * DAY + 60, 60, 100 * DAY, good_for - 60),
            (
                "got while a day ahead of the coordinator",
                101 * DAY + 60,
                60,
                101 * DAY,
                good_for - 60,
            ),
            ("and put right since", 100 * DAY + 60, 60, 101 * DAY, good_for - 60),
            ("got while a day behind it", 99 * DAY + 60, 60, 99 * DAY, good_for - 60),
            ("slept for a day", 101 * DAY, 60, 100 * DAY, 0),
        ] {
            let got = Got {
                ago: Duration::from_secs(ago_s),
                at_unix_s: at,
            };
            assert_eq!(kept.due_in(now, Some(got)), Duration::from_secs(left), "{what}");
        }
    }

    #[test]
    fn farm_is_not_spoken_to_without_joining_and_loopback_needs_nothing() {
        let state = tempfile::tempdir().unwrap();
        let missing = Trust::with("https://host:1", state.path());
        assert!(matches!(missing, Err(TrustError::NotJoined { .. })));
        assert!(matches!(
            Trust::with("http://127.0.0.1:1", state.path()),
            Ok(Trust::Plain)
        ));
    }
}
