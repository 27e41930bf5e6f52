//! What is not sent yet, and why.

use serde::{Deserialize, Serialize};

/// How far sending got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The volume's name.
    pub volume: String,
    /// Records still to be sent.
    pub remaining: u64,
    /// Why they were not; may be empty.
    pub why: String,
}

/// What is pending of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingVolume {
    /// Where it is mounted, or its name.
    pub volume: String,
    /// `connected`, `write-disconnected` or `disconnected`.
    pub mode: String,
    /// Records.
    pub records: u64,
    /// Bytes of contents.
    pub bytes: u64,
    /// Seconds since the oldest was made.
    pub oldest_seconds: u64,
    /// Seconds until all is sent, where that can be told.
    pub left_seconds: Option<u64>,
    /// Why records wait, each reason once.
    pub reasons: Vec<String>,
    /// Files that are open and hold writes that are stored when they are closed: the first of them.
    #[serde(default)]
    pub open: Vec<String>,
    /// Whose they are, by local user.
    #[serde(default)]
    pub users: Vec<PendingUser>,
    /// The first of them.
    pub lines: Vec<PendingRecord>,
}

/// What is pending of one local user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingUser {
    /// The user.
    pub uid: u32,
    /// Records.
    pub records: u64,
    /// Bytes of contents.
    pub bytes: u64,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRecord {
    /// The local user whose it is.
    #[serde(default)]
    pub uid: u32,
    /// `store`, `remove` and so on.
    pub verb: String,
    /// The path, as far as it is known.
    pub path: String,
    /// Bytes of contents.
    pub bytes: u64,
    /// Seconds since it was made.
    pub seconds: u64,
    /// Why it waits; empty: it is next.
    pub why: String,
}
