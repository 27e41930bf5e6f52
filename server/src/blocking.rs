//! Short blocking sections: SQLite and the disk, in the middle of asynchronous code.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `f` here. A runtime with several threads is told, so that its other tasks go on meanwhile; on a
/// runtime of one thread (a simulated world) nothing else runs, and nothing is reordered.
pub fn blocking<T>(f: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(f),
        _ => f(),
    }
}
