//! A bare FUSE mirror of a directory: what FUSE itself costs, with nothing of ours behind it. Files are passed
//! through to the kernel where that is allowed, as `venus` does.

use std::{
    collections::HashMap,
    ffi::{CString, OsStr, OsString},
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::{Duration, SystemTime},
};

use fuser::{
    BackgroundSession, BackingId, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

const TTL: Duration = Duration::from_secs(3600);

/// Mounts a mirror of `source` at `at`. Dropping the session unmounts it.
pub fn mount(source: &Path, at: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("mirror".into()), MountOption::NoSuid, MountOption::NoDev];
    config.n_threads = Some(std::thread::available_parallelism().map_or(2, |n| n.get().min(4)));
    config.clone_fd = true;
    fuser::spawn_mount(Mirror::new(source), at, &config)
}

struct Mirror {
    nodes: Mutex<Nodes>,
    opens: Mutex<Opens>,
}

/// Inode numbers are the disk's own; each remembers one path.
struct Nodes {
    paths: HashMap<u64, PathBuf>,
    root: u64,
}

#[derive(Default)]
struct Opens {
    last: u64,
    files: HashMap<u64, Open>,
    dirs: HashMap<u64, Arc<Vec<(OsString, PathBuf)>>>,
    backing: HashMap<u64, Weak<BackingId>>,
}

struct Open {
    file: Arc<File>,
    /// Keeps the kernel's backing file while this is open.
    _backing: Option<Arc<BackingId>>,
}

impl Mirror {
    fn new(source: &Path) -> Mirror {
        let root = fs::metadata(source).map_or(1, |meta| meta.ino());
        let nodes = Nodes { paths: HashMap::from([(root, source.to_owned())]), root };
        Mirror { nodes: Mutex::new(nodes), opens: Mutex::default() }
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().expect("no holder panics")
    }

    fn opens(&self) -> MutexGuard<'_, Opens> {
        self.opens.lock().expect("no holder panics")
    }

    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        let nodes = self.nodes();
        let real = if ino == INodeNo::ROOT { nodes.root } else { ino.0 };
        nodes.paths.get(&real).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// Attributes of a path, which is remembered as its inode's.
    fn attr(&self, path: &Path) -> io::Result<FileAttr> {
        let meta = path.symlink_metadata()?;
        let mut nodes = self.nodes();
        let ino = if meta.ino() == nodes.root { 1 } else { meta.ino() };
        nodes.paths.insert(meta.ino(), path.to_owned());
        Ok(attr(ino, &meta))
    }

    /// Keeps an open file; passes it through where the kernel agrees.
    fn keep(
        &self,
        ino: u64,
        file: File,
        back: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> (u64, Option<Arc<BackingId>>) {
        let mut opens = self.opens();
        opens.last += 1;
        let handle = opens.last;
        let backing = match opens.backing.get(&ino).and_then(Weak::upgrade) {
            Some(shared) => Some(shared),
            None => back(&file).ok().map(Arc::new),
        };
        if let Some(backing) = &backing {
            opens.backing.insert(ino, Arc::downgrade(backing));
        }
        opens.files.insert(handle, Open { file: Arc::new(file), _backing: backing.clone() });
        (handle, backing)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        let found = self.opens().files.get(&handle.0).map(|open| Arc::clone(&open.file));
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn list(&self, ino: INodeNo) -> io::Result<u64> {
        let dir = self.path(ino)?;
        let mut lines = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            lines.push((entry.file_name(), entry.path()));
        }
        let mut opens = self.opens();
        opens.last += 1;
        let handle = opens.last;
        opens.dirs.insert(handle, Arc::new(lines));
        Ok(handle)
    }

    fn lines(&self, handle: FileHandle) -> Arc<Vec<(OsString, PathBuf)>> {
        self.opens().dirs.get(&handle.0).cloned().unwrap_or_default()
    }
}

