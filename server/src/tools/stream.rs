//! The format of a dump: frames, each with its own checksum, and an end that vouches for the whole.
//!
//! ```text
//!  "CODADUMP" VERSION(u32)                                        integers little-endian
//!  frame:  KIND(u8) LENGTH(u32) PAYLOAD CHECK(8 bytes of BLAKE3 over kind, length and payload)
//!
//!  H  what is dumped, as JSON           once, first
//!  O  objects: a StagePart              states of objects as servers tell them each other
//!  C  contents: LENGTH(u32) StagePart, then the bytes of one piece
//!  G  fids that are no more (12 bytes each), against the dump that this one follows
//!  E  32 bytes: the BLAKE3 of everything before this frame; once, last
//! ```
//!
//! An unknown version or kind is refused: what is skipped in a backup is missed when it is needed.

use std::io::{self, Read, Write};

use bytes::Bytes;
use coda_proto::wire;
use prost::Message;
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"CODADUMP";
/// The version that is written.
pub const VERSION: u32 = 1;
/// Bytes of one frame, at most.
const FRAME_LIMIT: u32 = 64 * 1024 * 1024;

/// What is dumped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the realm.
    pub realm: String,
    /// Group id of the volume, in hexadecimal.
    pub volume: String,
    /// Its name.
    pub name: String,
    /// The server whose replica was read.
    pub server: String,
    /// Seconds since 1970.
    pub time: i64,
    /// Its level: 0 for a full one.
    #[serde(default)]
    pub level: u8,
    /// The end of the dump that this one follows, in hexadecimal; none: it is a full one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
}

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// What is dumped.
    Header(Header),
    /// Objects.
    Objects(Vec<wire::ObjectState>),
    /// A piece of contents: hash, length of all, offset, bytes.
    Piece {
        /// BLAKE3 of the whole.
        hash: [u8; 32],
        /// Bytes of the whole.
        length: u64,
        /// Where the piece begins.
        offset: u64,
        /// The piece.
        bytes: Bytes,
    },
    /// Objects that are no more: vnode and unique.
    Gone(Vec<(u32, u64)>),
    /// The end, and what it vouches for.
    End([u8; 32]),
}

/// Why a dump is refused.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It ends too early.
    #[error("the dump is cut off at offset {0}")]
    Truncated(u64),
    /// It is not what was written.
    #[error("the dump is damaged at offset {0}: {1}")]
    Damaged(u64, String),
    /// Of a later version.
    #[error("the dump is of version {0}; this program reads {VERSION}")]
    Version(u32),
    /// Something else.
    #[error("this is no dump")]
    Foreign,
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes a dump.
pub struct Writer<W> {
    to: W,
    hasher: blake3::Hasher,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with a header.
    pub fn new(to: W, header: &Header) -> io::Result<Writer<W>> {
        let mut writer = Writer { to, hasher: blake3::Hasher::new(), written: 0 };
        writer.raw(MAGIC)?;
        writer.raw(&VERSION.to_le_bytes())?;
        let header = serde_json::to_vec(header).map_err(io::Error::other)?;
        writer.frame(b'H', &[&header])?;
        Ok(writer)
    }

    /// Adds objects.
    pub fn objects(&mut self, objects: Vec<wire::ObjectState>) -> io::Result<()> {
        let part = wire::StagePart { objects, ..Default::default() };
        self.frame(b'O', &[&part.encode_to_vec()])
    }

    /// Adds a piece of contents.
    pub fn piece(&mut self, hash: &[u8; 32], length: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let hash = Bytes::copy_from_slice(hash);
        let part = wire::StagePart { objects: Vec::new(), hash, length, offset }.encode_to_vec();
        self.frame(b'C', &[&(part.len() as u32).to_le_bytes(), &part, bytes])
    }

    /// Says what is no more.
    pub fn gone(&mut self, fids: &[(u32, u64)]) -> io::Result<()> {
        let bytes: Vec<u8> = fids
            .iter()
            .flat_map(|(vnode, unique)| vnode.to_le_bytes().into_iter().chain(unique.to_le_bytes()))
            .collect();
        self.frame(b'G', &[&bytes])
    }

