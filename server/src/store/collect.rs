//! Forgetting what nobody can ask about any more: tombstones, and the heads of dead objects.
//!
//! Forgetting changes no version and tells nobody: each member does it by itself, once it knows that every
//! member includes its state of the object. One that is behind keeps everything as it is.

use std::collections::BTreeSet;

use coda_proto::{
    Fid,
    merge::Replica as _,
    planted::{Bug, planted},
};
use rusqlite::params;

use super::{
    StoreError, Txn, View,
    rows::{fid, signed},
};

/// What is old enough to be forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Tombstones noticed before this time go.
    pub before: i64,
    /// Of the others the newest so many stay.
    pub keep: u64,
    /// What every other member includes of this replica: everything up to this change_seq.
    pub included: u64,
    /// Tombstones looked at in one transaction, at most.
    pub at_once: u32,
}

/// What one round of forgetting did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Tombstones forgotten.
    pub tombstones: u64,
    /// Heads forgotten.
    pub heads: u64,
    /// Whether there may be more to forget at once.
    pub more: bool,
}

impl View<'_> {
    /// How many tombstones there are.
    pub fn tombstones(&self) -> Result<u64, StoreError> {
        let mut query = self.db.prepare_cached("SELECT count(*) FROM tombstone")?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// The order of an object's last change here.
    fn changed_at(&self, fid: Fid) -> Result<u64, StoreError> {
        let mut query =
            self.db.prepare_cached("SELECT change_seq FROM head WHERE vnode = ?1 AND uniq = ?2")?;
        let mut rows = query.query(params![fid.vnode, signed(fid.unique)])?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?.unwrap_or(0))
    }

    /// When the youngest tombstone of an object was noticed.
    fn last_noticed(&self, fid: Fid) -> Result<i64, StoreError> {
        let mut query =
            self.db.prepare_cached("SELECT max(noticed) FROM tombstone WHERE vnode = ?1 AND uniq = ?2")?;
        Ok(query.query_row(params![fid.vnode, signed(fid.unique)], |row| row.get(0))?)
    }

    /// Whether every remove of a dead object is known to be held by every member. (What is dead holds
    /// nothing that its removers did not see, so that they hold all of it.)
    fn died_everywhere(&self, fid: Fid) -> Result<bool, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT count(*), coalesce(min(everywhere), 0) FROM tombstone WHERE vnode = ?1 AND uniq = ?2",
        )?;
        let (count, least): (u64, bool) =
            query.query_row(params![fid.vnode, signed(fid.unique)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(count > 0 && least && self.bindings_of(fid)?.is_empty())
    }

    /// Whether anything is, or was, bound in a directory, shown or not.
    fn is_referred_to(&self, dir: Fid) -> Result<bool, StoreError> {
        for sql in [
            "SELECT 1 FROM binding WHERE dir_vnode = ?1 AND dir_uniq = ?2 LIMIT 1",
            "SELECT 1 FROM tombstone WHERE dir_vnode = ?1 AND dir_uniq = ?2 LIMIT 1",
        ] {
            if self.db.prepare_cached(sql)?.exists(params![dir.vnode, signed(dir.unique)])? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Txn<'_> {
    /// Forgets what is due, oldest first.
    pub fn forget_due(&mut self, due: &Due, now: i64) -> Result<Left, StoreError> {
        let mut left = Left::default();
        // Nothing in the writer's way reads a clock: what is new is dated here.
        self.db.prepare_cached("UPDATE tombstone SET noticed = ?1 WHERE noticed = 0")?.execute([now])?;
        let excess = self.tombstones()?.saturating_sub(due.keep);
        let mut query = self.db.prepare_cached(
            "SELECT vnode, uniq, noticed FROM tombstone ORDER BY noticed, lamport LIMIT ?1",
        )?;
        let oldest = query
            .query_map([due.at_once], |row| {
                Ok((fid(self.volume, row.get(0)?, row.get(1)?), row.get::<_, i64>(2)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        drop(query);
        let (all, mut done) = (oldest.len(), BTreeSet::new());
        let mut looked = 0;
        for (index, (fid, noticed)) in oldest.into_iter().enumerate() {
            let too_many = (index as u64) < excess;
            if noticed >= due.before && !too_many {
                break;
            }
            looked += 1;
            if done.insert(fid) && (too_many || self.last_noticed(fid)? < due.before) {
                self.forget_tombstones_of(fid, due, &mut left)?;
            }
        }
        left.more = looked == all && all as u32 == due.at_once && left.tombstones > 0;
        Ok(left)
    }

    /// All of an object's: some of them alone would say something else than all of them.
    fn forget_tombstones_of(&mut self, fid: Fid, due: &Due, left: &mut Left) -> Result<(), StoreError> {
        let behind = self.changed_at(fid)? > due.included && !self.died_everywhere(fid)?;
        if behind && !planted(Bug::CollectsEarly) {
            return Ok(());
        }
        // What came back stands where its tombstones say.
        if self.bindings_of(fid)?.iter().any(|place| place.derived) {
            return Ok(());
        }
        let mut dirs = BTreeSet::from([fid]);
        for tombstone in self.tombstones_of(fid)? {
            dirs.insert(tombstone.dir);
            self.drop_tombstone(&tombstone)?;
            left.tombstones += 1;
        }
        for fid in dirs {
            left.heads += u64::from(self.forget_dead(fid)?);
        }
        Ok(())
    }

    /// Forgets an object that has neither place nor tombstone, unless something else needs to know of it.
    fn forget_dead(&mut self, fid: Fid) -> Result<bool, StoreError> {
        let dead = !fid.is_root()
            && self.head(fid)?.is_some()
            && self.bindings_of(fid)?.is_empty()
            && self.tombstones_of(fid)?.is_empty()
            && !(fid.is_directory() && self.is_referred_to(fid)?);
        if dead {
            self.forget_head(fid)?;
        }
        Ok(dead)
    }
}
