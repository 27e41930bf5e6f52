//! What a name means: realms below `/coda`, mount points, entries, and names in conflict.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use coda_proto::{Author, Dot, Entry, Fid, Kind, Rights, Status};

use super::{Core, Result, is_disconnected, locked};
use crate::{
    conflict::{
        names::{self, Made},
        versions::Named,
    },
    error::Error,
    fid::CODA,
    realm,
    replica::VolumeKey,
    venus::face::{Attr, Caller, DirLine, NodeKind, ObjectId},
};

/// Siblings whose status is asked for along with a missing one.
const ALONG: usize = 63;

/// Which volume's root shows where.
#[derive(Default)]
pub(crate) struct Mounts {
    /// The root that covers a mount link.
    roots: HashMap<ObjectId, ObjectId>,
    /// Where a root shows: the directory, the name there and the link it covers. A realm's root volume
    /// shows in `/coda` and covers nothing.
    places: HashMap<ObjectId, Place>,
}

/// Where a volume's root shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub dir: ObjectId,
    /// The name in it.
    pub name: Vec<u8>,
    /// The link that is covered.
    pub link: Option<ObjectId>,
}

impl Mounts {
    fn cover(&mut self, link: Option<ObjectId>, root: ObjectId, dir: ObjectId, name: &[u8]) {
        if let Some(link) = link {
            self.roots.insert(link, root);
        }
        self.places.insert(root, Place { dir, name: name.to_vec(), link });
    }

    /// Where a root shows.
    pub fn place(&self, root: ObjectId) -> Option<Place> {
        self.places.get(&root).cloned()
    }

    /// Whether a root shows in place of this link.
    pub fn covers(&self, link: ObjectId) -> bool {
        self.roots.contains_key(&link)
    }

    /// The root that shows in place of this link, if one does.
    fn covering(&self, link: ObjectId) -> Option<ObjectId> {
        self.roots.get(&link).copied()
    }

    /// A link was renamed.
    pub fn moved(&mut self, link: ObjectId, dir: ObjectId, name: &[u8]) {
        if let Some(place) = self.roots.get(&link).and_then(|root| self.places.get_mut(root)) {
            *place = Place { dir, name: name.to_vec(), link: Some(link) };
        }
    }

    /// The link is gone.
    pub fn uncover(&mut self, link: ObjectId) {
        if let Some(root) = self.roots.remove(&link) {
            self.places.remove(&root);
        }
    }
}

/// The volume that a link mounts, and its realm where it names one.
pub(crate) fn mount_target(status: &Status) -> Option<(String, Option<String>)> {
    if status.kind != Kind::Symlink || status.mode & 0o777 != 0o644 {
        return None;
    }
    let target = std::str::from_utf8(&status.target).ok()?.strip_prefix('#')?;
    let target = target.strip_suffix('.').unwrap_or(target);
    let (volume, realm) = match target.split_once('@') {
        Some((volume, realm)) => (volume, Some(realm.to_owned())),
        None => (target, None),
    };
    (!volume.is_empty() || realm.is_some()).then(|| (volume.to_owned(), realm))
}

/// The names under which bindings show: of several with one name, the smallest dot keeps it. `made`: on
/// which machine an object was made, and when.
pub(crate) fn shown(entries: Vec<Entry>, made: impl Fn(Fid) -> (String, i64)) -> Vec<(Vec<u8>, Entry)> {
    let mut names: BTreeMap<Vec<u8>, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        names.entry(entry.name.clone()).or_default().push(entry);
    }
    let mut shown = Vec::new();
    for (name, mut entries) in names {
        if entries.len() == 1 {
            shown.extend(entries.pop().map(|entry| (name, entry)));
            continue;
        }
        entries.sort_by_key(|entry| entry.dot);
        let fids: Vec<Fid> = entries.iter().map(|entry| entry.fid).collect();
        let labels = labels_of(&fids, &made);
        for (index, (entry, label)) in entries.into_iter().zip(labels).enumerate() {
            let name = if index == 0 { name.clone() } else { names::beside(&name, &label) };
            shown.push((name, entry));
        }
    }
    shown
}

/// What tells several objects of one name apart.
pub(crate) fn labels_of(fids: &[Fid], made: impl Fn(Fid) -> (String, i64)) -> Vec<String> {
    let facts: Vec<(String, i64)> = fids.iter().map(|fid| made(*fid)).collect();
    let birth = |fid: &Fid| Dot::new(Author(fid.unique), fid.vnode.into());
    let made: Vec<Made> = (fids.iter().zip(&facts))
        .map(|(fid, (host, time))| Made { host, time: *time, dot: birth(fid) })
        .collect();
    names::labels(&made)
}

