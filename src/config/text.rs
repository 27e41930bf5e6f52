//! venus.conf as text: `key=value` lines, `#` comments, later lines win.

use std::fmt;

use super::{
    Config,
    nearest::nearest,
    old::{self, Old},
    settings,
};

/// A line that cannot be followed: where it is and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The file, or `command line`.
    pub file: String,
    /// The line, counted from 1; none on the command line.
    pub line: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.reason),
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

/// Follows the lines of a file. Answers notes about old keys, or every problem; after a problem the
/// configuration is not to be used.
pub fn follow(config: &mut Config, file: &str, text: &str) -> Result<Vec<Problem>, Vec<Problem>> {
    let (mut notes, mut problems) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let say = |reason| Problem { file: file.to_owned(), line: Some(index + 1), reason };
        match one(config, line) {
            Ok(note) => notes.extend(note.map(say)),
            Err(reason) => problems.push(say(reason)),
        }
    }
    if problems.is_empty() { Ok(notes) } else { Err(problems) }
}

fn one(config: &mut Config, line: &str) -> Result<Option<String>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} is not key=value"))?;
    set(config, key.trim(), unquoted(value)?)
}

/// The value without its quotes and without what follows it as a comment.
fn unquoted(value: &str) -> Result<&str, String> {
    let value = value.trim();
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let (inner, rest) = value[1..].split_once(quote).ok_or("the quote is not closed")?;
            let rest = rest.trim_start();
            match rest.is_empty() || rest.starts_with('#') {
                true => Ok(inner),
                false => Err(format!("{rest:?} follows the closing quote")),
            }
        }
        _ => Ok(value.split_once(" #").map_or(value, |(value, _)| value.trim_end())),
    }
}

/// Gives one setting a value. Answers a note where an old name was used.
pub fn set(config: &mut Config, key: &str, value: &str) -> Result<Option<String>, String> {
    if let Some(setting) = settings::find(key) {
        return (setting.set)(config, value).map(|()| None).map_err(|why| format!("{key}: {why}"));
    }
    match old::find(key) {
        Some(Old::Renamed(now)) => {
            let setting = settings::find(now).expect("old.rs tests that it exists");
            (setting.set)(config, value).map_err(|why| format!("{key}: {why}"))?;
            Ok(Some(format!("{key} is now called {now}")))
        }
        Some(Old::Obsolete(why)) => Ok(Some(format!("{key} has no effect any more: {why}"))),
        None => Err(unknown(key)),
    }
}

fn unknown(key: &str) -> String {
    let known = settings::SETTINGS.iter().map(|setting| setting.name);
    match nearest(key, known.chain(old::OLD.iter().map(|(name, _)| *name))) {
        Some(near) => format!("unknown setting {key:?}; did you mean {near}?"),
        None => format!("unknown setting {key:?}; venus.conf.example lists all of them"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Surroundings;

    fn read(text: &str) -> Result<(Config, Vec<String>), Vec<String>> {
        let strings = |lines: Vec<Problem>| lines.iter().map(Problem::to_string).collect::<Vec<_>>();
        let mut config = Config::defaults(&Surroundings::of_root());
        match follow(&mut config, "venus.conf", text) {
            Ok(notes) => Ok((config, strings(notes))),
            Err(problems) => Err(strings(problems)),
        }
    }

    #[test]
    fn later_lines_win_and_comments_and_quotes_are_understood() {
        let text = "# a comment\n\n cachesize = 100MB\ncachesize=200MB # more\nmountpoint=\"/my coda\"\n";
        let (config, notes) = read(text).unwrap();
        assert_eq!(config.cachesize, 200 << 20);
        assert_eq!(config.mountpoint, std::path::PathBuf::from("/my coda"));
        assert!(notes.is_empty());
    }

    #[test]
    fn every_problem_is_told_with_file_line_reason_and_the_nearest_key() {
        let problems =
            read("cachesize=10MB\ncachsize=10MB\nnonsense\nrpc_timeout=never\nqwertyuiop=1\nrealm=\"x");
        assert_eq!(
            problems.unwrap_err(),
            [
                "venus.conf:2: unknown setting \"cachsize\"; did you mean cachesize?",
                "venus.conf:3: \"nonsense\" is not key=value",
                "venus.conf:4: rpc_timeout: \"never\" is not a number",
                "venus.conf:5: unknown setting \"qwertyuiop\"; venus.conf.example lists all of them",
                "venus.conf:6: the quote is not closed",
            ]
        );
        let problems = read("metered=1\napprove_percent=200\ncml_record=5\nweak_latency=0").unwrap_err();
        assert_eq!(
            problems,
            [
                "venus.conf:2: approve_percent: 200 is more than 100 per cent",
                "venus.conf:3: unknown setting \"cml_record\"; did you mean cml_records?",
                "venus.conf:4: weak_latency: must be more than zero",
            ]
        );
    }

    #[test]
    fn an_old_file_is_understood_and_says_what_changed() {
        let (config, notes) = read("cacheblocks=100000\nRPC2_timeout=30\nmasquerade=1\n").unwrap();
        assert_eq!(config.cachesize, 100_000 << 10);
        assert_eq!(config.rpc_timeout, Duration::from_secs(30));
        assert_eq!(
            notes,
            [
                "venus.conf:1: cacheblocks is now called cachesize",
                "venus.conf:2: RPC2_timeout is now called rpc_timeout",
                "venus.conf:3: masquerade has no effect any more: \
                 a client is known by its key, never by its address and port",
            ]
        );
    }

    #[test]
    fn the_example_is_a_file_that_venus_reads() {
        let text = include_str!("../../venus.conf.example");
        assert_eq!(read(text).unwrap().0, Config::defaults(&Surroundings::of_root()));
        // Its lines are right also without the '#', but for those without a default.
        let lines = text.lines().filter_map(|line| line.strip_prefix('#'));
        let active = lines.filter(|line| !line.starts_with(' ') && !line.ends_with('='));
        read(&active.collect::<Vec<_>>().join("\n")).unwrap();
    }
}
