//! Changes: one transaction each, and what undoes them.

use std::sync::Arc;

use coda_proto::{Dot, Entry, Fid, Name};
use rusqlite::{Connection, params};

use super::{LogRow, Result, Row, Store, broken};
use crate::{fid::key, venus::face::ObjectId};

/// One step of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Writes an object's row.
    Put(ObjectId, Arc<Row>),
    /// Forgets an object and its entries.
    Drop(ObjectId),
    /// Writes a binding of a directory.
    Bind(ObjectId, Entry),
    /// Takes one away.
    Unbind(ObjectId, Name, Fid),
    /// Takes all of a directory away. Only for what can be fetched again: it is not undone.
    Clear(ObjectId),
    /// Appends to the log, or writes a record anew that is there.
    Log(LogRow),
    /// Takes a record off the log.
    Unlog(u64),
    /// Notes that members may have got these records.
    Sent(Vec<u64>),
    /// Lets what the log keeps in one container be kept in another.
    Recontain(u64, u64),
    /// Notes an author: of a realm's volume, for a local user.
    Author(u64, u32, u32, u32),
    /// Notes that the servers know an author to be retired.
    Retired(u64),
    /// What bound names as an author's record does so as that of another.
    Reissue {
        /// The former author.
        from: u64,
        /// The new one.
        to: u64,
        /// The number of the record.
        seq: u64,
    },
}

/// Steps of one transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// In order.
    pub edits: Vec<Edit>,
}

impl Change {
    /// A change of one step.
    pub fn of(edit: Edit) -> Change {
        Change { edits: vec![edit] }
    }

    /// Adds a step.
    pub fn push(&mut self, edit: Edit) {
        self.edits.push(edit);
    }

    /// What takes the objects and bindings back to what they are in `store` now.
    pub fn inverse(&self, store: &Store) -> Result<Change> {
        let mut inverse = Change::default();
        for edit in &self.edits {
            match edit {
                Edit::Put(id, _) | Edit::Drop(id) => inverse.push(match store.row(*id)? {
                    Some(row) => Edit::Put(*id, Arc::new(row)),
                    None => Edit::Drop(*id),
                }),
                Edit::Bind(dir, entry) => inverse.push(binding_now(store, *dir, &entry.name, entry.fid)?),
                Edit::Unbind(dir, name, fid) => inverse.push(binding_now(store, *dir, name, *fid)?),
                Edit::Clear(_)
                | Edit::Log(_)
                | Edit::Unlog(_)
                | Edit::Sent(_)
                | Edit::Recontain(..)
                | Edit::Author(..)
                | Edit::Retired(_)
                | Edit::Reissue { .. } => {}
            }
        }
        Ok(inverse)
    }
}

fn binding_now(store: &Store, dir: ObjectId, name: &[u8], fid: Fid) -> Result<Edit> {
    let now = store.named(dir, name)?.into_iter().find(|entry| entry.fid == fid);
    Ok(now.map_or(Edit::Unbind(dir, name.to_vec(), fid), |entry| Edit::Bind(dir, entry)))
}

impl Store {
    /// Makes all steps of a change, or none.
    pub fn apply(&mut self, change: &Change, tick: u64) -> Result<()> {
        // Kept compiled, like everything else that is said with every change.
        let say = |what: &str| self.db.prepare_cached(what)?.execute([]).map(drop);
        say("BEGIN").map_err(broken)?;
        let done =
            change.edits.iter().try_for_each(|edit| one(&self.db, edit, tick)).and_then(|()| say("COMMIT"));
        if done.is_err() && !self.db.is_autocommit() {
            // Where this fails, too, the next BEGIN does, and says so.
            let _ = say("ROLLBACK");
        }
        done.map_err(broken)
    }
}

