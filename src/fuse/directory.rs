//! Open directories: a listing is kept from the first read to the close, so offsets mean the same line
//! however many names are removed meanwhile.
//!
//! ```text
//! offset   0        1         2 ...
//! line     "."      ".."      the listing's lines
//! ```
//! The offset handed out with a line is that of the next one.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::venus::face::{DirLine, Listing, ObjectId};

/// One open of a directory.
pub struct OpenDir {
    /// Which.
    pub id: ObjectId,
    listing: Mutex<Option<(Listing, ObjectId)>>,
}

impl OpenDir {
    /// The listing that reads from `offset` go on with, and the directory above. Starting over asks again.
    pub fn kept(&self, offset: u64) -> Option<(Listing, ObjectId)> {
        let kept = self.listing.lock().expect("no panic while a listing is locked");
        if offset == 0 { None } else { kept.clone() }
    }

    /// Keeps a listing for the reads to come.
    pub fn keep(&self, listing: Listing, parent: ObjectId) {
        *self.listing.lock().expect("no panic while a listing is locked") = Some((listing, parent));
    }
}

/// A line as it is shown.
pub enum Line<'a> {
    /// `.` or `..`, and the directory it means.
    Dots(&'static str, ObjectId),
    /// A name.
    Name(&'a DirLine),
}

/// The lines from `offset` on, each with the offset behind it.
pub fn lines(
    here: ObjectId,
    parent: ObjectId,
    listing: &[DirLine],
    offset: u64,
) -> impl Iterator<Item = (u64, Line<'_>)> {
    let dots = [Line::Dots(".", here), Line::Dots("..", parent)];
    let all = dots.into_iter().chain(listing.iter().map(Line::Name));
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    (1..).zip(all).skip(skip)
}

/// All open directories, by handle.
#[derive(Default)]
pub struct OpenDirs {
    next: AtomicU64,
    dirs: RwLock<HashMap<u64, Arc<OpenDir>>>,
}

impl OpenDirs {
    /// Opens a directory; answers its handle.
    pub fn open(&self, id: ObjectId) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = Arc::new(OpenDir { id, listing: Mutex::new(None) });
        self.dirs.write().expect("no panic while the directories are locked").insert(handle, dir);
        handle
    }

    /// An open directory.
    pub fn get(&self, handle: u64) -> Option<Arc<OpenDir>> {
        self.dirs.read().expect("no panic while the directories are locked").get(&handle).cloned()
    }

    /// Closes one.
    pub fn close(&self, handle: u64) {
        self.dirs.write().expect("no panic while the directories are locked").remove(&handle);
    }
}
