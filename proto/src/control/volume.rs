//! Volumes as tools see them: replicas, mounts, access lists.

use serde::{Deserialize, Serialize};

use super::VolumeState;

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