    /// Ends. Answers what was written to, how many bytes, and what the end vouches for.
    pub fn end(mut self) -> io::Result<(W, u64, [u8; 32])> {
        let hash = *self.hasher.finalize().as_bytes();
        self.frame(b'E', &[&hash])?;
        self.to.flush()?;
        Ok((self.to, self.written, hash))
    }

    fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).map_err(io::Error::other)?.to_le_bytes();
        let mut check = blake3::Hasher::new();
        for part in [&[kind][..], &length[..]].into_iter().chain(parts.iter().copied()) {
            check.update(part);
            self.raw(part)?;
        }
        let check = check.finalize();
        self.raw(&check.as_bytes()[..8])
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

/// Reads a dump, frame by frame. Nothing is believed that its checksum does not cover.
pub struct Reader<R> {
    from: R,
    hasher: blake3::Hasher,
    offset: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Begins, with the header.
    pub fn new(from: R) -> Result<(Reader<R>, Header), StreamError> {
        let mut reader = Reader { from, hasher: blake3::Hasher::new(), offset: 0, ended: false };
        let mut magic = [0; 8];
        reader.raw(&mut magic).map_err(|error| match error {
            StreamError::Truncated(_) => StreamError::Foreign,
            error => error,
        })?;
        if &magic != MAGIC {
            return Err(StreamError::Foreign);
        }
        let mut version = [0; 4];
        reader.raw(&mut version)?;
        match u32::from_le_bytes(version) {
            VERSION => {}
            version => return Err(StreamError::Version(version)),
        }
        match reader.frame()? {
            Some(Frame::Header(header)) => Ok((reader, header)),
            _ => Err(StreamError::Damaged(12, "it does not begin with a header".into())),
        }
    }

