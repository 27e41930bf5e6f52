//! The FUSE adapter: a [`Face`](crate::venus::face::Face) as a mounted file system.
//!
//! Nothing here decides, and nothing outside knows an inode number or an errno. Whatever the cache can
//! answer is answered on the thread that read the request; only misses, waits and the network become tasks.
//!
//! ```text
//!  kernel ── /dev/fuse ── adapter ── desk ── face (the manager, or a test's fake)
//!     ▲                              │ inode numbers, open files, open directories
//!     └───────── notifier ───────────┘ what to forget, on a thread that holds no lock
//! ```
//!
//! What a newcomer would get wrong: all opens of an inode use one container and one way of reading it until
//! its last release (`inode`), and an answer may be believed for long only if nothing was forgotten since it
//! began (`notifier`).

mod adapter;
mod attr;
mod desk;
mod directory;
pub mod errno;
mod file;
pub mod helper;
mod inode;
pub mod meter;
pub mod mount;
mod notifier;
pub mod point;
pub mod process;

pub use attr::to_nanos as nanos;
pub use mount::{Mounted, Options, mount};
