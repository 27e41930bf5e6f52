//! What tools and venus say to each other over the control socket: JSON, one message a line.
//!
//! venus greets with a [`Greeting`], the tool sends an [`Ask`], venus answers with one [`Answer`] (or, to a
//! request for events, with many). Strings are meant for people and scripts alike, so they are stable. A
//! path is absolute and has the mount point in front; a name is bytes, and those that are not UTF-8 travel
//! as [`escape`] writes them.

mod conflict;
mod hoard;
mod object;
mod pending;
mod status;
mod text;
mod volume;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use conflict::{Conflict, How, Resolved, UNASKED, Undoable, Version};
pub use hoard::{HoardReport, HoardWish, Missed, NotHere, Pinned};
pub use object::{CachedObject, CachedVolume, FidState, Flushed, Kept};
pub use pending::{PendingRecord, PendingUser, PendingVolume, Sent};
pub use status::{Alone, RealmState, ServerState, Status, VolumeState};
pub use text::{escape, unescape, utc};
pub use volume::{AccessList, Grant, Mount, Place, Places, ServedVolume, Volume};

/// The version of this conversation.
pub const VERSION: u32 = 1;
/// Bytes of a request's line, at most.
pub const ASK_LIMIT: usize = 64 * 1024;
/// Bytes of an answer's line, at most.
pub const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// Where the control socket is unless the configuration says otherwise: of a venus that root runs, and of
/// a user's own. `None` where the user has no directory for such things.
pub fn socket(root: bool, runtime: Option<&Path>) -> Option<PathBuf> {
    if root { Some("/run/coda/venus.sock".into()) } else { runtime.map(|dir| dir.join("coda/venus.sock")) }
}

/// venus' first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// [`VERSION`].
    pub control: u32,
    /// Version of venus.
    pub venus: String,
    /// Where the tree is mounted.
    pub mountpoint: String,
}

/// A tool's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// [`VERSION`].
    pub control: u32,
    /// What is asked.
    pub request: Request,
}

/// venus' line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Ok(Reply),
    /// Not done.
    Failed(Failure),
    /// One event of a stream of them.
    Event(Event),
}

