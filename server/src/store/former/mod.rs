//! What files were before they were written. It is kept for a while, so that of versions which turn up later, made
//! without knowledge of each other, the one is found that all of them were made from.
//!
//! Every member keeps it for itself, and tells whoever asks: it takes no part in versions, joins, quotas, dumps or
//! clones, and nothing is wrong where it is missing. Of one file there are a few versions, spread over time; all
//! together they take no more than a share of what the volume holds. Large files leave nothing: people merge texts.

#[cfg(test)]
mod tests;

use coda_proto::{Dot, Fid, Past, Sibling, merge::Head};
use rusqlite::{OptionalExtension, params};

use super::{
    StoreError, Txn, View,
    rows::{decode_past, dot, encode_past, signed},
    view::{Content, content},
};

/// Larger versions are not kept.
const LARGEST: u64 = 16 << 20;
/// Versions of one file.
const OF_ONE: usize = 8;
/// Of the bytes that a volume holds, the share that all of them may take: one of so many.
const SHARE: u64 = 8;
/// So much they may take at any rate.
const AT_LEAST: u64 = 16 << 20;
/// Looked at in one transaction: while it runs nobody else writes.
const AT_ONCE: u32 = 1000;
/// Forgotten for one that is kept, at most.
const AT_A_STORE: u32 = 16;

/// A version that was replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Former {
    /// As it was.
    pub version: Sibling,
    /// What its author had seen of the file; empty where that is not known here.
    pub seen: Past,
}

impl View<'_> {
    /// Whether a file has contents.
    pub fn has_contents(&self, fid: Fid) -> Result<bool, StoreError> {
        let mut query =
            self.db.prepare_cached("SELECT 1 FROM content WHERE vnode = ?1 AND uniq = ?2 LIMIT 1")?;
        Ok(query.exists(params![fid.vnode, signed(fid.unique)])?)
    }

    /// What a file was, as far as it is kept, in the order in which it was replaced.
    pub fn formers(&self, fid: Fid) -> Result<Vec<Former>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT author, seq, length, hash, mtime, host, seen FROM former
             WHERE vnode = ?1 AND uniq = ?2 ORDER BY nr",
        )?;
        let mut rows = query.query(params![fid.vnode, signed(fid.unique)])?;
        let mut formers = Vec::new();
        while let Some(row) = rows.next()? {
            let hash: Vec<u8> = row.get(3)?;
            let version = Sibling {
                dot: dot(row.get(0)?, row.get(1)?),
                length: row.get(2)?,
                hash: hash.try_into().unwrap_or_default(),
                mtime: row.get(4)?,
                host: row.get(5)?,
            };
            formers.push(Former { version, seen: decode_past(row.get_ref(6)?.as_blob()?)? });
        }
        Ok(formers)
    }

    /// The contents of one of them.
    pub fn former_content(&self, fid: Fid, made: Dot) -> Result<Option<Content>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT length, hash, bytes, container FROM former
             WHERE vnode = ?1 AND uniq = ?2 AND author = ?3 AND seq = ?4",
        )?;
        let key = params![fid.vnode, signed(fid.unique), signed(made.author.0), signed(made.seq)];
        Ok(query.query_row(key, content).optional()?)
    }

    /// What the authors of a file's versions had seen of it, as far as their records came here.
    pub fn seen_by(&self, fid: Fid) -> Result<Vec<(Dot, Past)>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT author, seq, past FROM seen WHERE vnode = ?1 AND uniq = ?2 ORDER BY 1, 2",
        )?;
        let mut rows = query.query(params![fid.vnode, signed(fid.unique)])?;
        let mut seen = Vec::new();
        while let Some(row) = rows.next()? {
            seen.push((dot(row.get(0)?, row.get(1)?), decode_past(row.get_ref(2)?.as_blob()?)?));
        }
        Ok(seen)
    }

    /// Bytes of all that is kept.
    pub fn former_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.db.prepare_cached("SELECT bytes FROM kept")?.query_row([], |row| row.get(0))?)
    }
}

