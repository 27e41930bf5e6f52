//! How long a start takes when there is much to find: servers with many files, and a cache full of them.

use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};

use crate::{Demo, report::Line, workload::median};

/// The name in `--only`.
pub const NAME: &str = "start";

/// One line for people.
pub fn about(quick: bool) -> String {
    format!("start of two servers and venus, together, with {} files at each", files(quick))
}

fn files(quick: bool) -> usize {
    if quick { 500 } else { 100_000 }
}

/// Fills a realm that is kept, stops it, and times its next starts until a command runs in it.
pub fn measure(demo: &Demo, quick: bool, rounds: usize) -> anyhow::Result<Line> {
    let state = tempfile::tempdir()?;
    demo.run(state.path(), &format!("{} --fill {}", demo.own()?, files(quick)))?;
    let starts = (0..rounds).map(|_| start(demo, state.path())).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Line::lasting(NAME, &about(quick), median(starts), 1.0))
}

/// Seconds from the start until a command in the realm says what time it is.
#[allow(clippy::disallowed_methods)] // measuring is what this program does
fn start(demo: &Demo, state: &Path) -> anyhow::Result<f64> {
    let begun = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut command: Command = demo.command(state, "ls >/dev/null && date +%s%N");
    let output = command.output()?;
    ensure!(output.status.success(), "a start failed ({})", output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    let said: u64 = said.trim().parse().with_context(|| format!("{said:?} is not a time"))?;
    Ok(Duration::from_nanos(said).saturating_sub(begun).as_secs_f64())
}
