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
    shell::{
        CodaServer, check,
        conf::{self, Conf},
        files, join, names, nanoseconds,
        ports::Port,
        srvlog,
        token::Token,
        vice,
    },
    store::{RealmStore, StoreLock, fsck},
    tools::confirm::Consent,
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
    /// Its settings [default: /etc/coda/server.conf, if there is one].
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Address to listen at [default: every address, at the port that the realm knows].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Answer as one JSON value: what a command did or found.
    #[arg(long, global = true)]
    json: bool,
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
    /// Says what is wrong with server.conf, with /etc/hosts and with the other servers.
    CheckConfig {
        /// The settings.
        #[arg(long, value_name = "FILE")]
        conf: Option<PathBuf>,
    },
    /// Looks whether the store of a server that is not running is sound. Changes nothing, unless it is to.
    Check {
        /// Put right what can be without asking another server.
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        consent: Consent,
        /// Where the server keeps everything.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Says that what is here is all there is: replicas that wait for peers, which are lost, serve again.
    Accept {
        /// Where the server keeps everything.
        #[arg(long)]
        dir: PathBuf,
        #[command(flatten)]
        consent: Consent,
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
fn check(dir: &std::path::Path, repair: bool, consent: Consent, json: bool) -> anyhow::Result<()> {
    let _lock = StoreLock::take(dir)?;
    let mut repaired = Vec::new();
    let what =
        format!("Files of {} that nothing names are removed, and damaged contents given up", dir.display());
    if repair && !consent.dry_run && consent.given(&what)? {
        let done = coda_server::store::repair::repair(dir, nanoseconds())?;
        repaired.extend(done.iter().map(ToString::to_string));
    }
    let findings = fsck::check(dir)?;
    if json {
        let found: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let value = serde_json::json!({ "sound": found.is_empty(), "findings": found, "repaired": repaired });
        println!("{value}");
        anyhow::ensure!(found.is_empty(), Told(format!("{}: {} findings", dir.display(), found.len())));
        return Ok(());
    }
    repaired.iter().for_each(|done| println!("{done}"));
    findings.iter().for_each(|finding| println!("{finding}"));
    match findings.len() {
        0 => println!("{}: sound", dir.display()),
        count => anyhow::bail!("{}: {count} findings", dir.display()),
    }
    Ok(())
}

/// A failure of which a script has been told already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

#[derive(clap::Args)]
struct Own {
    /// Name of this server [default: the host's].
    #[arg(long)]
    name: Option<String>,
    /// Where clients and other servers reach it; may be given several times [default: its name, port 2432].
    #[arg(long, value_name = "HOST[:PORT]", value_parser = endpoint)]
    endpoint: Vec<wire::Endpoint>,
    /// Where only other servers reach it; no client learns of it.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = endpoint)]
    peer_endpoint: Vec<wire::Endpoint>,
}

impl Own {
    fn resolve(self) -> anyhow::Result<(String, Vec<wire::Endpoint>)> {
        let name = match self.name {
            Some(name) => name,
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned(),
        };
        let mut endpoints = match self.endpoint.is_empty() {
            false => self.endpoint,
            true => vec![endpoint(&name).map_err(anyhow::Error::msg)?],
        };
        let peers = self.peer_endpoint.into_iter();
        endpoints.extend(peers.map(|endpoint| wire::Endpoint { peer_only: true, ..endpoint }));
        Ok((name, endpoints))
    }
}

fn endpoint(text: &str) -> Result<wire::Endpoint, String> {
    let (host, port) = servers::endpoint(text)?;
    Ok(wire::Endpoint { host, port: port.into(), peer_only: false })
}

fn check_config(named: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let path = named.clone().unwrap_or_else(|| conf::USUAL.into());
    let (problems, notes) = check::check_here(&path, named.is_some())?;
    if json {
        let wrong: Vec<String> = problems.iter().map(ToString::to_string).collect();
        println!("{}", serde_json::json!({ "file": path, "problems": wrong, "notes": notes }));
        anyhow::ensure!(
            problems.is_empty(),
            Told(format!("{}: {} problems", path.display(), problems.len()))
        );
        return Ok(());
    }
    notes.iter().for_each(|note| println!("{note}"));
    problems.iter().for_each(|problem| println!("{problem}"));
    match problems.len() {
        0 => println!("{}: nothing is wrong", path.display()),
        count => anyhow::bail!("{}: {count} problems", path.display()),
    }
    Ok(())
}

/// The settings in force, if there is a file of them.
fn settings(named: Option<PathBuf>) -> anyhow::Result<Option<Conf>> {
    let path = named.clone().unwrap_or_else(|| conf::USUAL.into());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => anyhow::bail!("{}: {error}", path.display()),
    };
    match conf::parse(&path.display().to_string(), &text) {
        Ok((conf, notes)) => {
            notes.iter().for_each(|note| tracing::info!("{note}"));
            Ok(Some(conf))
        }
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::bail!("{}", lines.join("\n"))
        }
    }
}

/// What a program of old, under whose name this one was called, is replaced by.
fn old_name() -> Option<String> {
    let mut words = std::env::args();
    let (own, first) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    names::replaced(&own).or_else(|| names::replaced(&first))
}

