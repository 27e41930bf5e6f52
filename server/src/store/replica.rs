//! One volume replica on disk: its database and its containers.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use coda_proto::{
    Acl, Fid, Kind, VolumeId,
    merge::{Head, Replica as _},
    planted::{Bug, planted},
};
use rusqlite::{Connection, TransactionBehavior, params};

use super::{Containers, StoreError, Txn, View, rows::signed, schema, tables};
use crate::config::Durability;

/// A replica that is being served.
pub struct Replica {
    /// The volume.
    pub volume: VolumeId,
    /// Its containers.
    pub containers: Containers,
    database: PathBuf,
    writer: Mutex<Option<Connection>>,
    readers: Mutex<Vec<Connection>>,
}

/// What a new replica is.
#[derive(Clone, Debug)]
pub struct NewReplica {
    /// The volume.
    pub volume: VolumeId,
    /// This replica's own number.
    pub replica: u32,
    /// Of the root directory. The same at every member of a new volume.
    pub acl: Acl,
    /// The volume has history: the root is a runt, and nothing is served before its peers were met.
    pub joining: bool,
}

/// Where replica `replica` of the store at `dir` is.
pub fn replica_dir(dir: &Path, replica: u32) -> PathBuf {
    dir.join("vol").join(format!("{replica:08x}"))
}

/// Whether a server ever kept replicas in `dir`.
pub fn has_replicas(dir: &Path) -> bool {
    let Ok(mut found) = fs::read_dir(dir.join("vol")) else { return false };
    found.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir()))
}

/// Takes a replica that is not served any more out of the way, for ever or to be looked at.
pub fn put_away(dir: &Path, replica: u32, tag: u64, for_ever: bool) -> Result<(), StoreError> {
    let path = replica_dir(dir, replica);
    let aside = dir.join("removed");
    fs::create_dir_all(&aside).map_err(StoreError::io(&aside))?;
    let aside = aside.join(format!("{replica:08x}-{tag:016x}"));
    match fs::rename(&path, &aside) {
        Ok(()) if for_ever => fs::remove_dir_all(&aside).map_err(StoreError::io(&aside)),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(&path)(error)),
        _ => Ok(()),
    }
}

/// Room on a disk, in blocks of 1 KiB.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Left for an ordinary user.
    pub free: u64,
    /// In all.
    pub size: u64,
}

/// How long an upload waits for its Store, in nanoseconds.
const UPLOADS_LAST: i64 = 7 * 24 * 3600 * 1_000_000_000;

/// Readers kept open between reads.
const IDLE_READERS: usize = 8;

