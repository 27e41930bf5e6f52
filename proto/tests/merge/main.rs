//! The join, tried out: small cases exhaustively, long histories at random.
//!
//! The oracle is the true causal order. Every record remembers the set of records that its author's state
//! held when it was made; from these sets alone, and nothing the product computes, follows what every
//! state must look like.

mod contents;
mod laws;
mod names;
mod oracle;
mod outcomes;
mod pairs;
mod refusals;
mod site;
mod walk;
