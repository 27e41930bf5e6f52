//! How venus, its realms, servers and volumes are: what `cfs status` shows.

use serde::{Deserialize, Serialize};

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
    /// What only this machine has, of all volumes, whichever path was asked about. None: that is not known.
    #[serde(default)]
    pub alone: Option<Alone>,
}

/// What no server has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alone {
    /// Changes that are not sent yet.
    pub records: u64,
    /// How many files are open and hold writes that are stored when they are closed.
    pub open: u64,
    /// Where the first of them are.
    pub open_paths: Vec<String>,
    /// How many files lie in the spool: contents that no server took.
    pub spooled: u64,
    /// Where that is; empty where nothing lies there.
    pub spool: String,
}

impl Alone {
    /// Whether the servers have everything.
    pub fn is_nothing(&self) -> bool {
        self.records + self.open + self.spooled == 0
    }

    /// What there is, each with its count, where it is said so of changes and of open files.
    pub fn each(&self, changes: &str, open: &str) -> Vec<String> {
        let spooled = format!("files that no server took lie in {}", self.spool);
        let all = [(self.records, changes), (self.open, open), (self.spooled, &spooled)];
        all.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
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
