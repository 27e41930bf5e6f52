//! How fast is the mount? Each workload runs on the mount, on a local directory and on a bare passthrough mirror,
//! in alternation, and is shown as ratios of the medians.
//!
//! ```text
//! cargo build --release -p venus -p cfs && cargo run --release -p coda-bench
//! coda-bench --quick --only create,stat --json
//! coda-bench --markdown
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
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, bail, ensure};
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
    /// A table in Markdown, with goals.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Runs of each workload at each place (default 3, quick 1).
    #[arg(long)]
    rounds: Option<usize>,
    /// Shell command that empties the client's cache (default: the `cfs` beside `venus`).
    #[arg(long)]
    flush: Option<String>,
    /// The mount goes afterwards with all that is in it.
    #[arg(long, hide = true)]
    fleeting: bool,
    /// Makes so many files in the current directory, and ends.
    #[arg(long, hide = true)]
    fill: Option<usize>,
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn wanted(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
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
    if let Some(files) = options.fill {
        return workloads::plant_forest(Path::new("."), files, 16);
    }
    let all = workloads::all(options.quick);
    if options.list {
        all.iter().for_each(|workload| println!("{:<18} {}", workload.name(), workload.about()));
        println!("{:<18} {}", start::NAME, start::about(options.quick));
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
    let report = match &options.mount {
        Some(mount) => on_mount(options, mount)?,
        None => in_demo(options)?,
    };
    match (options.json, options.markdown) {
        (true, _) => println!("{}", serde_json::to_string_pretty(&report)?),
        (_, true) => print!("{}", report.markdown()),
        _ => print!("{}", report.text()),
    }
    Ok(())
}

/// Measures on a mount that is there. Each line is told on the way, too.
fn on_mount(options: &Options, mount: &Path) -> anyhow::Result<Report> {
    let temporary = tempfile::tempdir()?;
    let local = options.local.as_deref().unwrap_or(temporary.path());
    let places = Places::new(mount, local, options.flush.clone(), options.fleeting)?;
    let mut report = Report::new(disk::syncs_per_second(local)?, options.quick || cfg!(debug_assertions));
    let mut all = workloads::all(options.quick);
    all.retain(|workload| options.wanted(workload.name()));
    for (index, workload) in all.iter().enumerate() {
        let line = places.measure(workload.as_ref(), options.rounds()).with_context(|| workload.name())?;
        eprintln!("{}", report::text(&line));
        report.lines.push(line);
        if all[index + 1..].iter().all(|later| later.home() != workload.home()) {
            places.clear(workload.home())?;
        }
    }
    report.disk_syncs_per_second[1] = disk::syncs_per_second(local)?;
    Ok(report)
}

/// Runs this program again as the command of a demonstration realm, whose root is its directory there.
fn in_demo(options: &Options) -> anyhow::Result<Report> {
    let venus = options.venus.canonicalize().with_context(|| {
        let venus = options.venus.display();
        format!("{venus} (build it with `cargo build --release -p venus -p cfs`, or name one with --venus)")
    })?;
    let demo = Demo { venus };
    let only: Vec<&str> =
        options.only.iter().map(String::as_str).filter(|only| *only != start::NAME).collect();
    let mut report = Report::new(disk::syncs_per_second(&std::env::temp_dir())?, options.quick);
    if options.only.is_empty() || !only.is_empty() {
        let flush = match &options.flush {
            Some(given) => given.clone(),
            None => format!("{} flushcache -y", quoted(&demo.venus.with_file_name("cfs"))),
        };
        let mut words = vec![demo.own()?, "--mount . --fleeting --json".into()];
        words.push(format!("--flush {}", quoted(Path::new(&flush))));
        if let Some(local) = &options.local {
            words.push(format!("--local {}", quoted(&local.canonicalize()?)));
        }
        words.extend(options.quick.then(|| "--quick".into()));
        words.extend(options.rounds.map(|rounds| format!("--rounds {rounds}")));
        words.extend((!only.is_empty()).then(|| format!("--only {}", only.join(","))));
        let state = tempfile::tempdir()?;
        let output = demo.command(state.path(), &words.join(" ")).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "the measurement in the demonstration failed ({})", output.status);
        report = serde_json::from_slice(&output.stdout).context("what the measurement said")?;
    }
    if options.wanted(start::NAME) {
        let line = start::measure(&demo, options.quick, options.rounds())?;
        eprintln!("{}", report::text(&line));
        report.lines.push(line);
    }
    Ok(report)
}

/// Demonstration realms of two servers.
pub struct Demo {
    venus: PathBuf,
}

impl Demo {
    /// What runs `words` in the realm whose state lies in `state`.
    fn command(&self, state: &Path, words: &str) -> Command {
        let mut command = Command::new(&self.venus);
        // Large enough for what is measured to stay in the cache.
        command.args(["demo", "--servers", "2", "--cachesize", "6GB", "--cachefiles", "300000", "--state"]);
        command.arg(state).arg("--exec").arg(words);
        command
    }

    /// Runs it, silently.
    fn run(&self, state: &Path, words: &str) -> anyhow::Result<()> {
        let status = self.command(state, words).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "`{words}` failed in the demonstration ({status})");
        Ok(())
    }

    /// This program, as a word for the shell.
    fn own(&self) -> anyhow::Result<String> {
        Ok(quoted(&std::env::current_exe()?))
    }
}

/// A word for the shell, whatever it contains.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}
