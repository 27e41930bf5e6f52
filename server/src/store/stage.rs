//! A replica that is being made aside: a clone of one that is here, or one filled from a dump.
//!
//! ```text
//!  <dir>/stage/<token>/vol/00000000/…   grows here, named by nothing
//!           │ commit: it gets its volume and number, and is renamed
//!           v
//!  <dir>/vol/<replica>/…                 before the realm's configuration names it
//! ```
//!
//! A start forgets every stage. A crash between the renaming and the configuration leaves a replica that
//! no volume names, and the next one of that number takes its place.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use coda_proto::{
    Acl, Dot, Fid, INLINE_LIMIT, Kind, Malformed, VolumeId,
    merge::{self, ObjectState, Replica as _},
};

use super::{Bytes, Containers, Content, NewReplica, Replica, StoreError, replica_dir, schema, tables};
use crate::config::Durability;

/// The volume that a stage's objects belong to until it is committed. Rows do not say of which volume
/// they are.
pub const NOWHERE: VolumeId = VolumeId(0x7f00_0000);

/// How often a clone is tried while its source changes underneath.
const TRIES: u32 = 5;

/// A replica being made.
pub struct Stage {
    dir: PathBuf,
    replica: Replica,
    durability: Durability,
    /// Siblings whose bytes are not here, by their hash.
    wanted: BTreeMap<[u8; 32], Vec<(Fid, Dot, u64)>>,
}

fn stage_dir(dir: &Path, token: u128) -> PathBuf {
    dir.join("stage").join(format!("{token:032x}"))
}

/// Forgets every stage.
pub fn clear_stages(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("stage");
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(&path)(error)),
        _ => Ok(()),
    }
}

impl Stage {
    /// Begins empty.
    pub fn empty(dir: &Path, token: u128, durability: Durability, now: i64) -> Result<Stage, StoreError> {
        let own = stage_dir(dir, token);
        let new = NewReplica { volume: NOWHERE, replica: 0, acl: Acl::default(), joining: true };
        Replica::create(&own, &new, durability, now)?;
        Stage::open(own, durability, now)
    }

    /// Begins as what `source` holds now. Containers are never written to, and therefore shared.
    pub fn clone_of(
        dir: &Path,
        token: u128,
        source: &Replica,
        durability: Durability,
        now: i64,
    ) -> Result<Stage, StoreError> {
        let own = stage_dir(dir, token);
        let path = replica_dir(&own, 0);
        let mut tries = 0;
        loop {
            tries += 1;
            match copy(source, &path) {
                Ok(()) => return Stage::open(own, durability, now),
                // A container that the copy names was replaced and collected meanwhile.
                Err(StoreError::Io { .. }) if tries < TRIES => {
                    fs::remove_dir_all(&own).map_err(StoreError::io(&own))?;
                }
                Err(error) => {
                    let _ = fs::remove_dir_all(&own);
                    return Err(error);
                }
            }
        }
    }

    fn open(dir: PathBuf, durability: Durability, now: i64) -> Result<Stage, StoreError> {
        let replica = Replica::open(&dir, NOWHERE, 0, 0, durability, now)?;
        Ok(Stage { dir, replica, durability, wanted: BTreeMap::new() })
    }

    /// Adds objects, of whichever volume they were.
    pub fn put_objects(&mut self, objects: Vec<ObjectState>) -> Result<(), StoreError> {
        let objects: Vec<ObjectState> = objects.into_iter().map(moved).collect();
        let fids: Vec<Fid> = objects.iter().map(|state| state.head.fid).collect();
        let wanted = &mut self.wanted;
        self.replica.write(
            |batch| {
                batch.job(|txn| -> Result<(), StoreError> {
                    merge::join_objects(txn, objects)?;
                    for fid in fids {
                        let Some(head) = txn.head(fid)?.filter(|head| head.kind == Kind::File) else {
                            continue;
                        };
                        for sibling in head.siblings {
                            if txn.content(fid, sibling.dot)?.is_some() {
                                continue;
                            }
                            match txn.content_by_hash(&sibling.hash)? {
                                Some(content) => txn.put_content(fid, sibling.dot, &content)?,
                                None => wanted.entry(sibling.hash).or_default().push((
                                    fid,
                                    sibling.dot,
                                    sibling.length,
                                )),
                            }
                        }
                    }
                    Ok(())
                })
            },
            || Ok(()),
        )
    }

