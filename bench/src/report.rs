//! The table, for people and for machines.

use serde::Serialize;

use crate::workload::{Reach, Workload};

/// One workload's medians.
#[derive(Serialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Units of one run.
    pub amount: f64,
    /// What they are.
    pub unit: String,
    /// Seconds on the mount.
    pub mount: f64,
    /// Seconds locally.
    pub local: f64,
    /// Seconds on the mirror.
    pub mirror: f64,
    /// Units per second on the mount.
    pub rate: f64,
    /// Mount by local.
    pub times_local: f64,
    /// Mount by mirror.
    pub times_mirror: f64,
    /// Mount by its own baseline, where there is one.
    pub times_baseline: Option<f64>,
    /// What we aim at.
    pub reach: String,
    /// Whether it is reached.
    pub reached: bool,
}

impl Line {
    /// From the median seconds on the mount, locally and on the mirror.
    pub fn new(workload: &dyn Workload, [mount, local, mirror]: [f64; 3], baseline: Option<f64>) -> Line {
        let (amount, unit) = workload.amount();
        let (rate, times_local, times_mirror) = (amount / mount, mount / local, mount / mirror);
        let times_baseline = baseline.map(|baseline| mount / baseline);
        let (reach, reached) = judge(workload.reach(), unit, rate, times_local, times_mirror, times_baseline);
        Line {
            name: workload.name().into(),
            amount,
            unit: unit.into(),
            mount,
            local,
            mirror,
            rate,
            times_local,
            times_mirror,
            times_baseline,
            reach,
            reached,
        }
    }
}

fn judge(
    reach: Reach,
    unit: &str,
    rate: f64,
    times_local: f64,
    times_mirror: f64,
    times_baseline: Option<f64>,
) -> (String, bool) {
    match reach {
        Reach::TimesBaseline(limit) => {
            let times = times_baseline.unwrap_or(f64::NAN);
            (format!("{times:.2} <= {limit} x a small one"), times <= limit)
        }
        Reach::TimesLocal(limit) => (format!("<= {limit} x local"), times_local <= limit),
        Reach::TimesMirror(limit) => (format!("<= {limit} x mirror"), times_mirror <= limit),
        Reach::PerSecond(limit) => (format!(">= {limit} {unit}/s"), rate >= limit),
    }
}

/// All of it.
#[derive(Serialize)]
pub struct Report {
    /// Small durable appends per second of the disk below.
    pub disk_syncs_per_second: f64,
    /// Small amounts or an unoptimised build: the ratios say little.
    pub rough: bool,
    /// The workloads.
    pub lines: Vec<Line>,
}

impl Report {
    /// An empty report.
    pub fn new(disk_syncs_per_second: f64, rough: bool) -> Report {
        Report { disk_syncs_per_second, rough, lines: Vec::new() }
    }

    /// What stands below the table.
    pub fn conclude(&self) {
        let reached = self.lines.iter().filter(|line| line.reached).count();
        println!("\n{reached} of {} reached", self.lines.len());
        println!("the disk makes {:.0} small appends a second durable", self.disk_syncs_per_second);
        if self.rough {
            println!("small amounts or an unoptimised build: the ratios above are not to be quoted");
        }
    }
}

/// One line of the table.
pub fn print(line: &Line) {
    println!(
        "{:<18} {:>10.0} {}/s  {:>8.2} x local  {:>8.2} x mirror   {} {}",
        line.name,
        line.rate,
        line.unit,
        line.times_local,
        line.times_mirror,
        line.reach,
        if line.reached { "reached" } else { "MISSED" }
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_met_on_its_own_scale() {
        assert!(judge(Reach::TimesLocal(1.3), "files", 1.0, 1.3, 9.0, None).1);
        assert!(!judge(Reach::TimesLocal(1.3), "files", 1e9, 1.31, 0.1, None).1);
        assert!(judge(Reach::TimesMirror(6.0), "files", 1.0, 99.0, 5.9, None).1);
        assert!(!judge(Reach::PerSecond(1000.0), "files", 999.0, 1.0, 1.0, None).1);
    }
}
