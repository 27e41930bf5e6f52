//! From wishes to objects.

use std::collections::BTreeMap;

use coda_proto::{Entry, Fid, Kind};

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
            match self.bind_path(root, wish, from, &mut bound, most).await {
                Ok(id) => self.bind_below(id, wish, from, &mut bound, most).await?,
                Err(error) => bound.unbound.push((root, wish.path.clone(), why(&error))),
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
        wish: &Wish,
        from: From,
        bound: &mut Bound,
        most: usize,
    ) -> Result<()> {
        if wish.reach == Reach::Itself || !id.fid.is_directory() {
            return Ok(());
        }
        let mut open = vec![(id, wish.path.clone())];
        while let Some((dir, path)) = open.pop() {
            if bound.full {
                return Ok(());
            }
            if let Err(error) = self.listing(dir, from).await {
                let root = ObjectId { realm: dir.realm, fid: Fid::root(dir.fid.volume) };
                bound.unbound.push((root, path, why(&error)));
                continue;
            }
            for entry in self.cache.store(|store| store.entries(dir))? {
                let child = ObjectId { realm: dir.realm, fid: entry.fid };
                let new = bound.add(child, wish.priority, most);
                if new && entry.kind == Kind::Directory && wish.reach == Reach::Descendants {
                    open.push((child, joined(&path, &entry)));
                }
            }
        }
        Ok(())
    }

    async fn listing(&self, dir: ObjectId, from: From) -> Result<()> {
        if from == From::Servers {
            return self.directory(dir).await.map(drop);
        }
        match self.cache.view(dir)? {
            Some(view) if view.row.complete => Ok(()),
            _ => Err(Error::Disconnected(dir.fid.to_string())),
        }
    }
}

impl Bound {
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
