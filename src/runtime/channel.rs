//! Connections: what may be listened on, and how a peer is reached.
//!
//! Who may connect is decided in `trust`: without certificates rdcc listens on loopback only, since a worker runs commands for
//! whoever reaches it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};

use super::tasks::Tasks;

/// Time to reach a peer. A node that is up on a LAN answers in milliseconds; a board waking its disk may need seconds.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Silence after which a peer is asked for a sign of life, and the wait for its answer: a node that lost power is
/// noticed within twenty seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long the peers of a server that stops have for letting go. One that is frozen, or went without a word, never does.
const PARTING: Duration = Duration::from_secs(2);

/// Bytes in flight per stream and per connection: enough for 100 Mbit/s at 80 ms, and a bound.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not `ADDRESS:PORT`.
    #[error("`{0}` is not an address to listen on: give ADDRESS:PORT, say 127.0.0.1:7420")]
    Malformed(String),
    /// Reachable from outside this machine.
    #[error(
        "refusing to listen on `{0}`: it can be reached from other machines, and without certificates anyone there \
         could run commands here"
    )]
    NotLoopback(SocketAddr),
    /// The system said no.
    #[error("cannot listen on `{address}`")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Binds a listener.
pub async fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener, ListenError> {
    tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| ListenError::Bind { address, source })
}

/// Describes a server: silent peers are asked for a sign of life here too, so that one that lost power does not hold its
/// session for ever.
pub fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// Runs the server of a `role` as one of `tasks`, until they are cancelled. It shuts down in order.
pub fn serve<E>(serving: impl Future<Output = Result<(), E>> + Send + 'static, role: &'static str, tasks: &Tasks)
where
    E: std::error::Error + Send,
{
    let stop = tasks.token();
    tasks.spawn(async move {
        if let Err(error) = until_parted(serving, stop).await {
            tracing::error!(%error, "the {role}'s listener failed");
        }
    });
}

/// Waits for a server that shuts down in order at `stop`: until its peers have let go, or for two seconds after `stop`.
///
/// # Errors
/// The server's own, when its listener fails.
async fn until_parted<E>(serving: impl Future<Output = Result<(), E>>, stop: CancellationToken) -> Result<(), E> {
    let parted = async {
        stop.cancelled().await;
        tokio::time::sleep(PARTING).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = parted => Ok(()),
    }
}

/// Describes a peer at `http://HOST:PORT` (or `HOST:PORT`) without connecting yet.
pub fn endpoint(peer: &str) -> Result<Endpoint, tonic::transport::Error> {
    let uri = if peer.contains("://") {
        peer.to_owned()
    } else {
        format!("http://{peer}")
    };
    Ok(Endpoint::from_shared(uri)?
        .connect_timeout(CONNECT_WAIT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// Connects to a peer.
pub async fn connect(peer: &str) -> Result<Channel, tonic::transport::Error> {
    endpoint(peer)?.connect().await
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stops_waits_for_its_peers_and_not_for_ever() {
        let stop = CancellationToken::new();
        stop.cancel();
        let begun = Instant::now();
        let never = std::future::pending::<io::Result<()>>();
        until_parted(never, stop.clone())
            .await
            .expect("no error of the server's");
        assert_eq!(begun.elapsed(), PARTING);
        let begun = Instant::now();
        until_parted(async { io::Result::Ok(()) }, stop)
            .await
            .expect("its own end");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_listener_that_fails_is_told() {
        let failed = async { Err(io::Error::other("no descriptors")) };
        until_parted(failed, CancellationToken::new())
            .await
            .expect_err("the failure");
    }
}
