//! Servers as peers: who lives, who is asked, and what they promised.
//!
//! [`Peers`] is the whole of it. It finds realms and volumes, keeps one session with every server it
//! talks to, decides who is dead, and carries questions to one, any or all members of a group. What the
//! answers mean is for the layers above.
//!
//! A newcomer would get two things wrong. A dead server costs its callers one stall of `rpc_timeout`
//! between them, not one each: when one call finds the silence, all calls to that server end. And a
//! promise is only worth something while its session is heard from, so every way in which the session
//! with a living server can end says [`PeerEvent::Lost`].

pub mod ask;
mod cop2;
pub mod error;
mod flight;
mod latency;
mod learn;
pub mod liveness;
mod locate;
mod peers;
mod probe;
mod race;
mod server;
mod session;
mod status;
#[cfg(test)]
mod tests;

use std::time::Duration;

use coda_proto::{Fid, ServerId};

pub use crate::{
    callback::Ack,
    realm::Known,
    volume::{Group, Member, MemberState, VolumeKey},
};
pub use ask::{Gathered, Told};
pub use error::AskError;
pub use liveness::Liveness;
pub use peers::Peers;
pub use status::ServerStatus;

/// What the layer must know about us.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// Names this cache manager's store.
    pub instance: [u8; 16],
    /// Our name, for people at the server.
    pub host: String,
    /// Our version, for the same.
    pub version: String,
    /// A server silent on a call for so long is dead.
    pub rpc_timeout: Duration,
}

impl PeersConfig {
    /// The usual silence limit, for the store of this name.
    pub fn new(instance: [u8; 16]) -> PeersConfig {
        PeersConfig {
            instance,
            host: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rpc_timeout: Duration::from_secs(15),
        }
    }
}

/// What the layers above are told, in order.
#[derive(Debug)]
pub enum PeerEvent {
    /// These objects changed: the server's promises for them and for their volumes as a whole are void.
    /// To be acknowledged once the cache is marked.
    Broken {
        /// Where.
        realm: String,
        /// Who says so.
        server: ServerId,
        /// What changed.
        fids: Vec<Fid>,
        /// To be used once the cache is marked.
        ack: Ack,
    },
    /// All promises of this server are void, or it is asked again after it was left out by order.
    Lost {
        /// Where.
        realm: String,
        /// Whose.
        server: ServerId,
    },
    /// A server answers that did not before.
    Up {
        /// Where.
        realm: String,
        /// Who.
        server: ServerId,
        /// Others were asked in its absence: it may hold what they have not seen. Not so at the first
        /// contact, for which everybody waited.
        away: bool,
    },
    /// A server is dead or disconnected. Promises of the other members stand, and cover what is cached
    /// until it is `Up` again.
    Down {
        /// Where.
        realm: String,
        /// Who.
        server: ServerId,
    },
    /// A volume has other members: what is cached of it must be validated again.
    GroupChanged {
        /// Where.
        realm: String,
        /// The group as it is now.
        group: Group,
    },
    /// What [`Peers::known`] answers has changed, and wants to be kept on disk.
    Known,
}
