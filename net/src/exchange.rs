//! Messages and bulk bytes on a stream.
//!
//! ```text
//! caller   ┌─────────┬──────────────────┬──────┐        opening: what the stream is
//!          │ opening │ frame (Request)  │ bulk │ end
//! server   ┌─────────┬─────────┬───┬──────────────────┬──────┐
//!          │ working │ working │ … │ frame (Response) │ bulk │ end
//! ```
//!
//! Nothing is allocated by what a header claims, only by what has arrived.

use bytes::{Bytes, BytesMut};
use coda_proto::{
    BULK_LIMIT, Malformed,
    frame::{self, Frame, HEADER},
};
use quinn::{ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, WriteError};

use crate::{Priority, life::Life};

/// Bytes taken from a stream at a time.
const PIECE: usize = 256 * 1024;

/// What a stream is, in its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A call, for which somebody waits or not.
    Call(Priority),
    /// A session: Hello and Welcome, then events one way and acknowledgements the other.
    Session,
}

impl Opening {
    /// The byte on the wire.
    pub fn byte(self) -> u8 {
        match self {
            Opening::Call(Priority::Foreground) => 0,
            Opening::Session => 1,
            Opening::Call(Priority::Background) => 2,
        }
    }

    /// What a byte means.
    pub fn parse(byte: u8) -> Result<Opening, Malformed> {
        match byte {
            0 => Ok(Opening::Call(Priority::Foreground)),
            1 => Ok(Opening::Session),
            2 => Ok(Opening::Call(Priority::Background)),
            other => Err(Malformed::new("stream", format!("it begins with {other}"))),
        }
    }

    /// How QUIC orders what waits to be sent.
    pub fn priority(self) -> i32 {
        match self {
            Opening::Session => 2,
            Opening::Call(Priority::Foreground) => 1,
            Opening::Call(Priority::Background) => 0,
        }
    }
}

/// Why no message came, or none could be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("the peer gave up this stream")]
    Abandoned,
    #[error("the stream ended early")]
    Ended,
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

impl From<ReadError> for Broken {
    fn from(error: ReadError) -> Broken {
        match error {
            ReadError::ConnectionLost(error) => Broken::Connection(error),
            _ => Broken::Abandoned,
        }
    }
}
impl From<WriteError> for Broken {
    fn from(error: WriteError) -> Broken {
        match error {
            WriteError::ConnectionLost(error) => Broken::Connection(error),
            _ => Broken::Abandoned,
        }
    }
}

/// Reads a header; an end of the stream in its place is an error like any other.
pub(crate) async fn read_header(stream: &mut RecvStream) -> Result<Frame, Broken> {
    let mut header = [0; HEADER];
    match stream.read_exact(&mut header).await {
        Ok(()) => Ok(frame::parse_header(header)?),
        Err(ReadExactError::FinishedEarly(_)) => Err(Broken::Ended),
        Err(ReadExactError::ReadError(error)) => Err(error.into()),
    }
}

/// Reads a message behind any number of "still working", each a sign of life.
pub(crate) async fn read_message(stream: &mut RecvStream, life: &Life) -> Result<Bytes, Broken> {
    loop {
        let header = read_header(stream).await?;
        life.shown();
        if let Frame::Message(length) = header {
            return read_bytes(stream, length, life).await;
        }
    }
}

/// Reads exactly so many bytes. The buffer grows as they come.
pub(crate) async fn read_bytes(stream: &mut RecvStream, length: usize, life: &Life) -> Result<Bytes, Broken> {
    let mut whole = BytesMut::new();
    while whole.len() < length {
        let wanted = (length - whole.len()).min(PIECE);
        let Some(chunk) = stream.read_chunk(wanted, true).await? else { return Err(Broken::Ended) };
        life.moved(chunk.bytes.len());
        if chunk.bytes.len() == length {
            return Ok(chunk.bytes);
        }
        if whole.len() + chunk.bytes.len() > whole.capacity() {
            // Four times what has come, so that long messages are seldom moved.
            whole.reserve((length - whole.len()).min(3 * whole.len() + PIECE));
        }
        whole.extend_from_slice(&chunk.bytes);
    }
    Ok(whole.freeze())
}

/// The length of bulk bytes that a message announces.
pub(crate) fn bulk_length(announced: u32) -> Result<usize, Malformed> {
    match announced as usize {
        length if length <= BULK_LIMIT => Ok(length),
        length => Err(Malformed::new("bulk", format!("{length} bytes are more than {BULK_LIMIT}"))),
    }
}

/// Writes a frame and the bulk behind it. Bytes that move are a sign of life.
pub(crate) async fn write(
    stream: &mut SendStream,
    mut frame: &[u8],
    bulk: Bytes,
    life: &Life,
) -> Result<(), Broken> {
    while !frame.is_empty() {
        let written = stream.write(frame).await?;
        frame = &frame[written..];
        life.moved(written);
    }
    let mut rest = [bulk];
    while !rest[0].is_empty() {
        life.moved(stream.write_chunks(&mut rest).await?.bytes);
    }
    Ok(())
}
