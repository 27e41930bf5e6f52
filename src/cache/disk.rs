//! Containers in a directory of the disk.
//!
//! ```text
//!  DIR/00 … DIR/ff    containers, by the low byte of their names
//!  DIR/free           emptied files, to be used again: making and unlinking files in masses slows ext4
//!  SPOOL              what could not be sent, under names for people
//! ```
//!
//! Every file is opened relative to DIR, which is held open and is ours alone. Nothing is opened through a symbolic
//! link.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::env::{Container, Containers};

/// Emptied files kept, at most.
const FREE_LIMIT: usize = 8192;
const SHARDS: u64 = 256;

/// A directory of containers.
pub struct DiskContainers {
    held: OwnedFd,
    free: Mutex<Vec<u64>>,
    next_free: AtomicU64,
    dir: PathBuf,
    spool: PathBuf,
}

struct DiskContainer(File);

impl DiskContainers {
    /// Opens the containers under `dir`, and makes what is missing. What cannot be sent goes to `spool`.
    pub fn open(dir: &Path, spool: &Path) -> io::Result<DiskContainers> {
        fs::create_dir_all(dir)?;
        fs::create_dir_all(spool)?;
        for private in [dir, spool] {
            fs::set_permissions(private, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        }
        for shard in 0..SHARDS {
            open_dir(&dir.join(format!("{shard:02x}")))?;
        }
        let free_path = dir.join("free");
        open_dir(&free_path)?;
        let mut free = Vec::new();
        for entry in fs::read_dir(&free_path)? {
            free.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        let next_free = AtomicU64::new(free.iter().max().map_or(0, |last| last + 1));
        Ok(DiskContainers {
            held: open_dir(dir)?,
            free: Mutex::new(free),
            next_free,
            dir: dir.to_owned(),
            spool: spool.to_owned(),
        })
    }

    fn open_at(&self, name: u64, flags: i32) -> io::Result<File> {
        let path = place(name);
        // SAFETY: a valid directory descriptor and a NUL-terminated name.
        let fd = unsafe {
            libc::openat(
                self.held.as_raw_fd(),
                path.as_ptr(),
                flags | libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC,
                0o600,
            )
        };
        // SAFETY: the descriptor is new and ours.
        check(fd).map(|fd| unsafe { File::from_raw_fd(fd) })
    }

    /// Moves a container out of here, on the same disk; what has that name there stays.
    fn move_to(&self, name: u64, path: &Path) -> io::Result<()> {
        let (from, to) = (place(name), CString::new(path.as_os_str().as_bytes())?);
        self.open_at(name, 0)?.sync_all()?;
        // SAFETY: a valid directory descriptor and two NUL-terminated names.
        check(unsafe {
            libc::renameat2(
                self.held.as_raw_fd(),
                from.as_ptr(),
                libc::AT_FDCWD,
                to.as_ptr(),
                libc::RENAME_NOREPLACE,
            )
        })?;
        File::from(open_dir(&self.spool)?).sync_all()
    }

    /// Gives a container an emptied file; answers whether there was one.
    fn recycle(&self, name: u64) -> bool {
        let free = self.free.lock().expect("no holder panics").pop();
        free.is_some_and(|free| rename(&self.held, &kept(free), &place(name)).is_ok())
    }
}

/// The bytes of a container below `dir`, for whoever looks into a cache that nobody runs on.
pub fn read(dir: &Path, name: u64) -> io::Result<Vec<u8>> {
    fs::read(dir.join(format!("{:02x}", name % SHARDS)).join(name.to_string()))
}

/// The names of all containers below `dir`.
pub fn names(dir: &Path) -> io::Result<Vec<u64>> {
    let mut names = Vec::new();
    for shard in 0..SHARDS {
        for entry in fs::read_dir(dir.join(format!("{shard:02x}")))? {
            names.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Where a container is, below DIR.
fn place(name: u64) -> CString {
    CString::new(format!("{:02x}/{name}", name % SHARDS)).expect("digits hold no NUL")
}

/// Where an emptied file is, below DIR.
fn kept(number: u64) -> CString {
    CString::new(format!("free/{number}")).expect("digits hold no NUL")
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn rename(dir: &OwnedFd, from: &CString, to: &CString) -> io::Result<()> {
    let fd = dir.as_raw_fd();
    // SAFETY: a valid directory descriptor and NUL-terminated names.
    check(unsafe { libc::renameat(fd, from.as_ptr(), fd, to.as_ptr()) }).map(drop)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let dir = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    Ok(dir.into())
}

fn clone_or_copy(from: &File, to: &File) -> io::Result<()> {
    const FICLONE: libc::c_ulong = 0x4004_9409;
    // SAFETY: both descriptors are open; FICLONE takes a descriptor by value.
    if unsafe { libc::ioctl(to.as_raw_fd(), FICLONE, from.as_raw_fd()) } == 0 {
        return Ok(());
    }
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let read = from.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..read], offset)?;
        offset += read as u64;
    }
}

impl Containers for DiskContainers {
    fn create(&self, name: u64) -> io::Result<Arc<dyn Container>> {
        self.recycle(name);
        let file = self.open_at(name, libc::O_CREAT | libc::O_TRUNC)?;
        Ok(Arc::new(DiskContainer(file)))
    }

    fn open(&self, name: u64) -> io::Result<Arc<dyn Container>> {
        Ok(Arc::new(DiskContainer(self.open_at(name, 0)?)))
    }

    fn copy(&self, from: u64, to: u64) -> io::Result<Arc<dyn Container>> {
        let source = self.open_at(from, 0)?;
        self.recycle(to);
        let target = self.open_at(to, libc::O_CREAT | libc::O_TRUNC)?;
        clone_or_copy(&source, &target)?;
        Ok(Arc::new(DiskContainer(target)))
    }

    fn remove(&self, name: u64) -> io::Result<()> {
        let mut free = self.free.lock().expect("no holder panics");
        let done = if free.len() < FREE_LIMIT {
            let number = self.next_free.fetch_add(1, Ordering::Relaxed);
            let emptied = self.open_at(name, 0).and_then(|file| {
                // A file that somebody still has open keeps its bytes for them.
                let in_use = file.metadata()?.nlink() != 1;
                if in_use { Err(io::Error::other("linked")) } else { file.set_len(0) }
            });
            emptied
                .and_then(|()| rename(&self.held, &place(name), &kept(number)))
                .inspect(|()| free.push(number))
        } else {
            let path = place(name);
            // SAFETY: a valid directory descriptor and a NUL-terminated name.
            check(unsafe { libc::unlinkat(self.held.as_raw_fd(), path.as_ptr(), 0) }).map(drop)
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn list(&self) -> io::Result<Vec<u64>> {
        names(&self.dir)
    }

    fn spool(&self, name: u64, label: &str) -> io::Result<String> {
        let label: String = label
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
            .collect();
        let path = self.spool.join(format!("{name}-{label}"));
        // Moved where that is possible: that needs no room on a disk that may be full.
        if self.move_to(name, &path).is_err() {
            let source = self.open_at(name, 0)?;
            let target = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            if let Err(error) = clone_or_copy(&source, &target).and_then(|()| target.sync_all()) {
                let _ = fs::remove_file(&path);
                return Err(error);
            }
            self.remove(name)?;
        }
        Ok(path.display().to_string())
    }

    fn spooled(&self) -> io::Result<(String, u64)> {
        let mut count = 0;
        for file in fs::read_dir(&self.spool)? {
            let file = file?;
            // Whole caches that somebody wanted to be kept lie here, too.
            count +=
                u64::from(is_spooled(&file.file_name().to_string_lossy()) && file.file_type()?.is_file());
        }
        Ok((self.spool.display().to_string(), count))
    }

    fn free(&self) -> io::Result<u64> {
        let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: a valid descriptor, and a buffer of the right size that is read only after success.
        check(unsafe { libc::fstatvfs(self.held.as_raw_fd(), stat.as_mut_ptr()) })?;
        // SAFETY: fstatvfs filled it.
        let stat = unsafe { stat.assume_init() };
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

/// Whether a file has a name of those that `spool` gives.
fn is_spooled(name: &str) -> bool {
    name.split_once('-').is_some_and(|(number, _)| number.parse::<u64>().is_ok())
}

impl Container for DiskContainer {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn snapshot(&self) -> io::Result<(u64, i64, i64)> {
        let now = self.0.metadata()?;
        let nanoseconds =
            |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Ok((
            now.len(),
            nanoseconds(now.mtime(), now.mtime_nsec()),
            nanoseconds(now.ctime(), now.ctime_nsec()),
        ))
    }

    fn file(&self) -> Option<&File> {
        Some(&self.0)
    }

    fn next_data(&self, offset: u64) -> io::Result<u64> {
        let at = i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        // SAFETY: a plain system call on a descriptor that we keep open. It moves the position of the
        // descriptor, which nothing uses.
        let found = unsafe { libc::lseek(self.0.as_raw_fd(), at, libc::SEEK_DATA) };
        match u64::try_from(found) {
            Ok(found) => Ok(found),
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => self.length(),
            // It knows no holes.
            Err(_) => Ok(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_told_from_data() {
        let dir = tempfile::tempdir().unwrap();
        let containers = DiskContainers::open(&dir.path().join("c"), &dir.path().join("s")).unwrap();
        let sparse = containers.create(1).unwrap();
        sparse.set_length(16 << 20).unwrap();
        assert_eq!(sparse.next_data(0).unwrap(), 16 << 20);
        sparse.write_at(8 << 20, b"data").unwrap();
        assert_eq!(sparse.next_data(0).unwrap(), 8 << 20);
        assert_eq!(sparse.next_data((8 << 20) + 1).unwrap(), (8 << 20) + 1);
        assert_eq!(sparse.next_data(9 << 20).unwrap(), 16 << 20);
    }

    #[test]
    fn containers_hold_are_recycled_and_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = || DiskContainers::open(&dir.path().join("c"), &dir.path().join("s")).unwrap();
        let containers = open();
        containers.create(7).unwrap().write_at(0, b"seven").unwrap();
        let copy = containers.copy(7, 300).unwrap();
        copy.write_at(0, b"S").unwrap();
        let mut bytes = [0; 9];
        assert_eq!(containers.open(7).unwrap().read_at(0, &mut bytes).unwrap(), 5);
        assert_eq!(&bytes[..5], b"seven");
        containers.remove(7).unwrap();
        containers.remove(7).unwrap();
        assert!(containers.open(7).is_err());
        drop(containers);
        let containers = open();
        assert_eq!(containers.list().unwrap(), vec![300]);
        let recycled = containers.create(8).unwrap();
        assert_eq!(recycled.length().unwrap(), 0);
        let place = containers.spool(300, "home/notes: a").unwrap();
        assert!(place.ends_with("300-home_notes__a"), "{place}");
        assert_eq!(fs::read(place).unwrap(), b"Seven");
        assert_eq!(containers.list().unwrap(), vec![8]);
    }

    #[test]
    fn what_goes_to_the_spool_is_moved_where_it_can_be_and_else_copied() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        for spool in [dir.path().join("s"), elsewhere.path().join("s")] {
            let containers = DiskContainers::open(&dir.path().join("c"), &spool).unwrap();
            containers.create(7).unwrap().write_at(0, b"seven").unwrap();
            let from = fs::metadata(dir.path().join("c/07/7")).unwrap();
            let to = containers.spool(7, "f").unwrap();
            assert_eq!(fs::read(&to).unwrap(), b"seven");
            // On one disk it takes no more room than before: that disk may be full.
            let same_disk = from.dev() == fs::metadata(&spool).unwrap().dev();
            assert_eq!(fs::metadata(&to).unwrap().ino() == from.ino(), same_disk);
            assert!(containers.list().unwrap().is_empty());
            // Others may put something beside it.
            fs::create_dir(spool.join("archive-1")).unwrap();
            assert_eq!(containers.spooled().unwrap(), (spool.display().to_string(), 1));
        }
    }
}