impl Replica {
    /// Makes a replica that is not there. One that is keeps what it has.
    pub fn create(dir: &Path, new: &NewReplica, durability: Durability, now: i64) -> Result<(), StoreError> {
        let path = replica_dir(dir, new.replica);
        // What is in a volume is not for everybody on this machine.
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(&path).map_err(StoreError::io(&path))?;
        let mut db = schema::open(&path.join("meta.db"), &tables::REPLICA, durability)?;
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let made = transaction.execute(
            "INSERT OR IGNORE INTO volume VALUES (1, ?1, ?2, 0, 0, 0, ?3, ?4, '', '')",
            params![new.volume.0, new.replica, now, !new.joining],
        )?;
        if made == 1 {
            let mut txn = Txn::new(&transaction, new.volume)?;
            txn.put_head(match new.joining {
                true => Head::runt(Fid::root(new.volume), Kind::Directory),
                false => Head::root(new.volume, &new.acl, 0o755, 0),
            })?;
            txn.settle()?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Opens a replica that `create` made. Its incarnation becomes the server's.
    pub fn open(
        dir: &Path,
        volume: VolumeId,
        replica: u32,
        incarnation: u64,
        durability: Durability,
        now: i64,
    ) -> Result<Replica, StoreError> {
        let path = replica_dir(dir, replica);
        let database = path.join("meta.db");
        if !database.exists() {
            return Err(StoreError::Missing(path));
        }
        let mut db = schema::open(&database, &tables::REPLICA, durability)?;
        begin_incarnation(&mut db, incarnation)?;
        let containers = Containers::new(&path, durability)?;
        let replica = Replica {
            volume,
            containers,
            database,
            writer: Mutex::new(Some(db)),
            readers: Mutex::new(Vec::new()),
        };
        replica.read(|view| view.volume_row())?;
        replica.expire_uploads(now)?;
        replica.tidy()?;
        Ok(replica)
    }

    /// Forgets uploads that nobody stored in a week.
    fn expire_uploads(&self, now: i64) -> Result<(), StoreError> {
        let before = now.saturating_sub(UPLOADS_LAST);
        self.write(|batch| batch.job(|txn| txn.expire_uploads(before)), || Ok(()))
    }

    /// Removes what a crash left: pieces of uploads that no row names, and sealed ones whose row does not
    /// say so (they are sent again).
    fn tidy(&self) -> Result<(), StoreError> {
        self.read(|view| {
            for handle in self.containers.uploads()? {
                if view.upload(&handle)?.is_none() {
                    self.containers.abandon(&handle)?;
                }
            }
            let mut query = view.db.prepare("SELECT container FROM upload WHERE NOT complete")?;
            for container in query.query_map([], |row| row.get::<_, String>(0))? {
                self.containers.remove(&container?)?;
            }
            Ok(())
        })
    }

    /// Reads one consistent state.
    pub fn read<T>(&self, f: impl FnOnce(&View<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.readers.lock().expect("never held across a panic").pop();
        let db = match idle {
            Some(db) => db,
            None => schema::open_for_reading(&self.database)?,
        };
        schema::run(&db, "BEGIN DEFERRED")?;
        let answer = f(&View { db: &db, volume: self.volume });
        schema::run(&db, "COMMIT")?;
        let mut readers = self.readers.lock().expect("never held across a panic");
        if readers.len() < IDLE_READERS {
            readers.push(db);
        }
        answer
    }

    /// Runs `batch` within one transaction and commits it. Each job of the batch goes through
    /// [`Batch::job`]. `before_commit` may call the whole batch off.
    pub fn write(
        &self,
        batch: impl FnOnce(&mut Batch<'_>) -> Result<(), StoreError>,
        before_commit: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let db = writer.as_ref().ok_or(StoreError::Stopped)?;
        if planted(Bug::RepliesBeforeCommit) && !db.is_autocommit() {
            schema::run(db, "COMMIT")?;
        }
        let undone = Undone { db };
        schema::run(db, "BEGIN IMMEDIATE")?;
        batch(&mut Batch { db, volume: self.volume })?;
        before_commit()?;
        if planted(Bug::RepliesBeforeCommit) {
            std::mem::forget(undone);
            return Ok(());
        }
        schema::run(db, "COMMIT")?;
        drop(undone);
        Ok(())
    }

    /// Writes one consistent state of the database to a file that is not there yet.
    pub(super) fn snapshot(&self, to: &Path) -> Result<(), StoreError> {
        let db = schema::open_for_reading(&self.database)?;
        db.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
        Ok(())
    }

    /// Closes the database; later writes are refused.
    pub fn close(&self) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.readers.lock().expect("never held across a panic").clear();
    }

    /// Takes no more, as on a full disk, or has room again; for simulated worlds.
    pub fn set_full(&self, full: bool) -> Result<(), StoreError> {
        self.containers.set_full(full);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = writer.as_ref() else { return Ok(()) };
        // No limit is below what the database has already.
        let pages = if full { 1 } else { u32::MAX - 1 };
        Ok(db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?)
    }

    /// Room on the disk, in blocks of 1 KiB.
    pub fn space(&self) -> Result<Space, StoreError> {
        let path = std::ffi::CString::new(self.database.as_os_str().as_bytes())
            .map_err(|error| StoreError::io(&self.database)(error.into()))?;
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the path ends with NUL and the buffer is as large as the call expects.
        let found = unsafe {
            match libc::statvfs(path.as_ptr(), found.as_mut_ptr()) {
                0 => found.assume_init(),
                _ => return Err(StoreError::io(&self.database)(std::io::Error::last_os_error())),
            }
        };
        let blocks = |count: u64| count.saturating_mul(found.f_frsize) / 1024;
        Ok(Space { free: blocks(found.f_bavail), size: blocks(found.f_blocks) })
    }

    /// Containers that wait to be removed.
    pub fn garbage(&self, limit: u32) -> Result<Vec<String>, StoreError> {
        self.read(|view| {
            let mut query = view.db.prepare_cached(
                "SELECT container FROM garbage WHERE NOT EXISTS \
                 (SELECT 1 FROM content WHERE content.container = garbage.container) AND NOT EXISTS \
                 (SELECT 1 FROM former WHERE former.container = garbage.container) LIMIT ?1",
            )?;
            let names = query.query_map([limit], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(names)
        })
    }
}

/// Notes how far the store came in its last run, and begins a new one. Peers that remember a run which is
/// not noted here, or more of one than is noted, have met a store of which this is an old copy.
fn begin_incarnation(db: &mut Connection, incarnation: u64) -> Result<(), StoreError> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT OR REPLACE INTO incarnation SELECT incarnation, change_seq FROM volume WHERE incarnation <> 0",
        [],
    )?;
    transaction.execute("UPDATE volume SET incarnation = ?1", [signed(incarnation)])?;
    transaction.commit()?;
    Ok(())
}

/// Rolls back what was not committed, also after a panic.
struct Undone<'c> {
    db: &'c Connection,
}

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        if !self.db.is_autocommit() {
            // Where this fails, too, the next BEGIN does, and says so.
            let _ = schema::run(self.db, "ROLLBACK");
        }
    }
}

/// Jobs that commit together.
pub struct Batch<'t> {
    db: &'t Connection,
    volume: VolumeId,
}

impl Batch<'_> {
    /// Runs one job in a savepoint: what it changed stays if it succeeds, and is undone if it refuses.
    pub fn job<T, E: From<StoreError>>(
        &mut self,
        f: impl FnOnce(&mut Txn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let sql = |sql| schema::run(self.db, sql);
        sql("SAVEPOINT job")?;
        let run = || {
            let mut txn = Txn::new(self.db, self.volume)?;
            let answer = f(&mut txn)?;
            txn.settle()?;
            Ok(answer)
        };
        let answer = run();
        if answer.is_err() {
            sql("ROLLBACK TO job")?;
        }
        sql("RELEASE job")?;
        answer
    }
}
