//! Making and joining realms: what `codasrv init` and `codasrv join` do.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use coda_net::{Authority, CallError, Credentials, Dialer, Priority, Target, Trust, credentials};
use coda_proto::{
    Refusal, Rights, ServerId,
    wire::{self, request, response::Body},
};

use super::{Certified, NetEnv, nanoseconds, now, token::Token};
use crate::{
    Durability,
    location::{Realm, servers},
    setup,
    store::{RealmStore, has_replicas},
};

/// How long a server may show no sign of life.
pub const SILENCE: Duration = Duration::from_secs(15);

/// Makes a realm whose first server, and SCM, is this one: authority, keys, store and root volume.
pub fn init(
    realm: &str,
    dir: &Path,
    name: &str,
    endpoints: Vec<wire::Endpoint>,
    any: Rights,
) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let left =
        ["server.db", "ca.key", "admin.key", "server.key"].into_iter().find(|name| dir.join(name).exists());
    if let Some(left) = left {
        bail!("{}: there is a server store already, or what is left of one: {left}", dir.display());
    }
    not_over_replicas(dir)?;
    servers::check_name(name).map_err(anyhow::Error::msg)?;
    let own = ServerId(1);
    let server = wire::ServerInfo { id: own.0.into(), name: name.to_owned(), endpoints };
    let mut made = setup::realm(realm, vec![server], any)?;
    made.volumes.values_mut().for_each(|volume| volume.more.created = nanoseconds());
    let authority = Authority::create(realm, now())?;
    authority.save(dir)?;
    authority.issue_server(own, now())?.save(dir, "server")?;
    authority.issue_admin(now())?.save(dir, "admin")?;
    // The database comes last: a store that is half made has none, and is not served.
    setup::create(dir, own, &made, &[], Durability::Full, nanoseconds())?;
    Ok(())
}

/// Enrols this server with the SCM of a realm. Answers its id, and its name: that of the invitation, if that has one.
/// Where it fails, nothing is left of it.
pub async fn join(
    scm: wire::Endpoint,
    token: &Token,
    dir: &Path,
    name: &str,
    endpoints: Vec<wire::Endpoint>,
) -> anyhow::Result<(ServerId, String)> {
    let made = !dir.exists();
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    if dir.join("server.db").exists() {
        bail!("{}: there is a server store already", dir.display());
    }
    not_over_replicas(dir)?;
    // The token says which authority to believe.
    let known = dir.join("known_realms");
    fs::write(&known, format!("{} {}\n", token.realm, token.fingerprint))?;
    let joined = enrol(scm, token, (dir, &known), name, endpoints).await;
    fs::remove_file(&known)?;
    if joined.is_err() && made {
        // Not where there is anything in it.
        let _ = fs::remove_dir(dir);
    }
    joined
}

/// A new server makes nothing over what another left.
fn not_over_replicas(dir: &Path) -> anyhow::Result<()> {
    match has_replicas(dir) {
        true => {
            bail!("{}: there are replicas in vol, of another server: name another directory", dir.display())
        }
        false => Ok(()),
    }
}

async fn enrol(
    scm: wire::Endpoint,
    token: &Token,
    (dir, known): (&Path, &Path),
    name: &str,
    endpoints: Vec<wire::Endpoint>,
) -> anyhow::Result<(ServerId, String)> {
    let dialer = Dialer::new(Arc::new(Trust::on_first_use(known)), None)?;
    let target =
        Target { realm: token.realm.clone(), host: scm.host.clone(), port: scm.port as u16, server: None };
    let (key, request) = credentials::request()?;
    let enroll = wire::Enroll {
        token: token.secret.clone(),
        name: name.to_owned(),
        request: request.into(),
        endpoints,
    };
    let request = wire::Request { body: Some(request::Body::Enroll(enroll)), ..wire::Request::default() };
    let asked = dialer.call(&target, request, Bytes::new(), Priority::Foreground, SILENCE).await;
    let (response, _) = match asked {
        Err(CallError::Untrusted(_)) => bail!(
            "{}:{}: its authority is not the one that the token names. Is the token whole? `volutil invite` prints another",
            scm.host,
            scm.port
        ),
        asked => asked.with_context(|| format!("{}:{}", scm.host, scm.port))?,
    };
    let enrolled = match answer(response)? {
        Body::Enrolled(enrolled) => enrolled,
        other => bail!("the SCM answers something else: {other:?}"),
    };
    let own = ServerId::new(enrolled.server)?;
    let mine = Credentials::enrolled(&enrolled.certificate, &enrolled.ca, &key)?;
    mine.save(dir, "server")?;
    let (realm, log) = super::scm::log(&NetEnv::new(&mine)?, &scm, &Certified(mine.clone())).await?;
    // No replica is made here: the SCM puts volumes on this server when it is told to.
    RealmStore::create_with(dir, own, &realm, &log, Durability::Full)?;
    let called = realm.servers.get(&own).map_or_else(|| name.to_owned(), |info| info.name.clone());
    Ok((own, called))
}

/// The realm's configuration, as the server at `endpoint` knows it.
pub async fn configuration(env: &NetEnv, endpoint: &wire::Endpoint) -> anyhow::Result<Realm> {
    let ask = wire::admin::Body::GetConfig(wire::GetConfig {});
    match administer(env, endpoint, ask).await?.config {
        Some(config) => Ok(Realm::try_from(config)?),
        None => bail!("{}:{} tells no configuration", endpoint.host, endpoint.port),
    }
}

/// One administrator's request.
pub async fn administer(
    env: &NetEnv,
    endpoint: &wire::Endpoint,
    ask: wire::admin::Body,
) -> anyhow::Result<wire::AdminAnswer> {
    let admin = wire::Admin { body: Some(ask) };
    let request = wire::Request { body: Some(request::Body::Admin(admin)), ..wire::Request::default() };
    let (response, _) = env
        .call(endpoint, None, request, Bytes::new(), SILENCE)
        .await
        .with_context(|| format!("{}:{}", endpoint.host, endpoint.port))?;
    match answer(response)? {
        Body::Admin(answer) => Ok(answer),
        other => bail!("the server answers something else: {other:?}"),
    }
}

fn answer(response: wire::Response) -> anyhow::Result<Body> {
    match response.body {
        Some(Body::Refusal(refusal)) => Err(Refusal::try_from(refusal)?.into()),
        Some(body) => Ok(body),
        None => bail!("an empty answer"),
    }
}
