//! The way to a realm's servers, with its admin key.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use coda_net::{Credentials, certificate::fingerprint};
use coda_proto::{
    Refusal, ServerId,
    wire::{self, admin::Body as Ask, request, response},
};

use super::exit::{Exit, Failed};
use crate::{
    env::Env,
    location::{Realm, servers},
    shell::{NetEnv, join},
    store::RealmStore,
};

/// Where the admin key is looked for unless somebody says where.
const DIRECTORIES: [&str; 2] = ["/vice", "/etc/coda"];

/// Says where the admin key is.
pub const DIRECTORY: &str = "CODA_ADMIN_DIR";

/// A realm, as an administrator reaches it.
pub struct Link {
    env: NetEnv,
    credentials: Credentials,
    dir: PathBuf,
    /// Whoever is asked first.
    pub at: wire::Endpoint,
    realm: String,
    fingerprint: String,
    silence: Duration,
}

/// The directory with the admin key: the one given, or named by the environment, or one of the usual.
pub fn directory(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if let Some(named) = std::env::var_os(DIRECTORY) {
        return Ok(named.into());
    }
    let usual = DIRECTORIES.iter().map(PathBuf::from).find(|dir| dir.join("admin.pem").exists());
    usual.ok_or_else(|| {
        let why = format!(
            "where is the admin key? Say --dir, or set {DIRECTORY}; a server's own directory will do"
        );
        Failed(Exit::Usage, why).into()
    })
}

impl Link {
    /// By the admin key in `dir`, to the server at `host`: if none is named, to the SCM that the store there
    /// knows.
    pub fn open(dir: &Path, host: Option<&str>, silence: Duration) -> anyhow::Result<Link> {
        if !dir.join("admin.pem").exists() {
            let why = format!(
                "{}: no admin.pem and admin.key here, which the first server's directory has, or a copy of them: say \
                 where with --dir or {DIRECTORY}",
                dir.display()
            );
            return Err(Failed(Exit::Usage, why).into());
        }
        let credentials = Credentials::load(dir, "admin")?;
        let known = || -> anyhow::Result<Realm> {
            if !dir.join("server.db").exists() {
                let why = format!("{}: the admin key alone knows no server: say --host", dir.display());
                return Err(Failed(Exit::Usage, why).into());
            }
            Ok(RealmStore::look(dir).context("which server? give --host")?.load()?.1)
        };
        let at = match host {
            Some(host) => {
                // A server's name, where the store here knows it; otherwise an address.
                let named = known().ok().and_then(|realm| {
                    let server = realm.servers.values().find(|server| server.name == host)?;
                    server.endpoints.first().cloned()
                });
                match named {
                    Some(at) => at,
                    None => {
                        let (host, port) = servers::endpoint(host).map_err(anyhow::Error::msg)?;
                        wire::Endpoint { host, port: port.into(), peer_only: false }
                    }
                }
            }
            None => {
                let realm = known()?;
                let scm = realm.servers.get(&realm.scm).context("the store knows no SCM")?;
                scm.endpoints.first().cloned().context("the SCM has no endpoint; give --host")?
            }
        };
        Ok(Link {
            env: NetEnv::new(&credentials)?,
            at,
            realm: credentials.subject().realm.clone(),
            fingerprint: fingerprint(credentials.authority()),
            silence,
            credentials,
            dir: dir.to_owned(),
        })
    }

    /// Name of the realm.
    pub fn realm_name(&self) -> &str {
        &self.realm
    }
    /// Of the realm's authority.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
    /// What calls go through.
    pub fn env(&self) -> &NetEnv {
        &self.env
    }
    /// The admin key.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }
    /// Where it was found.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The realm as the server asked first knows it.
    pub async fn realm(&self) -> anyhow::Result<Realm> {
        join::configuration(&self.env, &self.at).await
    }

    /// Asks whoever is asked first.
    pub async fn ask_here(&self, ask: Ask) -> anyhow::Result<wire::AdminAnswer> {
        join::administer(&self.env, &self.at, ask).await
    }

