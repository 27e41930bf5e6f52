//! Records: one mutation each, as logged, sent and applied.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    Acl, Dot, Fid, INLINE_LIMIT, Malformed, Name, Past,
    id::{optional, required},
    name::{HOST_LIMIT, NAME_LIMIT, TARGET_LIMIT, XATTR_NAME_LIMIT, XATTR_VALUE_LIMIT},
    wire,
};

/// One mutation: its name, what its author saw, and what it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its StoreId.
    pub dot: Dot,
    /// Exceeds every Lamport time in its base.
    pub lamport: u64,
    /// The author's clock, in nanoseconds since 1970; for people.
    pub time: i64,
    /// The same, but later than every change time that the author saw of what it touches.
    pub changed: i64,
    /// The pasts that the author saw of the objects it touches.
    pub bases: Vec<Base>,
    /// Made apart: a taken name gets a second binding instead of `EXISTS`.
    pub logged: bool,
    /// The author's machine, for people.
    pub host: String,
    /// What it does.
    pub op: Op,
}

/// The past that a record's author had seen of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The object.
    pub fid: Fid,
    /// What the author's state of it included.
    pub past: Past,
}

/// The contents of a Store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Up to [`INLINE_LIMIT`] bytes.
    Inline(Bytes),
    /// Uploaded before under this handle.
    Uploaded([u8; 16]),
}

/// What a record does.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Op {
    Create {
        parent: Fid,
        name: Name,
        fid: Fid,
        mode: u32,
        owner: u32,
    },
    MakeDir {
        parent: Fid,
        name: Name,
        fid: Fid,
        mode: u32,
        owner: u32,
    },
    Symlink {
        parent: Fid,
        name: Name,
        fid: Fid,
        target: Vec<u8>,
        mode: u32,
        owner: u32,
    },
    Link {
        parent: Fid,
        name: Name,
        fid: Fid,
    },
    Remove {
        parent: Fid,
        name: Name,
        fid: Fid,
    },
    RemoveDir {
        parent: Fid,
        name: Name,
        fid: Fid,
    },
    Rename {
        from: Fid,
        from_name: Name,
        to: Fid,
        to_name: Name,
        fid: Fid,
        replaced: Option<Fid>,
    },
    Store {
        fid: Fid,
        length: u64,
        hash: [u8; 32],
        mtime: i64,
        contents: Contents,
        mode: Option<u32>,
    },
    SetAttr {
        fid: Fid,
        mode: Option<u32>,
        owner: Option<u32>,
        group: Option<u32>,
        mtime: Option<i64>,
        atime: Option<i64>,
    },
    SetXattr {
        fid: Fid,
        name: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    SetAcl {
        fid: Fid,
        acl: Acl,
    },
    SetQuota {
        fid: Fid,
        min: Option<u64>,
        max: Option<u64>,
    },
}

impl Op {
    /// The objects it touches, each once, directories first: those whose past gains the record's dot.
    pub fn touches(&self) -> Vec<Fid> {
        let mut fids = match self {
            Op::Create { parent, fid, .. }
            | Op::MakeDir { parent, fid, .. }
            | Op::Symlink { parent, fid, .. }
            | Op::Link { parent, fid, .. }
            | Op::Remove { parent, fid, .. }
            | Op::RemoveDir { parent, fid, .. } => vec![*parent, *fid],
            Op::Rename { from, to, fid, replaced, .. } => {
                let mut fids = vec![*from];
                fids.extend((to != from).then_some(*to));
                fids.push(*fid);
                fids.extend(*replaced);
                fids
            }
            Op::Store { fid, .. }
            | Op::SetAttr { fid, .. }
            | Op::SetXattr { fid, .. }
            | Op::SetAcl { fid, .. }
            | Op::SetQuota { fid, .. } => vec![*fid],
        };
        let mut seen = std::collections::BTreeSet::new();
        fids.retain(|fid| seen.insert(*fid));
        fids
    }

    /// The object it makes, if any.
    pub fn creates(&self) -> Option<Fid> {
        match self {
            Op::Create { fid, .. } | Op::MakeDir { fid, .. } | Op::Symlink { fid, .. } => Some(*fid),
            _ => None,
        }
    }

    /// A word for logs.
    pub fn verb(&self) -> &'static str {
        match self {
            Op::Create { .. } => "create",
            Op::MakeDir { .. } => "mkdir",
            Op::Symlink { .. } => "symlink",
            Op::Link { .. } => "link",
            Op::Remove { .. } => "remove",
            Op::RemoveDir { .. } => "rmdir",
            Op::Rename { .. } => "rename",
            Op::Store { .. } => "store",
            Op::SetAttr { .. } => "setattr",
            Op::SetXattr { .. } => "setxattr",
            Op::SetAcl { .. } => "setacl",
            Op::SetQuota { .. } => "setquota",
        }
    }
}

