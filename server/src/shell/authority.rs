//! The key of the realm's authority, at every server that may be the SCM some day.
//!
//! It is made where the realm was made. A server that lacks it asks the others, over a connection on which both
//! have proved with their certificates which server of the realm they are, and keeps it in `ca.key`, readable for
//! its own user only. So a promoted SCM can sign for further servers when the first one is gone for good. The
//! price: whoever breaks into any of these servers has the realm. `pass_authority=no` in server.conf leaves the key
//! where it is.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use coda_net::{Authority, Credentials};
use coda_proto::wire::{self, admin::Body as Ask, request, response::Body};

use super::{join::SILENCE, now};
use crate::{AuthorityKey, Server, Signed, Signer};

/// Between two rounds of questions, at first and at last.
const SOON: Duration = Duration::from_secs(1);
const AT_LAST: Duration = Duration::from_secs(600);

/// Whether the key is in a server's directory.
pub fn is_here(dir: &Path) -> bool {
    dir.join("ca.key").exists()
}

/// Signs with the authority in `dir`, whenever it comes there.
pub fn signer(dir: &Path) -> Signer {
    let (at, home) = (dir.to_owned(), dir.to_owned());
    let sign = move |server, request: &[u8]| {
        let authority = Authority::load(&at).map_err(|why| why.to_string())?;
        let certificate = authority.sign_server(server, request, now()).map_err(|why| why.to_string())?;
        Ok(Signed { certificate: certificate.to_vec(), authority: authority.certificate().to_vec() })
    };
    Signer { sign: Arc::new(sign), here: Arc::new(move || is_here(&home)) }
}

/// Reads the key in `dir` for those who may have it.
pub fn lend(dir: &Path) -> AuthorityKey {
    let dir = dir.to_owned();
    AuthorityKey(Arc::new(move || match is_here(&dir) {
        true => match Authority::load(&dir) {
            Ok(authority) => Some(authority.secret()),
            Err(error) => {
                tracing::error!(%error, "the authority's key cannot be read");
                None
            }
        },
        false => None,
    }))
}

/// Asks the other servers for the key until one gives it.
pub async fn obtain(server: Weak<Server>, dir: PathBuf, credentials: Credentials) {
    let mut pause = SOON;
    loop {
        {
            let Some(server) = server.upgrade().filter(|server| !server.is_stopped()) else { return };
            if is_here(&dir) || ask(&server, &dir, &credentials).await {
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AT_LAST);
    }
}

async fn ask(server: &Server, dir: &Path, credentials: &Credentials) -> bool {
    let realm = server.realm();
    let mut others: Vec<_> = realm.servers.iter().filter(|(id, _)| **id != server.id()).collect();
    others.sort_by_key(|(id, _)| **id != realm.scm);
    for (id, info) in others {
        let admin = wire::Admin { body: Some(Ask::GetAuthority(wire::GetAuthority {})) };
        let request = wire::Request { body: Some(request::Body::Admin(admin)), ..Default::default() };
        let asked = server.env().call_peer(info, request, bytes::Bytes::new(), SILENCE).await;
        let Ok((wire::Response { body: Some(Body::Admin(answer)), .. }, _)) = asked else { continue };
        let kept = Authority::passed_on(credentials.authority(), &answer.authority_key, now())
            .and_then(|authority| authority.save(dir));
        match kept {
            Ok(()) => {
                tracing::info!(from = %id, "this server has the key of the realm's authority");
                return true;
            }
            Err(error) => tracing::error!(from = %id, %error, "what it passed on is not the authority's key"),
        }
    }
    false
}
