//! What a job says on standard output and standard error: pipes, a terminal where the client has one, and how it is all
//! taken in without letting a job fill the worker's memory.
//!
//! Knows nothing of sandboxes. Invariant: bytes come back as they were written, terminal or not.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Winsize};
use tokio::net::unix::pipe::Receiver;

use crate::job::Terminal;

/// Bytes taken at a time: what a pipe or terminal holds is rarely more.
const CHUNK_BYTES: usize = 16 << 10;

/// The two ends of a stream out of a job.
#[derive(Debug)]
pub(super) struct Stream {
    /// The worker's end, which does not block.
    pub(super) near: OwnedFd,
    /// The job's end.
    pub(super) far: OwnedFd,
}

/// Makes a pipe.
pub(super) fn pipe() -> io::Result<Stream> {
    let (near, far) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    unblock(near, far)
}

/// Makes a terminal of the given size that changes no byte of what is written to it: gcc asks it whether it is a
/// terminal and how wide, and nothing else.
pub(super) fn terminal(size: Terminal) -> io::Result<Stream> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let near = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&near)?;
    rustix::pty::unlockpt(&near)?;
    let far = open_far_end(&near, flags)?;
    let mut behaviour = rustix::termios::tcgetattr(&far)?;
    behaviour.make_raw();
    rustix::termios::tcsetattr(&far, OptionalActions::Now, &behaviour)?;
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&far, size)?;
    unblock(near, far)
}

/// Opens a terminal's other end without looking for its name, or by it on kernels before 4.13.
fn open_far_end(near: &OwnedFd, flags: OpenptFlags) -> io::Result<OwnedFd> {
    match rustix::pty::ioctl_tiocgptpeer(near, flags) {
        Err(Errno::INVAL | Errno::NOTTY) => {
            let name = rustix::pty::ptsname(near, Vec::new())?;
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            Ok(rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty())?)
        }
        other => Ok(other?),
    }
}

fn unblock(near: OwnedFd, far: OwnedFd) -> io::Result<Stream> {
    rustix::io::ioctl_fionbio(&near, true)?;
    Ok(Stream { near, far })
}

/// Reads a stream to its end and keeps its first `bytes_max` bytes. Calls `over` once when there is more, and goes on
/// reading, so that whoever writes is not held up.
pub(super) async fn capture(near: OwnedFd, bytes_max: u64, over: impl Fn()) -> io::Result<Vec<u8>> {
    // A terminal is no pipe, but is watched and read like one.
    let near = Receiver::from_owned_fd_unchecked(near)?;
    let mut captured = Vec::new();
    let mut complete = true;
    let mut chunk = Vec::new();
    loop {
        near.readable().await?;
        // Made only now: most jobs never say anything, and wait for the first byte for their whole life.
        chunk.resize(CHUNK_BYTES, 0);
        let bytes = match near.try_read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            // A terminal whose other end is closed answers with an I/O error.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => 0,
            other => other?,
        };
        if bytes == 0 {
            return Ok(captured);
        }
        let room = bytes_max.saturating_sub(captured.len() as u64);
        let kept = bytes.min(usize::try_from(room).unwrap_or(usize::MAX));
        captured.extend_from_slice(&chunk[..kept]);
        if kept < bytes && complete {
            complete = false;
            over();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Writes what fits into a pipe or terminal that nobody reads yet.
    fn write(far: OwnedFd, bytes: &[u8]) {
        assert_eq!(rustix::io::write(&far, bytes), Ok(bytes.len()));
    }

    fn all_bytes() -> Vec<u8> {
        (0..=255).chain(*b"\r\n\n\x04\x03\t").collect()
    }

    #[tokio::test]
    async fn a_terminal_looks_like_one_and_changes_no_byte() {
        let stream = terminal(Terminal { columns: 97, rows: 31 }).unwrap();
        assert!(rustix::termios::isatty(&stream.far));
        let size = rustix::termios::tcgetwinsize(&stream.far).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (97, 31));
        write(stream.far, &all_bytes());
        let captured = capture(stream.near, 1000, || panic!("within the bound")).await;
        assert_eq!(captured.unwrap(), all_bytes());
    }

    #[tokio::test]
    async fn what_exceeds_the_bound_is_dropped_and_told_once() {
        let stream = pipe().unwrap();
        let told = Cell::new(0);
        write(stream.far, &[7; 60_000]);
        let captured = capture(stream.near, 100, || told.set(told.get() + 1)).await;
        assert_eq!(captured.unwrap(), [7; 100]);
        assert_eq!(told.get(), 1);
    }

    #[tokio::test]
    async fn exactly_the_bound_is_within_it() {
        let stream = pipe().unwrap();
        write(stream.far, &[7; 100]);
        let captured = capture(stream.near, 100, || panic!("within the bound")).await;
        assert_eq!(captured.unwrap().len(), 100);
    }
}
