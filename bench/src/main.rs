//! How fast is the mount? Each workload runs on the mount, on a local directory and on a bare passthrough mirror,
//! in alternation, and is shown as ratios of the medians.
//!
//! ```text
//! cargo run --release -p coda-bench -- --venus target/release/venus
//! coda-bench --quick --only create,stat --json
//! coda-bench --mount /coda/home --local /var/tmp
//! ```

mod disk;
mod mirror;
mod report;
#[allow(clippy::disallowed_methods)] // measuring is what this program does
mod servers;
mod start;
mod workload;
mod workloads;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};
use clap::Parser;

use crate::{report::Report, workload::Places};

/// Measures workloads on the mount, locally and on a mirror.
#[derive(Parser)]
struct Options {
    /// The `venus` program: starts `venus demo --servers 2` and measures inside it.
    #[arg(long, default_value = "target/release/venus")]
    venus: PathBuf,
    /// A directory on a mount that exists, instead.
    #[arg(long)]
    mount: Option<PathBuf>,
    /// A directory on a local disk, best the one that holds the cache (default: a temporary one).
    #[arg(long)]
    local: Option<PathBuf>,
    /// Few and small: shows that everything works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Only these workloads, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The workloads there are.
    #[arg(long)]
    list: bool,
    /// Machine-readable.
    #[arg(long)]
    json: bool,
    /// Runs of each workload at each place (default 3, quick 1).
    #[arg(long)]
    rounds: Option<usize>,
    /// Shell command that empties the client's cache (default: the `cfs` beside `venus`).
    #[arg(long)]
    flush: Option<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coda-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let all = workloads::all(options.quick);
    if options.list {
        all.iter().for_each(|workload| println!("{:<18} {}", workload.name(), workload.about()));
        println!("{:<18} {}", start::NAME, start::ABOUT);
        servers::STORIES.iter().for_each(|story| println!("{:<18} {}", story.name, story.about));
        return Ok(());
    }
    let among_servers = |name: &str| servers::STORIES.iter().find(|story| story.name == name);
    if let Some(name) = options.only.iter().find(|name| {
        *name != start::NAME && among_servers(name).is_none() && !all.iter().any(|w| w.name() == **name)
    }) {
        bail!("no workload is called {name}: see --list");
    }
    // What servers do among themselves needs no mount, and is measured when asked for by name.
    let (stories, others): (Vec<&str>, Vec<&str>) =
        options.only.iter().map(String::as_str).partition(|name| among_servers(name).is_some());
    for story in stories.iter().filter_map(|name| among_servers(name)) {
        servers::measure(story, options.quick, options.json)?;
    }
    if !stories.is_empty() {
        anyhow::ensure!(others.is_empty(), "what servers do among themselves is measured by itself");
        return Ok(());
    }
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let Some(mount) = &options.mount else { return inside_demo(options, wanted(start::NAME)) };

    let temporary = tempfile::tempdir()?;
    let local = options.local.as_deref().unwrap_or(temporary.path());
    let places = Places::new(mount, local, options.flush.clone())?;
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 3 });
    let mut report = Report::new(disk::syncs_per_second(local)?, options.quick || cfg!(debug_assertions));
    for workload in all.iter().filter(|workload| wanted(workload.name())) {
        let line = places.measure(workload.as_ref(), rounds).with_context(|| workload.name())?;
        if !options.json {
            report::print(&line);
        }
        report.lines.push(line);
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.conclude();
    }
    Ok(())
}

/// Runs this program again as the command of a demonstration realm, whose root is its directory there.
fn inside_demo(options: &Options, start: bool) -> anyhow::Result<()> {
    let venus = options.venus.canonicalize().with_context(|| {
        format!(
            "{} (build it with `cargo build --release`, or name one with --venus)",
            options.venus.display()
        )
    })?;
    let others = options.only.iter().any(|only| only != start::NAME) || options.only.is_empty();
    if others {
        let flush = match &options.flush {
            Some(given) => given.clone(),
            None => format!("{} flushcache -y", quoted(&venus.with_file_name("cfs"))),
        };
        let mut words = vec![quoted(&std::env::current_exe()?), "--mount .".into()];
        words.push(format!("--flush {}", quoted(Path::new(&flush))));
        if let Some(local) = &options.local {
            words.push(format!("--local {}", quoted(&local.canonicalize()?)));
        }
        words.extend(options.quick.then(|| "--quick".into()));
        words.extend(options.json.then(|| "--json".into()));
        words.extend(options.rounds.map(|rounds| format!("--rounds {rounds}")));
        let only: Vec<&str> =
            options.only.iter().map(String::as_str).filter(|only| *only != start::NAME).collect();
        words.extend((!only.is_empty()).then(|| format!("--only {}", only.join(","))));
        let status =
            Command::new(&venus).args(["demo", "--servers", "2", "--exec"]).arg(words.join(" ")).status()?;
        anyhow::ensure!(status.success(), "the measurement inside the demonstration failed ({status})");
    }
    // With `--json` there is one document; the start is measured when asked for by name.
    if start && (!options.json || !others) {
        start::measure(&venus, options.quick, options.json)?;
    }
    Ok(())
}

/// A word for the shell, whatever it contains.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}
