//! The farm's authority and members on the coordinator's disk, and who is connected.
//!
//! Everything is in one directory, mode 0700; each change is written whole before it counts, under a lock that
//! `rdcc-coordinator token` takes as well. What was done, when and by whom goes to the audit log. Blocking: callers run it where that is allowed.
//! Invariant: a certificate that is not written down is not given out.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::members::{Member, Members, MembersError};
use crate::digest::Digest;
use crate::ids::Name;
use crate::trust::authority::{Authority, CertificateError, der_of, new_key, public_key};
use crate::trust::credentials::write_secret;
use crate::trust::identity::{Identity, Role};
use crate::trust::join_string::{JoinString, SECRET_BYTES};
use crate::trust::listening::{Guarded, Peer, Server};
use crate::trust::tls::{self, Strangers};

const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const MEMBERS: &str = "members.json";
/// Longest list of members that is read: some hundred bytes for each.
const MEMBERS_BYTES_MAX: u64 = 32 << 20;

/// What goes wrong with a farm.
#[derive(Debug, thiserror::Error)]
pub enum FarmError {
    /// There is one already.
    #[error("there is a farm in `{}` already; who removes its authority shuts every member out", .0.display())]
    Exists(PathBuf),
    /// The disk fails, or somebody has changed the files.
    #[error("cannot use `{}`", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Certificates cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// What was asked for is not allowed.
    #[error(transparent)]
    Members(#[from] MembersError),
}

/// A certificate that was signed, with what its owner keeps besides.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Whose it is.
    pub identity: Identity,
    /// The certificate, in PEM.
    pub certificate: String,
    /// The authority's, in PEM.
    pub authority: String,
    /// From when to when it is good, seconds since 1970.
    pub signed_unix_s: u64,
    /// See `signed_unix_s`.
    pub expires_unix_s: u64,
}

/// The farm.
#[derive(Debug)]
pub struct Farm {
    directory: PathBuf,
    audit: Arc<AuditLog>,
    authority: Authority,
    valid: Duration,
    members: Mutex<Members>,
    /// Ends the sessions of a member that is thrown out.
    sessions: Mutex<BTreeMap<Identity, CancellationToken>>,
}

fn file_error<'a>(path: &'a Path) -> impl FnOnce(io::Error) -> FarmError + 'a {
    |source| FarmError::File {
        path: path.to_owned(),
        source,
    }
}

/// Returns the present, in seconds since 1970.
pub fn now_unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn now() -> OffsetDateTime {
    i64::try_from(now_unix_s())
        .ok()
        .and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Where a farm is kept in a coordinator's state directory.
pub fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("farm")
}

impl Farm {
    /// Makes a farm: an authority, and no member.
    pub fn init(state_dir: &Path) -> Result<(), FarmError> {
        let directory = directory(state_dir);
        if directory.join(AUTHORITY).exists() {
            return Err(FarmError::Exists(directory));
        }
        let (authority, key) = Authority::new(now())?;
        // The certificate comes last: with it there is a farm.
        for (name, content) in [(AUTHORITY_KEY, key.as_str()), (AUTHORITY, authority.pem())] {
            write_secret(&directory, name, content.as_bytes()).map_err(file_error(&directory.join(name)))?;
        }
        Ok(())
    }

