//! The demonstration's realm: its servers, made at the first run and started again at the next.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use coda_net::Authority;
use coda_proto::{Rights, ServerId, wire};
use coda_server::{Durability, ServerConfig, setup, shell::CodaServer};

use super::super::ending::Signals;

/// Its name. Without a dot it never reaches DNS.
pub const REALM: &str = "demo";

/// The servers, running in this process.
pub struct Servers(Vec<CodaServer>);

impl Servers {
    /// Starts `count` servers whose stores lie in `state`; the realm is made if there is none.
    pub async fn start(state: &Path, count: u8) -> anyhow::Result<Servers> {
        if !state.join("realms").exists() {
            make(state, count)?;
        }
        let there = (1..).take_while(|id| directory(state, *id).exists()).count();
        if there != usize::from(count) {
            bail!("the realm in {} has {there} server(s), not {count}", state.display());
        }
        let servers = (1..=count).map(|id| start(state, id)).collect::<anyhow::Result<_>>()?;
        Ok(Servers(servers))
    }

    /// Stops them.
    pub async fn stop(self) {
        futures::future::join_all(self.0.into_iter().map(CodaServer::shutdown)).await;
    }
}

/// `venus demo-server STATE ID`: one server of a demonstration's realm as a process of its own, which tests
/// kill and stop.
pub async fn alone(state: PathBuf, id: u8) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    super::log::begin("info", None)?;
    let server = start(&state, id)?;
    fs::write(state.join(format!("server{id}.ready")), std::process::id().to_string())?;
    signals.next().await;
    server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn directory(state: &Path, id: u8) -> PathBuf {
    state.join(format!("server{id}"))
}

fn start(state: &Path, id: u8) -> anyhow::Result<CodaServer> {
    let directory = directory(state, id);
    let port: u16 = fs::read_to_string(directory.join("port"))?.trim().parse()?;
    let address = ([127, 0, 0, 1], port).into();
    CodaServer::start(ServerConfig::new(&directory), address)
        .with_context(|| format!("server {id} on port {port}"))
}

/// Makes the stores of all servers, with a root volume and `home` mounted below it. The realms file comes
/// last: a realm that was half made has none, and is made again.
fn make(state: &Path, count: u8) -> anyhow::Result<()> {
    let ports = free_ports(count)?;
    let servers = (1..).zip(&ports).map(|(id, port)| wire::ServerInfo {
        id,
        name: format!("server{id}"),
        endpoints: vec![wire::Endpoint {
            host: "127.0.0.1".into(),
            port: u32::from(*port),
            peer_only: false,
        }],
    });
    let mut realm = setup::realm(REALM, servers.collect(), Rights::ALL)?;
    let root = *realm.volumes.keys().next().context("a realm has a root volume")?;
    setup::add_volume(&mut realm, "home", Rights::ALL);
    let records = [setup::mount(root, "home", "home", 1)];

    #[allow(clippy::disallowed_methods)] // The shell reads the clock for everybody.
    let now = std::time::SystemTime::now();
    let authority = Authority::create(REALM, now)?;
    authority.save(state)?;
    for (id, port) in (1..).zip(&ports) {
        let (directory, own) = (directory(state, id), ServerId::new(id.into())?);
        fs::remove_dir_all(&directory).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        fs::create_dir(&directory)?;
        setup::create(&directory, own, &realm, &records, Durability::Full, crate::fuse::nanos(now))?;
        authority.issue_server(own, now)?.save(&directory, "server")?;
        fs::write(directory.join("port"), port.to_string())?;
    }
    let addresses: String = ports.iter().map(|port| format!(" 127.0.0.1:{port}")).collect();
    fs::write(state.join("realms"), format!("{REALM}{addresses} ca=ca.pem\n"))?;
    Ok(())
}

/// Ports that nobody uses at this moment.
fn free_ports(count: u8) -> anyhow::Result<Vec<u16>> {
    let sockets = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(sockets.iter().map(|socket| socket.local_addr().map(|at| at.port())).collect::<Result<_, _>>()?)
}
