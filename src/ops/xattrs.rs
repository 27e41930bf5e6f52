//! Extended attributes: `user.*` are kept with the object at all members; `user.coda.*` say what venus
//! knows of it.

use coda_proto::{
    Op, Rights,
    name::{XATTR_NAME_LIMIT, XATTR_VALUE_LIMIT},
};

use super::{Core, Result, names::updated, path::text};
use crate::{
    cache::View,
    conflict::versions::distinct,
    error::Error,
    fid::CODA,
    reintegration::{Failure, Seen},
    store::{Change, Edit},
    venus::face::{Caller, ObjectId},
};

const OURS: &[u8] = b"user.coda.";
/// Names below `user.coda.`.
const MADE_UP: [&str; 6] = ["fid", "version", "state", "volume", "replicas", "versions"];

impl Core {
    /// One attribute's value.
    pub(crate) async fn getxattr(&self, id: ObjectId, name: &[u8]) -> Result<Vec<u8>> {
        let missing = || Error::NoAttribute(text(name));
        if id == CODA || !name.starts_with(b"user.") {
            return Err(missing());
        }
        let view = self.current(id).await?;
        if let Some(made_up) = name.strip_prefix(OURS) {
            return self.made_up(&view, made_up).await.ok_or_else(missing);
        }
        let found = view.row.status.xattrs.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.clone()).ok_or_else(missing)
    }

    async fn made_up(&self, view: &View, name: &[u8]) -> Option<Vec<u8>> {
        let id = view.id;
        let realm = self.realm_name(id.realm).ok()?;
        let value = match std::str::from_utf8(name).ok()? {
            "fid" => format!("{}@{realm}", id.fid),
            "version" => view.row.status.past.to_string(),
            "state" => self.state_of(view).to_owned(),
            // How many contents people must decide between; of anything that is not in conflict, 1.
            "versions" => distinct(&view.row.status.siblings).len().max(1).to_string(),
            "volume" => self.group(id).await.ok()?.1.name,
            "replicas" => {
                let (realm, group) = self.group(id).await.ok()?;
                let names = group.members.iter().map(|member| self.peers.server_name(&realm, member.server));
                names.collect::<Vec<_>>().join(" ")
            }
            _ => return None,
        };
        Some(value.into_bytes())
    }

    /// A word for how much a cached object may be believed.
    pub(crate) fn state_of(&self, view: &View) -> &'static str {
        let written = view.open.as_ref().is_some_and(|file| file.state().writers > 0 && file.changed());
        match () {
            () if view.row.status.in_conflict() || view.row.status.marked => "conflict",
            () if written => "dirty",
            () if view.valid => "valid",
            () => "suspect",
        }
    }

    /// Names of all attributes.
    pub(crate) async fn listxattr(&self, id: ObjectId) -> Result<Vec<Vec<u8>>> {
        if id == CODA {
            return Ok(Vec::new());
        }
        // Those that are made up are answered but not listed: copying a file must not copy them.
        let view = self.current(id).await?;
        Ok(view.row.status.xattrs.iter().map(|(name, _)| name.clone()).collect())
    }

    /// Sets or removes one.
    pub(crate) async fn setxattr(
        &self,
        who: Caller,
        id: ObjectId,
        name: &[u8],
        value: Option<&[u8]>,
        must_exist: Option<bool>,
    ) -> Result<()> {
        if id == CODA {
            return Err(Error::ReadOnly("/coda".into()));
        }
        if !name.starts_with(b"user.") {
            return Err(Error::Unsupported(text(name)));
        }
        if let Some(made_up) = name.strip_prefix(OURS) {
            let known = MADE_UP.iter().any(|known| known.as_bytes() == made_up);
            return Err(if known { Error::ReadOnly(text(name)) } else { Error::Unsupported(text(name)) });
        }
        if name.len() > XATTR_NAME_LIMIT {
            return Err(Error::NameTooLong(text(name)));
        }
        if value.is_some_and(|value| value.len() > XATTR_VALUE_LIMIT) {
            return Err(Error::TooBig(text(name)));
        }
        self.retried(id, name, || self.setxattr_once(who.uid, id, name, value, must_exist)).await
    }

    async fn setxattr_once(
        &self,
        uid: u32,
        id: ObjectId,
        name: &[u8],
        value: Option<&[u8]>,
        must_exist: Option<bool>,
    ) -> std::result::Result<(), Failure> {
        let held = self.cache.locks.hold([id]).await;
        let view = self.current_held(id, Vec::new()).await?;
        let status = &view.row.status;
        if !status.my_rights.has(Rights::WRITE) {
            return Err(Error::Access(text(name)).into());
        }
        let exists = status.xattrs.iter().any(|(other, _)| other == name);
        match must_exist {
            Some(true) if !exists => return Err(Error::NoAttribute(text(name)).into()),
            Some(false) if exists => return Err(Error::Exists(text(name)).into()),
            _ if value.is_none() && !exists => return Err(Error::NoAttribute(text(name)).into()),
            _ => {}
        }
        if view.gone {
            return Ok(());
        }
        self.submit(uid, held, id, vec![Seen::of(status)], false, |stamp| {
            let row = updated(&view.row, stamp, |status| {
                status.xattrs.retain(|(other, _)| other != name);
                status.xattrs.extend(value.map(|value| (name.to_vec(), value.to_vec())));
            });
            let op = Op::SetXattr { fid: id.fid, name: name.to_vec(), value: value.map(<[u8]>::to_vec) };
            (op, Change::of(Edit::Put(id, row)))
        })
        .await?;
        Ok(())
    }
}
