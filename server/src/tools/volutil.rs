//! The command line of volutil.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use coda_proto::wire;
use coda_proto::wire::admin::Body as Ask;

use super::{
    Exit, Link, Report, clone, confirm::Consent, create, dump, exit, getvolinfo, info, link, replica,
    restore, retired, scm, service, sync, vrdb,
};
use crate::shell::token::Token;

/// Administers the volumes and servers of a Coda realm.
///
/// Exit status: 0 done, 1 failed, 2 usage, 3 a server is unreachable, 4 declined, 5 refused, 6 damaged file.
#[derive(Parser)]
#[command(name = "volutil", version, disable_help_flag = true)]
struct Cli {
    /// Directory of admin.pem and admin.key; a server's own, as `codasrv init` made it, will do
    /// [default: $CODA_ADMIN_DIR, or /vice].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Server to ask [default: the SCM, as the store in --dir says].
    #[arg(short = 'h', long, value_name = "HOST[:PORT]")]
    host: Option<String>,
    /// Name of the realm: refuses to touch any other.
    #[arg(short, long)]
    realm: Option<String>,
    /// Seconds without a sign of life after which a server is given up.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Accepted, and without effect.
    #[arg(short, hide = true, value_name = "LEVEL")]
    debug: Option<u32>,
    /// Answer as one JSON value.
    #[arg(long, global = true)]
    json: bool,
    /// Print help.
    #[arg(long, global = true, action = clap::ArgAction::Help)]
    help: Option<bool>,
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
    #[command(visible_alias = "createvol_rep")]
    Create(create::Create),
    /// Makes a further replica of a volume, for a list that is about to name it (see makevrdb). add-replica
    /// does all of it at once.
    #[command(name = "create_rep")]
    CreateRep(create::CreateRep),
    /// Removes a volume and everything in it.
    #[command(visible_alias = "purgevol_rep")]
    Purge(create::Purge),
    /// Makes a read-only volume that holds what a volume holds now.
    Clone(clone::CloneOf),
    /// Makes a volume's backup, a read-only volume NAME.backup, anew.
    Backup(clone::Backup),
    /// Writes a volume's contents to a file.
    Dump(dump::Dump),
    /// Says how long a dump would be.
    Dumpestimate {
        /// The volume.
        volume: String,
    },
    /// Makes a volume from dumps.
    Restore(restore::Restore),
    /// Looks whether a dump file is whole, and what is in it. Asks no server.
    Readdump {
        /// The file.
        file: PathBuf,
    },
    /// Lets changes of a volume wait.
    Lock {
        /// The volume.
        volume: String,
        /// Seconds after which they go on by themselves [default: never].
        #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
        timeout: u64,
    },
    /// Lets them go on.
    Unlock {
        /// The volume.
        volume: String,
    },
    /// Takes a volume out of service.
    Offline(service::Offline),
    /// Brings it back.
    Online {
        /// The volume.
        volume: String,
    },
    /// Shows or sets how many blocks of 1 KiB a volume may use.
    Quota(service::Quota),
    /// Accepted as before: mutations are always recorded.
    Setlogparms(service::SetLogParms),
    /// Asks all members of a volume to meet now, and says whether they are equal then. (`codasrv check` looks at
    /// the store of a server that does not run.)
    Salvage {
        /// The volume.
        volume: String,
    },
    /// Lists the realm's volumes.
    #[command(visible_alias = "getvolumelist")]
    List,
    /// Shows a volume's header.
    Info(info::Info),
    /// Says where a volume is.
    Lookup {
        /// The volume.
        volume: String,
    },
    /// Asks one server about a volume, as a client would.
    Getvolinfo(getvolinfo::GetVolInfo),
    /// Lists the realm's servers.
    Servers,
    /// Prints the highest replica id that a server was given.
    Getmaxvol,
    /// Adds a replica to a volume.
    AddReplica(replica::Add),
    /// Takes a replica from a volume. It is gone when the others have all that it took.
    RemoveReplica(replica::Remove),
    /// Moves a replica to another server.
    MoveReplica(replica::Move),
    /// Shows how far the replicas of a volume are.
    SyncStatus(sync::SyncStatus),
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
    PromoteScm(scm::PromoteScm),
    /// Shows the log of the realm's changes, and what this server had to give up of it.
    Log,
    /// Takes over db/servers, db/VRList and db/scm of the server's directory, after they were edited.
    Import(scm::Import),
    /// Loads a servers and a VRList file, checked whole before anything changes.
    Loadlocation {
        /// The servers file.
        #[arg(long)]
        servers: Option<PathBuf>,
        /// The VRList file.
        #[arg(long)]
        vrlist: Option<PathBuf>,
        /// Only shows what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Writes the realm's VRList.
    #[command(visible_alias = "printvrdb")]
    Dumpvrdb {
        /// Where to [default: the standard output]. Nothing is overwritten.
        file: Option<PathBuf>,
    },
    /// Collects the volumes of servers, as bldvldb.sh did.
    #[command(visible_alias = "bldvldb.sh")]
    Bldvldb {
        /// The servers [default: all].
        servers: Vec<String>,
    },
    /// What is not there any more answers with what took its place.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Runs volutil.
pub fn main(words: Vec<OsString>) -> ExitCode {
    let as_json = words.iter().any(|word| word == "--json");
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return match error.use_stderr() {
                true if as_json => {
                    let why = error.kind().to_string();
                    println!("{}", serde_json::json!({ "error": why, "exit": Exit::Usage as u8 }));
                    Exit::Usage.into()
                }
                true => Exit::Usage.into(),
                false => Exit::Done.into(),
            };
        }
    };
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run(cli))
    };
    match run() {
        Ok(report) => {
            report.print(as_json);
            Exit::Done.into()
        }
        Err(error) => {
            let exit = exit::of(&error);
            match as_json {
                true => {
                    println!("{}", serde_json::json!({ "error": format!("{error:#}"), "exit": exit as u8 }))
                }
                false => eprintln!("volutil: {error:#}"),
            }
            exit.into()
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<Report> {
    if let Command::Other(words) = &cli.command {
        return retired::command(words);
    }
    if let Command::Readdump { file } = &cli.command {
        return restore::look(file);
    }
    if let Command::Dump(dump::Dump { file: None, .. }) = &cli.command
        && cli.json
    {
        let why = "the dump goes to the standard output, and so does --json: name a file for the dump";
        return Err(exit::Failed(Exit::Usage, why.into()).into());
    }
    let dir = link::directory(cli.dir.as_deref())?;
    let link = Link::open(&dir, cli.host.as_deref(), Duration::from_secs(cli.timeout.max(1)))?;
    if let Some(realm) = cli.realm.filter(|realm| realm != link.realm_name()) {
        anyhow::bail!("the key in {} is of {}, not of {realm}", dir.display(), link.realm_name());
    }
    let host = cli.host.as_deref();
    match cli.command {
        Command::Invite { name, id } => invite(&link, name, id).await,
        Command::Create(create) => create::create(&link, host, create).await,
        Command::CreateRep(create) => create::create_rep(&link, host, create).await,
        Command::Purge(purge) => create::purge(&link, purge).await,
        Command::Clone(clone) => clone::clone(&link, clone).await,
        Command::Backup(backup) => clone::backup(&link, backup).await,
        Command::Dump(dump) => dump::dump(&link, dump).await,
        Command::Dumpestimate { volume } => dump::estimate(&link, &volume).await,
        Command::Restore(restore) => restore::restore(&link, restore).await,
        Command::Lock { volume, timeout } => service::lock(&link, &volume, timeout).await,
        Command::Unlock { volume } => {
            service::set(&link, &volume, wire::VolumeService::VolumeInService).await
        }
        Command::Offline(offline) => service::offline(&link, offline).await,
        Command::Online { volume } => {
            service::set(&link, &volume, wire::VolumeService::VolumeInService).await
        }
        Command::Quota(quota) => service::quota(&link, quota).await,
        Command::Setlogparms(set) => service::set_log_parms(&link, set).await,
        Command::Salvage { volume } => service::salvage(&link, &volume).await,
        Command::List => info::list(&link).await,
        Command::Info(what) => info::info(&link, what).await,
        Command::Lookup { volume } => info::lookup(&link, &volume).await,
        Command::Getvolinfo(ask) => getvolinfo::ask(&link, ask).await,
        Command::Servers => info::servers(&link).await,
        Command::Getmaxvol => info::max_volume(&link, host).await,
        Command::AddReplica(add) => replica::add(&link, add).await,
        Command::RemoveReplica(remove) => replica::remove(&link, remove).await,
        Command::MoveReplica(moving) => replica::move_to(&link, moving).await,
        Command::SyncStatus(ask) => sync::status(&link, ask, cli.json).await,
        Command::SetRoot { volume } => {
            let answer = link.ask(Ask::SetRoot(wire::SetRoot { name: volume.clone() })).await?;
            Ok(Report::new("", serde_json::json!({ "root": volume })).and_note(&answer.text))
        }
        Command::Makevrdb { vrlist, dry_run } => vrdb::make(&link, &vrlist, dry_run).await,
        Command::PromoteScm(promote) => scm::promote(&link, promote).await,
        Command::Log => scm::log(&link).await,
        Command::Import(import) => scm::import(&link, import).await,
        Command::Loadlocation { servers, vrlist, dry_run } => {
            vrdb::load(&link, servers, vrlist, dry_run).await
        }
        Command::Dumpvrdb { file } => vrdb::write(&link, file).await,
        Command::Bldvldb { servers } => vrdb::build(&link, servers).await,
        Command::Readdump { .. } | Command::Other(_) => unreachable!("answered before"),
    }
}

async fn invite(link: &Link, name: String, id: u32) -> anyhow::Result<Report> {
    let answer = link.ask(Ask::Invite(wire::Invite { server: id, name })).await?;
    let token = Token {
        realm: link.realm_name().to_owned(),
        secret: answer.token,
        fingerprint: link.fingerprint().to_owned(),
    };
    let note = format!(
        "For {}. It works once: codasrv join --scm {}:{} --token ... --dir DIR",
        answer.text, link.at.host, link.at.port
    );
    let json = serde_json::json!({ "token": token.to_string(), "for": answer.text });
    Ok(Report::new(token.to_string(), json).and_note(&note))
}

/// Whether to go on with what is not undone.
pub(super) fn agreed(consent: Consent, what: &str) -> anyhow::Result<Option<Report>> {
    match consent.given(what)? {
        true => Ok(None),
        false => Ok(Some(Report::new("", serde_json::json!({ "would_do": what })))),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_lines_of_the_manuals_are_understood() {
        for line in [
            "volutil setlogparms 7f000000 reson 4",
            "volutil setlogparms 7f000000 reson 0 logsize 8192",
            "volutil -h newserver create_rep /vicepa myvol.2 7f000000",
            "volutil -h localhost makevrdb /vice/db/VRList",
            "volutil makevrdb /vice/db/VRList",
            "volutil -h s -t 5 -d 1 info -all myvol",
            "volutil purge 7f000000 myvol --yes",
            "volutil --json sync-status myvol --wait",
            "volutil create src one two",
            "volutil -h two create /vicepa src",
            "volutil restore -f src.dump /vicepa src.again",
            "volutil add-replica src two:/vicepa --rate 10M",
        ] {
            let mut words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            super::super::names::as_volutil("volutil", &mut words);
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        let old = Cli::try_parse_from(["volutil", "peek", "0x100"]).unwrap();
        assert!(matches!(old.command, Command::Other(_)));
    }
}
