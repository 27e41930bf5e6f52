//! The Vice server: replicated volumes, callbacks, location.
//!
//! ```text
//!  service   which call is answered by what
//!  calls     what each call does            session   whom we promised what
//!  status  rights  quota                    location  servers, volumes, groups
//!  resolution  collection  retirement      members meet and join; what all of them know is forgotten
//!  volume    one writer, many readers     scrub     bytes that are not what they were
//!  groups    members that leave        tools     what administrators call
//!  store     SQLite and containers        shell     clock, network, processes
//! ```

mod blocking;
mod calls;
mod collection;
pub mod config;
pub mod env;
mod groups;
pub mod location;
pub mod quota;
mod resolution;
mod retirement;
pub mod rights;
mod scrub;
mod server;
mod service;
pub mod session;
pub mod setup;
pub mod shell;
pub mod status;
pub mod store;
pub mod tools;
pub mod volume;

pub use config::{
    AuthorityKey, CrashHook, CrashPoint, Durability, Limits, Sealing, ServerConfig, Signed, Signer,
};
pub use server::Server;
