//! Where an object shows, as far as that is cached: for people, who know paths and not fids.

use coda_proto::VolumeId;

use super::{Core, locked};
use crate::{fid::CODA, venus::face::ObjectId};

/// The way to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// It begins at the mount point; else at the name of a volume that is not known to be mounted.
    pub whole: bool,
    /// The names, the first one first.
    pub names: Vec<Vec<u8>>,
}

impl Core {
    /// The way to an object; none where a part of it is not cached.
    pub(crate) fn way_to(&self, id: ObjectId) -> Option<Way> {
        let (mut names, mut at) = (Vec::new(), id);
        let whole = loop {
            if at == CODA {
                break true;
            }
            if at.fid.is_root() {
                match locked(&self.mounts).place(at) {
                    Some(place) => {
                        names.push(place.name);
                        at = place.dir;
                        continue;
                    }
                    None => {
                        names.push(self.volume_name(at.realm, at.fid.volume).into_bytes());
                        break false;
                    }
                }
            }
            let dir = ObjectId { realm: at.realm, fid: self.cache.peek(at).ok()??.status.parent };
            names.push(self.cache.store(|store| store.name_in(dir, at.fid)).ok()??);
            at = dir;
        };
        names.reverse();
        Some(Way { whole, names })
    }

    /// An object for people: its path below the mount point, or its fid where that is not cached.
    pub(crate) fn shown(&self, id: ObjectId) -> String {
        match self.way_to(id) {
            Some(way) => String::from_utf8_lossy(&way.names.join(&b'/')).into_owned(),
            None => match self.realm_name(id.realm) {
                Ok(realm) => format!("{}@{realm}", id.fid),
                Err(_) => id.fid.to_string(),
            },
        }
    }

    /// The name of a volume, as far as it is known without asking.
    pub(crate) fn volume_name(&self, realm: u32, volume: VolumeId) -> String {
        let known = self.realm_name(realm).ok().and_then(|realm| self.peers.known_group(&realm, volume));
        known.map_or_else(|| volume.to_string(), |group| group.name)
    }
}
