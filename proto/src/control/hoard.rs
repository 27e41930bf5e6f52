//! What is wanted while apart, and how far it is here.

use serde::{Deserialize, Serialize};

/// Something that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct HoardWish {
    pub path: String,
    pub volume: String,
    pub realm: String,
    /// Within its volume, from `.`.
    pub inside: String,
    pub uid: u32,
    pub priority: u32,
    /// Empty, `c+` or `d+`.
    pub reach: String,
}

/// How far what is wanted is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct HoardReport {
    /// It is being fetched.
    pub walking: bool,
    /// Objects that are wanted, and bytes of them that are here.
    pub objects: u64,
    pub bytes: u64,
    /// Bytes that what is wanted may take.
    pub room: u64,
    pub missing: Vec<NotHere>,
    /// Objects that are looked at and that nothing keeps here: nobody wants them.
    #[serde(default)]
    pub unkept: u64,
    /// Seconds that fetching what is missing takes, where that can be told.
    #[serde(default)]
    pub seconds: Option<u64>,
}

/// Something that is wanted and not here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NotHere {
    pub path: String,
    pub why: String,
    /// As far as they are known.
    pub bytes: u64,
    pub priority: u32,
}

/// What a pin comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// Objects that it keeps here now.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of them that are still to be fetched.
    pub missing: u64,
    /// Bytes that pins may take beyond this one and the others.
    pub left: u64,
}

/// Something that was wanted and not here while it was tried out how it is to be offline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Where it is.
    pub path: String,
    /// Bytes, where they are known.
    pub bytes: Option<u64>,
    /// How often it was asked for.
    pub times: u64,
}
