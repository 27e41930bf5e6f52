//! Open files: reading and writing their containers where the kernel does not do it by itself.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::{Arc, RwLock},
};

use crate::{env::Container, venus::face::Opened};

/// Longest piece copied by one request: what the kernel asks beyond it, it asks again.
const COPY_AT_ONCE: u64 = 16 << 20;

/// One open of a file.
#[derive(Clone)]
pub struct OpenFile {
    /// The inode it was opened under.
    pub ino: u64,
    /// The manager's side of it.
    pub opened: Opened,
    /// What it writes is stored at flush.
    pub writes: bool,
}

/// All open files, by handle.
#[derive(Default)]
pub struct OpenFiles {
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
}

impl OpenFiles {
    /// Remembers an open.
    pub fn insert(&self, file: OpenFile) {
        let mut files = self.files.write().expect("no panic while the files are locked");
        files.insert(file.opened.handle, Arc::new(file));
    }

    /// An open file.
    pub fn get(&self, handle: u64) -> Option<Arc<OpenFile>> {
        self.files.read().expect("no panic while the files are locked").get(&handle).cloned()
    }

    /// Forgets an open.
    pub fn remove(&self, handle: u64) -> Option<Arc<OpenFile>> {
        self.files.write().expect("no panic while the files are locked").remove(&handle)
    }
}

/// Fills `buffer` from `offset`, short only at the end of the file.
pub fn read(container: &dyn Container, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match container.read_at(offset + done as u64, &mut buffer[done..])? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Makes room or holes, as `fallocate` does.
pub fn allocate(container: &dyn Container, offset: u64, length: u64, mode: i32) -> io::Result<()> {
    match container.file() {
        Some(file) => {
            let (offset, length) = (signed(offset)?, signed(length)?);
            // SAFETY: a plain system call on a descriptor that `file` keeps open.
            check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) })
        }
        None if mode == 0 => {
            let end = offset.checked_add(length).ok_or_else(too_far)?;
            if container.length()? < end { container.set_length(end) } else { Ok(()) }
        }
        None if mode == libc::FALLOC_FL_KEEP_SIZE => Ok(()),
        None => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
    }
}

/// Finds the next hole or data, as `lseek` does.
pub fn seek(container: &dyn Container, offset: i64, whence: i32) -> io::Result<i64> {
    if let Some(file) = container.file() {
        // SAFETY: a plain system call on a descriptor that `file` keeps open. It moves the position of the
        // descriptor, which nothing uses: all reads and writes name their offset.
        let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
        return if found < 0 { Err(io::Error::last_os_error()) } else { Ok(found) };
    }
    let length = signed(container.length()?)?;
    match whence {
        _ if offset < 0 || offset >= length => Err(io::Error::from_raw_os_error(libc::ENXIO)),
        libc::SEEK_DATA => Ok(offset),
        libc::SEEK_HOLE => Ok(length),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Copies up to `length` bytes; answers how many.
pub fn copy(from: (&dyn Container, u64), to: (&dyn Container, u64), length: u64) -> io::Result<u32> {
    let length = length.min(COPY_AT_ONCE);
    if let (Some(source), Some(target)) = (from.0.file(), to.0.file()) {
        match copy_in_kernel((source, from.1), (target, to.1), length) {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EXDEV | libc::ENOSYS | libc::EOPNOTSUPP)) => {}
            done => return done,
        }
    }
    let mut buffer = vec![0; usize::try_from(length).expect("at most COPY_AT_ONCE")];
    let count = read(from.0, from.1, &mut buffer)?;
    to.0.write_at(to.1, &buffer[..count])?;
    Ok(u32::try_from(count).expect("at most COPY_AT_ONCE"))
}

fn copy_in_kernel(from: (&File, u64), to: (&File, u64), length: u64) -> io::Result<u32> {
    let (mut read_at, mut write_at) = (signed(from.1)?, signed(to.1)?);
    let (source, target) = (from.0.as_raw_fd(), to.0.as_raw_fd());
    let length = usize::try_from(length).expect("at most COPY_AT_ONCE");
    // SAFETY: both descriptors are kept open by their files, both offsets live through the call.
    let done = unsafe { libc::copy_file_range(source, &mut read_at, target, &mut write_at, length, 0) };
    u32::try_from(done).map_err(|_| io::Error::last_os_error())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn signed(number: u64) -> io::Result<i64> {
    i64::try_from(number).map_err(|_| too_far())
}

fn too_far() -> io::Error {
    io::Error::from_raw_os_error(libc::EFBIG)
}
