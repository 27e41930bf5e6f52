//! How fast is the mount? Each workload runs on the mount, on a local directory and on a bare passthrough mirror,
//! in alternation, and is shown as ratios of the medians.
//!
//! ```text
//! cargo build --release -p venus -p cfs && cargo run --release -p coda-bench
//! coda-bench --quick --only create,stat --json
//! coda-bench --markdown
//! coda-bench --mount /coda/home --local /var/tmp
//! ```

#[allow(clippy::disallowed_methods)] // measuring is what this program does
mod clients;
mod disk;
#[allow(clippy::disallowed_methods)] // measuring is what this program does
mod laptop;
mod mirror;
#[allow(clippy::disallowed_methods)] // measuring is what this program does
mod realm;
mod report;
#[allow(clippy::disallowed_methods)] // measuring is what this program does
mod servers;
mod start;
mod story;
mod workload;
mod workloads;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, bail, ensure};
use clap::Parser;

use crate::{report::Report, story::Story, workload::Places};

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
    /// The `cfs` that speaks to the mount's cache manager (default: the one beside `venus`).
    #[arg(long)]
    cfs: Option<PathBuf>,
    /// The mount goes afterwards with all that is in it.
    #[arg(long, hide = true)]
    fleeting: bool,
    /// Makes so many files in the current directory, and ends.
    #[arg(long, hide = true)]
    fill: Option<usize>,
    /// Starts the server whose store this is, says how that went, and ends.
    #[arg(long, hide = true)]
    start_server: Option<PathBuf>,
    /// Starts a client from this disk, says how that went, and ends.
    #[arg(long, hide = true)]
    take_up: Option<PathBuf>,
}

impl Options {
    /// Its numbers say little.
    fn is_rough(&self) -> bool {
        self.quick || cfg!(debug_assertions)
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn wanted(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// The stories that are to be told.
    fn stories(&self) -> Vec<&'static Story> {
        let wanted = |story: &&Story| self.wanted(story.name) && !(story.slow && self.only.is_empty());
        stories().filter(wanted).collect()
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
    if let Some(dir) = &options.start_server {
        return servers::start_alone(dir);
    }
    if let Some(dir) = &options.take_up {
        return clients::take_up(dir);
    }
    let all = workloads::all(options.quick);
    if options.list {
        all.iter().for_each(|workload| println!("{:<18} {}", workload.name(), workload.about()));
        println!("{:<18} {}", start::NAME, start::about(options.quick));
        stories().for_each(|story| println!("{:<18} {}", story.name, story.about));
        return Ok(());
    }
    let is_story = |name: &str| stories().any(|story| story.name == name);
    let is_known = |name: &str| name == start::NAME || is_story(name) || all.iter().any(|w| w.name() == name);
    if let Some(name) = options.only.iter().find(|name| !is_known(name)) {
        bail!("no workload is called {name}: see --list");
    }
    let mut report = match &options.mount {
        Some(mount) => on_mount(options, mount)?,
        None if options.only.is_empty() || options.only.iter().any(|name| !is_story(name)) => {
            in_demo(options)?
        }
        None => Report::new(disk::syncs_per_second(&std::env::temp_dir())?, options.is_rough()),
    };
    if options.mount.is_none() {
        for story in options.stories() {
            let lines = match story.measure(options.quick) {
                Ok(lines) => lines,
                // One that fails must not take along an hour's table, unless that is what it was asked for.
                Err(error) if options.only.is_empty() && !options.quick => {
                    eprintln!("coda-bench: {error:#}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            lines.iter().for_each(|line| eprintln!("{}", report::text(line)));
            report.lines.extend(lines);
        }
        report.disk_syncs_per_second[1] = disk::syncs_per_second(&std::env::temp_dir())?;
    }
    match (options.json, options.markdown) {
        (true, _) => println!("{}", serde_json::to_string_pretty(&report)?),
        (_, true) => print!("{}", report.markdown()),
        _ => print!("{}", report.text()),
    }
    Ok(())
}

/// All stories: those of servers, and those of clients.
fn stories() -> impl Iterator<Item = &'static Story> {
    servers::STORIES.iter().chain(clients::STORIES)
}

/// Measures on a mount that is there. Each line is told on the way, too.
fn on_mount(options: &Options, mount: &Path) -> anyhow::Result<Report> {
    let temporary = tempfile::tempdir()?;
    let local = options.local.as_deref().unwrap_or(temporary.path());
    let places = Places::new(mount, local, options.flush.clone(), options.cfs.clone(), options.fleeting)?;
    let mut report = Report::new(disk::syncs_per_second(local)?, options.is_rough());
    let mut all = workloads::all(options.quick);
    all.retain(|workload| options.wanted(workload.name()));
    for (index, workload) in all.iter().enumerate() {
        let lines = places.measure(workload.as_ref(), options.rounds()).with_context(|| workload.name())?;
        lines.iter().for_each(|line| eprintln!("{}", report::text(line)));
        report.lines.extend(lines);
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
    let inside = workloads::all(options.quick);
    let is_inside = |only: &&str| inside.iter().any(|workload| workload.name() == *only);
    let only: Vec<&str> = options.only.iter().map(String::as_str).filter(is_inside).collect();
    let mut report = Report::new(disk::syncs_per_second(&std::env::temp_dir())?, options.is_rough());
    if options.only.is_empty() || !only.is_empty() {
        let cfs = options.cfs.clone().unwrap_or_else(|| demo.venus.with_file_name("cfs"));
        let flush = match &options.flush {
            Some(given) => given.clone(),
            None => format!("{} flushcache -y", quoted(&cfs)),
        };
        let mut words = vec![demo.own()?, "--mount . --fleeting --json".into()];
        words.push(format!("--flush {} --cfs {}", quoted(Path::new(&flush)), quoted(&cfs)));
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
        command.arg(state).arg("--mount").arg(state.join("mount")).arg("--exec").arg(words);
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
