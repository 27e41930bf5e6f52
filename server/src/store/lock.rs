//! One server per store.

use std::{
    fs::{File, OpenOptions},
    os::fd::AsRawFd,
    path::Path,
};

use super::StoreError;

/// Held for as long as a server uses its store. The kernel releases it when the process dies.
#[derive(Debug)]
pub struct StoreLock(#[allow(dead_code)] File);

impl StoreLock {
    /// Takes the lock of `dir`, or says who else has it.
    pub fn take(dir: &Path) -> Result<StoreLock, StoreError> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(StoreError::io(&path))?;
        // SAFETY: the descriptor belongs to `file`, which outlives the call.
        match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
            0 => Ok(StoreLock(file)),
            _ => Err(StoreError::InUse(dir.to_owned())),
        }
    }
}
