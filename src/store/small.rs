//! Realms' numbers and small values.

use coda_proto::{Author, VolumeId};
use rusqlite::{OptionalExtension, params};

use super::{Result, Store, broken};

impl Store {
    /// The number of a realm; a new one the first time.
    pub fn realm_number(&mut self, name: &str) -> Result<u32> {
        self.db
            .prepare_cached("INSERT OR IGNORE INTO realm (name) VALUES (?)")
            .and_then(|mut put| put.execute([name]))
            .map_err(broken)?;
        self.db
            .prepare_cached("SELECT number FROM realm WHERE name = ?")
            .and_then(|mut ask| ask.query_row([name], |row| row.get(0)))
            .map_err(broken)
    }

    /// All realms met, by number.
    pub fn realms(&self) -> Result<Vec<(u32, String)>> {
        let mut ask =
            self.db.prepare_cached("SELECT number, name FROM realm ORDER BY number").map_err(broken)?;
        let rows = ask.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(broken)?;
        rows.collect::<rusqlite::Result<_>>().map_err(broken)
    }

    /// Whether this store drew the author: what it wrote was written here.
    pub fn drew(&self, author: Author) -> Result<bool> {
        let mut ask = self.db.prepare_cached("SELECT 1 FROM author WHERE author = ?").map_err(broken)?;
        ask.exists([author.0 as i64]).map_err(broken)
    }

    /// The authors that this store drew for a volume and that are not known to be retired, and for whom; an earlier
    /// version of the program did not say.
    pub fn authors(&self, realm: u32, volume: VolumeId) -> Result<Vec<(Author, Option<u32>)>> {
        let mut ask = self
            .db
            .prepare_cached(
                "SELECT author, uid FROM author WHERE realm = ? AND volume = ?
                 AND author NOT IN (SELECT author FROM retired)",
            )
            .map_err(broken)?;
        let rows = ask
            .query_map(params![realm, volume.0], |row| {
                Ok((Author(row.get::<_, i64>(0)? as u64), row.get::<_, Option<u32>>(1)?))
            })
            .map_err(broken)?;
        rows.collect::<rusqlite::Result<_>>().map_err(broken)
    }

    /// Volumes of a realm, and users, for which authors were drawn that are not known to be retired.
    pub fn writers(&self, realm: u32) -> Result<Vec<(VolumeId, Option<u32>)>> {
        let mut ask = self
            .db
            .prepare_cached(
                "SELECT DISTINCT volume, uid FROM author WHERE realm = ?
                 AND author NOT IN (SELECT author FROM retired) ORDER BY volume, uid",
            )
            .map_err(broken)?;
        let rows = ask.query_map([realm], |row| Ok((VolumeId(row.get(0)?), row.get(1)?))).map_err(broken)?;
        rows.collect::<rusqlite::Result<_>>().map_err(broken)
    }

    /// Keeps a value.
    pub fn keep(&self, name: &str, value: &[u8]) -> Result<()> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO kept (name, value) VALUES (?, ?)")
            .and_then(|mut put| put.execute(params![name, value]))
            .map_err(broken)?;
        Ok(())
    }

    /// A kept value.
    pub fn kept(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.db
            .prepare_cached("SELECT value FROM kept WHERE name = ?")
            .and_then(|mut ask| ask.query_row([name], |row| row.get(0)).optional())
            .map_err(broken)
    }
}
