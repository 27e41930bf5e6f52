//! The desk: what all requests share, and how their answers are written.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use fuser::{
    BackingId, Errno, FileAttr, FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate,
    ReplyEntry,
};
use futures::FutureExt;
use tokio::{runtime::Handle, sync::mpsc::UnboundedSender};

use super::{
    attr,
    directory::OpenDirs,
    errno::errno,
    file::{OpenFile, OpenFiles},
    inode::{Grant, Inodes, Way},
    meter::Meter,
    notifier::Waves,
};
use crate::{
    error::Error,
    venus::face::{Attr, Caller, Face, Forget, ObjectId, OpenMode, Opened},
};

/// Files above this size are opened so that the kernel reads the container by itself; below it the page
/// cache is quicker.
const PASSTHROUGH_ABOVE: u64 = 64 << 10;

/// How often, and after what time, it is looked whether a file that was closed is released.
const RELEASE_LOOKS: u32 = 20;
const RELEASE_WAIT: Duration = Duration::from_millis(5);

/// Names live this long where the kernel cannot be told to look all of them up again.
const WITHOUT_EPOCHS: Duration = Duration::from_secs(1);

/// A change during an open repeats it; more often than this it is given up.
pub const OPEN_ATTEMPTS: usize = 3;

/// What all requests share.
pub struct Desk<F> {
    /// The manager.
    pub face: Arc<F>,
    /// Where waiting requests go.
    pub runtime: Handle,
    /// Numbers of objects.
    pub inodes: Arc<Inodes>,
    /// Open files.
    pub files: OpenFiles,
    /// Open directories.
    pub dirs: OpenDirs,
    /// Waves of forgetting.
    pub waves: Arc<Waves>,
    /// The adapter's own word to the notifier.
    pub forgets: UnboundedSender<Forget>,
    /// One user only sees the mount, so what was shown to one may be shown again.
    pub one_user: bool,
    /// The kernel may use containers by itself.
    pub passthrough: AtomicBool,
    /// The kernel knows epochs.
    pub epochs: AtomicBool,
    /// The fallback is told once.
    pub fallback: Once,
    /// How long requests take.
    pub meter: Arc<Meter>,
}

fn panicked() {
    tracing::error!("a request panicked and was answered EIO");
}

