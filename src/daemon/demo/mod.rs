//! `venus demo`: a realm of a few servers in this process, mounted, for a first look and for tests.
//!
//! The servers are real ones, on real stores, reached over QUIC on the loopback interface; only that they
//! live in this process is for the demonstration.

mod place;
mod realm;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use tokio::process::{Child, Command};

use super::{
    ending::{self, Ending, Signals},
    log,
    running::Running,
};
use crate::config::{Config, Surroundings};

pub use place::Place;
pub use realm::{REALM, Servers, alone};

/// What can be said on the command line.
#[derive(Debug, Parser)]
#[command(name = "venus demo", about = "Starts a realm of a few servers on this machine and mounts it")]
pub struct Options {
    /// How many servers hold the realm's volumes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    servers: u8,
    /// Keeps everything in DIR for the next run. Without it the state is temporary and removed at the end.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Runs CMD by the shell in the realm's root directory, and ends with its status. It finds the mount
    /// in $CODA_MOUNT and the control socket in $CODA_CONTROL; with --two the other mount in $CODA_MOUNT_2.
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// Mounts at DIR instead of /coda (for root) or a directory beside the state (for others).
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    /// Mounts the realm twice, as two machines would: the second one beside the first, at /coda-2.
    #[arg(long)]
    two: bool,
    /// Lets every user of this machine in, as far as access lists allow. Needs root, or user_allow_other in
    /// fuse.conf. Without it only the one who starts it sees the tree.
    #[arg(long)]
    shared: bool,
    /// How much venus may cache, as in venus.conf: `4GB`.
    #[arg(long, value_name = "SIZE", value_parser = crate::config::units::size)]
    cachesize: Option<u64>,
    /// How many objects venus may cache.
    #[arg(long, value_name = "N")]
    cachefiles: Option<u64>,
    /// What goes to the log, in the words of tracing's filter.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

/// Runs a demonstration until it is told to stop.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    log::begin(&options.log, None)?;
    let place = Place::prepare(options.state.as_deref(), options.mount.as_deref())?;
    let servers = Servers::start(place.state(), options.servers).await?;
    let result = with_servers(&options, &place, &mut signals).await;
    servers.stop().await;
    place.leave();
    result
}

async fn with_servers(options: &Options, place: &Place, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    let second = if options.two { Some(place.second()?) } else { None };
    let result = match Clients::start(options, place, second.as_ref()).await {
        Ok(clients) => with_clients(options, place, second.as_ref(), clients, signals).await,
        Err(error) => Err(error),
    };
    second.iter().for_each(Place::leave);
    result
}

/// The realm's clients: one, or two that are called laptop and desk.
struct Clients {
    first: Running,
    second: Option<Running>,
}

