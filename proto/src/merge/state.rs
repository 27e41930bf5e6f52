//! The rows of which a replica consists.
//!
//! ```text
//!  Head        one per object: what it is, its past, its contents' versions, its registers
//!  Binding     (directory, name, fid): the dots that made it, and its origin
//!  Tombstone   (directory, fid, dot): that a fid was unbound, and which version of it the remover saw
//! ```
//!
//! A directory's past governs its bindings and tombstones; an object's own past governs its Head.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Author, Dot, Fid, Kind, Name, Past, Sibling};

/// A value that the larger (Lamport time, dot) wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register {
    /// `None`: removed.
    pub value: Option<Vec<u8>>,
    /// Lamport time of the record that wrote it.
    pub lamport: u64,
    /// That record.
    pub dot: Dot,
}

/// An object without its bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The object.
    pub fid: Fid,
    /// What it is.
    pub kind: Kind,
    /// What this state includes. Empty: a runt.
    pub past: Past,
    /// Contents of a file that no other contents include, ordered by dot.
    pub siblings: Vec<Sibling>,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// `mode`, `owner`, `group`, `mtime`, `acl`, `quota.min`, `quota.max`, and attributes as `x:NAME`.
    pub registers: BTreeMap<Vec<u8>, Register>,
    /// People must decide something here.
    pub marked: bool,
}

/// One name of a directory for one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// The directory.
    pub dir: Fid,
    /// The name.
    pub name: Name,
    /// The object.
    pub fid: Fid,
    /// The mutations that made it. A binding without dots is gone.
    pub dots: BTreeSet<Dot>,
    /// The create or link that first made it, inherited by renames.
    pub origin: Dot,
    /// The highest Lamport time of its dots' records.
    pub lamport: u64,
}

/// That a binding was taken away, and what its remover saw.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tombstone {
    /// The directory whose past governs it.
    pub dir: Fid,
    /// The object unbound.
    pub fid: Fid,
    /// The removing record.
    pub dot: Dot,
    /// The origin taken away.
    pub origin: Dot,
    /// The version of the object that the remover saw, its own update included.
    pub seen: Past,
    /// Left by a rename: it never revives anything.
    pub rename: bool,
}

/// A replica of one volume: rows to ask for and rows to write, within one transaction.
pub trait Replica {
    /// Why a row could not be read or written.
    type Error;

    /// An object.
    fn head(&self, fid: Fid) -> Result<Option<Head>, Self::Error>;
    /// Writes an object.
    fn put_head(&mut self, head: Head) -> Result<(), Self::Error>;
    /// Forgets a dead object (neither bound nor wanted by any tombstone).
    fn drop_head(&mut self, fid: Fid) -> Result<(), Self::Error>;

    /// All bindings of a name.
    fn bindings_named(&self, dir: Fid, name: &[u8]) -> Result<Vec<Binding>, Self::Error>;
    /// All bindings of an object, in whichever directory.
    fn bindings_of(&self, fid: Fid) -> Result<Vec<Binding>, Self::Error>;
    /// All bindings of a directory.
    fn bindings_in(&self, dir: Fid) -> Result<Vec<Binding>, Self::Error>;
    /// Whether a directory has any binding.
    fn is_empty(&self, dir: Fid) -> Result<bool, Self::Error>;
    /// Writes a binding; one without dots is removed.
    fn put_binding(&mut self, binding: Binding) -> Result<(), Self::Error>;

    /// All tombstones of an object.
    fn tombstones_of(&self, fid: Fid) -> Result<Vec<Tombstone>, Self::Error>;
    /// All tombstones of a directory.
    fn tombstones_in(&self, dir: Fid) -> Result<Vec<Tombstone>, Self::Error>;
    /// Writes a tombstone.
    fn put_tombstone(&mut self, tombstone: Tombstone) -> Result<(), Self::Error>;

    /// Whether every past is taken to include this author.
    fn is_retired(&self, author: Author) -> Result<bool, Self::Error>;
}
