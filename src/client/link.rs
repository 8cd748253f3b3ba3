//! One exchange with the agent, which is started if need be.
//!
//! An agent that ends under our hands (idle, replaced, crashed) is replaced and asked again, a bounded number of times: a
//! compile that was cut off has left nothing behind and may be done again. The other side is checked to be the same user.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use super::start::{self, StartError};
use crate::exchange::codec::{self, Malformed};
use crate::exchange::frame::{FORMAT, HEADER_BYTES, Header};
use crate::exchange::place::Place;
use crate::exchange::{Reply, Request};
use crate::runtime::unix_socket;

/// How often a request is sent: one agent may end just now, and the next may meet a newer program.
const ATTEMPTS: u32 = 3;

/// What to do when no agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAbsent {
    /// Start one.
    Start,
    /// Give up.
    GiveUp,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No agent runs, and none was to be started.
    #[error("no agent is running")]
    NotRunning,
    /// None could be started.
    #[error("the agent cannot be started")]
    Start(#[from] StartError),
    /// It ended without a reply, again and again.
    #[error("the agent ended without a reply")]
    Vanished,
    /// It speaks otherwise.
    #[error("the agent does not talk to this version of rdcc")]
    Reply(#[from] Malformed),
    /// Whoever listens is somebody else.
    #[error("another user listens at the agent's socket")]
    Stranger,
    /// The socket cannot be used.
    #[error("the agent cannot be reached")]
    Io(#[from] io::Error),
}

/// Sends `request` to the agent at `place` and returns its reply, with the connection for those who keep it.
pub fn ask(place: &Place, request: &Request, when_absent: WhenAbsent) -> Result<(Reply, UnixStream), LinkError> {
    let frame = codec::encode_request(request)?;
    for _ in 0..ATTEMPTS {
        let mut stream = match connect(place)? {
            Some(stream) => stream,
            None if when_absent == WhenAbsent::GiveUp => return Err(LinkError::NotRunning),
            None => {
                start::start(place)?;
                match connect(place)? {
                    Some(stream) => stream,
                    None => continue,
                }
            }
        };
        match exchange(&mut stream, &frame) {
            Ok(Reply::Superseded) => {}
            Ok(reply) => return Ok((reply, stream)),
            Err(LinkError::Io(error)) if is_end(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(LinkError::Vanished)
}

/// Returns `None` when nobody listens.
pub(super) fn connect(place: &Place) -> Result<Option<UnixStream>, LinkError> {
    let stream = match unix_socket::connect(&place.socket()) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    // Whoever answers may have us execute anything.
    let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(io::Error::from)?;
    if peer.uid != rustix::process::geteuid() {
        return Err(LinkError::Stranger);
    }
    Ok(Some(stream))
}

fn exchange(stream: &mut UnixStream, frame: &[u8]) -> Result<Reply, LinkError> {
    stream.write_all(frame)?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let header = Header::decode(&header)?;
    if header.format != FORMAT {
        return Err(Malformed::Format(header.format).into());
    }
    let mut body = Vec::new();
    stream.take(header.length.into()).read_to_end(&mut body)?;
    if body.len() != header.length as usize {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(codec::decode_reply(&body)?)
}

/// Tells the errors that mean no more than that the other side is gone.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}
