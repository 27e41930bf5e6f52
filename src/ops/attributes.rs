//! Attributes: asked, and changed. A new length is a change of contents.

use std::sync::Arc;

use coda_proto::{Kind, Op, Rights};

use super::{Core, Result, names::updated};
use crate::{
    cache::{self, OpenFile, View},
    error::Error,
    fid::CODA,
    reintegration::{Failure, Seen},
    store::{Change, Edit, Row},
    venus::face::{Attr, AttrChange, Caller, NodeKind, ObjectId, OpenMode},
};

impl Core {
    /// `/coda` itself: always there, never changed.
    pub(crate) fn coda(&self) -> Attr {
        Attr {
            id: CODA,
            kind: NodeKind::Directory,
            size: 4096,
            mode: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            mtime: 0,
            ctime: 0,
            atime: 0,
            lasting: false,
            version: 1,
        }
    }

    /// Attributes. Of a file with a writer here: those of its container.
    pub(crate) async fn getattr(&self, who: Caller, id: ObjectId) -> Result<Attr> {
        if id == CODA || (id.realm != 0 && id.fid == CODA.fid) {
            return Ok(Attr { id, ..self.coda() });
        }
        Ok(self.attr(&self.current(id).await?, who))
    }

    /// Changes attributes.
    pub(crate) async fn setattr(
        &self,
        who: Caller,
        id: ObjectId,
        change: AttrChange,
        handle: Option<u64>,
    ) -> Result<Attr> {
        if id == CODA {
            return Err(Error::ReadOnly("/coda".into()));
        }
        let written = handle.and_then(|handle| self.handle(handle).ok()).filter(|handle| handle.write);
        if let Some(size) = change.size {
            match written {
                Some(handle) => {
                    handle.file.container.set_length(size).map_err(|error| cache::io(id.fid, error))?;
                }
                None => self.truncate(who, id, size).await?,
            }
        }
        let mut rest = AttrChange { size: None, ..change };
        if rest != AttrChange::default() {
            self.join_store(id, &mut rest)?;
        }
        if rest != AttrChange::default() {
            self.drop_unchanged(who, id, &mut rest)?;
        }
        if rest != AttrChange::default() {
            let name = id.fid.to_string();
            self.retried(id, name.as_bytes(), || self.setattr_once(who.uid, id, rest)).await?;
        }
        Ok(self.attr(&self.current(id).await?, who))
    }

    /// While a file has writes that are not stored yet, permission bits and modification time join the Store. An access
    /// time is not worth a record of its own then.
    fn join_store(&self, id: ObjectId, change: &mut AttrChange) -> Result<()> {
        let Some(view) = self.cache.view(id)? else { return Ok(()) };
        if !view.row.status.my_rights.has(Rights::WRITE) {
            return Err(Error::Access(id.fid.to_string()));
        }
        let Some(file) = &view.open else { return Ok(()) };
        let changed = file.changed();
        let mut state = file.state();
        if state.writers == 0 || !changed {
            return Ok(());
        }
        change.atime = None;
        if let Some(mode) = change.mode.take() {
            state.mode = Some(mode & 0o1777);
        }
        if let Some(mtime) = change.mtime.take()
            && let Ok(now) = file.container.snapshot()
        {
            state.mtime = Some((mtime, now));
        }
        Ok(())
    }

    /// What is asked for and is so already need not be sent: `tar` and `cp` give every file the owner that it
    /// has.
    fn drop_unchanged(&self, who: Caller, id: ObjectId, change: &mut AttrChange) -> Result<()> {
        let Some(view) = self.cache.view(id)?.filter(View::stands) else { return Ok(()) };
        if !view.row.status.my_rights.has(Rights::WRITE) {
            // Refused like any other change.
            return Ok(());
        }
        let now = self.attr(&view, who);
        change.uid = change.uid.filter(|uid| *uid != now.uid);
        change.gid = change.gid.filter(|gid| *gid != now.gid);
        if view.open.is_none() {
            change.mode = change.mode.filter(|mode| mode & 0o1777 != now.mode);
            change.mtime = change.mtime.filter(|mtime| *mtime != now.mtime);
            change.atime = change.atime.filter(|atime| *atime != now.atime);
        }
        Ok(())
    }

