//! What can go wrong in the cache manager, as facts that name the thing. `fuse::errno` turns each into
//! what an application sees, in one table.

use coda_proto::{Code, Fid, Refusal};

/// An operation that could not be done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{0}: not cached and no server is reachable")]
    Disconnected(String),
    #[error("{0}: not here, and not fetched for programs that read everything")]
    NotFetched(String),
    #[error("realm {0} is not reachable: {1}")]
    RealmAway(String, String),
    #[error("{0}: no such object")]
    NotFound(String),
    #[error("{0}: is gone")]
    Gone(Fid),
    #[error("{0}: versions differ and people must decide")]
    Conflict(Fid),
    #[error("{0}: has several versions; `cfs conflicts` lists them and `cfs resolve` decides")]
    Undecided(String),
    /// A choice, or a way to merge, that means nothing sure; it says why.
    #[error("{0}")]
    Unclear(String),
    #[error("{0}: permission denied")]
    Access(String),
    #[error("{0}: exists")]
    Exists(String),
    #[error("{0}: directory not empty")]
    NotEmpty(String),
    #[error("{0}: not a directory")]
    NotDirectory(String),
    #[error("{0}: is a directory")]
    IsDirectory(String),
    #[error("{0}: not an allowed name")]
    BadName(String),
    #[error("{0}: name too long")]
    NameTooLong(String),
    #[error("{0}: invalid")]
    Invalid(String),
    #[error("{0}: links and renames stay within one volume, and links within one directory")]
    CrossDirectory(String),
    #[error("{0}: a directory cannot move below itself")]
    Loop(String),
    #[error("{0}: the cache is full and nothing in it may go")]
    NoSpace(String),
    #[error("{0}: quota exceeded")]
    Quota(String),
    #[error("{0}: too big")]
    TooBig(String),
    #[error("{0}: busy, try again")]
    Busy(String),
    #[error("{0}: read-only")]
    ReadOnly(String),
    #[error("{0}: no such attribute")]
    NoAttribute(String),
    #[error("{0}: not supported")]
    Unsupported(String),
    #[error("unknown handle")]
    BadHandle,
    #[error("realm {0} is unknown: {looked}", looked = looked(.0))]
    UnknownRealm(String),
    #[error("volume {0} is unknown in its realm")]
    UnknownVolume(String),
    #[error("{0}: the server's answer makes no sense: {1}")]
    BadAnswer(String, String),
    #[error("{0}: {1}")]
    Io(String, String),
}

/// Where a realm was looked for in vain.
fn looked(realm: &str) -> &'static str {
    match realm.contains('.') {
        true => "no line in the realms file, no SRV and no address record",
        false => {
            "no line in the realms file and none in /etc/hosts; DNS is asked about names with a dot only"
        }
    }
}

impl Error {
    /// Whether it says that nobody could be asked, rather than something about the object.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Error::Disconnected(_) | Error::RealmAway(..))
    }

    /// What a server's refusal means for the operation that asked, whose object is `what`.
    pub fn refused(what: &str, refusal: &Refusal) -> Error {
        let what = what.to_owned();
        match refusal.code {
            Code::Gone => refusal.blame.map_or(Error::NotFound(what), Error::Gone),
            Code::NoEntry => Error::NotFound(what),
            Code::NeedsResolve => refusal.blame.map_or(Error::Busy(what), Error::Conflict),
            Code::Access => Error::Access(what),
            Code::Exists => Error::Exists(what),
            Code::NotEmpty => Error::NotEmpty(what),
            Code::NotDirectory => Error::NotDirectory(what),
            Code::IsDirectory => Error::IsDirectory(what),
            Code::NoSpace => Error::NoSpace(what),
            Code::Quota => Error::Quota(what),
            Code::CrossDirectory => Error::CrossDirectory(what),
            Code::Loop => Error::Loop(what),
            Code::Name => Error::BadName(what),
            Code::TooBig => Error::TooBig(what),
            Code::Invalid => Error::Invalid(format!("{what}: {}", refusal.detail)),
            Code::NoVolume => Error::UnknownVolume(what),
            Code::Unsupported => Error::Unsupported(what),
            Code::Busy | Code::StaleEpoch | Code::UnknownSession | Code::NotJoined | Code::Offline => {
                Error::Busy(what)
            }
            Code::Internal | Code::Retired | Code::Upload | Code::Ok => {
                Error::Io(what, refusal.detail.clone())
            }
        }
    }
}
