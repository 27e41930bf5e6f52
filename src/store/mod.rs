//! What venus keeps on disk besides contents: one SQLite database.
//!
//! ```text
//!  realm    the number of each realm, in the order met
//!  kept     small values by name: what peers learnt of realms and groups, our instance, counters
//!  object   one row per cached object: its status, whether its entries or contents are here
//!  entry    the bindings of cached directories
//!  log      mutations that some member has yet to answer for
//!  author   the authors this store has drawn; `retired`: those that the servers need not name any more
//!  hoard    what people want to have here; `hoarded`: the objects that this makes
//!  base     what files were before they were written while apart
//!  undo     what decisions took away, and the containers that keep it
//!  seal     what members of a volume held, and when; `sealed`: of which objects that is known
//! ```
//!
//! Nothing outside this folder writes SQL. A [`Change`] is one transaction; the log record of a mutation
//! and the rows it changes are always in the same one. Validity is not kept: after a start nobody has
//! promised us anything. But what servers held is, so that one question tells what changed since.

mod base;
mod change;
mod hoard;
mod log;
mod object;
mod seal;
mod small;
mod undo;

pub use base::Base;
pub use change::{Change, Edit};
pub use hoard::{Reach, Wish};
pub use log::LogRow;
pub use object::{Data, Row};
pub use seal::{KeptSeal, Sealed};
pub use undo::{Dropped, Undo};

use std::path::{Path, PathBuf};

use rusqlite::{Connection, config::DbConfig};

use crate::error::Error;

/// The schema's version. A newer database is refused untouched.
const VERSION: i64 = 2;

