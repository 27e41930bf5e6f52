//! Attributes: shown, changed, asked about.

use std::sync::Arc;

use coda_proto::Fid;
use fuser::{AccessFlags, FileHandle, INodeNo, ReplyAttr, ReplyData, ReplyEmpty};

use super::{
    desk::{Desk, as_opened},
    done, errno, or_error,
};
use crate::{
    error::Error,
    venus::face::{Attr, AttrChange, Caller, Face},
};

pub fn getattr<F: Face>(desk: &Arc<Desk<F>>, who: Caller, ino: INodeNo, reply: ReplyAttr) {
    let id = or_error!(desk.object(ino.0), reply);
    desk.run(async move |desk| {
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

pub fn setattr<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    ino: INodeNo,
    change: AttrChange,
    handle: Option<FileHandle>,
    reply: ReplyAttr,
) {
    let id = or_error!(desk.object(ino.0), reply);
    desk.run(async move |desk| {
        let began = desk.wave();
        let result = match change == AttrChange::default() {
            // Only a time that is not kept: when the kernel says it changed.
            true => desk.face.getattr(who, id).await,
            false => desk.face.setattr(who, id, change, handle.map(|handle| handle.0)).await,
        };
        desk.attributes(began, ino.0, result, reply);
    });
}

pub fn readlink<F: Face>(desk: &Arc<Desk<F>>, who: Caller, ino: INodeNo, reply: ReplyData) {
    let id = or_error!(desk.object(ino.0), reply);
    desk.run(async move |desk| match desk.face.readlink(who, id).await {
        Ok(target) => reply.data(&target),
        Err(error) => reply.error(errno(&error)),
    });
}

pub fn access<F: Face>(desk: &Arc<Desk<F>>, who: Caller, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
    let id = or_error!(desk.object(ino.0), reply);
    desk.run(async move |desk| done(desk.face.access(who, id, mask.bits()).await, reply));
}

/// Attributes of a file that has no name any more but is open.
fn removed_but_open<F: Face>(desk: &Desk<F>, ino: u64, fid: Fid) -> Result<Attr, Error> {
    let opened = desk.inodes.opened(ino).ok_or(Error::Gone(fid))?;
    Ok(Attr { nlink: 0, ..as_opened(&opened) })
}
