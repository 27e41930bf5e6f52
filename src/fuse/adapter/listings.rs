//! Listings of directories.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, sync::Arc};

use fuser::{Errno, FileHandle, INodeNo, ReplyDirectory, ReplyDirectoryPlus, ReplyOpen};
use futures::{FutureExt, StreamExt, stream::FuturesOrdered};

use super::{attr, desk::Desk, errno, or_error};
use crate::{
    error::Error,
    fuse::directory::{Line, OpenDir, lines},
    venus::face::{Attr, Caller, Face, Listing, NodeKind, ObjectId},
};

/// Lines of a listing whose attributes are fetched at the same time.
const LINES_AT_ONCE: usize = 32;

pub fn opendir<F: Face>(desk: &Arc<Desk<F>>, who: Caller, ino: INodeNo, reply: ReplyOpen) {
    let id = or_error!(desk.object(ino.0), reply);
    desk.run(async move |desk| {
        let began = desk.wave();
        // What we make up changes without a word.
        let lasting = id.realm != 0 && desk.face.getattr(who, id).await.is_ok_and(|attr| attr.lasting);
        reply.opened(FileHandle(desk.dirs.open(id)), desk.listing(began, ino.0, lasting));
    });
}

pub fn readdir<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    handle: FileHandle,
    offset: u64,
    mut reply: ReplyDirectory,
) {
    let dir = or_error!(desk.dirs.get(handle.0).ok_or(Errno::EBADF), reply);
    desk.run(async move |desk| {
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

pub fn readdirplus<F: Face>(
    desk: &Arc<Desk<F>>,
    who: Caller,
    handle: FileHandle,
    offset: u64,
    mut reply: ReplyDirectoryPlus,
) {
    let dir = or_error!(desk.dirs.get(handle.0).ok_or(Errno::EBADF), reply);
    desk.run(async move |desk| {
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
    let (mtime, ctime, atime) = (0, 0, 0);
    Attr { id, kind, size: 0, mode, nlink, uid: 0, gid: 0, mtime, ctime, atime, lasting: false, version: 0 }
}
