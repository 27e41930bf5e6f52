//! The deterministic world in which whole clients and servers run: one thread, tokio's paused clock, one seed.
//!
//! ```text
//!  main      plays seeds, prints the command that plays a failing one again
//!  ───────────────────────────────────────────────────────────────────────
//!  play      what people do: operations and faults drawn from the seed
//!  actor     one client's user; attributes: what it does besides names and contents
//!  oracle    what must hold: of every read, and of all servers at the end
//!  ledger    every record that reached a server, and what follows from all of them
//!  model     every operation with its beginning, end and outcome
//!  world     servers and clients: start, kill, cut, heal, settle         groups   replicas come and go
//!  annals    what the realm's log must be       succession  SCMs follow each other      seal   who signed it
//!  ageing    what takes years takes seconds     mysteries   small programs that some course of things must explain
//!  client    a client's doors (`venus::env`)      server   a server's doors
//!  net       delay, loss, reorder, duplicate, cuts          partition  shapes that cuts make
//!  disk      containers that lose unsynced writes when the power goes
//!  process   tasks that die together, at any await
//!  trace     what happened, line by line, and one digest of it
//!  chance    the seed
//! ```

pub mod actor;
mod ageing;
mod annals;
mod attributes;
pub mod chance;
pub mod client;
pub mod disk;
pub mod fabric;
mod groups;
pub mod ledger;
pub mod model;
pub mod mysteries;
pub mod net;
pub mod oracle;
pub mod partition;
pub mod play;
pub mod process;
mod seal;
pub mod server;
mod succession;
pub mod trace;
pub mod world;
