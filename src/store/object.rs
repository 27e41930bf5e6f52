//! Rows of cached objects.

use coda_proto::{Dot, Entry, Fid, Kind, Status, VolumeId, id::optional, id::required, wire};
use prost::Message;
use rusqlite::{OptionalExtension, params};

use super::{Result, Store, broken, malformed};
use crate::{
    error::Error,
    fid::{self, from_key, key},
    venus::face::ObjectId,
};

/// What is known of a cached object.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// As a server showed it, our own unsent updates included.
    pub status: Status,
    /// All entries of the directory are in the store.
    pub complete: bool,
    /// Contents of a file.
    pub data: Option<Data>,
    /// Grows with every new version of the contents.
    pub version: u64,
    /// Its container is open for writing: after a crash it may hold what no server has.
    pub writing: bool,
}

/// Which contents a container holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// The container's name.
    pub container: u64,
    /// The Store that made these contents; `None`: those of a file never stored.
    pub dot: Option<Dot>,
    /// Bytes counted against the budget.
    pub length: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RowMessage {
    #[prost(message, optional, tag = "1")]
    status: Option<wire::Status>,
    #[prost(bool, tag = "2")]
    complete: bool,
    #[prost(uint64, optional, tag = "3")]
    container: Option<u64>,
    #[prost(message, optional, tag = "4")]
    dot: Option<wire::Dot>,
    #[prost(uint64, tag = "5")]
    length: u64,
    #[prost(uint64, tag = "6")]
    version: u64,
    #[prost(bool, tag = "7")]
    writing: bool,
}

impl Row {
    /// A row for a status just learnt.
    pub fn new(status: Status) -> Row {
        Row { status, complete: false, data: None, version: 1, writing: false }
    }

    /// Whether the contents here are those that the status shows.
    pub fn has_contents(&self) -> bool {
        self.data.is_some_and(|data| data.dot == self.shown())
    }

    /// The Store whose contents show.
    pub fn shown(&self) -> Option<Dot> {
        self.status.siblings.first().map(|sibling| sibling.dot)
    }

    /// The same version as a server shows it. A removed child that was changed elsewhere comes back into
    /// its directory without a change of the directory's own past: then only the number of entries tells.
    pub fn confirmed(&self, status: Status) -> Row {
        let complete = self.complete && status.length == self.status.length;
        Row { complete, status, ..self.clone() }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        RowMessage::from(self).encode_to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Row> {
        RowMessage::decode(bytes).map_err(malformed)?.try_into()
    }
}

impl From<&Row> for RowMessage {
    fn from(row: &Row) -> RowMessage {
        RowMessage {
            status: Some((&row.status).into()),
            complete: row.complete,
            container: row.data.map(|data| data.container),
            dot: row.data.and_then(|data| data.dot).map(Into::into),
            length: row.data.map_or(0, |data| data.length),
            version: row.version,
            writing: row.writing,
        }
    }
}

impl TryFrom<RowMessage> for Row {
    type Error = Error;
    fn try_from(row: RowMessage) -> Result<Row> {
        let dot = optional(row.dot).map_err(malformed)?;
        Ok(Row {
            status: required(row.status, "row").map_err(malformed)?,
            complete: row.complete,
            data: row.container.map(|container| Data { container, dot, length: row.length }),
            version: row.version,
            writing: row.writing,
        })
    }
}

fn kind_of(number: i64) -> Result<Kind> {
    Kind::try_from(number as i32).map_err(malformed)
}

/// An entry's columns.
type Columns = (Vec<u8>, Vec<u8>, i64, i64, i64);

fn entry_of(row: &rusqlite::Row) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn entry((name, fid, kind, author, seq): Columns) -> Result<Entry> {
    let dot = wire::Dot { author: author as u64, seq: seq as u64 };
    Ok(Entry {
        name,
        fid: from_key(&fid).ok_or_else(|| malformed("an entry's key"))?.fid,
        kind: kind_of(kind)?,
        dot: dot.try_into().map_err(malformed)?,
    })
}

/// A cached object as eviction sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which.
    pub id: ObjectId,
    /// Its row.
    pub row: Row,
    /// Whether objects below it are cached.
    pub has_children: bool,
}

impl Store {
    /// An object's row.
    pub fn row(&self, id: ObjectId) -> Result<Option<Row>> {
        let mut ask = self.db.prepare_cached("SELECT row FROM object WHERE id = ?").map_err(broken)?;
        let bytes: Option<Vec<u8>> =
            ask.query_row([&key(id)[..]], |row| row.get(0)).optional().map_err(broken)?;
        bytes.map(|bytes| Row::decode(&bytes)).transpose()
    }

