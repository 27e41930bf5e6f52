//! A client: venus in a process of its own, its mount, and `cfs`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use coda_net::relay::Faults;

use crate::{
    line::Line,
    process::{Process, said},
    realm::{Programs, REALM},
    wait,
};

/// One client with a cache of its own.
pub struct Laptop<'a> {
    programs: &'a Programs,
    realms: PathBuf,
    state: PathBuf,
    name: String,
    /// Its own way to the servers; else the same as everybody's.
    line: Option<Line>,
    venus: Option<Process>,
}

impl<'a> Laptop<'a> {
    /// A client whose state lies in `dir/name`; mounted, and the realm found, when this returns.
    pub fn new(programs: &'a Programs, dir: &Path, name: &str) -> anyhow::Result<Laptop<'a>> {
        Laptop::with(programs, dir, name, None)
    }

    /// The same for a client that has a line of its own.
    pub fn behind(programs: &'a Programs, dir: &Path, name: &str, line: Line) -> anyhow::Result<Laptop<'a>> {
        Laptop::with(programs, dir, name, Some(line))
    }

    fn with(
        programs: &'a Programs,
        dir: &Path,
        name: &str,
        line: Option<Line>,
    ) -> anyhow::Result<Laptop<'a>> {
        let state = dir.join(name);
        fs::create_dir_all(state.join("mount"))?;
        let (realms, name) = (dir.join("realms"), name.to_owned());
        let mut laptop = Laptop { programs, realms, state, name, line, venus: None };
        laptop.start()?;
        // The first look-up learns of the realm.
        let root = laptop.root();
        wait::until(Duration::from_secs(20), "the realm is there", || fs::read_dir(&root).is_ok())?;
        Ok(laptop)
    }

    /// A new client that asks one server of the realm only, by its number; and a name for what it sees.
    pub fn of_one_server(
        programs: &'a Programs,
        dir: &Path,
        number: usize,
        servers: usize,
    ) -> anyhow::Result<(String, Laptop<'a>)> {
        let name = format!("only-server{number}");
        let laptop = Laptop::new(programs, dir, &name)?;
        let others = (1..=servers).filter(|other| *other != number).map(|other| format!("server{other}"));
        let words: Vec<String> = std::iter::once("disconnect".to_owned()).chain(others).collect();
        laptop.cfs(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok((name, laptop))
    }

    /// Starts venus (again), until its mount answers.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.programs.venus);
        command.arg(format!("--mountpoint={}", self.mount().display()));
        command.arg(format!("--cachedir={}", self.state.join("cache").display()));
        command.arg(format!("--realmtab={}", self.realms.display()));
        command.arg(format!("--controlsocket={}", self.socket().display()));
        command.arg("--log=info").env("CODACONFPATH", &self.state);
        let net = self.line.as_ref().map(Line::net);
        self.venus = Some(Process::start(&mut command, &self.state.join("venus.log"), net)?);
        let mount = self.mount();
        wait::until(Duration::from_secs(20), &format!("{} mounts", self.name), || is_mounted(&mount))
    }

    /// kill -9; its mount stays behind, broken, until the next start clears it.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        match self.venus.take() {
            Some(mut venus) => venus.kill(),
            None => Ok(()),
        }
    }

    /// From now on this happens to everything that it and the servers say to each other, if it has a line of its own.
    pub fn network(&self, faults: Faults) {
        self.line.iter().for_each(|line| line.set(faults));
    }

    /// One command of `cfs`, with what it printed.
    pub fn cfs(&self, words: &[&str]) -> anyhow::Result<String> {
        said(Command::new(&self.programs.cfs).arg("--socket").arg(self.socket()).args(words))
    }

    /// The end of venus' log.
    pub fn said(&self) -> String {
        self.venus.as_ref().map(Process::said).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.state.join("venus.sock")
    }

    fn mount(&self) -> PathBuf {
        self.state.join("mount")
    }

    /// The realm's root directory here.
    pub fn root(&self) -> PathBuf {
        self.mount().join(REALM)
    }

    /// The volume `work` here, as mounted at the realm's root.
    pub fn work(&self) -> PathBuf {
        self.root().join("work")
    }
}

impl Drop for Laptop<'_> {
    fn drop(&mut self) {
        if let Some(mut venus) = self.venus.take() {
            let _ = venus.terminate();
        }
        if is_mounted(&self.mount()) {
            let _ = Command::new("umount").arg("-l").arg(self.mount()).status();
        }
    }
}

/// Whether something is mounted exactly there. Asks the table, not the file system.
fn is_mounted(at: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|place| Path::new(place) == at))
}
