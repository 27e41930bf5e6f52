//! Stories: what has to be seen as a whole rather than done many times. Each gives a few numbers.

use std::process::Command;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::report::Line;

/// One of them: its name, what it says for people, and how it is run.
pub struct Story {
    /// The name in `--only`.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Takes minutes: only when asked for by name.
    pub slow: bool,
    /// Runs it; a small one where `quick`.
    pub run: fn(quick: bool) -> anyhow::Result<Vec<Number>>,
}

impl Story {
    /// Runs it: a line for each number.
    pub fn measure(&self, quick: bool) -> anyhow::Result<Vec<Line>> {
        let numbers = (self.run)(quick).with_context(|| self.name)?;
        Ok(numbers.iter().map(|number| number.line(self.name)).collect())
    }
}

/// What was measured, and what it should be.
pub struct Number {
    what: String,
    value: f64,
    unit: &'static str,
    reach: f64,
    /// More is better.
    more: bool,
}

impl Number {
    /// So many seconds, and a limit.
    pub fn seconds(what: impl Into<String>, value: f64, reach: f64) -> Number {
        Number::at_most(what, value, "s", reach)
    }

    /// Something that should be small.
    pub fn at_most(what: impl Into<String>, value: f64, unit: &'static str, reach: f64) -> Number {
        Number { what: what.into(), value, unit, reach, more: false }
    }

    /// Something that should be large.
    pub fn at_least(what: impl Into<String>, value: f64, unit: &'static str, reach: f64) -> Number {
        Number { what: what.into(), value, unit, reach, more: true }
    }

    fn line(&self, name: &str) -> Line {
        let (sign, reached) = match self.more {
            true => (">=", self.value >= self.reach),
            false => ("<=", self.value <= self.reach),
        };
        let goal = format!("{sign} {} {}", self.reach, self.unit);
        Line::told(name, &self.what, (self.value, self.unit), goal, reached)
    }
}

/// How a start went, measured by a process of its own: nothing else is in its memory.
#[derive(Deserialize, Serialize)]
pub struct Begun {
    /// How long it took.
    pub seconds: f64,
    /// What it took of memory.
    pub megabytes: f64,
}

impl Begun {
    /// Runs this program with these words, and takes what it tells.
    pub fn measure(words: &[&str]) -> anyhow::Result<Begun> {
        let output = Command::new(std::env::current_exe()?).args(words).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words:?} failed ({}): {said}", output.status);
        serde_json::from_slice(&output.stdout).context("what it told")
    }

    /// Tells it.
    pub fn tell(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// The memory that this process has now.
pub fn megabytes() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).context("statm has fields")?.parse()?;
    Ok((pages * 4096) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_reached_from_its_own_side() {
        let reached = |number: Number| number.line("x").reached;
        assert!(reached(Number::seconds("", 1.0, 1.0)) && !reached(Number::seconds("", 1.1, 1.0)));
        assert!(reached(Number::at_least("", 2000.0, "files/s", 2000.0)));
        assert!(!reached(Number::at_least("", 1999.0, "files/s", 2000.0)));
        let line = Number::at_most("calls", 2.0, "calls", 4.0).line("reconnect");
        assert_eq!((&*line.goal, &*line.measured), ("<= 4 calls", "2.00 calls"));
    }
}
