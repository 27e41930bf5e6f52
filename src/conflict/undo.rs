//! Undoing a decision: what it took away is kept for seven days, and comes back as versions beside whatever
//! the name shows then. Nothing that was done since is lost.

use std::sync::Arc;

use coda_proto::{Op, Past, Sibling};

use super::{resolve::Source, versions::distinct};
use crate::{
    cache::{self, View},
    cml::Manner,
    error::Error,
    ops::{Core, Result, Scratch, names::updated},
    reintegration::{Failure, Seen},
    store::{Change, Dropped, Edit, Undo},
    venus::face::{Caller, ObjectId, OpenMode},
};

/// How long a decision can be undone, in nanoseconds.
const KEPT: i64 = 7 * 24 * 3600 * 1_000_000_000;
/// Of the cache's bytes, the share that what was taken away may keep: one of so many.
const SHARE: u64 = 4;

/// What is taken away, in a container that goes unless it is kept.
pub(super) type Aside<'a> = (Dropped, Scratch<'a>);

/// Which of the decisions are to be forgotten: those that are too old, and the oldest while they take more
/// than `room`. `kept`: time and bytes of each, the latest first.
pub(super) fn outdated(kept: &[(i64, u64)], now: i64, room: u64) -> usize {
    let mut bytes = 0;
    let stays = kept.iter().take_while(|(time, length)| {
        bytes += length;
        now.saturating_sub(*time) < KEPT && bytes <= room
    });
    kept.len() - stays.count()
}

impl Core {
    /// Keeps the versions that a decision will drop. Answers the number under which it can be undone.
    pub(super) async fn keep_dropped(
        &self,
        id: ObjectId,
        view: &View,
        stays: Option<[u8; 32]>,
        only: Option<[u8; 32]>,
    ) -> Result<u64> {
        let status = &view.row.status;
        let mut aside = Vec::new();
        for sibling in distinct(&status.siblings) {
            let goes = Some(sibling.hash) != stays && only.is_none_or(|only| only == sibling.hash);
            if goes && let Some(kept) = self.aside(id, view, sibling).await? {
                aside.push(kept);
            }
        }
        let undo = Undo {
            id: 0,
            time: self.env.now(),
            object: id,
            past: status.past.clone(),
            name: Vec::new(),
            dropped: Vec::new(),
        };
        self.keep_undo(undo, aside)
    }

    /// Notes a decision, and what it takes away. Where that fails, nothing of it is left.
    pub(super) fn keep_undo(&self, undo: Undo, aside: Vec<Aside<'_>>) -> Result<u64> {
        let (dropped, scratches): (_, Vec<Scratch>) = aside.into_iter().unzip();
        let undo = Undo { dropped, ..undo };
        let id = self.cache.store(|store| store.keep_undo(&undo))?;
        scratches.into_iter().for_each(|scratch| drop(scratch.keep()));
        self.forget_outdated(undo.time)?;
        Ok(id)
    }

