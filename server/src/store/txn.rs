//! Changing a replica: one job of a volume's writer, all or nothing.

use std::{collections::BTreeSet, ops::Deref};

use coda_proto::{
    Author, Dot, Fid, Kind, ServerId,
    merge::{Binding, Head, Replica, Tombstone},
};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    StoreError,
    exposed::Exposed,
    rows::{encode_body, encode_dots, encode_past, signed},
    view::{Bytes, Content, UploadRow, View, VolumeRow},
};

/// A replica within the writer's transaction. Dereferences to what can be read.
pub struct Txn<'c> {
    view: View<'c>,
    row: VolumeRow,
    dirty: BTreeSet<Fid>,
    changed: BTreeSet<Fid>,
    pub(super) exposed: Exposed,
}

impl<'c> Deref for Txn<'c> {
    type Target = View<'c>;
    fn deref(&self) -> &View<'c> {
        &self.view
    }
}

impl<'c> Txn<'c> {
    pub(super) fn new(db: &'c Connection, volume: coda_proto::VolumeId) -> Result<Txn<'c>, StoreError> {
        let view = View { db, volume };
        let (dirty, changed) = (BTreeSet::new(), BTreeSet::new());
        Ok(Txn { row: view.volume_row()?, view, dirty, changed, exposed: Exposed::default() })
    }

    /// 1-KiB blocks in use, as of the last `settle`.
    pub fn used(&self) -> u64 {
        self.row.used
    }

    /// The replica's change_seq, as of the last `settle`.
    pub fn change_seq(&self) -> u64 {
        self.row.change_seq
    }

    /// The replica's incarnation.
    pub fn incarnation(&self) -> u64 {
        self.row.incarnation
    }

    /// Objects that this job changed.
    pub fn changed(&self) -> &BTreeSet<Fid> {
        &self.changed
    }

    /// Accounts for what changed since the last call: blocks in use, the order of changes, and who may read what.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        self.forget_exposed()?;
        for fid in std::mem::take(&mut self.dirty) {
            self.row.change_seq += 1;
            let before = self.accounted(fid)?;
            if let Some(before) = before {
                let now = self.blocks(fid)?;
                self.row.used = (self.row.used + now).saturating_sub(before);
                let mut update = self.view.db.prepare_cached(
                    "UPDATE head SET blocks = ?3, change_seq = ?4 WHERE vnode = ?1 AND uniq = ?2",
                )?;
                update.execute(params![fid.vnode, signed(fid.unique), now, signed(self.row.change_seq)])?;
            }
            self.changed.insert(fid);
        }
        let mut update = self.view.db.prepare_cached("UPDATE volume SET change_seq = ?1, used = ?2")?;
        update.execute(params![signed(self.row.change_seq), signed(self.row.used)])?;
        Ok(())
    }

    fn accounted(&self, fid: Fid) -> Result<Option<u64>, StoreError> {
        let mut query =
            self.view.db.prepare_cached("SELECT blocks FROM head WHERE vnode = ?1 AND uniq = ?2")?;
        Ok(query.query_row(params![fid.vnode, signed(fid.unique)], |row| row.get(0)).optional()?)
    }

    fn blocks(&self, fid: Fid) -> Result<u64, StoreError> {
        if !fid.is_root() && !self.is_shown(fid)? {
            return Ok(0);
        }
        Ok(self.head(fid)?.map_or(0, |head| crate::quota::blocks_of(&head)))
    }

