//! Lives through what people live through, with real servers, a real mount and a network that misbehaves, and
//! compares what is left with what was promised.
//!
//! ```text
//! coda-trial day                          office, train, café, home; a local twin does the same
//! coda-trial faults --seconds 1200        faults every three seconds under two writing clients
//! coda-trial mysteries --count 20         small programs, and whether anything explains what they saw
//! ```

mod day;
mod draw;
mod faults;
mod laptop;
mod line;
mod mysteries;
mod process;
mod realm;
mod tree;
mod wait;
mod work;
mod writer;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

/// Days in the life of a laptop and its servers.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
    /// Where servers, clients and logs are kept [default: a temporary directory that goes away].
    #[arg(long, global = true)]
    keep: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Office with three replicas, train without a network, café at 64 kbit/s with a tenth lost, home.
    Day {
        /// Small files that are made in the train.
        #[arg(long, default_value_t = 2_000)]
        files: usize,
    },
    /// Faults under continuous writes.
    Faults {
        /// How long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Seconds between two.
        #[arg(long, default_value_t = 3)]
        every: u64,
        /// Which ones.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Small programs of clients that part and meet (takes root).
    Mysteries {
        /// How many.
        #[arg(long, default_value_t = 5)]
        count: u64,
        /// The first one's seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => {
            println!("passed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("coda-trial: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let programs = realm::Programs::beside(&std::env::current_exe()?)?;
    let temporary = tempfile::tempdir()?;
    let dir = match &options.keep {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            dir.canonicalize()?
        }
        None => temporary.path().to_owned(),
    };
    match options.what {
        What::Day { files } => day::live(&day::Day { files }, &programs, &dir),
        What::Faults { seconds, every, seed } => {
            let plan = faults::Plan {
                length: Duration::from_secs(seconds),
                every: Duration::from_secs(every),
                seed,
            };
            faults::run(&plan, &programs, &dir)
        }
        What::Mysteries { count, seed } => {
            mysteries::run(&mysteries::Plan { first: seed, count }, &programs, &dir)
        }
    }
}
