//! A realm of real processes, and its administrator's commands typed line by line.

#![allow(dead_code)] // Each test file uses a part.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::UdpSocket,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

/// A running codasrv, killed at the end.
pub struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A realm of server processes, and the names by which its administrator calls things.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub servers: Vec<(String, u16, Option<Serving>)>,
}

impl Place {
    /// One server, set up as `name`.
    pub fn new(name: &str) -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        for link in [
            "volutil",
            "vice-setup",
            "createvol_rep",
            "purgevol_rep",
            "getvolinfo",
            "printvrdb",
            "bldvldb.sh",
            "updatesrv",
            "norton",
        ] {
            let at = dir.path().join("bin").join(link);
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_volutil"), at).unwrap();
        }
        let mut place = Place { dir, servers: Vec::new() };
        let port = free_port();
        let at = format!("127.0.0.1:{port}");
        let vice = place.vice(name);
        well(place.run(&format!(
            "vice-setup --dir {} --realm test.example --name {name} --endpoint {at}",
            vice.display()
        )));
        place.servers.push((name.into(), port, None));
        place.start(name);
        place
    }

    pub fn vice(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a line as it was typed.
    pub fn run(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        let program = self.dir.path().join("bin").join(words.next().unwrap());
        let scm = self.servers.first().map(|(name, ..)| self.vice(name)).unwrap_or_default();
        Command::new(program)
            .args(words)
            .env("CODA_ADMIN_DIR", scm)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// A further server.
    pub fn join(&mut self, name: &str) {
        let token = well(self.run(&format!("volutil invite --name {name}")));
        let (port, scm) = (free_port(), self.servers[0].1);
        let dir = self.vice(name);
        well(self.run(&format!(
            "vice-setup --dir {} --scm 127.0.0.1:{scm} --token {} --name {name} --endpoint 127.0.0.1:{port}",
            dir.display(),
            token.trim()
        )));
        self.servers.push((name.into(), port, None));
        self.start(name);
    }

    pub fn start(&mut self, name: &str) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_codasrv"))
            .arg("--dir")
            .arg(self.vice(name))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("listens at"), "{line:?}");
        let server = self.servers.iter_mut().find(|(known, ..)| known == name).unwrap();
        server.2 = Some(Serving(child));
    }

    pub fn kill(&mut self, name: &str) {
        self.servers.iter_mut().find(|(known, ..)| known == name).unwrap().2 = None;
    }

    /// The words of a volume's line in the VRList.
    pub fn vrlist(&self, volume: &str) -> Vec<String> {
        let list = well(self.run("printvrdb"));
        let line = list.lines().find(|line| line.split(' ').next() == Some(volume)).unwrap();
        line.split(' ').map(str::to_owned).collect()
    }
}

pub fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The standard output of what must succeed.
pub fn well(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What must succeed says on the other output.
pub fn noted(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr).unwrap()
}

/// The status of what must fail, and why it did.
pub fn badly(output: Output) -> (i32, String) {
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{text}");
    (output.status.code().unwrap(), text)
}
