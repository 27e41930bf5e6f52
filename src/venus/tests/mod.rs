//! Stories of whole cache managers and real servers.

mod coherence;
mod failures;
mod files;
mod stalls;
mod world;
