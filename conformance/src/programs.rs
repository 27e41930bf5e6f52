//! Real programs, each run the same way in any directory: what it leaves behind is compared.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use crate::facts::{self, Facts};

/// Something people do on a file system.
pub trait Program {
    /// Does it in an empty directory.
    fn run(&self, dir: &Path) -> anyhow::Result<Facts>;
}

/// Clones a repository, checks it and commits to it.
pub struct Git<'a> {
    /// What is cloned.
    pub repository: &'a Path,
}

impl Program for Git<'_> {
    fn run(&self, dir: &Path) -> anyhow::Result<Facts> {
        // Neither the settings nor the hooks of whoever runs this.
        let scratch = tempfile::tempdir()?;
        let settings = scratch.path().join("gitconfig");
        fs::write(
            &settings,
            "[user]\nname = Conformance\nemail = conformance@example.org\n[safe]\ndirectory = *\n\
             [gc]\nauto = 0\n[core]\nfsync = all\n[commit]\ngpgsign = false\n",
        )?;
        let git = |at: &Path, words: &[&str]| {
            said(
                Command::new("git")
                    .args(words)
                    .current_dir(at)
                    .env("GIT_CONFIG_GLOBAL", &settings)
                    .env("GIT_CONFIG_NOSYSTEM", "1")
                    .env("GIT_AUTHOR_DATE", "2001-02-03T04:05:06Z")
                    .env("GIT_COMMITTER_DATE", "2001-02-03T04:05:06Z"),
            )
        };
        let source = format!("file://{}", self.repository.display());
        let work = dir.join("clone");
        git(dir, &["clone", "--quiet", &source, "clone"])?;
        git(&work, &["fsck", "--full"])?;
        let mut facts = facts::tree(&work, &|path| path == Path::new(".git"))?;
        fs::write(work.join("conformance-was-here"), "a line\n")?;
        git(&work, &["add", "."])?;
        git(&work, &["commit", "--quiet", "-m", "a commit"])?;
        git(&work, &["gc", "--quiet"])?;
        git(&work, &["fsck", "--full"])?;
        facts.insert("head".into(), git(&work, &["rev-parse", "HEAD"])?);
        facts.insert("status".into(), git(&work, &["status", "--porcelain"])?);
        facts.insert("log".into(), git(&work, &["log", "--format=%H %s"])?);
        Ok(facts)
    }
}

/// Unpacks a few thousand files and compares them with the originals.
pub struct Tar;

impl Program for Tar {
    fn run(&self, dir: &Path) -> anyhow::Result<Facts> {
        let scratch = tempfile::tempdir()?;
        let originals = scratch.path().join("tree");
        plant(&originals, 3_000)?;
        let archive = scratch.path().join("tree.tar");
        said(Command::new("tar").arg("-C").arg(scratch.path()).arg("-cf").arg(&archive).arg("tree"))?;
        said(Command::new("tar").arg("-C").arg(dir).arg("-xf").arg(&archive))?;
        said(Command::new("diff").arg("-r").arg("--no-dereference").arg(&originals).arg(dir.join("tree")))?;
        let mut facts = facts::tree(&dir.join("tree"), &|_| false)?;
        // Times are kept by tar, to the second at least.
        facts.insert(
            "times".into(),
            blake3::hash(
                said(
                    Command::new("sh")
                        .arg("-c")
                        .arg("find . -type f -printf '%P %Ts\\n' | LC_ALL=C sort")
                        .current_dir(dir.join("tree")),
                )?
                .as_bytes(),
            )
            .to_string(),
        );
        Ok(facts)
    }
}

/// Builds and runs a small crate.
pub struct Cargo;

impl Program for Cargo {
    fn run(&self, dir: &Path) -> anyhow::Result<Facts> {
        fs::create_dir_all(dir.join("hello/src"))?;
        fs::write(
            dir.join("hello/Cargo.toml"),
            "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
        )?;
        fs::write(
            dir.join("hello/src/lib.rs"),
            "pub fn greeting() -> String { include_str!(\"text\").into() }\n",
        )?;
        fs::write(dir.join("hello/src/text"), "hello from a built program\n")?;
        fs::write(
            dir.join("hello/src/main.rs"),
            "fn main() { print!(\"{}\", hello::greeting()); }\n\
             #[test] fn greets() { assert!(hello::greeting().starts_with(\"hello\")); }\n",
        )?;
        let cargo = |words: &[&str]| {
            said(
                Command::new("cargo")
                    .args(words)
                    .current_dir(dir.join("hello"))
                    .env("CARGO_TARGET_DIR", dir.join("hello/target"))
                    .env_remove("RUSTFLAGS"),
            )
        };
        let mut facts = Facts::new();
        cargo(&["build", "--quiet", "--offline"])?;
        facts.insert("first run".into(), cargo(&["run", "--quiet", "--offline"])?);
        // An incremental build notices the change, which needs honest times.
        fs::write(dir.join("hello/src/text"), "hello again\n")?;
        facts.insert("second run".into(), cargo(&["run", "--quiet", "--offline"])?);
        cargo(&["test", "--quiet", "--offline"])?;
        facts.extend(facts::tree(&dir.join("hello"), &|path| path == Path::new("target"))?);
        Ok(facts)
    }
}