    /// Asks the realm's SCM, wherever it is.
    pub async fn ask(&self, ask: Ask) -> anyhow::Result<wire::AdminAnswer> {
        let realm = self.realm().await?;
        let scm = realm.servers.get(&realm.scm).context("the realm has no SCM")?;
        match scm.endpoints.contains(&self.at) {
            true => self.ask_here(ask).await,
            false => match self.ask_server(scm, ask.clone()).await {
                // Who was asked first knows what to say of an SCM that is away.
                Err(error) if super::exit::of(&error) == Exit::Unreachable => self.ask_here(ask).await,
                answer => answer.with_context(|| format!("the SCM, {}", scm.name)),
            },
        }
    }

    /// Asks one server of the realm.
    pub async fn ask_server(&self, server: &wire::ServerInfo, ask: Ask) -> anyhow::Result<wire::AdminAnswer> {
        let body = request::Body::Admin(wire::Admin { body: Some(ask) });
        match self.call(server, body, Bytes::new()).await? {
            (response::Body::Admin(answer), _) => Ok(answer),
            _ => bail!("{} answers something else", server.name),
        }
    }

    /// One call to one server.
    pub async fn call(
        &self,
        server: &wire::ServerInfo,
        body: request::Body,
        bulk: Bytes,
    ) -> anyhow::Result<(response::Body, Bytes)> {
        let request = wire::Request { bulk: bulk.len() as u32, body: Some(body), ..Default::default() };
        let (response, bulk) = self.env.call_peer(server, request, bulk, self.silence).await?;
        match response.body {
            Some(response::Body::Refusal(refusal)) => Err(Refusal::try_from(refusal)?.into()),
            Some(body) => Ok((body, bulk)),
            None => bail!("{} answers nothing", server.name),
        }
    }
}

/// A server by its name, its id, or the host where it is reached.
pub fn server<'r>(realm: &'r Realm, text: &str) -> anyhow::Result<&'r wire::ServerInfo> {
    // `SERVER:PARTITION` and `SERVER/PARTITION`: a server keeps everything in one place.
    let name = text.split_once('/').map_or(text, |(name, _)| name).trim_end_matches(':');
    let named = realm.servers.values().find(|server| server.name == name);
    let by_id = || name.parse().ok().and_then(|id| realm.servers.get(&ServerId::new(id).ok()?));
    let at = |server: &&wire::ServerInfo| {
        server.endpoints.iter().any(|at| at.host == name || format!("{}:{}", at.host, at.port) == name)
    };
    let by_host = || {
        let mut found = realm.servers.values().filter(at);
        found.next().filter(|_| found.next().is_none())
    };
    let found = named.or_else(by_id).or_else(by_host);
    found.ok_or_else(|| Failed(Exit::Refused, format!("{text}: no such server in {}", realm.name)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_goes_by_name_id_and_host_and_its_partition_is_left_out() {
        let info = |id: u32, name: &str, host: &str| wire::ServerInfo {
            id,
            name: name.into(),
            endpoints: vec![wire::Endpoint { host: host.into(), port: 2432, peer_only: false }],
        };
        let servers =
            vec![info(1, "scm", "10.0.0.1"), info(2, "replica", "10.0.0.2"), info(3, "c", "10.0.0.2")];
        let realm = crate::setup::realm("r", servers, coda_proto::Rights::ALL).unwrap();
        for (text, id) in [
            ("scm", 1),
            ("replica", 2),
            ("2", 2),
            ("10.0.0.1", 1),
            ("10.0.0.1:2432", 1),
            ("replica:/vicepa", 2),
            ("c/vicepa", 3),
        ] {
            assert_eq!(server(&realm, text).map(|server| server.id).ok(), Some(id), "{text}");
        }
        for text in ["10.0.0.2", "x", "9", ""] {
            assert!(server(&realm, text).is_err(), "{text}");
        }
    }
}
