//! Who may connect to a listener, and who has connected.
//!
//! A listener is guarded in one of three ways: it can be reached from this machine only; every peer has to have a
//! certificate of the farm; or, where the user insists, peers come from networks on a list. A peer that is slow to say who
//! it is holds nobody up. Invariant: a connection that comes out of here has passed its guard.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::identity::Identity;
use super::tls::identity_of;
use crate::digest::Digest;
use crate::runtime::channel::ListenError;
use crate::runtime::tasks::Tasks;

/// For a peer to show its certificate. A board needs some milliseconds, a lossy link a second or two.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// Peers that may be in the middle of that.
const HANDSHAKES_MAX: usize = 256;
/// Connections that wait for the server to take them.
const WAITING_MAX: usize = 16;
/// Pause after the system refused a connection: descriptors have run out, mostly.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// How a listener is guarded.
#[derive(Debug, Clone)]
pub enum Guard {
    /// By its address: only this machine reaches it.
    Loopback,
    /// By certificates.
    Farm(Arc<Server>),
    /// By a list of networks, and nothing else.
    Networks(Arc<[IpNet]>),
}

/// A server's certificate, which may be renewed.
#[derive(Debug)]
pub struct Server {
    config: RwLock<Arc<ServerConfig>>,
}

/// Puts together what a command line and a file say of peers without certificates: the networks that they may come from, if
/// any. The switch and the list go together.
///
/// # Errors
/// The option that is missing beside the other.
pub fn insecure_lan(
    given: (bool, Vec<IpNet>),
    file: (Option<bool>, Option<Vec<IpNet>>),
) -> Result<Option<Vec<IpNet>>, &'static str> {
    let insecure = given.0 || file.0.unwrap_or(false);
    let allow = Some(given.1).filter(|allow| !allow.is_empty());
    let allow = allow.or(file.1).unwrap_or_default();
    match (insecure, allow.is_empty()) {
        (true, true) => Err("--allow"),
        (false, false) => Err("--insecure-lan"),
        (true, false) => Ok(Some(allow)),
        (false, true) => Ok(None),
    }
}

impl Server {
    /// Begins with a configuration.
    pub fn new(config: Arc<ServerConfig>) -> Arc<Self> {
        Arc::new(Self {
            config: RwLock::new(config),
        })
    }

    /// Replaces it, for those who connect from now on.
    pub fn renew(&self, config: Arc<ServerConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn config(&self) -> Arc<ServerConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Who is at the other end of a connection; handlers find it among a request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it comes from.
    pub address: Option<SocketAddr>,
    /// Who it proved to be; nobody where no certificates are asked for, and for who wants to join.
    pub identity: Option<Identity>,
    /// Digest of the certificate that it proved it by.
    pub certificate: Option<Digest>,
    /// Whether members have certificates here.
    pub guarded: Guarded,
}

/// Whether a connection came through a guard that asks for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// It did: who has none is a stranger.
    ByCertificates,
    /// It did not: everybody who gets here is trusted.
    ByAddress,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.identity, self.address) {
            (Some(identity), _) => identity.fmt(f),
            (None, Some(address)) => address.fmt(f),
            (None, None) => f.write_str("somebody"),
        }
    }
}

/// Takes the text of an address to listen on, if its guard will do for it.
pub fn address(text: &str, guard: &Guard) -> Result<SocketAddr, ListenError> {
    let address: SocketAddr = text.parse().map_err(|_| ListenError::Malformed(text.to_owned()))?;
    match guard {
        Guard::Loopback if !address.ip().to_canonical().is_loopback() => Err(ListenError::NotLoopback(address)),
        _ => Ok(address),
    }
}

fn is_allowed(guard: &Guard, from: IpAddr) -> bool {
    let from = from.to_canonical();
    match guard {
        Guard::Loopback | Guard::Farm(_) => true,
        Guard::Networks(networks) => from.is_loopback() || networks.iter().any(|network| network.contains(&from)),
    }
}

