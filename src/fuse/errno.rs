//! The one table that turns facts into what an application sees.

use std::io;

use fuser::Errno;

use crate::error::Error;

/// The number an application gets.
///
/// No wildcard arm on purpose: whoever adds an error decides what an application sees.
pub fn number(error: &Error) -> i32 {
    match error {
        Error::Disconnected(_) | Error::RealmAway(..) => libc::ETIMEDOUT,
        // Indexers take a file that they may not read for granted and go on; what fails otherwise they try again
        // (EAGAIN, ETIMEDOUT) or report as damage (EIO).
        Error::NotFetched(_) => libc::EACCES,
        Error::NotFound(_) | Error::Gone(_) | Error::UnknownRealm(_) => libc::ENOENT,
        Error::Conflict(_) => libc::EIO,
        // Not EIO: nothing is broken, and programs say "not permitted" or "read-only".
        Error::Undecided(_) => libc::EPERM,
        Error::Access(_) => libc::EACCES,
        Error::Exists(_) => libc::EEXIST,
        Error::NotEmpty(_) => libc::ENOTEMPTY,
        Error::NotDirectory(_) => libc::ENOTDIR,
        Error::IsDirectory(_) => libc::EISDIR,
        Error::BadName(_) | Error::Invalid(_) | Error::Unclear(_) => libc::EINVAL,
        Error::NameTooLong(_) => libc::ENAMETOOLONG,
        Error::CrossDirectory(_) => libc::EXDEV,
        Error::Loop(_) => libc::ELOOP,
        Error::NoSpace(_) => libc::ENOSPC,
        Error::Quota(_) => libc::EDQUOT,
        Error::TooBig(_) => libc::EFBIG,
        Error::Busy(_) => libc::EAGAIN,
        Error::ReadOnly(_) => libc::EROFS,
        Error::NoAttribute(_) => libc::ENODATA,
        Error::Unsupported(_) => libc::EOPNOTSUPP,
        Error::BadHandle => libc::EBADF,
        Error::UnknownVolume(_) => libc::ENODEV,
        Error::BadAnswer(..) => libc::EPROTO,
        Error::Io(..) => libc::EIO,
    }
}

/// The same, as the library wants it.
pub fn errno(error: &Error) -> Errno {
    Errno::from_i32(number(error))
}

/// What an error of a container means.
pub fn of_io(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_apart_looks_like_a_timeout_and_a_missing_realm_like_a_missing_name() {
        assert_eq!(number(&Error::Disconnected("a".into())), libc::ETIMEDOUT);
        assert_eq!(number(&Error::UnknownRealm("r".into())), libc::ENOENT);
    }

    #[test]
    fn a_full_disk_under_a_container_is_told_as_such() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(i32::from(of_io(&full)), libc::ENOSPC);
        assert_eq!(i32::from(of_io(&io::Error::other("?"))), libc::EIO);
    }
}
