//! From the paths that tools name to objects, and back.

use std::collections::VecDeque;

use coda_proto::{
    Fid, VolumeId,
    control::{Failure, FailureKind, escape, unescape},
};

use super::wrong;
use crate::{
    control::failure::failure,
    error::Error,
    fid::CODA,
    venus::{
        Venus,
        face::{Caller, NodeKind, ObjectId},
    },
};

/// Symbolic links followed for one path, as the kernel does.
const LINKS: usize = 40;

/// A name in a directory, and what is bound there: the link itself where a volume is mounted upon it.
pub(super) struct Place {
    pub dir: ObjectId,
    pub name: Vec<u8>,
    pub link: ObjectId,
}

impl Venus {
    /// The object of a path; a mounted volume's root rather than the link it covers. A last symbolic link is
    /// not followed.
    pub(super) async fn find(&self, who: Caller, path: &str) -> Result<ObjectId, Failure> {
        self.walk(who, self.names(path)?).await.map_err(|error| failure(path, &error))
    }

    /// The directory of a path's last name, and the name.
    pub(super) async fn parent_of(&self, who: Caller, path: &str) -> Result<(ObjectId, Vec<u8>), Failure> {
        let mut names = self.names(path)?;
        let Some(last) = names.pop_back() else {
            return Err(wrong(path, FailureKind::Exists, "it is where venus is mounted"));
        };
        let dir = self.walk(who, names).await.map_err(|error| failure(path, &error))?;
        if dir == CODA {
            return Err(wrong(path, FailureKind::Denied, "realms appear by themselves"));
        }
        Ok((dir, last))
    }

    /// What is bound at a path; `None` for `/coda` and realms, which nothing binds.
    pub(super) async fn place(&self, who: Caller, path: &str) -> Result<Option<Place>, Failure> {
        let mut names = self.names(path)?;
        if names.len() < 2 {
            self.find(who, path).await?;
            return Ok(None);
        }
        let name = names.pop_back().expect("two names at least");
        let found = async {
            let dir = self.walk(who, names).await?;
            // Brings the directory's entries in, and checks that the caller may look.
            self.core.lookup(who, dir, &name).await?;
            let entry = self.core.entry(dir, &name)?.ok_or_else(|| Error::NotFound(escape(&name)))?;
            Ok(Place { dir, link: ObjectId { realm: dir.realm, fid: entry.fid }, name })
        };
        found.await.map(Some).map_err(|error: Error| failure(path, &error))
    }

    /// The names of a path below the mount point.
    fn names(&self, path: &str) -> Result<VecDeque<Vec<u8>>, Failure> {
        below(&unescape(path), self.config().mountpoint.as_bytes()).ok_or_else(|| {
            let why = format!("not below {}, where venus is mounted", self.config().mountpoint);
            wrong(path, FailureKind::Outside, why)
        })
    }

    async fn walk(&self, who: Caller, mut names: VecDeque<Vec<u8>>) -> Result<ObjectId, Error> {
        let mut at = CODA;
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == b".." {
                at = self.core.parent(at).await?;
                continue;
            }
            let found = self.core.lookup(who, at, &name).await?;
            if found.kind != NodeKind::Symlink || names.is_empty() {
                at = found.id;
                continue;
            }
            links += 1;
            let target = self.core.readlink(found.id).await?;
            if links > LINKS {
                return Err(Error::Loop(escape(&name)));
            }
            let onward = match target.first() {
                Some(b'/') => {
                    at = CODA;
                    below(&target, self.config().mountpoint.as_bytes())
                        .ok_or_else(|| Error::Invalid(format!("{} leads out of the tree", escape(&name))))?
                }
                _ => parts(&target),
            };
            onward.into_iter().rev().for_each(|part| names.push_front(part));
        }
        Ok(at)
    }

    /// Where an object shows, as far as that is cached: its path, or `VOLUME/rest` where the volume's
    /// mount point is not known.
    pub(super) fn path_of(&self, id: ObjectId) -> Option<String> {
        let mut way = self.core.way_to(id)?;
        if way.whole {
            way.names.insert(0, self.config().mountpoint.clone().into_bytes());
        }
        Some(escape(&way.names.join(&b'/')))
    }

    /// The name of an object's volume, as far as it is known without asking.
    pub(super) fn volume_name(&self, id: ObjectId) -> String {
        self.core.volume_name(id.realm, id.fid.volume)
    }

    pub(super) fn path_of_fid(&self, text: &str) -> Result<String, Failure> {
        let malformed =
            || wrong(text, FailureKind::Invalid, "Malformed fid: should look like %x.%x.%x@<realm>");
        let (fid, realm) = text.split_once('@').ok_or_else(malformed)?;
        let fid: Fid = fid.parse().map_err(|_| malformed())?;
        let id = ObjectId { realm: self.realm_of(text, realm)?, fid };
        self.path_of(id).ok_or_else(|| wrong(text, FailureKind::NotFound, "nothing of it is cached"))
    }

    pub(super) fn mount_of(&self, text: &str) -> Result<String, Failure> {
        let malformed = || wrong(text, FailureKind::Invalid, "should look like VOLUMEID@REALM");
        let (volume, realm) = text.split_once('@').ok_or_else(malformed)?;
        let volume = VolumeId(u32::from_str_radix(volume, 16).map_err(|_| malformed())?);
        let root = ObjectId { realm: self.realm_of(text, realm)?, fid: Fid::root(volume) };
        self.core
            .mounted_at(root)
            .and_then(|_| self.path_of(root))
            .ok_or_else(|| wrong(text, FailureKind::NotFound, "not mounted, as far as is known"))
    }

    fn realm_of(&self, what: &str, name: &str) -> Result<u32, Failure> {
        let found = self.core.realms().into_iter().find(|(_, realm)| **realm == *name);
        found
            .map(|(number, _)| number)
            .ok_or_else(|| wrong(what, FailureKind::NotFound, format!("realm {name} was not met yet")))
    }

    /// The root of a volume that goes by this name in any realm, as far as it is known without asking.
    pub(super) fn volume_named(&self, name: &str) -> Option<ObjectId> {
        let (name, wanted) = name.split_once('@').map_or((name, None), |(name, realm)| (name, Some(realm)));
        let known = self.core.peers.known();
        let realms = known.realms.iter().filter(|(realm, _)| wanted.is_none_or(|wanted| wanted == *realm));
        let mut found =
            realms.flat_map(|(realm, known)| known.volumes.values().map(move |group| (realm, group)));
        let (realm, group) = found.find(|(_, group)| group.name == name || group.id.to_string() == name)?;
        self.object(realm, Fid::root(group.id)).ok()
    }
}

/// The names of a path below the mount point.
fn below(path: &[u8], mountpoint: &[u8]) -> Option<VecDeque<Vec<u8>>> {
    let rest = path.strip_prefix(mountpoint)?;
    (rest.is_empty() || rest.starts_with(b"/") || mountpoint.ends_with(b"/")).then(|| parts(rest))
}

fn parts(path: &[u8]) -> VecDeque<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && part != b".");
    parts.map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_the_mount_point_is_its_names() {
        let names = |path: &str| {
            below(path.as_bytes(), b"/coda").map(|names| {
                names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect::<Vec<_>>()
            })
        };
        assert_eq!(names("/coda/r//a/./b/").unwrap(), ["r", "a", "b"]);
        assert_eq!(names("/coda").unwrap(), Vec::<String>::new());
        assert_eq!(names("/codas/r"), None);
        assert_eq!(names("/etc"), None);
    }
}
