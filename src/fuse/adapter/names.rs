//! Names in directories: looked up, made, moved, taken away.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, sync::Arc};

use fuser::{Errno, INodeNo, RenameFlags, ReplyEmpty, ReplyEntry};

use super::{
    desk::{Desk, open_mode},
    done, or_error,
};
use crate::{
    error::Error,
    venus::face::{Attr, Caller, Face, RenameMode},
};

pub fn lookup<F: Face>(desk: &Arc<Desk<F>>, who: Caller, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
    let (dir, name) = or_error!(desk.named(parent, name), reply);
    desk.run(async move |desk| {
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

pub fn forget<F: Face>(desk: &Desk<F>, ino: INodeNo, count: u64) {
    desk.guarded(|| {
        if let Some(id) = desk.inodes.forget(ino.0, count) {
            desk.face.forget(id);
        }
    });
}

pub fn mknod<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    parent: INodeNo,
    name: &OsStr,
    mode: u32,
    reply: ReplyEntry,
) {
    if !matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) {
        return reply.error(Errno::EPERM);
    }
    let (dir, name) = or_error!(desk.named(parent, name), reply);
    desk.run(async move |desk| {
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

pub fn mkdir<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    parent: INodeNo,
    name: &OsStr,
    mode: u32,
    reply: ReplyEntry,
) {
    let (dir, name) = or_error!(desk.named(parent, name), reply);
    desk.run(async move |desk| {
        let began = desk.wave();
        let result = desk.face.mkdir(who, dir, &name, mode & 0o1777).await;
        desk.entry(began, result, reply);
    });
}

pub fn unlink<F: Face>(desk: &Arc<Desk<F>>, who: Caller, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
    let (dir, name) = or_error!(desk.named(parent, name), reply);
    desk.run(async move |desk| done(desk.face.unlink(who, dir, &name).await, reply));
}

pub fn rmdir<F: Face>(desk: &Arc<Desk<F>>, who: Caller, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
    let (dir, name) = or_error!(desk.named(parent, name), reply);
    desk.run(async move |desk| done(desk.face.rmdir(who, dir, &name).await, reply));
}

pub fn symlink<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    parent: INodeNo,
    name: &OsStr,
    target: &Path,
    reply: ReplyEntry,
) {
    let (dir, name) = or_error!(desk.named(parent, name), reply);
    let target = target.as_os_str().as_bytes().to_vec();
    desk.run(async move |desk| {
        let began = desk.wave();
        let result = desk.face.symlink(who, dir, &name, &target).await;
        desk.entry(began, result, reply);
    });
}

pub fn rename<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    from: (INodeNo, &OsStr),
    to: (INodeNo, &OsStr),
    flags: RenameFlags,
    reply: ReplyEmpty,
) {
    let mode = match flags {
        flags if flags.is_empty() => RenameMode::Replace,
        RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
        // Exchanging two names is not one mutation in Coda.
        _ => return reply.error(Errno::EINVAL),
    };
    let (from, name) = or_error!(desk.named(from.0, from.1), reply);
    let (to, new_name) = or_error!(desk.named(to.0, to.1), reply);
    desk.run(async move |desk| {
        done(desk.face.rename(who, (from, &name), (to, &new_name), mode).await, reply);
    });
}

pub fn link<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    ino: INodeNo,
    parent: INodeNo,
    name: &OsStr,
    reply: ReplyEntry,
) {
    let id = or_error!(desk.object(ino.0), reply);
    let (dir, name) = or_error!(desk.named(parent, name), reply);
    desk.run(async move |desk| {
        let began = desk.wave();
        let result = desk.face.link(who, id, dir, &name).await;
        desk.entry(began, result, reply);
    });
}
