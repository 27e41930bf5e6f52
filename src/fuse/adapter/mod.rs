//! The adapter: the kernel's requests in the manager's words, and back. Nothing here decides.
//!
//! The library wants one trait with a method for each request; each has its room here, by the noun that it
//! is about.

mod attributes;
mod contents;
mod listings;
mod names;
mod opens;
mod xattrs;

use std::{ffi::OsStr, io, path::Path, sync::Arc, time::SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::{
    attr,
    desk::{self, Desk, caller},
    errno::errno,
};
use crate::{
    error::Error,
    venus::face::{AttrChange, Face},
};

/// Longest read or write in one request.
const MAX_TRANSFER: u32 = 1 << 20;

const BLOCK: u64 = 4096;

/// The file system as fuser drives it.
pub struct Adapter<F> {
    /// What its requests share.
    pub desk: Arc<Desk<F>>,
}

/// Answers an error and leaves.
macro_rules! or_error {
    ($value:expr, $reply:expr) => {
        match $value {
            Ok(value) => value,
            Err(error) => return $reply.error(error),
        }
    };
}
use or_error;

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

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let space = self.desk.face.space();
        let (blocks, free) = (space.total / BLOCK, space.free / BLOCK);
        let block = u32::try_from(BLOCK).expect("a small number");
        reply.statfs(blocks, free, free, space.objects, space.objects_free, block, 255, block);
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

    // Names.

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        names::lookup(&self.desk, caller(request), parent, name, reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        names::forget(&self.desk, ino, count);
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
        names::mknod(&self.desk, caller(request), parent, name, mode, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        names::mkdir(&self.desk, caller(request), parent, name, mode, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        names::unlink(&self.desk, caller(request), parent, name, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        names::rmdir(&self.desk, caller(request), parent, name, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        names::symlink(&self.desk, caller(request), parent, name, target, reply);
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
        names::rename(&self.desk, caller(request), (parent, name), (new_parent, new_name), flags, reply);
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        names::link(&self.desk, caller(request), ino, parent, name, reply);
    }

    // Attributes.

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attributes::getattr(&self.desk, caller(request), ino, reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let now = attr::now();
        let [atime, mtime] = [atime, mtime].map(|time| time.map(|time| attr::asked(time, now)));
        let change = AttrChange { mode: mode.map(|mode| mode & 0o1777), uid, gid, size, mtime, atime };
        attributes::setattr(&self.desk, caller(request), ino, change, handle, reply);
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        attributes::readlink(&self.desk, caller(request), ino, reply);
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        attributes::access(&self.desk, caller(request), ino, mask, reply);
    }

    // Opens.

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        opens::open(&self.desk, caller(request), ino, flags, reply);
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
        opens::create(&self.desk, caller(request), (parent, name), mode, flags, reply);
    }

    fn flush(&self, request: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        opens::flush(&self.desk, caller(request), handle, reply);
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
        opens::release(&self.desk, handle, reply);
    }

    fn fsync(&self, request: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        opens::fsync(&self.desk, caller(request), handle, reply);
    }

    // Contents.

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
        contents::read(&self.desk, handle, offset, size, reply);
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
        contents::write(&self.desk, handle, offset, data, reply);
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
        contents::fallocate(&self.desk, handle, offset, length, mode, reply);
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
        contents::lseek(&self.desk, handle, offset, whence, reply);
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
        contents::copy_file_range(&self.desk, (from, from_offset), (to, to_offset), length, reply);
    }

    // Listings.

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        listings::opendir(&self.desk, caller(request), ino, reply);
    }

    fn readdir(&self, request: &Request, _: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        listings::readdir(&self.desk, caller(request), handle, offset, reply);
    }

    fn readdirplus(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        listings::readdirplus(&self.desk, caller(request), handle, offset, reply);
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.desk.dirs.close(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // A change of a directory is in the log, or at the servers, before it is answered.
        self.desk.guarded(|| done(self.desk.face.fsyncdir(), reply));
    }

    // Extended attributes.

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
        xattrs::set(&self.desk, caller(request), ino, name, value, flags, reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        xattrs::remove(&self.desk, caller(request), ino, name, reply);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattrs::get(&self.desk, caller(request), ino, name, size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        xattrs::list(&self.desk, caller(request), ino, size, reply);
    }
}

/// Answers what has no value but may have failed.
fn done(result: Result<(), Error>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}
