//! Reading a replica: within a transaction, or from a snapshot.

use coda_proto::{
    Dot, Entry, Fid, Kind, Name, Past, Sibling, VolumeId,
    merge::{Binding, Head, Tombstone, contents_shown},
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    StoreError,
    rows::{decode_dots, decode_head, decode_past, dot, fid, signed, unsigned},
};

/// One consistent state of a replica.
#[derive(Clone, Copy)]
pub struct View<'c> {
    pub(super) db: &'c Connection,
    /// The volume.
    pub volume: VolumeId,
}

/// The replica as a whole.
#[derive(Clone, Debug)]
pub struct VolumeRow {
    /// Drawn when the server that wrote last was started.
    pub incarnation: u64,
    /// Grows with every change.
    pub change_seq: u64,
    /// 1-KiB blocks in use.
    pub used: u64,
    /// Whether it has met its peers since it was made or restored.
    pub joined: bool,
    /// Shown to people while it is offline.
    pub offline_message: String,
    /// Message of the day.
    pub motd: String,
}

/// How a replica and a peer's know each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerRow {
    /// The run of the peer's store that was met; 0: none.
    pub incarnation: u64,
    /// This replica includes what the peer's was at this change_seq.
    pub seen: u64,
    /// The peer's replica includes what this one was at this change_seq.
    pub acked: u64,
    /// Where the peer's own replica was when it said so.
    pub acked_at: u64,
}

/// Where the bytes of a sibling are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// In the row.
    Inline(Vec<u8>),
    /// In this container.
    Container(String),
}

/// One sibling's contents.
#[derive(Clone, Debug)]
pub struct Content {
    /// How many bytes.
    pub length: u64,
    /// Their BLAKE3.
    pub hash: Vec<u8>,
    /// Where they are.
    pub bytes: Bytes,
}

/// An upload in progress, or complete and not yet stored.
#[derive(Clone, Debug)]
pub struct UploadRow {
    /// Who sends it.
    pub instance: Vec<u8>,
    /// Bytes of the whole.
    pub length: u64,
    /// BLAKE3 of the whole.
    pub hash: [u8; 32],
    /// Where it will be, or is.
    pub container: String,
    /// Whether all of it is in place and verified.
    pub complete: bool,
}

/// A place in a directory's listing.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Name of the last entry seen.
    pub name: Vec<u8>,
    /// Its object's unique.
    pub unique: u64,
    /// Its object's vnode.
    pub vnode: u32,
}

