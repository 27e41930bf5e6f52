//! The doors of a server in the world.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{ServerId, service::Identity, wire};
use coda_server::env::{BoxFuture, Env, PeerError};

use crate::{
    chance::Chance,
    fabric::{Fabric, Failure, host},
    process::Process,
};

/// What one life of a server sees of the world.
pub struct ServerEnv {
    /// Everything that is shared.
    pub fabric: Fabric,
    /// Who it is.
    pub server: ServerId,
    /// Its tasks.
    pub process: Arc<Process>,
    /// Its chance.
    pub chance: Chance,
    /// How wrong its clock is, in nanoseconds; it may be set while it runs.
    pub wrong_by: Arc<AtomicI64>,
}

impl Env for ServerEnv {
    fn call_peer(
        &self,
        to: &wire::ServerInfo,
        request: wire::Request,
        bulk: Bytes,
        silence: Duration,
    ) -> BoxFuture<'static, Result<(wire::Response, Bytes), PeerError>> {
        let (fabric, me) = (self.fabric.clone(), self.server);
        let peer = ServerId::new(to.id);
        Box::pin(async move {
            let peer = peer.map_err(|error| PeerError::Unreachable(me, error.to_string()))?;
            fabric.call(&host(me), Identity::Server(me), &host(peer), request, bulk, silence).await.map_err(
                |error| {
                    let why = match error {
                        Failure::Unreachable(why) => why,
                        Failure::Silent => "silent".into(),
                    };
                    PeerError::Unreachable(peer, why)
                },
            )
        })
    }

    fn now(&self) -> i64 {
        self.fabric.now(self.wrong_by.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        self.chance.next()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.process.spawn(task);
    }
}
