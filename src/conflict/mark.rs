//! What came back after it was removed elsewhere, because somebody changed it without knowing that: people say that it is to
//! stay, by giving it its name anew. (Whoever wants it gone removes it.)

use coda_proto::{Dot, Kind, Op, Rights};

use crate::{
    cml::Manner,
    error::Error,
    ops::{
        Core, Result,
        names::{bind, right, updated, with_entries},
        path::text,
    },
    reintegration::{Failure, Seen},
    store::{Change, Edit},
    venus::face::ObjectId,
};

impl Core {
    /// A file or symbolic link that is marked stays, and is marked no longer.
    pub(crate) async fn keep_marked(&self, uid: u32, id: ObjectId) -> Result<()> {
        let view = self.current(id).await?;
        if view.row.status.kind == Kind::Directory {
            let why = "it came back after it was removed elsewhere, or its access list was changed at both sides: renaming \
                       it keeps it, `cfs setacl` decides about the list";
            return Err(Error::Unclear(why.into()));
        }
        let dir = ObjectId { realm: id.realm, fid: view.row.status.parent };
        self.directory(dir).await?;
        let name = self.cache.store(|store| store.name_in(dir, id.fid))?.ok_or(Error::Gone(id.fid))?;
        self.retried(dir, &name, || self.keep_marked_once(uid, id, dir, &name)).await?;
        self.say("conflict", format!("Kept {}, which came back", id.fid));
        Ok(())
    }

    async fn keep_marked_once(
        &self,
        uid: u32,
        id: ObjectId,
        dir: ObjectId,
        name: &[u8],
    ) -> std::result::Result<Dot, Failure> {
        let held = self.cache.locks.hold([dir, id]).await;
        let parent = self.directory_held(dir).await?;
        let child = self.current_held(id, Vec::new()).await?;
        right(&parent, Rights::INSERT, name)?;
        if child.gone || self.entry(dir, name)?.is_none_or(|entry| entry.fid != id.fid) {
            return Err(Error::NotFound(text(name)).into());
        }
        let bases = vec![Seen::of(&parent.row.status), Seen::of(&child.row.status)];
        self.submit(uid, held, dir, bases, Manner::Connected, |stamp| {
            let mut change = Change::of(bind(dir, name, id.fid, child.row.status.kind, stamp.dot));
            change.push(Edit::Put(id, updated(&child.row, stamp, |status| status.marked = false)));
            change.push(Edit::Put(dir, with_entries(&parent.row, stamp, 0, 0)));
            (Op::Link { parent: dir.fid, name: name.to_vec(), fid: id.fid }, change)
        })
        .await
    }
}
