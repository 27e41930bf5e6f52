//! volutil: administers the volumes and servers of a realm, with its admin key.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use coda_net::{Credentials, certificate::fingerprint};
use coda_proto::{
    Acl, Rights,
    wire::{self, admin::Body},
};
use coda_server::{
    location::{Realm, servers, vrlist},
    shell::{Certified, NetEnv, join, scm, token::Token},
    store::RealmStore,
};

/// Administers the volumes and servers of a Coda realm.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Directory of admin.pem and admin.key; the SCM's own, as `codasrv init` made it, will do.
    #[arg(long)]
    dir: PathBuf,
    /// The SCM [default: as the store in --dir says].
    #[arg(long, value_name = "HOST[:PORT]")]
    host: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints a token with which one further server can join the realm.
    Invite {
        /// Its name.
        #[arg(long, default_value = "")]
        name: String,
        /// Its id [default: the lowest that is free].
        #[arg(long, default_value_t = 0)]
        id: u32,
    },
    /// Makes a replicated volume.
    #[command(visible_aliases = ["create_rep", "createvol_rep"])]
    Create {
        /// Its name.
        name: String,
        /// Names or ids of its servers, in the order of their slots [default: all].
        servers: Vec<String>,
        /// Rights of System:AnyUser on its root directory.
        #[arg(long, default_value = "rlidwka", value_name = "RIGHTS")]
        anyuser: Rights,
    },
    /// Lists the realm's volumes.
    List,
    /// Shows one volume.
    Info {
        /// Its name, or its id in hex.
        volume: String,
    },
    /// Lists the realm's servers.
    Servers,
    /// Adds a replica to a volume.
    AddReplica {
        /// The volume.
        volume: String,
        /// Name or id of the server.
        server: String,
    },
    /// Takes a replica from a volume: the first time it takes no more updates, the second time it is gone.
    RemoveReplica {
        /// The volume.
        volume: String,
        /// Name or id of the server.
        server: String,
    },
    /// Makes another volume the root of the realm.
    SetRoot {
        /// The volume.
        volume: String,
    },
    /// Loads a VRList file, checked whole before anything changes, and shows what is different: a replica that
    /// was added joins, one that was taken out leaves.
    Makevrdb {
        /// The file.
        vrlist: PathBuf,
        /// Only shows what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Makes another server the SCM, for example when the SCM is lost.
    PromoteScm {
        /// Its name or id.
        server: String,
        /// Servers that cannot be asked, and whose unknown changes are given up.
        #[arg(long, value_name = "SERVER", value_delimiter = ',')]
        without: Vec<String>,
    },
    /// Shows the log of the realm's changes, and what this server had to give up of it.
    Log,
    /// Takes over db/servers, db/VRList and db/scm of the server's directory, after they were edited.
    Import {
        /// The directory [default: --dir].
        #[arg(long)]
        vicedir: Option<PathBuf>,
        /// Only shows what would change.
        #[arg(long)]
        dry_run: bool,
        /// As of promote-scm, where db/scm names another server.
        #[arg(long, value_name = "SERVER", value_delimiter = ',')]
        without: Vec<String>,
    },
    /// Loads a servers and a VRList file, checked whole before anything changes.
    Loadlocation {
        /// The servers file.
        #[arg(long)]
        servers: Option<PathBuf>,
        /// The VRList file.
        #[arg(long)]
        vrlist: Option<PathBuf>,
    },
    /// Writes the realm's VRList.
    Dumpvrdb,
}