const SCHEMA: &str = "
    CREATE TABLE realm (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE kept (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE object (
        id BLOB PRIMARY KEY, row BLOB NOT NULL, container INTEGER, bytes INTEGER NOT NULL,
        writing INTEGER NOT NULL, used INTEGER NOT NULL, parent BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX object_parent ON object (parent);
    CREATE INDEX object_used ON object (used);
    CREATE INDEX object_writing ON object (writing) WHERE writing <> 0;
    CREATE INDEX object_container ON object (container, bytes) WHERE container IS NOT NULL;
    CREATE TABLE entry (
        dir BLOB NOT NULL, name BLOB NOT NULL, fid BLOB NOT NULL, kind INTEGER NOT NULL,
        author INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (dir, name, fid)
    ) WITHOUT ROWID;
    CREATE TABLE log (
        id INTEGER PRIMARY KEY AUTOINCREMENT, realm INTEGER NOT NULL, volume INTEGER NOT NULL,
        exclusive INTEGER NOT NULL, record BLOB NOT NULL, container INTEGER,
        sent INTEGER NOT NULL DEFAULT 0, contents BLOB
    );
    CREATE INDEX log_container ON log (container) WHERE container IS NOT NULL;
    CREATE TABLE author (author INTEGER PRIMARY KEY, realm INTEGER NOT NULL, volume INTEGER NOT NULL);
";

/// From schema 1, whose log knew nothing of containers. What is in it may have been sent.
const FROM_1: &str = "
    ALTER TABLE log ADD COLUMN container INTEGER;
    ALTER TABLE log ADD COLUMN sent INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE log ADD COLUMN contents BLOB;
    CREATE INDEX log_container ON log (container) WHERE container IS NOT NULL;
";

/// Found by name is what was asked for most; this finds the name of an object. Made where it is missing: an
/// earlier version of the program keeps it up to date without knowing it.
const INDEX: &str = "CREATE INDEX IF NOT EXISTS entry_child ON entry (fid)";

/// Which of the authors are retired.
const RETIRED: &str = "CREATE TABLE IF NOT EXISTS retired (author INTEGER PRIMARY KEY)";

/// Whose what is. Added where it is missing: an earlier version of the program leaves it empty, and then it is
/// whoever the record names, or whose mount it is.
const WHOSE: [&str; 2] = ["log", "author"];

/// Pages that gather before the database itself is written. A checkpoint waits for the disk.
const GATHERED: &str = "4000";

/// The database. One writer: whoever holds it.
pub struct Store {
    db: Connection,
}

pub(crate) fn broken(error: rusqlite::Error) -> Error {
    let what = "the cache's database";
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Error::NoSpace(what.into()),
        _ => Error::Io(what.into(), error.to_string()),
    }
}

fn malformed(what: impl std::fmt::Display) -> Error {
    Error::Io("the cache's database".into(), what.to_string())
}

type Result<T> = std::result::Result<T, Error>;

impl Store {
    /// Opens the database at `path`, or makes one; in memory without a path.
    pub fn open(path: Option<&Path>) -> Result<Store> {
        let db = match path {
            Some(path) => Connection::open(path),
            None => Connection::open_in_memory(),
        }
        .map_err(broken)?;
        Store::prepare(db)
    }

    /// Takes no more, as on a full disk, or has room again; for simulated worlds.
    pub fn set_full(&self, full: bool) -> Result<()> {
        // No limit is below what the database has already.
        let pages = if full { 1 } else { u32::MAX - 1 };
        self.db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).map_err(broken)
    }

    /// Says something to the database, for tests of what goes wrong there.
    #[cfg(test)]
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.db.execute_batch(sql).map_err(broken)
    }

    fn prepare(db: Connection) -> Result<Store> {
        let pragma = |name: &str, value: &str| {
            db.pragma_update_and_check(None, name, value, |_| Ok(())).or_else(|error| match error {
                rusqlite::Error::QueryReturnedNoRows => Ok(()),
                error => Err(error),
            })
        };
        pragma("locking_mode", "EXCLUSIVE").map_err(broken)?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(broken)?;
        if version > VERSION {
            return Err(malformed(format!(
                "written by a newer venus (schema {version}, this one knows {VERSION}); left untouched"
            )));
        }
        pragma("journal_mode", "WAL").map_err(broken)?;
        pragma("synchronous", "NORMAL").map_err(broken)?;
        pragma("cache_size", "-16384").map_err(broken)?;
        pragma("wal_autocheckpoint", GATHERED).map_err(broken)?;
        // Query plans that do not look at bound values: cached statements are never compiled again.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(broken)?;
        db.set_prepared_statement_cache_capacity(256);
        let steps = match version {
            0 => SCHEMA,
            1 => FROM_1,
            _ => "",
        };
        if version != VERSION {
            db.execute_batch(&format!("BEGIN; {steps} PRAGMA user_version = {VERSION}; COMMIT;"))
                .map_err(broken)?;
        }
        db.execute_batch(base::TABLES).map_err(broken)?;
        db.execute_batch(undo::TABLES).map_err(broken)?;
        db.execute_batch(hoard::TABLES).map_err(broken)?;
        db.execute_batch(seal::TABLES).map_err(broken)?;
        db.execute_batch(INDEX).map_err(broken)?;
        db.execute_batch(RETIRED).map_err(broken)?;
        for table in WHOSE {
            let known = format!("SELECT 1 FROM pragma_table_info('{table}') WHERE name = 'uid'");
            if !db.prepare(&known).and_then(|mut ask| ask.exists([])).map_err(broken)? {
                db.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN uid INTEGER")).map_err(broken)?;
            }
        }
        Ok(Store { db })
    }

    /// The file of what was committed and is not in the database's own file yet. It may be synced by whoever
    /// likes: nobody who uses the database waits for that.
    pub fn ahead(&self) -> Option<PathBuf> {
        let path = self.db.path().filter(|path| !path.is_empty())?;
        Some(PathBuf::from(format!("{path}-wal")))
    }

    /// Makes what was committed survive power loss.
    pub fn sync(&self) -> Result<()> {
        self.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        drop(Store::open(Some(&path)).unwrap());
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA user_version = 99").unwrap();
        drop(db);
        assert!(Store::open(Some(&path)).is_err());
        let db = Connection::open(&path).unwrap();
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 99);
    }

    #[test]
    fn two_stores_never_share_a_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let store = Store::open(Some(&path)).unwrap();
        store.keep("x", b"1").unwrap();
        assert!(Store::open(Some(&path)).is_err());
    }
}
