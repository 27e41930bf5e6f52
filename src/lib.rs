//! venus: the Coda cache manager.
//!
//! A line runs between the core, which knows no kernel, socket, clock or home directory, and the shell
//! (feature `daemon`), which brings them. A row uses the rows below it, never above.
//!
//! ```text
//!  shell    main  daemon  fuse  control  net (quic, dns)             the simulator
//!  ──────── feature `daemon` above this line ─────────────────────────────
//!  face     venus                      the assembled manager: what fuse, control and the simulator call
//!  work     ops  reintegration  conflict  hoard
//!  peers    replica  callback  cml
//!  things   cache  volume  realm
//!  ground   store  env  fid  config
//!  ──────── the venus package above this line ─────────────────────────────
//!  wire     coda-proto
//! ```

#![cfg_attr(
    not(feature = "daemon"),
    allow(dead_code, reason = "what only the shell asks for is not used by the core alone")
)]

pub mod cache;
pub mod callback;
pub mod cml;
pub mod config;
pub mod conflict;
#[cfg(feature = "daemon")]
pub mod control;
pub mod counts;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod env;
pub mod error;
pub mod events;
pub mod fid;
#[cfg(feature = "daemon")]
pub mod fuse;
pub mod hoard;
#[cfg(feature = "daemon")]
pub mod net;
pub mod ops;
pub mod realm;
pub mod reintegration;
pub mod replica;
pub mod store;
pub mod venus;
pub mod volume;
