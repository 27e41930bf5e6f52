//! Where things are: the realm's servers and volumes, and the text files that describe them.

pub mod change;
mod config;
pub mod delta;
pub mod lines;
pub mod load;
pub mod log;
mod realm;
pub mod scm;
pub mod servers;
pub mod vrlist;

pub use lines::FileError;
pub use log::{Chronicle, Seal, Term};
pub use realm::{Realm, VolumeEntry};