    /// Opens the farm in a state directory; `None` when none was made there. Certificates will be good for `valid`.
    pub fn open(state_dir: &Path, valid: Duration, audit: Arc<AuditLog>) -> Result<Option<Self>, FarmError> {
        let directory = directory(state_dir);
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(file_error(&path))
        };
        if !directory.join(AUTHORITY).exists() {
            return Ok(None);
        }
        let farm = Self {
            authority: Authority::load(&read(AUTHORITY)?, &read(AUTHORITY_KEY)?)?,
            directory,
            audit,
            valid,
            members: Mutex::default(),
            sessions: Mutex::default(),
        };
        *farm.members() = farm.read_members()?;
        Ok(Some(farm))
    }

    /// Makes the coordinator's own certificate, and the server's configuration with it.
    pub fn server_config(&self) -> Result<Arc<tokio_rustls::rustls::ServerConfig>, FarmError> {
        let key = new_key()?;
        let certificate = self
            .authority
            .sign(&Identity::coordinator(), &public_key(&key), now(), self.valid)?;
        Ok(tls::server(
            self.authority.pem(),
            &certificate,
            &key.serialize_pem(),
            Strangers::Heard,
        )?)
    }

    /// Replaces the coordinator's own certificate.
    pub fn renew_server(&self, server: &Server) -> Result<(), FarmError> {
        server.renew(self.server_config()?);
        Ok(())
    }

    /// Makes a way in, and returns the string that opens it.
    pub fn create_token(&self, role: Role, valid: Duration, uses: u32, by: &str) -> Result<JoinString, FarmError> {
        let secret: [u8; SECRET_BYTES] = rand::random();
        let now = now_unix_s();
        self.change(|members| members.add_token(&secret, role, now.saturating_add(valid.as_secs()), uses, by, now))?;
        self.audit.note(
            by,
            "token created",
            &format!("{role}, {uses} uses, {} s", valid.as_secs()),
        );
        Ok(JoinString {
            secret,
            mark: self.authority.mark(),
        })
    }

    /// Lets a machine in, and signs its certificate.
    pub fn join(&self, secret: &[u8], name: &Name, public_key: &[u8], from: &str) -> Result<Signed, FarmError> {
        let mut signed = None;
        self.change(|members| {
            let identity = members.admit(secret, name, now_unix_s())?;
            signed = Some(self.sign(members, identity, public_key)?);
            Ok::<_, FarmError>(())
        })
        .inspect_err(|error| self.audit.note(from, "join refused", &format!("{name}: {error}")))?;
        let signed = signed.ok_or(MembersError::Token)?;
        self.audit.note(from, "joined", &signed.identity.to_string());
        Ok(signed)
    }

    /// Signs a new certificate for a member.
    pub fn renew(&self, identity: &Identity, public_key: &[u8]) -> Result<Signed, FarmError> {
        let mut signed = None;
        self.change(|members| {
            signed = Some(self.sign(members, identity.clone(), public_key)?);
            Ok::<_, FarmError>(())
        })?;
        self.audit.note(&identity.to_string(), "certificate renewed", "");
        signed.ok_or_else(|| MembersError::Unknown(identity.name.clone()).into())
    }

    fn sign(&self, members: &mut Members, identity: Identity, public_key: &[u8]) -> Result<Signed, FarmError> {
        let certificate = self.authority.sign(&identity, public_key, now(), self.valid)?;
        let signed_unix_s = now_unix_s();
        let expires_unix_s = signed_unix_s.saturating_add(self.valid.as_secs());
        members.certify(&identity, Digest::of(&der_of(&certificate)?), expires_unix_s)?;
        Ok(Signed {
            identity,
            certificate,
            authority: self.authority.pem().to_owned(),
            signed_unix_s,
            expires_unix_s,
        })
    }

    /// Throws members out; their sessions end.
    pub fn revoke(&self, name: &Name, by: &str) -> Result<usize, FarmError> {
        let mut revoked = Vec::new();
        self.change(|members| {
            revoked = members.revoke(name)?;
            Ok::<_, MembersError>(())
        })?;
        for identity in &revoked {
            self.audit.note(by, "revoked", &identity.to_string());
            if let Some(sessions) = self.sessions().remove(identity) {
                sessions.cancel();
            }
        }
        Ok(revoked.len())
    }

    /// Lists the members.
    pub fn list(&self) -> Vec<(Identity, Member)> {
        self.members()
            .list()
            .map(|(identity, member)| (identity, member.clone()))
            .collect()
    }

    /// Says whether a peer is who it says it is still: its certificate is one that it was given and that was not revoked. Strangers are nobody.
    pub fn is_member(&self, peer: &Peer) -> bool {
        match (&peer.identity, &peer.certificate, peer.guarded) {
            (_, _, Guarded::ByAddress) | (None, _, _) => true,
            (Some(identity), Some(certificate), _) => self.members().knows(identity, certificate),
            (Some(_), None, _) => false,
        }
    }

    /// Returns what is cancelled when the peer is thrown out.
    pub fn until_revoked(&self, peer: &Peer) -> CancellationToken {
        match &peer.identity {
            Some(identity) => self.sessions().entry(identity.clone()).or_default().child_token(),
            None => CancellationToken::new(),
        }
    }

    /// Changes the list: reads it anew, since another process may have, and writes it before it counts.
    fn change<E: Into<FarmError>>(&self, change: impl FnOnce(&mut Members) -> Result<(), E>) -> Result<(), FarmError> {
        let path = self.directory.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock: File = lock.map_err(file_error(&path))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| file_error(&path)(error.into()))?;
        let mut changed = self.read_members()?;
        change(&mut changed).map_err(Into::into)?;
        let text = serde_json::to_vec_pretty(&changed).expect("plain fields can be written as JSON");
        write_secret(&self.directory, MEMBERS, &text).map_err(file_error(&self.directory.join(MEMBERS)))?;
        *self.members() = changed;
        Ok(())
    }

    fn read_members(&self) -> Result<Members, FarmError> {
        use std::io::Read;
        let path = self.directory.join(MEMBERS);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Members::default()),
            Err(error) => return Err(file_error(&path)(error)),
        };
        let mut text = Vec::new();
        file.take(MEMBERS_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(file_error(&path))?;
        serde_json::from_slice(&text)
            .map_err(|error| file_error(&path)(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        // Replaced as a whole.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<Identity, CancellationToken>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was done to the farm, a line of JSON each; only added to.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
}

#[derive(Serialize)]
struct AuditLine<'a> {
    unix_s: u64,
    who: &'a str,
    what: &'a str,
    about: &'a str,
}

impl AuditLog {
    /// Keeps it in a state directory.
    pub fn new(state_dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            path: state_dir.join("audit.log"),
        })
    }

    /// Adds a line. What cannot be written is logged instead: a full disk must not keep anybody from being thrown out.
    pub fn note(&self, who: &str, what: &str, about: &str) {
        tracing::info!(who, what, about, "audit");
        let line = AuditLine {
            unix_s: now_unix_s(),
            who,
            what,
            about,
        };
        let mut text = serde_json::to_vec(&line).expect("plain fields can be written as JSON");
        text.push(b'\n');
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(&self.path);
        if let Err(error) = file.and_then(|mut file| file.write_all(&text)) {
            tracing::error!(%error, path = %self.path.display(), "the audit log cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn farm(state: &Path) -> Farm {
        let audit = AuditLog::new(state);
        Farm::open(state, Duration::from_secs(3600), audit).unwrap().unwrap()
    }

    fn peer(signed: &Signed) -> Peer {
        Peer {
            address: None,
            identity: Some(signed.identity.clone()),
            certificate: Some(Digest::of(&der_of(&signed.certificate).unwrap())),
            guarded: Guarded::ByCertificates,
        }
    }

    #[test]
    fn members_join_are_known_after_a_restart_and_are_thrown_out() {
        let state = tempfile::tempdir().unwrap();
        let none = Farm::open(state.path(), Duration::from_secs(1), AuditLog::new(state.path())).unwrap();
        assert!(none.is_none());
        Farm::init(state.path()).unwrap();
        assert!(matches!(Farm::init(state.path()), Err(FarmError::Exists(_))));
        let first = farm(state.path());
        first.server_config().unwrap();
        // As `rdcc-coordinator token` does, in another process.
        let token = farm(state.path())
            .create_token(Role::Worker, Duration::from_secs(60), 1, "root")
            .unwrap();
        let key = new_key().unwrap();
        let name = Name::new("node1").unwrap();
        assert!(
            first.join(&token.secret, &name, b"no key", "x").is_err(),
            "and costs no use"
        );
        let signed = first.join(&token.secret, &name, &public_key(&key), "10.0.0.1").unwrap();
        assert!(
            first
                .join(
                    &token.secret,
                    &Name::new("node2").unwrap(),
                    &public_key(&key),
                    "10.0.0.1"
                )
                .is_err()
        );
        let again = farm(state.path());
        assert!(again.is_member(&peer(&signed)));
        let session = again.until_revoked(&peer(&signed));
        assert_eq!(again.revoke(&name, "boss").unwrap(), 1);
        assert!(session.is_cancelled() && !again.is_member(&peer(&signed)));
        assert!(again.renew(&signed.identity, &public_key(&key)).is_err());
        let log = std::fs::read_to_string(state.path().join("audit.log")).unwrap();
        for what in ["token created", "join refused", "joined", "revoked"] {
            assert!(log.contains(what), "{log}");
        }
        assert!(!log.contains(&token.to_string()));
    }
}
