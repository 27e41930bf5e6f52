//! What removed files held. Where every member holds a removal, whoever made it had seen all that the file was; yet a
//! name that somebody gave it apart, knowing nothing of that, brings it back, and then its bytes are wanted.
//!
//! So they stay in their place, as long as the tombstone does, in a share of the disk: what was removed first goes first,
//! and all of it where the disk is full. No quota counts it. What came back by then is simply not among it any more.

use coda_proto::Fid;
use rusqlite::{OptionalExtension, params};

use super::{
    StoreError, Txn, View,
    rows::{fid, signed},
};

/// Of the bytes that a volume holds, the share that remains may take: one of so many.
const SHARE: u64 = 8;
/// So much they may take at any rate.
const AT_LEAST: u64 = 64 << 20;
/// Given up for one that is kept, at most: while a transaction runs nobody else writes.
const FOR_ONE: u32 = 16;
/// Given up in one transaction of which nobody waits, at most.
const AT_ONCE: u32 = 1000;

impl View<'_> {
    /// Bytes of all remains.
    pub fn remaining(&self) -> Result<u64, StoreError> {
        Ok(self.db.prepare_cached("SELECT remains FROM kept")?.query_row([], |row| row.get(0))?)
    }
}

impl Txn<'_> {
    /// What a file holds are remains from now on.
    pub(super) fn leave_remains(&mut self, fid: Fid) -> Result<(), StoreError> {
        self.no_remains(fid)?;
        let bytes: Option<u64> = self
            .db
            .prepare_cached("SELECT sum(length) FROM content WHERE vnode = ?1 AND uniq = ?2")?
            .query_row(params![fid.vnode, signed(fid.unique)], |row| row.get(0))?;
        let Some(bytes) = bytes else { return Ok(()) };
        self.db
            .prepare_cached("INSERT INTO remains(vnode, uniq, bytes) VALUES (?1, ?2, ?3)")?
            .execute(params![fid.vnode, signed(fid.unique), bytes])?;
        self.db.prepare_cached("UPDATE kept SET remains = remains + ?1")?.execute([bytes])?;
        // Where much is to go, because the volume holds less than it did, it goes with the next ones.
        self.give_up_remains(self.room_for_remains(), FOR_ONE)?;
        Ok(())
    }

    /// What a file holds are no remains (any more).
    pub(super) fn no_remains(&mut self, fid: Fid) -> Result<(), StoreError> {
        let bytes: Option<u64> = self
            .db
            .prepare_cached("DELETE FROM remains WHERE vnode = ?1 AND uniq = ?2 RETURNING bytes")?
            .query_row(params![fid.vnode, signed(fid.unique)], |row| row.get(0))
            .optional()?;
        if let Some(bytes) = bytes {
            self.db.prepare_cached("UPDATE kept SET remains = max(0, remains - ?1)")?.execute([bytes])?;
        }
        Ok(())
    }

    fn room_for_remains(&self) -> u64 {
        AT_LEAST.max(self.used().saturating_mul(1024) / SHARE)
    }

    /// Gives up so much of the remains that they take their share and no more; all where `needed`. Answers whether there
    /// may be more to give up.
    pub fn thin_remains(&mut self, needed: bool) -> Result<bool, StoreError> {
        let room = if needed { 0 } else { self.room_for_remains() };
        self.give_up_remains(room, AT_ONCE)
    }

    /// Gives up the first, so many of them at most, while all together take more than `room`. Answers whether that is
    /// still so.
    fn give_up_remains(&mut self, room: u64, at_most: u32) -> Result<bool, StoreError> {
        for _ in 0..at_most {
            if self.remaining()? <= room {
                return Ok(false);
            }
            let first = self
                .db
                .prepare_cached("SELECT vnode, uniq FROM remains ORDER BY nr LIMIT 1")?
                .query_row([], |row| Ok(fid(self.volume, row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some(first) = first else { return Ok(false) };
            self.no_remains(first)?;
            if self.bindings_of(first)?.is_empty() {
                self.drop_contents(first, |_| false)?;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, Dot, Kind, merge::Head};

    use super::*;
    use crate::store::{
        Bytes, Content,
        trying::{Trying, VOLUME},
    };

    fn file(n: u32) -> Fid {
        Fid::file(VOLUME, Author(7), n)
    }

    impl Trying {
        /// A file without a name that holds so many bytes, in a container of its number.
        fn removed(&self, n: u32, length: u64) {
            self.job(|txn| {
                use coda_proto::merge::Replica as _;
                txn.put_head(Head::runt(file(n), Kind::File))?;
                let hash = blake3::hash(&n.to_le_bytes()).as_bytes().to_vec();
                let content = Content { length, hash, bytes: Bytes::Container(format!("{n:04}")) };
                txn.put_content(file(n), Dot::new(Author(7), n.into()), &content)?;
                txn.leave_remains(file(n))
            });
        }

        /// Which of the first so many still hold what they held.
        fn whole(&self, upto: u32) -> Vec<u32> {
            let whole = |n: &u32| self.replica.read(|view| view.has_contents(file(*n))).unwrap();
            (1..=upto).filter(whole).collect()
        }

        fn remaining(&self) -> u64 {
            self.replica.read(|view| view.remaining()).unwrap()
        }
    }

    #[test]
    fn what_was_removed_first_goes_first_and_what_is_larger_than_all_room_goes_at_once() {
        let world = Trying::new();
        world.removed(1, 40 << 20);
        world.removed(2, 20 << 20);
        assert_eq!((world.whole(2), world.remaining()), (vec![1, 2], 60 << 20));
        world.removed(3, 5 << 20);
        assert_eq!((world.whole(3), world.remaining()), (vec![2, 3], 25 << 20));
        assert_eq!(world.replica.garbage(9).unwrap(), ["0001"]);
        world.removed(4, AT_LEAST + 1);
        assert_eq!((world.whole(4), world.remaining()), (vec![], 0));
    }

    #[test]
    fn what_is_removed_again_counts_once_and_what_is_forgotten_not_at_all() {
        let world = Trying::new();
        world.removed(1, 1000);
        world.removed(2, 1000);
        world.job(|txn| txn.leave_remains(file(1)));
        assert_eq!(world.remaining(), 2000);
        world.job(|txn| txn.forget_head(file(2)));
        assert_eq!((world.whole(2), world.remaining()), (vec![1], 1000));
        world.job(|txn| txn.leave_remains(file(3)));
        assert_eq!(world.remaining(), 1000, "it held nothing");
    }

    #[test]
    fn where_the_disk_is_full_all_of_it_goes() {
        let world = Trying::new();
        for n in 1..=3 {
            world.removed(n, 1000);
        }
        assert!(!world.job(|txn| txn.thin_remains(false)));
        assert_eq!(world.whole(3), [1, 2, 3]);
        assert!(!world.job(|txn| txn.thin_remains(true)));
        assert_eq!((world.whole(3), world.remaining()), (vec![], 0));
        assert_eq!(world.replica.garbage(9).unwrap().len(), 3);
    }
}
