//! Objects as a server shows them to a client.

use crate::{
    Dot, Fid, Malformed, Past, Rights,
    id::required,
    name::{TARGET_LIMIT, XATTR_NAME_LIMIT},
    record::{hash, host},
    wire,
};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Directory,
    Symlink,
}

/// One version of a file's contents that no other version includes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sibling {
    /// The Store that made it.
    pub dot: Dot,
    /// Bytes.
    pub length: u64,
    /// BLAKE3 of the contents.
    pub hash: [u8; 32],
    /// Modification time in nanoseconds since 1970.
    pub mtime: i64,
    /// The machine on which it was made, for people.
    pub host: String,
}

/// An object's attributes and version.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The object.
    pub fid: Fid,
    /// What it is.
    pub kind: Kind,
    /// Bytes of the shown sibling or the target; number of entries of a directory.
    pub length: u64,
    /// Permission bits.
    pub mode: u32,
    /// Local user number of the owner.
    pub owner: u32,
    /// Local group number.
    pub group: u32,
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// Names of a file; 2 and the number of subdirectories of a directory.
    pub nlink: u32,
    /// A directory in which it shows; its own fid for a root.
    pub parent: Fid,
    /// What this state includes.
    pub past: Past,
    /// Versions of the contents, the shown one first. A file never stored has none.
    pub siblings: Vec<Sibling>,
    /// Of a symbolic link.
    pub target: Vec<u8>,
    /// Of the caller.
    pub my_rights: Rights,
    /// Of System:AnyUser.
    pub any_rights: Rights,
    /// Whether the server promised to break a callback before this changes.
    pub promised: bool,
    /// The highest Lamport time in this state.
    pub lamport: u64,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// People must decide something here.
    pub marked: bool,
    /// The machine on which the object was made, for people.
    pub host: String,
    /// When, by that machine's clock; 0: nobody knows.
    pub made: i64,
    /// When it last changed in any way, in nanoseconds since 1970; 0: nobody knows.
    pub ctime: i64,
    /// The access time that somebody set.
    pub atime: Option<i64>,
}

/// One binding of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name as bound; where several entries share it, the smallest dot keeps it.
    pub name: Vec<u8>,
    /// What is bound.
    pub fid: Fid,
    /// What that is.
    pub kind: Kind,
    /// The mutation that bound it.
    pub dot: Dot,
}

impl Status {
    /// Whether several versions of the contents wait for a decision. The same bytes, written twice, are one.
    pub fn in_conflict(&self) -> bool {
        let bytes = |sibling: &Sibling| (sibling.length, sibling.hash);
        self.siblings.windows(2).any(|two| bytes(&two[0]) != bytes(&two[1]))
    }
}

impl From<Kind> for i32 {
    fn from(kind: Kind) -> i32 {
        match kind {
            Kind::File => wire::Kind::File,
            Kind::Directory => wire::Kind::Directory,
            Kind::Symlink => wire::Kind::Symlink,
        }
        .into()
    }
}
impl TryFrom<i32> for Kind {
    type Error = Malformed;
    fn try_from(kind: i32) -> Result<Kind, Malformed> {
        match wire::Kind::try_from(kind) {
            Ok(wire::Kind::File) => Ok(Kind::File),
            Ok(wire::Kind::Directory) => Ok(Kind::Directory),
            Ok(wire::Kind::Symlink) => Ok(Kind::Symlink),
            _ => Err(Malformed::new("kind", kind.to_string())),
        }
    }
}

impl From<&Sibling> for wire::Sibling {
    fn from(sibling: &Sibling) -> wire::Sibling {
        wire::Sibling {
            dot: Some(sibling.dot.into()),
            length: sibling.length,
            hash: sibling.hash.to_vec().into(),
            mtime: sibling.mtime,
            host: sibling.host.clone(),
        }
    }
}
impl TryFrom<wire::Sibling> for Sibling {
    type Error = Malformed;
    fn try_from(sibling: wire::Sibling) -> Result<Sibling, Malformed> {
        Ok(Sibling {
            dot: required(sibling.dot, "sibling")?,
            length: sibling.length,
            hash: hash(&sibling.hash)?,
            mtime: sibling.mtime,
            host: host(sibling.host)?,
        })
    }
}

impl From<&Entry> for wire::Entry {
    fn from(entry: &Entry) -> wire::Entry {
        wire::Entry {
            name: entry.name.clone().into(),
            fid: Some(entry.fid.into()),
            kind: entry.kind.into(),
            dot: Some(entry.dot.into()),
        }
    }
}
impl TryFrom<wire::Entry> for Entry {
    type Error = Malformed;
    fn try_from(entry: wire::Entry) -> Result<Entry, Malformed> {
        crate::check_name(&entry.name).map_err(|refusal| Malformed::new("entry", refusal.detail))?;
        Ok(Entry {
            name: entry.name.into(),
            fid: required(entry.fid, "entry")?,
            kind: entry.kind.try_into()?,
            dot: required(entry.dot, "entry")?,
        })
    }
}

impl From<&Status> for wire::Status {
    fn from(status: &Status) -> wire::Status {
        wire::Status {
            fid: Some(status.fid.into()),
            kind: status.kind.into(),
            length: status.length,
            mode: status.mode,
            owner: status.owner,
            group: status.group.into(),
            mtime: status.mtime,
            nlink: status.nlink,
            parent: Some(status.parent.into()),
            past: Some((&status.past).into()),
            siblings: status.siblings.iter().map(Into::into).collect(),
            target: status.target.clone().into(),
            my_rights: status.my_rights.0,
            any_rights: status.any_rights.0,
            promised: status.promised,
            lamport: status.lamport,
            xattrs: status
                .xattrs
                .iter()
                .map(|(name, value)| wire::Xattr { name: name.clone().into(), value: value.clone().into() })
                .collect(),
            marked: status.marked,
            host: status.host.clone(),
            made: status.made,
            ctime: status.ctime,
            atime: status.atime,
        }
    }
}
impl TryFrom<wire::Status> for Status {
    type Error = Malformed;
    fn try_from(status: wire::Status) -> Result<Status, Malformed> {
        if status.target.len() > TARGET_LIMIT || status.xattrs.iter().any(|x| x.name.len() > XATTR_NAME_LIMIT)
        {
            return Err(Malformed::new("status", "a target or attribute name is too long"));
        }
        Ok(Status {
            fid: required(status.fid, "status")?,
            kind: status.kind.try_into()?,
            length: status.length,
            mode: status.mode & 0o7777,
            owner: status.owner,
            group: u32::try_from(status.group).map_err(|_| Malformed::new("status", "group out of range"))?,
            mtime: status.mtime,
            nlink: status.nlink,
            parent: required(status.parent, "status")?,
            past: required(status.past, "status")?,
            siblings: status.siblings.into_iter().map(Sibling::try_from).collect::<Result<_, _>>()?,
            target: status.target.into(),
            my_rights: Rights(status.my_rights & Rights::ALL.0),
            any_rights: Rights(status.any_rights & Rights::ALL.0),
            promised: status.promised,
            lamport: status.lamport,
            xattrs: status.xattrs.into_iter().map(|x| (x.name.into(), x.value.into())).collect(),
            marked: status.marked,
            host: host(status.host)?,
            made: status.made,
            ctime: status.ctime,
            atime: status.atime,
        })
    }
}