    /// All bindings of one name of a cached directory, the one that keeps the plain name first.
    pub fn named(&self, dir: ObjectId, name: &[u8]) -> Result<Vec<Entry>> {
        let mut ask = self
            .db
            .prepare_cached("SELECT name, fid, kind, author, seq FROM entry WHERE dir = ? AND name = ?")
            .map_err(broken)?;
        let rows = ask.query_map(params![&key(dir)[..], name], entry_of).map_err(broken)?;
        let mut entries = rows.map(|row| entry(row.map_err(broken)?)).collect::<Result<Vec<Entry>>>()?;
        entries.sort_by_key(|entry| entry.dot);
        Ok(entries)
    }

    /// All bindings of a cached directory in the order of names.
    pub fn entries(&self, dir: ObjectId) -> Result<Vec<Entry>> {
        self.entries_after(dir, b"", i64::MAX)
    }

    /// Up to `limit` bindings of a cached directory from `name` on.
    pub fn entries_after(&self, dir: ObjectId, name: &[u8], limit: i64) -> Result<Vec<Entry>> {
        let mut ask = self
            .db
            .prepare_cached(
                "SELECT name, fid, kind, author, seq FROM entry WHERE dir = ? AND name >= ? ORDER BY name LIMIT ?",
            )
            .map_err(broken)?;
        let rows = ask.query_map(params![&key(dir)[..], name, limit], entry_of).map_err(broken)?;
        rows.map(|row| entry(row.map_err(broken)?)).collect()
    }

    /// Whether a cached directory has any binding.
    pub fn is_empty(&self, dir: ObjectId) -> Result<bool> {
        let mut ask = self.db.prepare_cached("SELECT 1 FROM entry WHERE dir = ? LIMIT 1").map_err(broken)?;
        Ok(!ask.exists([&key(dir)[..]]).map_err(broken)?)
    }

    /// How many objects are cached, and the bytes of their containers.
    pub fn totals(&self) -> Result<(u64, u64)> {
        let objects: i64 =
            self.db.query_row("SELECT count(*) FROM object", [], |row| row.get(0)).map_err(broken)?;
        let bytes: i64 = self
            .db
            .query_row("SELECT coalesce(sum(bytes), 0) FROM object WHERE container IS NOT NULL", [], |row| {
                row.get(0)
            })
            .map_err(broken)?;
        Ok((objects as u64, bytes as u64))
    }

