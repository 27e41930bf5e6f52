//! `coda-sim`: plays seeds.
//!
//! ```text
//! coda-sim --count 500              seeds 1 to 500; 1 % of them twice
//! coda-sim --seed 17 --trace        one seed, with everything that happens
//! ```

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use clap::{ArgGroup, Parser};
use coda_proto::planted::{Bug, plant};
use coda_sim::{
    mysteries,
    play::{Climate, Report, play, play_twice},
};

/// Plays seeds in a simulated world.
#[derive(Parser)]
#[command(group = ArgGroup::new("world"))]
struct Options {
    /// Plays this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Plays so many seeds.
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Shows all that happens.
    #[arg(long)]
    trace: bool,
    /// Fair weather only.
    #[arg(long, group = "world")]
    calm: bool,
    /// Cuts and deaths only.
    #[arg(long, group = "world")]
    stormy: bool,
    /// Everybody at once, reading what the others write.
    #[arg(long, group = "world")]
    crowded: bool,
    /// A network that falls apart in every shape.
    #[arg(long, group = "world")]
    parted: bool,
    /// The same, and replicas come and go.
    #[arg(long, group = "world")]
    changing: bool,
    /// Clients that reach one server at a time, and forget what they had.
    #[arg(long, group = "world")]
    wandering: bool,
    /// Servers that are restored from old copies of their disks.
    #[arg(long, group = "world")]
    restored: bool,
    /// The network falls apart, servers die, and SCMs follow each other.
    #[arg(long, group = "world")]
    succeeding: bool,
    /// Removals are forgotten, and authors retired, within seconds.
    #[arg(long, group = "world")]
    ageing: bool,
    /// Small programs instead, each of which some course of things must explain.
    #[arg(long, group = "world")]
    mysteries: bool,
    /// Makes this mistake of `coda_proto::planted` on purpose: which seeds notice?
    #[arg(long)]
    plant: Option<String>,
    /// Seeds played at the same time (default: one for each core).
    #[arg(long)]
    jobs: Option<usize>,
    /// Goes on after the first failing seeds, up to so many.
    #[arg(long, default_value_t = 3)]
    failures: usize,
}

impl Options {
    fn bug(&self) -> Option<Bug> {
        let name = self.plant.as_ref()?;
        Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == *name)
    }

    fn climate(&self) -> Climate {
        match (self.calm, self.stormy) {
            (true, _) => Climate::Calm,
            (_, true) => Climate::Stormy,
            _ if self.crowded => Climate::Crowded,
            _ if self.parted => Climate::Parted,
            _ if self.changing => Climate::Changing,
            _ if self.wandering => Climate::Wandering,
            _ if self.restored => Climate::Restored,
            _ if self.succeeding => Climate::Succeeding,
            _ if self.ageing => Climate::Ageing,
            _ => Climate::Any,
        }
    }

    fn play(&self, seed: u64, print: bool) -> anyhow::Result<Report> {
        match self.mysteries {
            true => mysteries::play_short(seed, print),
            false => play(seed, self.climate(), print),
        }
    }

    fn replay(&self, seed: u64) -> String {
        let climate = match self.climate() {
            Climate::Any => "",
            Climate::Calm => " --calm",
            Climate::Stormy => " --stormy",
            Climate::Crowded => " --crowded",
            Climate::Parted => " --parted",
            Climate::Changing => " --changing",
            Climate::Wandering => " --wandering",
            Climate::Restored => " --restored",
            Climate::Succeeding => " --succeeding",
            Climate::Ageing => " --ageing",
        };
        let climate = if self.mysteries { " --mysteries" } else { climate };
        format!("cargo run -p coda-sim -- --seed {seed} --trace{climate}")
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(name) = &options.plant
        && options.bug().is_none()
    {
        println!("{name} is none of {:?}", Bug::ALL);
        return ExitCode::FAILURE;
    }
    if options.trace {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .init();
    }
    let failed = match options.seed {
        Some(seed) => u64::from(!one(&options, seed)),
        None => many(&options),
    };
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(options: &Options, seed: u64) -> bool {
    plant(options.bug());
    let result = match options.trace {
        true => options.play(seed, true),
        false => play_twice(|| options.play(seed, false)),
    };
    say(options, seed, result)
}

/// Plays the seeds on a few threads, each seed on one of them alone. Answers how many failed.
fn many(options: &Options) -> u64 {
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (next, failed) = (AtomicU64::new(options.first), AtomicU64::new(0));
    let totals = Mutex::new((0, 0, 0));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                plant(options.bug());
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.first + options.count
                        || failed.load(Ordering::Relaxed) >= options.failures as u64
                    {
                        return;
                    }
                    let result = match seed % 100 == 1 {
                        true => play_twice(|| options.play(seed, false)),
                        false => options.play(seed, false),
                    };
                    if let Ok(report) = &result {
                        let mut totals = totals.lock().expect("no holder panics");
                        totals.0 += 1;
                        totals.1 += report.operations.0;
                        totals.2 += report.operations.1;
                    }
                    if !say(options, seed, result) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (seeds, operations, done) = *totals.lock().expect("no holder panics");
    let failed = failed.load(Ordering::Relaxed);
    println!("{seeds} seeds, {operations} operations, {done} acknowledged; {failed} seeds failed");
    failed
}

/// Says what is to be said of a seed. Whether all was well.
fn say(options: &Options, seed: u64, result: anyhow::Result<Report>) -> bool {
    match result {
        Ok(report) if report.violations.is_empty() => {
            if options.seed.is_some() {
                let (all, done, refused) = report.operations;
                println!("seed {seed}: well; {all} operations, {done} acknowledged, {refused} refused");
            }
            true
        }
        Ok(report) => {
            println!("seed {seed} FAILED:");
            report.violations.iter().take(5).for_each(|violation| println!("  {violation}"));
            println!("  play it again: {}", options.replay(seed));
            false
        }
        Err(error) => {
            println!("seed {seed} FAILED: {error:#}");
            println!("  play it again: {}", options.replay(seed));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_is_of_one_kind_only() {
        assert!(Options::try_parse_from(["coda-sim", "--mysteries"]).is_ok_and(|options| options.mysteries));
        for two in [["--calm", "--stormy"], ["--ageing", "--mysteries"], ["--parted", "--succeeding"]] {
            let why = Options::try_parse_from(["coda-sim", two[0], two[1]]).err().unwrap().to_string();
            assert!(why.contains(&format!("'{}' cannot be used with", two[0])), "{why}");
        }
    }
}
