//! QUIC and TLS for both sides: certificates, framed calls, sessions.
//!
//! ```text
//!  authority ─ issues ─▶ credentials ─ prove ─▶ certificate (who is this?) ◀─ judged by ─ trust
//!
//!  Dialer ── one connection per endpoint, one stream per call ──▶ Listener ──▶ a Service
//! ```
//!
//! A stream begins with one byte that says what it is ([`exchange::Opening`]); then come frames of
//! `coda_proto::frame` and raw bulk bytes. A newcomer would expect a QUIC acknowledgement to count as a
//! sign of life. It does not: the kernel of a hung server acknowledges packets, so only a frame on the
//! call itself, or bulk bytes that move, do.

pub mod authority;
pub mod canary;
pub mod certificate;
pub mod credentials;
mod dial;
pub mod dialer;
pub mod exchange;
mod life;
pub mod listener;
pub mod metrics;
mod pool;
#[cfg(feature = "testing")]
pub mod relay;
mod room;
pub mod seal;
mod serve;
pub mod session;
pub mod tls;
mod transport;
pub mod trust;
mod yielding;

use coda_proto::ServerId;
pub use coda_proto::service::{CallError, Priority};

pub use authority::Authority;
pub use credentials::Credentials;
pub use dialer::{Dialer, Names, SystemNames};
pub use listener::{Hears, Limits, Listener};
pub use session::SessionStream;
pub use trust::Trust;

/// Where a server can be reached, and whose certificate it must show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The realm whose authority must have signed the server's certificate.
    pub realm: String,
    /// An address, or a name.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// The server it must be; `None`: any of the realm.
    pub server: Option<ServerId>,
}
