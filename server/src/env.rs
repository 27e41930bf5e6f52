//! The doors of a server: peers, time and chance. Files and SQLite stand below `store`.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{ServerId, wire};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a peer did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Closed, cut off, or silent for as long as we wait.
    #[error("server {0} is unreachable: {1}")]
    Unreachable(ServerId, String),
}

/// What a server needs from the world.
pub trait Env: Send + Sync + 'static {
    /// Asks another server of the realm, at the endpoints the realm's configuration names.
    fn call_peer(
        &self,
        to: &wire::ServerInfo,
        request: wire::Request,
        bulk: Bytes,
        silence: Duration,
    ) -> BoxFuture<'static, Result<(wire::Response, Bytes), PeerError>>;
    /// The wall clock, in nanoseconds since 1970.
    fn now(&self) -> i64;
    /// 64 random bits.
    fn random(&self) -> u64;
    /// Runs a task until it ends.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// A world of which the log says when a peer is lost, and when it is back: once, however often it is asked.
pub(crate) struct Noticing {
    world: Arc<dyn Env>,
    lost: Arc<Mutex<BTreeSet<u32>>>,
}

impl Noticing {
    pub(crate) fn new(world: Arc<dyn Env>) -> Noticing {
        Noticing { world, lost: Arc::default() }
    }
}

impl Env for Noticing {
    fn call_peer(
        &self,
        to: &wire::ServerInfo,
        request: wire::Request,
        bulk: Bytes,
        silence: Duration,
    ) -> BoxFuture<'static, Result<(wire::Response, Bytes), PeerError>> {
        let (peer, name, lost) = (to.id, to.name.clone(), self.lost.clone());
        let asked = self.world.call_peer(to, request, bulk, silence);
        Box::pin(async move {
            let answer = asked.await;
            let mut lost = lost.lock().expect("never held across a panic");
            match &answer {
                Err(why) if lost.insert(peer) => tracing::warn!(peer, name, %why, "a peer is lost"),
                Ok(_) if lost.remove(&peer) => tracing::info!(peer, name, "a peer is back"),
                _ => {}
            }
            answer
        })
    }
    fn now(&self) -> i64 {
        self.world.now()
    }
    fn random(&self) -> u64 {
        self.world.random()
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.world.spawn(task);
    }
}
