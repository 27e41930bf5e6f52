//! The client modify log (CML) of a volume, as far as it can be decided without doing anything.
//!
//! ```text
//!  entry    what is known of a logged record without reading it
//!  way      whether a new mutation asks the servers or goes to the log
//!  chunk    which records travel in the next Apply
//!  remedy   what to do about a record that is refused
//!  rebase   what is left of a record when one before it is given up
//! ```
//!
//! Records depend on each other where they touch the same object: a member applies a record only to what
//! its author saw. So a record that has to wait holds back those that touch what it touches, and those
//! that touch what these touch, and no others.

mod chunk;
mod entry;
mod rebase;
mod remedy;
mod way;

pub use chunk::{Chunk, Limits, chunk};
pub use entry::Entry;
pub use rebase::{follows, rebased};
pub use remedy::{Remedy, Why, pause, remedy};
pub use way::{Facts, Manner, Way, way};
