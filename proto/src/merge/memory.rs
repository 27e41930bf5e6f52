//! A replica in memory: for tests and for models.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use super::{Binding, Head, Replica, Tombstone};
use crate::{Author, Dot, Fid, Name};

type BindingKey = (Fid, Name, Fid, Dot);

/// A replica as ordered maps. Equal replicas are equal row by row, derived rows included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    heads: BTreeMap<Fid, Head>,
    bindings: BTreeMap<BindingKey, Binding>,
    places: BTreeSet<(Fid, BindingKey)>,
    tombstones: BTreeMap<(Fid, Dot, Dot), Tombstone>,
    retired: BTreeMap<Author, u64>,
    elders: u64,
}

impl Memory {
    /// An empty replica.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// A replica of a new volume.
    pub fn with_root(root: Head) -> Memory {
        let mut memory = Memory::new();
        memory.heads.insert(root.fid, root);
        memory
    }

    /// All objects, dead ones included.
    pub fn heads(&self) -> impl Iterator<Item = &Head> {
        self.heads.values()
    }

    /// All bindings, shown or not, in order of directory and name.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.values()
    }

    /// All bindings of a directory, shown or not.
    pub fn bindings_in(&self, dir: Fid) -> impl Iterator<Item = &Binding> {
        let from = (dir, Name::new(), Fid { vnode: 0, unique: 0, ..dir }, Dot::new(Author(0), 0));
        self.bindings.range(from..).take_while(move |(key, _)| key.0 == dir).map(|(_, binding)| binding)
    }

    /// All tombstones.
    pub fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.tombstones.values()
    }

    /// Takes no more records of this author, which was retired at this stamp.
    pub fn retire(&mut self, author: Author, stamp: u64) {
        self.retired.insert(author, stamp);
    }

    /// Every other replica has told this one all that authors retired up to `stamp` did.
    pub fn includes_elders(&mut self, stamp: u64) {
        self.elders = self.elders.max(stamp);
    }
}

impl Replica for Memory {
    type Error = Infallible;

    fn head(&self, fid: Fid) -> Result<Option<Head>, Infallible> {
        Ok(self.heads.get(&fid).cloned())
    }
    fn put_head(&mut self, head: Head) -> Result<(), Infallible> {
        self.heads.insert(head.fid, head);
        Ok(())
    }
    fn drop_head(&mut self, fid: Fid) -> Result<(), Infallible> {
        self.heads.remove(&fid);
        Ok(())
    }

    fn bindings_named(&self, dir: Fid, name: &[u8]) -> Result<Vec<Binding>, Infallible> {
        let from = (dir, name.to_vec(), Fid { vnode: 0, unique: 0, ..dir }, Dot::new(Author(0), 0));
        let named = self.bindings.range(from..).take_while(|(key, _)| key.0 == dir && key.1 == name);
        Ok(named.map(|(_, binding)| binding.clone()).collect())
    }
    fn bindings_of(&self, fid: Fid) -> Result<Vec<Binding>, Infallible> {
        let least = Fid { volume: crate::VolumeId(0), vnode: 0, unique: 0 };
        let from = (fid, (least, Name::new(), least, Dot::new(Author(0), 0)));
        let of = self.places.range(from..).take_while(|(child, _)| *child == fid);
        Ok(of.map(|(_, key)| self.bindings[key].clone()).collect())
    }
    fn derived_bindings(&self) -> Result<Vec<Binding>, Infallible> {
        Ok(self.bindings.values().filter(|binding| binding.derived).cloned().collect())
    }
    fn is_empty(&self, dir: Fid) -> Result<bool, Infallible> {
        Ok(!self.bindings_in(dir).any(|binding| binding.shown))
    }
    fn put_binding(&mut self, binding: Binding) -> Result<(), Infallible> {
        let key = (binding.dir, binding.name.clone(), binding.fid, binding.origin);
        match binding.is_gone() {
            true => {
                self.bindings.remove(&key);
                self.places.remove(&(binding.fid, key));
            }
            false => {
                self.places.insert((binding.fid, key.clone()));
                self.bindings.insert(key, binding);
            }
        }
        Ok(())
    }

    fn tombstones_of(&self, fid: Fid) -> Result<Vec<Tombstone>, Infallible> {
        let nothing = Dot::new(Author(0), 0);
        let of = self.tombstones.range((fid, nothing, nothing)..).take_while(|(key, _)| key.0 == fid);
        Ok(of.map(|(_, tombstone)| tombstone.clone()).collect())
    }
    fn put_tombstone(&mut self, tombstone: Tombstone) -> Result<(), Infallible> {
        self.tombstones.insert((tombstone.fid, tombstone.dot, tombstone.origin), tombstone);
        Ok(())
    }

    fn retired(&self, author: Author) -> Result<Option<u64>, Infallible> {
        Ok(self.retired.get(&author).copied())
    }
    fn elders(&self) -> Result<u64, Infallible> {
        Ok(self.elders)
    }
}
