//! Three servers in processes of their own, each reached only over a relay that can lose, delay and cut.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use coda_net::relay::{Faults, Relay};

use crate::{
    process::{Process, said},
    wait,
};

/// Its name. Without a dot it never reaches DNS.
pub const REALM: &str = "trial";

/// Where the programs are.
pub struct Programs {
    pub venus: PathBuf,
    pub cfs: PathBuf,
    pub codasrv: PathBuf,
    pub volutil: PathBuf,
}

impl Programs {
    /// Beside this program, where cargo puts them all.
    pub fn beside(own: &Path) -> anyhow::Result<Programs> {
        let there = |name: &str| {
            let path = own.with_file_name(name);
            anyhow::ensure!(path.exists(), "{} is missing: cargo build --workspace", path.display());
            Ok(path)
        };
        Ok(Programs {
            venus: there("venus")?,
            cfs: there("cfs")?,
            codasrv: there("codasrv")?,
            volutil: there("volutil")?,
        })
    }
}

/// One server: its store, the port it listens at, and the relay whose address the realm knows.
pub struct Server {
    dir: PathBuf,
    listen: SocketAddr,
    relay: Relay,
    process: Option<Process>,
}

/// The realm.
pub struct Realm<'a> {
    programs: &'a Programs,
    dir: PathBuf,
    pub servers: Vec<Server>,
    runtime: &'a tokio::runtime::Runtime,
}

impl<'a> Realm<'a> {
    /// Makes a realm of `count` servers with a volume `work` that all of them hold.
    pub fn make(
        programs: &'a Programs,
        runtime: &'a tokio::runtime::Runtime,
        dir: &Path,
        count: usize,
    ) -> anyhow::Result<Realm<'a>> {
        let mut realm = Realm { programs, dir: dir.to_owned(), servers: Vec::new(), runtime };
        for number in 1..=count {
            realm.add(number)?;
        }
        // The root volume was made on the first server, when there was no other.
        for number in 2..=count {
            realm.volutil(&["add-replica", "/", &format!("server{number}")])?;
        }
        realm.volutil(&["create", "work"])?;
        let addresses: String = realm.addresses().iter().map(|address| format!(" {address}")).collect();
        fs::copy(realm.servers[0].dir.join("ca.pem"), dir.join("ca.pem"))?;
        fs::write(dir.join("realms"), format!("{REALM}{addresses} ca=ca.pem\n"))?;
        Ok(realm)
    }

    fn add(&mut self, number: usize) -> anyhow::Result<()> {
        let listen = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let relay = self.runtime.block_on(Relay::start(listen))?;
        let dir = self.dir.join(format!("server{number}"));
        let name = format!("server{number}");
        let endpoint = relay.local_addr().to_string();
        let mut command = Command::new(&self.programs.codasrv);
        if number == 1 {
            command.args(["init", "--realm", REALM]);
        } else {
            let scm = self.servers[0].relay.local_addr().to_string();
            let token = self.volutil(&["invite", "--name", &name])?;
            command.args(["join", "--scm", &scm, "--token", token.trim()]);
        }
        said(command.arg("--dir").arg(&dir).args(["--name", &name, "--endpoint", &endpoint]))?;
        self.servers.push(Server { dir, listen, relay, process: None });
        self.start(number)
    }

    /// Starts a server (again).
    pub fn start(&mut self, number: usize) -> anyhow::Result<()> {
        let log = self.dir.join(format!("server{number}.log"));
        let server = &mut self.servers[number - 1];
        let before = fs::read_to_string(&log).unwrap_or_default().matches("listens at").count();
        let mut command = Command::new(&self.programs.codasrv);
        command.arg("--dir").arg(&server.dir).arg("--listen").arg(server.listen.to_string());
        server.process = Some(Process::start(&mut command, &log, None)?);
        wait::until(Duration::from_secs(20), &format!("server {number} listens"), || {
            fs::read_to_string(&log).is_ok_and(|text| text.matches("listens at").count() > before)
        })
    }

    /// kill -9.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        match self.servers[number - 1].process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Whether it runs.
    pub fn runs(&self, number: usize) -> bool {
        self.servers[number - 1].process.is_some()
    }

    /// SIGSTOP or SIGCONT, where it runs.
    pub fn signal(&self, number: usize, signal: i32) -> anyhow::Result<()> {
        match &self.servers[number - 1].process {
            Some(process) => process.signal(signal),
            None => Ok(()),
        }
    }

    /// From now on this happens to everything that is said to a server.
    pub fn network(&self, number: usize, faults: Faults) {
        self.servers[number - 1].relay.set(faults);
    }

    /// The same to all.
    pub fn networks(&self, faults: Faults) {
        (1..=self.servers.len()).for_each(|number| self.network(number, faults));
    }

    /// One administrator's command.
    pub fn volutil(&self, words: &[&str]) -> anyhow::Result<String> {
        let scm = &self.servers[0];
        let host = scm.relay.local_addr().to_string();
        said(
            Command::new(&self.programs.volutil)
                .arg("--dir")
                .arg(&scm.dir)
                .args(["--host", &host])
                .args(words),
        )
    }

    /// Where clients find each server.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.relay.local_addr()).collect()
    }

    /// Ends all servers and looks whether their stores are sound.
    pub fn end(mut self) -> anyhow::Result<()> {
        for server in &mut self.servers {
            if let Some(mut process) = server.process.take() {
                process.terminate()?;
            }
            said(Command::new(&self.programs.codasrv).arg("check").arg("--dir").arg(&server.dir))?;
        }
        Ok(())
    }
}
