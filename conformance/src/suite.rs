//! The whole comparison: each part runs locally, then on the mount.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::Context;

use crate::{
    expected::{Expected, LIST},
    facts::{self, Facts},
    fsx,
    pjdfstest::{self, Cases},
    programs::{self, Program},
};

/// The parts, in the order they run.
pub const PARTS: [&str; 6] = ["fsx", "pjdfstest", "git", "tar", "cargo", "sqlite"];

/// Where and what to run.
pub struct Suite {
    /// A directory on the mount.
    pub mount: PathBuf,
    /// A directory on a disk.
    pub local: PathBuf,
    /// The repository to clone.
    pub repository: PathBuf,
    /// Where the programs are.
    pub tools: PathBuf,
    /// The parts to run; none: all.
    pub only: Vec<String>,
    /// Operations of an fsx run.
    pub fsx_ops: u64,
    /// Its seeds.
    pub fsx_seeds: Vec<u64>,
    /// Only pjdfstest cases with this in their name.
    pub pattern: Option<String>,
}

impl Suite {
    /// Runs the parts; whether all agree.
    #[allow(clippy::disallowed_methods)] // a person reads the times
    pub fn run(&self) -> anyhow::Result<bool> {
        let mut all = true;
        for part in PARTS.iter().filter(|part| self.only.is_empty() || self.only.iter().any(|o| o == *part)) {
            let begun = Instant::now();
            let complaints = self.part(part).unwrap_or_else(|error| vec![format!("{error:#}")]);
            let verdict = if complaints.is_empty() { "ok" } else { "DIFFERS" };
            println!("{part}: {verdict} ({:.1} s)", begun.elapsed().as_secs_f64());
            complaints.iter().for_each(|complaint| println!("  {complaint}"));
            all &= complaints.is_empty();
        }
        Ok(all)
    }

    /// What is wrong with one part, as lines for people.
    fn part(&self, part: &str) -> anyhow::Result<Vec<String>> {
        let (local, mount) = (Room::new(&self.local, part)?, Room::new(&self.mount, part)?);
        match part {
            "pjdfstest" => self.pjdfstest(&local, &mount),
            "fsx" => self.fsx(&local, &mount),
            "git" => self.program(&programs::Git { repository: &self.repository }, &local, &mount),
            "tar" => self.program(&programs::Tar, &local, &mount),
            "cargo" => self.program(&programs::Cargo, &local, &mount),
            "sqlite" => self.program(&programs::Sqlite, &local, &mount),
            other => unreachable!("{other} is not in PARTS"),
        }
    }

    fn pjdfstest(&self, local: &Room, mount: &Room) -> anyhow::Result<Vec<String>> {
        let pattern = self.pattern.as_deref();
        let cases = pattern.map_or(Cases::All, Cases::With);
        let here = pjdfstest::run(&self.tools, &local.dir, &cases).context("locally")?;
        let names = Cases::Named(here.keys().map(String::as_str).collect());
        let there = pjdfstest::run(&self.tools, &mount.dir, &names).context("on the mount")?;
        let report = Expected::parse(LIST).context("expected.txt")?.compare(&here, &there, pattern.is_none());
        println!(
            "  {} cases: {} pass on both, {} fail on the mount for a listed reason",
            here.len(),
            report.passed,
            report.as_expected
        );
        let broken = report.broken.iter().map(|name| format!("passes locally, not on the mount: {name}"));
        let stale = report.stale.iter().map(|line| format!("expected.txt is out of date: {line}"));
        Ok(broken.chain(stale).collect())
    }

    fn fsx(&self, local: &Room, mount: &Room) -> anyhow::Result<Vec<String>> {
        let mut complaints = Vec::new();
        for seed in &self.fsx_seeds {
            let here = fsx::run(&self.tools, &local.dir, *seed, self.fsx_ops).context("locally")?;
            let there = fsx::run(&self.tools, &mount.dir, *seed, self.fsx_ops).context("on the mount")?;
            if here != there {
                complaints.push(format!("seed {seed}: the files differ at the end"));
            }
        }
        Ok(complaints)
    }

    fn program(&self, program: &dyn Program, local: &Room, mount: &Room) -> anyhow::Result<Vec<String>> {
        let here: Facts = program.run(&local.dir).context("locally")?;
        let there = program.run(&mount.dir).context("on the mount")?;
        println!("  {} facts compared", here.len());
        Ok(facts::differences(&here, &there, 20))
    }
}

/// A directory for one part, removed after it.
struct Room {
    dir: PathBuf,
}

impl Room {
    fn new(base: &std::path::Path, part: &str) -> anyhow::Result<Room> {
        let dir = base.join(format!("conformance-{part}-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Room { dir })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            println!("  could not remove {}: {error}", self.dir.display());
        }
    }
}
