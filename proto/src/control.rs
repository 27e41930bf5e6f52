//! What tools and venus say to each other over the control socket: JSON, one message a line.
//!
//! venus greets with a [`Greeting`], the tool sends an [`Ask`], venus answers with one [`Answer`] (or, to a
//! request for events, with many). Strings are meant for people and scripts alike, so they are stable. A
//! path is absolute and has the mount point in front; a name is bytes, and those that are not UTF-8 travel
//! as [`escape`] writes them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
    /// Sends what is pending for these volumes (all where none is named) and waits. [`Reply::Sent`].
    Reintegrate { paths: Vec<String> },
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
    /// Whether venus fetches what is wanted now and then by itself. [`Reply::Done`].
    HoardSwitch { on: bool },
    /// What decisions can be undone: [`Reply::Undoable`]; or undoes the one of this number.
    /// [`Reply::Resolved`].
    Undo { id: Option<u64> },
    /// Decides about one path; without `how`, has the servers bring their replicas together now.
    /// [`Reply::Resolved`].
    Resolve { path: String, how: Option<How> },
    /// Logs mutations of these volumes (all where none is named), whoever can be reached. Seconds that a
    /// record stays in the log, and of the line that one chunk may take. [`Reply::Done`].
    WriteDisconnect { paths: Vec<String>, age: Option<u64>, time: Option<u64> },
    /// Ends that, sends what is pending and waits. [`Reply::Sent`].
    WriteReconnect { paths: Vec<String> },
    /// What is pending, of one path's volume or of all. [`Reply::Pending`].
    Pending { path: Option<String> },
    /// Lets go what would remove much. [`Reply::Approved`].
    Approve { paths: Vec<String> },
    /// Gives up what is pending of the path's volume. [`Reply::Purged`].
    PurgeLog { path: String },
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

/// How venus is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Status {
    pub mountpoint: String,
    /// Bytes that cached contents take, and may take.
    pub cache_used: u64,
    pub cache_size: u64,
    /// Objects cached, and allowed.
    pub objects: u64,
    pub objects_limit: u64,
    pub realms: Vec<RealmState>,
    pub volumes: Vec<VolumeState>,
}

/// A realm in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RealmState {
    pub name: String,
    pub servers: Vec<ServerState>,
}

/// A server as venus sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ServerState {
    pub name: String,
    pub realm: String,
    pub up: bool,
    /// `unknown`, `up`, `dead` or `disconnected`.
    pub state: String,
    /// Why it is not used; empty while it is up.
    pub why: String,
}

/// A volume as venus sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VolumeState {
    pub name: String,
    pub id: String,
    pub realm: String,
    /// `reachable`, `unreachable` or `resolving`.
    pub state: String,
    /// Members that can be reached, of all.
    pub live: u32,
    pub members: u32,
    /// Why it is not wholly reachable; may be empty.
    pub why: String,
    /// The command that mends it; may be empty.
    pub next: String,
    /// `connected`, `write-disconnected` or `disconnected`.
    #[serde(default)]
    pub mode: String,
    /// Why what is pending waits; may be empty.
    #[serde(default)]
    pub waits: Vec<String>,
    /// Records not sent yet, and their bytes with contents.
    pub pending: u64,
    pub pending_bytes: u64,
    /// Age of the oldest.
    pub oldest_seconds: u64,
}

/// The replicas of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Places {
    pub volume: String,
    pub id: String,
    pub realm: String,
    pub epoch: u64,
    pub members: Vec<Place>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Place {
    pub slot: u32,
    pub server: u32,
    pub name: String,
    pub up: bool,
    /// `active`, `joining`, `leaving` as the location service says.
    pub state: String,
}

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

/// Facts of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Volume {
    pub state: VolumeState,
    /// What the servers said; absent when none was asked or answered.
    pub served: Option<ServedVolume>,
    pub conflicts: bool,
}

/// What only servers know of a volume. Blocks are KB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ServedVolume {
    /// 0 is no quota.
    pub quota_blocks: u64,
    pub used_blocks: u64,
    pub free_blocks: u64,
    pub total_blocks: u64,
}

/// What a name is to `lsmount`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A mount point of this volume (`NAME` or `NAME@REALM`), which is there.
    Mounted(String),
    /// It looks like a mount point of this volume, which cannot be found.
    Dangling(String),
    /// A directory that is none.
    Directory,
    /// A file or symbolic link that is none.
    Other,
}

/// An access list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessList {
    /// Who gets what, in order of names.
    pub positive: Vec<Grant>,
    /// Who is denied what, whatever is granted.
    pub negative: Vec<Grant>,
}

/// One line of an access list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// User or group.
    pub who: String,
    /// Letters of `rlidwka`.
    pub rights: String,
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
    /// None of them: the object goes, with all its versions.
    Remove,
    /// The contents of this file: one of the versions, or any other below the mount point.
    Take(String),
}

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
    /// removed elsewhere, or its access list was changed at both sides.
    pub kind: String,
    /// What it is decided between; the shown one first.
    pub versions: Vec<Version>,
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
}

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
    /// The first of them.
    pub lines: Vec<PendingRecord>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRecord {
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

/// Year, month, day, hour, minute and second, in UTC, of nanoseconds since 1970. Counts years from a March,
/// so that the day that leap years add is the last of a year.
pub fn utc(time: i64) -> [i64; 6] {
    let seconds = time.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    [era * 400 + year + next, month, day, second / 3600, second / 60 % 60, second % 60]
}

/// Writes bytes as a string: UTF-8 as it is, `\` as `\\`, other bytes as `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// Reads what [`escape`] writes. A backslash that starts nothing known stands for itself.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex =
            |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
        match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                rest = tail;
            }
            (b'\\', [b'x', high, low, tail @ ..]) if hex(&[*high, *low]).is_some() => {
                bytes.extend(hex(&[*high, *low]));
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_is_text_reads_as_itself() {
        assert_eq!(escape("/coda/é".as_bytes()), "/coda/é");
        assert_eq!(escape(b"a\\x\xff"), "a\\\\x\\xff");
    }

    #[test]
    fn the_socket_belongs_to_whoever_runs_venus() {
        assert_eq!(socket(true, Some(Path::new("/run/user/0"))), Some("/run/coda/venus.sock".into()));
        assert_eq!(socket(false, Some(Path::new("/run/user/7"))), Some("/run/user/7/coda/venus.sock".into()));
        assert_eq!(socket(false, None), None);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            prop_assert_eq!(unescape(&escape(&bytes)), bytes);
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            unescape(&text);
        }
    }
}
