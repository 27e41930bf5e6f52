//! Why a store could not do what it was asked.

use std::{io, path::Path, path::PathBuf};

use coda_proto::{Code, Malformed, Refusal};

use super::has_replicas;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("database: {0}")]
    Sql(#[from] rusqlite::Error),
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A row that we could not have written.
    #[error("the store is damaged: {0}")]
    Damaged(#[from] Malformed),
    /// Written by a later version of this program.
    #[error("{path}: its schema version is {found}; this program knows {known} and leaves it untouched")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Another process serves it.
    #[error("{0}: another server is using this store")]
    InUse(PathBuf),
    /// There is no store.
    #[error("{0}: no server store here; make one with `codasrv init` or `codasrv join`")]
    Missing(PathBuf),
    /// There are replicas, and what says whose they are is gone.
    #[error(
        "{0}: there are replicas here, and no server.db: put it back from a copy, with server.pem, server.key and ca.pem. \
         `codasrv join` in another directory makes a new server, and leaves these alone"
    )]
    Headless(PathBuf),
    /// There is a store already.
    #[error("{0}: there is a server store already")]
    Exists(PathBuf),
    /// The server has stopped.
    #[error("the server is stopping")]
    Stopped,
}

impl StoreError {
    /// There is no server.db in `dir`.
    pub fn none_in(dir: &Path) -> StoreError {
        match has_replicas(dir) {
            true => StoreError::Headless(dir.to_owned()),
            false => StoreError::Missing(dir.to_owned()),
        }
    }

    /// An I/O failure at `path`.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
        move |source| StoreError::Io { path: path.to_owned(), source }
    }
}

impl StoreError {
    /// Whether the disk failed, so that nothing it says about earlier writes can be believed.
    pub fn is_io(&self) -> bool {
        match self {
            StoreError::Sql(rusqlite::Error::SqliteFailure(error, _)) => {
                error.code == rusqlite::ErrorCode::SystemIoFailure
            }
            StoreError::Io { source, .. } => source.kind() != io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// Whether what is on the disk is no store that we could have written, where the disk itself works.
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            StoreError::Sql(rusqlite::Error::SqliteFailure(error, why)) => {
                // An empty file is a database without tables.
                let has_none = why.as_ref().is_some_and(|why| why.starts_with("no such table"));
                has_none || matches!(error.code, DatabaseCorrupt | NotADatabase)
            }
            StoreError::Sql(rusqlite::Error::QueryReturnedNoRows) | StoreError::Damaged(_) => true,
            _ => false,
        }
    }
}

impl From<rusqlite::types::FromSqlError> for StoreError {
    fn from(error: rusqlite::types::FromSqlError) -> StoreError {
        Malformed::new("column", error.to_string()).into()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        let full = match &error {
            StoreError::Sql(rusqlite::Error::SqliteFailure(error, _)) => {
                error.code == rusqlite::ErrorCode::DiskFull
            }
            StoreError::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        };
        let code = match (full, &error) {
            (true, _) => Code::NoSpace,
            (false, StoreError::Stopped) => Code::Offline,
            (false, _) => Code::Internal,
        };
        Refusal::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(code: i32) -> StoreError {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None).into()
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        assert_eq!(Refusal::from(sqlite(rusqlite::ffi::SQLITE_FULL)).code, Code::NoSpace);
        assert_eq!(Refusal::from(sqlite(rusqlite::ffi::SQLITE_IOERR)).code, Code::Internal);
        assert!(sqlite(rusqlite::ffi::SQLITE_IOERR_FSYNC).is_io());
        assert!(!sqlite(rusqlite::ffi::SQLITE_FULL).is_io());
        let io = |kind: io::ErrorKind| StoreError::io(Path::new("x"))(kind.into());
        assert_eq!(Refusal::from(io(io::ErrorKind::StorageFull)).code, Code::NoSpace);
        assert!(io(io::ErrorKind::Other).is_io() && !io(io::ErrorKind::StorageFull).is_io());
    }
}