impl Core {
    /// Attributes of what a name means.
    pub(crate) async fn lookup(&self, who: Caller, dir: ObjectId, name: &[u8]) -> Result<Attr> {
        if name.len() > coda_proto::name::NAME_LIMIT {
            return Err(Error::NameTooLong(text(name)));
        }
        if dir == CODA {
            let root = self.realm_root(&text(name)).await?;
            return Ok(self.attr(&self.current(root).await?, who));
        }
        let view = self.directory(dir).await?;
        if !view.row.status.my_rights.has(Rights::LOOKUP) {
            return Err(Error::Access(text(name)));
        }
        let Some(entry) = self.entry_known(dir, name).await? else {
            return match self.version_named(dir, name).await? {
                Some(Named::Shown(id) | Named::Other(id, _) | Named::Base(id, _)) => {
                    Ok(self.attr(&self.current(id).await?, who))
                }
                None => Err(Error::NotFound(text(name))),
            };
        };
        let id = ObjectId { realm: dir.realm, fid: entry.fid };
        let found = self.current_along(id, || self.siblings(dir, name)).await?;
        let mut attr = match self.mounted(dir, name, id, &found.row.status).await? {
            Some(root) => self.attr(&self.current(root).await?, who),
            None => match self.shown_for(id, &found.row.status) {
                shown if shown == id => self.attr(&found, who),
                stand_in => self.attr(&self.current(stand_in).await?, who),
            },
        };
        // The kernel keeps a name only of a directory whose changes it will be told.
        attr.lasting &= self.cache.tell(dir);
        Ok(attr)
    }

    /// The entry that a name of a cached directory means.
    pub(crate) fn entry(&self, dir: ObjectId, name: &[u8]) -> Result<Option<Entry>> {
        if let Some(first) = self.cache.named(dir, name)?.into_iter().next() {
            return Ok(Some(first));
        }
        let Some((plain, label)) = names::split(name) else { return Ok(None) };
        let bound = self.cache.named(dir, plain)?;
        if bound.len() < 2 {
            return Ok(None);
        }
        let fids: Vec<Fid> = bound.iter().map(|entry| entry.fid).collect();
        let labels = labels_of(&fids, |fid| self.made(dir.realm, fid));
        let is_named = |text: &String| text.as_bytes() == label || names::beside(plain, text) == name;
        let found = labels.iter().skip(1).position(is_named);
        Ok(found.and_then(|at| bound.into_iter().nth(at + 1)))
    }

    /// The same, after what names of versions are made from has been brought in.
    pub(crate) async fn entry_known(&self, dir: ObjectId, name: &[u8]) -> Result<Option<Entry>> {
        if let Some(entry) = self.entry(dir, name)? {
            return Ok(Some(entry));
        }
        let Some((plain, _)) = names::split(name) else { return Ok(None) };
        let bound = self.cache.named(dir, plain)?;
        if bound.len() < 2 {
            return Ok(None);
        }
        for entry in bound {
            Box::pin(self.current(ObjectId { realm: dir.realm, fid: entry.fid })).await?;
        }
        self.entry(dir, name)
    }

    /// On which machine an object was made, and when, as far as that is cached.
    pub(crate) fn made(&self, realm: u32, fid: Fid) -> (String, i64) {
        let view = self.cache.view(ObjectId { realm, fid }).ok().flatten();
        view.map(|view| (view.row.status.host.clone(), view.row.status.made)).unwrap_or_default()
    }

    /// Entries behind `name` whose status is not known: whoever looks one up will want the next.
    fn siblings(&self, dir: ObjectId, name: &[u8]) -> Vec<Fid> {
        let next = self.cache.store(|store| store.entries_after(dir, name, ALONG as i64 + 1));
        let unknown =
            |fid: &Fid| matches!(self.cache.view(ObjectId { realm: dir.realm, fid: *fid }), Ok(None));
        let room = self.cache.space().objects_free;
        let fids: Vec<Fid> =
            next.unwrap_or_default().into_iter().map(|entry| entry.fid).filter(unknown).collect();
        if fids.len() as u64 + 1 > room { Vec::new() } else { fids }
    }

    /// The root directory of a realm's root volume.
    pub(crate) async fn realm_root(&self, name: &str) -> Result<ObjectId> {
        if !may_be_realm(name) {
            return Err(Error::NotFound(name.to_owned()));
        }
        let volume = self.peers.root_volume(name).await?;
        let root = self.volume_root(name, &volume).await?;
        locked(&self.realms).used.insert(name.to_owned());
        locked(&self.mounts).cover(None, root, CODA, name.as_bytes());
        Ok(root)
    }

    /// The root directory of a volume.
    pub(crate) async fn volume_root(&self, realm: &str, volume: &str) -> Result<ObjectId> {
        let group = self.peers.volume(realm, VolumeKey::Name(volume.to_owned())).await;
        Ok(ObjectId { realm: self.realm_number(realm)?, fid: Fid::root(group?.id) })
    }