/// A database: written by one program byte for byte the same, then by four at once.
pub struct Sqlite;

const WRITERS: usize = 4;
const EACH: usize = 50;

impl Program for Sqlite {
    fn run(&self, dir: &Path) -> anyhow::Result<Facts> {
        let mut facts = Facts::new();
        for mode in ["delete", "truncate", "wal"] {
            let name = format!("{mode}.db");
            let file = dir.join(&name);
            sql(&file, &alone(mode))?;
            let bytes = fs::read(&file)?;
            facts.insert(format!("{mode}, bytes"), format!("{} {}", bytes.len(), blake3::hash(&bytes)));
            let count = ".timeout 60000\nBEGIN IMMEDIATE; UPDATE counter SET n = n + 1; COMMIT;\n";
            let mut writers: Vec<_> =
                (0..WRITERS).map(|_| begin(&file, &count.repeat(EACH))).collect::<anyhow::Result<_>>()?;
            for writer in &mut writers {
                ensure!(writer.wait()?.success(), "a concurrent writer failed ({mode})");
            }
            facts.insert(format!("{mode}, counter"), sql(&file, "SELECT n FROM counter;")?);
            facts.insert(format!("{mode}, check"), sql(&file, "PRAGMA integrity_check;")?);
            facts.insert(format!("{mode}, dump"), blake3::hash(sql(&file, ".dump")?.as_bytes()).to_string());
        }
        Ok(facts)
    }
}

/// The work of one writer alone: the same bytes on any file system.
fn alone(mode: &str) -> String {
    let mut script = format!(
        "PRAGMA journal_mode={mode};\nCREATE TABLE counter(n INTEGER); INSERT INTO counter VALUES(0);\n\
         CREATE TABLE items(id INTEGER PRIMARY KEY, word TEXT, filler BLOB);\nCREATE INDEX by_word ON items(word);\n"
    );
    for round in 0..40 {
        script.push_str("BEGIN;\n");
        for item in 0..50 {
            let id = round * 50 + item;
            script.push_str(&format!(
                "INSERT INTO items VALUES({id}, 'w{}', zeroblob({}));\n",
                id * 7919 % 1000,
                id % 700
            ));
        }
        script.push_str("COMMIT;\n");
        script.push_str(&format!("DELETE FROM items WHERE id % 5 = {};\n", round % 5));
    }
    script.push_str("PRAGMA wal_checkpoint(TRUNCATE);\nVACUUM;\nPRAGMA wal_checkpoint(TRUNCATE);\n");
    script
}

fn begin(file: &Path, script: &str) -> anyhow::Result<std::process::Child> {
    let mut child = Command::new("sqlite3")
        .arg("-bail")
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("sqlite3")?;
    child.stdin.take().expect("it is piped").write_all(script.as_bytes())?;
    Ok(child)
}

fn sql(file: &Path, script: &str) -> anyhow::Result<String> {
    let scratch = tempfile::NamedTempFile::new()?;
    fs::write(scratch.path(), script)?;
    said(Command::new("sqlite3").arg("-bail").arg(file).stdin(fs::File::open(scratch.path())?))
}

/// Runs a command to its good end; what it printed.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| shown.clone())?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let brief: String = (error + &printed).chars().take(2_000).collect();
    ensure!(output.status.success(), "{shown}: {}: {brief}", output.status);
    Ok(printed)
}

/// A tree of files of all sizes, with modes, links, odd names: always the same one.
fn plant(dir: &Path, files: u64) -> anyhow::Result<()> {
    fs::create_dir(dir)?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    for number in 0..files {
        let below = dir.join(format!("d{}/e{}", number % 23, number % 7));
        fs::create_dir_all(&below)?;
        let path = below.join(match number % 50 {
            0 => format!("a name with spaces {number}"),
            1 => format!("ümläut-{number}"),
            2 => format!("{}{number}", "long".repeat(50)),
            _ => format!("file{number}.c"),
        });
        if number % 40 == 3 {
            symlink(format!("../e0/file{number}"), &path)?;
            continue;
        }
        let size = if number % 100 == 7 { 300_000 } else { next() % 12_000 };
        let bytes: Vec<u8> = (0..size).map(|_| next() as u8).collect();
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(if number % 9 == 0 { 0o755 } else { 0o644 }))?;
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000 + number);
        fs::File::options().write(true).open(&path)?.set_modified(then)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planted_tree_is_always_the_same() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let facts = |dir: &tempfile::TempDir| {
            plant(&dir.path().join("t"), 120).unwrap();
            facts::tree(dir.path(), &|_| false).unwrap()
        };
        let (one, two) = (facts(&one), facts(&two));
        assert!(one.len() > 120);
        assert_eq!(one, two);
    }

    #[test]
    fn a_command_that_fails_says_what_it_said() {
        let error = said(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }
}
