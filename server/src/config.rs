//! What a server is told at its start.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use coda_proto::ServerId;

use crate::location::Seal;

/// Where a server keeps everything, and how hard it tries.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The store's directory.
    pub dir: PathBuf,
    /// Whether commits wait for the disk.
    pub durability: Durability,
    /// Stops the server dead at a named point; for tests.
    pub crash: Option<CrashHook>,
    /// Signs the certificates of further servers; only where the realm's authority is.
    pub signer: Option<Signer>,
    /// The key of the realm's authority, for other servers of the realm that ask.
    pub authority: Option<AuthorityKey>,
    /// Whether the authority's key is passed on to other servers, and asked for where it is not.
    pub pass_authority: bool,
    /// What is kept, and for how long.
    pub limits: Limits,
    /// Signs and checks entries of the realm's log; without one they are believed as they come.
    pub seal: Option<Sealing>,
}

/// How much a server keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients that have a session. A new one takes the place of one whose connection is gone.
    pub sessions: usize,
    /// Uploads that one client has begun and not yet stored, in one volume.
    pub uploads: u64,
    /// Tombstones of a volume. Of more, the oldest are forgotten as soon as all members include them.
    pub tombstones: u64,
    /// How long a tombstone is kept that nothing forces out.
    pub tombstone_age: Duration,
    /// How long an author may be silent before nothing of it is taken any more.
    pub author_age: Duration,
    /// How long after an author was retired its entries may be folded. A client that was away for longer and
    /// removes something that was folded meanwhile sees it come back.
    pub fold_age: Duration,
    /// Bytes of a past that is not worth folding yet. One author takes about twelve.
    pub past: u32,
    /// Authors that are not worth folding yet: it is a new version of the object.
    pub fold_at_least: usize,
    /// Between two rounds in which what is old enough is forgotten, retired and folded.
    pub round: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            sessions: 10_000,
            uploads: 1000,
            tombstones: 1_000_000,
            tombstone_age: Duration::from_secs(400 * 24 * 3600),
            author_age: Duration::from_secs(400 * 24 * 3600),
            fold_age: Duration::from_secs(30 * 24 * 3600),
            past: crate::store::LONG,
            fold_at_least: 4,
            round: Duration::from_secs(3600),
        }
    }
}

impl ServerConfig {
    /// A durable server on `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> ServerConfig {
        ServerConfig {
            dir: dir.into(),
            durability: Durability::Full,
            crash: None,
            signer: None,
            authority: None,
            pass_authority: true,
            seal: None,
            limits: Limits::default(),
        }
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

/// A new server's certificate, and its authority's, both as DER.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Of the server.
    pub certificate: Vec<u8>,
    /// Of the realm.
    pub authority: Vec<u8>,
}

/// Signs a new server's request (DER), or says why not.
type Sign = dyn Fn(ServerId, &[u8]) -> Result<Signed, String> + Send + Sync;

/// The realm's authority, as far as a server needs it.
#[derive(Clone)]
pub struct Signer {
    /// Signs a new server's request.
    pub sign: Arc<Sign>,
    /// Whether it can: the key may come later.
    pub here: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Signer {
    /// Whether it can sign now.
    pub fn is_here(&self) -> bool {
        (self.here)()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// Reads the key of the realm's authority, if it is here.
#[derive(Clone)]
pub struct AuthorityKey(pub Arc<dyn Fn() -> Option<Vec<u8>> + Send + Sync>);

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorityKey")
    }
}

/// What proves the entries of the realm's log.
#[derive(Clone)]
pub struct Sealing(pub Arc<dyn Seal>);

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealing")
    }
}

/// Asked at each crash point: whether to die here.
#[derive(Clone)]
pub struct CrashHook(pub Arc<dyn Fn(CrashPoint) -> bool + Send + Sync>);

impl fmt::Debug for CrashHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CrashHook")
    }
}
