//! The workloads.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::ensure;

use crate::workload::{Reach, Sent, Workload};

const KIB4: usize = 4096;

/// All workloads, small ones where `quick`.
pub fn all(quick: bool) -> Vec<Box<dyn Workload>> {
    let n = |full: usize, quick_one: usize| if quick { quick_one } else { full };
    vec![
        Box::new(Stat { files: n(20_000, 500), find: false }),
        Box::new(Stat { files: n(20_000, 500), find: true }),
        Box::new(Sequential { megabytes: n(1024, 16), what: Stream::Read }),
        Box::new(Sequential { megabytes: n(1024, 16), what: Stream::Write }),
        Box::new(Sequential { megabytes: n(1024, 16), what: Stream::WriteClose }),
        Box::new(Small { files: n(2_000, 200), what: Touch::WarmRead }),
        Box::new(Random { megabytes: n(256, 16), reads: n(100_000, 2_000) }),
        Box::new(Small { files: n(2_000, 100), what: Touch::Create }),
        Box::new(Small { files: n(1_000, 100), what: Touch::ColdRead }),
        Box::new(Sequential { megabytes: n(100, 8), what: Stream::ColdRead }),
        Box::new(Large { entries: n(100_000, 1_000), create: false }),
        Box::new(Large { entries: n(100_000, 1_000), create: true }),
        Box::new(Untar { files: n(4_500, 200), apart: false }),
        Box::new(Untar { files: n(4_500, 200), apart: true }),
    ]
}

#[allow(clippy::disallowed_methods)] // measuring is what this program does
fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn name(number: usize) -> String {
    format!("file-{number:06}")
}

fn plant(dir: &Path, files: usize) -> anyhow::Result<()> {
    (0..files).try_for_each(|number| Ok(fs::write(dir.join(name(number)), [number as u8; KIB4])?))
}

/// Directories of a forest have so many files.
const TREE: usize = 1000;

/// Where a file of a forest is.
fn in_forest(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("d{:03}", number / TREE)).join(name(number))
}

/// Makes many files in directories of a thousand, by many hands: the kernel lets one at a time make a name in a
/// directory.
pub fn plant_forest(dir: &Path, files: usize, length: usize) -> anyhow::Result<()> {
    let trees = files.div_ceil(TREE);
    let next = AtomicUsize::new(0);
    let hand = || -> anyhow::Result<()> {
        loop {
            let tree = next.fetch_add(1, Ordering::Relaxed);
            if tree >= trees {
                return Ok(());
            }
            fs::create_dir(in_forest(dir, tree * TREE).parent().expect("it lies in a directory"))?;
            for number in tree * TREE..files.min((tree + 1) * TREE) {
                fs::write(in_forest(dir, number), vec![number as u8; length])?;
            }
        }
    };
    thread::scope(|scope| {
        let hands: Vec<_> = (0..trees.min(32)).map(|_| scope.spawn(hand)).collect();
        hands.into_iter().try_for_each(|hand| hand.join().expect("no hand panics"))
    })
}

fn fill(file: &mut File, megabytes: usize) -> anyhow::Result<()> {
    let block: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    (0..megabytes).try_for_each(|_| Ok(file.write_all(&block)?))
}

fn drain(path: &Path, megabytes: usize) -> anyhow::Result<()> {
    let mut file = File::open(path)?;
    let mut block = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => length += read,
        }
    }
    ensure!(length == megabytes << 20, "{} has {length} bytes", path.display());
    Ok(())
}

/// Attributes of many files, already known: by `stat` or by `find -ls`.
struct Stat {
    files: usize,
    find: bool,
}

impl Stat {
    fn go(&self, dir: &Path) -> anyhow::Result<()> {
        if self.find {
            let status = Command::new("find").arg(dir).arg("-ls").stdout(Stdio::null()).status()?;
            ensure!(status.success(), "find failed");
            return Ok(());
        }
        for number in 0..self.files {
            ensure!(in_forest(dir, number).symlink_metadata()?.len() == KIB4 as u64, "a wrong length");
        }
        Ok(())
    }
}

impl Workload for Stat {
    fn name(&self) -> &'static str {
        if self.find { "find-ls" } else { "stat" }
    }
    fn about(&self) -> String {
        format!("warm {} of {} files", if self.find { "find -ls" } else { "stat" }, self.files)
    }
    fn home(&self) -> &'static str {
        "forest"
    }
    fn amount(&self) -> (f64, &'static str) {
        (self.files as f64, "files")
    }
    fn reach(&self) -> Reach {
        Reach::TimesLocal(1.3)
    }
    fn prepare(&self, dir: &Path) -> anyhow::Result<()> {
        plant_forest(dir, self.files, KIB4)
    }
    fn run(&self, dir: &Path, _round: usize) -> anyhow::Result<f64> {
        self.go(dir)?;
        timed(|| self.go(dir))
    }
}

/// One large file from end to end.
struct Sequential {
    megabytes: usize,
    what: Stream,
}

#[derive(Clone, Copy, PartialEq)]
enum Stream {
    Read,
    ColdRead,
    Write,
    WriteClose,
}

