//! Single objects as tools see them: identity, version, what is cached and what is forgotten.

use serde::{Deserialize, Serialize};

/// What a flush did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Objects forgotten.
    pub objects: u64,
    /// Objects that stayed, and why; the first hundred.
    pub kept: Vec<Kept>,
}

/// An object that cannot be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its path.
    pub path: String,
    /// `open by process 17`, `3 changes not sent yet`, `mount point in use`.
    pub why: String,
}

/// Identity and version of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FidState {
    pub fid: String,
    pub realm: String,
    /// The past: each author with its highest update, `AUTHOR.SEQ`.
    pub past: Vec<String>,
    /// The contents shown: the dot of their store; more than one is a conflict.
    pub siblings: Vec<String>,
    pub conflict: bool,
}

/// What is cached of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CachedVolume {
    pub mount: String,
    pub id: String,
    pub realm: String,
    pub objects: Vec<CachedObject>,
}

/// One cached object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CachedObject {
    /// Relative to the volume's root, `.` itself.
    pub path: String,
    pub fid: String,
    /// `d`, `f`, `s`.
    pub kind: String,
    /// `/` a volume's root, `m` a covered mount point, else empty.
    pub link: String,
    /// Status and contents may be used as they are.
    pub valid: bool,
    /// Changes of it are not sent yet.
    pub dirty: bool,
}
