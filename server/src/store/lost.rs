//! Contents whose bytes are not what their hash names: what is looked at, what was lost, what is back.

use coda_proto::{Dot, Fid};
use rusqlite::params;

use super::{
    Bytes, StoreError, Txn, View,
    rows::{dot, fid, signed},
};

/// Contents as the scrubber meets them.
#[derive(Clone, Debug)]
pub struct StoredRow {
    /// Where the next look goes on.
    pub place: i64,
    /// How many bytes.
    pub length: u64,
    /// Their BLAKE3.
    pub hash: Vec<u8>,
    /// Where they are.
    pub bytes: Bytes,
}

/// Contents whose bytes are to come from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRow {
    /// The file.
    pub fid: Fid,
    /// The Store that made them.
    pub made: Dot,
    /// How many bytes.
    pub length: u64,
    /// Their BLAKE3.
    pub hash: [u8; 32],
}

impl View<'_> {
    /// Where the scrubber is.
    pub fn scrubbed(&self) -> Result<i64, StoreError> {
        Ok(self.db.prepare_cached("SELECT place FROM scrubber")?.query_row([], |row| row.get(0))?)
    }

    /// The next contents after a place: those of all versions, then what files were before. Former ones have the
    /// places below zero.
    pub fn stored_after(&self, place: i64, limit: u32) -> Result<Vec<StoredRow>, StoreError> {
        if place >= 0 {
            let present = self.stored(
                "SELECT rowid, length, hash, bytes, container FROM content WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
                params![place, limit],
            )?;
            if !present.is_empty() {
                return Ok(present);
            }
        }
        self.stored(
            "SELECT -nr, length, hash, bytes, container FROM former WHERE nr > ?1 ORDER BY nr LIMIT ?2",
            params![-place.min(0), limit],
        )
    }

    /// The contents at a place.
    pub fn stored_at(&self, place: i64) -> Result<Option<StoredRow>, StoreError> {
        let sql = match place < 0 {
            true => "SELECT -nr, length, hash, bytes, container FROM former WHERE nr = -?1",
            false => "SELECT rowid, length, hash, bytes, container FROM content WHERE rowid = ?1",
        };
        Ok(self.stored(sql, [place])?.pop())
    }

    fn stored(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<StoredRow>, StoreError> {
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map(values, |row| {
            let bytes = match row.get::<_, Option<String>>(4)? {
                Some(container) => Bytes::Container(container),
                None => Bytes::Inline(row.get(3)?),
            };
            Ok(StoredRow { place: row.get(0)?, length: row.get(1)?, hash: row.get(2)?, bytes })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What was lost and is not back, at most so much of it.
    pub fn lost(&self, limit: u32) -> Result<Vec<LostRow>, StoreError> {
        let mut query =
            self.db.prepare_cached("SELECT vnode, uniq, author, seq, length, hash FROM lost LIMIT ?1")?;
        let rows = query.query_map([limit], |row| {
            let hash: Vec<u8> = row.get(5)?;
            Ok(LostRow {
                fid: fid(self.volume, row.get(0)?, row.get(1)?),
                made: dot(row.get(2)?, row.get(3)?),
                length: row.get(4)?,
                hash: hash.try_into().unwrap_or_default(),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Txn<'_> {
    /// Notes where the scrubber is.
    pub fn put_scrubbed(&mut self, place: i64) -> Result<(), StoreError> {
        self.db.prepare_cached("UPDATE scrubber SET place = ?1")?.execute([place])?;
        Ok(())
    }

    /// Contents with this hash are damaged: those in `container`, or those whose row holds something else.
    /// Answers the file of each version that lost its bytes. What files were before is forgotten: no peer is asked for it.
    pub fn lose(&mut self, hash: &[u8], container: Option<&str>) -> Result<Vec<Fid>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT vnode, uniq, author, seq, length, bytes, container FROM content WHERE hash = ?1",
        )?;
        let rows = query
            .query_map([hash], |row| {
                let key: (u32, i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                let held: (Option<Vec<u8>>, Option<String>) = (row.get(5)?, row.get(6)?);
                Ok((key, row.get::<_, u64>(4)?, held))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        drop(query);
        let mut lost = Vec::new();
        for ((vnode, uniq, author, seq), length, (bytes, name)) in rows {
            let damaged = match (&bytes, container) {
                (Some(bytes), _) => blake3::hash(bytes).as_bytes()[..] != *hash,
                (None, container) => container.is_some() && name.as_deref() == container,
            };
            if damaged {
                self.db
                    .prepare_cached("INSERT OR REPLACE INTO lost VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                    .execute(params![vnode, uniq, author, seq, length, hash])?;
                self.db
                    .prepare_cached(
                        "DELETE FROM content WHERE vnode = ?1 AND uniq = ?2 AND author = ?3 AND seq = ?4",
                    )?
                    .execute(params![vnode, uniq, author, seq])?;
                lost.push(fid(self.volume, vnode, uniq));
            }
        }
        self.lose_formers(hash, container)?;
        Ok(lost)
    }

    /// Forgets that something was lost if it is back, or if its version is no more.
    pub fn find(&mut self, lost: &LostRow) -> Result<bool, StoreError> {
        let wanted = self
            .head(lost.fid)?
            .is_some_and(|head| head.siblings.iter().any(|sibling| sibling.dot == lost.made));
        let found = !wanted || self.content(lost.fid, lost.made)?.is_some();
        if found {
            self.db
                .prepare_cached(
                    "DELETE FROM lost WHERE vnode = ?1 AND uniq = ?2 AND author = ?3 AND seq = ?4",
                )?
                .execute(params![
                    lost.fid.vnode,
                    signed(lost.fid.unique),
                    signed(lost.made.author.0),
                    signed(lost.made.seq)
                ])?;
        }
        Ok(found)
    }
}
