//! What is known of a logged record without reading it. A log of 100,000 records is kept in memory so.

use coda_proto::{Dot, Fid, Op, Record, wire};
use prost::Message;

/// A logged record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log; grows.
    pub log: u64,
    /// The local user whose it is.
    pub uid: u32,
    /// Its name.
    pub dot: Dot,
    /// The objects it touches.
    pub touches: Box<[Fid]>,
    /// The object it makes.
    pub creates: Option<Fid>,
    /// Bytes on the wire, short contents included.
    pub size: usize,
    /// Bytes of contents.
    pub contents: u64,
    /// The author's clock.
    pub time: i64,
    /// What it does, in a word.
    pub verb: &'static str,
}

impl Entry {
    /// Of a user's record at a place of the log. `inline`: its contents travel within it.
    pub fn new(log: u64, uid: u32, record: &Record, inline: bool) -> Entry {
        let contents = if let Op::Store { length, .. } = record.op { length } else { 0 };
        let size = match &record.op {
            Op::Store { contents: coda_proto::Contents::Inline(bytes), .. } => {
                encoded(record) - bytes.len() + contents as usize
            }
            _ => encoded(record) + if inline { contents as usize } else { 0 },
        };
        Entry {
            log,
            uid,
            dot: record.dot,
            touches: record.op.touches().into(),
            creates: record.op.creates(),
            size: size + 8,
            contents,
            time: record.time,
            verb: record.op.verb(),
        }
    }

    /// Whether it takes something away that others know of.
    pub fn removes(&self) -> bool {
        matches!(self.verb, "remove" | "rmdir")
    }

    /// Whether it touches an object.
    pub fn touches(&self, fid: Fid) -> bool {
        self.touches.contains(&fid)
    }
}

fn encoded(record: &Record) -> usize {
    wire::Record::from(record).encoded_len()
}