fn main() -> ExitCode {
    if let Some(line) = old_name() {
        println!("{line}");
        return ExitCode::SUCCESS;
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("CODASRV_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(srvlog::Logs).init();
    let cli = Cli::parse();
    let json = cli.json;
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(cli))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("codasrv: {error:#}");
            if json && !error.is::<Told>() {
                println!("{}", serde_json::json!({ "error": format!("{error:#}") }));
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let json = cli.json;
    match (cli.command, cli.dir) {
        (Some(Command::Init { realm, dir, own, anyuser }), _) => {
            let (name, endpoints) = own.resolve()?;
            let at = format!("{}:{}", endpoints[0].host, endpoints[0].port);
            join::init(&realm, &dir, &name, endpoints, anyuser)?;
            if json {
                let ca = dir.join("ca.pem");
                let made = serde_json::json!({ "realm": realm, "name": name, "server": 1, "dir": dir, "endpoint": at, "ca": ca });
                println!("{made}");
                return Ok(());
            }
            println!("Realm {realm} is made, with its root volume on {name}.");
            println!("Serve it:          codasrv --dir {}", dir.display());
            println!("Administer it:     volutil --dir {} --host {at} list", dir.display());
            println!("Clients find it:   {realm} {at} ca={}", dir.join("ca.pem").display());
            Ok(())
        }
        (Some(Command::Join { scm, token, dir, own }), _) => {
            let (name, endpoints) = own.resolve()?;
            let (id, name) = join::join(scm, &token, &dir, &name, endpoints).await?;
            if json {
                let made =
                    serde_json::json!({ "realm": token.realm, "name": name, "server": id.0, "dir": dir });
                println!("{made}");
                return Ok(());
            }
            println!("{name} is server {id} of {}.", token.realm);
            println!("Serve it:          codasrv --dir {}", dir.display());
            Ok(())
        }
        (Some(Command::CheckConfig { conf }), _) => check_config(conf, json),
        (Some(Command::Check { dir, repair, consent }), _) => check(&dir, repair, consent, json),
        (Some(Command::Accept { dir, consent }), _) => {
            let what = format!(
                "What is in {} is taken for all there is; what only others had is lost",
                dir.display()
            );
            if !consent.given(&what)? {
                if json {
                    println!("{}", serde_json::json!({ "would_do": what }));
                }
                return Ok(());
            }
            let _lock = StoreLock::take(&dir)?;
            let accepted = setup::accept(&dir, Durability::Full, nanoseconds())?;
            if json {
                let volumes: Vec<String> = accepted.iter().map(ToString::to_string).collect();
                println!("{}", serde_json::json!({ "accepted": volumes }));
                return Ok(());
            }
            accepted.iter().for_each(|volume| println!("volume {volume} serves what is here"));
            Ok(())
        }
        (None, dir) => match (settings(cli.conf)?, dir) {
            (conf, Some(dir)) => serve(dir, cli.listen, cli.metrics, conf.unwrap_or_default()).await,
            (Some(conf), None) => serve(conf.vicedir.clone(), cli.listen, cli.metrics, conf).await,
            (None, None) => {
                anyhow::bail!("--dir is missing; `codasrv init` makes a realm, `codasrv join` joins one")
            }
        },
    }
}

async fn serve(
    dir: PathBuf,
    listen: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    conf: Conf,
) -> anyhow::Result<()> {
    files::make_room(&dir)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    srvlog::begin(&dir)?;
    let mut ports = conf.ports.clone();
    if let Some(listen) = listen {
        ports.retain(|(port, _)| *port != Port::Client);
        ports.push((Port::Client, listen));
    }
    let start = |ports: &[(Port, SocketAddr)]| {
        let config = ServerConfig { pass_authority: !conf.keeps_authority, ..ServerConfig::new(&dir) };
        CodaServer::start_at(config, ports, &conf.allowed)
    };
    let server = match ports.iter().any(|(port, _)| *port == Port::Client) {
        true => start(&ports)?,
        false => {
            let (own, realm) = RealmStore::look(&dir)?.load()?;
            let known = realm.servers.get(&own).map(|server| server.endpoints.clone()).unwrap_or_default();
            let announced = conf.endpoints.iter().map(|(_, endpoint)| endpoint);
            let port = announced.chain(&known).find(|endpoint| !endpoint.peer_only);
            let port = port.map_or(coda_proto::DEFAULT_PORT, |endpoint| endpoint.port as u16);
            let everywhere = |address: IpAddr| {
                let mut ports = ports.clone();
                ports.push((Port::Client, SocketAddr::new(address, port)));
                ports
            };
            start(&everywhere(Ipv6Addr::UNSPECIFIED.into()))
                .or_else(|_| start(&everywhere(Ipv4Addr::UNSPECIFIED.into())))?
        }
    };
    let numbers = match metrics.or(conf.metrics) {
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
    let core = server.server().clone();
    vice::write_hostname(&dir, core.realm().servers.get(&core.id()))?;
    let keeping = tokio::spawn(vice::keep(core.clone(), conf.partition.clone()));
    let mut endpoints: Vec<wire::Endpoint> =
        conf.endpoints.iter().map(|(_, endpoint)| endpoint.clone()).collect();
    if !endpoints.is_empty() {
        // A setting for peers alone leaves what clients use as it was told before.
        if endpoints.iter().all(|endpoint| endpoint.peer_only) {
            let own = core.realm().servers.get(&core.id()).map(|own| own.endpoints.clone());
            endpoints.extend(own.unwrap_or_default().into_iter().filter(|endpoint| !endpoint.peer_only));
        }
        let core = core.clone();
        tokio::spawn(async move { core.announce(endpoints).await });
    }
    println!("codasrv: server {} of {} listens at {}", core.id(), core.realm().name, server.local_addr());
    drop(core);
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    numbers.iter().for_each(|numbers| numbers.abort());
    keeping.abort();
    server.shutdown().await;
    Ok(())
}
