//! A workload, and the three places where it runs in alternation.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{mirror, report::Line};

/// What we want to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reach {
    /// At most this many times as long as locally.
    TimesLocal(f64),
    /// At most this many times as long as on the mirror.
    TimesMirror(f64),
    /// At least this many units per second.
    PerSecond(f64),
    /// At most this many times as long as its baseline on the mount itself.
    TimesBaseline(f64),
}

/// Something that is timed.
pub trait Workload {
    /// One word.
    fn name(&self) -> &'static str;
    /// One line for people.
    fn about(&self) -> String;
    /// The directory it works in. Workloads that share one need the same in it; the first prepares it.
    fn home(&self) -> &'static str {
        self.name()
    }
    /// How many units one run does, and what they are.
    fn amount(&self) -> (f64, &'static str);
    /// The aim.
    fn reach(&self) -> Reach;
    /// Whether the client's cache is emptied before each run.
    fn cold(&self) -> bool {
        false
    }
    /// Makes what the runs need, in an empty directory.
    fn prepare(&self, dir: &Path) -> anyhow::Result<()>;
    /// One run: seconds. `round` tells runs apart.
    fn run(&self, dir: &Path, round: usize) -> anyhow::Result<f64>;
    /// One run where there is no mount: seconds. Differs where the comparison is with something else.
    fn run_locally(&self, dir: &Path, round: usize) -> anyhow::Result<f64> {
        self.run(dir, round)
    }
    /// Whether the client is apart from its servers meanwhile. Then it is timed, too, how long it takes until they
    /// have everything.
    fn apart(&self) -> Option<Sent> {
        None
    }
    /// Something easier on the same mount to compare with: seconds.
    fn baseline(&self, _dir: &Path, _round: usize) -> anyhow::Result<Option<f64>> {
        Ok(None)
    }
}

/// What is said of sending what was done apart.
pub struct Sent {
    /// One word.
    pub name: &'static str,
    /// One line for people.
    pub about: String,
    /// At most this many seconds.
    pub limit: f64,
}

/// Large files are few: so many are removed from a mount that goes anyway.
const FEW: usize = 16;

/// The mount, a local directory, and a mirror of another one.
pub struct Places {
    mount: PathBuf,
    local: PathBuf,
    mirrored: PathBuf,
    behind: PathBuf,
    flush: Option<String>,
    cfs: Option<PathBuf>,
    /// The mount goes with all that is in it: nothing needs to be removed from it.
    fleeting: bool,
    /// Unmounted when dropped.
    _session: fuser::BackgroundSession,
}

impl Places {
    /// Makes a directory on the mount and two below `local`, one of them behind a mirror.
    pub fn new(
        mount: &Path,
        local: &Path,
        flush: Option<String>,
        cfs: Option<PathBuf>,
        fleeting: bool,
    ) -> anyhow::Result<Places> {
        let name = format!("coda-bench-{}", std::process::id());
        let below = |base: &Path, name: &str| -> anyhow::Result<PathBuf> {
            let dir = base.canonicalize().with_context(|| base.display().to_string())?.join(name);
            fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
            Ok(dir)
        };
        let mount = below(mount, &name)?;
        let behind = below(local, &format!("{name}-behind"))?;
        let mirrored = below(local, &format!("{name}-mirror"))?;
        let local = below(local, &name)?;
        let session = mirror::mount(&behind, &mirrored).context("mounting the mirror")?;
        Ok(Places { mount, local, mirrored, behind, flush, cfs, fleeting, _session: session })
    }

    fn homes(&self, home: &str) -> [PathBuf; 3] {
        [&self.mount, &self.local, &self.mirrored].map(|place| place.join(home))
    }

    /// Runs a workload at each place in turn, `rounds` times.
    pub fn measure(&self, workload: &dyn Workload, rounds: usize) -> anyhow::Result<Vec<Line>> {
        let dirs = self.homes(workload.home());
        for dir in dirs.iter().filter(|dir| !dir.exists()) {
            fs::create_dir(dir).with_context(|| dir.display().to_string())?;
            workload.prepare(dir).with_context(|| dir.display().to_string())?;
        }
        let mut times: [Vec<f64>; 3] = Default::default();
        let (mut baseline, mut sending) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            for (place, dir) in dirs.iter().enumerate() {
                let seconds = if place == 0 {
                    if workload.cold() {
                        self.flush()?;
                    }
                    if workload.apart().is_some() {
                        self.cfs(&["disconnect"])?;
                    }
                    let seconds = workload.run(dir, round);
                    if workload.apart().is_some() {
                        sending.push(self.come_back()?);
                    }
                    seconds
                } else {
                    workload.run_locally(dir, round)
                };
                if place == 0 {
                    baseline.extend(workload.baseline(dir, round)?);
                }
                times[place].push(seconds.with_context(|| dir.display().to_string())?);
            }
        }
        let baseline = (!baseline.is_empty()).then(|| median(baseline));
        let mut lines = vec![Line::new(workload, times.map(median), baseline)];
        if let Some(sent) = workload.apart() {
            lines.push(Line::lasting(sent.name, &sent.about, median(sending), sent.limit));
        }
        Ok(lines)
    }

    /// Removes what a workload worked in. Many small files stay where they go with the mount.
    pub fn clear(&self, home: &str) -> anyhow::Result<()> {
        for (place, dir) in self.homes(home).iter().enumerate() {
            if place == 0 && self.fleeting {
                for entry in fs::read_dir(dir)?.take(FEW) {
                    let path = entry?.path();
                    let _ = if path.is_file() { fs::remove_file(path) } else { Ok(()) };
                }
                continue;
            }
            fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        Ok(())
    }

    /// Talks to the servers again, until they have everything: seconds.
    #[allow(clippy::disallowed_methods)] // measuring is what this program does
    fn come_back(&self) -> anyhow::Result<f64> {
        let begun = std::time::Instant::now();
        self.cfs(&["reconnect"])?;
        self.cfs(&["flush", "--wait", "--timeout", "300"])?;
        Ok(begun.elapsed().as_secs_f64())
    }

    fn cfs(&self, words: &[&str]) -> anyhow::Result<()> {
        let cfs = self.cfs.as_ref().context("being apart needs --cfs")?;
        let output = Command::new(cfs).args(words).output().with_context(|| cfs.display().to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cfs {words:?} failed ({}): {said}", output.status);
        Ok(())
    }

    fn flush(&self) -> anyhow::Result<()> {
        let command = self.flush.as_ref().context("a cold run needs --flush")?;
        let status =
            Command::new("sh").arg("-c").arg(command).stdout(std::process::Stdio::null()).status()?;
        ensure!(status.success(), "`{command}` failed ({status})");
        Ok(())
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for dir in [&self.local, &self.behind] {
            let _ = fs::remove_dir_all(dir);
        }
        if !self.fleeting {
            let _ = fs::remove_dir_all(&self.mount);
        }
    }
}

/// The middle one.
pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    match times.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => times[n / 2],
        n => (times[n / 2 - 1] + times[n / 2]) / 2.0,
    }
}

/// The value below which this share of them lies.
pub fn quantile(mut times: Vec<f64>, share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = (times.len() as f64 * share) as usize;
    times.get(at.min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_where_its_share_ends() {
        let times: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(quantile(times.clone(), 0.5), 50.0);
        assert_eq!((quantile(times.clone(), 0.99), quantile(times, 1.0)), (99.0, 99.0));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
