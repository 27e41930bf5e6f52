//! Access lists and quotas: asked of a server, never cached, and changed by a record like everything else.

use coda_proto::{Acl, Op, wire};

use super::{Core, Result, names::updated, path::text, unexpected};
use crate::{
    cml::Manner,
    error::Error,
    reintegration::{Failure, Seen},
    store::{Change, Edit},
    venus::face::ObjectId,
};

impl Core {
    /// A directory's access list.
    pub async fn acl(&self, dir: ObjectId) -> Result<Acl> {
        if !dir.fid.is_directory() {
            return Err(Error::NotDirectory(dir.fid.to_string()));
        }
        let (realm, group) = self.group(dir).await?;
        let body = wire::request::Body::GetAcl(wire::GetAcl { fid: Some(dir.fid.into()) });
        let (_, answer) = self.ask_any(dir, &realm, &group, body).await?;
        match answer.response.body {
            Some(wire::response::Body::Acl(wire::AclAnswer { acl: Some(acl), .. })) => Acl::try_from(acl)
                .map_err(|malformed| Error::BadAnswer(dir.fid.to_string(), malformed.to_string())),
            _ => unexpected(dir),
        }
    }

    /// Replaces a directory's access list.
    pub async fn set_acl(&self, uid: u32, dir: ObjectId, acl: &Acl) -> Result<()> {
        if !dir.fid.is_directory() {
            return Err(Error::NotDirectory(dir.fid.to_string()));
        }
        let op = Op::SetAcl { fid: dir.fid, acl: acl.clone() };
        self.retried(dir, b"access list", || self.change_once(uid, dir, op.clone())).await?;
        // Rights on what is in it come with each object's status.
        for child in self.cache.store(|store| store.children(dir))? {
            self.cache.demote(child)?;
        }
        self.cache.demote(dir)
    }

    /// What the servers know of an object's volume.
    pub async fn volume_status(&self, id: ObjectId) -> Result<wire::VolumeStatus> {
        let (realm, group) = self.group(id).await?;
        let body = wire::request::Body::GetVolumeStatus(wire::GetVolumeStatus { volume: group.id.0 });
        let (_, answer) = self.ask_any(id, &realm, &group, body).await?;
        match answer.response.body {
            Some(wire::response::Body::VolumeStatus(status)) => Ok(status),
            _ => unexpected(id),
        }
    }

    /// Limits an object's volume to so many blocks of a kilobyte; 0 is no limit.
    pub async fn set_quota(&self, uid: u32, id: ObjectId, blocks: u64) -> Result<()> {
        let root = ObjectId { realm: id.realm, fid: coda_proto::Fid::root(id.fid.volume) };
        let op = Op::SetQuota { fid: root.fid, min: None, max: Some(blocks) };
        self.retried(root, b"quota", || self.change_once(uid, root, op.clone())).await
    }

    /// A record that changes nothing that is cached of the object but its version.
    async fn change_once(&self, uid: u32, id: ObjectId, op: Op) -> std::result::Result<(), Failure> {
        let held = self.cache.locks.hold([id]).await;
        let view = self.current_held(id, Vec::new()).await?;
        if view.gone {
            return Err(Error::NotFound(text(b"directory")).into());
        }
        self.submit(uid, held, id, vec![Seen::of(&view.row.status)], Manner::Connected, |stamp| {
            (op, Change::of(Edit::Put(id, updated(&view.row, stamp, |_| ()))))
        })
        .await?;
        Ok(())
    }
}
