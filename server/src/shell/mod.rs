//! The world around a server: sockets, the clock, processes.

mod env;
pub mod files;
pub mod join;
pub mod metrics;
mod serve;
pub mod token;

pub use env::NetEnv;
pub use serve::{CodaServer, StartError};

/// The time.
#[allow(clippy::disallowed_methods)] // The shell reads the clock for everybody.
pub fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// The time in nanoseconds since 1970.
pub fn nanoseconds() -> i64 {
    now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}
