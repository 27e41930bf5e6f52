//! What the mount does differently on purpose: names of tests under the reason why.
//!
//! ```text
//! # a comment
//! [the reason, a sentence that docs/semantics.md contains too]
//! suite::test
//! suite::family::*
//! ```

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};

/// The list that is part of the project.
pub const LIST: &str = include_str!("../expected.txt");

/// Tests that pass locally and not on the mount, with reasons.
pub struct Expected {
    /// Pattern and reason, in the order of the list.
    lines: Vec<(String, String)>,
}

/// How one test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// What the comparison of two runs says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Passed on both sides.
    pub passed: usize,
    /// Failed on the mount as the list says.
    pub as_expected: usize,
    /// Passed locally, failed on the mount, and nobody said why.
    pub broken: Vec<String>,
    /// Listed, and yet it passed on the mount; or nothing of that name passes locally.
    pub stale: Vec<String>,
}

impl Expected {
    /// Reads a list.
    pub fn parse(text: &str) -> anyhow::Result<Expected> {
        let mut lines = Vec::new();
        let mut reason = None;
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(text) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                reason = Some(text.to_owned());
                continue;
            }
            let reason =
                reason.clone().with_context(|| format!("line {}: {line} has no reason", number + 1))?;
            if lines.iter().any(|(pattern, _)| pattern == line) {
                bail!("line {}: {line} is listed twice", number + 1);
            }
            lines.push((line.to_owned(), reason));
        }
        Ok(Expected { lines })
    }

    /// All reasons, each once.
    #[cfg(test)]
    pub fn reasons(&self) -> BTreeSet<&str> {
        self.lines.iter().map(|(_, reason)| reason.as_str()).collect()
    }

    /// Compares, both ways. `whole`: all tests were run, so that a line nothing matches is stale.
    pub fn compare(
        &self,
        local: &BTreeMap<String, Verdict>,
        mount: &BTreeMap<String, Verdict>,
        whole: bool,
    ) -> Report {
        let mut report = Report::default();
        let mut used = BTreeSet::new();
        for (name, _) in local.iter().filter(|(_, verdict)| **verdict == Verdict::Passed) {
            let line = self.lines.iter().position(|(pattern, _)| matches(pattern, name));
            let passed = mount.get(name) == Some(&Verdict::Passed);
            match (line, passed) {
                (None, true) => report.passed += 1,
                (None, false) => report.broken.push(name.clone()),
                (Some(line), false) => {
                    used.insert(line);
                    report.as_expected += 1;
                }
                // One line may stand for a family, of which some pass.
                (Some(line), true) if self.lines[line].0.ends_with('*') => report.passed += 1,
                (Some(line), true) => {
                    used.insert(line);
                    report.stale.push(format!("{name} passes on the mount"));
                }
            }
        }
        if whole {
            let unused = self.lines.iter().enumerate().filter(|(line, _)| !used.contains(line));
            report.stale.extend(unused.map(|(_, (pattern, _))| format!("{pattern}: nothing fails that way")));
        }
        report
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(verdicts: &[(&str, Verdict)]) -> BTreeMap<String, Verdict> {
        verdicts.iter().map(|(name, verdict)| (name.to_string(), *verdict)).collect()
    }

    #[test]
    fn the_list_is_checked_both_ways() {
        use Verdict::*;
        let list = Expected::parse("# c\n[links stay at home]\nlink::a\nlink::b\nlink::c\ndev::*\n").unwrap();
        let local = run(&[
            ("open::x", Passed),
            ("open::y", Passed),
            ("open::z", Failed),
            ("link::a", Passed),
            ("link::b", Passed),
            ("dev::1", Passed),
            ("dev::2", Passed),
        ]);
        let mount = run(&[
            ("open::x", Passed),
            ("open::y", Failed),
            ("open::z", Failed),
            ("link::a", Failed),
            ("link::b", Passed),
            ("dev::1", Failed),
            ("dev::2", Passed),
        ]);
        let report = list.compare(&local, &mount, true);
        assert_eq!(report.broken, ["open::y"]);
        assert_eq!(report.stale, ["link::b passes on the mount", "link::c: nothing fails that way"]);
        assert_eq!((report.passed, report.as_expected), (2, 2));
    }

    #[test]
    fn a_test_that_is_skipped_on_the_mount_only_is_broken() {
        let list = Expected::parse("").unwrap();
        let report = list.compare(&run(&[("a", Verdict::Passed)]), &run(&[("a", Verdict::Skipped)]), true);
        assert_eq!(report.broken, ["a"]);
    }

    #[test]
    fn a_line_needs_a_reason_and_stands_once() {
        assert!(Expected::parse("a\n").is_err());
        assert!(Expected::parse("[r]\na\na\n").is_err());
    }

    /// Where the documents are there, they say what the list says.
    #[test]
    fn every_reason_is_in_the_semantics_document() {
        let list = Expected::parse(LIST).unwrap();
        let document = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/semantics.md");
        let Ok(text) = std::fs::read_to_string(document) else { return };
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = words(&text);
        for reason in list.reasons() {
            assert!(text.contains(&words(reason)), "docs/semantics.md does not say: {reason}");
        }
    }
}
