//! What a server is to whoever carries its messages, and how a call to it ends: QUIC in life, a seed in the simulator.

use std::{future::Future, pin::Pin};

use bytes::Bytes;

use crate::{ServerId, wire};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who a caller has proved to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A cache manager.
    Client,
    /// A server of the same realm, by its certificate.
    Server(ServerId),
    /// An administrator, by the realm's admin key.
    Admin,
}

/// Why a call brought no answer. A refusal is an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The port is closed, the host unreachable, or the connection was closed: death at once.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No sign of life on this call for the silence limit.
    #[error("silent")]
    Silent,
    /// It is not the realm's server: its certificate does not convince.
    #[error("not trusted: {0}")]
    Untrusted(String),
    /// It answers nonsense.
    #[error("malformed answer: {0}")]
    Malformed(String),
}

/// A call's urgency: where both have bytes to send, the foreground's go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody waits: prefetch, probes, the trickle.
    Background,
    /// Somebody waits.
    Foreground,
}

/// The events of one session, in order.
pub trait EventSource: Send {
    /// The next event; `None` when the server has ended the session.
    fn next(&mut self) -> BoxFuture<'_, Option<wire::Event>>;
}

/// A server. Dropping a future of it never undoes what was begun.
pub trait Service: Send + Sync + 'static {
    /// Answers one call.
    fn call(
        &self,
        who: Identity,
        request: wire::Request,
        bulk: Bytes,
    ) -> BoxFuture<'static, (wire::Response, Bytes)>;

    /// Begins (or goes on with) a session. Without a source the `Welcome` carries a refusal.
    fn hello(&self, who: Identity, hello: wire::Hello) -> (wire::Welcome, Option<Box<dyn EventSource>>);

    /// The client acknowledged, or pinged.
    fn said(&self, session: u64, word: wire::ClientWord);

    /// The session's stream broke. Its promises last until it resumes, or its events go unacknowledged.
    fn lost(&self, session: u64);
}
