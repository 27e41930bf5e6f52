//! Opens of files, from the first to the last descriptor.

use std::{ffi::OsStr, sync::Arc};

use fuser::{Errno, FileHandle, INodeNo, OpenFlags, ReplyCreate, ReplyEmpty, ReplyOpen};

use super::{
    desk::{self, Desk, open_mode},
    done, errno, or_error,
};
use crate::{
    fuse::inode::Way,
    venus::face::{Caller, Face},
};

pub fn open<F: Face>(desk: &Arc<Desk<F>>, who: Caller, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
    let id = or_error!(desk.object(ino.0), reply);
    let mode = open_mode(flags.0);
    desk.run(async move |desk| {
        let opened = match desk.face.open(who, id, mode).await {
            Ok(opened) => opened,
            Err(error) => return reply.error(errno(&error)),
        };
        desk.settle(ino.0, mode).await;
        let Some(grant) = desk.grant(ino.0, &opened, mode, |file| reply.open_backing(file)) else {
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

pub fn create<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    (parent, name): (INodeNo, &OsStr),
    mode: u32,
    flags: i32,
    reply: ReplyCreate,
) {
    let (dir, name) = or_error!(desk.named(parent, name), reply);
    let (open, exclusive) = (open_mode(flags), flags & libc::O_EXCL != 0);
    desk.run(async move |desk| {
        match desk.face.create(who, dir, &name, mode & 0o1777, open, exclusive).await {
            Ok(opened) => {
                if !desk.created(&opened, open, reply) {
                    let _ = desk.face.release(opened.handle).await;
                }
            }
            Err(error) => reply.error(errno(&error)),
        }
    });
}

pub fn flush<F: Face>(desk: &Arc<Desk<F>>, who: Caller, handle: FileHandle, reply: ReplyEmpty) {
    let file = or_error!(desk.file(handle), reply);
    if !file.writes {
        return reply.ok();
    }
    desk.run(async move |desk| done(desk.face.flush(who, handle.0).await, reply));
}

pub fn release<F: Face>(desk: &Arc<Desk<F>>, handle: FileHandle, reply: ReplyEmpty) {
    desk.run(async move |desk| {
        let result = desk.release(handle.0).await;
        if let Err(error) = &result {
            tracing::warn!(%error, "what was written after the last close could not be stored");
        }
        done(result, reply);
    });
}

pub fn fsync<F: Face>(desk: &Arc<Desk<F>>, who: Caller, handle: FileHandle, reply: ReplyEmpty) {
    desk.run(async move |desk| done(desk.face.fsync(who, handle.0).await, reply));
}
