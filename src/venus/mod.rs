//! The assembled manager: what the FUSE adapter, the control socket and the simulator call.

pub mod face;
