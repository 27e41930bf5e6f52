//! Whole processes: the demonstration, and venus with servers that are killed, stopped and brought back.

#[path = "../support/mod.rs"]
mod support;

mod askers;
mod conflict;
mod demo;
mod failover;
mod helper;
mod killed;
mod net;
mod partitions;
mod servers;
mod silent;
mod world;