    /// The root that shows in place of a link, if it is a mount point whose volume is found. A link whose
    /// volume is not known dangles.
    async fn mounted(
        &self,
        dir: ObjectId,
        name: &[u8],
        link: ObjectId,
        status: &Status,
    ) -> Result<Option<ObjectId>> {
        let Some((volume, realm)) = mount_target(status) else { return Ok(None) };
        let here = self.realm_name(dir.realm)?;
        // A realm cannot graft another's volumes into its own names.
        if realm.as_ref().is_some_and(|realm| **realm != *here) {
            return Ok(None);
        }
        match self.volume_root(&here, &volume).await {
            Ok(root) if root.fid == dir.fid => Ok(None),
            Ok(root) => {
                locked(&self.mounts).cover(Some(link), root, dir, name);
                Ok(Some(root))
            }
            Err(Error::UnknownVolume(_) | Error::NotFound(_)) => Ok(None),
            Err(error) if is_disconnected(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same for a link whose status is cached.
    pub(crate) async fn mounted_quickly(
        &self,
        dir: ObjectId,
        name: &[u8],
        link: ObjectId,
    ) -> Option<ObjectId> {
        let view = self.cache.view(link).ok().flatten()?;
        self.mounted(dir, name, link, &view.row.status).await.ok().flatten()
    }

    /// Whether a name of a directory is a mount point.
    pub(crate) fn is_mount(&self, status: &Status) -> bool {
        mount_target(status).is_some()
    }

    /// The directory that holds `dir`.
    pub(crate) async fn parent(&self, dir: ObjectId) -> Result<ObjectId> {
        if dir == CODA {
            return Ok(CODA);
        }
        if dir.fid.is_root() {
            let place = locked(&self.mounts).place(dir);
            return Ok(place.map_or(CODA, |place| place.dir));
        }
        let view = match self.cache.view(dir)? {
            Some(view) => view,
            None => self.current(dir).await?,
        };
        Ok(ObjectId { realm: dir.realm, fid: view.row.status.parent })
    }

    /// Where a volume's root shows, if it was seen anywhere.
    pub fn mounted_at(&self, root: ObjectId) -> Option<Place> {
        locked(&self.mounts).place(root)
    }

    /// The root that shows in place of a link, or none.
    pub fn covered_by(&self, link: ObjectId) -> Option<ObjectId> {
        locked(&self.mounts).covering(link)
    }

    /// Realms in use: looked up since the start, or with something cached.
    pub(crate) fn list_realms(&self) -> Vec<DirLine> {
        let cached: Vec<u32> = self
            .cache
            .store(|store| store.volumes())
            .map(|volumes| volumes.into_iter().map(|(realm, _)| realm).collect())
            .unwrap_or_default();
        let realms = locked(&self.realms);
        let in_use = |name: &Arc<str>, number: &u32| realms.used.contains(&**name) || cached.contains(number);
        let mut lines: Vec<DirLine> = realms
            .names
            .iter()
            .filter(|(number, name)| in_use(name, number))
            .map(|(number, name)| DirLine {
                name: name.as_bytes().to_vec(),
                id: self.root_of_realm(*number, name),
                kind: NodeKind::Directory,
            })
            .collect();
        lines.sort_by(|a, b| a.name.cmp(&b.name));
        lines
    }

    /// The root of a realm, as far as it is known without asking.
    fn root_of_realm(&self, number: u32, name: &str) -> ObjectId {
        let mounts = locked(&self.mounts);
        let found = mounts
            .places
            .iter()
            .find(|(root, place)| root.realm == number && place.dir == CODA && place.name == name.as_bytes());
        found.map_or(ObjectId { realm: number, fid: CODA.fid }, |(root, _)| *root)
    }
}

/// Names that desktops look for in every directory and that no realm has.
fn may_be_realm(name: &str) -> bool {
    const NEVER: [&str; 8] =
        ["autorun.inf", "desktop.ini", "thumbs.db", "lost+found", "bdmv", "video_ts", "autorun.sh", "core"];
    realm::is_name(name) && !NEVER.contains(&name.to_ascii_lowercase().as_str())
}

/// A name for people.
pub(crate) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use coda_proto::VolumeId;

    use super::*;

    fn entry(name: &str, vnode: u32, author: u64) -> Entry {
        Entry {
            name: name.into(),
            fid: Fid { volume: VolumeId(1), vnode, unique: author },
            kind: Kind::File,
            dot: Dot::new(Author(author), 1),
        }
    }

    #[test]
    fn of_several_bindings_the_smallest_dot_keeps_the_name() {
        let made = |fid: Fid| (format!("host{}", fid.unique), 0);
        let shown = shown(vec![entry("a", 2, 9), entry("a", 2, 3), entry("b", 4, 9)], made);
        let names: Vec<String> = shown.iter().map(|(name, _)| text(name)).collect();
        assert_eq!(names, ["a", "a.conflict-host9-19700101T000000", "b"]);
        assert_eq!(shown[0].1.dot.author, Author(3));
    }

    #[test]
    fn only_names_that_can_be_realms_are_asked_for() {
        assert!(may_be_realm("coda.cs.cmu.edu") && may_be_realm("server1") && may_be_realm("demo"));
        for name in [".Trash", ".git", "autorun.inf", "Desktop.ini", "a b", "", "x/y"] {
            assert!(!may_be_realm(name), "{name}");
        }
    }
}
