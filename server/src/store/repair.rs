//! What can be put right in a store that nobody serves, without asking anybody.
//!
//! Bytes that are not what their hash names are put aside as lost, and come from a peer when the server
//! meets one. What is counted is counted again. Files that no row names are removed. A replica whose database is
//! damaged is put aside, where others have the volume, and is filled anew. What is left after that only a peer can mend:
//! take the replica away.

use std::path::Path;

use coda_proto::{Fid, merge::Replica as _};
use rusqlite::params;

use super::{
    Bytes, Containers, RealmStore, Replica, StoreError, Txn, fsck,
    replica::replica_dir,
    rows::{fid, signed},
};
use crate::{config::Durability, quota};

/// What was put right, for people.
pub fn repair(dir: &Path, now: i64) -> Result<Vec<String>, StoreError> {
    let (own, realm) = RealmStore::look(dir)?.load()?;
    let mut done = Vec::new();
    for id in realm.volumes.keys() {
        let Some(member) = realm.replica_at(*id, own) else { continue };
        let path = replica_dir(dir, member.replica);
        if !path.join("meta.db").exists() {
            continue;
        }
        let mut say = |what: String| done.push(format!("replica {:08x}: {what}", member.replica));
        let replica = match Replica::open(dir, *id, member.replica, 0, Durability::Full, now) {
            Err(error) if error.is_damage() && realm.volumes[id].info.members.len() > 1 => {
                let away = dir.join("removed").join(format!("{:08x}-damaged-{now:x}", member.replica));
                std::fs::create_dir_all(dir.join("removed")).map_err(StoreError::io(&away))?;
                std::fs::rename(&path, &away).map_err(StoreError::io(&away))?;
                say(format!(
                    "its database is damaged ({error}): it is in {}, and is filled anew when the server runs",
                    away.display()
                ));
                continue;
            }
            Err(error) if error.is_damage() => {
                say(format!("its database is damaged ({error}), and no other server has it: restore a dump"));
                continue;
            }
            opened => opened?,
        };
        lose_damaged(&replica, &mut say)?;
        replica.write(
            |batch| batch.job(|txn| -> Result<(), StoreError> { count_again(txn, &mut say) }),
            || Ok(()),
        )?;
        replica.close();
        for name in fsck::unnamed(&path)? {
            Containers::new(&path, Durability::Full)?.remove(&name)?;
            say(format!("container {name}, which nothing named, is removed"));
        }
    }
    Ok(done)
}

/// Looks at all contents; those that are damaged are lost, until a peer has them.
fn lose_damaged(replica: &Replica, say: &mut dyn FnMut(String)) -> Result<(), StoreError> {
    let mut place = 0;
    loop {
        let rows = replica.read(|view| view.stored_after(place, 500))?;
        let Some(last) = rows.last() else { return Ok(()) };
        place = last.place;
        for row in rows {
            let container = match &row.bytes {
                Bytes::Inline(bytes) if blake3::hash(bytes).as_bytes()[..] == row.hash => continue,
                Bytes::Inline(_) => None,
                Bytes::Container(name) if replica.containers.holds(name, row.length, &row.hash) => continue,
                Bytes::Container(name) => Some(name.clone()),
            };
            let (hash, name) = (row.hash.clone(), container.clone());
            let mut lost = 0;
            replica.write(
                |batch| {
                    batch.job(|txn| -> Result<(), StoreError> {
                        lost = txn.lose(&hash, name.as_deref())?.len();
                        Ok(())
                    })
                },
                || Ok(()),
            )?;
            if let Some(name) = container.filter(|name| replica.containers.path(name).exists()) {
                replica.containers.set_aside(&name)?;
            }
            if row.place < 0 {
                say(format!("{} bytes that a file was before were damaged, and are forgotten", row.length));
            } else if lost > 0 {
                say(format!(
                    "{lost} contents of {} bytes were damaged, and are to come from a peer",
                    row.length
                ));
            }
        }
    }
}

/// Counts directories' entries and blocks in use anew.
fn count_again(txn: &mut Txn<'_>, say: &mut dyn FnMut(String)) -> Result<(), StoreError> {
    let volume = txn.volume;
    let all = {
        let mut query = txn.db.prepare("SELECT vnode, uniq, blocks FROM head")?;
        let rows =
            query.query_map([], |row| Ok((fid(volume, row.get(0)?, row.get(1)?), row.get::<_, u64>(2)?)))?;
        rows.collect::<Result<Vec<(Fid, u64)>, _>>()?
    };
    let (mut used, mut directories) = (0, 0);
    for (object, blocks) in all {
        let shown = object.is_root() || txn.is_shown(object)?;
        let right = match txn.head(object)? {
            Some(head) if shown => quota::blocks_of(&head),
            _ => 0,
        };
        used += right;
        if right != blocks {
            txn.db.execute(
                "UPDATE head SET blocks = ?3 WHERE vnode = ?1 AND uniq = ?2",
                params![object.vnode, signed(object.unique), right],
            )?;
        }
        if object.is_directory() {
            directories += txn.db.execute(
                "UPDATE directory SET (entries, directories) = (SELECT count(*), coalesce(sum(vnode % 2), 0) \
                 FROM binding WHERE dir_vnode = ?1 AND dir_uniq = ?2 AND shown) \
                 WHERE vnode = ?1 AND uniq = ?2 AND (entries, directories) <> (SELECT count(*), \
                 coalesce(sum(vnode % 2), 0) FROM binding WHERE dir_vnode = ?1 AND dir_uniq = ?2 AND shown)",
                params![object.vnode, signed(object.unique)],
            )?;
        }
    }
    if directories > 0 {
        say(format!("the entries of {directories} directories are counted again"));
    }
    if txn.set_used(used)? {
        say(format!("{used} blocks are in use"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use coda_proto::{Rights, ServerId, wire};

    use super::*;
    use crate::setup;

    fn store() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let server = wire::ServerInfo { id: 1, name: "a".into(), endpoints: Vec::new() };
        let realm = setup::realm("r", vec![server], Rights::ALL).unwrap();
        let root = *realm.volumes.keys().next().unwrap();
        let mount = setup::mount(root, "m", "home", 1);
        setup::create(dir.path(), ServerId(1), &realm, &[mount], Durability::Process, 0).unwrap();
        dir
    }

    #[test]
    fn a_sound_store_is_left_as_it_is() {
        let dir = store();
        assert_eq!(repair(dir.path(), 0).unwrap(), Vec::<String>::new());
        assert_eq!(fsck::check(dir.path()).unwrap(), []);
    }

    #[test]
    fn counts_that_are_wrong_and_files_that_nothing_names_are_put_right() {
        let dir = store();
        let replica = replica_dir(dir.path(), 0x0100_0001);
        let db = rusqlite::Connection::open(replica.join("meta.db")).unwrap();
        db.execute_batch(
            "UPDATE directory SET entries = 9; UPDATE head SET blocks = 77; UPDATE volume SET used = 1",
        )
        .unwrap();
        drop(db);
        fs::create_dir_all(replica.join("data/ab")).unwrap();
        fs::write(replica.join("data/ab/cd"), "nobody's").unwrap();
        assert!(fsck::check(dir.path()).unwrap().len() >= 3);
        let done = repair(dir.path(), 0).unwrap().join("\n");
        for what in ["container abcd", "the entries of 1 directories", "blocks are in use"] {
            assert!(done.contains(what), "{what} in\n{done}");
        }
        assert_eq!(fsck::check(dir.path()).unwrap(), []);
    }
}
