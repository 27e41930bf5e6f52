//! The Vice server: replicated volumes, callbacks, location.

pub mod env;
