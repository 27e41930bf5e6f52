//! Which places of a volume are contested: a server knows all of them; without one, what is cached does.

use coda_proto::{
    Fid, Kind, Status,
    id::required,
    wire::{self, request::Body, response},
};

use crate::{
    env::Priority,
    error::Error,
    ops::{Core, Result},
    venus::face::ObjectId,
};

/// Places asked for at once; 0: as many as a server tells.
const AT_ONCE: u32 = if cfg!(test) { 2 } else { 0 };

/// A contested place within a volume.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    /// Where it is, from the volume's root.
    pub path: Vec<u8>,
    /// What shows there.
    pub status: Status,
    /// The other objects of that name.
    pub others: Vec<Status>,
}

impl Core {
    /// All contested places of a volume, as a server knows them.
    pub(crate) async fn contested(&self, root: ObjectId) -> Result<Vec<Place>> {
        let mut places: Vec<Place> = Vec::new();
        loop {
            let (more, all) = self.contested_from(root, places.len()).await?;
            // A server of an earlier version begins at the first again.
            let new: Vec<Place> = more.into_iter().filter(|place| !places.contains(place)).collect();
            let none = new.is_empty();
            places.extend(new);
            if all || none {
                return Ok(places);
            }
        }
    }

    async fn contested_from(&self, root: ObjectId, skip: usize) -> Result<(Vec<Place>, bool)> {
        let (realm, group) = self.group(root).await?;
        let skip = u32::try_from(skip).unwrap_or(u32::MAX);
        let body =
            Body::ListConflicts(wire::ListConflicts { volume: root.fid.volume.0, limit: AT_ONCE, skip });
        let asked = self.peers.ask_any(&realm, &group, body, bytes::Bytes::new(), Priority::Foreground).await;
        let (_, answer) = asked.map_err(|error| error.about(&group.name))?;
        let Some(response::Body::Conflicts(conflicts)) = answer.response.body else {
            return crate::ops::unexpected(root);
        };
        let place = |conflict: wire::Conflict| {
            let others = conflict.others.into_iter().map(Status::try_from);
            Ok(Place {
                path: conflict.path.into(),
                status: required(conflict.status, "conflict")?,
                others: others.collect::<std::result::Result<_, _>>()?,
            })
        };
        let bad = |error: coda_proto::Malformed| Error::BadAnswer(root.fid.to_string(), error.to_string());
        let places = conflicts.conflicts.into_iter().map(place).collect::<std::result::Result<_, _>>();
        Ok((places.map_err(bad)?, conflicts.all))
    }

    /// Files with several versions in a directory that is too large to ask about every entry.
    pub(crate) async fn undecided_in(&self, dir: ObjectId) -> Result<Vec<Fid>> {
        let root = ObjectId { realm: dir.realm, fid: Fid::root(dir.fid.volume) };
        match self.contested(root).await {
            Ok(places) => {
                let here = |status: &Status| {
                    status.kind == Kind::File && status.parent == dir.fid && status.in_conflict()
                };
                for status in places.into_iter().map(|place| place.status).filter(here) {
                    let id = ObjectId { realm: dir.realm, fid: status.fid };
                    if self.cache.peek(id)?.is_none() && self.cache.room_for(1).is_err() {
                        break;
                    }
                    self.learn_along(id, status)?;
                }
            }
            Err(error) => {
                tracing::debug!(realm = self.realm_field(dir.realm), fid = %dir.fid, %error, "versions are listed as far as they are cached")
            }
        }
        Ok(self.cache.store(|store| store.undecided_in(dir))?.into_iter().map(|id| id.fid).collect())
    }
}
