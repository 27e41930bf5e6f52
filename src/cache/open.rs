//! A container while files over it are open.

use std::sync::{Arc, Mutex, MutexGuard};

use coda_proto::Past;

use crate::env::Container;

/// (length, modification time, change time): differs whenever the contents may.
pub type Snapshot = (u64, i64, i64);

/// An open container, shared by all opens of one version of a file.
pub struct OpenFile {
    /// The container's name.
    pub name: u64,
    /// The container.
    pub container: Arc<dyn Container>,
    state: Mutex<OpenState>,
}

/// What changes while it is open.
#[derive(Clone, Debug)]
pub struct OpenState {
    /// Opens for reading only.
    pub readers: u32,
    /// Opens for writing.
    pub writers: u32,
    /// The snapshot of what the servers hold.
    pub stored: Snapshot,
    /// The version that the contents grew from.
    pub seen: Past,
    /// Permission bits set since, which join the next Store.
    pub mode: Option<u32>,
    /// A modification time set since, and the snapshot at that time: it joins the next Store of just
    /// these contents.
    pub mtime: Option<(i64, Snapshot)>,
    /// The last Store of it failed, so what it holds is nowhere else.
    pub unsaved: bool,
}

impl OpenFile {
    /// Opens a container whose contents grew from the version `seen`.
    pub fn new(name: u64, container: Arc<dyn Container>, seen: Past) -> std::io::Result<OpenFile> {
        let stored = container.snapshot()?;
        let state =
            OpenState { readers: 0, writers: 0, stored, seen, mode: None, mtime: None, unsaved: false };
        Ok(OpenFile { name, container, state: Mutex::new(state) })
    }

    /// Its state; never held across an await.
    pub fn state(&self) -> MutexGuard<'_, OpenState> {
        self.state.lock().expect("no holder panics")
    }

    /// Whether the contents may differ from what the servers hold.
    pub fn changed(&self) -> bool {
        let state = self.state();
        state.unsaved || self.container.snapshot().map_or(true, |now| now != state.stored)
    }
}