impl<F: Face> Desk<F> {
    /// Runs what needs no waiting. A panic drops the reply, which answers EIO.
    pub fn guarded(&self, work: impl FnOnce()) {
        let _metered = self.meter.begin();
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            panicked();
        }
    }

    /// Runs a request: at once if it can be answered from the cache, else as a task.
    ///
    /// The first poll happens on the thread that read the request, because an answer from another thread
    /// costs as much as the whole round trip. A panic drops the reply, which answers EIO.
    pub fn run<R>(self: &Arc<Self>, request: impl FnOnce(Arc<Self>) -> R)
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let metered = self.meter.begin();
        let mut request = Box::pin(AssertUnwindSafe(request(self.clone())).catch_unwind());
        let _inside = self.runtime.enter();
        match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => panicked(),
            Poll::Pending => {
                self.runtime.spawn(async move {
                    if request.await.is_err() {
                        panicked();
                    }
                    drop(metered);
                });
            }
        }
    }

    /// What a request about a name in a directory is about.
    pub fn named(&self, dir: INodeNo, name: &OsStr) -> Result<(ObjectId, Vec<u8>), Errno> {
        let dir = self.object(dir.0)?;
        match name.as_bytes() {
            bytes if bytes.len() > 255 => Err(Errno::ENAMETOOLONG),
            bytes => Ok((dir, bytes.to_vec())),
        }
    }

    /// An open file.
    pub fn file(&self, handle: FileHandle) -> Result<Arc<OpenFile>, Errno> {
        self.files.get(handle.0).ok_or(Errno::EBADF)
    }

    /// The object behind an inode number.
    pub fn object(&self, ino: u64) -> Result<ObjectId, Errno> {
        self.inodes.object(ino).ok_or(Errno::ESTALE)
    }

    /// The wave in which an answer begins.
    pub fn wave(&self) -> u64 {
        *self.waves.read().expect("no panic while the waves are locked")
    }

    /// Writes an answer with the times for which attributes and names may be believed.
    fn with_times(&self, began: u64, lasting: bool, write: impl FnOnce(Duration, Duration)) {
        let wave = self.waves.read().expect("no panic while the waves are locked");
        if !(self.one_user && lasting && *wave == began) {
            return write(Duration::ZERO, Duration::ZERO);
        }
        let names = if self.epochs.load(Ordering::Relaxed) { attr::LASTING } else { WITHOUT_EPOCHS };
        write(attr::LASTING, names);
    }

    /// Whether the kernel may keep a directory's listing, and use what it has kept.
    pub fn listing(&self, began: u64, ino: u64, lasting: bool) -> FopenFlags {
        let wave = self.waves.read().expect("no panic while the waves are locked");
        let lasting = self.one_user && lasting && *wave == began;
        let mut flags = FopenFlags::empty();
        flags.set(FopenFlags::FOPEN_KEEP_CACHE, self.inodes.list(ino, lasting) && lasting);
        flags.set(FopenFlags::FOPEN_CACHE_DIR, lasting);
        flags
    }

    /// Answers with a name's object.
    pub fn entry(&self, began: u64, result: Result<Attr, Error>, reply: ReplyEntry) {
        match result {
            Ok(attr) => {
                let (ino, writers) = self.inodes.found(attr.id);
                let shown = self.shown(ino, &attr);
                self.with_times(began, attr.lasting && !writers, |attrs, names| {
                    reply.entry_with_ttls(&attrs, &names, &shown, Generation(0));
                });
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Answers that a name does not exist, for as long as the directory is known not to change.
    pub fn no_entry(&self, began: u64, lasting: bool, reply: ReplyEntry) {
        self.with_times(began, lasting, |_, names| {
            if names.is_zero() {
                return reply.error(Errno::ENOENT);
            }
            // A look-up that finds inode 0 is how FUSE spells a missing name that may be remembered.
            reply.entry(&names, &nothing(), Generation(0));
        });
    }

    /// Answers with attributes.
    pub fn attributes(&self, began: u64, ino: u64, result: Result<Attr, Error>, reply: ReplyAttr) {
        match result {
            Ok(attr) => {
                let lasting = attr.lasting && !self.inodes.has_writers(ino);
                let shown = self.shown(ino, &attr);
                self.with_times(began, lasting, |attrs, _| reply.attr(&attrs, &shown));
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Attributes for a line of a listing; writes them through `write`.
    pub fn line(&self, began: u64, attr: &Attr, write: impl FnOnce(&FileAttr, &Duration)) {
        let (ino, writers) = self.inodes.found(attr.id);
        let shown = self.shown(ino, attr);
        // One time serves both here.
        self.with_times(began, attr.lasting && !writers, |attrs, names| write(&shown, &attrs.min(names)));
    }

    /// What the kernel is told of an inode: an old version that is open keeps its own size.
    fn shown(&self, ino: u64, attr: &Attr) -> FileAttr {
        match self.inodes.left_behind(ino) {
            Some(old) => attr::to_kernel(ino, &as_opened(&old)),
            None => attr::to_kernel(ino, attr),
        }
    }

    /// Counts an open under `ino` and says how the kernel reaches the contents.
    ///
    /// What may be written through a mapping does not pass us by where that can be had: such a mapping keeps the
    /// container open and not the file, so that the release comes before what is still written, and nothing after.
    pub fn grant(
        &self,
        ino: u64,
        opened: &Opened,
        mode: OpenMode,
        register: impl FnOnce(&std::fs::File) -> std::io::Result<BackingId>,
    ) -> Option<Grant> {
        let writes = mode.write;
        let backing = || {
            let wanted = (writes || opened.attr.size > PASSTHROUGH_ABOVE) && !may_be_mapped(mode);
            if !wanted || !self.passthrough.load(Ordering::Relaxed) {
                return None;
            }
            let file = opened.container.file()?;
            register(file).inspect_err(|error| self.fall_back(error)).ok()
        };
        let grant = self.inodes.open(ino, opened, writes, backing).ok()?;
        self.files.insert(OpenFile { ino, opened: opened.clone(), writes });
        Some(grant)
    }

    /// All opens of an inode go one way. Gives a descriptor that was just closed the time to be released before a file
    /// is opened that must not go the other.
    pub async fn settle(&self, ino: u64, mode: OpenMode) {
        for _ in 0..RELEASE_LOOKS {
            if !may_be_mapped(mode) || !self.inodes.passes_through(ino) {
                return;
            }
            tokio::time::sleep(RELEASE_WAIT).await;
        }
    }

    /// Passthrough does not work here; reads and writes go through us from now on.
    pub fn fall_back(&self, why: &dyn std::fmt::Display) {
        self.passthrough.store(false, Ordering::Relaxed);
        self.fallback.call_once(|| {
            tracing::info!(
                "file contents pass through venus (the kernel cannot use the cache itself: {why})"
            );
        });
    }

    /// Makes a file and answers; a version that arrives meanwhile gets a number of its own.
    pub fn created(&self, opened: &Opened, mode: OpenMode, reply: ReplyCreate) -> bool {
        for _ in 0..OPEN_ATTEMPTS {
            let (ino, _) = self.inodes.found(opened.attr.id);
            let Some(grant) = self.grant(ino, opened, mode, |file| reply.open_backing(file)) else {
                self.inodes.forget(ino, 1);
                continue;
            };
            let shown = attr::to_kernel(ino, &opened.attr);
            let handle = FileHandle(opened.handle);
            let flags = flags(&grant, mode.write);
            let (zero, first) = (Duration::ZERO, Generation(0));
            match &grant.way {
                Way::Passthrough(id) => reply.created_passthrough(&zero, &shown, first, handle, flags, id),
                Way::Cached => reply.created(&zero, &shown, first, handle, flags),
            }
            return true;
        }
        reply.error(Errno::EAGAIN);
        false
    }

    /// The last descriptor of an open is gone.
    pub async fn release(&self, handle: u64) -> Result<(), Error> {
        let file = self.files.remove(handle).ok_or(Error::BadHandle)?;
        let gone = self.inodes.close(file.ino, file.writes);
        let result = self.face.release(handle).await;
        match gone {
            Some(id) => self.face.forget(id),
            // Stores through a mapping changed times that the kernel may still remember from before.
            None if file.writes => {
                let _ = self.forgets.send(Forget::Object { id: file.opened.attr.id, data: false });
            }
            None => {}
        }
        result
    }
}

/// Flags of an open: nothing is stored at the close of what was only read.
pub fn flags(grant: &Grant, writes: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_NOFLUSH, !writes);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, grant.keep_pages);
    flags
}

/// Attributes of contents that are open though newer ones exist.
pub fn as_opened(opened: &Opened) -> Attr {
    let mut attr = opened.attr.clone();
    if let Ok((size, mtime, ctime)) = opened.container.snapshot() {
        (attr.size, attr.mtime, attr.ctime) = (size, mtime, attr.ctime.max(ctime));
    }
    attr.lasting = false;
    attr
}

/// How the kernel is asked to open, in the manager's words.
pub fn open_mode(flags: i32) -> OpenMode {
    let access = flags & libc::O_ACCMODE;
    let truncate = flags & libc::O_TRUNC != 0;
    OpenMode { read: access != libc::O_WRONLY, write: access != libc::O_RDONLY || truncate, truncate }
}

/// Whether a mapping may write what is opened: the kernel allows that for descriptors that read and write.
fn may_be_mapped(mode: OpenMode) -> bool {
    mode.read && mode.write
}

/// Who asks.
pub fn caller(request: &fuser::Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

fn nothing() -> FileAttr {
    let attr = Attr {
        id: ObjectId { realm: 0, fid: coda_proto::Fid::root(coda_proto::VolumeId(0)) },
        kind: crate::venus::face::NodeKind::File,
        size: 0,
        mode: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        ctime: 0,
        atime: 0,
        lasting: false,
        version: 0,
    };
    attr::to_kernel(0, &attr)
}