impl Record {
    /// What the author had seen of `fid`; a runt where it names no base.
    pub fn base(&self, fid: Fid) -> Past {
        self.bases.iter().find(|base| base.fid == fid).map(|base| base.past.clone()).unwrap_or_default()
    }
}

impl From<&Record> for wire::Record {
    fn from(record: &Record) -> wire::Record {
        wire::Record {
            dot: Some(record.dot.into()),
            lamport: record.lamport,
            time: record.time,
            changed: record.changed,
            bases: record
                .bases
                .iter()
                .map(|base| wire::Base { fid: Some(base.fid.into()), past: Some((&base.past).into()) })
                .collect(),
            logged: record.logged,
            host: record.host.clone(),
            op: Some(record.op.clone().into()),
        }
    }
}

impl From<Op> for wire::record::Op {
    fn from(op: Op) -> wire::record::Op {
        use wire::record::Op as W;
        let some = |fid: Fid| Some(fid.into());
        match op {
            Op::Create { parent, name, fid, mode, owner } => W::Create(wire::CreateOp {
                parent: some(parent),
                name: name.into(),
                fid: some(fid),
                mode,
                owner,
            }),
            Op::MakeDir { parent, name, fid, mode, owner } => W::MakeDir(wire::MakeDirOp {
                parent: some(parent),
                name: name.into(),
                fid: some(fid),
                mode,
                owner,
            }),
            Op::Symlink { parent, name, fid, target, mode, owner } => W::Symlink(wire::SymlinkOp {
                parent: some(parent),
                name: name.into(),
                fid: some(fid),
                target: target.into(),
                mode,
                owner,
            }),
            Op::Link { parent, name, fid } => {
                W::Link(wire::LinkOp { parent: some(parent), name: name.into(), fid: some(fid) })
            }
            Op::Remove { parent, name, fid } => {
                W::Remove(wire::RemoveOp { parent: some(parent), name: name.into(), fid: some(fid) })
            }
            Op::RemoveDir { parent, name, fid } => {
                W::RemoveDir(wire::RemoveDirOp { parent: some(parent), name: name.into(), fid: some(fid) })
            }
            Op::Rename { from, from_name, to, to_name, fid, replaced } => W::Rename(wire::RenameOp {
                from: some(from),
                from_name: from_name.into(),
                to: some(to),
                to_name: to_name.into(),
                fid: some(fid),
                replaced: replaced.map(Into::into),
            }),
            Op::Store { fid, length, hash, mtime, contents, mode } => {
                let (contents, upload) = match contents {
                    Contents::Inline(bytes) => (bytes, Bytes::new()),
                    Contents::Uploaded(handle) => (Bytes::new(), Bytes::copy_from_slice(&handle)),
                };
                W::Store(wire::StoreOp {
                    fid: some(fid),
                    length,
                    hash: Bytes::copy_from_slice(&hash),
                    mtime,
                    contents,
                    upload,
                    mode,
                })
            }
            Op::SetAttr { fid, mode, owner, group, mtime, atime } => {
                W::SetAttr(wire::SetAttrOp { fid: some(fid), mode, owner, group, mtime, atime })
            }
            Op::SetXattr { fid, name, value } => W::SetXattr(wire::SetXattrOp {
                fid: some(fid),
                name: name.into(),
                value: value.map(Into::into),
            }),
            Op::SetAcl { fid, acl } => W::SetAcl(wire::SetAclOp { fid: some(fid), acl: Some((&acl).into()) }),
            Op::SetQuota { fid, min, max } => W::SetQuota(wire::SetQuotaOp { fid: some(fid), min, max }),
        }
    }
}

fn short(bytes: Bytes, limit: usize, what: &'static str) -> Result<Vec<u8>, Malformed> {
    match bytes.len() <= limit {
        true => Ok(bytes.into()),
        false => Err(Malformed::new(what, format!("{} bytes", bytes.len()))),
    }
}

fn name(bytes: Bytes) -> Result<Name, Malformed> {
    short(bytes, NAME_LIMIT, "name")
}