/// A connection that has passed its guard.
#[derive(Debug)]
pub struct Connection {
    stream: Wire,
    peer: Peer,
}

#[derive(Debug)]
enum Wire {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Wire::Secure(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Secure(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Secure(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Secure(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Wire::Secure(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Secure(stream) => stream.is_write_vectored(),
        }
    }
}

/// Takes connections off a listener, as one of `tasks`, until they are cancelled.
pub fn incoming(listener: TcpListener, guard: Guard, tasks: &Tasks) -> ReceiverStream<io::Result<Connection>> {
    let (passed, connections) = mpsc::channel(WAITING_MAX);
    let spawning = tasks.clone();
    tasks.spawn_until_cancelled(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not taken");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    continue;
                }
            };
            if !is_allowed(&guard, from.ip()) {
                tracing::warn!(%from, "refused: not from an allowed network");
                continue;
            }
            // One that cannot be sent at once is sent all the same.
            let _ = stream.set_nodelay(true);
            let Ok(turn) = handshakes.clone().acquire_owned().await else {
                return;
            };
            let (guard, passed) = (guard.clone(), passed.clone());
            spawning.spawn_until_cancelled(async move {
                if let Some(connection) = pass(stream, from, &guard).await {
                    // Nobody takes it when the server is about to end.
                    let _ = passed.send(Ok(connection)).await;
                }
                drop(turn);
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn pass(stream: TcpStream, from: SocketAddr, guard: &Guard) -> Option<Connection> {
    let mut peer = Peer {
        address: Some(from),
        identity: None,
        certificate: None,
        guarded: Guarded::ByAddress,
    };
    let Guard::Farm(server) = guard else {
        return Some(Connection {
            stream: Wire::Plain(stream),
            peer,
        });
    };
    let accept = TlsAcceptor::from(server.config()).accept(stream);
    match tokio::time::timeout(HANDSHAKE_WAIT, accept).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            peer.identity = identity_of(chain);
            peer.certificate = chain
                .and_then(|chain| chain.first())
                .map(|certificate| Digest::of(certificate));
            peer.guarded = Guarded::ByCertificates;
            Some(Connection {
                stream: Wire::Secure(Box::new(stream)),
                peer,
            })
        }
        Ok(Err(error)) => {
            tracing::warn!(%from, %error, "refused: no certificate of this farm");
            None
        }
        Err(_) => {
            tracing::warn!(%from, "refused: nothing was said in time");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_may_be_listened_on_without_a_guard() {
        let networks = Guard::Networks(Arc::from(["10.1.0.0/16".parse().unwrap()]));
        for text in ["127.0.0.1:1", "127.3.2.1:0", "[::1]:7", "[::ffff:127.0.0.1]:7"] {
            assert!(address(text, &Guard::Loopback).is_ok(), "{text}");
        }
        for text in ["0.0.0.0:1", "192.168.0.1:1", "[::]:7"] {
            let error = address(text, &Guard::Loopback).expect_err(text);
            assert!(matches!(error, ListenError::NotLoopback(_)), "{error}");
            assert!(address(text, &networks).is_ok());
        }
        assert!(address("localhost", &Guard::Loopback).is_err());
    }

    #[test]
    fn networks_on_the_list_and_this_machine_may_connect() {
        let list: Vec<IpNet> = vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let guard = Guard::Networks(list.into());
        let allowed = |text: &str| is_allowed(&guard, text.parse().unwrap());
        for text in ["10.1.2.3", "::ffff:10.1.9.9", "fd12::1", "127.0.0.1", "::1"] {
            assert!(allowed(text), "{text}");
        }
        for text in ["10.2.0.1", "192.168.0.1", "fe80::1", "::ffff:10.2.0.1"] {
            assert!(!allowed(text), "{text}");
        }
    }
}
