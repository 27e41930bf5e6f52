//! Open files: a server needs some for each of its volumes, and says so before it starts.

use std::{io, path::Path};

use anyhow::bail;

use crate::store::RealmStore;

/// For sockets, the log, the realm's database, containers that are being read.
const BASE: u64 = 64;
/// For a volume's writer and one reader: the database, its log, its index.
const PER_VOLUME: u64 = 6;

/// Asks for as many open files as the server may have, and makes sure that they are enough for its volumes.
pub fn make_room(dir: &Path) -> anyhow::Result<()> {
    let may = raise().map_err(|error| anyhow::anyhow!("the limit of open files: {error}"))?;
    let (own, realm) = RealmStore::look(dir)?.load()?;
    let volumes = realm.volumes.keys().filter(|id| realm.replica_at(**id, own).is_some()).count() as u64;
    let need = BASE + PER_VOLUME * volumes;
    match may >= need {
        true => Ok(()),
        false => bail!("{volumes} volumes need {need} open files, and {may} are allowed (ulimit -Hn)"),
    }
}

/// Raises the soft limit of open files to the hard one. Answers it.
pub fn raise() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid structure and keep nothing of it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}