impl Txn<'_> {
    /// Notes what the author of a version had seen.
    pub fn put_seen(&mut self, fid: Fid, made: Dot, seen: &Past) -> Result<(), StoreError> {
        let mut insert = self.db.prepare_cached("INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3, ?4, ?5)")?;
        let (author, seq) = (signed(made.author.0), signed(made.seq));
        insert.execute(params![fid.vnode, signed(fid.unique), author, seq, encode_past(seen)])?;
        Ok(())
    }

    /// Keeps what a head is about to replace: to be called before it is written, and before its contents are dropped.
    /// Answers whether there are any to be dropped.
    pub(super) fn keep_replaced(&mut self, head: &Head) -> Result<bool, StoreError> {
        let fid = head.fid;
        let stays = |made: Dot| head.siblings.iter().any(|sibling| sibling.dot == made);
        let mut query =
            self.db.prepare_cached("SELECT author, seq FROM content WHERE vnode = ?1 AND uniq = ?2")?;
        let made = query
            .query_map(params![fid.vnode, signed(fid.unique)], |row| Ok(dot(row.get(0)?, row.get(1)?)))?
            .collect::<Result<Vec<_>, _>>()?;
        drop(query);
        if made.iter().all(|made| stays(*made)) {
            return Ok(false);
        }
        let held = self.head(fid)?.map(|held| held.siblings).unwrap_or_default();
        let worth = |version: &&Sibling| (1..=LARGEST).contains(&version.length) && !stays(version.dot);
        for version in held.iter().filter(worth) {
            self.keep_former(fid, version)?;
        }
        self.forget_seen(fid, stays)?;
        self.thin(fid)?;
        // Where much is to go, because the volume holds less than it did, it goes with the next ones.
        self.make_room(AT_A_STORE)?;
        Ok(true)
    }

    /// Forgets the oldest, so many of them at most, while all together take more than they may. Answers whether that
    /// is still so.
    fn make_room(&mut self, at_most: u32) -> Result<bool, StoreError> {
        let room = AT_LEAST.max(self.used().saturating_mul(1024) / SHARE);
        for _ in 0..at_most {
            if self.former_bytes()? <= room || !self.forget_former("ORDER BY nr", [])? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Forgets what the authors of versions had seen that are not present any more: former ones say it themselves.
    fn forget_seen(&mut self, fid: Fid, stays: impl Fn(Dot) -> bool) -> Result<(), StoreError> {
        for (made, _) in self.seen_by(fid)?.into_iter().filter(|(made, _)| !stays(*made)) {
            self.db
                .prepare_cached(
                    "DELETE FROM seen WHERE vnode = ?1 AND uniq = ?2 AND author = ?3 AND seq = ?4",
                )?
                .execute(params![fid.vnode, signed(fid.unique), signed(made.author.0), signed(made.seq)])?;
        }
        Ok(())
    }

    fn keep_former(&mut self, fid: Fid, version: &Sibling) -> Result<(), StoreError> {
        let (author, seq) = (signed(version.dot.author.0), signed(version.dot.seq));
        let uniq = signed(fid.unique);
        let kept = self
            .db
            .prepare_cached(
                "INSERT OR IGNORE INTO former(vnode, uniq, author, seq, length, hash, mtime, host, seen, bytes, container)
                 SELECT vnode, uniq, author, seq, length, hash, ?5, ?6,
                     coalesce((SELECT past FROM seen WHERE vnode = ?1 AND uniq = ?2 AND author = ?3 AND seq = ?4), x''),
                     bytes, container
                 FROM content WHERE vnode = ?1 AND uniq = ?2 AND author = ?3 AND seq = ?4",
            )?
            .execute(params![fid.vnode, uniq, author, seq, version.mtime, version.host])?;
        if kept > 0 {
            self.db.prepare_cached("UPDATE kept SET bytes = bytes + ?1")?.execute([version.length])?;
            self.db
                .prepare_cached(
                    "DELETE FROM content WHERE vnode = ?1 AND uniq = ?2 AND author = ?3 AND seq = ?4",
                )?
                .execute(params![fid.vnode, uniq, author, seq])?;
        }
        Ok(())
    }

    /// Leaves so many versions of a file as are kept of one.
    fn thin(&mut self, fid: Fid) -> Result<(), StoreError> {
        loop {
            let mut query = self
                .db
                .prepare_cached("SELECT mtime FROM former WHERE vnode = ?1 AND uniq = ?2 ORDER BY nr")?;
            let times = query
                .query_map(params![fid.vnode, signed(fid.unique)], |row| row.get(0))?
                .collect::<Result<Vec<i64>, _>>()?;
            drop(query);
            let Some(place) = spare(&times) else { return Ok(()) };
            self.forget_former(
                "WHERE vnode = ?1 AND uniq = ?2 ORDER BY nr LIMIT 1 OFFSET ?3",
                params![fid.vnode, signed(fid.unique), place as i64],
            )?;
        }
    }

    /// Forgets the first that is found so; answers whether there was one.
    fn forget_former(&mut self, which: &str, values: impl rusqlite::Params) -> Result<bool, StoreError> {
        let found = self
            .db
            .prepare_cached(&format!("SELECT nr, length, container FROM former {which}"))?
            .query_row(values, |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?, row.get::<_, Option<String>>(2)?))
            })
            .optional()?;
        let Some((nr, length, container)) = found else { return Ok(false) };
        self.db.prepare_cached("DELETE FROM former WHERE nr = ?1")?.execute([nr])?;
        self.db.prepare_cached("UPDATE kept SET bytes = max(0, bytes - ?1)")?.execute([length])?;
        if let Some(container) = container {
            self.discard(&container)?;
        }
        Ok(true)
    }

    /// Forgets everything that a file was.
    pub(super) fn forget_formers_of(&mut self, fid: Fid) -> Result<(), StoreError> {
        let (vnode, uniq) = (fid.vnode, signed(fid.unique));
        while self.forget_former("WHERE vnode = ?1 AND uniq = ?2", params![vnode, uniq])? {}
        self.db
            .prepare_cached("DELETE FROM seen WHERE vnode = ?1 AND uniq = ?2")?
            .execute(params![vnode, uniq])?;
        Ok(())
    }

    /// Forgets what has been kept since before a time, and dates what is new. Answers whether there may be more.
    pub fn forget_formers(&mut self, before: i64, now: i64) -> Result<bool, StoreError> {
        // Nothing in the writer's way reads a clock.
        self.db.prepare_cached("UPDATE former SET noticed = ?1 WHERE noticed = 0")?.execute([now])?;
        for _ in 0..AT_ONCE {
            if !self.forget_former("WHERE noticed < ?1 ORDER BY noticed", [before])? {
                return Ok(self.make_room(AT_ONCE)? || self.forget_seen_of_none()?);
            }
        }
        Ok(true)
    }

    /// Forgets what authors had seen of files of which nothing is kept any more: there is nothing to find by it.
    fn forget_seen_of_none(&mut self) -> Result<bool, StoreError> {
        let forgotten = self
            .db
            .prepare_cached(
                "DELETE FROM seen WHERE (vnode, uniq, author, seq) IN (
                     SELECT vnode, uniq, author, seq FROM seen WHERE NOT EXISTS (
                         SELECT 1 FROM former WHERE former.vnode = seen.vnode AND former.uniq = seen.uniq)
                     LIMIT ?1)",
            )?
            .execute([AT_ONCE])?;
        Ok(forgotten == AT_ONCE as usize)
    }

    /// Forgets former versions with this hash that are damaged: those in `container`, or those whose row holds
    /// something else.
    pub(super) fn lose_formers(&mut self, hash: &[u8], container: Option<&str>) -> Result<(), StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT nr, length, bytes FROM former WHERE hash = ?1 AND container IS ?2")?;
        let rows = query
            .query_map(params![hash, container], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?, row.get::<_, Option<Vec<u8>>>(2)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        drop(query);
        for (nr, length, bytes) in rows {
            if bytes.is_some_and(|bytes| blake3::hash(&bytes).as_bytes()[..] == *hash) {
                continue;
            }
            // Its container was put aside: there is nothing to collect.
            self.db.prepare_cached("DELETE FROM former WHERE nr = ?1")?.execute([nr])?;
            self.db.prepare_cached("UPDATE kept SET bytes = max(0, bytes - ?1)")?.execute([length])?;
        }
        Ok(())
    }
}

/// Which version to give up where there are too many of one file, by the times at which they were made: one that is
/// neither the oldest nor the newest, and is missed least.
fn spare(times: &[i64]) -> Option<usize> {
    if times.len() <= OF_ONE {
        return None;
    }
    let gap = |place: &usize| times[place + 1].saturating_sub(times[place - 1]);
    (1..times.len() - 1).min_by_key(gap)
}
