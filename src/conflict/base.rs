//! The version that both sides of a conflict began from, as far as it is here.
//!
//! A file that is written while apart leaves behind what it was, in a container of its own, for seven days at most. It
//! shows beside the versions as `NAME.conflict-base`. That a version elsewhere was made from it too is not certain:
//! somebody may have written it without having seen this one. It is what *this machine's* version was made from, until
//! members tell which one all of them were made from (see `ancestor`): that takes its place.

use std::sync::Arc;

use coda_proto::{Kind, Past, Sibling, Status};

use super::{
    undo::outdated,
    versions::{MadeUp, status},
};
use crate::{
    cache::{self, OpenFile, View},
    error::Error,
    ops::{Core, Result, Scratch, digest, locked},
    store::{Base, Change, Data, Edit, Row},
    venus::face::ObjectId,
};

/// The label of its name.
pub(super) const LABEL: &str = "base";
/// Of the cache's bytes, the share that may be kept so: one of so many.
const SHARE: u64 = 8;
/// So many are kept at once.
const MOST: usize = 1000;
/// Larger files leave nothing behind: people merge texts.
pub(super) const LARGEST: u64 = 16 << 20;

/// How many are given up. `kept`: time and bytes of each, the latest first.
fn given_up(kept: &[(i64, u64)], now: i64, room: u64) -> usize {
    let stay = &kept[..kept.len().min(MOST)];
    kept.len() - stay.len() + outdated(stay, now, room)
}

impl Core {
    /// A file is about to be written. While nobody can be told, what it is now is kept; else what was kept of an
    /// earlier time is no longer what it begins from.
    pub(crate) async fn leave_base(&self, uid: u32, view: &View, open: Option<&OpenFile>) -> Result<()> {
        let id = view.id;
        if !view.row.has_contents()
            || view.row.status.siblings.is_empty()
            || view.unsent
            || view.gone
            || super::versions::is_version(id)
        {
            // What is not sent yet was made from what is kept already.
            return Ok(());
        }
        let old = self.cache.store(|store| store.base(id))?;
        let kept = match self.is_apart(uid, &[id]).await {
            true => self.kept_base(view, open)?,
            false => None,
        };
        match &kept {
            Some((base, _)) => self.cache.store(|store| store.keep_base(base))?,
            None if old.is_some() => self.cache.store(|store| store.forget_base(id))?,
            None => {}
        }
        old.into_iter().for_each(|old| self.cache.discard(old.container));
        if let Some((_, copy)) = kept {
            copy.keep();
            self.forget_old_bases()?;
        }
        Ok(())
    }

    /// A copy of what a file is, where that is what servers have and small enough.
    fn kept_base(&self, view: &View, open: Option<&OpenFile>) -> Result<Option<(Base, Scratch<'_>)>> {
        let (row, version) = (&view.row, view.row.status.siblings.first());
        let Some(version) = version.filter(|_| !row.status.in_conflict()) else { return Ok(None) };
        let Some(data) = row.data else { return Ok(None) };
        let written = open.is_some_and(|open| {
            let state = open.state();
            state.writers > 0 || state.unsaved || open.name != data.container
        });
        if written || version.length > LARGEST || version.length > self.cache.space().free {
            return Ok(None);
        }
        let copy = self.scratch().and_then(|mut copy| {
            let copied = self.cache.containers.copy(data.container, copy.name);
            copy.container = copied.map_err(|error| cache::io(view.id.fid, error))?;
            Ok(copy)
        });
        match copy {
            Ok(copy) => {
                let (time, container) = (self.env.now(), copy.name);
                Ok(Some((Base { file: view.id, time, container, version: version.clone() }, copy)))
            }
            Err(error) => {
                // Writing goes before what may be useful some day.
                tracing::debug!(realm = self.realm_field(view.id.realm), fid = %view.id.fid, %error, "what it was is not kept");
                Ok(None)
            }
        }
    }

