//! Merging is a join: what a record does to a replica, and what two replicas make of each other.
//!
//! Everything here is a decision over facts: a [`Replica`] answers questions and takes rows, and knows
//! nothing of SQL or memory. The same functions run in the servers, in the simulator and in the tests
//! that try every order of every small history.

mod apply;
mod check;
mod contents;
mod head;
mod join;
pub mod memory;
mod object;
pub mod shown;
mod state;

pub use apply::{ApplyError, Outcome, apply, fold};
pub use contents::contents_shown;
pub use head::Stamped;
pub use join::{Joined, join_objects};
pub use object::{ObjectState, binding_of, state_of, tombstone_of};
pub use state::{Binding, Head, Register, Replica, Tombstone};