impl Clients {
    async fn start(options: &Options, place: &Place, second: Option<&Place>) -> anyhow::Result<Clients> {
        let Some(other) = second else {
            return Ok(Clients { first: Running::start(&config(place, options)).await?, second: None });
        };
        let first = Running::start_as(&config(place, options), "laptop").await?;
        let other = Config { realmtab: place.state().join("realms"), ..config(other, options) };
        match Running::start_as(&other, "desk").await {
            Ok(second) => Ok(Clients { first, second: Some(second) }),
            Err(error) => {
                first.stop().await?;
                Err(error)
            }
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        let second = match self.second {
            Some(second) => second.stop().await,
            None => Ok(()),
        };
        self.first.stop().await.and(second)
    }
}

async fn with_clients(
    options: &Options,
    place: &Place,
    second: Option<&Place>,
    clients: Clients,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    let root = place.mount().join(REALM);
    let mut command = match &options.exec {
        Some(command) => {
            let root = root.clone();
            // The first look-up below the mount goes to the servers and back to us.
            let there = tokio::task::spawn_blocking(move || std::fs::metadata(root)).await?;
            there.with_context(|| format!("{} does not appear", place.mount().join(REALM).display()))?;
            Some(start(command, place, second)?)
        }
        None => {
            invite(options, place, second);
            None
        }
    };
    let end = ending::wait(signals, clients.first.mounted(), command.as_mut()).await;
    let code = match (end, command) {
        (Ending::Command(status), _) => status_code(status?),
        (Ending::Signal(name), Some(mut command)) => {
            hurry(&mut command).await;
            ExitCode::from(128 + if name == "SIGINT" { 2 } else { 15 })
        }
        (Ending::Signal(_), None) => ExitCode::SUCCESS,
        (Ending::Unmounted, command) => {
            eprintln!("{} was unmounted", place.mount().display());
            if let Some(mut command) = command {
                hurry(&mut command).await;
            }
            ExitCode::FAILURE
        }
    };
    clients.stop().await?;
    Ok(code)
}

fn config(place: &Place, options: &Options) -> Config {
    let usual = Config::defaults(&Surroundings::here());
    Config {
        allow_other: options.shared,
        cachesize: options.cachesize.unwrap_or(usual.cachesize),
        cachefiles: options.cachefiles.unwrap_or(usual.cachefiles),
        mountpoint: place.mount().to_owned(),
        cachedir: place.state().join("venus"),
        realmtab: place.state().join("realms"),
        realm: Some(REALM.to_owned()),
        controlsocket: place.socket().to_owned(),
        ..usual
    }
}

/// Starts a command in the realm's root. `cfs` of this build is found first.
fn start(command: &str, place: &Place, second: Option<&Place>) -> anyhow::Result<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).current_dir(place.mount().join(REALM)).kill_on_drop(true);
    shell
        .env("CODA_MOUNT", place.mount())
        .env("CODA_CONTROL", sockets(place, second)?)
        .env("CODA_REALM", REALM);
    shell.envs(second.map(|second| ("CODA_MOUNT_2", second.mount())));
    let own = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let others = std::env::var_os("PATH").unwrap_or_default();
    if let Ok(path) = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&others))) {
        shell.env("PATH", path);
    }
    shell.spawn().with_context(|| format!("running {command:?}"))
}

/// The sockets of all clients, as `$CODA_CONTROL` has them.
fn sockets(place: &Place, second: Option<&Place>) -> anyhow::Result<std::ffi::OsString> {
    Ok(std::env::join_paths(std::iter::once(place).chain(second).map(Place::socket))?)
}

/// The command's status becomes ours; one that a signal killed is told as shells do.
fn status_code(status: std::process::ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Asks the command to end, and does not wait long.
async fn hurry(command: &mut Child) {
    if let Some(pid) = command.id().and_then(|pid| i32::try_from(pid).ok()) {
        // SAFETY: a plain system call; the process is ours and not waited for yet.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    let patience = std::time::Duration::from_millis(500);
    if tokio::time::timeout(patience, command.wait()).await.is_err() {
        let _ = command.kill().await;
    }
}

fn invite(options: &Options, place: &Place, second: Option<&Place>) {
    let root = place.mount().join(REALM);
    let (root, mount) = (root.display(), place.mount().display());
    let socket = sockets(place, second).unwrap_or_default();
    let socket = socket.to_string_lossy();
    let servers = match options.servers {
        1 => "one server".to_owned(),
        n => format!("{n} servers"),
    };
    println!("A Coda realm of {servers} is mounted at {root}");
    if let Some(second) = second {
        println!("and, as another machine sees it, at {}", second.mount().join(REALM).display());
    }
    println!();
    println!("Try, in another terminal:");
    println!("    echo hello > {root}/home/greeting");
    println!("    cp -r /etc/skel {root}/home/");
    println!("    export CODA_CONTROL={socket}");
    println!("    cfs whereis {root}/home/greeting");
    println!("    cfs checkservers");
    println!("    df -h {mount}");
    match place.is_temporary() {
        true => println!("\nEverything is forgotten at the end; --state DIR keeps it."),
        false => println!("\nThe state is kept in {}.", place.state().display()),
    }
    let how = if std::io::stdin().is_terminal() { "Ctrl-C" } else { "SIGTERM" };
    println!("{how} unmounts and ends.");
}
