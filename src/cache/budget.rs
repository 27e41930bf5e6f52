//! Budgets in bytes and objects. What is in flight counts, and what does not fit is refused before it is
//! accepted.
//!
//! Leaves go first, longest unused before others: contents where bytes are wanted, whole objects where
//! objects are. What is open, logged or under way never goes.

use std::sync::Arc;

use super::{Cache, Ground, Result};
use crate::{
    error::Error,
    store::{Change, Edit, Row},
    venus::face::{Forget, ObjectId, Space},
};

/// How much the cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of contents.
    pub bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Objects in memory at once.
    pub in_memory: usize,
}

/// Room set aside for contents on their way; given back when dropped.
pub struct Reserved {
    cache: Arc<Cache>,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut ground = self.cache.ground();
        ground.reserved = ground.reserved.saturating_sub(self.bytes);
    }
}

/// How many objects are looked at in one go.
const BATCH: i64 = 256;

impl Cache {
    /// Sets room aside for contents of `bytes`, for `what`.
    pub fn reserve(self: &Arc<Cache>, what: ObjectId, bytes: u64) -> Result<Reserved> {
        let mut ground = self.ground();
        // The room that is kept for pins is theirs.
        let owed = if ground.owed > 0 && ground.store.is_hoarded(what)? { 0 } else { ground.owed };
        let want = |ground: &Ground| ground.bytes + ground.reserved + owed + bytes <= self.limits.bytes;
        if !want(&ground) {
            self.evict(&mut ground, &want, false)?;
        }
        if !want(&ground) {
            return Err(Error::NoSpace(what.fid.to_string()));
        }
        ground.reserved += bytes;
        Ok(Reserved { cache: self.clone(), bytes })
    }

    /// Makes room for `count` more objects.
    pub fn room_for(&self, count: u64) -> Result<()> {
        let mut ground = self.ground();
        let want = |ground: &Ground| ground.objects + count <= self.limits.objects;
        if !want(&ground) {
            self.evict(&mut ground, &want, true)?;
        }
        match want(&ground) {
            true => Ok(()),
            false => Err(Error::NoSpace("the cache".into())),
        }
    }

    /// Brings the cache back under its budget, as far as what it holds may go.
    pub fn trim(&self) -> Result<()> {
        let mut ground = self.ground();
        let fits = |ground: &Ground| ground.bytes + ground.reserved + ground.owed <= self.limits.bytes;
        if !fits(&ground) {
            self.evict(&mut ground, &fits, false)?;
        }
        Ok(())
    }

    /// Keeps room for what pins are still to fetch.
    pub fn set_owed(&self, bytes: u64) {
        self.ground().owed = bytes;
    }

    /// Space, from memory.
    pub fn space(&self) -> Space {
        let ground = self.ground();
        Space {
            total: self.limits.bytes,
            free: self.limits.bytes.saturating_sub(ground.bytes + ground.reserved + ground.owed),
            objects: self.limits.objects,
            objects_free: self.limits.objects.saturating_sub(ground.objects),
        }
    }

    fn evict(&self, ground: &mut Ground, enough: &dyn Fn(&Ground) -> bool, objects: bool) -> Result<()> {
        ground.note_uses()?;
        // A directory may go once the objects below it have: look again while something goes.
        let mut progress = true;
        while progress && !enough(ground) {
            progress = false;
            let mut skip = 0;
            loop {
                let batch = ground.store.oldest(skip, BATCH)?;
                let (mut kept, read) = (0, batch.len() as i64);
                for candidate in batch {
                    if enough(ground) {
                        return Ok(());
                    }
                    let drops = objects && !candidate.has_children;
                    // What people want to have here is let go for nothing else.
                    let hoarded = ground.store.is_hoarded(candidate.id)?;
                    if hoarded
                        || !ground.may_go(candidate.id)
                        || !(drops || (!objects && candidate.row.data.is_some()))
                    {
                        kept += 1;
                        continue;
                    }
                    kept += i64::from(!drops);
                    self.let_go(ground, candidate.id, candidate.row, drops)?;
                    progress = true;
                }
                skip += kept;
                if read < BATCH {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Lets an object go, or its contents only.
    fn let_go(&self, ground: &mut Ground, id: ObjectId, row: Row, whole: bool) -> Result<()> {
        let container = row.data.map(|data| data.container);
        let edit = match whole {
            true => Edit::Drop(id),
            false => Edit::Put(id, Arc::new(Row { data: None, ..row })),
        };
        if whole && ground.table.get(&id).is_some_and(|node| node.told) {
            let _ = self.forgets.send(Forget::Object { id, data: true });
        }
        ground.commit(&Change::of(edit), &self.forgets)?;
        if let Some(container) = container
            && !ground.store.names_container(container)?
            && let Err(error) = self.containers.remove(container)
        {
            tracing::warn!(container, %error, "a container could not be removed");
        }
        Ok(())
    }

    /// Lets a clean, closed object go now, with its promise. Answers whether it went, else why not.
    pub fn flush(&self, id: ObjectId) -> Result<std::result::Result<(), &'static str>> {
        let mut ground = self.ground();
        let Some(row) = ground.row(id)? else { return Ok(Ok(())) };
        let node = ground.table.get(&id);
        if node.is_some_and(|node| node.open.is_some()) {
            return Ok(Err("it is open"));
        }
        if node.is_some_and(|node| node.pins > 0) || ground.unsent.contains_key(&id) {
            return Ok(Err("it has changes that are not sent yet"));
        }
        self.let_go(&mut ground, id, (*row).clone(), true)?;
        Ok(Ok(()))
    }
}

impl Ground {
    fn may_go(&self, id: ObjectId) -> bool {
        !self.unsent.contains_key(&id)
            && self.table.get(&id).is_none_or(|node| node.pins == 0 && node.open.is_none())
    }
}
