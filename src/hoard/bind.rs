//! From wishes to objects.

use std::collections::{BTreeMap, BTreeSet};

use coda_proto::{Entry, Fid, Kind};

use super::pattern::{DEEP, matches};
use crate::{
    error::Error,
    ops::{Core, Result},
    store::{Reach, Wish},
    venus::face::ObjectId,
};

/// What the wishes mean, and what of it is not to be found.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// Objects with the highest priority that any wish gives them.
    pub objects: BTreeMap<ObjectId, u32>,
    /// Wishes, or parts of them, that are bound to nothing: path and why.
    pub unbound: Vec<(ObjectId, Vec<u8>, String)>,
    /// The directories among them: what could not be listed.
    pub unlisted: BTreeSet<ObjectId>,
    /// Some were left out because there were too many.
    pub full: bool,
}

/// Where the directories come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// They are fetched where they are not cached.
    Servers,
    /// Only what is cached counts.
    Cache,
}

impl Core {
    /// Binds wishes to objects, `most` of them at most.
    pub(super) async fn bind(&self, wishes: &[Wish], from: From, most: usize) -> Result<Bound> {
        let mut bound = Bound::default();
        for wish in wishes {
            let root = ObjectId { realm: wish.realm, fid: Fid::root(wish.volume) };
            let mut own = Bound::default();
            match wish.reach {
                Reach::Matching => self.bind_matching(root, wish, from, &mut own, most).await?,
                _ => match self.bind_path(root, wish, from, &mut own, most).await {
                    Ok(id) => self.bind_below(id, &wish.path, wish, from, &mut own, most).await?,
                    Err(error) => own.unbound.push((root, wish.path.clone(), why(&error))),
                },
            }
            if let Some(bytes) = wish.most {
                self.limit(&mut own, bytes)?;
            }
            bound.unbound.append(&mut own.unbound);
            bound.unlisted.append(&mut own.unlisted);
            bound.full |= own.full;
            for (id, priority) in own.objects {
                bound.add(id, priority, most);
            }
        }
        Ok(bound)
    }

