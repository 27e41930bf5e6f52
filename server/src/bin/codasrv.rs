//! codasrv: serves replicas of a realm's volumes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use coda_proto::{Rights, wire};
use coda_server::{
    Durability, ServerConfig,
    location::servers,
    setup,
    shell::{CodaServer, files, join, nanoseconds, token::Token},
    store::{RealmStore, StoreLock, fsck},
};
use tokio::signal::unix::{SignalKind, signal};

/// Serves replicas of a Coda realm's volumes.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where the server keeps everything.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Address to listen at [default: every address, at the port that the realm knows].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Loopback address at which Prometheus finds the server's numbers [default: nowhere].
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a new realm with this server as its first: identity, authority, admin key, root volume.
    Init {
        /// Name of the realm.
        #[arg(long)]
        realm: String,
        /// Where the server keeps everything.
        #[arg(long)]
        dir: PathBuf,
        #[command(flatten)]
        own: Own,
        /// Rights of System:AnyUser on the root volume, for as long as a realm has no users.
        #[arg(long, default_value = "rlidwka", value_name = "RIGHTS")]
        anyuser: Rights,
    },
    /// Looks whether the store of a server that is not running is sound. Changes nothing.
    Check {
        /// Where the server keeps everything.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Says that what is here is all there is: replicas that wait for peers, which are lost, serve again.
    Accept {
        /// Where the server keeps everything.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Enrols this server in a realm, with a token from `volutil invite`.
    Join {
        /// The realm's SCM.
        #[arg(long, value_name = "HOST[:PORT]", value_parser = endpoint)]
        scm: wire::Endpoint,
        /// What `volutil invite` printed.
        #[arg(long)]
        token: Token,
        /// Where the server keeps everything.
        #[arg(long)]
        dir: PathBuf,
        #[command(flatten)]
        own: Own,
    },
}

/// Looks whether a store that nobody serves is sound.
fn check(dir: &std::path::Path) -> anyhow::Result<()> {
    let _lock = StoreLock::take(dir)?;
    let findings = fsck::check(dir)?;
    findings.iter().for_each(|finding| println!("{finding}"));
    match findings.len() {
        0 => println!("{}: sound", dir.display()),
        count => anyhow::bail!("{}: {count} findings", dir.display()),
    }
    Ok(())
}

#[derive(clap::Args)]
struct Own {
    /// Name of this server [default: the host's].
    #[arg(long)]
    name: Option<String>,
    /// Where clients and other servers reach it [default: its name, port 2432].
    #[arg(long, value_name = "HOST[:PORT]", value_parser = endpoint)]
    endpoint: Option<wire::Endpoint>,
}

impl Own {
    fn resolve(self) -> anyhow::Result<(String, wire::Endpoint)> {
        let name = match self.name {
            Some(name) => name,
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned(),
        };
        let endpoint = match self.endpoint {
            Some(endpoint) => endpoint,
            None => endpoint(&name).map_err(anyhow::Error::msg)?,
        };
        Ok((name, endpoint))
    }
}

fn endpoint(text: &str) -> Result<wire::Endpoint, String> {
    let (host, port) = servers::endpoint(text)?;
    Ok(wire::Endpoint { host, port: port.into(), peer_only: false })
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CODASRV_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(Cli::parse()))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("codasrv: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    match (cli.command, cli.dir) {
        (Some(Command::Init { realm, dir, own, anyuser }), _) => {
            let (name, endpoint) = own.resolve()?;
            let at = format!("{}:{}", endpoint.host, endpoint.port);
            join::init(&realm, &dir, &name, endpoint, anyuser)?;
            println!("Realm {realm} is made, with its root volume on {name}.");
            println!("Serve it:          codasrv --dir {}", dir.display());
            println!("Administer it:     volutil --dir {} --host {at} list", dir.display());
            println!("Clients find it:   {realm} {at} ca={}", dir.join("ca.pem").display());
            Ok(())
        }
        (Some(Command::Join { scm, token, dir, own }), _) => {
            let (name, endpoint) = own.resolve()?;
            let id = join::join(scm, &token, &dir, &name, endpoint).await?;
            println!("{name} is server {id} of {}.", token.realm);
            println!("Serve it:          codasrv --dir {}", dir.display());
            Ok(())
        }
        (Some(Command::Check { dir }), _) => check(&dir),
        (Some(Command::Accept { dir }), _) => {
            let _lock = StoreLock::take(&dir)?;
            let accepted = setup::accept(&dir, Durability::Full, nanoseconds())?;
            accepted.iter().for_each(|volume| println!("volume {volume} serves what is here"));
            Ok(())
        }
        (None, Some(dir)) => serve(dir, cli.listen, cli.metrics).await,
        (None, None) => {
            anyhow::bail!("--dir is missing; `codasrv init` makes a realm, `codasrv join` joins one")
        }
    }
}

async fn serve(dir: PathBuf, listen: Option<SocketAddr>, metrics: Option<SocketAddr>) -> anyhow::Result<()> {
    files::make_room(&dir)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = match listen {
        Some(listen) => CodaServer::start(ServerConfig::new(dir), listen)?,
        None => {
            let (own, realm) = RealmStore::look(&dir)?.load()?;
            let endpoints = realm.servers.get(&own).map(|server| server.endpoints.clone());
            let port = endpoints
                .unwrap_or_default()
                .first()
                .map_or(coda_proto::DEFAULT_PORT, |endpoint| endpoint.port as u16);
            let everywhere = |address: IpAddr| SocketAddr::new(address, port);
            CodaServer::start(ServerConfig::new(&dir), everywhere(Ipv6Addr::UNSPECIFIED.into())).or_else(
                |_| CodaServer::start(ServerConfig::new(&dir), everywhere(Ipv4Addr::UNSPECIFIED.into())),
            )?
        }
    };
    let numbers = match metrics {
        Some(address) => {
            let (listener, shown) = (coda_net::metrics::bind(address).await?, server.server().clone());
            println!("codasrv: metrics at http://{}/metrics", listener.local_addr()?);
            let page = move || {
                let shown = shown.clone();
                async move { coda_server::shell::metrics::page(&shown) }
            };
            Some(tokio::spawn(coda_net::metrics::serve(listener, page)))
        }
        None => None,
    };
    println!(
        "codasrv: server {} of {} listens at {}",
        server.server().id(),
        server.server().realm().name,
        server.local_addr()
    );
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    numbers.iter().for_each(|numbers| numbers.abort());
    server.shutdown().await;
    Ok(())
}
