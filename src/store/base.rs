//! What files were before they were written while apart: should others have changed one too, that is what both
//! began from.

use coda_proto::{Dot, Sibling, wire};
use rusqlite::{OptionalExtension, params};

use super::{Result, Store, broken, malformed};
use crate::{
    fid::{from_key, key},
    venus::face::ObjectId,
};

/// Tables that older versions of venus do without, so they are made whenever they are missing.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS base (
        id BLOB PRIMARY KEY, time INTEGER NOT NULL, container INTEGER NOT NULL, author INTEGER NOT NULL,
        seq INTEGER NOT NULL, length INTEGER NOT NULL, hash BLOB NOT NULL, mtime INTEGER NOT NULL, host TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS base_container ON base (container);
";

/// What one file was.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// The file.
    pub file: ObjectId,
    /// When it was first written after that, in nanoseconds since 1970.
    pub time: i64,
    /// Where the contents are.
    pub container: u64,
    /// The version that they are.
    pub version: Sibling,
}

const COLUMNS: &str = "id, time, container, author, seq, length, hash, mtime, host";

type Columns = (Vec<u8>, i64, i64, i64, i64, i64, Vec<u8>, i64, String);

fn columns(row: &rusqlite::Row) -> rusqlite::Result<Columns> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
        row.get(7)?,
        row.get(8)?,
    ))
}

fn base((id, time, container, author, seq, length, hash, mtime, host): Columns) -> Result<Base> {
    let dot = wire::Dot { author: author as u64, seq: seq as u64 };
    Ok(Base {
        file: from_key(&id).ok_or_else(|| malformed("an object's key"))?,
        time,
        container: container as u64,
        version: Sibling {
            dot: Dot::try_from(dot).map_err(malformed)?,
            length: length as u64,
            hash: hash.try_into().map_err(|_| malformed("a hash"))?,
            mtime,
            host,
        },
    })
}

impl Store {
    /// Keeps what a file was, instead of what was kept of it before.
    pub fn keep_base(&self, base: &Base) -> Result<()> {
        let Base { file, time, container, version } = base;
        self.db
            .prepare_cached(&format!(
                "INSERT OR REPLACE INTO base ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            ))
            .and_then(|mut put| {
                put.execute(params![
                    &key(*file)[..],
                    time,
                    *container as i64,
                    version.dot.author.0 as i64,
                    version.dot.seq as i64,
                    version.length as i64,
                    &version.hash[..],
                    version.mtime,
                    version.host
                ])
            })
            .map_err(broken)?;
        Ok(())
    }

    /// What a file was, if that is kept.
    pub fn base(&self, file: ObjectId) -> Result<Option<Base>> {
        let sql = format!("SELECT {COLUMNS} FROM base WHERE id = ?");
        let mut ask = self.db.prepare_cached(&sql).map_err(broken)?;
        ask.query_row([&key(file)[..]], columns).optional().map_err(broken)?.map(base).transpose()
    }

    /// All of them, the latest first.
    pub fn bases(&self) -> Result<Vec<Base>> {
        let sql = format!("SELECT {COLUMNS} FROM base ORDER BY time DESC, id");
        let mut ask = self.db.prepare_cached(&sql).map_err(broken)?;
        let rows = ask.query_map([], columns).map_err(broken)?;
        rows.map(|row| base(row.map_err(broken)?)).collect()
    }

    /// Keeps it no longer. Its container belongs to nobody then.
    pub fn forget_base(&self, file: ObjectId) -> Result<()> {
        let mut gone = self.db.prepare_cached("DELETE FROM base WHERE id = ?").map_err(broken)?;
        gone.execute([&key(file)[..]]).map(drop).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, Fid, VolumeId};

    use super::*;

    #[test]
    fn what_a_file_was_is_kept_once_and_its_container_with_it() {
        let store = Store::open(None).unwrap();
        let file = ObjectId { realm: 1, fid: Fid { volume: VolumeId(7), vnode: 2, unique: u64::MAX } };
        let version = |seq| Sibling {
            dot: Dot::new(Author(u64::MAX), seq),
            length: 5,
            hash: [9; 32],
            mtime: -1,
            host: "laptop".into(),
        };
        let base = |time, container, seq| Base { file, time, container, version: version(seq) };
        store.keep_base(&base(1, 10, 1)).unwrap();
        store.keep_base(&base(2, 11, 2)).unwrap();
        assert_eq!(store.base(file).unwrap(), Some(base(2, 11, 2)));
        assert_eq!(store.bases().unwrap(), [base(2, 11, 2)]);
        assert!(store.names_container(11).unwrap() && !store.names_container(10).unwrap());
        store.forget_base(file).unwrap();
        assert!(store.base(file).unwrap().is_none() && !store.names_container(11).unwrap());
    }
}
