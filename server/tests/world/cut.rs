//! A disk that goes dead after so many calls. SQLite's files lie on it: every write, truncation, sync and
//! removal of a database file is one call. After the cut every further call fails, and what had not been synced
//! is as it was.
//!
//! It is a layer over SQLite's own files, the default one once [`Disk::new`] was called; files that are not
//! below a watched directory pass through it.

use std::{
    collections::BTreeMap,
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    fs,
    mem::size_of,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once},
};

use rusqlite::ffi::{
    self, SQLITE_IOERR_DELETE, SQLITE_IOERR_FSYNC, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE, SQLITE_OK,
    sqlite3_file, sqlite3_io_methods, sqlite3_vfs,
};

/// The databases below one directory.
pub struct Disk {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Calls that still work, when that is decided.
    left: Option<u64>,
    dead: bool,
    /// How to take back what was not synced, per file, oldest first.
    unsynced: BTreeMap<PathBuf, Vec<Before>>,
}

/// What a part of a file was, and how long the file.
struct Before {
    offset: u64,
    bytes: Vec<u8>,
    length: u64,
}

static WATCHED: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());

impl Disk {
    /// Watches the databases that are opened below `dir` from now on.
    pub fn new(dir: &Path) -> Arc<Disk> {
        static ONCE: Once = Once::new();
        ONCE.call_once(register);
        let disk = Arc::new(Disk { dir: dir.to_owned(), state: Mutex::default() });
        WATCHED.lock().unwrap().push(Arc::clone(&disk));
        disk
    }

    /// The power goes after so many more calls.
    pub fn cut_after(&self, calls: u64) {
        self.state.lock().unwrap().left = Some(calls);
    }

    /// Whether it went.
    pub fn is_dead(&self) -> bool {
        self.state.lock().unwrap().dead
    }

    /// Takes what was not synced out of a copy of the disk.
    pub fn lose_unsynced(&self, copy: &Path) {
        let state = self.state.lock().unwrap();
        for (path, before) in &state.unsynced {
            let path = copy.join(path.strip_prefix(&self.dir).unwrap());
            // Some files are gone by themselves.
            let Ok(file) = fs::OpenOptions::new().write(true).open(&path) else { continue };
            for before in before.iter().rev() {
                file.write_all_at(&before.bytes, before.offset).unwrap();
                file.set_len(before.length).unwrap();
            }
        }
    }

    /// Nobody watches any more.
    pub fn forget(&self) {
        WATCHED.lock().unwrap().retain(|disk| !std::ptr::eq(&**disk, self));
    }

    /// Whether a call still works.
    fn works(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        match state.left {
            Some(0) => state.dead = true,
            _ if state.dead => {}
            left => state.left = left.map(|left| left - 1),
        }
        !state.dead
    }

    fn keep(&self, path: &Path, before: Before) {
        self.state.lock().unwrap().unsynced.entry(path.to_owned()).or_default().push(before);
    }

    fn synced(&self, path: &Path) {
        self.state.lock().unwrap().unsynced.remove(path);
    }
}

fn watcher(path: &Path) -> Option<Arc<Disk>> {
    WATCHED.lock().unwrap().iter().find(|disk| path.starts_with(&disk.dir)).cloned()
}

/// A file of ours; SQLite's own lies behind it.
#[repr(C)]
struct File {
    base: sqlite3_file,
    about: *mut About,
}

struct About {
    path: PathBuf,
    disk: Option<Arc<Disk>>,
}

fn register() {
    // SAFETY: the default layer lives for ever, and so does the copy of it that is registered.
    unsafe {
        let below = ffi::sqlite3_vfs_find(std::ptr::null());
        let mut layer: sqlite3_vfs = std::ptr::read(below);
        layer.szOsFile += size_of::<File>() as c_int;
        layer.pNext = std::ptr::null_mut();
        layer.zName = c"cut".as_ptr();
        layer.pAppData = below.cast();
        layer.xOpen = Some(open);
        layer.xDelete = Some(delete);
        let layer = Box::leak(Box::new(layer));
        assert_eq!(ffi::sqlite3_vfs_register(layer, 1), SQLITE_OK);
    }
}

/// # Safety
/// `file` was opened by [`open`].
unsafe fn parts<'a>(file: *mut sqlite3_file) -> (&'a About, *mut sqlite3_file, &'a sqlite3_io_methods) {
    // SAFETY: `open` put both parts there, and they live until `close`.
    unsafe {
        let real = file.cast::<u8>().add(size_of::<File>()).cast::<sqlite3_file>();
        (&*(*file.cast::<File>()).about, real, &*(*real).pMethods)
    }
}

