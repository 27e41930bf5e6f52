//! A realm of server processes and a venus process, on a mount of its own.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use crate::support;

/// The program under test.
pub fn venus() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_venus"));
    command.stdin(Stdio::null());
    // A test that dies takes its processes along.
    // SAFETY: between fork and exec only an async-signal-safe call is made.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

/// Runs `cfs` in a directory, talking to one of the cache managers: exit code, standard output and error.
pub fn cfs(socket: &Path, here: &Path, words: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = cfs::run(
        words.iter().map(OsString::from).collect(),
        cfs::World {
            connect: &mut |_, hint| cfs::socket::connect(Some(socket), hint),
            input: &mut std::io::empty(),
            out: &mut out,
            err: &mut err,
            here: here.to_owned(),
            terminal: false,
        },
    );
    (exit.code(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Room for one test: state, mount point, and what is mounted there goes away with it.
pub struct Room {
    pub dir: tempfile::TempDir,
}

impl Room {
    /// New room, or none where nothing can be mounted.
    pub fn new() -> Option<Room> {
        support::can_mount().then(|| Room { dir: tempfile::tempdir().unwrap() })
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn mount(&self) -> PathBuf {
        self.dir.path().join("coda")
    }

    /// A demonstration that runs a command here.
    pub fn demo(&self, servers: u8, command: &str) -> Command {
        let mut demo = venus();
        demo.args(["demo", "--servers", &servers.to_string(), "--exec", command]);
        demo.arg("--state").arg(self.state()).arg("--mount").arg(self.mount());
        demo
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        while is_mounted(&self.mount()) {
            let done = Command::new("umount").arg("-l").arg(self.mount()).status();
            if !done.is_ok_and(|status| status.success()) {
                break;
            }
        }
    }
}

/// Whether something is mounted exactly there. Asks the table, not the file system.
pub fn is_mounted(at: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|place| Path::new(place) == at))
}

/// A process that is killed with the test.
pub struct Process(pub Child);

impl Process {
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a plain system call on a process of ours that is not waited for yet.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// kill -9, and gone.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, and its status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.0.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Servers in processes of their own, and a venus.
pub struct World {
    pub servers: Vec<Option<Process>>,
    pub venus: Option<Process>,
    pub room: Room,
}

impl World {
    /// A realm of `servers`, mounted. None where nothing can be mounted.
    pub fn new(servers: u8) -> Option<World> {
        let room = Room::new()?;
        let made = room.demo(servers, "true").output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut world = World { servers: (0..servers).map(|_| None).collect(), venus: None, room };
        for server in 1..=servers {
            world.start_server(server);
        }
        world.start_venus();
        Some(world)
    }

    pub fn start_server(&mut self, server: u8) {
        let mut command = venus();
        command.arg("demo-server").arg(self.room.state()).arg(server.to_string());
        let log = self.log(&format!("server{server}"));
        let process = Process(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        self.servers[usize::from(server) - 1] = Some(process);
        let ready = self.room.state().join(format!("server{server}.ready"));
        support::soon("the server is ready", || {
            fs::read_to_string(&ready).is_ok_and(|pid| pid.trim() == self.server(server).pid().to_string())
        });
    }

    pub fn server(&self, server: u8) -> &Process {
        self.servers[usize::from(server) - 1].as_ref().expect("it runs")
    }

    pub fn kill_server(&mut self, server: u8) {
        self.servers[usize::from(server) - 1].take().expect("it runs").kill();
    }

    /// venus as a daemon, until its mount answers.
    pub fn start_venus(&mut self) {
        self.venus = Some(self.venus_at("cache", &self.room.mount()));
    }

    /// A cache manager with a cache of its own, mounted there. Its socket is `CACHE.sock`, that of the first
    /// one `venus.sock`.
    pub fn venus_at(&self, cache: &str, mount: &Path) -> Process {
        let state = self.room.state();
        let socket = if cache == "cache" { "venus.sock".to_owned() } else { format!("{cache}.sock") };
        let mut command = venus();
        command.arg(format!("--mountpoint={}", mount.display()));
        command.arg(format!("--cachedir={}", state.join(cache).display()));
        command.arg(format!("--realmtab={}", state.join("realms").display()));
        command.arg(format!("--controlsocket={}", state.join(socket).display()));
        command.arg("--log=info").env("CODACONFPATH", &state);
        let process = Process(command.stdout(Stdio::null()).stderr(self.log("venus")).spawn().unwrap());
        support::soon("venus mounts", || is_mounted(mount) && fs::metadata(mount).is_ok());
        process
    }

    pub fn venus(&mut self) -> &mut Process {
        self.venus.as_mut().expect("it runs")
    }

    /// What `cfs` prints; it must succeed.
    pub fn cfs(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (code, out, err) =
            cfs(&self.room.state().join("venus.sock"), &self.room.mount().join("demo/home"), &words);
        // `cfs status` says so where something is not at the servers.
        let is_well = code == 0 || code == 5 && words.contains(&"status");
        assert!(is_well, "cfs {line}: {code}, {err}");
        out
    }

    fn log(&self, name: &str) -> fs::File {
        let path = self.room.dir.path().join(format!("{name}.log"));
        fs::File::options().create(true).append(true).open(path).unwrap()
    }

    /// What a process has said.
    pub fn said(&self, name: &str) -> String {
        fs::read_to_string(self.room.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Where a server listens.
    pub fn port(&self, server: u8) -> u16 {
        let file = self.room.state().join(format!("server{server}/port"));
        fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    /// A path in the realm's volume `home`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.room.mount().join("demo/home").join(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["venus", "server1", "server2", "server3"] {
                eprintln!("--- {name}\n{}", self.said(name));
            }
        }
        if let Some(venus) = &mut self.venus
            && let Ok(None) = venus.0.try_wait()
        {
            venus.signal(libc::SIGCONT);
            venus.terminate();
        }
    }
}

/// The standard output of a program that must succeed.
pub fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// How long something takes.
#[allow(clippy::disallowed_methods)] // A test of real processes lives in real time.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    let done = work();
    (done, start.elapsed())
}
