//! Contents of open files, where the kernel does not reach their containers by itself.

use std::{cell::RefCell, sync::Arc};

use fuser::{FileHandle, ReplyData, ReplyEmpty, ReplyLseek, ReplyWrite};

use super::{desk::Desk, or_error};
use crate::{
    fuse::{errno::of_io, file},
    venus::face::Face,
};

pub fn read<F: Face>(desk: &Arc<Desk<F>>, handle: FileHandle, offset: u64, size: u32, reply: ReplyData) {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let file = or_error!(desk.file(handle), reply);
    desk.guarded(|| {
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

pub fn write<F: Face>(desk: &Arc<Desk<F>>, handle: FileHandle, offset: u64, data: &[u8], reply: ReplyWrite) {
    let file = or_error!(desk.file(handle), reply);
    desk.guarded(|| match file.opened.container.write_at(offset, data) {
        Ok(()) => reply.written(u32::try_from(data.len()).expect("at most MAX_TRANSFER")),
        Err(error) => reply.error(of_io(&error)),
    });
}

pub fn fallocate<F: Face>(
    desk: &Arc<Desk<F>>,
    handle: FileHandle,
    offset: u64,
    length: u64,
    mode: i32,
    reply: ReplyEmpty,
) {
    let file = or_error!(desk.file(handle), reply);
    desk.guarded(|| match file::allocate(&*file.opened.container, offset, length, mode) {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(of_io(&error)),
    });
}

pub fn lseek<F: Face>(desk: &Arc<Desk<F>>, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
    let file = or_error!(desk.file(handle), reply);
    desk.guarded(|| match file::seek(&*file.opened.container, offset, whence) {
        Ok(found) => reply.offset(found),
        Err(error) => reply.error(of_io(&error)),
    });
}

pub fn copy_file_range<F: Face>(
    desk: &Arc<Desk<F>>,
    (from, from_offset): (FileHandle, u64),
    (to, to_offset): (FileHandle, u64),
    length: u64,
    reply: ReplyWrite,
) {
    let source = or_error!(desk.file(from), reply);
    let target = or_error!(desk.file(to), reply);
    desk.guarded(|| {
        let (source, target) = (&*source.opened.container, &*target.opened.container);
        match file::copy((source, from_offset), (target, to_offset), length) {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(of_io(&error)),
        }
    });
}
