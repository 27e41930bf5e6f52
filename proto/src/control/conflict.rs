//! What people must decide, how they decide it, and how they take it back.

use serde::{Deserialize, Serialize};

/// How a conflict is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum How {
    /// What was made on this machine.
    Ours,
    /// What was made elsewhere.
    Theirs,
    /// What was made last.
    Newest,
    /// All of them, under names of their own.
    Both,
    /// What each changed of what they began from, by lines; refused where that is not clear or not known.
    Text,
    /// None of them: the object goes, with all its versions.
    Remove,
    /// The contents of this file: one of the versions, or any other below the mount point.
    Take(String),
}

/// The kind of what is no conflict, but says that more may be in a volume than is listed.
pub const UNASKED: &str = "unasked";

/// Something that people must decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The path that is contested.
    pub path: String,
    /// The object that has it now.
    pub fid: String,
    /// Its realm.
    pub realm: String,
    /// `contents`: of one file; `name`: several objects have it; `mark`: an object came back after it was
    /// removed elsewhere, or its access list was changed at both sides; [`UNASKED`]: no server of this volume could be
    /// asked, and what is listed of it is what is cached.
    pub kind: String,
    /// What it is decided between; the shown one first.
    pub versions: Vec<Version>,
    /// Where what this machine's version was made from can be read; empty where that is not here.
    #[serde(default)]
    pub base: String,
}

/// One of several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Where it can be read.
    pub path: String,
    /// The machine on which it was made; empty where nobody knows.
    pub host: String,
    /// When, in nanoseconds since 1970.
    pub time: i64,
    /// Bytes; of a directory, entries.
    pub length: u64,
    /// Whether it was made on this machine.
    pub ours: bool,
    /// Its number; of an object, none.
    #[serde(default)]
    pub id: String,
}

/// A decision that can be undone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undoable {
    /// Its number.
    pub id: u64,
    /// What it was about.
    pub path: String,
    /// When it was made, in nanoseconds since 1970.
    pub time: i64,
    /// How many versions come back, and their bytes.
    pub versions: u32,
    /// Bytes of them.
    pub bytes: u64,
}

/// What a decision did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Versions that are no longer shown.
    pub dropped: u32,
    /// What was done, or is left to be done, in a few words.
    pub what: String,
}
