//! The daemon: what the program `venus` does with the manager, the mount and the control socket.

pub mod demo;
mod ending;
mod forget;
mod helper;
mod log;
mod running;
pub mod salvage;

use std::process::ExitCode;

use clap::Parser;

use crate::config::{Surroundings, Switches, edge, switches};
use ending::Signals;
use running::Running;

/// The program: `venus demo ...`, or `venus` with its switches.
pub fn main() -> ExitCode {
    let words: Vec<String> = match words() {
        Ok(words) => words,
        Err(word) => return failed(&anyhow::anyhow!("{word:?} is not UTF-8")),
    };
    let result = match words.first().map(String::as_str) {
        Some("demo") => match demo::Options::try_parse_from(&words) {
            Ok(options) => block_on(demo::run(options)),
            Err(error) => error.exit(),
        },
        Some("salvage") => salvage_words(&words),
        Some("mount-helper") => match helper::Words::try_parse_from(&words) {
            Ok(words) => helper::run(&words),
            Err(error) => error.exit(),
        },
        Some("demo-server") => demo_server(&words),
        _ => venus(words),
    };
    result.unwrap_or_else(|error| failed(&error))
}

fn words() -> Result<Vec<String>, std::ffi::OsString> {
    std::env::args_os().skip(1).map(|word| word.into_string()).collect()
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("venus: {error:#}");
    ExitCode::FAILURE
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    // Each file that somebody has open is open here, too.
    if let Err(error) = coda_server::shell::files::raise() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // What still waits for a server is not worth waiting for.
    runtime.shutdown_timeout(std::time::Duration::from_millis(300));
    result
}

fn salvage_words(words: &[String]) -> anyhow::Result<ExitCode> {
    let [_, cachedir, to] = words else { anyhow::bail!("Usage: venus salvage CACHEDIR DIR") };
    let found = salvage::salvage(cachedir.as_ref(), to.as_ref())?;
    println!(
        "{} files that no server has are in {to}, {} of them damaged; {} other changes are listed in {to}/changes",
        found.files, found.damaged, found.others
    );
    Ok(if found.damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn demo_server(words: &[String]) -> anyhow::Result<ExitCode> {
    let [_, state, id] = words else { anyhow::bail!("venus demo-server STATE ID") };
    block_on(demo::alone(state.into(), id.parse()?))
}

fn venus(words: Vec<String>) -> anyhow::Result<ExitCode> {
    let switches = switches::read(words)?;
    if switches.help {
        print!("{}", switches::help());
        return Ok(ExitCode::SUCCESS);
    }
    if switches.version {
        println!("venus {}", env!("CARGO_PKG_VERSION"));
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = match edge::load(&Surroundings::here(), &switches) {
        Ok(loaded) => loaded,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("venus: {problem}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    log::begin(&loaded.config.log, loaded.config.logfile.as_deref())?;
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    match &loaded.file {
        Some(file) => tracing::info!(file = %file.display(), "settings"),
        None => tracing::info!("no venus.conf: the defaults hold"),
    }
    block_on(serve(loaded.config, switches))
}

async fn serve(config: crate::config::Config, switches: Switches) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    if switches.init || forget::is_ordered(&config) {
        forget::forget_cache(&config, switches.archive)?;
    }
    let running = Running::start(&config).await?;
    forget::done(&config)?;
    // Whoever started us, systemd or a person, learns that the tree is there.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(mountpoint = %config.mountpoint.display(), "mounted");
    let end = ending::wait(&mut signals, running.mounted(), None).await;
    tracing::info!(?end, "ending");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    running.stop().await?;
    Ok(ExitCode::SUCCESS)
}
