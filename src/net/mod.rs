//! The network of a real machine: QUIC, DNS, clock and chance, as the core's [`Env`](crate::env::Env).
//!
//! ```text
//!  realm ── locate ──▶ endpoints          realms file → (a name with a dot) SRV → addresses
//!  host ─── names ───▶ addresses          an address → hosts file → (a name with a dot) DNS
//!  endpoint ─────────▶ connection         coda-net; the certificate identifies, nothing above does
//! ```
//!
//! A name without a dot never reaches DNS: desktops probe `/coda/.Trash` and people mistype.

pub mod changes;
pub mod dns;
pub mod hosts;
pub mod locate;
mod quic;
pub mod realms;
pub mod srv;

#[cfg(test)]
mod tests;

pub use quic::{NetConfig, NetEnv};