impl Workload for Sequential {
    fn name(&self) -> &'static str {
        match self.what {
            Stream::Read => "read-large",
            Stream::ColdRead => "cold-large",
            Stream::Write => "write-large",
            Stream::WriteClose => "write-close-large",
        }
    }
    fn about(&self) -> String {
        let what = match self.what {
            Stream::Read => "warm sequential read",
            Stream::ColdRead => "cold read",
            Stream::Write => "sequential write before the close",
            Stream::WriteClose => "write and close (locally: two copies written and synced)",
        };
        format!("{what} of {} MiB", self.megabytes)
    }
    fn amount(&self) -> (f64, &'static str) {
        (self.megabytes as f64, "MiB")
    }
    fn reach(&self) -> Reach {
        match self.what {
            Stream::Read => Reach::TimesLocal(1.1),
            Stream::ColdRead => Reach::PerSecond(300.0),
            Stream::Write => Reach::TimesLocal(1.5),
            Stream::WriteClose => Reach::TimesLocal(4.0),
        }
    }
    fn cold(&self) -> bool {
        self.what == Stream::ColdRead
    }
    fn prepare(&self, dir: &Path) -> anyhow::Result<()> {
        if matches!(self.what, Stream::Read | Stream::ColdRead) {
            fill(&mut File::create(dir.join("large"))?, self.megabytes)?;
            drain(&dir.join("large"), self.megabytes)?;
        }
        Ok(())
    }
    fn run(&self, dir: &Path, round: usize) -> anyhow::Result<f64> {
        let path = dir.join(format!("written-{round}"));
        match self.what {
            Stream::Read | Stream::ColdRead => timed(|| drain(&dir.join("large"), self.megabytes)),
            Stream::Write => {
                let mut file = File::create(&path)?;
                let seconds = timed(|| fill(&mut file, self.megabytes))?;
                drop(file);
                fs::remove_file(path)?;
                Ok(seconds)
            }
            Stream::WriteClose => {
                let seconds = timed(|| fill(&mut File::create(&path)?, self.megabytes))?;
                fs::remove_file(path)?;
                Ok(seconds)
            }
        }
    }
    fn run_locally(&self, dir: &Path, round: usize) -> anyhow::Result<f64> {
        if self.what != Stream::WriteClose {
            return self.run(dir, round);
        }
        timed(|| {
            for copy in ["one", "two"] {
                let mut file = File::create(dir.join(copy))?;
                fill(&mut file, self.megabytes)?;
                file.sync_all()?;
            }
            Ok(())
        })
    }
}

/// Many small files.
struct Small {
    files: usize,
    what: Touch,
}

#[derive(Clone, Copy, PartialEq)]
enum Touch {
    WarmRead,
    ColdRead,
    Create,
}

impl Workload for Small {
    fn name(&self) -> &'static str {
        match self.what {
            Touch::WarmRead => "open-read-close",
            Touch::ColdRead => "cold-small",
            Touch::Create => "create",
        }
    }
    fn about(&self) -> String {
        let what = match self.what {
            Touch::WarmRead => "warm open, read, close",
            Touch::ColdRead => "cold read",
            Touch::Create => "create, write 4 KiB, close",
        };
        format!("{what} of {} files of 4 KiB in one directory", self.files)
    }
    fn amount(&self) -> (f64, &'static str) {
        (self.files as f64, "files")
    }
    fn reach(&self) -> Reach {
        match self.what {
            Touch::WarmRead => Reach::TimesLocal(5.0),
            Touch::ColdRead => Reach::PerSecond(3_000.0),
            Touch::Create => Reach::PerSecond(1_000.0),
        }
    }
    fn cold(&self) -> bool {
        self.what == Touch::ColdRead
    }
    fn prepare(&self, dir: &Path) -> anyhow::Result<()> {
        if self.what == Touch::Create {
            return Ok(());
        }
        plant(dir, self.files)?;
        self.run(dir, 0).map(|_| ())
    }
    fn run(&self, dir: &Path, round: usize) -> anyhow::Result<f64> {
        if self.what == Touch::Create {
            let below = dir.join(format!("round-{round}"));
            fs::create_dir(&below)?;
            return timed(|| plant(&below, self.files));
        }
        timed(|| {
            for number in 0..self.files {
                ensure!(fs::read(dir.join(name(number)))? == [number as u8; KIB4], "wrong bytes");
            }
            Ok(())
        })
    }
}

/// Small reads all over a cached file.
struct Random {
    megabytes: usize,
    reads: usize,
}

impl Workload for Random {
    fn name(&self) -> &'static str {
        "random-read"
    }
    fn about(&self) -> String {
        format!("{} random reads of 4 KiB in a cached file of {} MiB", self.reads, self.megabytes)
    }
    fn amount(&self) -> (f64, &'static str) {
        (self.reads as f64, "reads")
    }
    fn reach(&self) -> Reach {
        Reach::TimesLocal(1.3)
    }
    fn prepare(&self, dir: &Path) -> anyhow::Result<()> {
        fill(&mut File::create(dir.join("large"))?, self.megabytes)?;
        drain(&dir.join("large"), self.megabytes)
    }
    fn run(&self, dir: &Path, round: usize) -> anyhow::Result<f64> {
        let mut file = File::open(dir.join("large"))?;
        let (mut state, mut block) = (round as u64 + 1, [0; KIB4]);
        let blocks = (self.megabytes << 20) / KIB4;
        timed(|| {
            for _ in 0..self.reads {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                file.seek(SeekFrom::Start(((state >> 33) as usize % blocks * KIB4) as u64))?;
                file.read_exact(&mut block)?;
            }
            Ok(())
        })
    }
}