    /// The next frame; none behind the end.
    pub fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        let at = self.offset;
        if self.ended {
            return match self.from.read(&mut [0])? {
                0 => Ok(None),
                _ => Err(StreamError::Damaged(at, "something follows the end".into())),
            };
        }
        let before = *self.hasher.finalize().as_bytes();
        let mut head = [0; 5];
        self.raw(&mut head)?;
        let (kind, length) = (head[0], u32::from_le_bytes(head[1..].try_into().expect("four of five bytes")));
        let damaged = |why: &str| StreamError::Damaged(at, why.to_owned());
        if length > FRAME_LIMIT {
            return Err(damaged("a frame is longer than any"));
        }
        // Read as it comes: a length that lies allocates nothing that is not there.
        let mut payload = Vec::new();
        let read = (&mut self.from).take(length.into()).read_to_end(&mut payload)?;
        self.hasher.update(&payload);
        self.offset += read as u64;
        if read < length as usize {
            return Err(StreamError::Truncated(self.offset));
        }
        let mut check = [0; 8];
        self.raw(&mut check)?;
        let mut own = blake3::Hasher::new();
        own.update(&head).update(&payload);
        if own.finalize().as_bytes()[..8] != check {
            return Err(damaged("a frame does not match its checksum"));
        }
        let frame = decode(kind, payload).map_err(|why| StreamError::Damaged(at, why))?;
        if let Frame::End(hash) = &frame {
            if *hash != before {
                return Err(damaged("a frame is missing, or stands where it did not"));
            }
            self.ended = true;
        }
        Ok(Some(frame))
    }

    fn raw(&mut self, bytes: &mut [u8]) -> Result<(), StreamError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.from.read(&mut bytes[filled..])? {
                0 => return Err(StreamError::Truncated(self.offset + filled as u64)),
                read => filled += read,
            }
        }
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn decode(kind: u8, payload: Vec<u8>) -> Result<Frame, String> {
    let part = |bytes: &[u8]| wire::StagePart::decode(bytes).map_err(|error| error.to_string());
    match kind {
        b'H' => Ok(Frame::Header(serde_json::from_slice(&payload).map_err(|error| error.to_string())?)),
        b'O' => Ok(Frame::Objects(part(&payload)?.objects)),
        b'C' => {
            let short = || "a piece is too short".to_owned();
            let length = payload.first_chunk::<4>().ok_or_else(short)?;
            let end = (u32::from_le_bytes(*length) as usize).checked_add(4).ok_or_else(short)?;
            let part = part(payload.get(4..end).ok_or_else(short)?)?;
            let hash = part.hash[..].try_into().map_err(|_| "a hash has 32 bytes".to_owned())?;
            let bytes = Bytes::from(payload).slice(end..);
            Ok(Frame::Piece { hash, length: part.length, offset: part.offset, bytes })
        }
        b'G' => {
            let (fids, []) = payload.as_chunks::<12>() else { return Err("half a fid".to_owned()) };
            let fid = |fid: &[u8; 12]| {
                let (vnode, unique) = fid.split_at(4);
                let vnode = u32::from_le_bytes(vnode.try_into().expect("four bytes"));
                (vnode, u64::from_le_bytes(unique.try_into().expect("eight bytes")))
            };
            Ok(Frame::Gone(fids.iter().map(fid).collect()))
        }
        b'E' => Ok(Frame::End(payload[..].try_into().map_err(|_| "the end has 32 bytes".to_owned())?)),
        kind => Err(format!("a frame of kind {kind:#x}, which nobody knows")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            realm: "r".into(),
            volume: "7f000002".into(),
            name: "home".into(),
            server: "one".into(),
            time: 7,
            level: 0,
            follows: None,
        }
    }

    fn dump() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        writer.objects(vec![wire::ObjectState { kind: 2, ..Default::default() }]).unwrap();
        writer.piece(&[9; 32], 5, 0, b"hello").unwrap();
        writer.gone(&[(3, 4)]).unwrap();
        let (bytes, written, _) = writer.end().unwrap();
        assert_eq!(written, bytes.len() as u64);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Frame>, StreamError> {
        let (mut reader, _) = Reader::new(bytes)?;
        let mut frames = Vec::new();
        while let Some(frame) = reader.frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn what_was_written_is_read() {
        let frames = read(&dump()).unwrap();
        assert!(matches!(&frames[0], Frame::Objects(objects) if objects.len() == 1));
        let piece = Frame::Piece { hash: [9; 32], length: 5, offset: 0, bytes: Bytes::from_static(b"hello") };
        assert_eq!(frames[1], piece);
        assert_eq!(frames[2], Frame::Gone(vec![(3, 4)]));
        assert!(matches!(frames[3], Frame::End(_)) && frames.len() == 4);
    }

    #[test]
    fn a_dump_cut_off_anywhere_is_refused_with_the_offset() {
        let whole = dump();
        for length in 0..whole.len() {
            match read(&whole[..length]) {
                Err(StreamError::Foreign) => assert!(length < 8),
                Err(StreamError::Truncated(at)) => assert_eq!(at, length as u64),
                other => panic!("{length}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_dump_with_a_flipped_bit_anywhere_is_refused_with_the_offset() {
        let whole = dump();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            match read(&damaged) {
                Err(StreamError::Foreign) => assert!(at < 8),
                Err(StreamError::Version(_)) => assert!((8..12).contains(&at)),
                Err(StreamError::Damaged(said, _)) => assert!(said <= at as u64, "{at}: said {said}"),
                // A length that became larger than what is left.
                Err(StreamError::Truncated(_)) => {}
                other => panic!("{at}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_frame_left_out_or_a_later_version_is_refused() {
        let whole = dump();
        let mut two = whole.clone();
        two.extend_from_slice(b"x");
        assert!(matches!(read(&two), Err(StreamError::Damaged(at, _)) if at == whole.len() as u64));
        let mut later = whole.clone();
        later[8] = 9;
        assert!(matches!(read(&later), Err(StreamError::Version(9))));
        // The frame of the fids that are gone: 1 + 4 + 12 + 8 bytes, before the end's 1 + 4 + 32 + 8.
        let cut = whole.len() - 45;
        let without = [&whole[..cut - 25], &whole[cut..]].concat();
        assert!(matches!(read(&without), Err(StreamError::Damaged(..))));
    }
}
