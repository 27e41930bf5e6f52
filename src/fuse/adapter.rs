//! The adapter: the kernel's requests in the manager's words, and back. Nothing here decides.

use std::{cell::RefCell, ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path, sync::Arc, time::SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use futures::{FutureExt, StreamExt, stream::FuturesOrdered};

use super::{
    attr,
    desk::{self, Desk, as_opened, caller, open_mode, run},
    directory::{Line, OpenDir, lines},
    errno::{errno, of_io},
    file,
    inode::Way,
};
use crate::{
    error::Error,
    venus::face::{Attr, AttrChange, Caller, Face, Listing, NodeKind, ObjectId, RenameMode},
};

/// Lines of a listing whose attributes are fetched at the same time.
const LINES_AT_ONCE: usize = 32;

/// Longest read or write in one request.
const MAX_TRANSFER: u32 = 1 << 20;

const BLOCK: u64 = 4096;

/// The file system as fuser drives it.
pub struct Adapter<F> {
    /// What its requests share.
    pub desk: Arc<Desk<F>>,
}

/// A request about a name in a directory.
type Named<F> = (Arc<Desk<F>>, ObjectId, Vec<u8>);

/// Answers an error and leaves.
macro_rules! or_error {
    ($value:expr, $reply:expr) => {
        match $value {
            Ok(value) => value,
            Err(error) => return $reply.error(error),
        }
    };
}

impl<F: Face> Adapter<F> {
    /// Begins a request about a name in a directory.
    fn named(&self, dir: INodeNo, name: &OsStr) -> Result<Named<F>, Errno> {
        let dir = self.desk.object(dir.0)?;
        match name.as_bytes() {
            bytes if bytes.len() > 255 => Err(Errno::ENAMETOOLONG),
            bytes => Ok((self.desk.clone(), dir, bytes.to_vec())),
        }
    }

    fn run(&self, request: impl Future<Output = ()> + Send + 'static) {
        run(&self.desk.runtime, request);
    }
}

impl<F: Face> Filesystem for Adapter<F> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without HANDLE_KILLPRIV_V2 each write through passthrough costs a GETXATTR; the duty it puts on us
        // is met because set-user-id and set-group-id bits are never stored.
        for wish in [
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
        ] {
            // An older kernel does without.
            let _ = config.add_capabilities(wish);
        }
        let _ = config.set_max_write(MAX_TRANSFER);
        let _ = config.set_max_background(64);
        let wanted = self.desk.passthrough.load(std::sync::atomic::Ordering::Relaxed);
        if wanted && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_err() {
            self.desk.fall_back(&"it is too old");
        } else if wanted {
            let _ = config.set_max_stack_depth(1);
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (desk, dir, name) = or_error!(self.named(parent, name), reply);
        let who = caller(request);
        self.run(async move {
            let began = desk.wave();
            match desk.face.lookup(who, dir, &name).await {
                // Below the root a name may become a realm at any moment.
                Err(Error::NotFound(_)) if dir.realm != 0 => {
                    let above = desk.face.getattr(who, dir).await;
                    desk.no_entry(began, above.is_ok_and(|attr| attr.lasting), reply);
                }
                result => desk.entry(began, result, reply),
            }
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        desk::guarded(|| {
            if let Some(id) = self.desk.inodes.forget(ino.0, count) {
                self.desk.face.forget(id);
            }
        });
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let id = or_error!(self.desk.object(ino.0), reply);
        let (desk, who) = (self.desk.clone(), caller(request));
        self.run(async move {
            let began = desk.wave();
            if let Some(old) = desk.inodes.left_behind(ino.0) {
                return desk.attributes(began, ino.0, Ok(as_opened(&old)), reply);
            }
            let result = match desk.face.getattr(who, id).await {
                // Removed while open: what is left of it is what is open.
                Err(Error::NotFound(_) | Error::Gone(_)) if desk.inodes.opened(ino.0).is_some() => {
                    removed_but_open(&desk, ino.0, id.fid)
                }
                result => result,
            };
            desk.attributes(began, ino.0, result, reply);
        });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let id = or_error!(self.desk.object(ino.0), reply);
        let (desk, who) = (self.desk.clone(), caller(request));
        let change = AttrChange {
            mode: mode.map(|mode| mode & 0o1777),
            uid,
            gid,
            size,
            mtime: mtime.map(attr::asked),
        };
        self.run(async move {
            let began = desk.wave();
            let result = match change == AttrChange::default() {
                // Only a time that Coda does not keep.
                true => desk.face.getattr(who, id).await,
                false => desk.face.setattr(who, id, change, handle.map(|handle| handle.0)).await,
            };
            desk.attributes(began, ino.0, result, reply);
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let id = or_error!(self.desk.object(ino.0), reply);
        let (desk, who) = (self.desk.clone(), caller(request));
        self.run(async move {
            match desk.face.readlink(who, id).await {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        if !matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) {
            return reply.error(Errno::EPERM);
        }
        let (desk, dir, name) = or_error!(self.named(parent, name), reply);
        let who = caller(request);
        self.run(async move {
            let began = desk.wave();
            let write = open_mode(libc::O_WRONLY);
            let result = match desk.face.create(who, dir, &name, mode & 0o1777, write, true).await {
                Ok(opened) => {
                    let flushed = desk.face.flush(who, opened.handle).await;
                    let _ = desk.face.release(opened.handle).await;
                    flushed.map(|()| Attr { lasting: false, ..opened.attr })
                }
                Err(error) => Err(error),
            };
            desk.entry(began, result, reply);
        });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let (desk, dir, name) = or_error!(self.named(parent, name), reply);
        let who = caller(request);
        self.run(async move {
            let began = desk.wave();
            let result = desk.face.mkdir(who, dir, &name, mode & 0o1777).await;
            desk.entry(began, result, reply);
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (desk, dir, name) = or_error!(self.named(parent, name), reply);
        let who = caller(request);
        self.run(async move { done(desk.face.unlink(who, dir, &name).await, reply) });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (desk, dir, name) = or_error!(self.named(parent, name), reply);
        let who = caller(request);
        self.run(async move { done(desk.face.rmdir(who, dir, &name).await, reply) });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (desk, dir, name) = or_error!(self.named(parent, name), reply);
        let (who, target) = (caller(request), target.as_os_str().as_bytes().to_vec());
        self.run(async move {
            let began = desk.wave();
            let result = desk.face.symlink(who, dir, &name, &target).await;
            desk.entry(began, result, reply);
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            flags if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            // Exchanging two names is not one mutation in Coda.
            _ => return reply.error(Errno::EINVAL),
        };
        let (desk, from, name) = or_error!(self.named(parent, name), reply);
        let (_, to, new_name) = or_error!(self.named(new_parent, new_name), reply);
        let who = caller(request);
        self.run(async move {
            done(desk.face.rename(who, (from, &name), (to, &new_name), mode).await, reply);
        });
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let id = or_error!(self.desk.object(ino.0), reply);
        let (desk, dir, name) = or_error!(self.named(parent, name), reply);
        let who = caller(request);
        self.run(async move {
            let began = desk.wave();
            let result = desk.face.link(who, id, dir, &name).await;
            desk.entry(began, result, reply);
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let id = or_error!(self.desk.object(ino.0), reply);
        let (desk, who, mode) = (self.desk.clone(), caller(request), open_mode(flags.0));
        self.run(async move {
            let opened = match desk.face.open(who, id, mode).await {
                Ok(opened) => opened,
                Err(error) => return reply.error(errno(&error)),
            };
            let Some(grant) = desk.grant(ino.0, &opened, mode.write, |file| reply.open_backing(file)) else {
                // A newer version: the kernel looks the name up again, finds it under a new number and
                // opens that.
                let _ = desk.face.release(opened.handle).await;
                return reply.error(Errno::ESTALE);
            };
            let flags = desk::flags(&grant, mode.write);
            match &grant.way {
                Way::Passthrough(id) => reply.opened_passthrough(FileHandle(opened.handle), flags, id),
                Way::Cached => reply.opened(FileHandle(opened.handle), flags),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (desk, dir, name) = or_error!(self.named(parent, name), reply);
        let (who, open, exclusive) = (caller(request), open_mode(flags), flags & libc::O_EXCL != 0);
        self.run(async move {
            match desk.face.create(who, dir, &name, mode & 0o1777, open, exclusive).await {
                Ok(opened) => {
                    if !desk.created(&opened, open.write, reply) {
                        let _ = desk.face.release(opened.handle).await;
                    }
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let file = or_error!(self.desk.files.get(handle.0).ok_or(Errno::EBADF), reply);
        desk::guarded(|| {
            BUFFER.with_borrow_mut(|buffer| {
                let size = size as usize;
                if buffer.len() < size {
                    buffer.resize(size, 0);
                }
                match file::read(&*file.opened.container, offset, &mut buffer[..size]) {
                    Ok(count) => reply.data(&buffer[..count]),
                    Err(error) => reply.error(of_io(&error)),
                }
            });
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let file = or_error!(self.desk.files.get(handle.0).ok_or(Errno::EBADF), reply);
        desk::guarded(|| match file.opened.container.write_at(offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("at most MAX_TRANSFER")),
            Err(error) => reply.error(of_io(&error)),
        });
    }

    fn flush(&self, request: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let file = or_error!(self.desk.files.get(handle.0).ok_or(Errno::EBADF), reply);
        if !file.writes {
            return reply.ok();
        }
        let (desk, who) = (self.desk.clone(), caller(request));
        self.run(async move { done(desk.face.flush(who, handle.0).await, reply) });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let desk = self.desk.clone();
        self.run(async move {
            let result = desk.release(handle.0).await;
            if let Err(error) = &result {
                tracing::warn!(%error, "what was written after the last close could not be stored");
            }
            done(result, reply);
        });
    }

    fn fsync(&self, request: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let (desk, who) = (self.desk.clone(), caller(request));
        self.run(async move { done(desk.face.fsync(who, handle.0).await, reply) });
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let id = or_error!(self.desk.object(ino.0), reply);
        reply.opened(FileHandle(self.desk.dirs.open(id)), FopenFlags::empty());
    }

    fn readdir(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let dir = or_error!(self.desk.dirs.get(handle.0).ok_or(Errno::EBADF), reply);
        let (desk, who) = (self.desk.clone(), caller(request));
        self.run(async move {
            let (listing, parent) = match listing(&desk, who, &dir, offset).await {
                Ok(found) => found,
                Err(error) => return reply.error(errno(&error)),
            };
            for (next, line) in lines(dir.id, parent, &listing, offset) {
                let full = match line {
                    Line::Dots(name, id) => {
                        let ino = INodeNo(desk.inodes.number(id));
                        reply.add(ino, next, fuser::FileType::Directory, name)
                    }
                    Line::Name(line) => {
                        let ino = INodeNo(desk.inodes.number(line.id));
                        reply.add(ino, next, attr::kind(line.kind), OsStr::from_bytes(&line.name))
                    }
                };
                if full {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let dir = or_error!(self.desk.dirs.get(handle.0).ok_or(Errno::EBADF), reply);
        let (desk, who) = (self.desk.clone(), caller(request));
        self.run(async move {
            let began = desk.wave();
            let (listing, parent) = match listing(&desk, who, &dir, offset).await {
                Ok(found) => found,
                Err(error) => return reply.error(errno(&error)),
            };
            let mut ahead = lines(dir.id, parent, &listing, offset);
            let mut waiting = FuturesOrdered::new();
            loop {
                for (next, line) in ahead.by_ref().take(LINES_AT_ONCE - waiting.len()) {
                    waiting.push_back(line_attr(&desk, who, &dir, next, line));
                }
                let Some((next, name, attr)) = waiting.next().await else { break };
                // Removed since the directory was opened.
                let Some(attr) = attr else { continue };
                if add_line(&desk, began, &mut reply, next, name, &attr) {
                    break;
                }
            }
            drop(waiting);
            reply.ok();
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.desk.dirs.close(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // A change of a directory is in the log, or at the servers, before it is answered.
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let space = self.desk.face.space();
        let (blocks, free) = (space.total / BLOCK, space.free / BLOCK);
        let block = u32::try_from(BLOCK).expect("a small number");
        reply.statfs(blocks, free, free, space.objects, space.objects_free, block, 255, block);
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let must_exist = match flags {
            libc::XATTR_CREATE => Some(false),
            libc::XATTR_REPLACE => Some(true),
            _ => None,
        };
        self.change_xattr(request, ino, name, Some(value.to_vec()), must_exist, reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change_xattr(request, ino, name, None, Some(true), reply);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !is_ours(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let id = or_error!(self.desk.object(ino.0), reply);
        let (desk, who, name) = (self.desk.clone(), caller(request), name.as_bytes().to_vec());
        self.run(async move {
            match desk.face.getxattr(who, id, &name).await {
                Ok(value) => sized(&value, size, reply),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let id = or_error!(self.desk.object(ino.0), reply);
        let (desk, who) = (self.desk.clone(), caller(request));
        self.run(async move {
            match desk.face.listxattr(who, id).await {
                Ok(names) => {
                    let list: Vec<u8> =
                        names.iter().flat_map(|name| name.iter().copied().chain([0])).collect();
                    sized(&list, size, reply);
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let id = or_error!(self.desk.object(ino.0), reply);
        let (desk, who) = (self.desk.clone(), caller(request));
        self.run(async move { done(desk.face.access(who, id, mask.bits()).await, reply) });
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let file = or_error!(self.desk.files.get(handle.0).ok_or(Errno::EBADF), reply);
        desk::guarded(|| match file::allocate(&*file.opened.container, offset, length, mode) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(of_io(&error)),
        });
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let file = or_error!(self.desk.files.get(handle.0).ok_or(Errno::EBADF), reply);
        desk::guarded(|| match file::seek(&*file.opened.container, offset, whence) {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(of_io(&error)),
        });
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let source = or_error!(self.desk.files.get(from.0).ok_or(Errno::EBADF), reply);
        let target = or_error!(self.desk.files.get(to.0).ok_or(Errno::EBADF), reply);
        desk::guarded(|| {
            let (source, target) = (&*source.opened.container, &*target.opened.container);
            match file::copy((source, from_offset), (target, to_offset), length) {
                Ok(count) => reply.written(count),
                Err(error) => reply.error(of_io(&error)),
            }
        });
    }
}

impl<F: Face> Adapter<F> {
    fn change_xattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: Option<Vec<u8>>,
        must_exist: Option<bool>,
        reply: ReplyEmpty,
    ) {
        if !is_ours(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let id = or_error!(self.desk.object(ino.0), reply);
        let (desk, who, name) = (self.desk.clone(), caller(request), name.as_bytes().to_vec());
        self.run(async move {
            done(desk.face.setxattr(who, id, &name, value.as_deref(), must_exist).await, reply);
        });
    }
}

/// The listing that a read at `offset` goes on with.
async fn listing<F: Face>(
    desk: &Desk<F>,
    who: Caller,
    dir: &OpenDir,
    offset: u64,
) -> Result<(Listing, ObjectId), Error> {
    if let Some(kept) = dir.kept(offset) {
        return Ok(kept);
    }
    let listing = desk.face.readdir(who, dir.id).await?;
    // Only a number is shown of the directory above; not knowing it spoils no listing.
    let parent = desk.face.parent(dir.id).await.unwrap_or(dir.id);
    dir.keep(listing.clone(), parent);
    Ok((listing, parent))
}

/// A line with its attributes, or none if the name is gone. What cannot be had now gets a stand-in that the
/// kernel does not believe for a moment.
async fn line_attr<'a, F: Face>(
    desk: &Desk<F>,
    who: Caller,
    dir: &OpenDir,
    next: u64,
    line: Line<'a>,
) -> (u64, &'a [u8], Option<Attr>) {
    let line = match line {
        Line::Dots(name, id) => return (next, name.as_bytes(), Some(stand_in(id, NodeKind::Directory))),
        Line::Name(line) => line,
    };
    // Listing the realms must not wait for one of them.
    let found = match dir.id.realm {
        0 => desk.face.lookup(who, dir.id, &line.name).now_or_never(),
        _ => Some(desk.face.lookup(who, dir.id, &line.name).await),
    };
    let attr = match found {
        Some(Ok(attr)) => Some(attr),
        Some(Err(Error::NotFound(_) | Error::Gone(_))) => None,
        Some(Err(_)) | None => Some(stand_in(line.id, line.kind)),
    };
    (next, &line.name, attr)
}

fn add_line<F: Face>(
    desk: &Desk<F>,
    began: u64,
    reply: &mut ReplyDirectoryPlus,
    next: u64,
    name: &[u8],
    attr: &Attr,
) -> bool {
    let mut full = false;
    desk.line(began, attr, |shown, time| {
        let name = OsStr::from_bytes(name);
        full = reply.add(shown.ino, next, name, time, shown, fuser::Generation(0));
        // The kernel counts no look-up for what did not fit, nor for `.` and `..`.
        if full || matches!(name.as_bytes(), b"." | b"..") {
            desk.inodes.forget(shown.ino.0, 1);
        }
    });
    full
}

fn stand_in(id: ObjectId, kind: NodeKind) -> Attr {
    let (mode, nlink) = if kind == NodeKind::Directory { (0o755, 1) } else { (0o644, 1) };
    Attr { id, kind, size: 0, mode, nlink, uid: 0, gid: 0, mtime: 0, lasting: false, version: 0 }
}

/// Attributes of a file that has no name any more but is open.
fn removed_but_open<F: Face>(desk: &Desk<F>, ino: u64, fid: coda_proto::Fid) -> Result<Attr, Error> {
    let opened = desk.inodes.opened(ino).ok_or(Error::Gone(fid))?;
    Ok(Attr { nlink: 0, ..as_opened(&opened) })
}

fn done(result: Result<(), Error>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Attributes of other name spaces (security, system, trusted) are not kept.
fn is_ours(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"user.")
}

/// Answers a value, or how much room it needs.
fn sized(value: &[u8], room: u32, reply: ReplyXattr) {
    match room as usize {
        0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}
