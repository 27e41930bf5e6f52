//! A server on the network.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use coda_net::{
    Authority, Credentials, Listener, certificate::Holder, credentials::CredentialsError,
    listener::ListenError,
};

use super::{NetEnv, now};
use crate::{Server, ServerConfig, Signed, Signer, store::StoreError};

/// A server that listens. Dropped, it stops.
pub struct CodaServer {
    server: Arc<Server>,
    listener: Option<Listener>,
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
    pub fn start(mut config: ServerConfig, listen: SocketAddr) -> Result<CodaServer, StartError> {
        if !config.dir.join("server.db").exists() {
            return Err(StoreError::Missing(config.dir).into());
        }
        let credentials = Credentials::load(&config.dir, "server")?;
        config.signer = config.signer.or(signer(&config.dir)?);
        let dir = config.dir.display().to_string();
        let server = Server::open(config, Arc::new(NetEnv::new(&credentials)?))?;
        if credentials.subject().holder != Holder::Server(server.id()) {
            let id = server.id().0;
            server.stop();
            return Err(StartError::Stranger(dir, credentials.subject().to_string(), id));
        }
        let listener = match Listener::bind(listen, &credentials, server.clone()) {
            Ok(listener) => listener,
            Err(error) => {
                server.stop();
                return Err(error.into());
            }
        };
        server.refresh_soon();
        Ok(CodaServer { server, address: listener.local_addr(), listener: Some(listener) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The server itself.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Tells its clients, closes its connections and its store.
    pub async fn shutdown(mut self) {
        self.server.say_goodbye();
        if let Some(listener) = self.listener.take() {
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

/// Signs with the authority in `dir`, if there is one.
fn signer(dir: &Path) -> Result<Option<Signer>, StartError> {
    if !dir.join("ca.key").exists() {
        return Ok(None);
    }
    let authority = Authority::load(dir)?;
    let sign = move |server, request: &[u8]| {
        let certificate = authority.sign_server(server, request, now()).map_err(|why| why.to_string())?;
        Ok(Signed { certificate: certificate.to_vec(), authority: authority.certificate().to_vec() })
    };
    Ok(Some(Signer(Arc::new(sign))))
}
