//! Where things are: the realm's servers and volumes, and the text files that describe them.

pub mod change;
mod config;
pub mod lines;
pub mod load;
mod realm;
pub mod servers;
pub mod vrlist;

pub use lines::FileError;
pub use realm::{Realm, VolumeEntry};
