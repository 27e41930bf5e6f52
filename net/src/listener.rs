//! A server's open door: it carries a `Service` over QUIC.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use coda_proto::service::Service;
use quinn::{Endpoint, ServerConfig, TokioRuntime, VarInt};
use tokio::{sync::Semaphore, time::timeout};

use crate::{Credentials, room::Memory, serve, tls, transport};

/// What one peer may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Handshakes under way, beyond which a caller must first prove that it owns its address.
    pub handshakes: usize,
    /// Calls that a connection has in the service's hands.
    pub calls: usize,
    /// Bytes of requests that a connection makes us hold, as many again of bulk, and as many of answers until it has
    /// taken them.
    pub held: u32,
    /// Bytes of requests that all connections together make us hold, as many again of bulk, and as many of answers.
    /// Who asks for more waits for its turn, and who keeps room by being slow is given up then.
    pub held_in_all: u32,
    /// How long a peer may stop in the middle of a request or an answer.
    pub patience: Duration,
    /// How often a caller hears that we are still working.
    pub working_every: Duration,
    /// And for how long: then we admit that something hangs, by silence.
    pub working_for: Duration,
    /// Which addresses are heard at all.
    pub hears: Hears,
}

/// Which addresses a door hears. Whoever else knocks gets no answer whatever.
#[derive(Clone, Default)]
pub enum Hears {
    /// All.
    #[default]
    Everybody,
    /// Those of which this says so. They may not move to another address, as others may.
    Only(Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>),
}

impl std::fmt::Debug for Hears {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Hears::Everybody => "Everybody",
            Hears::Only(_) => "Only",
        })
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 4096,
            handshakes: 128,
            calls: 256,
            held: 64 * 1024 * 1024,
            held_in_all: 1024 * 1024 * 1024,
            patience: Duration::from_secs(30),
            working_every: Duration::from_secs(2),
            working_for: Duration::from_secs(120),
            hears: Hears::Everybody,
        }
    }
}

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("{0}: {1}")]
    Socket(SocketAddr, io::Error),
    /// The credentials cannot be used.
    #[error("credentials: {0}")]
    Credentials(#[from] rustls::Error),
}

/// An open door. Dropping it closes it.
pub struct Listener {
    endpoint: Endpoint,
    address: SocketAddr,
}

/// The number under which a server that ends closes its connections.
pub(crate) const GOING_DOWN: VarInt = VarInt::from_u32(0);
/// The longest that a shutdown waits for peers to hear of it.
const FAREWELL: Duration = Duration::from_secs(2);

impl Listener {
    /// Serves at this address, port 0 for any, until dropped. Needs a tokio runtime around it.
    pub fn bind(
        address: SocketAddr,
        credentials: &Credentials,
        service: Arc<dyn Service>,
    ) -> Result<Listener, ListenError> {
        Listener::bind_with(address, credentials, service, Limits::default())
    }

    /// The same with other limits.
    pub fn bind_with(
        address: SocketAddr,
        credentials: &Credentials,
        service: Arc<dyn Service>,
        limits: Limits,
    ) -> Result<Listener, ListenError> {
        let failed = |error| ListenError::Socket(address, error);
        let mut config = ServerConfig::with_crypto(Arc::new(tls::server(credentials)?));
        config.transport_config(transport::answering());
        config.migration(matches!(limits.hears, Hears::Everybody));
        let endpoint = Endpoint::new(
            transport::server_end(&credentials.key()),
            Some(config),
            transport::socket(address).map_err(failed)?,
            Arc::new(TokioRuntime),
        )
        .map_err(failed)?;
        let address = endpoint.local_addr().map_err(failed)?;
        tokio::spawn(accept(endpoint.clone(), service, Arc::new(limits)));
        Ok(Listener { endpoint, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Tells every peer, and closes.
    pub async fn shutdown(self) {
        self.close();
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }

    fn close(&self) {
        self.endpoint.close(GOING_DOWN, b"the server is going down");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

async fn accept(endpoint: Endpoint, service: Arc<dyn Service>, limits: Arc<Limits>) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let memory = Arc::new(Memory::new(limits.held_in_all));
    while let Some(incoming) = endpoint.accept().await {
        if let Hears::Only(hears) = &limits.hears
            && !hears(incoming.remote_address())
        {
            tracing::debug!(peer = %incoming.remote_address(), "not heard: its address is not allowed");
            incoming.ignore();
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let handshake = handshakes.clone().try_acquire_owned().ok();
        if handshake.is_none() && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let (service, limits, memory) = (service.clone(), limits.clone(), memory.clone());
        tokio::spawn(async move {
            let peer = incoming.remote_address();
            match timeout(limits.patience, incoming).await {
                Ok(Ok(connection)) => {
                    drop(handshake);
                    serve::connection(connection, service, limits, memory).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no handshake"),
                Err(_) => tracing::debug!(%peer, "a handshake that never ends"),
            }
            drop(place);
        });
    }
}
