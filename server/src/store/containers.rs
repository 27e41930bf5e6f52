//! Containers: immutable files that hold contents too large for a row.
//!
//! An upload grows in `tmp/`, named by its handle. When it is complete and its hash is right it is synced
//! and renamed into `data/`, under the name that its row has carried from the beginning, and only then
//! does a row say so. A crash in between leaves a file that the row of the upload still names.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::StoreError;
use crate::config::Durability;

/// The containers of one replica.
#[derive(Clone, Debug)]
pub struct Containers {
    dir: PathBuf,
    durability: Durability,
    full: Arc<AtomicBool>,
}

impl Containers {
    /// Those below `dir`, the replica's own directory.
    pub fn new(dir: &Path, durability: Durability) -> Result<Containers, StoreError> {
        for sub in ["data", "tmp"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(StoreError::io(&path))?;
        }
        Ok(Containers { dir: dir.to_owned(), durability, full: Arc::default() })
    }

    /// A name from 128 random bits.
    pub fn name(random: [u64; 2]) -> String {
        format!("{:016x}{:016x}", random[0], random[1])
    }

    /// Where a container is.
    pub fn path(&self, name: &str) -> PathBuf {
        let (shard, rest) = name.split_at(name.len().min(2));
        self.dir.join("data").join(shard).join(rest)
    }

    /// Where an upload grows.
    pub(super) fn upload(&self, handle: &[u8; 16]) -> PathBuf {
        self.upload_path(handle)
    }

    fn upload_path(&self, handle: &[u8; 16]) -> PathBuf {
        self.dir.join("tmp").join(format!("{:032x}", u128::from_be_bytes(*handle)))
    }