/// What a tool may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Request {
    /// How venus is, or how the volume of one path is. Answered by [`Reply::Status`].
    Status { path: Option<String> },
    /// Which servers hold the path's volume. [`Reply::Places`].
    Whereis { path: String },
    /// Probes servers (all known ones where none is named), at once. [`Reply::Servers`].
    CheckServers { servers: Vec<String> },
    /// Looks every mount point and volume location up again. [`Reply::Done`].
    CheckVolumes,
    /// Treats the connection as strong (or, not `strong`, as what it measures) for these volumes, or all.
    /// [`Reply::Done`].
    Strength { strong: bool, paths: Vec<String> },
    /// Lets the caller's operations wait for servers, of one realm or of all, rather than fail where there are
    /// none; or no longer. [`Reply::Done`].
    WaitForever { on: bool, realm: Option<String> },
    /// Forgets the cached copy of an object and of what is below it. A path or the name of a mounted
    /// volume. The volume's location is looked up again in any case. [`Reply::Flushed`].
    FlushObject { path: String },
    /// Forgets whatever of the path's volume can be forgotten. [`Reply::Flushed`].
    FlushVolume { path: String },
    /// The same for all volumes. [`Reply::Flushed`].
    FlushCache,
    /// Identity and version of an object; the last name of the path is not followed. [`Reply::Fid`].
    GetFid { path: String },
    /// The path of a fid written `VOLUME.VNODE.UNIQUE@REALM`. [`Reply::Path`].
    GetPath { fid: String },
    /// Where a volume written `VOLUMEID@REALM` is mounted. [`Reply::Path`].
    GetMountPoint { volume: String },
    /// Facts of the path's volume; `local`: only what is known without a server. [`Reply::Volume`].
    ListVolume { path: String, local: bool },
    /// Whether a name is a mount point. [`Reply::Mount`].
    ListMount { path: String },
    /// Makes a mount point for a volume, `NAME` or `NAME@REALM`. [`Reply::Done`].
    MakeMount { path: String, volume: String },
    /// Removes a mount point. [`Reply::Done`].
    RemoveMount { path: String },
    /// The access list of a directory. [`Reply::Acl`].
    GetAcl { path: String },
    /// Replaces the access list of a directory. [`Reply::Done`].
    SetAcl { path: String, acl: AccessList },
    /// What is cached, of these volumes (paths or names) or of all. [`Reply::Cache`].
    ListCache { volumes: Vec<String> },
    /// Sets a volume's quota in KB blocks; 0 is none. [`Reply::Quota`].
    SetQuota { path: String, blocks: u64 },
    /// Behaves as if these servers (all where none is named) were unreachable. [`Reply::Done`].
    Disconnect { servers: Vec<String> },
    /// Ends that. [`Reply::Done`].
    Reconnect { servers: Vec<String> },
    /// Sends what is pending for these volumes (all where none is named), and waits until it is sent or all that is left
    /// waits itself, but no longer than so many seconds. [`Reply::Sent`].
    Reintegrate {
        paths: Vec<String>,
        #[serde(default)]
        seconds: Option<u64>,
    },
    /// What waits for a decision of people: in the volumes of these paths, below them, or everywhere.
    /// [`Reply::Conflicts`].
    Conflicts { paths: Vec<String> },
    /// Shows a file in conflict as a directory of its versions. [`Reply::Done`].
    Expand { path: String },
    /// Ends that. [`Reply::Done`].
    Collapse { path: String },
    /// Wants a path to be here when no server can be reached; `attributes` as `PRIORITY:c:d:c+:d+`.
    /// [`Reply::Done`].
    HoardAdd { path: String, attributes: String },
    /// Wants it no longer. [`Reply::Done`].
    HoardDelete { path: String },
    /// Wants nothing more of what this user, or anybody, wanted. [`Reply::Done`].
    HoardClear { uid: Option<u32> },
    /// What this user, or anybody, wants. [`Reply::Hoard`].
    HoardList { uid: Option<u32> },
    /// Begins to fetch what is wanted, without waiting for it. [`Reply::HoardReport`].
    HoardWalk,
    /// What is wanted and not here. [`Reply::HoardReport`].
    HoardVerify,
    /// What of a path, and all that is below it, is not here, wanted or not; servers are asked what there is.
    /// [`Reply::HoardReport`].
    Preflight { path: String },
    /// Whether venus fetches what is wanted now and then by itself. [`Reply::Done`].
    HoardSwitch { on: bool },
    /// Keeps a path here: as far as it goes, all that is below it, now and in future, or what a pattern matches.
    /// Where it cannot fit it is refused. `most`: no more bytes than this, the newest files first.
    /// [`Reply::Pinned`].
    Pin { path: String, most: Option<u64> },
    /// Shows the tree to the process that asks, and to those it starts, as if no server could be reached; ends
    /// that. [`Reply::Done`], then [`Reply::Missed`].
    Rehearse { begin: bool },
    /// What decisions can be undone: [`Reply::Undoable`]; or undoes the one of this number.
    /// [`Reply::Resolved`].
    Undo { id: Option<u64> },
    /// Decides about one path; without `how`, has the servers bring their replicas together now.
    /// [`Reply::Resolved`].
    Resolve {
        path: String,
        how: Option<How>,
        /// The versions, by their numbers, that were looked at: if there are others now, nothing is done. None: whatever
        /// there is.
        #[serde(default)]
        of: Vec<String>,
    },
    /// Logs mutations of these volumes (all where none is named), whoever can be reached. Seconds that a
    /// record stays in the log, and of the line that one chunk may take. [`Reply::Done`].
    WriteDisconnect { paths: Vec<String>, age: Option<u64>, time: Option<u64> },
    /// Ends that, sends what is pending and waits. [`Reply::Sent`].
    WriteReconnect { paths: Vec<String> },
    /// What is pending, of one path's volume or of all. [`Reply::Pending`].
    Pending { path: Option<String> },
    /// Lets go what would remove much. [`Reply::Approved`].
    Approve { paths: Vec<String> },
    /// Gives up what is pending of the path's volume: what the caller did, or what all users did.
    /// [`Reply::Purged`].
    PurgeLog {
        path: String,
        #[serde(default)]
        all: bool,
    },
    /// Writes what is pending, with contents, into a directory: an archive and a list for each volume.
    /// [`Reply::Written`].
    CheckpointLog { path: Option<String>, dir: Option<String> },
    /// The last `recent` events, and then, with `follow`, each as it happens. Many [`Answer::Event`], then
    /// [`Reply::Done`].
    Events { recent: usize, follow: bool },
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Reply {
    Done,
    Status(Status),
    Places(Places),
    Servers(Vec<ServerState>),
    Flushed(Flushed),
    Fid(FidState),
    Path(String),
    Volume(Volume),
    Mount(Mount),
    Acl(AccessList),
    Cache(Vec<CachedVolume>),
    Quota { old: u64, new: u64 },
    Sent(Vec<Sent>),
    Conflicts(Vec<Conflict>),
    Resolved(Resolved),
    Undoable(Vec<Undoable>),
    Hoard(Vec<HoardWish>),
    HoardReport(HoardReport),
    Pending(Vec<PendingVolume>),
    Approved(u64),
    Purged(u64),
    Written(Vec<String>),
    Pinned(Pinned),
    Missed(Vec<Missed>),
}

/// The kind of a failure: what scripts look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum FailureKind {
    NotFound,
    /// The path is not below venus' mount point.
    Outside,
    NotDirectory,
    Exists,
    Denied,
    Invalid,
    /// No server of the volume can be reached.
    Disconnected,
    /// Something uses it: open, not sent yet, or a mount point.
    Active,
    Conflict,
    Busy,
    NoSpace,
    Unsupported,
    Io,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For scripts.
    pub kind: FailureKind,
    /// The path or thing.
    pub what: String,
    /// The cause, for people.
    pub why: String,
    /// What to do about it, for people; may be empty.
    pub next: String,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 since venus started.
    pub seq: u64,
    /// Nanoseconds since 1970.
    pub time: i64,
    /// `connection`, `callback`, `fetch`, `store`, `resolve`, `cache`, `conflict`, `volstate`, `progress`,
    /// `shutdown`.
    pub class: String,
    /// For people's eyes, in the words that codacon always used.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_belongs_to_whoever_runs_venus() {
        assert_eq!(socket(true, Some(Path::new("/run/user/0"))), Some("/run/coda/venus.sock".into()));
        assert_eq!(socket(false, Some(Path::new("/run/user/7"))), Some("/run/user/7/coda/venus.sock".into()));
        assert_eq!(socket(false, None), None);
    }
}