impl View<'_> {
    /// The replica as a whole.
    pub fn volume_row(&self) -> Result<VolumeRow, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT incarnation, change_seq, used, joined, offline_message, motd FROM volume",
        )?;
        Ok(query.query_row([], |row| {
            Ok(VolumeRow {
                incarnation: unsigned(row.get(0)?),
                change_seq: row.get(1)?,
                used: row.get(2)?,
                joined: row.get(3)?,
                offline_message: row.get(4)?,
                motd: row.get(5)?,
            })
        })?)
    }

    /// An object.
    pub fn head(&self, fid: Fid) -> Result<Option<Head>, StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT kind, past, body, marked FROM head WHERE vnode = ?1 AND uniq = ?2")?;
        let mut rows = query.query(params![fid.vnode, signed(fid.unique)])?;
        match rows.next()? {
            Some(row) => {
                let past = row.get_ref(1)?.as_blob()?;
                let body = row.get_ref(2)?.as_blob()?;
                Ok(Some(decode_head(fid, row.get(0)?, past, body, row.get(3)?)?))
            }
            None => Ok(None),
        }
    }

    /// What an object's state includes; `None` where it is unknown.
    pub fn past(&self, fid: Fid) -> Result<Option<Past>, StoreError> {
        let mut query = self.db.prepare_cached("SELECT past FROM head WHERE vnode = ?1 AND uniq = ?2")?;
        let past: Option<Vec<u8>> =
            query.query_row(params![fid.vnode, signed(fid.unique)], |row| row.get(0)).optional()?;
        past.map(|past| decode_past(&past)).transpose()
    }

    /// The contents of a file that show, in order of dot: reads get the first, so that what they get does not
    /// change when others appear.
    pub fn contents_shown(&self, head: &Head) -> Result<Vec<Sibling>, StoreError> {
        // What came back is marked: the rows that tell are read only where they can matter.
        if head.siblings.len() < 2 || !head.marked {
            return Ok(head.siblings.clone());
        }
        Ok(contents_shown(head, &self.bindings_of(head.fid)?, &self.tombstones_of(head.fid)?))
    }

    /// How many objects have changed since `seq`, in the order in which they did, at most `limit`.
    pub fn changed_since(&self, seq: u64, limit: u32) -> Result<Vec<(u64, Fid)>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT change_seq, vnode, uniq FROM head WHERE change_seq > ?1 ORDER BY change_seq LIMIT ?2",
        )?;
        let rows = query.query_map(params![signed(seq), limit], |row| {
            Ok((row.get(0)?, fid(self.volume, row.get(1)?, row.get(2)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All bindings of a name.
    pub fn bindings_named(&self, dir: Fid, name: &[u8]) -> Result<Vec<Binding>, StoreError> {
        let mut query = self.db.prepare_cached(concat!(
            "SELECT dir_vnode, dir_uniq, name, vnode, uniq, dots, origin_author, origin_seq, derived, shown ",
            "FROM binding WHERE dir_vnode = ?1 AND dir_uniq = ?2 AND name = ?3"
        ))?;
        self.bindings(query.query(params![dir.vnode, signed(dir.unique), name])?)
    }

    /// All bindings of an object.
    pub fn bindings_of(&self, fid: Fid) -> Result<Vec<Binding>, StoreError> {
        let mut query = self.db.prepare_cached(concat!(
            "SELECT dir_vnode, dir_uniq, name, vnode, uniq, dots, origin_author, origin_seq, derived, shown ",
            "FROM binding WHERE vnode = ?1 AND uniq = ?2"
        ))?;
        self.bindings(query.query(params![fid.vnode, signed(fid.unique)])?)
    }

    /// All bindings that the tree rule made.
    pub fn derived_bindings(&self) -> Result<Vec<Binding>, StoreError> {
        let mut query = self.db.prepare_cached(concat!(
            "SELECT dir_vnode, dir_uniq, name, vnode, uniq, dots, origin_author, origin_seq, derived, shown ",
            "FROM binding WHERE derived"
        ))?;
        self.bindings(query.query([])?)
    }

    fn bindings(&self, mut rows: rusqlite::Rows<'_>) -> Result<Vec<Binding>, StoreError> {
        let mut bindings = Vec::new();
        while let Some(row) = rows.next()? {
            bindings.push(self.binding(row)?);
        }
        Ok(bindings)
    }

    fn binding(&self, row: &Row<'_>) -> Result<Binding, StoreError> {
        Ok(Binding {
            dir: fid(self.volume, row.get(0)?, row.get(1)?),
            name: row.get(2)?,
            fid: fid(self.volume, row.get(3)?, row.get(4)?),
            dots: decode_dots(row.get_ref(5)?.as_blob()?)?,
            origin: dot(row.get(6)?, row.get(7)?),
            derived: row.get(8)?,
            shown: row.get(9)?,
        })
    }

    /// Whether a directory shows no binding.
    pub fn is_empty(&self, dir: Fid) -> Result<bool, StoreError> {
        Ok(self.counts(dir)?.0 == 0)
    }

    /// A name by which a directory shows several objects.
    pub fn contended_name(&self, dir: Fid) -> Result<Option<Name>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT name FROM binding WHERE dir_vnode = ?1 AND dir_uniq = ?2 AND shown \
             GROUP BY name HAVING count(*) > 1 LIMIT 1",
        )?;
        Ok(query.query_row(params![dir.vnode, signed(dir.unique)], |row| row.get(0)).optional()?)
    }

    /// Whether any directory shows `fid`.
    pub fn is_shown(&self, fid: Fid) -> Result<bool, StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT 1 FROM binding WHERE vnode = ?1 AND uniq = ?2 AND shown LIMIT 1")?;
        Ok(query.exists(params![fid.vnode, signed(fid.unique)])?)
    }

    /// How many bindings a directory shows, and how many of them are directories.
    pub fn counts(&self, dir: Fid) -> Result<(u64, u32), StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT entries, directories FROM directory WHERE vnode = ?1 AND uniq = ?2")?;
        let counts = query
            .query_row(params![dir.vnode, signed(dir.unique)], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(counts.unwrap_or_default())
    }

    /// The highest Lamport time that the bindings of a directory ever had here.
    pub fn listing_lamport(&self, dir: Fid) -> Result<u64, StoreError> {
        let mut query =
            self.db.prepare_cached("SELECT lamport FROM directory WHERE vnode = ?1 AND uniq = ?2")?;
        let lamport = query
            .query_row(params![dir.vnode, signed(dir.unique)], |row| Ok(unsigned(row.get(0)?)))
            .optional()?;
        Ok(lamport.unwrap_or(0))
    }

    /// Entries in name order behind `after`, at most `limit`, and whether they are the last.
    pub fn entries(&self, dir: Fid, after: &Place, limit: u32) -> Result<(Vec<Entry>, bool), StoreError> {
        let mut query = self.db.prepare_cached(concat!(
            "SELECT b.name, b.vnode, b.uniq, b.dots, h.kind, b.origin_author, b.origin_seq FROM binding b ",
            "LEFT JOIN head h ON h.vnode = b.vnode AND h.uniq = b.uniq ",
            "WHERE b.dir_vnode = ?1 AND b.dir_uniq = ?2 AND b.shown AND (b.name, b.uniq, b.vnode) > (?3, ?4, ?5) ",
            "ORDER BY b.name, b.uniq, b.vnode LIMIT ?6"
        ))?;
        let mut rows = query.query(params![
            dir.vnode,
            signed(dir.unique),
            after.name,
            signed(after.unique),
            after.vnode,
            limit.saturating_add(1)
        ])?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            if count > limit {
                return Ok((entries, false));
            }
            let fid = fid(self.volume, row.get(1)?, row.get(2)?);
            let name: Name = row.get(0)?;
            let dots = decode_dots(row.get_ref(3)?.as_blob()?)?;
            let first = match dots.keys().next() {
                Some(first) => *first,
                None => dot(row.get(5)?, row.get(6)?),
            };
            let kind = match row.get::<_, Option<i32>>(4)? {
                Some(kind) => Kind::try_from(kind)?,
                None if fid.is_directory() => Kind::Directory,
                None => Kind::File,
            };
            match entries.last_mut() {
                Some(last) if last.name == name && last.fid == fid => last.dot = last.dot.min(first),
                _ => entries.push(Entry { name, fid, kind, dot: first }),
            }
        }
        Ok((entries, true))
    }

    /// Objects that may have to be decided about: marked, or with several contents. All of them are among
    /// these; not all of these are undecided.
    pub fn undecided(&self) -> Result<Vec<Fid>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT vnode, uniq FROM head WHERE marked UNION \
             SELECT vnode, uniq FROM content GROUP BY vnode, uniq HAVING count(*) > 1",
        )?;
        let rows = query.query_map([], |row| Ok(fid(self.volume, row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Names that may show several objects, each with its directory.
    pub fn contested_names(&self) -> Result<Vec<(Fid, Name)>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT dir_vnode, dir_uniq, name FROM binding WHERE shown \
             GROUP BY dir_vnode, dir_uniq, name HAVING count(*) > 1",
        )?;
        let rows =
            query.query_map([], |row| Ok((fid(self.volume, row.get(0)?, row.get(1)?), row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All tombstones of an object.
    pub fn tombstones_of(&self, about: Fid) -> Result<Vec<Tombstone>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT dir_vnode, dir_uniq, name, author, seq, lamport, origin_author, origin_seq, seen, renamed \
             FROM tombstone WHERE vnode = ?1 AND uniq = ?2",
        )?;
        let mut rows = query.query(params![about.vnode, signed(about.unique)])?;
        let mut tombstones = Vec::new();
        while let Some(row) = rows.next()? {
            tombstones.push(Tombstone {
                dir: fid(self.volume, row.get(0)?, row.get(1)?),
                name: row.get(2)?,
                fid: about,
                dot: dot(row.get(3)?, row.get(4)?),
                lamport: unsigned(row.get(5)?),
                origin: dot(row.get(6)?, row.get(7)?),
                seen: decode_past(row.get_ref(8)?.as_blob()?)?,
                rename: row.get(9)?,
            });
        }
        Ok(tombstones)
    }

    /// Whether this mutation removed something.
    pub fn is_removal(&self, dot: Dot) -> Result<bool, StoreError> {
        let mut query =
            self.db.prepare_cached("SELECT 1 FROM tombstone WHERE author = ?1 AND seq = ?2 LIMIT 1")?;
        Ok(query.exists(params![signed(dot.author.0), signed(dot.seq)])?)
    }

    /// The contents that a Store made.
    pub fn content(&self, fid: Fid, made: Dot) -> Result<Option<Content>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT length, hash, bytes, container FROM content \
             WHERE vnode = ?1 AND uniq = ?2 AND author = ?3 AND seq = ?4",
        )?;
        let found = query.query_row(
            params![fid.vnode, signed(fid.unique), signed(made.author.0), signed(made.seq)],
            content,
        );
        Ok(found.optional()?)
    }

    /// Any contents with this hash.
    pub fn content_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Content>, StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT length, hash, bytes, container FROM content WHERE hash = ?1 LIMIT 1")?;
        Ok(query.query_row([&hash[..]], content).optional()?)
    }

    /// An upload.
    pub fn upload(&self, handle: &[u8; 16]) -> Result<Option<UploadRow>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT instance, length, hash, container, complete FROM upload WHERE handle = ?1",
        )?;
        let found = query.query_row([&handle[..]], |row| {
            Ok(UploadRow {
                instance: row.get(0)?,
                length: row.get(1)?,
                hash: row.get(2)?,
                container: row.get(3)?,
                complete: row.get(4)?,
            })
        });
        Ok(found.optional()?)
    }

    /// How many uploads of a client wait for their stores.
    pub fn uploads_of(&self, instance: &[u8]) -> Result<u64, StoreError> {
        let mut query = self.db.prepare_cached("SELECT count(*) FROM upload WHERE instance = ?1")?;
        Ok(query.query_row([instance], |row| row.get(0))?)
    }

    /// How many objects the replica knows.
    pub fn objects(&self) -> Result<u64, StoreError> {
        let mut query = self.db.prepare_cached("SELECT count(*) FROM head")?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// How many objects changed since `seq`, and about how many bytes they have.
    pub fn left_since(&self, seq: u64) -> Result<(u64, u64), StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT count(*), coalesce(sum(blocks), 0) FROM head WHERE change_seq > ?1")?;
        let (objects, blocks): (u64, u64) =
            query.query_row([signed(seq)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((objects, blocks.saturating_mul(1024)))
    }

    /// How far this replica has seen those of its peers: server, incarnation, change_seq.
    pub fn peers(&self) -> Result<Vec<(u8, u64, u64)>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT server, incarnation, seen FROM peer WHERE incarnation <> 0 ORDER BY server",
        )?;
        let peers =
            query.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?), unsigned(row.get(2)?))))?;
        Ok(peers.collect::<Result<_, _>>()?)
    }

    /// How this replica and a peer's know each other.
    pub fn peer(&self, server: coda_proto::ServerId) -> Result<PeerRow, StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT incarnation, seen, acked, acked_at FROM peer WHERE server = ?1")?;
        let found = query
            .query_row([server.0], |row| {
                Ok(PeerRow {
                    incarnation: unsigned(row.get(0)?),
                    seen: unsigned(row.get(1)?),
                    acked: unsigned(row.get(2)?),
                    acked_at: unsigned(row.get(3)?),
                })
            })
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    /// Whether this store has been at `seq` in its run `incarnation`. One that has not is an old copy of the
    /// store that was, or another one.
    pub fn has_been(&self, incarnation: u64, seq: u64) -> Result<bool, StoreError> {
        let row = self.volume_row()?;
        if incarnation == row.incarnation {
            return Ok(seq <= row.change_seq);
        }
        let mut query = self.db.prepare_cached("SELECT upto FROM incarnation WHERE incarnation = ?1")?;
        let upto = query.query_row([signed(incarnation)], |row| Ok(unsigned(row.get(0)?))).optional()?;
        Ok(upto.is_some_and(|upto| seq <= upto))
    }
}

pub(super) fn content(row: &Row<'_>) -> rusqlite::Result<Content> {
    let bytes = match row.get::<_, Option<String>>(3)? {
        Some(container) => Bytes::Container(container),
        None => Bytes::Inline(row.get(2)?),
    };
    Ok(Content { length: row.get(0)?, hash: row.get(1)?, bytes })
}
