//! The doors of a server: peers, time and chance. Files and SQLite stand below `store`.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use coda_proto::{ServerId, wire};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a peer did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Closed, cut off, or silent for as long as we wait.
    #[error("server {0} is unreachable: {1}")]
    Unreachable(ServerId, String),
}

/// What a server needs from the world.
pub trait Env: Send + Sync + 'static {
    /// Asks another server of the realm, at the endpoints the realm's configuration names.
    fn call_peer(
        &self,
        to: &wire::ServerInfo,
        request: wire::Request,
        bulk: Bytes,
        silence: Duration,
    ) -> BoxFuture<'static, Result<(wire::Response, Bytes), PeerError>>;
    /// The wall clock, in nanoseconds since 1970.
    fn now(&self) -> i64;
    /// 64 random bits.
    fn random(&self) -> u64;
    /// Runs a task until it ends.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}