/// Looking up and creating in a large directory; the baseline is a small one.
struct Large {
    entries: usize,
    create: bool,
}

const TOUCHES: usize = 200;
const WARM: usize = 10;
const FEW: usize = 100;

impl Large {
    fn go(&self, dir: &Path, round: usize) -> anyhow::Result<f64> {
        let touch = |name: String| -> anyhow::Result<()> {
            match self.create {
                true => drop(File::create(dir.join(name))?),
                false => ensure!(dir.join(name).symlink_metadata().is_err(), "a name from nowhere"),
            }
            Ok(())
        };
        // Whatever is in the way of the first touch is not the directory's size.
        (0..WARM).try_for_each(|number| touch(format!("before-{round}-{number}")))?;
        timed(|| (0..TOUCHES).try_for_each(|number| touch(format!("absent-{round}-{number}"))))
    }
}

impl Workload for Large {
    fn name(&self) -> &'static str {
        if self.create { "create-in-large" } else { "lookup-in-large" }
    }
    fn about(&self) -> String {
        let what = if self.create { "creations" } else { "look-ups of names that are absent" };
        format!("{TOUCHES} {what} in a directory of {} entries", self.entries)
    }
    fn home(&self) -> &'static str {
        "in-large"
    }
    fn amount(&self) -> (f64, &'static str) {
        (TOUCHES as f64, "names")
    }
    fn reach(&self) -> Reach {
        Reach::TimesBaseline(2.0)
    }
    fn prepare(&self, dir: &Path) -> anyhow::Result<()> {
        for (below, entries) in [("large", self.entries), ("small", FEW)] {
            let below = dir.join(below);
            fs::create_dir(&below)?;
            (0..entries).try_for_each(|number| File::create(below.join(name(number))).map(|_| ()))?;
        }
        Ok(())
    }
    fn run(&self, dir: &Path, round: usize) -> anyhow::Result<f64> {
        self.go(&dir.join("large"), round)
    }
    fn baseline(&self, dir: &Path, round: usize) -> anyhow::Result<Option<f64>> {
        self.go(&dir.join("small"), round).map(Some)
    }
}

/// Unpacking a source tree.
struct Untar {
    files: usize,
    /// While no server is in reach.
    apart: bool,
}

impl Untar {
    /// The archive lies on the local disk, made once.
    fn archive(&self) -> anyhow::Result<PathBuf> {
        let archive =
            std::env::temp_dir().join(format!("coda-bench-{}-{}.tar", self.name(), std::process::id()));
        if !archive.exists() {
            let scratch = tempfile::tempdir()?;
            for number in 0..self.files {
                let dir = scratch.path().join(format!("tree/d{}", number / 50));
                fs::create_dir_all(&dir)?;
                fs::write(dir.join(name(number)), vec![b'x'; 200 + number * 37 % 6_000])?;
            }
            let status = Command::new("tar")
                .arg("-C")
                .arg(scratch.path())
                .arg("-cf")
                .arg(&archive)
                .arg("tree")
                .status()?;
            ensure!(status.success(), "tar failed");
        }
        Ok(archive)
    }
}

impl Drop for Untar {
    fn drop(&mut self) {
        let _ = fs::remove_file(std::env::temp_dir().join(format!(
            "coda-bench-{}-{}.tar",
            self.name(),
            std::process::id()
        )));
    }
}

impl Workload for Untar {
    fn name(&self) -> &'static str {
        if self.apart { "untar-apart" } else { "untar" }
    }
    fn about(&self) -> String {
        format!("untar of {} small files{}", self.files, if self.apart { " while disconnected" } else { "" })
    }
    fn amount(&self) -> (f64, &'static str) {
        (self.files as f64, "files")
    }
    fn reach(&self) -> Reach {
        Reach::TimesMirror(if self.apart { 2.0 } else { 6.0 })
    }
    fn apart(&self) -> Option<Sent> {
        let about = format!("those {} files, made while disconnected, sent to two replicas", self.files);
        self.apart.then_some(Sent { name: "reintegrate", about, limit: 4.0 })
    }
    fn prepare(&self, _dir: &Path) -> anyhow::Result<()> {
        self.archive().map(|_| ())
    }
    fn run(&self, dir: &Path, round: usize) -> anyhow::Result<f64> {
        let (archive, below) = (self.archive()?, dir.join(format!("round-{round}")));
        fs::create_dir(&below)?;
        timed(|| {
            let status = Command::new("tar").arg("-C").arg(&below).arg("-xf").arg(&archive).status()?;
            ensure!(status.success(), "tar failed");
            Ok(())
        })
    }
}
