//! pjdfstest: what POSIX says about each call, hundreds of small cases.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, ensure};

use crate::expected::Verdict;

/// Which cases to run.
pub enum Cases<'a> {
    /// Those with this in their names.
    With(&'a str),
    /// Exactly these.
    Named(Vec<&'a str>),
    /// All of them.
    All,
}

/// Runs the suite in a directory; how each case went.
pub fn run(tools: &Path, dir: &Path, cases: &Cases<'_>) -> anyhow::Result<BTreeMap<String, Verdict>> {
    let scratch = tempfile::tempdir()?;
    let config = scratch.path().join("pjdfstest.toml");
    fs::write(&config, configuration(&two_users()?))?;
    let mut command = Command::new(tools.join("bin/pjdfstest"));
    command.arg("-c").arg(&config).arg("-p").arg(dir).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    match cases {
        Cases::With(pattern) => {
            command.arg(pattern);
        }
        Cases::Named(names) => {
            command.arg("--exact").args(names.iter().map(|name| format!("pjdfstest::tests::{name}")));
        }
        Cases::All => {}
    }
    let output = command.output().context("pjdfstest")?;
    let verdicts = parse(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        !verdicts.is_empty(),
        "pjdfstest ran nothing in {}: {}",
        dir.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(verdicts)
}

fn configuration(users: &[(String, String); 2]) -> String {
    let [(user, group), (other, others)] = users;
    format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = 0.02\nallow_remount = false\n\
         [dummy_auth]\nentries = [[\"{user}\", \"{group}\"], [\"{other}\", \"{others}\"]]\n"
    )
}

/// Two ordinary users of this machine with their groups.
fn two_users() -> anyhow::Result<[(String, String); 2]> {
    users(&fs::read_to_string("/etc/passwd")?, &fs::read_to_string("/etc/group")?)
        .context("two users beside root are needed in /etc/passwd, with their groups in /etc/group")
}

fn users(passwd: &str, group: &str) -> Option<[(String, String); 2]> {
    let groups: BTreeMap<&str, &str> = group
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((fields.nth(1)?, name))
        })
        .collect();
    let mut found = passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, uid, gid) = (*fields.first()?, *fields.get(2)?, *fields.get(3)?);
        (uid != "0").then_some(())?;
        Some((name.to_owned(), (*groups.get(gid)?).to_owned()))
    });
    let first = found.next()?;
    let second = found.find(|other| other.1 != first.1)?;
    Some([first, second])
}

/// One line for each case: its name, and a word at the end.
fn parse(text: &str) -> BTreeMap<String, Verdict> {
    text.lines()
        .filter_map(|line| {
            let (name, word) = line.trim_end().rsplit_once(' ')?;
            let name = name.trim_end();
            let verdict = match word {
                "ok" => Verdict::Passed,
                "FAILED" => Verdict::Failed,
                "skipped" => Verdict::Skipped,
                _ => return None,
            };
            (name.contains("::") && !name.contains(char::is_whitespace)).then(|| (name.to_owned(), verdict))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_and_explanations_are_not() {
        let text = "chmod::clear_isgid_bit                    ok\n\
                    \tassertion failed: `(left == right)` ok\n\
                    link::a                                   FAILED\n\
                    mkdir::b                                  skipped\n\
                    \trequires root privileges\n\
                    Summary: 1 failed, 1 skipped, 1 passed, 3 total\n";
        let found = parse(text);
        let expected = [
            ("chmod::clear_isgid_bit", Verdict::Passed),
            ("link::a", Verdict::Failed),
            ("mkdir::b", Verdict::Skipped),
        ];
        assert_eq!(found, expected.map(|(name, verdict)| (name.to_owned(), verdict)).into());
    }

    #[test]
    fn two_users_of_different_groups_are_chosen_and_root_is_not() {
        let passwd = "root:x:0:0::/:/bin/sh\na:x:1:5:::\nb:x:2:5:::\nc:x:3:9:::\n";
        let group = "root:x:0:\nstaff:x:5:\nother:x:9:\n";
        let [one, two] = users(passwd, group).unwrap();
        assert_eq!((one.0.as_str(), one.1.as_str()), ("a", "staff"));
        assert_eq!((two.0.as_str(), two.1.as_str()), ("c", "other"));
        assert!(users("root:x:0:0:::\na:x:1:5:::\n", group).is_none());
    }
}
