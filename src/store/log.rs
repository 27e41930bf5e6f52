//! The log: mutations for which some member has yet to answer.

use coda_proto::{Record, wire};
use prost::Message;

use super::{Result, Store, broken, malformed};

/// A logged mutation.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRow {
    /// Its place; grows.
    pub id: u64,
    /// The realm of its volume.
    pub realm: u32,
    /// One member must say yes before the others are asked.
    pub exclusive: bool,
    /// What is sent, always with the same dot.
    pub record: Record,
}

impl Store {
    /// All logged mutations, oldest first.
    pub fn log(&self) -> Result<Vec<LogRow>> {
        let mut ask = self
            .db
            .prepare_cached("SELECT id, realm, exclusive, record FROM log ORDER BY id")
            .map_err(broken)?;
        let rows = ask
            .query_map([], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, u32>(1)?,
                    row.get::<_, bool>(2)?,
                    row.get::<_, Vec<u8>>(3)?,
                ))
            })
            .map_err(broken)?;
        rows.map(|row| {
            let (id, realm, exclusive, record) = row.map_err(broken)?;
            let record = wire::Record::decode(&record[..]).map_err(malformed)?;
            Ok(LogRow { id: id as u64, realm, exclusive, record: record.try_into().map_err(malformed)? })
        })
        .collect()
    }

    /// The place of the last logged mutation, also of one long gone.
    pub fn last_logged(&self) -> Result<u64> {
        let last: Option<i64> = self
            .db
            .query_row("SELECT max(seq) FROM sqlite_sequence WHERE name = 'log'", [], |row| row.get(0))
            .map_err(broken)?;
        Ok(last.unwrap_or(0) as u64)
    }
}
