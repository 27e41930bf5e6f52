//! A server on the network.

use std::{io, net::SocketAddr, sync::Arc};

use coda_net::{
    Authority, Credentials, Hears, Limits, Listener, certificate::Holder, credentials::CredentialsError,
    listener::ListenError,
};

use super::{
    Certified, NetEnv, authority,
    ports::{Door, Network, Port, allowed},
};
use crate::{Sealing, Server, ServerConfig, store::StoreError};

/// A server that listens. Dropped, it stops.
pub struct CodaServer {
    server: Arc<Server>,
    listeners: Vec<Listener>,
    address: SocketAddr,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its certificate or key.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Its credentials are somebody else's.
    #[error("{0}: these are the credentials of {1}, not of server {2}")]
    Stranger(String, String, u8),
    /// Its socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The socket it calls its peers from.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
}

impl CodaServer {
    /// Serves the store at `config.dir` at this address, port 0 for any. Its credentials are
    /// `server.pem` and `server.key` there; if the realm's authority is there too, it signs. Needs a
    /// tokio runtime around it.
    pub fn start(config: ServerConfig, listen: SocketAddr) -> Result<CodaServer, StartError> {
        CodaServer::start_at(config, &[(Port::Client, listen)], &[])
    }

    /// The same with a port for each kind of caller, the clients' among them, and the networks that each hears.
    pub fn start_at(
        mut config: ServerConfig,
        ports: &[(Port, SocketAddr)],
        allow: &[(Port, Network)],
    ) -> Result<CodaServer, StartError> {
        if !config.dir.join("server.db").exists() {
            return Err(StoreError::none_in(&config.dir).into());
        }
        let credentials = Credentials::load(&config.dir, "server")?;
        if authority::is_here(&config.dir) {
            // One that is damaged is told of now rather than when it is needed.
            Authority::load(&config.dir)?;
        }
        config.signer = config.signer.or(Some(authority::signer(&config.dir)));
        if config.pass_authority {
            config.authority = config.authority.or(Some(authority::lend(&config.dir)));
        }
        let (passes, home) = (config.pass_authority, config.dir.clone());
        config.seal = config.seal.or(Some(Sealing(Arc::new(Certified(credentials.clone())))));
        let dir = config.dir.display().to_string();
        let server = Server::open(config, Arc::new(NetEnv::new(&credentials)?))?;
        if credentials.subject().holder != Holder::Server(server.id()) {
            let id = server.id().0;
            server.stop();
            return Err(StartError::Stranger(dir, credentials.subject().to_string(), id));
        }
        let mut listeners = Vec::new();
        for (port, at) in ports {
            let networks: Vec<Network> =
                allow.iter().filter(|(other, _)| other == port).map(|(_, network)| *network).collect();
            let hears = match networks.is_empty() {
                true => Hears::Everybody,
                false => Hears::Only(Arc::new(move |from| allowed(&networks, from))),
            };
            let all = ports.iter().map(|(port, _)| *port).collect();
            let door = Door { service: server.clone(), port: *port, ports: all };
            let limits = Limits { hears, ..Limits::default() };
            match Listener::bind_with(*at, &credentials, Arc::new(door), limits) {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    server.stop();
                    return Err(error.into());
                }
            }
        }
        let clients = ports.iter().position(|(port, _)| *port == Port::Client).unwrap_or_default();
        let address = match listeners.get(clients) {
            Some(listener) => listener.local_addr(),
            None => return Err(io::Error::other("there is no port to listen at").into()),
        };
        server.refresh_soon();
        if passes && !authority::is_here(&home) {
            tokio::spawn(authority::obtain(Arc::downgrade(&server), home, credentials));
        }
        Ok(CodaServer { server, address, listeners })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, in the order of the ports it was given.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listener::local_addr).collect()
    }

    /// The server itself.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Tells its clients, closes its connections and its store.
    pub async fn shutdown(mut self) {
        self.server.say_goodbye();
        for listener in std::mem::take(&mut self.listeners) {
            listener.shutdown().await;
        }
        self.server.stop();
    }
}

impl Drop for CodaServer {
    fn drop(&mut self) {
        self.server.stop();
    }
}
