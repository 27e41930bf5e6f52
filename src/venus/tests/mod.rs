//! Stories of whole cache managers and real servers.

mod apart;
mod askers;
mod authors;
mod bounded;
mod coherence;
mod conflicts;
mod failures;
mod files;
mod groups;
mod hoard;
mod log;
mod salvage;
mod seals;
mod stalls;
mod world;
