//! The small programs of the simulator's Mysteries, lived through with real servers, real mounts, and a line of its
//! own for each client; what was seen must be explained by some course of things, in the same way.
//!
//! It takes root: each client lives in a network of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use coda_net::relay::Faults;
use coda_sim::{
    model::{Value, author, contents},
    mysteries::{FILES, Seen, Step, explain, program},
};

use crate::{
    laptop::Laptop,
    line::Line,
    realm::{Programs, Realm},
    wait::{Stretch, until},
    writer::whole,
};

/// Which programs.
pub struct Plan {
    pub first: u64,
    pub count: u64,
}

/// How long everything may take to be exchanged once the network is whole.
const SETTLED: Duration = Duration::from_secs(120);
/// So long nothing may change when all is exchanged.
const AGAIN: Duration = Duration::from_secs(1);
/// No program has more clients.
const CLIENTS: usize = 3;
/// Time passes so many times as fast as in the simulator, where it costs nothing.
const FASTER: u64 = 10;

/// Plays them. An error names the first that nothing explains, with what was seen.
pub fn run(plan: &Plan, programs: &Programs, dir: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let realm = Realm::make(programs, &runtime, dir, 2)?;
    let mut laptops = Vec::new();
    for number in 0..CLIENTS {
        let line = Line::new(&runtime, &realm.addresses())?;
        laptops.push(Laptop::behind(programs, dir, &format!("client{number}"), line)?);
    }
    laptops[0].cfs(&["mkmount", &laptops[0].work().to_string_lossy(), "work"])?;
    for seed in plan.first..plan.first + plan.count {
        let (clients, steps) = program(seed);
        let stretch = Stretch::begin();
        let outcome = course(seed, &mut laptops[..clients], &steps);
        if outcome.is_err() {
            laptops.iter().for_each(|laptop| eprintln!("--- a venus\n{}", laptop.said()));
        }
        let seen = outcome.with_context(|| format!("program {seed}: {clients} clients, {steps:?}"))?;
        println!(
            "  program {seed}: {clients} clients, {} steps, {seen} looks, {:.1?}",
            steps.len(),
            stretch.length()
        );
    }
    drop(laptops);
    realm.end()
}

/// One program, in a directory of its own. Answers how often somebody looked.
fn course(seed: u64, laptops: &mut [Laptop], steps: &[Step]) -> anyhow::Result<usize> {
    let dir = format!("program{seed}");
    fs::create_dir(laptops[0].work().join(&dir)).context("the program's directory")?;
    // Everybody knows the directory before anything happens to the network.
    for laptop in laptops.iter() {
        let own = laptop.work().join(&dir);
        until(SETTLED, "the program's directory is there", || fs::read_dir(&own).is_ok())?;
    }
    let mut play = Play { laptops, dir, seen: Vec::new(), made: BTreeSet::new(), next: 0 };
    for step in steps {
        play.step(*step)?;
    }
    Ok(play.seen.iter().filter(|seen| matches!(seen, Seen::Shows(..))).count())
}

/// A program under way.
struct Play<'a, 'p> {
    laptops: &'a mut [Laptop<'p>],
    dir: String,
    seen: Vec<Seen>,
    /// Inode numbers of directories that were made for certain.
    made: BTreeSet<u64>,
    next: usize,
}

/// What all clients show once all is exchanged: the contents under each name, and every directory with its path.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    files: Vec<BTreeSet<usize>>,
    tree: BTreeMap<String, u64>,
}

