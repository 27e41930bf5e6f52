//! The manager's face.

use coda_proto::Fid;
use tokio::sync::mpsc;

use super::{
    Venus,
    face::{Attr, AttrChange, Caller, Face, Forget, Listing, ObjectId, OpenMode, Opened, RenameMode, Space},
};
use crate::{error::Error, fid::CODA, ops::Looked};

type Result<T> = std::result::Result<T, Error>;

impl Face for Venus {
    fn root(&self) -> ObjectId {
        CODA
    }

    async fn lookup(&self, who: Caller, dir: ObjectId, name: &[u8]) -> Result<Attr> {
        self.core
            .patiently(who.uid, dir.realm, || {
                self.core.on_behalf(who, Looked::For(dir, name), self.core.lookup(who, dir, name))
            })
            .await
    }

    async fn getattr(&self, who: Caller, id: ObjectId) -> Result<Attr> {
        self.core
            .patiently(who.uid, id.realm, || {
                self.core.on_behalf(who, Looked::At(id), self.core.getattr(who, id))
            })
            .await
    }

    async fn setattr(
        &self,
        who: Caller,
        id: ObjectId,
        change: AttrChange,
        handle: Option<u64>,
    ) -> Result<Attr> {
        let set = || self.core.on_behalf(who, Looked::At(id), self.core.setattr(who, id, change, handle));
        self.core.patiently(who.uid, id.realm, set).await
    }

    async fn readdir(&self, who: Caller, dir: ObjectId) -> Result<Listing> {
        self.core
            .patiently(who.uid, dir.realm, || {
                self.core.on_behalf(who, Looked::At(dir), self.core.readdir(who, dir))
            })
            .await
    }

    async fn parent(&self, dir: ObjectId) -> Result<ObjectId> {
        self.core.parent(dir).await
    }

    async fn open(&self, who: Caller, id: ObjectId, mode: OpenMode) -> Result<Opened> {
        self.core
            .patiently(who.uid, id.realm, || {
                self.core.on_behalf(who, Looked::At(id), self.core.open(who, id, mode))
            })
            .await
    }

    async fn create(
        &self,
        who: Caller,
        dir: ObjectId,
        name: &[u8],
        mode: u32,
        open: OpenMode,
        exclusive: bool,
    ) -> Result<Opened> {
        self.core
            .patiently(who.uid, dir.realm, || {
                let create = self.core.create(who, dir, name, mode, open, exclusive);
                self.core.on_behalf(who, Looked::For(dir, name), create)
            })
            .await
    }

    async fn flush(&self, who: Caller, handle: u64) -> Result<()> {
        self.core.as_caller(who, self.core.flush(handle)).await
    }

    async fn fsync(&self, who: Caller, handle: u64) -> Result<()> {
        self.core.as_caller(who, self.core.fsync(handle)).await
    }

    fn fsyncdir(&self) -> Result<()> {
        self.core.make_last()
    }

    async fn release(&self, handle: u64) -> Result<()> {
        self.core.release(handle).await
    }

    async fn mkdir(&self, who: Caller, dir: ObjectId, name: &[u8], mode: u32) -> Result<Attr> {
        let mkdir =
            || self.core.on_behalf(who, Looked::For(dir, name), self.core.mkdir(who, dir, name, mode));
        self.core.patiently(who.uid, dir.realm, mkdir).await
    }

    async fn symlink(&self, who: Caller, dir: ObjectId, name: &[u8], target: &[u8]) -> Result<Attr> {
        let symlink =
            || self.core.on_behalf(who, Looked::For(dir, name), self.core.symlink(who, dir, name, target));
        self.core.patiently(who.uid, dir.realm, symlink).await
    }

    async fn readlink(&self, who: Caller, id: ObjectId) -> Result<Vec<u8>> {
        self.core
            .patiently(who.uid, id.realm, || self.core.on_behalf(who, Looked::At(id), self.core.readlink(id)))
            .await
    }

    async fn link(&self, who: Caller, id: ObjectId, dir: ObjectId, name: &[u8]) -> Result<Attr> {
        let link = || self.core.on_behalf(who, Looked::At(id), self.core.link(who, id, dir, name));
        self.core.patiently(who.uid, id.realm, link).await
    }

    async fn unlink(&self, who: Caller, dir: ObjectId, name: &[u8]) -> Result<()> {
        let unlink = || self.core.on_behalf(who, Looked::For(dir, name), self.core.unlink(who, dir, name));
        self.core.patiently(who.uid, dir.realm, unlink).await
    }

    async fn rmdir(&self, who: Caller, dir: ObjectId, name: &[u8]) -> Result<()> {
        let rmdir = || self.core.on_behalf(who, Looked::For(dir, name), self.core.rmdir(who, dir, name));
        self.core.patiently(who.uid, dir.realm, rmdir).await
    }

    async fn rename(
        &self,
        who: Caller,
        from: (ObjectId, &[u8]),
        to: (ObjectId, &[u8]),
        mode: RenameMode,
    ) -> Result<()> {
        let looked = Looked::For(from.0, from.1);
        let rename = || self.core.on_behalf(who, looked, self.core.rename(who, from, to, mode));
        self.core.patiently(who.uid, from.0.realm, rename).await
    }

    async fn getxattr(&self, who: Caller, id: ObjectId, name: &[u8]) -> Result<Vec<u8>> {
        self.core.patiently(who.uid, id.realm, || self.core.getxattr(id, name)).await
    }

    async fn listxattr(&self, who: Caller, id: ObjectId) -> Result<Vec<Vec<u8>>> {
        self.core.patiently(who.uid, id.realm, || self.core.listxattr(id)).await
    }

    async fn setxattr(
        &self,
        who: Caller,
        id: ObjectId,
        name: &[u8],
        value: Option<&[u8]>,
        must_exist: Option<bool>,
    ) -> Result<()> {
        let set = self.core.setxattr(who, id, name, value, must_exist);
        self.core.on_behalf(who, Looked::At(id), set).await
    }

    async fn access(&self, _who: Caller, id: ObjectId, mask: i32) -> Result<()> {
        self.core.access(id, mask).await
    }

    fn space(&self) -> Space {
        self.core.cache.space()
    }

    fn forget(&self, _id: ObjectId) {
        // The table in memory is bounded by itself.
    }

    fn forgets(&self) -> mpsc::UnboundedReceiver<Forget> {
        let mut forgets = self.forgets.lock().expect("no holder panics");
        // A second caller hears nothing.
        forgets.take().unwrap_or_else(|| mpsc::unbounded_channel().1)
    }
}

impl Venus {
    /// The object of a fid in a realm, where both are known.
    pub fn object(&self, realm: &str, fid: Fid) -> Result<ObjectId> {
        Ok(ObjectId { realm: self.core.realm_number(realm)?, fid })
    }
}
