//! Extended attributes of the `user.` name space.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, sync::Arc};

use fuser::{Errno, INodeNo, ReplyEmpty, ReplyXattr};

use super::{desk::Desk, done, errno, or_error};
use crate::venus::face::{Caller, Face};

pub fn set<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    ino: INodeNo,
    name: &OsStr,
    value: &[u8],
    flags: i32,
    reply: ReplyEmpty,
) {
    let must_exist = match flags {
        libc::XATTR_CREATE => Some(false),
        libc::XATTR_REPLACE => Some(true),
        _ => None,
    };
    change(desk, who, ino, name, (Some(value.to_vec()), must_exist), reply);
}

pub fn remove<F: Face>(desk: &Arc<Desk<F>>, who: Caller, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
    change(desk, who, ino, name, (None, Some(true)), reply);
}

/// Sets a value (none: removes it) whose name must exist, must not, or may.
fn change<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    ino: INodeNo,
    name: &OsStr,
    (value, must_exist): (Option<Vec<u8>>, Option<bool>),
    reply: ReplyEmpty,
) {
    if !is_ours(name) {
        return reply.error(Errno::EOPNOTSUPP);
    }
    let id = or_error!(desk.object(ino.0), reply);
    let name = name.as_bytes().to_vec();
    desk.run(async move |desk| {
        done(desk.face.setxattr(who, id, &name, value.as_deref(), must_exist).await, reply);
    });
}

pub fn get<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    ino: INodeNo,
    name: &OsStr,
    size: u32,
    reply: ReplyXattr,
) {
    if !is_ours(name) {
        return reply.error(Errno::EOPNOTSUPP);
    }
    let id = or_error!(desk.object(ino.0), reply);
    let name = name.as_bytes().to_vec();
    desk.run(async move |desk| match desk.face.getxattr(who, id, &name).await {
        Ok(value) => sized(&value, size, reply),
        Err(error) => reply.error(errno(&error)),
    });
}

pub fn list<F: Face>(desk: &Arc<Desk<F>>, who: Caller, ino: INodeNo, size: u32, reply: ReplyXattr) {
    let id = or_error!(desk.object(ino.0), reply);
    desk.run(async move |desk| match desk.face.listxattr(who, id).await {
        Ok(names) => {
            let list: Vec<u8> = names.iter().flat_map(|name| name.iter().copied().chain([0])).collect();
            sized(&list, size, reply);
        }
        Err(error) => reply.error(errno(&error)),
    });
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
