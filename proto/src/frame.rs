//! Frames: how messages lie on a stream.
//!
//! ```text
//! ┌────────────┬──────┬───────────────┐
//! │ length u32 │ type │ length bytes  │   big endian; type 0: a message, 1: "still working" (length 0)
//! └────────────┴──────┴───────────────┘
//! ```

use prost::Message;

use crate::Malformed;

/// Bytes of one message, at most.
pub const FRAME_LIMIT: usize = 8 * 1024 * 1024;
/// Bytes before a message.
pub const HEADER: usize = 5;

/// What a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message of so many bytes follows.
    Message(usize),
    /// The peer is alive and still working on the call.
    Working,
}

/// Reads a header. A length beyond [`FRAME_LIMIT`] is refused before anything is allocated.
pub fn parse_header(header: [u8; HEADER]) -> Result<Frame, Malformed> {
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    match (header[4], length) {
        (0, length) if length <= FRAME_LIMIT => Ok(Frame::Message(length)),
        (1, 0) => Ok(Frame::Working),
        (kind, length) => Err(Malformed::new("frame", format!("type {kind} with {length} bytes"))),
    }
}

/// A message with its header.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, Malformed> {
    let length = message.encoded_len();
    if length > FRAME_LIMIT {
        return Err(Malformed::new("message", format!("{length} bytes are more than a frame holds")));
    }
    let mut bytes = Vec::with_capacity(HEADER + length);
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    bytes.push(0);
    message.encode(&mut bytes).expect("a Vec grows as needed");
    Ok(bytes)
}

/// The frame that says "still working".
pub fn working() -> [u8; HEADER] {
    [0, 0, 0, 0, 1]
}

/// Reads a message.
pub fn decode<M: Message + Default>(bytes: bytes::Bytes, what: &'static str) -> Result<M, Malformed> {
    M::decode(bytes).map_err(|error| Malformed::new(what, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_claims_too_much_is_refused() {
        assert_eq!(parse_header([0, 0, 0, 3, 0]), Ok(Frame::Message(3)));
        assert_eq!(parse_header(working()), Ok(Frame::Working));
        assert!(parse_header([0xff; 5]).is_err());
        assert!(parse_header([0, 0, 0, 1, 1]).is_err());
        assert!(parse_header([0, 0x80, 0, 1, 0]).is_err());
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let past = crate::wire::Past { entries: vec![crate::wire::Dot { author: 7, seq: 1 }] };
        let bytes = encode(&past).unwrap();
        let header: [u8; HEADER] = bytes[..HEADER].try_into().unwrap();
        assert_eq!(parse_header(header), Ok(Frame::Message(bytes.len() - HEADER)));
        assert_eq!(decode::<crate::wire::Past>(bytes[HEADER..].to_vec().into(), "past"), Ok(past));
    }
}
