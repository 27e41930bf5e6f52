//! What a server is told at its start.

use std::{fmt, path::PathBuf, sync::Arc};

/// Where a server keeps everything, and how hard it tries.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The store's directory.
    pub dir: PathBuf,
    /// Whether commits wait for the disk.
    pub durability: Durability,
    /// Stops the server dead at a named point; for tests.
    pub crash: Option<CrashHook>,
}

impl ServerConfig {
    /// A durable server on `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> ServerConfig {
        ServerConfig { dir: dir.into(), durability: Durability::Full, crash: None }
    }
}

/// What an answer to a mutation promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut.
    Full,
    /// It survives the death of the process. For simulated worlds, where a power cut is out of reach.
    Process,
}

/// Where a crash is worth trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// An upload's container is in place; no row names it as complete.
    ContainerSynced,
    /// Records are executed, not committed.
    BeforeCommit,
    /// Committed; nobody has been told.
    BeforeReply,
    /// Rows that named a container are gone; the container is not.
    BeforeCollection,
}

impl CrashPoint {
    /// Every point, for tests that try each.
    pub const ALL: [CrashPoint; 4] = [
        CrashPoint::ContainerSynced,
        CrashPoint::BeforeCommit,
        CrashPoint::BeforeReply,
        CrashPoint::BeforeCollection,
    ];
}

/// Asked at each crash point: whether to die here.
#[derive(Clone)]
pub struct CrashHook(pub Arc<dyn Fn(CrashPoint) -> bool + Send + Sync>);

impl fmt::Debug for CrashHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CrashHook")
    }
}