impl Play<'_, '_> {
    fn step(&mut self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Read(client, name) => {
                self.read(client, name)?;
            }
            Step::Write(client, name) => {
                if self.read(client, name)?.is_some_and(|shown| shown.len() < 2) {
                    self.next += 1;
                    // Some are too long for their records.
                    let lines = if self.next.is_multiple_of(3) { 3_000 } else { 1 };
                    let wrote = whole(&self.own(client).join(name), &contents(self.next, lines));
                    self.seen.push(Seen::Wrote(client, name, self.next, wrote.is_ok()));
                }
            }
            Step::Remove(client, name) => {
                if self.read(client, name)?.is_some_and(|shown| shown.len() == 1) {
                    let removed = fs::remove_file(self.own(client).join(name));
                    if !matches!(&removed, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                        self.seen.push(Seen::Removed(client, name, removed.is_ok()));
                    }
                }
            }
            Step::Make(client, name) => {
                let path = self.own(client).join(name);
                if fs::create_dir(&path).is_ok() {
                    self.made.extend(fs::symlink_metadata(&path).map(|made| made.ino()));
                }
            }
            // What is not there, or would be its own child, is refused.
            Step::Move(client, what, into) => {
                let own = self.own(client);
                let _ = rename_new(&own.join(what), &own.join(into).join(what));
            }
            Step::Part(client) => self.laptops[client].network(Faults::black_hole()),
            Step::Deaf(client) => self.laptops[client].network(Faults { mute: true, ..Faults::default() }),
            Step::Meet(client) => self.laptops[client].network(Faults::default()),
            // A process can be killed here; the power cannot be cut.
            Step::Restart(client, _) => {
                self.laptops[client].kill()?;
                self.laptops[client].start()?;
            }
            Step::Wait(seconds) => std::thread::sleep(Duration::from_secs(seconds) / FASTER as u32),
            Step::Settle => self.settle()?,
        }
        Ok(())
    }

    /// The program's directory at a client.
    fn own(&self, client: usize) -> PathBuf {
        self.laptops[client].work().join(&self.dir)
    }

    /// What a client shows under a name. `None`: it cannot tell.
    fn read(&mut self, client: usize, name: &'static str) -> anyhow::Result<Option<BTreeSet<usize>>> {
        let shown = shown(&self.own(client), name)?;
        if let Some(shown) = &shown {
            self.seen.push(Seen::Shows(client, name, shown.clone()));
        }
        Ok(shown)
    }

    /// Everything is healed, sent and heard of; then all show the same, each directory is in one place, and some course
    /// of things explains it.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.laptops.iter().for_each(|laptop| laptop.network(Faults::default()));
        let mut last = Err(anyhow::anyhow!("not looked yet"));
        let settled = until(SETTLED, "all is settled", || {
            let before = std::mem::replace(&mut last, self.settled()).ok();
            // What a member passes on to another may still be on its way: it shows the same a while later.
            let same = last.as_ref().is_ok_and(|seen| before.as_ref() == Some(seen));
            if !same {
                std::thread::sleep(AGAIN);
            }
            same
        });
        match settled {
            Ok(()) => self.seen = last?,
            Err(_) => bail!(
                "{:#}, after {SETTLED:?}",
                last.err().unwrap_or_else(|| anyhow::anyhow!("it changes on"))
            ),
        }
        Ok(())
    }

    /// What was seen, with what all clients show now. An error tells why they cannot be settled.
    fn settled(&self) -> anyhow::Result<Vec<Seen>> {
        for laptop in self.laptops.iter() {
            laptop.cfs(&["checkservers"])?;
            laptop.cfs(&["flush", "--wait", "--timeout", "10"])?;
        }
        let (mut seen, mut all) = (self.seen.clone(), Vec::new());
        seen.push(Seen::Settled);
        for client in 0..self.laptops.len() {
            let own = self.own(client);
            let mut files = Vec::new();
            for name in FILES {
                let shown = shown(&own, name)?
                    .with_context(|| format!("client {client} cannot read {name} when all is settled"))?;
                seen.push(Seen::Shows(client, name, shown.clone()));
                files.push(shown);
            }
            all.push(Shown { files, tree: directories(&own)? });
        }
        ensure!(all.windows(2).all(|two| two[0] == two[1]), "clients show different things: {all:?}");
        let there: BTreeSet<u64> = all[0].tree.values().copied().collect();
        ensure!(there.len() == all[0].tree.len(), "a directory is in two places: {:?}", all[0].tree);
        ensure!(self.made.is_subset(&there), "{:?} were made, {:?} is left", self.made, all[0].tree);
        for name in FILES {
            explain(name, self.laptops.len(), &seen).map_err(anyhow::Error::msg)?;
        }
        Ok(seen)
    }
}

/// What is shown under a name. `None`: it cannot be told now. An error: bytes that nobody wrote.
fn shown(dir: &Path, name: &str) -> anyhow::Result<Option<BTreeSet<usize>>> {
    let Ok(entries) = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) else {
        return Ok(None);
    };
    let beside = format!("{name}.conflict-");
    let mut shown = BTreeSet::new();
    for entry in entries {
        let line = entry.file_name().to_string_lossy().into_owned();
        let is_version = line.starts_with(&beside) && !line.ends_with(".conflict-base");
        if !(line == name || is_version) {
            continue;
        }
        let Ok(bytes) = fs::read(entry.path()) else { return Ok(None) };
        match author(&bytes)
            .map_err(anyhow::Error::msg)
            .with_context(|| entry.path().display().to_string())?
        {
            Value::Written(id) => shown.extend([id]),
            // Made, and not stored to yet.
            _ => return Ok(None),
        }
    }
    Ok(Some(shown))
}

/// Renames to a name that must be new.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    let at = libc::AT_FDCWD;
    // SAFETY: both are strings that outlive the call.
    match unsafe { libc::renameat2(at, from.as_ptr(), at, to.as_ptr(), libc::RENAME_NOREPLACE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Every directory below, by its path; its inode number.
fn directories(dir: &Path) -> io::Result<BTreeMap<String, u64>> {
    let (mut found, mut left) = (BTreeMap::new(), vec![(String::new(), dir.to_owned())]);
    while let Some((below, path)) = left.pop() {
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let below = format!("{below}/{}", entry.file_name().to_string_lossy());
                found.insert(below.clone(), entry.metadata()?.ino());
                left.push((below, entry.path()));
            }
        }
    }
    Ok(found)
}