    /// Adds a piece of contents. Answers how much of them is here; pieces come in order.
    pub fn put_content(
        &mut self,
        hash: [u8; 32],
        length: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, StoreError> {
        let handle: [u8; 16] = hash[..16].try_into().expect("sixteen of thirty-two bytes");
        let containers = &self.replica.containers;
        let held = containers.held(&handle)?;
        let end = offset.saturating_add(bytes.len() as u64);
        if !self.wanted.contains_key(&hash) {
            return Ok(length);
        }
        if offset != held || end > length {
            return Ok(held);
        }
        if !bytes.is_empty() {
            containers.append(&handle, offset, bytes)?;
        }
        if end < length {
            return Ok(end);
        }
        if containers.hash(&handle)? != hash {
            containers.abandon(&handle)?;
            return Err(Malformed::new("contents", "not the bytes that their hash names").into());
        }
        let stored = match length <= INLINE_LIMIT as u64 {
            true => {
                let path = containers.upload(&handle);
                let bytes = match length {
                    0 => Vec::new(),
                    _ => fs::read(&path).map_err(StoreError::io(&path))?,
                };
                containers.abandon(&handle)?;
                Bytes::Inline(bytes)
            }
            false => {
                let name: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
                containers.seal(&handle, &name)?;
                Bytes::Container(name)
            }
        };
        let owners = self.wanted.remove(&hash).unwrap_or_default();
        let name_them = |txn: &mut super::Txn<'_>| -> Result<(), StoreError> {
            for (fid, dot, length) in owners {
                let current = txn.head(fid)?.is_some_and(|head| head.siblings.iter().any(|s| s.dot == dot));
                if current && txn.content(fid, dot)?.is_none() {
                    let content = Content { length, hash: hash.to_vec(), bytes: stored.clone() };
                    txn.put_content(fid, dot, &content)?;
                }
            }
            Ok(())
        };
        self.replica.write(|batch| batch.job(name_them), || Ok(()))?;
        Ok(length)
    }

    /// What is not here and would be missed: contents of files that show.
    pub fn missing(&self) -> Result<Vec<Fid>, StoreError> {
        self.replica.read(|view| {
            let mut missing = Vec::new();
            for (fid, dot, length) in self.wanted.values().flatten() {
                let current =
                    view.head(*fid)?.is_some_and(|head| head.siblings.iter().any(|s| s.dot == *dot));
                if *length > 0 && current && view.is_shown(*fid)? {
                    missing.push(*fid);
                }
            }
            missing.sort();
            missing.dedup();
            Ok(missing)
        })
    }

    /// The list of the root directory, which the volume's description repeats.
    pub fn root_acl(&self) -> Result<Option<Acl>, StoreError> {
        self.replica.read(|view| Ok(view.head(Fid::root(NOWHERE))?.map(|head| head.acl())))
    }

    /// It becomes a replica of `volume`, at its place.
    pub fn commit(self, dir: &Path, volume: VolumeId, replica: u32) -> Result<(), StoreError> {
        self.replica.close();
        let from = replica_dir(&self.dir, 0);
        let db = schema::open(&from.join("meta.db"), &tables::REPLICA, self.durability)?;
        db.execute(
            "UPDATE volume SET id = ?1, replica = ?2, joined = 1, incarnation = 0",
            rusqlite::params![volume.0, replica],
        )?;
        // What is in the log belongs to the file before it is renamed.
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        drop(db);
        let to = replica_dir(dir, replica);
        let parent = to.parent().expect("a replica lies in a directory");
        fs::create_dir_all(parent).map_err(StoreError::io(parent))?;
        if to.exists() {
            fs::remove_dir_all(&to).map_err(StoreError::io(&to))?;
        }
        fs::rename(&from, &to).map_err(StoreError::io(&to))?;
        if self.durability == Durability::Full {
            fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(StoreError::io(parent))?;
        }
        let _ = fs::remove_dir_all(&self.dir);
        Ok(())
    }

