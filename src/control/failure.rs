//! What an error of the core is to somebody at a terminal: cause and next step.

use coda_proto::control::{Failure, FailureKind};

use crate::error::Error;

/// The failure that `error` is for a request about `what`. No wildcard arm on purpose.
pub fn failure(what: &str, error: &Error) -> Failure {
    use FailureKind::*;
    let (kind, next) = match error {
        Error::Disconnected(_) => {
            (Disconnected, "`cfs status` says why; `cfs checkservers` tries them again now")
        }
        Error::RealmAway(..) => {
            (Disconnected, "check the network, the realms file and DNS; it is tried again by itself")
        }
        Error::NotFound(_) | Error::Gone(_) => (NotFound, ""),
        Error::Conflict(_) => (Conflict, "`cfs conflicts` lists the versions, `cfs resolve` decides"),
        Error::Undecided(_) | Error::Unclear(_) => (Conflict, ""),
        Error::NotFetched(_) => (Denied, "`indexers` in venus.conf names the programs"),
        Error::Access(_) => (Denied, "`cfs listacl` of the directory shows who may do what"),
        Error::Exists(_) => (Exists, ""),
        Error::NotEmpty(_) => (Active, "empty the directory first"),
        Error::NotDirectory(_) => (NotDirectory, ""),
        Error::IsDirectory(_)
        | Error::BadName(_)
        | Error::NameTooLong(_)
        | Error::Invalid(_)
        | Error::CrossDirectory(_)
        | Error::Loop(_)
        | Error::NoAttribute(_) => (Invalid, ""),
        Error::NoSpace(_) => (NoSpace, "close files, or give venus a larger cachesize"),
        Error::Quota(_) => (NoSpace, "`cfs listvol` shows the quota, `cfs setquota` changes it"),
        Error::TooBig(_) => (NoSpace, ""),
        Error::Busy(_) => (Busy, "try again in a moment"),
        Error::ReadOnly(_) => (Denied, ""),
        Error::Unsupported(_) => (Unsupported, ""),
        Error::UnknownRealm(_) => (NotFound, "check the name, the realms file and DNS"),
        Error::UnknownVolume(_) => (NotFound, "`cfs checkvolumes` looks locations up again"),
        Error::BadHandle | Error::BadAnswer(..) | Error::Io(..) => (Io, "the log of venus has the details"),
    };
    Failure { kind, what: what.to_owned(), why: error.to_string(), next: next.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_cut_off_names_the_command_that_says_why() {
        let failure = failure("/coda/r/f", &Error::Disconnected("f".into()));
        assert_eq!(failure.kind, FailureKind::Disconnected);
        assert!(failure.next.contains("cfs status"));
        assert_eq!(failure.what, "/coda/r/f");
    }
}