    /// Objects longest unused, from `skip` on.
    pub fn oldest(&self, skip: i64, limit: i64) -> Result<Vec<Candidate>> {
        let mut ask = self
            .db
            .prepare_cached(
                "SELECT id, row, EXISTS (SELECT 1 FROM object child WHERE child.parent = object.id
                     AND child.id <> object.id)
                 FROM object ORDER BY used LIMIT ? OFFSET ?",
            )
            .map_err(broken)?;
        let rows = ask
            .query_map([limit, skip], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, bool>(2)?))
            })
            .map_err(broken)?;
        rows.map(|row| {
            let (id, bytes, has_children) = row.map_err(broken)?;
            let id = from_key(&id).ok_or_else(|| malformed("an object's key"))?;
            Ok(Candidate { id, row: Row::decode(&bytes)?, has_children })
        })
        .collect()
    }

    /// Notes when objects were last used.
    pub fn used(&mut self, ticks: &[(ObjectId, u64)]) -> Result<()> {
        let tx = self.db.transaction().map_err(broken)?;
        {
            let mut set = tx.prepare_cached("UPDATE object SET used = ? WHERE id = ?").map_err(broken)?;
            for (id, tick) in ticks {
                set.execute(params![*tick as i64, &key(*id)[..]]).map_err(broken)?;
            }
        }
        tx.commit().map_err(broken)
    }

    /// The latest use noted.
    pub fn last_used(&self) -> Result<u64> {
        let last: Option<i64> =
            self.db.query_row("SELECT max(used) FROM object", [], |row| row.get(0)).map_err(broken)?;
        Ok(last.unwrap_or(0) as u64)
    }

    /// Cached objects of a volume with their rows.
    pub fn of_volume(&self, realm: u32, volume: VolumeId) -> Result<Vec<(ObjectId, Row)>> {
        let (first, last) = fid::volume_keys(realm, volume);
        let mut ask =
            self.db.prepare_cached("SELECT id, row FROM object WHERE id BETWEEN ? AND ?").map_err(broken)?;
        let rows = ask
            .query_map([&first[..], &last[..]], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
            })
            .map_err(broken)?;
        rows.map(|row| {
            let (id, bytes) = row.map_err(broken)?;
            Ok((from_key(&id).ok_or_else(|| malformed("an object's key"))?, Row::decode(&bytes)?))
        })
        .collect()
    }

    /// Of `limit` objects of a volume behind `after`: how many are in conflict, and the last one, if there may be more.
    pub fn undecided_after(
        &self,
        (realm, volume): (u32, VolumeId),
        after: Option<ObjectId>,
        limit: u32,
    ) -> Result<(u64, Option<ObjectId>)> {
        let (first, last) = fid::volume_keys(realm, volume);
        let after = after.map(|id| key(id).to_vec());
        let mut ask = self
            .db
            .prepare_cached(
                "SELECT id, row FROM object WHERE id BETWEEN ?1 AND ?2 AND (?3 IS NULL OR id > ?3) \
                 ORDER BY id LIMIT ?4",
            )
            .map_err(broken)?;
        let mut rows = ask.query(rusqlite::params![&first[..], &last[..], after, limit]).map_err(broken)?;
        let (mut found, mut read, mut end) = (0, 0, None);
        while let Some(row) = rows.next().map_err(broken)? {
            let id = row.get_ref(0).and_then(|id| Ok(id.as_blob()?)).map_err(broken)?;
            end = Some(from_key(id).ok_or_else(|| malformed("an object's key"))?);
            let status =
                Row::decode(row.get_ref(1).and_then(|row| Ok(row.as_blob()?)).map_err(broken)?)?.status;
            found += u64::from(status.in_conflict() || status.marked);
            read += 1;
        }
        Ok((found, end.filter(|_| read == limit)))
    }

    /// How many objects of a volume are cached.
    pub fn count(&self, realm: u32, volume: VolumeId) -> Result<u64> {
        let (first, last) = fid::volume_keys(realm, volume);
        self.db
            .prepare_cached("SELECT count(*) FROM object WHERE id BETWEEN ? AND ?")
            .and_then(|mut ask| ask.query_row([&first[..], &last[..]], |row| row.get::<_, i64>(0)))
            .map(|count| count as u64)
            .map_err(broken)
    }

    /// Volumes of which something is cached.
    pub fn volumes(&self) -> Result<Vec<(u32, VolumeId)>> {
        let mut ask = self
            .db
            .prepare_cached("SELECT DISTINCT substr(id, 1, 8) FROM object ORDER BY 1")
            .map_err(broken)?;
        let rows = ask.query_map([], |row| row.get::<_, Vec<u8>>(0)).map_err(broken)?;
        rows.map(|row| {
            let mut bytes = row.map_err(broken)?;
            bytes.resize(fid::KEY, 0);
            let id = from_key(&bytes).ok_or_else(|| malformed("an object's key"))?;
            Ok((id.realm, id.fid.volume))
        })
        .collect()
    }

    /// Cached objects that show in a directory.
    pub fn children(&self, dir: ObjectId) -> Result<Vec<ObjectId>> {
        let mut ask =
            self.db.prepare_cached("SELECT id FROM object WHERE parent = ?1 AND id <> ?1").map_err(broken)?;
        let rows = ask.query_map([&key(dir)[..]], |row| row.get::<_, Vec<u8>>(0)).map_err(broken)?;
        rows.map(|row| from_key(&row.map_err(broken)?).ok_or_else(|| malformed("an object's key"))).collect()
    }

    /// Files in conflict that show in a directory, as far as they are cached.
    pub fn undecided_in(&self, dir: ObjectId) -> Result<Vec<ObjectId>> {
        let mut ask = self
            .db
            .prepare_cached("SELECT id, row FROM object WHERE parent = ?1 AND id <> ?1")
            .map_err(broken)?;
        let rows = ask
            .query_map([&key(dir)[..]], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .map_err(broken)?;
        let mut found = Vec::new();
        for row in rows {
            let (id, bytes) = row.map_err(broken)?;
            if Row::decode(&bytes)?.status.in_conflict() {
                found.push(from_key(&id).ok_or_else(|| malformed("an object's key"))?);
            }
        }
        Ok(found)
    }

    /// A name under which a cached directory holds an object.
    pub fn name_in(&self, dir: ObjectId, fid: Fid) -> Result<Option<Vec<u8>>> {
        let mut ask = self
            .db
            .prepare_cached("SELECT name FROM entry INDEXED BY entry_child WHERE dir = ? AND fid = ? LIMIT 1")
            .map_err(broken)?;
        let child = key(ObjectId { realm: dir.realm, fid });
        ask.query_row([&key(dir)[..], &child[..]], |row| row.get(0)).optional().map_err(broken)
    }

    /// Files that were open for writing when the last run ended.
    pub fn writing(&self) -> Result<Vec<(ObjectId, Row)>> {
        let mut ask =
            self.db.prepare_cached("SELECT id, row FROM object WHERE writing <> 0").map_err(broken)?;
        let rows = ask
            .query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .map_err(broken)?;
        rows.map(|row| {
            let (id, bytes) = row.map_err(broken)?;
            Ok((from_key(&id).ok_or_else(|| malformed("an object's key"))?, Row::decode(&bytes)?))
        })
        .collect()
    }

    /// Whether an object or the log names this container.
    pub fn names_container(&self, container: u64) -> Result<bool> {
        let mut ask = self
            .db
            .prepare_cached(
                "SELECT 1 FROM object WHERE container = ?1
                 UNION ALL SELECT 1 FROM undo_container WHERE container = ?1
                 UNION ALL SELECT 1 FROM base WHERE container = ?1",
            )
            .map_err(broken)?;
        Ok(ask.exists([container as i64]).map_err(broken)? || self.log_names_container(container)?)
    }
}