    /// Takes no more, as on a full disk, or has room again; for simulated worlds.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// How many bytes of an upload are here.
    pub fn held(&self, handle: &[u8; 16]) -> Result<u64, StoreError> {
        let path = self.upload_path(handle);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(StoreError::io(&path)(error)),
        }
    }

    /// Adds a piece at `offset`, which is what `held` says.
    pub fn append(&self, handle: &[u8; 16], offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.upload_path(handle);
        let write = || {
            if self.full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.write_all_at(bytes, offset).inspect_err(|_| {
                // A piece that did not fit must not look as if it were held.
                let _ = file.set_len(offset);
            })?;
            self.begin_writing(&file, offset, bytes.len());
            Ok(())
        };
        write().map_err(StoreError::io(&path))
    }

    /// Adds `count` zero bytes at `offset`, which is what `held` says: a hole, where the disk knows holes.
    pub fn append_zeros(&self, handle: &[u8; 16], offset: u64, count: u64) -> Result<(), StoreError> {
        let path = self.upload_path(handle);
        let extend = || {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.set_len(offset + count)
        };
        extend().map_err(StoreError::io(&path))
    }

    /// The BLAKE3 of an upload as far as it is here.
    pub fn hash(&self, handle: &[u8; 16]) -> Result<[u8; 32], StoreError> {
        let path = self.upload_path(handle);
        let hash = || -> io::Result<[u8; 32]> {
            let mut hasher = blake3::Hasher::new();
            match File::open(&path) {
                Ok(file) => hasher.update_reader(file)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => &mut hasher,
                Err(error) => return Err(error),
            };
            Ok(*hasher.finalize().as_bytes())
        };
        hash().map_err(StoreError::io(&path))
    }

    /// Puts a complete upload in its place, durably.
    pub fn seal(&self, handle: &[u8; 16], name: &str) -> Result<(), StoreError> {
        self.settle(handle)?;
        self.place(handle, name)
    }

    /// The bytes of a complete upload survive power loss.
    pub fn settle(&self, handle: &[u8; 16]) -> Result<(), StoreError> {
        let path = self.upload_path(handle);
        // An empty upload has never been written to.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        file.and_then(|file| self.sync(&file)).map_err(StoreError::io(&path))
    }

    /// Moves a settled upload to its place, durably.
    pub fn place(&self, handle: &[u8; 16], name: &str) -> Result<(), StoreError> {
        let (from, to) = (self.upload_path(handle), self.path(name));
        let place = || {
            let shard = to.parent().expect("a container lies in a shard");
            if !shard.exists() {
                fs::create_dir_all(shard)?;
                self.sync(&File::open(self.dir.join("data"))?)?;
            }
            fs::rename(&from, &to)?;
            self.sync(&File::open(shard)?)
        };
        place().map_err(StoreError::io(&to))
    }

    /// Lets the disk begin, so that little is left to do when the upload is sealed.
    fn begin_writing(&self, file: &File, offset: u64, length: usize) {
        if let (Durability::Full, Ok(offset), Ok(length)) =
            (self.durability, i64::try_from(offset), i64::try_from(length))
        {
            // SAFETY: a plain system call on a descriptor that `file` keeps open. It is a hint: what counts is
            // the sync.
            unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        match self.durability {
            Durability::Full => file.sync_all(),
            Durability::Process => Ok(()),
        }
    }

    /// Whether nothing but a hole lies in these bytes.
    pub fn is_hole(&self, name: &str, offset: u64, length: u64) -> bool {
        let (Ok(file), Ok(at)) = (File::open(self.path(name)), i64::try_from(offset)) else { return false };
        let there = file.metadata().is_ok_and(|metadata| metadata.len() >= offset.saturating_add(length));
        // SAFETY: a plain system call on a descriptor that `file` keeps open.
        let data = unsafe { libc::lseek(file.as_raw_fd(), at, libc::SEEK_DATA) };
        let none = || io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO);
        there && if data < 0 { none() } else { data as u64 >= offset + length }
    }

    /// At most `length` bytes from `offset` on.
    pub fn read(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let path = self.path(name);
        let read = || {
            let file = File::open(&path)?;
            let there = file.metadata()?.len().saturating_sub(offset);
            let mut bytes = vec![0; length.min(usize::try_from(there).unwrap_or(usize::MAX))];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        };
        read().map_err(StoreError::io(&path))
    }

    /// Whether a container holds these bytes, all of them read.
    pub fn holds(&self, name: &str, length: u64, hash: &[u8]) -> bool {
        let mut hasher = blake3::Hasher::new();
        let read = File::open(self.path(name)).and_then(|file| hasher.update_reader(file).map(drop));
        read.is_ok() && hasher.count() == length && hasher.finalize().as_bytes()[..] == *hash
    }

    /// What changes when somebody writes into a container: nothing of ours does.
    pub fn stamp(&self, name: &str) -> Option<(u64, i64, i64)> {
        let found = fs::metadata(self.path(name)).ok()?;
        Some((found.ino(), found.ctime(), found.ctime_nsec()))
    }

    /// Puts a damaged container aside, for people to look at.
    pub fn set_aside(&self, name: &str) -> Result<(), StoreError> {
        let (from, aside) = (self.path(name), self.dir.join("damaged"));
        fs::create_dir_all(&aside).map_err(StoreError::io(&aside))?;
        match fs::rename(&from, aside.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(&from)(error)),
            _ => Ok(()),
        }
    }

    /// Removes a container. One that is not there is removed already.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        gone(&self.path(name))
    }

    /// Forgets what has been uploaded.
    pub fn abandon(&self, handle: &[u8; 16]) -> Result<(), StoreError> {
        gone(&self.upload_path(handle))
    }

    /// The handles of uploads in `tmp/`.
    pub fn uploads(&self) -> Result<Vec<[u8; 16]>, StoreError> {
        let path = self.dir.join("tmp");
        let mut handles = Vec::new();
        for entry in fs::read_dir(&path).map_err(StoreError::io(&path))? {
            let name = entry.map_err(StoreError::io(&path))?.file_name();
            if let Ok(handle) = u128::from_str_radix(&name.to_string_lossy(), 16) {
                handles.push(handle.to_be_bytes());
            }
        }
        handles.sort();
        Ok(handles)
    }
}

fn gone(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path)(error)),
        _ => Ok(()),
    }
}
