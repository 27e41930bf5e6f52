//! What somebody does in a day, done the same way in any directory.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;

use crate::process::said;

/// Directories in which everything is done alike: the mount, and its twin on a local disk.
pub struct Desk(pub Vec<PathBuf>);

impl Desk {
    /// Does it in each.
    pub fn each(&self, mut work: impl FnMut(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.0.iter().try_for_each(|dir| work(dir))
    }

    /// A tree of `count` small files with a directory for every fifty, and a link.
    pub fn plant(&self, name: &str, count: usize) -> anyhow::Result<()> {
        self.each(|dir| {
            for number in 0..count {
                let place = dir.join(name).join(format!("part{}", number / 50));
                fs::create_dir_all(&place)?;
                fs::write(
                    place.join(format!("file{number}")),
                    format!("{name} {number}\n").repeat(number % 97),
                )?;
            }
            symlink("part0/file1", dir.join(name).join("link"))?;
            Ok(())
        })
    }

    /// Moves, changes and removes some of what `plant` made.
    pub fn rearrange(&self, name: &str) -> anyhow::Result<()> {
        self.each(|dir| {
            let top = dir.join(name);
            for number in 0..40 {
                let path = top.join("part0").join(format!("file{number}"));
                match number % 4 {
                    0 => fs::rename(&path, top.join(format!("moved{number}")))?,
                    1 => fs::remove_file(&path)?,
                    2 => fs::File::options().append(true).open(&path)?.write_all(b"one more line\n")?,
                    _ => fs::write(&path, "all new\n")?,
                }
            }
            fs::rename(top.join("part0"), top.join("part-zero"))?;
            Ok(())
        })
    }

    /// An editor's way to save: a new file beside the old one, synced, and renamed over it. Many times.
    pub fn edit(&self, name: &str, rounds: usize, phase: &str) -> anyhow::Result<()> {
        self.each(|dir| {
            for round in 0..rounds {
                let lock = dir.join(format!(".#{name}"));
                symlink("somebody@laptop:1", &lock)?;
                let fresh = dir.join(format!("{name}.tmp{round}"));
                let mut file = fs::File::create(&fresh)?;
                file.write_all(format!("{phase}, saved {round} times\n").repeat(200).as_bytes())?;
                file.sync_all()?;
                drop(file);
                fs::rename(&fresh, dir.join(name))?;
                fs::remove_file(lock)?;
            }
            Ok(())
        })
    }

    /// Rows in a database, one transaction for every ten.
    pub fn rows(&self, rounds: usize, phase: &str) -> anyhow::Result<()> {
        self.each(|dir| {
            let mut text = String::from("CREATE TABLE IF NOT EXISTS t (phase TEXT, n INTEGER);\n");
            for round in 0..rounds {
                text += "BEGIN;\n";
                (0..10).for_each(|n| {
                    text += &format!("INSERT INTO t VALUES ('{phase}', {});\n", round * 10 + n)
                });
                text += "COMMIT;\n";
            }
            said(Command::new("sqlite3").arg(dir.join("rows.db")).arg(text))?;
            let sound =
                said(Command::new("sqlite3").arg(dir.join("rows.db")).arg("PRAGMA integrity_check;"))?;
            ensure!(sound.trim() == "ok", "{}: {sound}", dir.display());
            Ok(())
        })
    }

    /// A commit in a repository that the first one makes.
    pub fn commit(&self, phase: &str) -> anyhow::Result<()> {
        self.each(|dir| {
            let place = dir.join("repository");
            if !place.exists() {
                fs::create_dir(&place)?;
                git(&place, &["init", "--quiet", "--initial-branch=main"])?;
            }
            for number in 0..20 {
                fs::write(
                    place.join(format!("source{number}")),
                    format!("{phase} {number}\n").repeat(number + 1),
                )?;
            }
            git(&place, &["add", "."])?;
            git(&place, &["commit", "--quiet", "-m", phase])?;
            Ok(())
        })
    }

    /// The repositories are sound, have nothing uncommitted, and agree.
    pub fn repositories(&self) -> anyhow::Result<()> {
        let mut heads = Vec::new();
        self.each(|dir| {
            let place = dir.join("repository");
            git(&place, &["fsck", "--full"])?;
            let status = git(&place, &["status", "--porcelain"])?;
            ensure!(status.is_empty(), "{}: {status}", place.display());
            heads.push(git(&place, &["rev-parse", "HEAD"])?);
            Ok(())
        })?;
        ensure!(heads.windows(2).all(|pair| pair[0] == pair[1]), "the commits differ: {heads:?}");
        Ok(())
    }
}

fn git(at: &Path, words: &[&str]) -> anyhow::Result<String> {
    const DATE: &str = "2001-02-03T04:05:06Z";
    said(
        Command::new("git")
            .args(["-c", "user.name=Trial", "-c", "user.email=trial@example.org", "-c", "gc.auto=0"])
            .args(["-c", "safe.directory=*", "-c", "commit.gpgsign=false"])
            .args(words)
            .current_dir(at)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_DATE", DATE)
            .env("GIT_COMMITTER_DATE", DATE),
    )
}

/// What two directories need not agree about: git's index remembers inode numbers.
pub fn incidental(path: &str) -> bool {
    path.ends_with(".git/index")
}
