//! Retired authors: those of which no record will ever be taken again.
//!
//! Each is on the list with a *stamp*. A member draws stamps that are larger than all it knows of, so that
//! whoever was folded away before an author wrote something has a smaller one than that author. Three marks,
//! which only grow, say how far the members have come:
//!
//! ```text
//!  promised   this member gives nobody a stamp up to here any more
//!  complete   it knows of all who have one up to here, and takes nothing of theirs: all members had promised
//!  included   it has heard all that they did: all members were complete when it heard them
//! ```
//!
//! Where every member includes all that some authors did, one entry stands for theirs in a past.

use coda_proto::{
    Author, ServerId,
    merge::{Replica as _, fold},
};
use rusqlite::{OptionalExtension, params};

use super::{
    StoreError, Txn, View,
    rows::{decode_past, fid, signed, unsigned},
};

/// Bytes of a past from which on the index knows it: about ten authors. The index has the same number.
pub const LONG: u32 = 128;
/// Pasts of more bytes, by the index.
const INDEXED: &str = "SELECT vnode, uniq FROM head WHERE length(past) > 128 AND length(past) > ?4 \
    AND (vnode, uniq) > (?1, ?2) ORDER BY vnode, uniq LIMIT ?3";
/// The same for fewer bytes.
const ANY: &str = "SELECT vnode, uniq FROM head WHERE length(past) > ?4 AND (vnode, uniq) > (?1, ?2) \
    ORDER BY vnode, uniq LIMIT ?3";

/// Which pasts are to be folded.
#[derive(Clone, Copy, Debug)]
pub struct Foldable {
    /// Authors retired up to this stamp.
    pub stamp: u64,
    /// Bytes of a past that is too short.
    pub bytes: u32,
    /// So many authors of it at least.
    pub at_least: usize,
}

/// How far a member has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// It gives nobody a stamp up to here.
    pub promised: u64,
    /// It knows of all who have one.
    pub complete: u64,
    /// It includes all that they did.
    pub included: u64,
}

/// An author on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetiredRow {
    /// Its place here.
    pub nr: u64,
    /// Who.
    pub author: Author,
    /// When, in the order that all members agree on.
    pub stamp: u64,
}

/// Where a round of folding goes on, and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Objects whose pasts are shorter now.
    pub objects: u64,
    /// The last one looked at; `None`: there are no more.
    pub after: Option<(u32, u64)>,
}

impl View<'_> {
    /// The stamp at which an author was retired.
    pub fn retired(&self, author: Author) -> Result<Option<u64>, StoreError> {
        let mut query = self.db.prepare_cached("SELECT stamp FROM retired WHERE author = ?1")?;
        let stamp = query.query_row([signed(author.0)], |row| Ok(unsigned(row.get(0)?))).optional()?;
        Ok(stamp)
    }

    /// Retired authors behind the place `after`, at most `limit`.
    pub fn retired_after(&self, after: u64, limit: u32) -> Result<Vec<RetiredRow>, StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT nr, author, stamp FROM retired WHERE nr > ?1 ORDER BY nr LIMIT ?2")?;
        let rows = query.query_map(params![signed(after), limit], |row| {
            let author = Author(unsigned(row.get(1)?));
            Ok(RetiredRow { nr: unsigned(row.get(0)?), author, stamp: unsigned(row.get(2)?) })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How far this member has come.
    pub fn marks(&self) -> Result<Marks, StoreError> {
        let mut query = self.db.prepare_cached("SELECT promised, complete, included FROM retirement")?;
        Ok(query.query_row([], marks)?)
    }

    /// How far a peer's list has been heard.
    pub fn retired_heard(&self, server: ServerId) -> Result<u64, StoreError> {
        let mut query = self.db.prepare_cached("SELECT retired FROM peer WHERE server = ?1")?;
        Ok(query.query_row([server.0], |row| Ok(unsigned(row.get(0)?))).optional()?.unwrap_or(0))
    }

    /// How far a peer had come when all it knew was heard in this epoch of the group.
    fn marks_of(&self, server: ServerId, epoch: u64) -> Result<Marks, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT promised, complete, included FROM peer WHERE server = ?1 AND epoch = ?2",
        )?;
        Ok(query.query_row(params![server.0, signed(epoch)], marks).optional()?.unwrap_or_default())
    }

    /// All members include all that authors retired up to here did.
    pub fn included_by(&self, peers: &[ServerId], epoch: u64) -> Result<u64, StoreError> {
        let mut least = self.marks()?.included;
        for peer in peers {
            least = least.min(self.marks_of(*peer, epoch)?.included);
        }
        Ok(least)
    }
}

