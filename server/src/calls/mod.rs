//! What each call does.

mod admin;
mod apply;
mod conflicts;
mod location;
pub mod manage;
mod read;
mod repair;
mod replica;
mod scm;
mod upload;
mod validate;

pub(crate) use read::served;
pub(crate) use upload::Uploads;

use coda_proto::{Refusal, service::Identity, wire};

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// What it has proved to be.
    pub who: Identity,
    /// Its session; 0: none.
    pub session: u64,
}

/// An answer and the raw bytes behind it.
pub type Answer = Result<(wire::response::Body, bytes::Bytes), Refusal>;

/// An answer without bytes.
pub fn plain(body: wire::response::Body) -> Answer {
    Ok((body, bytes::Bytes::new()))
}
