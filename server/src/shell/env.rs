//! A server's doors, opened onto the real world.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use coda_net::{CallError, Credentials, Dialer, Priority, Target, Trust};
use coda_proto::{ServerId, wire};

use crate::env::{BoxFuture, Env, PeerError};

/// Peers over QUIC, the kernel's randomness, tokio's tasks.
pub struct NetEnv {
    dialer: Dialer,
    realm: String,
}

impl NetEnv {
    /// The world of the server (or administrator) that these credentials name.
    pub fn new(credentials: &Credentials) -> io::Result<NetEnv> {
        let realm = credentials.subject().realm.clone();
        let trust = Trust::pinned_only();
        trust.pin(&realm, credentials.authority().clone());
        Ok(NetEnv { dialer: Dialer::new(Arc::new(trust), Some(credentials.clone()))?, realm })
    }

    /// One call to whoever answers at an endpoint.
    pub async fn call(
        &self,
        to: &wire::Endpoint,
        server: Option<ServerId>,
        request: wire::Request,
        bulk: Bytes,
        silence: Duration,
    ) -> Result<(wire::Response, Bytes), CallError> {
        let target =
            Target { realm: self.realm.clone(), host: to.host.clone(), port: to.port as u16, server };
        self.dialer.call(&target, request, bulk, Priority::Background, silence).await
    }
}

impl Env for NetEnv {
    fn call_peer(
        &self,
        to: &wire::ServerInfo,
        request: wire::Request,
        bulk: Bytes,
        silence: Duration,
    ) -> BoxFuture<'static, Result<(wire::Response, Bytes), PeerError>> {
        let me = NetEnv { dialer: self.dialer.clone(), realm: self.realm.clone() };
        let to = to.clone();
        Box::pin(async move {
            let id = match ServerId::new(to.id) {
                Ok(id) => id,
                Err(error) => return Err(PeerError::Unreachable(ServerId(0), error.to_string())),
            };
            // Peers' own network first.
            let (peers, public): (Vec<_>, Vec<_>) =
                to.endpoints.iter().partition(|endpoint| endpoint.peer_only);
            let mut why = "no endpoint is known".to_owned();
            for endpoint in peers.into_iter().chain(public) {
                match me.call(endpoint, Some(id), request.clone(), bulk.clone(), silence).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => why = error.to_string(),
                }
            }
            Err(PeerError::Unreachable(id, why))
        })
    }

    fn now(&self) -> i64 {
        super::nanoseconds()
    }

    fn random(&self) -> u64 {
        getrandom::u64().expect("a kernel that runs us has random bits")
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}
