//! The client modify log (CML) of a volume, as far as it can be decided without doing anything.
//!
//! ```text
//!  entry    what is known of a logged record without reading it
//!  way      whether a new mutation asks the servers or goes to the log
//!  chunk    which records travel in the next Apply
//!  remedy   what to do about a record that is refused
//!  cancel   which records a new one makes needless
//!  guard    whether it would remove so much that somebody has to approve
//!  link     whether the line is weak       mode    how people want it
//!  fold     what is left of the log then, or when one is given up
//!  unmade   the same where many are given up at once
//!  reissue  what becomes of it when the servers have retired its author
//!  pace     how fast it may go         relay   who gets it
//! ```
//!
//! Records depend on each other where they touch the same object: a member applies a record only to what
//! its author saw. So a record that has to wait holds back those that touch what it touches, and those
//! that touch what these touch, and no others.

mod cancel;
mod chunk;
mod entry;
mod fold;
mod guard;
mod link;
mod mode;
mod pace;
mod reissue;
mod relay;
mod remedy;
mod unmade;
mod way;

pub use cancel::{Earlier, Plan, Step, cancel, subject};
pub use chunk::{Chunk, Limits, chunk};
pub use entry::Entry;
pub use fold::{Folded, Forgotten, fold, without};
pub use guard::{FEW, Guard};
pub use link::{Link, Weak};
pub use mode::{Mode, VolumeMode, volume_mode};
pub use pace::{Pace, piece};
pub use reissue::{Reissue, any_may_be_held};
pub use relay::{To, to};
pub use remedy::{Remedy, Why, pause, remedy};
pub use unmade::Unmade;
pub use way::{Facts, Manner, Way, way};

#[cfg(test)]
mod tests;