    /// Names the bytes of a sibling.
    pub fn put_content(&mut self, fid: Fid, made: Dot, content: &Content) -> Result<(), StoreError> {
        let (bytes, container) = match &content.bytes {
            Bytes::Inline(bytes) => (Some(bytes), None),
            Bytes::Container(name) => (None, Some(name)),
        };
        let mut insert = self.view.db.prepare_cached(
            "INSERT INTO content(vnode, uniq, author, seq, length, hash, bytes, container) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        insert.execute(params![
            fid.vnode,
            signed(fid.unique),
            signed(made.author.0),
            signed(made.seq),
            content.length,
            content.hash,
            bytes,
            container
        ])?;
        Ok(())
    }

    /// Forgets the bytes of those siblings of `fid` that `keep` does not want.
    pub(super) fn drop_contents(&mut self, fid: Fid, keep: impl Fn(Dot) -> bool) -> Result<(), StoreError> {
        let mut query = self
            .view
            .db
            .prepare_cached("SELECT author, seq, container FROM content WHERE vnode = ?1 AND uniq = ?2")?;
        let found = query
            .query_map(params![fid.vnode, signed(fid.unique)], |row| {
                Ok((super::rows::dot(row.get(0)?, row.get(1)?), row.get::<_, Option<String>>(2)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for (made, container) in found.into_iter().filter(|(made, _)| !keep(*made)) {
            let mut delete = self.view.db.prepare_cached(
                "DELETE FROM content WHERE vnode = ?1 AND uniq = ?2 AND author = ?3 AND seq = ?4",
            )?;
            let key = params![fid.vnode, signed(fid.unique), signed(made.author.0), signed(made.seq)];
            delete.execute(key)?;
            if let Some(container) = container {
                self.discard(&container)?;
            }
        }
        Ok(())
    }

    /// Leaves a container to the collector.
    pub fn discard(&mut self, container: &str) -> Result<(), StoreError> {
        let mut insert = self.view.db.prepare_cached("INSERT OR IGNORE INTO garbage VALUES (?1)")?;
        insert.execute([container])?;
        Ok(())
    }

    /// Notes that a discarded container is no more.
    pub fn collected(&mut self, container: &str) -> Result<(), StoreError> {
        let mut delete = self.view.db.prepare_cached("DELETE FROM garbage WHERE container = ?1")?;
        delete.execute([container])?;
        Ok(())
    }

    /// Writes an upload.
    pub fn put_upload(&mut self, handle: &[u8; 16], upload: &UploadRow, now: i64) -> Result<(), StoreError> {
        let mut insert = self.view.db.prepare_cached(
            "INSERT OR REPLACE INTO upload(handle, instance, length, hash, container, complete, created) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        insert.execute(params![
            &handle[..],
            upload.instance,
            upload.length,
            &upload.hash[..],
            upload.container,
            upload.complete,
            now
        ])?;
        Ok(())
    }

    /// Forgets uploads begun before this time.
    pub fn expire_uploads(&mut self, before: i64) -> Result<(), StoreError> {
        let db = self.view.db;
        db.prepare_cached(
            "INSERT OR IGNORE INTO garbage SELECT container FROM upload WHERE created < ?1 AND complete",
        )?
        .execute([before])?;
        db.prepare_cached("DELETE FROM upload WHERE created < ?1")?.execute([before])?;
        Ok(())
    }

    /// Forgets an upload; what becomes of its container is the caller's business.
    pub fn drop_upload(&mut self, handle: &[u8; 16]) -> Result<(), StoreError> {
        self.view.db.prepare_cached("DELETE FROM upload WHERE handle = ?1")?.execute([&handle[..]])?;
        Ok(())
    }

    /// Notes that every member of an epoch holds this mutation. Once a removal is held everywhere, only who gives the
    /// object a name apart will ask for its bytes.
    pub fn held_everywhere(&mut self, dot: Dot) -> Result<(), StoreError> {
        let mut update = self.view.db.prepare_cached(
            "UPDATE tombstone SET everywhere = 1 WHERE author = ?1 AND seq = ?2 RETURNING vnode, uniq",
        )?;
        let removed = update
            .query_map(params![signed(dot.author.0), signed(dot.seq)], |row| {
                Ok(super::rows::fid(self.view.volume, row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<BTreeSet<_>, _>>()?;
        for fid in removed {
            if self.bindings_of(fid)?.is_empty() {
                self.leave_remains(fid)?;
                self.forget_formers_of(fid)?;
            }
        }
        Ok(())
    }

    /// Notes how far this replica has seen a peer's.
    pub fn put_peer(&mut self, server: ServerId, incarnation: u64, seen: u64) -> Result<(), StoreError> {
        let mut insert = self.view.db.prepare_cached(
            "INSERT INTO peer(server, incarnation, seen) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET incarnation = excluded.incarnation, seen = excluded.seen",
        )?;
        insert.execute(params![server.0, signed(incarnation), signed(seen)])?;
        Ok(())
    }

    /// Notes how far a peer has seen this replica, and how far its own was then.
    pub fn put_acked(&mut self, server: ServerId, acked: u64, acked_at: u64) -> Result<(), StoreError> {
        let mut insert = self.view.db.prepare_cached(
            "INSERT INTO peer(server, incarnation, seen, acked, acked_at) VALUES (?1, 0, 0, ?2, ?3) \
             ON CONFLICT DO UPDATE SET acked = excluded.acked, acked_at = excluded.acked_at",
        )?;
        insert.execute(params![server.0, signed(acked), signed(acked_at)])?;
        Ok(())
    }

    /// Forgets a peer: a replica that is at that server later is another one.
    pub fn forget_peer(&mut self, server: ServerId) -> Result<(), StoreError> {
        self.view.db.prepare_cached("DELETE FROM peer WHERE server = ?1")?.execute([server.0])?;
        Ok(())
    }

    /// Corrects how many blocks are in use; answers whether that was another number.
    pub fn set_used(&mut self, used: u64) -> Result<bool, StoreError> {
        let other = self.row.used != used;
        self.row.used = used;
        self.view.db.prepare_cached("UPDATE volume SET used = ?1")?.execute([signed(used)])?;
        Ok(other)
    }

    /// Whether the replica has met its peers.
    pub fn set_joined(&mut self, joined: bool) -> Result<(), StoreError> {
        self.view.db.prepare_cached("UPDATE volume SET joined = ?1")?.execute([joined])?;
        self.row.joined = joined;
        Ok(())
    }

    /// Forgets a tombstone.
    pub fn drop_tombstone(&mut self, tombstone: &Tombstone) -> Result<(), StoreError> {
        let mut delete = self.view.db.prepare_cached(
            "DELETE FROM tombstone WHERE vnode = ?1 AND uniq = ?2 AND author = ?3 AND seq = ?4 \
             AND origin_author = ?5 AND origin_seq = ?6",
        )?;
        delete.execute(params![
            tombstone.fid.vnode,
            signed(tombstone.fid.unique),
            signed(tombstone.dot.author.0),
            signed(tombstone.dot.seq),
            signed(tombstone.origin.author.0),
            signed(tombstone.origin.seq)
        ])?;
        Ok(())
    }

    /// Forgets a head as if it had never been: no change of the replica.
    pub(super) fn forget_head(&mut self, fid: Fid) -> Result<(), StoreError> {
        let before = self.accounted(fid)?.unwrap_or(0);
        self.row.used = self.row.used.saturating_sub(before);
        self.drop_contents(fid, |_| false)?;
        self.no_remains(fid)?;
        self.forget_formers_of(fid)?;
        for sql in [
            "DELETE FROM head WHERE vnode = ?1 AND uniq = ?2",
            "DELETE FROM directory WHERE vnode = ?1 AND uniq = ?2",
        ] {
            self.view.db.prepare_cached(sql)?.execute(params![fid.vnode, signed(fid.unique)])?;
        }
        Ok(())
    }

    fn count(&self, dir: Fid, lamport: u64, entries: i64, directories: i64) -> Result<(), StoreError> {
        let mut upsert = self.view.db.prepare_cached(
            "INSERT INTO directory(vnode, uniq, lamport, entries, directories) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET lamport = max(lamport, excluded.lamport), \
             entries = entries + excluded.entries, directories = directories + excluded.directories",
        )?;
        upsert.execute(params![dir.vnode, signed(dir.unique), signed(lamport), entries, directories])?;
        Ok(())
    }
}

impl Replica for Txn<'_> {
    type Error = StoreError;

    fn head(&self, fid: Fid) -> Result<Option<Head>, StoreError> {
        self.view.head(fid)
    }

    fn put_head(&mut self, head: Head) -> Result<(), StoreError> {
        let replaces = head.kind == Kind::File && self.keep_replaced(&head)?;
        self.opens(&head)?;
        let mut upsert = self.view.db.prepare_cached(
            "INSERT INTO head(vnode, uniq, kind, past, body, marked) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT DO UPDATE SET kind = excluded.kind, past = excluded.past, \
             body = excluded.body, marked = excluded.marked",
        )?;
        upsert.execute(params![
            head.fid.vnode,
            signed(head.fid.unique),
            i32::from(head.kind),
            encode_past(&head.past),
            encode_body(&head),
            head.marked
        ])?;
        if replaces {
            self.drop_contents(head.fid, |made| head.siblings.iter().any(|sibling| sibling.dot == made))?;
        }
        self.dirty.insert(head.fid);
        Ok(())
    }

    fn drop_head(&mut self, fid: Fid) -> Result<(), StoreError> {
        self.forget_head(fid)?;
        self.dirty.insert(fid);
        Ok(())
    }

    fn bindings_named(&self, dir: Fid, name: &[u8]) -> Result<Vec<Binding>, StoreError> {
        self.view.bindings_named(dir, name)
    }
    fn bindings_of(&self, fid: Fid) -> Result<Vec<Binding>, StoreError> {
        self.view.bindings_of(fid)
    }
    fn derived_bindings(&self) -> Result<Vec<Binding>, StoreError> {
        self.view.derived_bindings()
    }
    fn is_empty(&self, dir: Fid) -> Result<bool, StoreError> {
        self.view.is_empty(dir)
    }

    fn put_binding(&mut self, binding: Binding) -> Result<(), StoreError> {
        self.moves(binding.fid)?;
        let key = params![
            binding.dir.vnode,
            signed(binding.dir.unique),
            binding.name,
            signed(binding.fid.unique),
            binding.fid.vnode,
            signed(binding.origin.author.0),
            signed(binding.origin.seq)
        ];
        let mut delete = self.view.db.prepare_cached(
            "DELETE FROM binding WHERE dir_vnode = ?1 AND dir_uniq = ?2 AND name = ?3 \
             AND uniq = ?4 AND vnode = ?5 AND origin_author = ?6 AND origin_seq = ?7 RETURNING shown",
        )?;
        let before: bool = delete.query_row(key, |row| row.get(0)).optional()?.unwrap_or(false);
        if !binding.is_gone() {
            let mut insert = self.view.db.prepare_cached(
                "INSERT INTO binding(dir_vnode, dir_uniq, name, uniq, vnode, origin_author, origin_seq, \
                 dots, derived, shown) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?;
            insert.execute(params![
                binding.dir.vnode,
                signed(binding.dir.unique),
                binding.name,
                signed(binding.fid.unique),
                binding.fid.vnode,
                signed(binding.origin.author.0),
                signed(binding.origin.seq),
                encode_dots(&binding.dots),
                binding.derived,
                binding.shown
            ])?;
        }
        let now = binding.shown && !binding.is_gone();
        let entries = i64::from(now) - i64::from(before);
        let directories = if binding.fid.is_directory() { entries } else { 0 };
        self.count(binding.dir, binding.lamport(), entries, directories)?;
        self.dirty.extend([binding.dir, binding.fid]);
        Ok(())
    }

    fn tombstones_of(&self, fid: Fid) -> Result<Vec<Tombstone>, StoreError> {
        self.view.tombstones_of(fid)
    }

    fn put_tombstone(&mut self, tombstone: Tombstone) -> Result<(), StoreError> {
        self.moves(tombstone.fid)?;
        let mut insert = self.view.db.prepare_cached(
            "INSERT INTO tombstone(vnode, uniq, author, seq, origin_author, origin_seq, dir_vnode, dir_uniq, \
             name, lamport, seen, renamed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
             ON CONFLICT DO UPDATE SET seen = excluded.seen, renamed = excluded.renamed, \
             dir_vnode = excluded.dir_vnode, dir_uniq = excluded.dir_uniq, name = excluded.name, \
             lamport = excluded.lamport",
        )?;
        insert.execute(params![
            tombstone.fid.vnode,
            signed(tombstone.fid.unique),
            signed(tombstone.dot.author.0),
            signed(tombstone.dot.seq),
            signed(tombstone.origin.author.0),
            signed(tombstone.origin.seq),
            tombstone.dir.vnode,
            signed(tombstone.dir.unique),
            tombstone.name,
            signed(tombstone.lamport),
            encode_past(&tombstone.seen),
            tombstone.rename
        ])?;
        self.dirty.insert(tombstone.fid);
        Ok(())
    }

    fn retired(&self, author: Author) -> Result<Option<u64>, StoreError> {
        self.view.retired(author)
    }

    fn elders(&self) -> Result<u64, StoreError> {
        Ok(self.view.marks()?.included)
    }
}
