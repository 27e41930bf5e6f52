//! Identities: who wrote, what was written, and which mutation it was.
//!
//! Nobody hands these out. An author draws 64 random bits, and everything it names carries them, so an
//! object made on a train keeps its fid for ever and no two mutations share a name.

use std::fmt;

use crate::{Malformed, wire};

/// 64 random bits, drawn at every start of a client or server before it first writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author(pub u64);

impl Author {
    /// Nobody draws this one. It made the volumes' roots, and in a past its entry is a *stamp*: it stands for
    /// everything that authors retired up to then did to the object.
    pub const ELDERS: Author = Author(1);
}

/// A replicated volume: its group id, whose top byte is 0x7f.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u32);

/// A server of a realm: 1 to 254, and not 127.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u8);

/// The name of one mutation (Coda's StoreId): the author's `seq`-th, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who made it.
    pub author: Author,
    /// The author's count of its mutations.
    pub seq: u64,
}

/// An object of a volume. Odd vnodes are directories, even ones files and symbolic links.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fid {
    /// The group id of its volume.
    pub volume: VolumeId,
    /// The creating author's counter.
    pub vnode: u32,
    /// The creating author; 1 for a volume's root.
    pub unique: u64,
}

impl VolumeId {
    /// Whether this is the id of a group, as every volume's is.
    pub fn is_group(self) -> bool {
        self.0 >> 24 == 0x7f
    }
}

impl ServerId {
    /// Checks the rule for server ids: 0, 127 and 255 are reserved.
    pub fn new(id: u32) -> Result<ServerId, Malformed> {
        match u8::try_from(id) {
            Ok(id) if !matches!(id, 0 | 127 | 255) => Ok(ServerId(id)),
            _ => Err(Malformed::new("server id", format!("{id} is not in 1-126 or 128-254"))),
        }
    }
}

impl Dot {
    /// The author's `seq`-th mutation.
    pub fn new(author: Author, seq: u64) -> Dot {
        Dot { author, seq }
    }
}

impl Fid {
    /// The root directory of `volume`.
    pub fn root(volume: VolumeId) -> Fid {
        Fid { volume, vnode: 1, unique: 1 }
    }

    /// The `count`-th directory that `author` makes in `volume`.
    pub fn directory(volume: VolumeId, author: Author, count: u32) -> Fid {
        Fid { volume, vnode: count * 2 + 1, unique: author.0 }
    }

    /// The `count`-th file or symbolic link that `author` makes in `volume`; counted from 1.
    pub fn file(volume: VolumeId, author: Author, count: u32) -> Fid {
        Fid { volume, vnode: count * 2, unique: author.0 }
    }

    /// Whether this names a directory.
    pub fn is_directory(self) -> bool {
        self.vnode % 2 == 1
    }

    /// Whether this is its volume's root.
    pub fn is_root(self) -> bool {
        self.vnode == 1 && self.unique == 1
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}
impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.author, self.seq)
    }
}
impl fmt::Display for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}.{:x}", self.volume, self.vnode, self.unique)
    }
}

macro_rules! debug_as_display {
    ($($t:ty),*) => {$(
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_as_display!(Author, VolumeId, ServerId, Dot, Fid);

impl From<Dot> for wire::Dot {
    fn from(dot: Dot) -> wire::Dot {
        wire::Dot { author: dot.author.0, seq: dot.seq }
    }
}
impl TryFrom<wire::Dot> for Dot {
    type Error = Malformed;
    fn try_from(dot: wire::Dot) -> Result<Dot, Malformed> {
        if dot.author == 0 || dot.seq == 0 || dot.seq > i64::MAX as u64 {
            return Err(Malformed::new("dot", "author and seq start at 1, and seq has 63 bits"));
        }
        Ok(Dot { author: Author(dot.author), seq: dot.seq })
    }
}
impl From<Fid> for wire::Fid {
    fn from(fid: Fid) -> wire::Fid {
        wire::Fid { volume: fid.volume.0, vnode: fid.vnode, unique: fid.unique }
    }
}
impl TryFrom<wire::Fid> for Fid {
    type Error = Malformed;
    fn try_from(fid: wire::Fid) -> Result<Fid, Malformed> {
        if fid.vnode == 0 || fid.unique == 0 {
            return Err(Malformed::new("fid", "vnode and unique start at 1"));
        }
        Ok(Fid { volume: VolumeId(fid.volume), vnode: fid.vnode, unique: fid.unique })
    }
}

/// A field that must be there.
pub fn required<W, T>(field: Option<W>, what: &'static str) -> Result<T, Malformed>
where
    T: TryFrom<W, Error = Malformed>,
{
    field.ok_or_else(|| Malformed::new(what, "missing"))?.try_into()
}

/// A field that may be absent.
pub fn optional<W, T>(field: Option<W>) -> Result<Option<T>, Malformed>
where
    T: TryFrom<W, Error = Malformed>,
{
    field.map(T::try_from).transpose()
}

impl std::str::FromStr for Fid {
    type Err = Malformed;
    /// Reads what `Display` writes: `7f000001.1.1`.
    fn from_str(text: &str) -> Result<Fid, Malformed> {
        let wrong = || Malformed::new("fid", format!("{text:?} is not VOLUME.VNODE.UNIQUE in hex"));
        let mut parts = text.split('.');
        let mut next = || parts.next().and_then(|part| u64::from_str_radix(part, 16).ok());
        let (volume, vnode, unique) = (next(), next(), next());
        match (volume, vnode, unique, parts.next()) {
            (Some(volume), Some(vnode), Some(unique), None) => Fid::try_from(wire::Fid {
                volume: u32::try_from(volume).map_err(|_| wrong())?,
                vnode: u32::try_from(vnode).map_err(|_| wrong())?,
                unique,
            }),
            _ => Err(wrong()),
        }
    }
}
