//! What files were before they were written. It is kept for a while, so that of versions which turn up later, made
//! without knowledge of each other, the one is found that all of them were made from.
//!
//! Every member keeps it for itself, and tells whoever asks: it takes no part in versions, joins, quotas, dumps or
//! clones, and nothing is wrong where it is missing. Of one file there are a few versions, spread over time; all
//! together they take no more than a share of what the volume holds. Large files leave nothing: people merge texts.

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

#[cfg(test)]
mod tests {
    use coda_proto::{Acl, Author, Contents, Kind, Name, Op, Record, Rights, VolumeId, merge};

    use super::*;
    use crate::{
        config::Durability,
        store::{Bytes, NewReplica, Replica},
    };

    const VOLUME: VolumeId = VolumeId(0x7f00_0009);
    const US: Author = Author(7);

    struct World {
        _dir: tempfile::TempDir,
        replica: Replica,
        file: Fid,
        seq: u64,
    }

    impl World {
        fn new() -> World {
            let dir = tempfile::tempdir().unwrap();
            let new = NewReplica { volume: VOLUME, replica: 1, acl: Acl::root(Rights::ALL), joining: false };
            Replica::create(dir.path(), &new, Durability::Process, 0).unwrap();
            let replica = Replica::open(dir.path(), VOLUME, 1, 9, Durability::Process, 0).unwrap();
            let file = Fid::file(VOLUME, US, 1);
            let mut world = World { _dir: dir, replica, file, seq: 0 };
            let name: Name = b"f".to_vec();
            let make = Op::Create { parent: Fid::root(VOLUME), name, fid: file, mode: 0o644, owner: 0 };
            world.run(make, None);
            world
        }

        fn job<T>(&self, job: impl FnOnce(&mut Txn<'_>) -> Result<T, StoreError>) -> T {
            let mut answer = None;
            self.replica
                .write(|batch| batch.job(|txn| job(txn).map(|value| answer = Some(value))), || Ok(()))
                .unwrap();
            answer.unwrap()
        }

        fn run(&mut self, op: Op, content: Option<Content>) -> Dot {
            self.seq += 1;
            let made = Dot::new(US, self.seq);
            let file = self.file;
            self.job(|txn| {
                let base = |fid: Fid| Some(coda_proto::Base { fid, past: txn.head(fid).unwrap()?.past });
                let bases: Vec<_> = op.touches().into_iter().filter_map(base).collect();
                let time = made.seq as i64;
                let (host, logged) = (String::new(), false);
                let record =
                    Record { dot: made, lamport: made.seq + 1, time, changed: time, bases, logged, host, op };
                let rewrites = txn.has_contents(file)?;
                assert!(matches!(merge::apply(txn, &record), Ok(merge::Outcome::Applied { .. })));
                if let Some(content) = content {
                    txn.put_content(file, made, &content)?;
                    if rewrites {
                        txn.put_seen(file, made, &record.base(file))?;
                    }
                }
                Ok(())
            });
            made
        }

        /// Writes the file; its times go on as its numbers do.
        fn store(&mut self, bytes: &[u8], container: Option<&str>) -> Dot {
            let (length, hash) = (bytes.len() as u64, *blake3::hash(bytes).as_bytes());
            let contents = Contents::Uploaded([0; 16]);
            let mtime = self.seq as i64 + 1;
            let op = Op::Store { fid: self.file, length, hash, mtime, contents, mode: None };
            let bytes = match container {
                Some(name) => Bytes::Container(name.to_owned()),
                None => Bytes::Inline(bytes.to_vec()),
            };
            self.run(op, Some(Content { length, hash: hash.to_vec(), bytes }))
        }

        fn formers(&self) -> Vec<Former> {
            self.replica.read(|view| view.formers(self.file)).unwrap()
        }

        fn bytes(&self) -> u64 {
            self.replica.read(|view| view.former_bytes()).unwrap()
        }
    }

    #[test]
    fn what_a_file_was_is_kept_with_what_its_author_had_seen_and_quota_does_not_count_it() {
        let mut world = World::new();
        let used = |world: &World| world.replica.read(|view| Ok(view.volume_row()?.used)).unwrap();
        let one = world.store(b"one", Some("aa11"));
        let before = used(&world);
        let two = world.store(b"two", None);
        assert_eq!(used(&world), before);
        let formers = world.formers();
        assert_eq!(formers.len(), 1);
        assert_eq!((formers[0].version.dot, formers[0].version.length), (one, 3));
        let seen = world.replica.read(|view| view.seen_by(world.file)).unwrap();
        assert_eq!(seen.len(), 1);
        assert!(seen[0].0 == two && seen[0].1.covers(one));
        // Its container is no garbage while it is kept, and is when it goes.
        assert!(world.replica.garbage(9).unwrap().is_empty());
        let held = world.replica.read(|view| view.former_content(world.file, one)).unwrap().unwrap();
        assert!(matches!(held.bytes, Bytes::Container(name) if name == "aa11"));
        assert!(!world.job(|txn| txn.forget_formers(0, 100)));
        assert_eq!((world.formers().len(), world.bytes()), (1, 3), "it is new");
        assert!(!world.job(|txn| txn.forget_formers(101, 200)));
        assert_eq!((world.formers().len(), world.bytes()), (0, 0));
        assert_eq!(world.replica.garbage(9).unwrap(), ["aa11"]);
    }

