//! Stories of whole cache managers and real servers.

mod apart;
mod coherence;
mod failures;
mod files;
mod seals;
mod stalls;
mod world;
