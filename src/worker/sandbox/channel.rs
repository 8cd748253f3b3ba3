//! Frames and descriptors over the socket between the worker and a launcher, one system call at a time.
//!
//! Both ends use it: the launcher with a blocking socket, the worker with one that does not block. Which message may
//! come when is the callers' business.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use super::wire::{Garbled, HEADER_BYTES, body_bytes};

/// Descriptors that one message carries at most: a job's standard output and standard error.
const DESCRIPTORS_MAX: usize = 2;

/// Bytes taken from the socket at a time; a usual job's frame is 4 to 8 KiB.
const CHUNK_BYTES: usize = 16 << 10;

/// Sends as much of `bytes` as goes at once, with `descriptors` on its first byte. Returns how many bytes went.
pub(super) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Sends all of `bytes` through a socket that blocks.
pub(super) fn send_all(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut sent = send(&socket, bytes, descriptors)?;
    while sent < bytes.len() {
        sent += send(&socket, &bytes[sent..], &[])?;
    }
    Ok(())
}

/// What has arrived and was not yet taken.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Takes from the socket what is there, once. Returns the number of bytes; 0 is the end of the stream.
    pub(super) fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut chunk = [0; CHUNK_BYTES];
        let received = loop {
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.bytes.extend_from_slice(&chunk[..received.bytes]);
        Ok(received.bytes)
    }

    /// Takes the next whole frame's body, when it has arrived.
    pub(super) fn next_body(&mut self) -> Result<Option<Vec<u8>>, Garbled> {
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let end = HEADER_BYTES + body_bytes(*header)?;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let rest = self.bytes.split_off(end);
        let mut body = std::mem::replace(&mut self.bytes, rest);
        body.drain(..HEADER_BYTES);
        Ok(Some(body))
    }

    /// Takes the oldest descriptor that has arrived.
    pub(super) fn next_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn frames_are_put_together_however_they_were_cut_and_bring_their_descriptors() {
        let (near, far) = UnixStream::pair().unwrap();
        let (passed, mut kept) = UnixStream::pair().unwrap();
        let frame = [&5u32.to_le_bytes()[..], b"hello"].concat();
        send_all(&near, &frame[..3], &[passed.as_fd()]).unwrap();
        send_all(&near, &frame[3..], &[]).unwrap();
        send_all(&near, &frame, &[]).unwrap();
        drop((near, passed));

        let mut inbox = Inbox::default();
        while inbox.receive(&far).unwrap() > 0 {}
        assert_eq!(inbox.next_body(), Ok(Some(b"hello".to_vec())));
        assert_eq!(inbox.next_body(), Ok(Some(b"hello".to_vec())));
        assert_eq!(inbox.next_body(), Ok(None));
        assert!(inbox.next_descriptor().is_some());
        assert!(inbox.next_descriptor().is_none());
        assert_eq!(
            kept.read(&mut [0]).unwrap(),
            0,
            "the descriptor was the socket's other end"
        );
    }
}
