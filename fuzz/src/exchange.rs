//! Frames between the wrapper and the agent.
//!
//! The bytes are a frame: a header and what follows it. Holds: it is refused, or it becomes a value that comes back as it
//! was; a request even as the same bytes, since it has one encoding.

use rdcc::exchange::codec::{decode_reply, decode_request, encode_reply, encode_request};
use rdcc::exchange::frame::{HEADER_BYTES, Header, MESSAGE_BYTES_MAX, meet};

/// Takes a frame as a request and as a reply.
pub fn check(bytes: &[u8]) {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return;
    };
    if let Ok(decoded) = Header::decode(header) {
        assert_eq!(decoded.encode(), *header);
        assert!(decoded.length as usize <= MESSAGE_BYTES_MAX);
        meet(&decoded);
    }
    if let Ok(request) = decode_request(body) {
        let frame = encode_request(&request).expect("as short as it was");
        assert_eq!(&frame[HEADER_BYTES..], body);
    }
    if let Ok(reply) = decode_reply(body) {
        let frame = encode_reply(&reply).expect("a report is not much longer in another spelling");
        assert_eq!(decode_reply(&frame[HEADER_BYTES..]), Ok(reply));
    }
}
