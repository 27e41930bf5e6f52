//! A client without a kernel: the cache manager with its real disk and its real network, called directly.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use coda_proto::wire::{self, request::Body};
use venus::{
    cache::disk::DiskContainers,
    env::{Answer, BoxFuture, CallError, Endpoint, Env, Priority, Session},
    net::{NetConfig, NetEnv},
    venus::{
        Database, Venus, VenusConfig,
        face::{Caller, Face, ObjectId, OpenMode},
    },
};

use crate::realm::{REALM, Realm};

const ME: Caller = Caller { uid: 0, gid: 0, pid: 1 };
const READ: OpenMode = OpenMode { read: true, write: false, truncate: false };
const WRITE: OpenMode = OpenMode { read: false, write: true, truncate: false };

/// The network, and how much is asked about objects over it.
struct Counted {
    net: NetEnv,
    asked: Arc<AtomicU64>,
}

impl Env for Counted {
    fn call(
        &self,
        to: &Endpoint,
        request: wire::Request,
        bulk: Bytes,
        priority: Priority,
        silence: Duration,
    ) -> BoxFuture<'static, Result<Answer, CallError>> {
        if let Some(
            Body::GetAttr(_)
            | Body::Fetch(_)
            | Body::FetchMany(_)
            | Body::ReadDir(_)
            | Body::ValidateVolumes(_)
            | Body::ValidateObjects(_),
        ) = &request.body
        {
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        self.net.call(to, request, bulk, priority, silence)
    }

    fn session(
        &self,
        to: &Endpoint,
        hello: wire::Hello,
        silence: Duration,
    ) -> BoxFuture<'static, Result<Session, CallError>> {
        self.net.session(to, hello, silence)
    }

    fn locate(&self, realm: &str) -> BoxFuture<'static, Result<Vec<Endpoint>, String>> {
        self.net.locate(realm)
    }

    fn now(&self) -> i64 {
        self.net.now()
    }

    fn random(&self) -> u64 {
        self.net.random()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.net.spawn(task);
    }
}

/// A client.
pub struct Laptop {
    /// Its cache manager.
    pub venus: Arc<Venus>,
    asked: Arc<AtomicU64>,
}

impl Laptop {
    /// A new one of this realm, whose disk is `dir`.
    pub fn new(realm: &Realm, dir: &Path) -> anyhow::Result<Laptop> {
        fs::create_dir_all(dir)?;
        for file in ["realms", "ca.pem"] {
            fs::copy(realm.place().join(file), dir.join(file))?;
        }
        realm.runtime.block_on(Laptop::start(dir)).map(|(laptop, _)| laptop)
    }

    /// Starts from what is on the disk. Says how long that took, the network apart.
    pub async fn start(dir: &Path) -> anyhow::Result<(Laptop, Duration)> {
        let net = NetEnv::new(NetConfig::system(dir.join("realms"), dir.join("known_realms")))?;
        let asked = Arc::new(AtomicU64::new(0));
        let env = Arc::new(Counted { net, asked: asked.clone() });
        let config = VenusConfig {
            cache_bytes: 6 << 30,
            cache_objects: 300_000,
            host: "laptop".into(),
            ..Default::default()
        };
        let begun = Instant::now();
        let containers = DiskContainers::open(&dir.join("containers"), &dir.join("spool"))?;
        let database = Database::File(dir.join("db"));
        let venus = Venus::start(config, env, Arc::new(containers), database)?;
        Ok((Laptop { venus, asked }, begun.elapsed()))
    }

    /// How many calls about objects were made.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// The root directory of the volume that is worked in.
    pub async fn home(&self) -> anyhow::Result<ObjectId> {
        let realm = self.venus.lookup(ME, self.venus.root(), REALM.as_bytes()).await?;
        Ok(self.venus.lookup(ME, realm.id, b"home").await?.id)
    }

    /// What a name stands for.
    pub async fn find(&self, dir: ObjectId, name: &str) -> anyhow::Result<ObjectId> {
        Ok(self.venus.lookup(ME, dir, name.as_bytes()).await?.id)
    }

    /// All that a directory holds.
    pub async fn list(&self, dir: ObjectId) -> anyhow::Result<Vec<ObjectId>> {
        Ok(self.venus.readdir(ME, dir).await?.iter().map(|line| line.id).collect())
    }

    /// Whether what is known of an object lasts: it was validated, and somebody promised to tell.
    pub async fn lasts(&self, id: ObjectId) -> anyhow::Result<bool> {
        Ok(self.venus.getattr(ME, id).await?.lasting)
    }

    /// Makes a directory.
    pub async fn mkdir(&self, dir: ObjectId, name: &str) -> anyhow::Result<ObjectId> {
        Ok(self.venus.mkdir(ME, dir, name.as_bytes(), 0o755).await?.id)
    }

    /// Makes a file, as open, write and close do.
    pub async fn write(&self, dir: ObjectId, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let opened = self.venus.create(ME, dir, name.as_bytes(), 0o644, WRITE, false).await?;
        opened.container.write_at(0, bytes)?;
        let flushed = self.venus.flush(ME, opened.handle).await;
        self.venus.release(opened.handle).await?;
        Ok(flushed?)
    }

    /// Reads a file, as open, read and close do; the length.
    pub async fn read(&self, id: ObjectId) -> anyhow::Result<usize> {
        let opened = self.venus.open(ME, id, READ).await?;
        let mut bytes = vec![0; opened.container.length()? as usize];
        let read = opened.container.read_at(0, &mut bytes)?;
        self.venus.release(opened.handle).await?;
        Ok(read)
    }

    /// Talks to no server, until it does again.
    pub fn part(&self) {
        self.venus.peers().disconnect(&[]);
    }

    /// Talks to all of them.
    pub fn meet(&self) {
        self.venus.peers().reconnect(&[]);
    }
}

/// Looks every few milliseconds until it is so; fails after two minutes.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_so().await.with_context(|| what.to_owned())? {
        ensure!(begun.elapsed() < Duration::from_secs(120), "two minutes, and not yet: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