fn attr(ino: u64, meta: &fs::Metadata) -> FileAttr {
    let time = |at: io::Result<SystemTime>| at.unwrap_or(SystemTime::UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(ino),
        size: meta.len(),
        blocks: meta.blocks(),
        atime: time(meta.accessed()),
        mtime: time(meta.modified()),
        ctime: time(meta.modified()),
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::from_std(meta.file_type()).unwrap_or(FileType::RegularFile),
        perm: (meta.mode() & 0o777) as u16,
        nlink: meta.nlink() as u32,
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

fn options(flags: i32) -> OpenOptions {
    let mut options = OpenOptions::new();
    let mode = flags & libc::O_ACCMODE;
    options.read(mode != libc::O_WRONLY).write(mode != libc::O_RDONLY);
    options.custom_flags(flags & (libc::O_TRUNC | libc::O_APPEND) | libc::O_NOFOLLOW);
    options
}

macro_rules! answer {
    ($reply:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return $reply.error(errno(error)),
        }
    };
}

impl Filesystem for Mirror {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            InitFlags::FUSE_PASSTHROUGH,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            // An older kernel lacks some; the mirror works without.
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_stack_depth(1);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let attr = answer!(reply, self.child(parent, name).and_then(|path| self.attr(&path)));
        reply.entry(&TTL, &attr, Generation(0));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let attr = answer!(reply, self.path(ino).and_then(|path| self.attr(&path)));
        reply.attr(&TTL, &attr);
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let path = answer!(reply, self.path(ino));
        if let Some(mode) = mode {
            answer!(reply, fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o777)));
        }
        if let Some(size) = size {
            answer!(reply, OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(size)));
        }
        if let Some(TimeOrNow::SpecificTime(time)) = mtime
            && path.symlink_metadata().is_ok_and(|meta| meta.is_file())
        {
            answer!(reply, File::open(&path).and_then(|file| file.set_modified(time)));
        }
        let attr = answer!(reply, self.attr(&path));
        reply.attr(&TTL, &attr);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let target = answer!(reply, self.path(ino).and_then(fs::read_link));
        reply.data(target.as_os_str().as_bytes());
    }

    fn mkdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let path = answer!(reply, self.child(parent, name));
        answer!(reply, fs::DirBuilder::new().mode(mode & !umask).create(&path));
        let attr = answer!(reply, self.attr(&path));
        reply.entry(&TTL, &attr, Generation(0));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.child(parent, name).and_then(fs::remove_file));
        reply.ok();
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.child(parent, name).and_then(fs::remove_dir));
        reply.ok();
    }

    fn symlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let path = answer!(reply, self.child(parent, name));
        answer!(reply, std::os::unix::fs::symlink(target, &path));
        let attr = answer!(reply, self.attr(&path));
        reply.entry(&TTL, &attr, Generation(0));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) =
            (answer!(reply, self.child(parent, name)), answer!(reply, self.child(newparent, newname)));
        answer!(reply, fs::rename(&from, &to));
        answer!(reply, self.attr(&to));
        reply.ok();
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (from, to) = (answer!(reply, self.path(ino)), answer!(reply, self.child(newparent, newname)));
        answer!(reply, fs::hard_link(from, &to));
        let attr = answer!(reply, self.attr(&to));
        reply.entry(&TTL, &attr, Generation(0));
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let path = answer!(reply, self.path(ino));
        let file = answer!(reply, options(flags.0).open(path));
        let (handle, backing) = self.keep(ino.0, file, |file| reply.open_backing(file));
        match backing {
            Some(backing) => reply.opened_passthrough(FileHandle(handle), FopenFlags::empty(), &backing),
            None => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let path = answer!(reply, self.child(parent, name));
        let exclusive = flags & libc::O_EXCL;
        let mut how = options(flags);
        how.create(true).mode(mode & !umask).write(true);
        how.custom_flags(flags & (libc::O_TRUNC | libc::O_APPEND) | libc::O_NOFOLLOW | exclusive);
        let file = answer!(reply, how.open(&path));
        let attr = answer!(reply, self.attr(&path));
        let (handle, backing) = self.keep(attr.ino.0, file, |file| reply.open_backing(file));
        match backing {
            Some(backing) => reply.created_passthrough(
                &TTL,
                &attr,
                Generation(0),
                FileHandle(handle),
                FopenFlags::empty(),
                &backing,
            ),
            None => reply.created(&TTL, &attr, Generation(0), FileHandle(handle), FopenFlags::empty()),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buffer = vec![0; size as usize];
        let length = answer!(reply, self.file(fh).and_then(|file| file.read_at(&mut buffer, offset)));
        reply.data(&buffer[..length]);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.file(fh).and_then(|file| file.write_all_at(data, offset)));
        reply.written(data.len() as u32);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer!(reply, self.file(fh).and_then(|file| file.sync_all()));
        reply.ok();
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let file = answer!(reply, self.file(fh));
        // SAFETY: the descriptor is open for as long as `file` lives; no memory is passed.
        let status = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, length as i64) };
        answer!(reply, if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) });
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let mut opens = self.opens();
        let open = opens.files.remove(&fh.0);
        drop(open);
        if opens.backing.get(&ino.0).is_some_and(|backing| backing.strong_count() == 0) {
            opens.backing.remove(&ino.0);
        }
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let handle = answer!(reply, self.list(ino));
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_CACHE_DIR);
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let lines = self.lines(fh);
        for (at, (name, path)) in lines.iter().enumerate().skip(offset as usize) {
            let Ok(attr) = self.attr(path) else { continue };
            if reply.add(attr.ino, at as u64 + 1, attr.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let lines = self.lines(fh);
        for (at, (name, path)) in lines.iter().enumerate().skip(offset as usize) {
            let Ok(attr) = self.attr(path) else { continue };
            if reply.add(attr.ino, at as u64 + 1, name, &TTL, &attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.opens().dirs.remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let path = answer!(reply, self.path(ino));
        let path = CString::new(path.as_os_str().as_bytes()).expect("a path of the kernel has no NUL");
        // SAFETY: `space` is plain numbers; the call fills it or fails.
        let (status, space) = unsafe {
            let mut space: libc::statvfs = std::mem::zeroed();
            (libc::statvfs(path.as_ptr(), &mut space), space)
        };
        answer!(reply, if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) });
        reply.statfs(
            space.f_blocks,
            space.f_bfree,
            space.f_bavail,
            space.f_files,
            space.f_ffree,
            space.f_bsize as u32,
            255,
            0,
        );
    }
}