fn main() -> ExitCode {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run(Cli::parse()))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volutil: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let credentials = Credentials::load(&cli.dir, "admin")?;
    let scm = match &cli.host {
        Some(host) => {
            let (host, port) = servers::endpoint(host).map_err(anyhow::Error::msg)?;
            wire::Endpoint { host, port: port.into(), peer_only: false }
        }
        None => {
            let (_, realm) = RealmStore::look(&cli.dir).context("which server? give --host")?.load()?;
            let scm = realm.servers.get(&realm.scm).context("the store knows no SCM")?;
            scm.endpoints.first().cloned().context("the SCM has no endpoint; give --host")?
        }
    };
    let env = NetEnv::new(&credentials)?;
    let ask = |body| join::administer(&env, &scm, body);
    match cli.command {
        Command::Invite { name, id } => {
            let answer = ask(Body::Invite(wire::Invite { server: id, name })).await?;
            let token = Token {
                realm: credentials.subject().realm.clone(),
                secret: answer.token,
                fingerprint: fingerprint(credentials.authority()),
            };
            println!("{token}");
            eprintln!(
                "For {}. It works once: codasrv join --scm {}:{} --token ... --dir DIR",
                answer.text, scm.host, scm.port
            );
        }
        Command::Create { name, servers, anyuser } => {
            let realm = join::configuration(&env, &scm).await?;
            let servers = servers.iter().map(|server| server_id(&realm, server)).collect::<Result<_, _>>()?;
            let acl = Some((&Acl::root(anyuser)).into());
            let answer = ask(Body::CreateVolume(wire::CreateVolume { name, servers, acl, ..Default::default() })).await?;
            for volume in &answer.volumes {
                println!("Volume {:08x} ({}) created ", volume.id, volume.name);
            }
            note(&answer);
        }
        Command::List => {
            let answer = ask(Body::ListVolumes(wire::ListVolumes {})).await?;
            print!("{}", vrlist::text(&answer.volumes));
        }
        Command::Info { volume } => {
            print!("{}", ask(Body::VolumeDetail(wire::VolumeDetail { name: volume })).await?.text);
        }
        Command::Servers => {
            let realm = join::configuration(&env, &scm).await?;
            for (id, server) in &realm.servers {
                let endpoints = server.endpoints.iter().map(|at| format!("{}:{}", at.host, at.port));
                println!("{id}\t{}\t{}", server.name, endpoints.collect::<Vec<_>>().join(" "));
            }
        }
        Command::AddReplica { volume, server } => {
            let server = server_id(&join::configuration(&env, &scm).await?, &server)?;
            let answer = ask(Body::AddReplica(wire::AddReplica { volume, server, rate: 0 })).await?;
            print!("{}", vrlist::text(&answer.volumes));
            note(&answer);
        }
        Command::RemoveReplica { volume, server } => {
            let server = server_id(&join::configuration(&env, &scm).await?, &server)?;
            let answer = ask(Body::RemoveReplica(wire::RemoveReplica { volume, server, force: false })).await?;
            print!("{}", vrlist::text(&answer.volumes));
            note(&answer);
        }
        Command::SetRoot { volume } => {
            note(&ask(Body::SetRoot(wire::SetRoot { name: volume })).await?);
        }
        Command::Makevrdb { vrlist, dry_run } => {
            let vrlist_file = read(&vrlist)?;
            let load = wire::LoadLocation { servers_file: String::new(), vrlist_file, dry_run };
            print!("{}", lines(&ask(Body::LoadLocation(load)).await?.text));
            if !dry_run {
                eprintln!("VRDB completed.");
            }
        }
        Command::PromoteScm { server, without } => {
            let promotion = scm::Promotion { env: &env, admin: &credentials, dir: &cli.dir, near: &scm };
            println!("{}", promotion.promote(&server, &without).await?);
        }
        Command::Log => {
            let seal = Certified(credentials.clone());
            let (_, log) = scm::log(&env, &scm, &seal).await?;
            log.iter().for_each(|entry| println!("{}", scm::line(entry)));
            for entry in scm::given_up(&env, &scm).await? {
                println!("given up: {}", scm::line(&entry));
            }
        }
        Command::Import { vicedir, dry_run, without } => {
            let promotion = scm::Promotion { env: &env, admin: &credentials, dir: &cli.dir, near: &scm };
            let dir = vicedir.as_ref().unwrap_or(&cli.dir);
            print!("{}", lines(&promotion.import(dir, dry_run, &without).await?));
        }
        Command::Loadlocation { servers, vrlist } => {
            let text = |path: Option<PathBuf>| path.map_or(Ok(String::new()), |path| read(&path));
            let (servers_file, vrlist_file) = (text(servers)?, text(vrlist)?);
            let load = wire::LoadLocation { servers_file, vrlist_file, dry_run: false };
            let answer = ask(Body::LoadLocation(load)).await?;
            print!("{}", vrlist::text(&answer.volumes));
            note(&answer);
        }
        Command::Dumpvrdb => {
            let answer = ask(Body::ListVolumes(wire::ListVolumes {})).await?;
            print!("{}", vrlist::text(&answer.volumes));
        }
    }
    Ok(())
}

fn read(path: &PathBuf) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn lines(text: &str) -> String {
    match text.is_empty() || text.ends_with('\n') {
        true => text.to_owned(),
        false => format!("{text}\n"),
    }
}

fn note(answer: &wire::AdminAnswer) {
    if !answer.text.is_empty() {
        eprintln!("volutil: {}", answer.text);
    }
}

/// A server by its name or id.
fn server_id(realm: &Realm, text: &str) -> anyhow::Result<u32> {
    let named = realm.servers.values().find(|server| server.name == text);
    match (named, text.parse::<u32>()) {
        (Some(server), _) => Ok(server.id),
        (None, Ok(id)) => Ok(id),
        (None, Err(_)) => bail!("{text}: no such server in {}", realm.name),
    }
}