    /// The object of a wish, and every directory on the way to it.
    async fn bind_path(
        &self,
        root: ObjectId,
        wish: &Wish,
        from: From,
        bound: &mut Bound,
        most: usize,
    ) -> Result<ObjectId> {
        let mut at = root;
        for name in wish.path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            bound.add(at, wish.priority, most);
            self.listing(at, from).await?;
            let entry = self.entry(at, name)?;
            let entry = entry.ok_or_else(|| Error::NotFound(String::from_utf8_lossy(name).into_owned()))?;
            at = ObjectId { realm: at.realm, fid: entry.fid };
        }
        bound.add(at, wish.priority, most);
        Ok(at)
    }

    /// What a wish reaches below its object.
    async fn bind_below(
        &self,
        id: ObjectId,
        path: &[u8],
        wish: &Wish,
        from: From,
        bound: &mut Bound,
        most: usize,
    ) -> Result<()> {
        if wish.reach == Reach::Itself || !id.fid.is_directory() {
            return Ok(());
        }
        let mut open = vec![(id, path.to_vec())];
        while let Some((dir, path)) = open.pop() {
            if bound.full {
                return Ok(());
            }
            if let Err(error) = self.listing(dir, from).await {
                let root = ObjectId { realm: dir.realm, fid: Fid::root(dir.fid.volume) };
                bound.cannot_list(dir, root, path, &error);
                continue;
            }
            for entry in self.cache.store(|store| store.entries(dir))? {
                let child = ObjectId { realm: dir.realm, fid: entry.fid };
                let new = bound.add(child, wish.priority, most);
                if new && entry.kind == Kind::Directory && wish.reach != Reach::Children {
                    open.push((child, joined(&path, &entry)));
                }
            }
        }
        Ok(())
    }

    /// What a pattern matches, with the directories on the way, and all that is below it.
    async fn bind_matching(
        &self,
        root: ObjectId,
        wish: &Wish,
        from: From,
        bound: &mut Bound,
        most: usize,
    ) -> Result<()> {
        let parts: Vec<&[u8]> =
            wish.path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        // A directory, where it is, and how many parts of the pattern have led there.
        let mut open = vec![(root, Vec::new(), 0)];
        while let Some((dir, path, at)) = open.pop() {
            let Some(part) = parts.get(at) else {
                bound.add(dir, wish.priority, most);
                self.bind_below(dir, &path, wish, from, bound, most).await?;
                continue;
            };
            if bound.full {
                return Ok(());
            }
            bound.add(dir, wish.priority, most);
            if let Err(error) = self.listing(dir, from).await {
                bound.cannot_list(dir, root, path, &error);
                continue;
            }
            if *part == DEEP {
                open.push((dir, path.clone(), at + 1));
            }
            for entry in self.cache.store(|store| store.entries(dir))? {
                let child = ObjectId { realm: dir.realm, fid: entry.fid };
                let below = joined(&path, &entry);
                match entry.kind {
                    Kind::Directory if *part == DEEP => open.push((child, below, at)),
                    _ if *part == DEEP || !matches(part, &entry.name) => {}
                    Kind::Directory => open.push((child, below, at + 1)),
                    _ if at + 1 == parts.len() => {
                        bound.add(child, wish.priority, most);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Leaves of the files only as many as fit into `bytes`, the newest first.
    fn limit(&self, bound: &mut Bound, bytes: u64) -> Result<()> {
        let mut files = Vec::new();
        for id in bound.objects.keys().filter(|id| !id.fid.is_directory()) {
            let status = self.cache.peek(*id)?.map(|row| (row.status.mtime, row.status.length));
            // What nobody has looked at yet cannot be counted.
            files.push((status.is_none(), std::cmp::Reverse(status.unwrap_or_default().0), *id, status));
        }
        files.sort();
        let mut taken = 0u64;
        for (_, _, id, status) in files {
            let length = status.map_or(u64::MAX, |(_, length)| length);
            match taken.checked_add(length).filter(|taken| *taken <= bytes) {
                Some(more) => taken = more,
                None => {
                    bound.objects.remove(&id);
                }
            }
        }
        Ok(())
    }

    async fn listing(&self, dir: ObjectId, from: From) -> Result<()> {
        if from == From::Servers {
            self.directory(dir).await?;
            // How large the files are is asked for many of them at once.
            let entries = self.cache.store(|store| store.entries(dir))?;
            self.know(dir, &entries).await;
            return Ok(());
        }
        match self.cache.view(dir)? {
            Some(view) if view.row.complete => Ok(()),
            _ => Err(Error::Disconnected(dir.fid.to_string())),
        }
    }
}

impl Bound {
    /// Notes that nothing below a directory could be bound, and why.
    fn cannot_list(&mut self, dir: ObjectId, root: ObjectId, path: Vec<u8>, error: &Error) {
        self.unbound.push((root, path, why(error)));
        self.unlisted.insert(dir);
    }

    /// Adds an object; answers whether it was not there before with that priority or a higher one.
    fn add(&mut self, id: ObjectId, priority: u32, most: usize) -> bool {
        let held = self.objects.get(&id).copied();
        match held {
            Some(held) if held >= priority => return false,
            None if self.objects.len() >= most => {
                self.full = true;
                return false;
            }
            _ => self.objects.insert(id, priority),
        };
        true
    }
}

fn joined(path: &[u8], entry: &Entry) -> Vec<u8> {
    match path {
        b"" => entry.name.clone(),
        path => [path, b"/", &entry.name[..]].concat(),
    }
}

/// Why something is bound to nothing, in the words that hoard always used and the cause.
fn why(error: &Error) -> String {
    format!("Not bound: {error}")
}

#[cfg(test)]
mod tests {
    use coda_proto::VolumeId;

    use super::*;

    #[test]
    fn an_object_has_the_highest_priority_that_any_wish_gives_it() {
        let id = |vnode| ObjectId { realm: 1, fid: Fid { volume: VolumeId(1), vnode, unique: 1 } };
        let mut bound = Bound::default();
        assert!(bound.add(id(2), 5, 2) && !bound.add(id(2), 4, 2) && bound.add(id(2), 9, 2));
        assert!(bound.add(id(4), 1, 2) && !bound.full);
        assert!(!bound.add(id(6), 99, 2) && bound.full);
        assert_eq!(bound.objects[&id(2)], 9);
    }
}