impl TryFrom<wire::Record> for Record {
    type Error = Malformed;
    fn try_from(record: wire::Record) -> Result<Record, Malformed> {
        if record.bases.len() > 8 {
            return Err(Malformed::new("record", "more bases than a record can touch"));
        }
        let mut bases = BTreeMap::new();
        for base in record.bases {
            bases.insert(required::<_, Fid>(base.fid, "base")?, required::<_, Past>(base.past, "base")?);
        }
        Ok(Record {
            dot: required(record.dot, "record's dot")?,
            lamport: record.lamport,
            time: record.time,
            changed: if record.changed == 0 { record.time } else { record.changed },
            bases: bases.into_iter().map(|(fid, past)| Base { fid, past }).collect(),
            logged: record.logged,
            host: host(record.host)?,
            op: record.op.ok_or_else(|| Malformed::new("record", "no operation that we know"))?.try_into()?,
        })
    }
}

impl TryFrom<wire::record::Op> for Op {
    type Error = Malformed;
    fn try_from(op: wire::record::Op) -> Result<Op, Malformed> {
        use wire::record::Op as W;
        Ok(match op {
            W::Create(op) => Op::Create {
                parent: required(op.parent, "parent")?,
                name: name(op.name)?,
                fid: required(op.fid, "fid")?,
                mode: op.mode,
                owner: op.owner,
            },
            W::MakeDir(op) => Op::MakeDir {
                parent: required(op.parent, "parent")?,
                name: name(op.name)?,
                fid: required(op.fid, "fid")?,
                mode: op.mode,
                owner: op.owner,
            },
            W::Symlink(op) => Op::Symlink {
                parent: required(op.parent, "parent")?,
                name: name(op.name)?,
                fid: required(op.fid, "fid")?,
                target: short(op.target, TARGET_LIMIT, "target of a symbolic link")?,
                mode: op.mode,
                owner: op.owner,
            },
            W::Link(op) => Op::Link {
                parent: required(op.parent, "parent")?,
                name: name(op.name)?,
                fid: required(op.fid, "fid")?,
            },
            W::Remove(op) => Op::Remove {
                parent: required(op.parent, "parent")?,
                name: name(op.name)?,
                fid: required(op.fid, "fid")?,
            },
            W::RemoveDir(op) => Op::RemoveDir {
                parent: required(op.parent, "parent")?,
                name: name(op.name)?,
                fid: required(op.fid, "fid")?,
            },
            W::Rename(op) => Op::Rename {
                from: required(op.from, "source directory")?,
                from_name: name(op.from_name)?,
                to: required(op.to, "target directory")?,
                to_name: name(op.to_name)?,
                fid: required(op.fid, "fid")?,
                replaced: optional(op.replaced)?,
            },
            W::Store(op) => Op::Store {
                fid: required(op.fid, "fid")?,
                length: op.length,
                hash: hash(&op.hash)?,
                mtime: op.mtime,
                contents: contents(op.length, op.contents, &op.upload)?,
                mode: op.mode,
            },
            W::SetAttr(op) => Op::SetAttr {
                fid: required(op.fid, "fid")?,
                mode: op.mode,
                owner: op.owner,
                group: op.group,
                mtime: op.mtime,
                atime: op.atime,
            },
            W::SetXattr(op) => Op::SetXattr {
                fid: required(op.fid, "fid")?,
                name: short(op.name, XATTR_NAME_LIMIT, "attribute name")?,
                value: op
                    .value
                    .map(|value| short(value, XATTR_VALUE_LIMIT, "attribute value"))
                    .transpose()?,
            },
            W::SetAcl(op) => Op::SetAcl { fid: required(op.fid, "fid")?, acl: required(op.acl, "ACL")? },
            W::SetQuota(op) => Op::SetQuota { fid: required(op.fid, "fid")?, min: op.min, max: op.max },
        })
    }
}

/// The name of a machine, for people's eyes.
pub fn host(name: String) -> Result<String, Malformed> {
    match name.len() <= HOST_LIMIT {
        true => Ok(name),
        false => Err(Malformed::new("host", format!("{} bytes", name.len()))),
    }
}

/// A BLAKE3 hash.
pub fn hash(bytes: &[u8]) -> Result<[u8; 32], Malformed> {
    bytes.try_into().map_err(|_| Malformed::new("hash", format!("{} bytes instead of 32", bytes.len())))
}

fn contents(length: u64, inline: Bytes, upload: &[u8]) -> Result<Contents, Malformed> {
    if let Ok(handle) = upload.try_into() {
        return Ok(Contents::Uploaded(handle));
    }
    match upload.is_empty() && inline.len() as u64 == length && inline.len() <= INLINE_LIMIT {
        true => Ok(Contents::Inline(inline)),
        false => Err(Malformed::new("contents", format!("{} bytes for a length of {length}", inline.len()))),
    }
}
