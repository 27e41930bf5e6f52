//! The log: mutations for which some member has yet to answer.
//!
//! Contents of a Store are not part of its record here: short ones have a column of their own, behind the
//! others, so that a start reads past them; longer ones stay in the container that the row names.

use bytes::Bytes;
use coda_proto::{Contents, Op, Record, wire};
use prost::Message;
use rusqlite::{OptionalExtension, Row, params};

use super::{Result, Store, broken, malformed};

/// A logged mutation.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRow {
    /// Its place; grows.
    pub id: u64,
    /// The realm of its volume.
    pub realm: u32,
    /// The local user whose it is; none: an earlier version of the program did not say, nor does the record.
    pub uid: Option<u32>,
    /// One member must say yes before the others are asked.
    pub exclusive: bool,
    /// What is sent, always with the same dot.
    pub record: Record,
    /// The container that holds the contents of a long Store.
    pub container: Option<u64>,
    /// Some member may have got it: it can no longer be changed or left out.
    pub sent: bool,
}

/// A record without its short contents, and these.
fn split(record: &Record) -> (Vec<u8>, Option<Bytes>) {
    let mut message = wire::Record::from(record);
    let inline = match &mut message.op {
        Some(wire::record::Op::Store(store)) if store.upload.is_empty() => {
            store.upload = Bytes::from_static(&[0; 16]);
            Some(std::mem::take(&mut store.contents))
        }
        _ => None,
    };
    (message.encode_to_vec(), inline)
}

const COLUMNS: &str = "id, realm, exclusive, record, container, sent, uid";

/// The columns of a row but its contents, as read.
type Columns = (i64, u32, bool, Vec<u8>, Option<i64>, bool, Option<u32>);

fn columns(row: &Row) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
}

fn logged((id, realm, exclusive, record, container, sent, uid): Columns) -> Result<LogRow> {
    let record: Record =
        wire::Record::decode(&record[..]).map_err(malformed)?.try_into().map_err(malformed)?;
    Ok(LogRow {
        id: id as u64,
        realm,
        uid: uid.or(maker(&record.op)),
        exclusive,
        record,
        container: container.map(|container| container as u64),
        sent,
    })
}

/// Who made an object, as the record says that made it.
fn maker(op: &Op) -> Option<u32> {
    match op {
        Op::Create { owner, .. } | Op::MakeDir { owner, .. } | Op::Symlink { owner, .. } => Some(*owner),
        _ => None,
    }
}

impl Store {
    /// All logged mutations, oldest first, without contents.
    pub fn log(&self) -> Result<Vec<LogRow>> {
        let mut ask =
            self.db.prepare_cached(&format!("SELECT {COLUMNS} FROM log ORDER BY id")).map_err(broken)?;
        let rows = ask.query_map([], columns).map_err(broken)?;
        rows.map(|row| logged(row.map_err(broken)?)).collect()
    }

    /// One logged mutation, short contents included.
    pub fn logged(&self, id: u64) -> Result<Option<LogRow>> {
        let sql = format!("SELECT {COLUMNS}, contents FROM log WHERE id = ?");
        let mut ask = self.db.prepare_cached(&sql).map_err(broken)?;
        let row = ask
            .query_row([id as i64], |row| Ok((columns(row)?, row.get::<_, Option<Vec<u8>>>(7)?)))
            .optional()
            .map_err(broken)?;
        let Some((columns, inline)) = row else { return Ok(None) };
        let mut row = logged(columns)?;
        if let (Op::Store { contents, .. }, Some(inline)) = (&mut row.record.op, inline) {
            *contents = Contents::Inline(inline.into());
        }
        Ok(Some(row))
    }

    /// Whether the log names this container.
    pub fn log_names_container(&self, container: u64) -> Result<bool> {
        let mut ask = self.db.prepare_cached("SELECT 1 FROM log WHERE container = ?").map_err(broken)?;
        ask.exists([container as i64]).map_err(broken)
    }

    /// The place of the last logged mutation, also of one long gone.
    pub fn last_logged(&self) -> Result<u64> {
        let last: Option<i64> = self
            .db
            .query_row("SELECT max(seq) FROM sqlite_sequence WHERE name = 'log'", [], |row| row.get(0))
            .map_err(broken)?;
        Ok(last.unwrap_or(0) as u64)
    }
}

/// Writes a row, in place of one that has its id.
pub(super) fn put(db: &rusqlite::Connection, row: &LogRow) -> rusqlite::Result<()> {
    let (record, inline) = split(&row.record);
    db.prepare_cached(
        "INSERT OR REPLACE INTO log (id, realm, volume, exclusive, record, container, sent, contents, uid)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        row.id as i64,
        row.realm,
        row.record.op.touches()[0].volume.0,
        row.exclusive,
        record,
        row.container.map(|container| container as i64),
        row.sent,
        inline.as_deref(),
        row.uid,
    ])
    .map(drop)
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, Dot, Fid, VolumeId};

    use super::*;
    use crate::store::{Change, Edit};

    fn store(id: u64, contents: Contents, container: Option<u64>) -> LogRow {
        let length = if let Contents::Inline(bytes) = &contents { bytes.len() as u64 } else { 1 << 20 };
        let fid = Fid { volume: VolumeId(0x7f00_0001), vnode: 2, unique: 9 };
        let op = Op::Store { fid, length, hash: [7; 32], mtime: 5, contents, mode: None };
        let dot = Dot::new(Author(9), id);
        let host = "laptop".into();
        let record =
            Record { dot, lamport: 1, time: 1, changed: 1, bases: Vec::new(), logged: true, host, op };
        LogRow { id, realm: 1, uid: Some(7), exclusive: false, record, container, sent: false }
    }

    #[test]
    fn short_contents_are_read_only_when_they_are_asked_for() {
        let mut db = Store::open(None).unwrap();
        let short = store(1, Contents::Inline(Bytes::from_static(b"short")), None);
        let long = store(2, Contents::Uploaded([3; 16]), Some(77));
        let change = Change { edits: vec![Edit::Log(short.clone()), Edit::Log(long.clone())] };
        db.apply(&change, 0).unwrap();
        let Op::Store { contents, .. } = db.log().unwrap().remove(0).record.op else { panic!() };
        assert_eq!(contents, Contents::Uploaded([0; 16]));
        assert_eq!(db.logged(1).unwrap(), Some(short));
        assert_eq!(db.logged(2).unwrap(), Some(long));
        assert!(db.log_names_container(77).unwrap());
        db.apply(&Change { edits: vec![Edit::Recontain(77, 78), Edit::Sent(vec![1])] }, 0).unwrap();
        assert_eq!(db.logged(2).unwrap().unwrap().container, Some(78));
        assert!(db.logged(1).unwrap().unwrap().sent && !db.logged(2).unwrap().unwrap().sent);
        assert_eq!(db.last_logged().unwrap(), 2);
    }
}