    /// Gives up what is too old, and the oldest of what is too much.
    pub(super) fn forget_old_bases(&self) -> Result<()> {
        let bases = self.cache.store(|store| store.bases())?;
        let kept: Vec<(i64, u64)> = bases.iter().map(|base| (base.time, base.version.length)).collect();
        let room = self.cache.space().total / SHARE;
        for base in bases.iter().rev().take(given_up(&kept, self.env.now(), room)) {
            locked(&self.ancestors).remove(&base.file);
            self.cache.store(|store| store.forget_base(base.file))?;
            self.cache.discard(base.container);
        }
        Ok(())
    }

    /// It is decided: what it began from is of no more use.
    pub(crate) fn forget_base(&self, file: ObjectId) -> Result<()> {
        locked(&self.ancestors).remove(&file);
        if let Some(base) = self.cache.store(|store| store.base(file))? {
            self.cache.store(|store| store.forget_base(file))?;
            self.cache.discard(base.container);
        }
        Ok(())
    }

    /// What all versions of a file in conflict, or this machine's, were made from, if that is here.
    pub(crate) fn base_of(&self, file: ObjectId, of: &Status) -> Result<Option<Base>> {
        if of.kind != Kind::File || !of.in_conflict() {
            return Ok(None);
        }
        let Some(base) = self.cache.store(|store| store.base(file))? else { return Ok(None) };
        let mut ours = false;
        for sibling in &of.siblings {
            if sibling.dot == base.version.dot {
                return Ok(None);
            }
            ours |= self.cache.store(|store| store.drew(sibling.dot.author))?;
        }
        let ancestor = self.is_ancestor_of(file, base.version.dot, &of.siblings);
        Ok(Some(base).filter(|_| ours || ancestor))
    }

    /// Its bytes.
    pub(super) fn base_bytes(&self, file: ObjectId, of: &Status, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(base) = self.base_of(file, of)?.filter(|base| base.version.length <= limit) else {
            return Ok(None);
        };
        let mut bytes = vec![0; base.version.length as usize];
        let read = self.cache.containers.open(base.container).and_then(|from| from.read_at(0, &mut bytes));
        let whole = read.is_ok_and(|read| read == bytes.len());
        Ok(Some(bytes).filter(|bytes| whole && blake3::hash(bytes).as_bytes() == &base.version.hash))
    }

    /// It as a file that can be read.
    pub(super) fn base_view(&self, id: ObjectId, file: &View) -> Result<View> {
        let Some(base) = self.base_of(file.id, &file.row.status)? else {
            return match self.cache.view(id)? {
                // Somebody has it open and goes on reading it.
                Some(view) if view.open.is_some() => Ok(view),
                _ => {
                    let _ = self.cache.flush(id)?;
                    Err(Error::Gone(id.fid))
                }
            };
        };
        let Base { container, version, .. } = base;
        let Sibling { dot, length, .. } = version;
        let shown = Status { past: Past::of(dot), ..status(&file.row.status, &version, id.fid) };
        let held = self.cache.view(id)?;
        let data = Some(Data { container, dot: Some(dot), length });
        if held.as_ref().is_none_or(|held| held.row.data != data || held.row.status != shown) {
            // A crash may have left less of it than its row says.
            let contents = self.cache.containers.open(container).and_then(|from| digest(&*from));
            if !contents.is_ok_and(|(length, hash)| (length, hash) == (version.length, version.hash)) {
                self.forget_base(file.id)?;
                return Err(Error::Gone(id.fid));
            }
            if held.is_none() {
                self.cache.room_for(1)?;
            }
            self.cache.commit(&Change::of(Edit::Put(id, Arc::new(Row { data, ..Row::new(shown) }))))?;
        }
        self.cache.view(id)?.ok_or(Error::Gone(id.fid))
    }

    /// The object that shows it.
    pub(crate) fn base_id(&self, file: ObjectId) -> ObjectId {
        self.stand_in_for(file, MadeUp::Base(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_or_too_large_ones_the_oldest_are_given_up() {
        let kept: Vec<(i64, u64)> = (0..MOST as i64 + 5).map(|age| (1_000_000 - age, 10)).collect();
        assert_eq!(given_up(&kept, 1_000_000, u64::MAX), 5);
        assert_eq!(given_up(&kept, 1_000_000, 100), MOST - 5);
        assert_eq!(given_up(&kept[..MOST], 1_000_000, u64::MAX), 0);
        assert_eq!(given_up(&[], 0, 0), 0);
    }
}
