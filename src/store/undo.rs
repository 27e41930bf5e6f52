//! What a decision took away: for seven days it can be brought back.

use coda_proto::{Fid, Past, id::required, wire};
use prost::Message;
use rusqlite::params;

use super::{Result, Store, broken, malformed};
use crate::venus::face::ObjectId;

/// Tables that older versions of venus do without, so they are made whenever they are missing.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS undo (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, what BLOB NOT NULL
    );
    CREATE TABLE IF NOT EXISTS undo_container (
        container INTEGER PRIMARY KEY, undo INTEGER NOT NULL, bytes INTEGER NOT NULL
    );
";

/// A decision that can be undone.
#[derive(Clone, Debug, PartialEq)]
pub struct Undo {
    /// Its number; 0 until it is kept.
    pub id: u64,
    /// When it was made, in nanoseconds since 1970.
    pub time: i64,
    /// The file whose versions were decided between; of a removed object, the directory it was in.
    pub object: ObjectId,
    /// What was known when it was decided.
    pub past: Past,
    /// The name of a removed object; none where versions of contents were dropped.
    pub name: Vec<u8>,
    /// The contents that went.
    pub dropped: Vec<Dropped>,
}

/// Contents that went.
#[derive(Clone, PartialEq, Message)]
pub struct Dropped {
    /// Where they are.
    #[prost(uint64, tag = "1")]
    pub container: u64,
    /// Bytes.
    #[prost(uint64, tag = "2")]
    pub length: u64,
    /// BLAKE3.
    #[prost(bytes = "vec", tag = "3")]
    pub hash: Vec<u8>,
    /// Their time.
    #[prost(int64, tag = "4")]
    pub mtime: i64,
    /// The machine on which they were made.
    #[prost(string, tag = "5")]
    pub host: String,
}

#[derive(Clone, PartialEq, Message)]
struct UndoMessage {
    #[prost(uint32, tag = "1")]
    realm: u32,
    #[prost(message, optional, tag = "2")]
    fid: Option<wire::Fid>,
    #[prost(message, optional, tag = "3")]
    past: Option<wire::Past>,
    #[prost(bytes = "vec", tag = "4")]
    name: Vec<u8>,
    #[prost(message, repeated, tag = "5")]
    dropped: Vec<Dropped>,
}

impl Store {
    /// Keeps what a decision is about to take away. Answers its number.
    pub fn keep_undo(&mut self, undo: &Undo) -> Result<u64> {
        let what = UndoMessage {
            realm: undo.object.realm,
            fid: Some(undo.object.fid.into()),
            past: Some((&undo.past).into()),
            name: undo.name.clone(),
            dropped: undo.dropped.clone(),
        };
        let tx = self.db.transaction().map_err(broken)?;
        tx.execute("INSERT INTO undo (time, what) VALUES (?, ?)", params![undo.time, what.encode_to_vec()])
            .map_err(broken)?;
        let id = tx.last_insert_rowid();
        for dropped in &undo.dropped {
            tx.execute(
                "INSERT INTO undo_container (container, undo, bytes) VALUES (?, ?, ?)",
                params![dropped.container as i64, id, dropped.length as i64],
            )
            .map_err(broken)?;
        }
        tx.commit().map_err(broken)?;
        Ok(id as u64)
    }

    /// All decisions that can be undone, the latest first.
    pub fn undos(&self) -> Result<Vec<Undo>> {
        let mut ask =
            self.db.prepare_cached("SELECT id, time, what FROM undo ORDER BY id DESC").map_err(broken)?;
        let rows = ask
            .query_map([], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .map_err(broken)?;
        rows.map(|row| {
            let (id, time, what) = row.map_err(broken)?;
            let what = UndoMessage::decode(&what[..]).map_err(malformed)?;
            let fid: Fid = required(what.fid, "undo").map_err(malformed)?;
            let past = required(what.past, "undo").map_err(malformed)?;
            let object = ObjectId { realm: what.realm, fid };
            Ok(Undo { id: id as u64, time, object, past, name: what.name, dropped: what.dropped })
        })
        .collect()
    }

    /// Forgets a decision. Its containers belong to nobody then.
    pub fn forget_undo(&mut self, id: u64) -> Result<()> {
        let tx = self.db.transaction().map_err(broken)?;
        tx.execute("DELETE FROM undo WHERE id = ?", [id as i64]).map_err(broken)?;
        tx.execute("DELETE FROM undo_container WHERE undo = ?", [id as i64]).map_err(broken)?;
        tx.commit().map_err(broken)
    }

    /// Bytes that are kept to be brought back.
    pub fn undo_bytes(&self) -> Result<u64> {
        let bytes: i64 = self
            .db
            .query_row("SELECT coalesce(sum(bytes), 0) FROM undo_container", [], |row| row.get(0))
            .map_err(broken)?;
        Ok(bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, Dot, VolumeId};

    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_its_containers_are_nobodys_after_it_is_forgotten() {
        let mut store = Store::open(None).unwrap();
        let fid = Fid { volume: VolumeId(1), vnode: 2, unique: 3 };
        let dropped =
            Dropped { container: 9, length: 5, hash: vec![1; 32], mtime: -1, host: "laptop".into() };
        let undo = Undo {
            id: 0,
            time: 7,
            object: ObjectId { realm: 1, fid },
            past: Past::of(Dot::new(Author(4), 1)),
            name: Vec::new(),
            dropped: vec![dropped],
        };
        let id = store.keep_undo(&undo).unwrap();
        assert_eq!(store.undos().unwrap(), [Undo { id, ..undo }]);
        assert!(store.names_container(9).unwrap());
        assert_eq!(store.undo_bytes().unwrap(), 5);
        store.forget_undo(id).unwrap();
        assert!(store.undos().unwrap().is_empty() && !store.names_container(9).unwrap());
    }
}
