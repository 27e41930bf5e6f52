//! Does the mount behave like a file system? Test suites and real programs run on a local directory and on
//! the mount; what works locally must work on the mount, but for the list in `expected.txt`.
//!
//! ```text
//! coda-conformance --demo target/debug/venus        starts a realm of two servers around itself
//! coda-conformance --mount /coda/home --local /tmp  compares two directories that exist
//! coda-conformance ... --only fsx --fsx-ops 100000 --fsx-seeds 1,2,3
//! ```

mod expected;
mod facts;
mod fsx;
mod pjdfstest;
mod programs;
mod suite;
mod tools;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};
use clap::Parser;

/// Compares a mount with a local directory.
#[derive(Parser)]
struct Options {
    /// A directory on the mount.
    #[arg(long, conflicts_with = "demo", required_unless_present_any = ["demo", "list"])]
    mount: Option<PathBuf>,
    /// A directory on a local disk (default: a temporary one).
    #[arg(long)]
    local: Option<PathBuf>,
    /// The `venus` program: starts `venus demo --servers 2` and runs inside it.
    #[arg(long)]
    demo: Option<PathBuf>,
    /// The git repository to clone (default: the one around the current directory).
    #[arg(long)]
    repository: Option<PathBuf>,
    /// Where the test suites are installed.
    #[arg(long, default_value = "target/conformance-tools")]
    tools: PathBuf,
    /// Only these parts, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The parts there are.
    #[arg(long)]
    list: bool,
    /// Operations of each fsx run.
    #[arg(long, default_value_t = 20_000)]
    fsx_ops: u64,
    /// Seeds of the fsx runs, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    fsx_seeds: Vec<u64>,
    /// Only the pjdfstest cases whose name contains this.
    #[arg(long)]
    pjdfstest: Option<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("coda-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> anyhow::Result<bool> {
    if options.list {
        suite::PARTS.iter().for_each(|part| println!("{part}"));
        return Ok(true);
    }
    if let Some(part) = options.only.iter().find(|part| !suite::PARTS.contains(&part.as_str())) {
        bail!("no part is called {part}; there are {}", suite::PARTS.join(", "));
    }
    let repository = match &options.repository {
        Some(given) => given.canonicalize()?,
        None => around(&std::env::current_dir()?)?,
    };
    std::fs::create_dir_all(&options.tools)?;
    let tools = options.tools.canonicalize()?;
    tools::install(&tools, |part| options.only.is_empty() || options.only.iter().any(|only| only == part))?;
    match &options.demo {
        Some(venus) => inside_demo(options, venus, &repository, &tools),
        None => {
            let mount = options.mount.as_ref().expect("clap asks for it").canonicalize()?;
            let temporary = tempfile::tempdir()?;
            let local = options.local.as_deref().unwrap_or(temporary.path()).canonicalize()?;
            suite::Suite {
                mount,
                local,
                repository,
                tools,
                only: options.only.clone(),
                fsx_ops: options.fsx_ops,
                fsx_seeds: options.fsx_seeds.clone(),
                pattern: options.pjdfstest.clone(),
            }
            .run()
        }
    }
}

/// Runs this program again as the command of a demonstration realm: its directory is the realm's root.
fn inside_demo(options: &Options, venus: &Path, repository: &Path, tools: &Path) -> anyhow::Result<bool> {
    let venus = venus.canonicalize().with_context(|| venus.display().to_string())?;
    let mut words = vec![quoted(&std::env::current_exe()?), "--mount .".into()];
    words.push(format!("--repository {}", quoted(repository)));
    words.push(format!("--tools {}", quoted(tools)));
    words.push(format!("--fsx-ops {}", options.fsx_ops));
    let seeds: Vec<String> = options.fsx_seeds.iter().map(u64::to_string).collect();
    words.push(format!("--fsx-seeds {}", seeds.join(",")));
    if let Some(local) = &options.local {
        words.push(format!("--local {}", quoted(&local.canonicalize()?)));
    }
    if !options.only.is_empty() {
        words.push(format!("--only {}", options.only.join(",")));
    }
    if let Some(pattern) = &options.pjdfstest {
        words.push(format!("--pjdfstest {}", quoted(Path::new(pattern))));
    }
    // One case writes behind two gigabytes of hole, and the cache counts what a file seems to be.
    let status = Command::new(venus)
        .args(["demo", "--servers", "2", "--shared", "--cachesize", "6GB", "--exec"])
        .arg(words.join(" "))
        .status()?;
    Ok(status.success())
}

/// A word for the shell, whatever it contains.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// The repository around a directory.
fn around(dir: &Path) -> anyhow::Result<PathBuf> {
    let top = dir.ancestors().find(|above| above.join(".git").exists());
    Ok(top.context("not inside a git repository: name one with --repository")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_quotes_stays_one_word_of_the_shell() {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("printf %s {}", quoted(Path::new("a'b c"))));
        assert_eq!(shell.output().unwrap().stdout, b"a'b c");
    }
}
