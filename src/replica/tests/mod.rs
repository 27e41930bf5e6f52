//! Stories about servers that fall silent, die, return or lie, in simulated time.

mod death;
mod promises;
mod real;
mod realms;
mod world;
