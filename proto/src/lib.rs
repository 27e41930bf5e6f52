//! What Coda says on every wire: identities, versions, records of mutations, the join, and messages.
//!
//! Nothing here does I/O. Every decoder checks a length before it allocates by it, and answers
//! [`Malformed`] instead of panicking, whatever the bytes.

pub mod acl;
pub mod control;
pub mod frame;
pub mod id;
pub mod merge;
pub mod name;
pub mod past;
pub mod planted;
pub mod record;
pub mod refusal;
pub mod service;
pub mod status;
pub mod watch;

/// The messages of `schema/*.proto`, generated.
#[allow(missing_docs, clippy::all)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/coda.rs"));
}

pub use acl::{Acl, Rights};
pub use id::{Author, Dot, Fid, ServerId, VolumeId};
pub use name::{Name, check_name};
pub use past::{Past, Relation};
pub use record::{Base, Contents, Op, Record};
pub use refusal::{Code, Refusal};
pub use status::{Entry, Kind, Sibling, Status};

/// The protocol's version in `Hello` and `Welcome`.
pub const PROTOCOL: u32 = 1;
/// UDP port of a server unless its configuration says otherwise.
pub const DEFAULT_PORT: u16 = 2432;
/// Contents up to this many bytes travel inside their Store record.
pub const INLINE_LIMIT: usize = 32 * 1024;
/// Records of one Apply, at most.
pub const APPLY_RECORDS: usize = 1000;
/// Encoded bytes of one Apply, at most.
pub const APPLY_BYTES: usize = 4 * 1024 * 1024;
/// Raw bytes behind one request or answer, at most.
pub const BULK_LIMIT: usize = 4 * 1024 * 1024;

/// A message from disk or network that breaks the protocol: what, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    /// The noun that could not be read.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Malformed {
    /// A malformed `what`, because of `why`.
    pub fn new(what: &'static str, why: impl Into<String>) -> Malformed {
        Malformed { what, why: why.into() }
    }
}
