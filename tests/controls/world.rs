//! A realm of real servers, a cache manager with its control socket, and `cfs` to talk to it. No mount:
//! what is between venus and its tools must not need one.

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use tokio::task::{JoinHandle, spawn_blocking};
use venus::{
    cache::disk::DiskContainers,
    control::{self, Owners},
    daemon::demo::{REALM, Servers},
    net::{NetConfig, NetEnv},
    venus::{
        Database, Venus, VenusConfig,
        face::{Caller, Face, ObjectId, OpenMode, Opened},
    },
};

pub const ME: Caller = Caller { uid: 0, gid: 0, pid: 0 };

pub struct World {
    dir: tempfile::TempDir,
    servers: Option<Servers>,
    pub venus: Arc<Venus>,
    control: JoinHandle<()>,
}

/// What a command showed.
#[derive(Debug)]
pub struct Shown {
    pub out: String,
    pub err: String,
    pub code: u8,
}

impl World {
    /// A realm of `count` servers, mounted at a `/coda` that exists in paths only.
    pub async fn new(count: u8) -> World {
        let dir = tempfile::tempdir().unwrap();
        let servers = Servers::start(dir.path(), count).await.unwrap();
        let net = NetConfig::system(dir.path().join("realms"), dir.path().join("known_realms"));
        let containers =
            DiskContainers::open(&dir.path().join("containers"), &dir.path().join("spool")).unwrap();
        let venus = Venus::start(
            VenusConfig::default(),
            Arc::new(NetEnv::new(net).unwrap()),
            Arc::new(containers),
            Database::File(dir.path().join("venus.db")),
        )
        .unwrap();
        let control = control::bind(&dir.path().join("venus.sock")).unwrap();
        // SAFETY: geteuid reads a number and cannot fail.
        let owners = Owners { runner: unsafe { libc::geteuid() }, primary: None, shared: false };
        let control = tokio::spawn(control.serve(venus.clone(), owners, "/coda".into()));
        World { dir, servers: Some(servers), venus, control }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("venus.sock")
    }

    /// Runs a command line of `cfs` in the realm's root directory, with `input` as standard input.
    pub async fn cfs_with(&self, line: &str, input: &'static str) -> Shown {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let socket = self.socket();
        let run = move || {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let exit = cfs::run(
                words,
                cfs::World {
                    connect: &mut |_, hint| cfs::socket::connect(Some(&socket), hint),
                    input: &mut input.as_bytes(),
                    out: &mut out,
                    err: &mut err,
                    here: format!("/coda/{REALM}").into(),
                    terminal: false,
                },
            );
            let text = |bytes| String::from_utf8(bytes).unwrap();
            Shown { out: text(out), err: text(err), code: exit.code() }
        };
        spawn_blocking(run).await.unwrap()
    }

    pub async fn cfs(&self, line: &str) -> Shown {
        self.cfs_with(line, "").await
    }

    /// What a command that must succeed prints.
    pub async fn says(&self, line: &str) -> String {
        let shown = self.cfs(line).await;
        assert_eq!((shown.code, shown.err.as_str()), (0, ""), "cfs {line}: {shown:?}");
        shown.out
    }

    /// The object of a path below the realm's root.
    pub async fn find(&self, path: &str) -> ObjectId {
        let mut at = self.venus.lookup(ME, self.venus.root(), REALM.as_bytes()).await.unwrap().id;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.venus.lookup(ME, at, name.as_bytes()).await.unwrap().id;
        }
        at
    }

    /// Makes a file; it stays open.
    pub async fn create(&self, dir: &str, name: &str, contents: &[u8]) -> Opened {
        let dir = self.find(dir).await;
        let mode = OpenMode { read: true, write: true, truncate: false };
        let opened = self.venus.create(ME, dir, name.as_bytes(), 0o644, mode, true).await.unwrap();
        opened.container.write_at(0, contents).unwrap();
        self.venus.flush(ME, opened.handle).await.unwrap();
        opened
    }

    /// Makes a file and closes it.
    pub async fn write(&self, dir: &str, name: &str, contents: &[u8]) {
        let opened = self.create(dir, name, contents).await;
        self.venus.release(opened.handle).await.unwrap();
    }

    pub async fn end(mut self) {
        self.control.abort();
        self.venus.stop().await;
        if let Some(servers) = self.servers.take() {
            servers.stop().await;
        }
    }
}
