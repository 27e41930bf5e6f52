//! The rows of which a replica consists.
//!
//! ```text
//!  Head        one per object: what it is, its past, its contents' versions, its registers
//!  Binding     (directory, name, object, origin): the dots that made it
//!  Tombstone   (object, dot, origin): that a record unbound it, where, and which version the remover saw
//! ```
//!
//! **An object's own past governs all of its rows**: its Head, its bindings in whichever directory, and
//! its tombstones. Every record that binds or unbinds an object touches it, so two replicas with equal
//! pasts of an object agree about all its places, and an object travels between members as one piece,
//! however large its directory. A directory's past says which records about its entries it has seen; its
//! listing is the sum of what its children say.

use std::collections::BTreeMap;

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
    /// `made`, `mode`, `owner`, `group`, `mtime`, `atime`, `ctime`, `acl`, `quota.min`, `quota.max`, and attributes as `x:NAME`. Read
    /// and written through the methods of `Head`.
    pub registers: BTreeMap<Vec<u8>, Register>,
    /// Lists set concurrently, by the record that set each; the register `acl` is what all of them allow.
    /// One at most, unless people must decide.
    pub acls: BTreeMap<Dot, Register>,
    /// People must decide something here: the object came back, or several lists are set. A function of
    /// the object's other rows.
    pub marked: bool,
}

/// One name of a directory for one object. Rows are keyed by `(dir, name, fid, origin)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// The directory.
    pub dir: Fid,
    /// The name.
    pub name: Name,
    /// The object.
    pub fid: Fid,
    /// The create or link that first made it, inherited by renames.
    pub origin: Dot,
    /// The mutations that made it, each with its Lamport time.
    pub dots: BTreeMap<Dot, u64>,
    /// The tree rule put it here (see `shown`), whether or not it has dots of its own: an object that came
    /// back, or one that a cycle of renames would have cut off.
    pub derived: bool,
    /// Whether directories list it. Of the places of one origin, one shows.
    pub shown: bool,
}

impl Binding {
    /// The dot that decides who keeps the plain name: the smallest that made it.
    pub fn dot(&self) -> Dot {
        self.dots.keys().next().copied().unwrap_or(self.origin)
    }
    /// The (Lamport time, dot) by which the places of one origin are compared.
    pub fn rank(&self) -> (u64, Dot) {
        self.dots.iter().map(|(dot, lamport)| (*lamport, *dot)).max().unwrap_or((0, self.origin))
    }
    /// The highest Lamport time of its dots' records.
    pub fn lamport(&self) -> u64 {
        self.rank().0
    }
    /// Whether nothing holds it any more: its row is to be removed.
    pub fn is_gone(&self) -> bool {
        self.dots.is_empty() && !self.derived
    }
}

/// That a binding was taken away, and what its remover saw. Rows are keyed by `(fid, dot, origin)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tombstone {
    /// The directory that the remover named.
    pub dir: Fid,
    /// The name there.
    pub name: Name,
    /// The object unbound.
    pub fid: Fid,
    /// The removing record.
    pub dot: Dot,
    /// Its Lamport time.
    pub lamport: u64,
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

    /// All bindings of a name, shown or not.
    fn bindings_named(&self, dir: Fid, name: &[u8]) -> Result<Vec<Binding>, Self::Error>;
    /// All bindings of an object, in whichever directory, shown or not.
    fn bindings_of(&self, fid: Fid) -> Result<Vec<Binding>, Self::Error>;
    /// All bindings that the tree rule made. They are few: a replica keeps an index of them.
    fn derived_bindings(&self) -> Result<Vec<Binding>, Self::Error>;
    /// Whether a directory shows no binding.
    fn is_empty(&self, dir: Fid) -> Result<bool, Self::Error>;
    /// Writes a binding; one that [is gone](Binding::is_gone) is removed.
    fn put_binding(&mut self, binding: Binding) -> Result<(), Self::Error>;

    /// All tombstones of an object.
    fn tombstones_of(&self, fid: Fid) -> Result<Vec<Tombstone>, Self::Error>;
    /// Writes a tombstone.
    fn put_tombstone(&mut self, tombstone: Tombstone) -> Result<(), Self::Error>;

    /// The stamp at which an author was retired; `None`: it was not, as far as is known here.
    fn retired(&self, author: Author) -> Result<Option<u64>, Self::Error>;
    /// Every object here includes everything that authors retired up to this stamp ever did to it.
    fn elders(&self) -> Result<u64, Self::Error>;
}
