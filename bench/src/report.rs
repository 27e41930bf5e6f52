//! The table, for people, for documents and for machines.

use serde::{Deserialize, Serialize};

use crate::workload::{Reach, Workload};

/// One workload's medians.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// What it does.
    pub about: String,
    /// Units of one run, where it has many.
    pub amount: Option<f64>,
    /// What they are.
    pub unit: String,
    /// Seconds on the mount; of what has no runs, the number itself.
    pub mount: f64,
    /// Seconds locally, where that can be compared.
    pub local: Option<f64>,
    /// Seconds on the mirror, where that can be compared.
    pub mirror: Option<f64>,
    /// Units per second on the mount.
    pub rate: Option<f64>,
    /// Mount by local.
    pub times_local: Option<f64>,
    /// Mount by mirror.
    pub times_mirror: Option<f64>,
    /// Mount by its own baseline, where there is one.
    pub times_baseline: Option<f64>,
    /// What we aim at.
    pub goal: String,
    /// The same measure, as it is.
    pub measured: String,
    /// Whether it is reached.
    pub reached: bool,
}

impl Line {
    /// From the median seconds on the mount, locally and on the mirror.
    pub fn new(workload: &dyn Workload, [mount, local, mirror]: [f64; 3], baseline: Option<f64>) -> Line {
        let (amount, unit) = workload.amount();
        let (rate, times_local, times_mirror) = (amount / mount, mount / local, mount / mirror);
        let times_baseline = baseline.map(|baseline| mount / baseline);
        let (goal, measured, reached) =
            judge(workload.reach(), unit, rate, times_local, times_mirror, times_baseline);
        Line {
            name: workload.name().into(),
            about: workload.about(),
            amount: Some(amount),
            unit: unit.into(),
            mount,
            local: Some(local),
            mirror: Some(mirror),
            rate: Some(rate),
            times_local: Some(times_local),
            times_mirror: Some(times_mirror),
            times_baseline,
            goal,
            measured,
            reached,
        }
    }

    /// Something that only we have: so many seconds, and a limit.
    pub fn lasting(name: &str, about: &str, seconds: f64, limit: f64) -> Line {
        let goal = format!("<= {limit} s");
        Line::told(name, about, (seconds, "s"), goal, seconds <= limit)
    }

    /// One number, and what it should be.
    pub fn told(name: &str, about: &str, (value, unit): (f64, &str), goal: String, reached: bool) -> Line {
        let digits = if value < 100.0 { 2 } else { 0 };
        Line {
            name: name.into(),
            about: about.into(),
            amount: None,
            unit: unit.into(),
            mount: value,
            local: None,
            mirror: None,
            rate: None,
            times_local: None,
            times_mirror: None,
            times_baseline: None,
            goal,
            measured: format!("{value:.digits$} {unit}"),
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
) -> (String, String, bool) {
    let times = |times: f64, limit: f64, what: &str| {
        (format!("<= {limit} x {what}"), format!("{times:.2} x"), times <= limit)
    };
    match reach {
        Reach::TimesBaseline(limit) => times(times_baseline.unwrap_or(f64::NAN), limit, "a small one"),
        Reach::TimesLocal(limit) => times(times_local, limit, "local"),
        Reach::TimesMirror(limit) => times(times_mirror, limit, "mirror"),
        Reach::PerSecond(limit) => {
            (format!(">= {limit} {unit}/s"), format!("{rate:.0} {unit}/s"), rate >= limit)
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// Small durable appends per second of the disk below, before and after.
    pub disk_syncs_per_second: [f64; 2],
    /// Small amounts or an unoptimised build: the ratios say little.
    pub rough: bool,
    /// The workloads.
    pub lines: Vec<Line>,
}

impl Report {
    /// An empty report.
    pub fn new(disk_syncs_per_second: f64, rough: bool) -> Report {
        Report { disk_syncs_per_second: [disk_syncs_per_second; 2], rough, lines: Vec::new() }
    }

    /// What stands below a table.
    fn conclusion(&self) -> String {
        let reached = self.lines.iter().filter(|line| line.reached).count();
        let [before, after] = self.disk_syncs_per_second;
        let mut text = format!(
            "{reached} of {} reached. The disk made {before:.0} small appends a second durable before, and \
             {after:.0} after.",
            self.lines.len()
        );
        if self.rough {
            text += " Small amounts or an unoptimised build: the numbers above are not to be quoted.";
        }
        text
    }

    /// For people.
    pub fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| text(line) + "\n").collect::<String>();
        format!("{lines}\n{}\n", self.conclusion())
    }

    /// For documents: a table in Markdown.
    pub fn markdown(&self) -> String {
        let mut table = String::from(
            "| workload | what | goal | measured | reached | a second | x local | x mirror |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        for line in &self.lines {
            table += &format!(
                "| `{}` | {} | {} | {} | {} | {} | {} | {} |\n",
                line.name,
                line.about,
                line.goal,
                line.measured,
                if line.reached { "yes" } else { "**no**" },
                line.rate.map_or_else(|| "-".into(), |rate| format!("{} {}", brief(rate), line.unit)),
                times(line.times_local),
                times(line.times_mirror),
            );
        }
        format!("{table}\n{}\n", self.conclusion())
    }
}

fn times(times: Option<f64>) -> String {
    times.map_or_else(|| "-".into(), |times| format!("{times:.2}"))
}

fn brief(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// One line of the table.
pub fn text(line: &Line) -> String {
    let verdict = if line.reached { "reached" } else { "MISSED" };
    let Some(rate) = line.rate else {
        return format!("{:<18} {}: {} ({}) {verdict}", line.name, line.about, line.measured, line.goal);
    };
    format!(
        "{:<18} {:>10} {:<6}/s {:>8} x local {:>8} x mirror   {} ({}) {verdict}",
        line.name,
        brief(rate),
        line.unit,
        times(line.times_local),
        times(line.times_mirror),
        line.goal,
        line.measured,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_met_on_its_own_scale() {
        let reached = |reach, rate, local, mirror| judge(reach, "files", rate, local, mirror, None).2;
        assert!(reached(Reach::TimesLocal(1.3), 1.0, 1.3, 9.0));
        assert!(!reached(Reach::TimesLocal(1.3), 1e9, 1.31, 0.1));
        assert!(reached(Reach::TimesMirror(6.0), 1.0, 99.0, 5.9));
        assert!(!reached(Reach::PerSecond(1000.0), 999.0, 1.0, 1.0));
    }

    #[test]
    fn the_table_for_documents_says_goal_measure_and_whether_it_is_reached() {
        let mut report = Report::new(1200.4, false);
        report.lines.push(Line::lasting("start", "start of all", 1.25, 1.0));
        let table = report.markdown();
        assert!(table.contains("| `start` | start of all | <= 1 s | 1.25 s | **no** |"), "{table}");
        assert!(table.contains("0 of 1 reached") && table.contains("1200 small appends"), "{table}");
    }
}