    /// One version in a container of its own; `None` where nobody has its bytes any more.
    pub(super) async fn aside(
        &self,
        id: ObjectId,
        view: &View,
        sibling: &Sibling,
    ) -> Result<Option<Aside<'_>>> {
        let source = match self.source(id, view, sibling).await {
            Ok(source) => source,
            Err(Error::Busy(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Source { name, length, hash, mtime, scratch, .. } = source;
        let own = match scratch {
            Some((scratch, _room)) => scratch,
            None => {
                let mut own = self.scratch()?;
                own.container =
                    self.cache.containers.copy(name, own.name).map_err(|error| cache::io(id.fid, error))?;
                own
            }
        };
        let (hash, host) = (hash.to_vec(), sibling.host.clone());
        Ok(Some((Dropped { container: own.name, length, hash, mtime, host }, own)))
    }

    /// Forgets decisions that can no longer be undone.
    pub(crate) fn forget_outdated(&self, now: i64) -> Result<()> {
        let undos = self.cache.store(|store| store.undos())?;
        let bytes = |undo: &Undo| undo.dropped.iter().map(|dropped| dropped.length).sum();
        let kept: Vec<(i64, u64)> = undos.iter().map(|undo| (undo.time, bytes(undo))).collect();
        let room = self.cache.space().total / SHARE;
        for undo in undos.iter().rev().take(outdated(&kept, now, room)) {
            self.drop_undo(undo)?;
        }
        Ok(())
    }

    pub(super) fn drop_undo(&self, undo: &Undo) -> Result<()> {
        self.cache.store(|store| store.forget_undo(undo.id))?;
        undo.dropped.iter().for_each(|dropped| self.cache.discard(dropped.container));
        Ok(())
    }

    /// Forgets a decision that was not made after all.
    pub(super) fn drop_undo_of(&self, id: u64) -> Result<()> {
        let undos = self.cache.store(|store| store.undos())?;
        undos.iter().filter(|undo| undo.id == id).try_for_each(|undo| self.drop_undo(undo))
    }

    /// Brings back what a decision took away. Answers how many versions came back.
    pub(crate) async fn undo_decision(&self, who: Caller, undo: &Undo) -> Result<usize> {
        for dropped in &undo.dropped {
            match undo.name.is_empty() {
                true => {
                    let name = undo.object.fid.to_string();
                    self.retried(undo.object, name.as_bytes(), || self.add_version(who.uid, undo, dropped))
                        .await?;
                }
                false => self.make_again(who, undo, dropped).await?,
            }
        }
        self.drop_undo(undo)?;
        self.cache.forget_object(undo.object, true);
        Ok(undo.dropped.len())
    }

    /// Stores contents on the base of before the decision: beside whatever was stored since.
    async fn add_version(
        &self,
        uid: u32,
        undo: &Undo,
        dropped: &Dropped,
    ) -> std::result::Result<(), Failure> {
        let id = undo.object;
        let held = self.cache.locks.hold([id]).await;
        let view = self.current_held(id, Vec::new()).await?;
        let status = &view.row.status;
        let source = self.given(id, dropped.container, dropped.mtime)?;
        if status.siblings.iter().any(|sibling| sibling.hash == source.hash) {
            return Ok(());
        }
        let contents = self.contents_of(id, status.parent, &source).await?;
        let past: Past = undo.past.clone();
        let seen = Seen { past, ..Seen::of(status) };
        let Source { length, hash, mtime, .. } = source;
        self.submit(uid, held, id, vec![seen], Manner::Connected, |stamp| {
            let sibling = Sibling { dot: stamp.dot, length, hash, mtime, host: stamp.host.clone() };
            let row = updated(&view.row, stamp, |status| status.siblings.push(sibling));
            let op = Op::Store { fid: id.fid, length, hash, mtime, contents, mode: None };
            (op, Change::of(Edit::Put(id, row)))
        })
        .await?;
        Ok(())
    }

    /// Makes a removed file again, under its name or one beside it.
    async fn make_again(&self, who: Caller, undo: &Undo, dropped: &Dropped) -> Result<()> {
        self.directory(undo.object).await?;
        let mut name = undo.name.clone();
        let mut count = 1;
        while self.entry(undo.object, &name)?.is_some() {
            count += 1;
            name = [&undo.name[..], format!(".{count}").as_bytes()].concat();
        }
        let from = self.cache.containers.open(dropped.container);
        let from = from.map_err(|error| cache::io(undo.object.fid, error))?;
        self.make_file(who, undo.object, &name, &from, dropped.length).await.map(drop)
    }

    /// Makes a file with the contents of a container.
    pub(super) async fn make_file(
        &self,
        who: Caller,
        dir: ObjectId,
        name: &[u8],
        from: &Arc<dyn crate::env::Container>,
        length: u64,
    ) -> Result<ObjectId> {
        let mode = OpenMode { read: false, write: true, truncate: false };
        let opened = self.create(who, dir, name, 0o644, mode, true).await?;
        let failed = |error| cache::io(dir.fid, error);
        let copied = async {
            let mut buffer = vec![0; 1 << 20];
            let mut at = 0;
            while at < length {
                let read = from.read_at(at, &mut buffer).map_err(failed)?;
                if read == 0 {
                    break;
                }
                opened.container.write_at(at, &buffer[..read]).map_err(failed)?;
                at += read as u64;
            }
            self.flush(opened.handle).await
        };
        let copied = copied.await;
        let released = self.release(opened.handle).await;
        copied.and(released)?;
        self.cache.forget_name(dir, name);
        self.cache.forget_object(dir, true);
        Ok(opened.attr.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_week_or_does_not_fit_is_forgotten_the_oldest_first() {
        let day = KEPT / 7;
        let kept = [(10 * day, 5), (9 * day, 5), (2 * day, 5)];
        assert_eq!(outdated(&kept, 10 * day, 100), 1);
        assert_eq!(outdated(&kept, 8 * day, 100), 0);
        assert_eq!(outdated(&kept, 10 * day, 9), 2);
        assert_eq!(outdated(&kept, 100 * day, 100), 3);
        assert_eq!(outdated(&[], 0, 0), 0);
    }
}
