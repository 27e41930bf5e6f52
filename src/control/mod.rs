//! The control socket: how tools talk to venus.
//!
//! A Unix socket, so that requests about `/coda` work also when every realm is broken and never become
//! calls into the mount. Who asks is known from the kernel (SO_PEERCRED). The messages are those of
//! [`coda_proto::control`]. A tool that does not read is dropped; venus never waits for one.

mod conversation;
pub mod failure;
mod manage;
mod rights;
mod socket;

use coda_proto::control::{Failure, Reply, Request};

pub use rights::Owners;
pub use socket::{Control, bind};

use crate::{events::Events, venus::face::Caller};

/// What answers the requests: the cache manager, or an honest fake in tests.
pub trait Manager: Send + Sync + 'static {
    /// Answers every request but that for events. Bounded in time by whoever implements it; the socket
    /// gives up after [`PATIENCE`] all the same.
    fn answer(&self, who: Caller, request: Request) -> impl Future<Output = Result<Reply, Failure>> + Send;
    /// What happens.
    fn events(&self) -> &Events;
}

/// No answer takes longer than this: a tool gets a failure that says so.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

#[cfg(test)]
mod tests;