fn one(tx: &Connection, edit: &Edit, tick: u64) -> rusqlite::Result<()> {
    match edit {
        Edit::Put(id, row) => put(tx, *id, row, tick)?,
        Edit::Drop(id) => {
            tx.prepare_cached("DELETE FROM object WHERE id = ?")?.execute([&key(*id)[..]])?;
            tx.prepare_cached("DELETE FROM entry WHERE dir = ?")?.execute([&key(*id)[..]])?;
            tx.prepare_cached("DELETE FROM sealed WHERE id = ?")?.execute([&key(*id)[..]])?;
        }
        Edit::Bind(dir, entry) => {
            let Dot { author, seq } = entry.dot;
            let child = key(ObjectId { realm: dir.realm, fid: entry.fid });
            tx.prepare_cached(
                "INSERT OR REPLACE INTO entry (dir, name, fid, kind, author, seq) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                &key(*dir)[..],
                entry.name,
                &child[..],
                i32::from(entry.kind),
                author.0 as i64,
                seq as i64
            ])?;
        }
        Edit::Unbind(dir, name, fid) => {
            let child = key(ObjectId { realm: dir.realm, fid: *fid });
            tx.prepare_cached("DELETE FROM entry WHERE dir = ? AND name = ? AND fid = ?")?
                .execute(params![&key(*dir)[..], name, &child[..]])?;
        }
        Edit::Clear(dir) => {
            tx.prepare_cached("DELETE FROM entry WHERE dir = ?")?.execute([&key(*dir)[..]])?;
        }
        Edit::Log(row) => super::log::put(tx, row)?,
        Edit::Unlog(id) => {
            tx.prepare_cached("DELETE FROM log WHERE id = ?")?.execute([*id as i64])?;
        }
        Edit::Sent(ids) => {
            let mut note = tx.prepare_cached("UPDATE log SET sent = 1 WHERE id = ?")?;
            for id in ids {
                note.execute([*id as i64])?;
            }
        }
        Edit::Recontain(from, to) => {
            tx.prepare_cached("UPDATE log SET container = ? WHERE container = ?")?
                .execute([*to as i64, *from as i64])?;
        }
        Edit::Author(author, realm, volume, uid) => {
            tx.prepare_cached("INSERT INTO author (author, realm, volume, uid) VALUES (?, ?, ?, ?)")?
                .execute(params![*author as i64, realm, volume, uid])?;
        }
        Edit::Retired(author) => {
            tx.prepare_cached("INSERT OR IGNORE INTO retired (author) VALUES (?)")?
                .execute([*author as i64])?;
        }
        Edit::Reissue { from, to, seq } => {
            tx.prepare_cached("UPDATE entry SET author = ? WHERE author = ? AND seq = ?")?.execute([
                *to as i64,
                *from as i64,
                *seq as i64,
            ])?;
        }
    }
    Ok(())
}

/// Writes an object's row. An index is written wherever one of its columns is named, changed or not: so only those are named
/// that change. When the object was used is noted by itself, where it was here before.
fn put(tx: &Connection, id: ObjectId, row: &Row, tick: u64) -> rusqlite::Result<()> {
    let parent = key(ObjectId { realm: id.realm, fid: row.status.parent });
    let container = row.data.map(|data| data.container as i64);
    let bytes = row.data.map_or(0, |data| data.length as i64);
    let (id, encoded) = (key(id), row.encode());
    let placed = params![&id[..], encoded, container, bytes, row.writing, &parent[..]];
    for same_place in [
        "UPDATE object SET row = ?2 WHERE id = ?1 AND container IS ?3 AND bytes = ?4 AND writing = ?5 AND parent = ?6",
        "UPDATE object SET row = ?2, container = ?3, bytes = ?4, writing = ?5 WHERE id = ?1 AND parent = ?6",
    ] {
        if tx.prepare_cached(same_place)?.execute(placed)? > 0 {
            return Ok(());
        }
    }
    tx.prepare_cached(
        "INSERT INTO object (id, row, container, bytes, writing, parent, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE SET row = excluded.row, container = excluded.container,
             bytes = excluded.bytes, writing = excluded.writing, parent = excluded.parent",
    )?
    .execute(params![&id[..], encoded, container, bytes, row.writing, &parent[..], tick as i64])?;
    Ok(())
}