    #[test]
    fn of_one_file_a_few_are_kept_the_oldest_and_the_newest_among_them() {
        let mut world = World::new();
        let made: Vec<Dot> = (0..40u32).map(|n| world.store(&n.to_le_bytes(), None)).collect();
        let kept: Vec<Dot> = world.formers().iter().map(|former| former.version.dot).collect();
        assert_eq!(kept.len(), OF_ONE);
        assert_eq!((kept[0], kept[OF_ONE - 1]), (made[0], made[38]));
        assert_eq!(world.bytes(), 4 * OF_ONE as u64);
        // Whoever removes the file leaves nothing behind.
        world.job(|txn| txn.forget_formers_of(Fid::file(VOLUME, US, 1)));
        assert_eq!((world.formers().len(), world.bytes()), (0, 0));
    }

    #[test]
    fn all_together_take_a_share_and_no_more_and_large_ones_are_not_kept() {
        let mut world = World::new();
        let large = |n: u64, length: u64| Content {
            length,
            hash: blake3::hash(&n.to_le_bytes()).as_bytes().to_vec(),
            bytes: Bytes::Container(format!("{n:04}")),
        };
        let mut write = |n: u64, length: u64| {
            let content = large(n, length);
            let hash = content.hash[..].try_into().unwrap();
            let contents = Contents::Uploaded([0; 16]);
            let op = Op::Store { fid: world.file, length, hash, mtime: n as i64, contents, mode: None };
            world.run(op, Some(content));
            world.bytes()
        };
        write(1, LARGEST + 1);
        assert_eq!(write(2, 9 << 20), 0, "too large");
        assert_eq!(write(3, 6 << 20), 9 << 20);
        assert_eq!(write(4, 5 << 20), 15 << 20);
        assert_eq!(write(5, 1), 11 << 20, "the oldest made room");
    }

    #[test]
    fn where_much_is_to_go_no_store_waits_for_all_of_it() {
        let mut world = World::new();
        world.store(b"x", None);
        world.store(b"y", None);
        world.job(|txn| {
            let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
                INSERT INTO former(vnode, uniq, author, seq, length, hash, mtime, host, seen, bytes)
                SELECT 2, i, 1, 1, 1048576, x'', 0, '', x'', x'' FROM n; UPDATE kept SET bytes = 1 + 100 * 1048576";
            Ok(txn.db.execute_batch(many)?)
        });
        world.store(b"z", None);
        assert_eq!(
            world.bytes(),
            (101 - u64::from(AT_A_STORE)) << 20 | 1,
            "what it was and some others went"
        );
        while world.job(|txn| txn.forget_formers(0, 100)) {}
        assert_eq!(world.bytes(), (15 << 20) + 1);
    }

    #[test]
    fn what_authors_had_seen_goes_with_the_versions_that_it_explains() {
        let mut world = World::new();
        let seen = |world: &World| world.replica.read(|view| view.seen_by(world.file)).unwrap();
        for n in 0..40u32 {
            world.store(&n.to_le_bytes(), None);
        }
        let last = Dot::new(US, world.seq);
        assert_eq!(
            seen(&world).iter().map(|(made, _)| *made).collect::<Vec<_>>(),
            [last],
            "of the present one"
        );
        let explained = |former: &Former| former.version.dot == Dot::new(US, 2) || !former.seen.is_empty();
        assert!(world.formers().iter().all(explained), "former ones say it themselves");
        world.job(|txn| txn.forget_formers(0, 100));
        assert_eq!(seen(&world).len(), 1, "the others are new");
        world.job(|txn| txn.forget_formers(101, 200));
        assert!(seen(&world).is_empty());
    }

    #[test]
    fn a_former_version_that_is_damaged_is_forgotten_and_others_with_its_bytes_stay() {
        let mut world = World::new();
        let first = world.store(b"same", Some("aa11"));
        world.store(b"same", Some("bb22"));
        let inline = world.store(b"same", None);
        world.store(b"other", None);
        let hash = *blake3::hash(b"same").as_bytes();
        let dots = |world: &World| world.formers().iter().map(|f| f.version.dot).collect::<Vec<_>>();
        world.job(|txn| txn.lose(&hash, Some("bb22")));
        assert_eq!((dots(&world), world.bytes()), (vec![first, inline], 8));
        world.job(|txn| txn.lose(&hash, None));
        assert_eq!(dots(&world), [first, inline], "what the row holds is whole");
        let places = world.replica.read(|view| view.stored_after(0, 9)).unwrap();
        assert_eq!(places.len(), 1);
        let then = world.replica.read(|view| view.stored_after(places[0].place, 9)).unwrap();
        assert_eq!(then.iter().map(|row| row.place < 0).collect::<Vec<_>>(), [true, true]);
        let again = world.replica.read(|view| view.stored_at(then[1].place)).unwrap();
        assert_eq!(again.unwrap().hash, hash);
        assert!(world.replica.read(|view| view.stored_after(then[1].place, 9)).unwrap().is_empty());
    }

    #[test]
    fn what_is_missed_least_goes() {
        assert_eq!(spare(&[1, 2, 3, 4, 5, 6, 7, 8]), None);
        assert_eq!(spare(&[0, 100, 200, 300, 310, 320, 500, 600, 700]), Some(4));
        // Clocks go wrong.
        assert!(spare(&[i64::MAX, i64::MIN, 0, 1, 2, 3, 4, 5, i64::MAX]).is_some());
    }

    #[test]
    fn a_directory_has_no_former_contents() {
        let world = World::new();
        let root = Head::runt(Fid::root(VOLUME), Kind::Directory);
        world.job(|txn| txn.keep_replaced(&root));
        assert_eq!(world.bytes(), 0);
    }
}
