//! Hoarding: what people want to have here when no server can be reached, fetched ahead and kept.
//!
//! A *wish* names a path within a volume, how much it is wanted, and how far it reaches. A *walk* binds the
//! wishes to objects, validates those and fetches what is missing, the most wanted first; what it bound is
//! evicted for nothing else. Wishes may take three quarters of the cache: work that nobody planned needs
//! room too. Walks come every ten minutes, and when somebody asks.
//!
//! ```text
//!  wish     what was asked for, as people write it       (kept by store::hoard)
//!  pin      the wishes that must not fail: measured before they are made, and their room is kept
//!  pattern  what a path with stars means
//!  bind     from wishes to objects: a walk over cached or fetched directories
//!  walk     binds, validates, fetches; or only reports what is missing
//! ```

mod bind;
pub(crate) mod pattern;
mod pin;
mod walk;
pub mod wish;

#[cfg(feature = "daemon")]
pub(crate) use pin::Measured;
pub use walk::{Hoard, Missing, Report};