    /// It is wanted no more.
    pub fn abandon(self) {
        self.replica.close();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The database as one snapshot, and links to the containers that it names.
fn copy(source: &Replica, to: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(to).map_err(StoreError::io(to))?;
    let database = to.join("meta.db");
    source.snapshot(&database)?;
    let db = schema::open(&database, &tables::REPLICA, Durability::Process)?;
    // Whom the source met, and what was on its way to it, is not the clone's.
    db.execute_batch("DELETE FROM peer; DELETE FROM incarnation; DELETE FROM upload; DELETE FROM garbage")?;
    // Nor is what its files were before, or what removed ones held.
    db.execute_batch(
        "DELETE FROM former; DELETE FROM seen; UPDATE kept SET bytes = 0, remains = 0; \
         DELETE FROM content WHERE EXISTS (SELECT 1 FROM remains \
            WHERE remains.vnode = content.vnode AND remains.uniq = content.uniq) AND NOT EXISTS \
         (SELECT 1 FROM binding WHERE binding.vnode = content.vnode AND binding.uniq = content.uniq); \
         DELETE FROM remains",
    )?;
    let containers = Containers::new(to, Durability::Process)?;
    let mut query = db.prepare("SELECT DISTINCT container FROM content WHERE container IS NOT NULL")?;
    for name in query.query_map([], |row| row.get::<_, String>(0))? {
        let name = name?;
        let (from, path) = (source.containers.path(&name), containers.path(&name));
        let shard = path.parent().expect("a container lies in a shard");
        fs::create_dir_all(shard).map_err(StoreError::io(shard))?;
        fs::hard_link(&from, &path).map_err(StoreError::io(&from))?;
    }
    Ok(())
}

/// The same object, of the volume of stages.
fn moved(mut state: ObjectState) -> ObjectState {
    let here = |fid: Fid| Fid { volume: NOWHERE, ..fid };
    state.head.fid = here(state.head.fid);
    for binding in &mut state.bindings {
        (binding.dir, binding.fid) = (here(binding.dir), here(binding.fid));
    }
    for tombstone in &mut state.tombstones {
        (tombstone.dir, tombstone.fid) = (here(tombstone.dir), here(tombstone.fid));
    }
    state
}

#[cfg(test)]
mod tests {
    use coda_proto::merge::Head;

    use super::*;

    const VOLUME: VolumeId = VolumeId(0x7f00_0009);

    fn file(number: u32, bytes: &[u8]) -> (ObjectState, [u8; 32]) {
        let fid = Fid::file(VOLUME, coda_proto::Author(5), number);
        let dot = Dot::new(coda_proto::Author(5), 1);
        let hash = *blake3::hash(bytes).as_bytes();
        let mut head = Head::runt(fid, Kind::File);
        head.past = coda_proto::Past::of(dot);
        head.siblings = vec![coda_proto::Sibling {
            dot,
            length: bytes.len() as u64,
            hash,
            mtime: 0,
            host: String::new(),
        }];
        let binding = merge::Binding {
            dir: Fid::root(VOLUME),
            name: b"f".to_vec(),
            fid,
            origin: dot,
            dots: [(dot, 3)].into(),
            derived: false,
            shown: false,
        };
        (ObjectState { head, bindings: vec![binding], tombstones: Vec::new() }, hash)
    }

    fn root() -> ObjectState {
        let head = Head::root(VOLUME, &Acl::root(coda_proto::Rights::ALL), 0o755, 0);
        ObjectState::of_rows(head, Vec::new(), Vec::new())
    }

    #[test]
    fn a_stage_is_filled_and_becomes_a_replica() {
        let dir = tempfile::tempdir().unwrap();
        for (number, length) in [(1, 5), (2, INLINE_LIMIT + 1)] {
            let bytes = vec![7; length];
            let mut stage = Stage::empty(dir.path(), 1, Durability::Process, 0).unwrap();
            let (state, hash) = file(number, &bytes);
            stage.put_objects(vec![root(), state]).unwrap();
            assert_eq!(stage.missing().unwrap().len(), 1);
            // A piece that is sent twice is known; one that is wrong is refused.
            assert_eq!(stage.put_content(hash, length as u64, 0, &bytes[..3]).unwrap(), 3);
            assert_eq!(stage.put_content(hash, length as u64, 0, &bytes[..3]).unwrap(), 3);
            assert_eq!(stage.put_content(hash, length as u64, 3, &bytes[3..]).unwrap(), length as u64);
            assert!(stage.missing().unwrap().is_empty());
            stage.commit(dir.path(), VOLUME, 0x0100_0000 + number).unwrap();
            let id = 0x0100_0000 + number;
            let replica = Replica::open(dir.path(), VOLUME, id, 9, Durability::Process, 0).unwrap();
            let fid = Fid::file(VOLUME, coda_proto::Author(5), number);
            let held = replica.read(|view| view.content(fid, Dot::new(coda_proto::Author(5), 1))).unwrap();
            assert_eq!(held.unwrap().hash, hash);
            let copy = Stage::clone_of(dir.path(), 2, &replica, Durability::Process, 0).unwrap();
            copy.commit(dir.path(), VolumeId(0x7f00_0010), 0x0100_0100 + number).unwrap();
        }
        assert!(std::fs::read_dir(dir.path().join("stage")).unwrap().next().is_none());
    }

    #[test]
    fn contents_that_are_not_their_hashs_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut stage = Stage::empty(dir.path(), 1, Durability::Process, 0).unwrap();
        let (state, hash) = file(1, b"right");
        stage.put_objects(vec![root(), state]).unwrap();
        assert!(stage.put_content(hash, 5, 0, b"wrong").is_err());
        assert_eq!(stage.missing().unwrap().len(), 1);
        assert_eq!(stage.put_content(hash, 5, 0, b"right").unwrap(), 5);
    }

    #[test]
    fn a_stage_that_was_not_committed_is_forgotten_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut stage = Stage::empty(dir.path(), 1, Durability::Process, 0).unwrap();
        stage.put_objects(vec![root()]).unwrap();
        drop(stage);
        clear_stages(dir.path()).unwrap();
        assert!(!dir.path().join("stage").exists());
        assert!(!dir.path().join("vol").exists());
    }
}
