//! Databases and their versions: a newer one is refused untouched, an older one is copied, then migrated.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::StoreError;
use crate::config::Durability;

/// The tables of one kind of database.
pub struct Schema {
    /// Marks the file as ours.
    pub application: i32,
    /// What `create` makes.
    pub version: i64,
    /// The tables as they are now.
    pub create: &'static str,
    /// `steps[i]` turns version `i + 1` into `i + 2`.
    pub steps: &'static [&'static str],
}

/// Opens `path` for writing, creating or migrating it where needed.
pub fn open(path: &Path, schema: &Schema, durability: Durability) -> Result<Connection, StoreError> {
    let found = match path.exists() {
        true => version_of(path)?,
        false => 0,
    };
    if found > schema.version {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: schema.version });
    }
    let mut connection = Connection::open(path)?;
    set_up(&connection, durability)?;
    if found == schema.version {
        return Ok(connection);
    }
    if found > 0 {
        copy_aside(&connection, path, found)?;
    }
    let transaction = connection.transaction()?;
    match found {
        0 => transaction.execute_batch(schema.create)?,
        found => {
            for step in &schema.steps[found as usize - 1..] {
                transaction.execute_batch(step)?;
            }
        }
    }
    transaction.pragma_update(None, "application_id", schema.application)?;
    transaction.pragma_update(None, "user_version", schema.version)?;
    transaction.commit()?;
    Ok(connection)
}

/// Brings an existing database up to date where it is of an earlier version.
pub fn migrate(path: &Path, schema: &Schema) -> Result<(), StoreError> {
    if version_of(path)? < schema.version {
        open(path, schema, Durability::Full)?;
    }
    Ok(())
}

/// Opens an existing database for reading only.
pub fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    compile_once(&connection, 256)?;
    Ok(connection)
}

/// Statements are kept, and never compiled again for other values: the plans do not look at them.
fn compile_once(connection: &Connection, statements: usize) -> Result<(), StoreError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(statements);
    Ok(())
}

/// Runs a statement that answers nothing. It is kept compiled, which pays for `BEGIN` and its like.
pub fn run(connection: &Connection, statement: &str) -> Result<(), StoreError> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}

/// Pages that gather in the write-ahead log before they are written into the database: that waits for the disk.
const GATHERED: i64 = 4000;
/// Memory for the pages of one database: negative, so in KiB.
const CACHE: i64 = -16384;
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

fn set_up(connection: &Connection, durability: Durability) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Process => "OFF",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", GATHERED)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    compile_once(connection, 256)
}

fn version_of(path: &Path) -> Result<i64, StoreError> {
    let connection = open_for_reading(path)?;
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn copy_aside(connection: &Connection, path: &Path, version: i64) -> Result<(), StoreError> {
    let copy = PathBuf::from(format!("{}.v{version}", path.display()));
    if !copy.exists() {
        connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Schema =
        Schema { application: 7, version: 1, create: "CREATE TABLE a(x INTEGER) STRICT", steps: &[] };
    const TWO: Schema = Schema {
        application: 7,
        version: 2,
        create: "CREATE TABLE a(x INTEGER, y INTEGER) STRICT",
        steps: &["ALTER TABLE a ADD COLUMN y INTEGER"],
    };

    #[test]
    fn an_older_database_is_copied_and_then_migrated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        open(&path, &ONE, Durability::Full).unwrap().execute("INSERT INTO a VALUES (5)", []).unwrap();
        let connection = open(&path, &TWO, Durability::Full).unwrap();
        let row = connection.query_row("SELECT x, y FROM a", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
        });
        assert_eq!(row.unwrap(), (5, None));
        assert_eq!(version_of(&dir.path().join("a.db.v1")).unwrap(), 1);
    }

    #[test]
    fn a_newer_database_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        drop(open(&path, &TWO, Durability::Full).unwrap());
        let before = std::fs::read(&path).unwrap();
        let refused = open(&path, &ONE, Durability::Full).err().map(|error| error.to_string());
        assert!(refused.unwrap().contains("schema version is 2"));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
