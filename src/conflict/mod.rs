//! Conflicts: what several people made of one thing, shown so that everybody can go on, and decided.
//!
//! A conflict is data that every replica holds: several contents of a file, several objects of one name, an
//! object that came back after it was removed. Here it is decided how that shows, and what a choice does.
//!
//! ```text
//!  names      how versions are called: NAME.conflict-HOST-TIME, the same at every client
//!  versions   the other contents of a file, as files that can be read
//!  view       a link to nowhere, or a directory of versions, in place of the name
//!  choice     which of them a choice means
//!  resolve    makes a choice true: one record whose base covers what it decides between
//!  contested  several objects of one name
//!  mark       what came back after it was removed is to stay
//!  places     which places of a volume are contested
//!  undo       brings back what a decision took away
//!  base       what this machine's version was made from; `ancestor` what all of them were, as members know
//!  three      two texts and the one that both were made from, merged
//!  merge      text that two sides changed, as one, where a rule says so; `automatic` does it
//! ```
//!
//! The name itself stays, readable, with the contents whose dot is the smallest. It is not written until the
//! conflict is resolved: what would be written is based on one of the versions only.

mod ancestor;
pub(crate) mod automatic;
mod base;
pub mod choice;
pub(crate) mod contested;
mod mark;
pub mod merge;
pub mod names;
pub(crate) mod places;
mod resolve;
pub mod three;
mod undo;
pub(crate) mod versions;
pub mod view;

pub use choice::Choice;
pub(crate) use resolve::{Decided, Keep};
