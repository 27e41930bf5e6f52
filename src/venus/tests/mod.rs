//! Stories of whole cache managers and real servers.

mod apart;
mod askers;
mod authors;
mod bounded;
mod coherence;
mod conflicts;
mod cut;
mod failures;
mod files;
mod groups;
mod hoard;
mod lasting;
mod log;
mod merges;
mod parted;
mod salvage;
mod seals;
mod slept;
mod stalls;
mod told;
mod tools;
mod users;
pub(crate) mod world;