fn path_of(name: *const c_char) -> PathBuf {
    match name.is_null() {
        true => PathBuf::new(),
        // SAFETY: SQLite's names end with NUL.
        false => PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())),
    }
}

unsafe extern "C" fn open(
    layer: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives as much room as `szOsFile` says.
    unsafe {
        let below = (*layer).pAppData.cast::<sqlite3_vfs>();
        let real = file.cast::<u8>().add(size_of::<File>()).cast::<sqlite3_file>();
        (*file).pMethods = std::ptr::null();
        let status = (*below).xOpen.unwrap()(below, name, real, flags, out);
        if status == SQLITE_OK {
            let path = path_of(name);
            let disk = watcher(&path);
            (*file.cast::<File>()).about = Box::into_raw(Box::new(About { path, disk }));
            (*file).pMethods = &METHODS;
        }
        status
    }
}

unsafe extern "C" fn delete(layer: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let path = path_of(name);
    if watcher(&path).is_some_and(|disk| !disk.works()) {
        return SQLITE_IOERR_DELETE;
    }
    // SAFETY: the arguments are SQLite's own.
    unsafe {
        let below = (*layer).pAppData.cast::<sqlite3_vfs>();
        (*below).xDelete.unwrap()(below, name, sync)
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: nobody uses the file after this.
    unsafe {
        let (_, real, methods) = parts(file);
        let status = methods.xClose.unwrap()(real);
        drop(Box::from_raw((*file.cast::<File>()).about));
        status
    }
}

/// What is at `offset` now, as far as the file goes.
unsafe fn before(file: *mut sqlite3_file, offset: i64, amount: i64) -> Before {
    // SAFETY: the buffer is as long as is said.
    unsafe {
        let (_, real, methods) = parts(file);
        let mut length = 0;
        assert_eq!(methods.xFileSize.unwrap()(real, &mut length), SQLITE_OK);
        let mut bytes = vec![0; (length - offset).clamp(0, amount) as usize];
        if !bytes.is_empty() {
            let read = methods.xRead.unwrap()(real, bytes.as_mut_ptr().cast(), bytes.len() as c_int, offset);
            assert_eq!(read, SQLITE_OK);
        }
        Before { offset: offset as u64, bytes, length: length as u64 }
    }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, amount: c_int, at: i64) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe {
        let (about, real, methods) = parts(file);
        if let Some(disk) = &about.disk {
            if !disk.works() {
                return SQLITE_IOERR_WRITE;
            }
            disk.keep(&about.path, before(file, at, amount.into()));
        }
        methods.xWrite.unwrap()(real, from, amount, at)
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe {
        let (about, real, methods) = parts(file);
        if let Some(disk) = &about.disk {
            if !disk.works() {
                return SQLITE_IOERR_TRUNCATE;
            }
            disk.keep(&about.path, before(file, size, i64::MAX));
        }
        methods.xTruncate.unwrap()(real, size)
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe {
        let (about, real, methods) = parts(file);
        if let Some(disk) = &about.disk {
            if !disk.works() {
                return SQLITE_IOERR_FSYNC;
            }
            disk.synced(&about.path);
            // The cut is only played: what is under this directory need not wait for a real disk.
            return SQLITE_OK;
        }
        methods.xSync.unwrap()(real, flags)
    }
}

/// Methods that only pass on.
macro_rules! pass {
    ($($name:ident = $method:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $($arg: $kind),*) -> $answer {
            // SAFETY: the arguments are SQLite's own.
            unsafe {
                let (_, real, methods) = parts(file);
                methods.$method.unwrap()(real, $($arg),*)
            }
        }
    )*};
}

pass! {
    read = xRead(to: *mut c_void, amount: c_int, at: i64) -> c_int;
    file_size = xFileSize(size: *mut i64) -> c_int;
    lock = xLock(level: c_int) -> c_int;
    unlock = xUnlock(level: c_int) -> c_int;
    check_lock = xCheckReservedLock(out: *mut c_int) -> c_int;
    control = xFileControl(op: c_int, arg: *mut c_void) -> c_int;
    sector_size = xSectorSize() -> c_int;
    shm_map = xShmMap(page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int;
    shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier = xShmBarrier() -> ();
    shm_unmap = xShmUnmap(delete: c_int) -> c_int;
}

/// No promise about what a cut leaves of a write: SQLite is to be as careful as it can.
unsafe extern "C" fn characteristics(_: *mut sqlite3_file) -> c_int {
    0
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