    async fn setattr_once(
        &self,
        by: u32,
        id: ObjectId,
        change: AttrChange,
    ) -> std::result::Result<(), Failure> {
        let held = self.cache.locks.hold([id]).await;
        let view = self.current_held(id, Vec::new()).await?;
        let status = &view.row.status;
        if !status.my_rights.has(Rights::WRITE) {
            return Err(Error::Access(id.fid.to_string()).into());
        }
        if view.gone {
            return Ok(());
        }
        let AttrChange { uid, gid, mtime, atime, .. } = change;
        let mode = change.mode.map(|mode| mode & 0o1777);
        self.submit(by, held, id, vec![Seen::of(status)], false, |stamp| {
            let row = updated(&view.row, stamp, |status| {
                status.mode = mode.unwrap_or(status.mode);
                status.owner = uid.unwrap_or(status.owner);
                status.group = gid.unwrap_or(status.group);
                status.mtime = mtime.unwrap_or(status.mtime);
                status.atime = atime.or(status.atime);
            });
            let op = Op::SetAttr { fid: id.fid, mode, owner: uid, group: gid, mtime, atime };
            (op, Change::of(Edit::Put(id, row)))
        })
        .await?;
        Ok(())
    }

    /// A new length for a file, by name.
    async fn truncate(&self, who: Caller, id: ObjectId, size: u64) -> Result<()> {
        let mode = OpenMode { read: false, write: true, truncate: size == 0 };
        let opened = self.open(who, id, mode).await?;
        let cut = async {
            if opened.container.length().map_err(|error| cache::io(id.fid, error))? != size {
                opened.container.set_length(size).map_err(|error| cache::io(id.fid, error))?;
            }
            let handle = self.handle(opened.handle)?;
            // Other writers' closes would store it too; but whoever cuts a file by name sees it done.
            match handle.file.changed() {
                true => self.store(who.uid, id, &handle.file).await,
                false => Ok(()),
            }
        }
        .await;
        if cut.is_err() {
            self.give_up(id, opened.handle)?;
        }
        let released = self.release(opened.handle).await;
        cut.and(released)
    }

    /// A cut that failed leaves nothing to be kept, unless others write the file too.
    fn give_up(&self, id: ObjectId, handle: u64) -> Result<()> {
        let handle = self.handle(handle)?;
        if handle.file.state().writers > 1 {
            return Ok(());
        }
        let now = handle.file.container.snapshot().map_err(|error| cache::io(id.fid, error))?;
        {
            let mut state = handle.file.state();
            (state.unsaved, state.stored) = (false, now);
        }
        self.drop_contents(id, &handle.file)
    }

    /// What a container holds is not what shows: it is fetched again.
    fn drop_contents(&self, id: ObjectId, file: &OpenFile) -> Result<()> {
        match self.cache.view(id)? {
            Some(view) if view.row.data.is_some_and(|data| data.container == file.name) => {
                let row = Row { data: None, writing: false, ..(*view.row).clone() };
                self.cache.commit(&Change::of(Edit::Put(id, Arc::new(row))))?;
                self.cache.set_open(id, None)
            }
            _ => Ok(()),
        }
    }

    /// The target of a symbolic link.
    pub(crate) async fn readlink(&self, id: ObjectId) -> Result<Vec<u8>> {
        let view = self.current(id).await?;
        match view.row.status.kind {
            Kind::Symlink => Ok(view.row.status.target.clone()),
            _ => Err(Error::Invalid(format!("{} is no symbolic link", id.fid))),
        }
    }

    /// Whether the caller may do this.
    pub(crate) async fn access(&self, id: ObjectId, mask: i32) -> Result<()> {
        let denied = || Err(Error::Access(id.fid.to_string()));
        let asks = |bit: i32| mask & bit != 0;
        if id == CODA {
            return if asks(libc::W_OK) { Err(Error::ReadOnly("/coda".into())) } else { Ok(()) };
        }
        let view = self.current(id).await?;
        let status = &view.row.status;
        let has = |right| status.my_rights.has(right);
        match status.kind {
            Kind::Directory => {
                if (asks(libc::R_OK) || asks(libc::X_OK)) && !has(Rights::LOOKUP) {
                    return denied();
                }
                if asks(libc::W_OK) && !status.my_rights.has_any(Rights(Rights::INSERT.0 | Rights::DELETE.0))
                {
                    return denied();
                }
            }
            Kind::File | Kind::Symlink => {
                if asks(libc::R_OK) && !has(Rights::READ) || asks(libc::W_OK) && !has(Rights::WRITE) {
                    return denied();
                }
                if asks(libc::X_OK) && (status.mode & 0o111 == 0 || !has(Rights::READ)) {
                    return denied();
                }
            }
        }
        Ok(())
    }
}