fn marks(row: &rusqlite::Row<'_>) -> rusqlite::Result<Marks> {
    Ok(Marks {
        promised: unsigned(row.get(0)?),
        complete: unsigned(row.get(1)?),
        included: unsigned(row.get(2)?),
    })
}

impl Txn<'_> {
    /// Puts an author on the list, at a stamp that another member gave it.
    pub fn hear_retired(&mut self, author: Author, stamp: u64) -> Result<(), StoreError> {
        // Stamps of two members for one author become the larger one, and that is news to others.
        if author != Author::ELDERS && self.retired(author)?.is_none_or(|held| held < stamp) {
            self.db.prepare_cached("DELETE FROM retired WHERE author = ?1")?.execute([signed(author.0)])?;
            self.db
                .prepare_cached("INSERT INTO retired(author, stamp) VALUES (?1, ?2)")?
                .execute([signed(author.0), signed(stamp)])?;
            self.db.prepare_cached("DELETE FROM writer WHERE author = ?1")?.execute([signed(author.0)])?;
        }
        Ok(())
    }

    /// Puts an author on the list, now. Answers whether it was not there.
    pub fn retire(&mut self, author: Author, now: i64) -> Result<bool, StoreError> {
        if author == Author::ELDERS || self.retired(author)?.is_some() {
            return Ok(false);
        }
        let last = self
            .db
            .prepare_cached("SELECT coalesce(max(stamp), 0) FROM retired")?
            .query_row([], |row| Ok(unsigned(row.get(0)?)))?;
        let stamp = (now.max(0) as u64).max(last + 1).max(self.marks()?.promised + 1);
        self.hear_retired(author, stamp.max(coda_proto::Past::STAMPS))?;
        Ok(true)
    }

    /// Notes what objects changed since the last time say of who still writes, at most `limit` of them. Answers
    /// whether there are more.
    pub fn note_writers(&mut self, limit: u32, now: i64) -> Result<bool, StoreError> {
        let from = self
            .db
            .prepare_cached("SELECT scanned FROM retirement")?
            .query_row([], |row| row.get::<_, i64>(0))?;
        let mut query = self.db.prepare_cached(
            "SELECT change_seq, past FROM head WHERE change_seq > ?1 ORDER BY change_seq LIMIT ?2",
        )?;
        let mut rows = query.query(params![from, limit])?;
        let (mut last, mut count, mut seqs) = (from, 0, std::collections::BTreeMap::new());
        while let Some(row) = rows.next()? {
            (last, count) = (row.get(0)?, count + 1);
            for entry in decode_past(row.get_ref(1)?.as_blob()?)?.entries() {
                let seq: &mut u64 = seqs.entry(entry.author).or_default();
                *seq = (*seq).max(entry.seq);
            }
        }
        drop(rows);
        for (author, seq) in seqs.into_iter().filter(|(author, _)| *author != Author::ELDERS) {
            if self.retired(author)?.is_some() {
                continue;
            }
            self.db
                .prepare_cached(
                    "INSERT INTO writer(author, seq, noticed) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET \
                     seq = excluded.seq, noticed = excluded.noticed WHERE excluded.seq > seq",
                )?
                .execute(params![signed(author.0), signed(seq), now])?;
        }
        self.db.prepare_cached("UPDATE retirement SET scanned = ?1")?.execute([last])?;
        Ok(count == limit)
    }

    /// Retires authors of which nothing new was noticed since `before`, other than `own`. Answers how many.
    pub fn retire_silent(&mut self, before: i64, own: Author, now: i64) -> Result<u64, StoreError> {
        let mut query = self.db.prepare_cached("SELECT author FROM writer WHERE noticed < ?1 LIMIT 1000")?;
        let silent = query
            .query_map([before], |row| Ok(Author(unsigned(row.get(0)?))))?
            .collect::<Result<Vec<_>, _>>()?;
        drop(query);
        let mut retired = 0;
        for author in silent.into_iter().filter(|author| *author != own) {
            retired += u64::from(self.retire(author, now)?);
        }
        Ok(retired)
    }

    /// Notes which author writes for this member itself. That of an earlier start sends nothing any more.
    pub fn succeed(&mut self, own: Author, now: i64) -> Result<(), StoreError> {
        let former = self
            .db
            .prepare_cached("SELECT own FROM retirement")?
            .query_row([], |row| Ok(Author(unsigned(row.get(0)?))))?;
        if former != own {
            if former.0 != 0 {
                self.retire(former, now)?;
            }
            self.db.prepare_cached("UPDATE retirement SET own = ?1")?.execute([signed(own.0)])?;
        }
        Ok(())
    }

    /// Notes how far a peer's list was heard.
    pub fn put_retired_heard(&mut self, server: ServerId, upto: u64) -> Result<(), StoreError> {
        self.db
            .prepare_cached("UPDATE peer SET retired = ?2 WHERE server = ?1")?
            .execute(params![server.0, signed(upto)])?;
        Ok(())
    }

    /// Notes how far a peer had come when all that it knew was heard.
    pub fn put_marks(&mut self, server: ServerId, epoch: u64, marks: Marks) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "UPDATE peer SET epoch = ?2, promised = ?3, complete = ?4, included = ?5 WHERE server = ?1",
            )?
            .execute(params![
                server.0,
                signed(epoch),
                signed(marks.promised),
                signed(marks.complete),
                signed(marks.included)
            ])?;
        Ok(())
    }

    /// Gives nobody a stamp up to `now` any more.
    pub fn promise_stamps(&mut self, now: i64) -> Result<(), StoreError> {
        self.db
            .prepare_cached("UPDATE retirement SET promised = max(promised, ?1)")?
            .execute([now.max(0)])?;
        Ok(())
    }

    /// Goes as far as what was heard of all `peers` allows.
    pub fn advance_marks(&mut self, peers: &[ServerId], epoch: u64) -> Result<(), StoreError> {
        let mut marks = self.marks()?;
        let heard = peers.iter().map(|peer| self.marks_of(*peer, epoch)).collect::<Result<Vec<_>, _>>()?;
        let promised = heard.iter().map(|peer| peer.promised).fold(marks.promised, u64::min);
        // What the others were when they were heard, and what this one has been since then.
        let complete = heard.iter().map(|peer| peer.complete).fold(marks.complete, u64::min);
        marks.included = marks.included.max(complete);
        marks.complete = marks.complete.max(promised);
        self.db
            .prepare_cached("UPDATE retirement SET complete = ?1, included = ?2")?
            .execute([signed(marks.complete), signed(marks.included)])?;
        Ok(())
    }

    /// Folds long pasts behind the object `after`; looks at `limit` objects. Of what has tombstones nothing is folded: they say how far who removed it had seen.
    pub fn fold_pasts(
        &mut self,
        what: Foldable,
        after: (u32, u64),
        limit: u32,
    ) -> Result<Folded, StoreError> {
        let long = if what.bytes >= LONG { INDEXED } else { ANY };
        let mut query = self.db.prepare_cached(long)?;
        let long = query
            .query_map(params![after.0, signed(after.1), limit, what.bytes], |row| {
                Ok(fid(self.volume, row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        drop(query);
        let mut folded = Folded::default();
        if long.len() == limit as usize {
            folded.after = long.last().map(|fid| (fid.vnode, fid.unique));
        }
        for fid in long {
            let Some(mut head) = self.head(fid)? else { continue };
            let mut upto = Vec::new();
            for entry in head.past.entries() {
                upto.extend(self.retired(entry.author)?.filter(|retired| *retired <= what.stamp));
            }
            let Some(last) = upto.iter().max().copied() else { continue };
            if upto.len() < what.at_least || !self.tombstones_of(fid)?.is_empty() {
                continue;
            }
            fold(self, &mut head, last)?;
            self.put_head(head)?;
            folded.objects += 1;
        }
        Ok(folded)
    }
}
