//! Sessions and callbacks: whom this server promised to tell before something changes.
//!
//! Promises are volatile: a restart, or a fenced session, voids them, and the client learns it from the
//! first answer that says "unknown session". A break is sent before the mutation that caused it is
//! answered, and acknowledged, or its holder is fenced.
//!
//! ```text
//!  promise ──mutation──> event in the ring ──source──> client ──ack──> answer the mutation
//!                                              └── 5 s without ack: the session is forgotten
//! ```

mod events;
mod registry;

pub use events::{Outstanding, RING};
pub use registry::{Greeting, Key, NOBODY, Sessions};
