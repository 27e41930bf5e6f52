//! Real servers in this process, reached by calling them: no network, a clock that can be paused.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{
    Rights, ServerId,
    service::{EventSource, Identity, Service},
    wire,
};
use coda_server::{Durability, Server, ServerConfig, env::PeerError, setup};

use crate::{
    cache::disk::DiskContainers,
    env::{Answer, BoxFuture, CallError, Containers, Endpoint, Env, Priority, Session, SessionStream},
    error::Error,
    venus::{
        Database, Venus, VenusConfig,
        face::{Attr, AttrChange, Caller, Face, ObjectId, OpenMode, Opened, RenameMode},
    },
};

pub const ME: Caller = Caller { uid: 1000, gid: 1000, pid: 1 };
pub const REALM: &str = "example.org";

type Result<T> = std::result::Result<T, Error>;

/// What happens to calls of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fine,
    /// Nobody listens.
    Closed,
    /// Calls never end.
    Hung,
    /// Uploads take so long each, with signs of life.
    Crawls(Duration),
    /// Calls never end if they are mutations, which do not arrive.
    HangsOnApply,
    /// Mutations arrive, their answers do not; as many as this.
    LosesAnswers(u32),
}

struct Post {
    server: Option<Arc<Server>>,
    weather: Weather,
}

/// A realm of servers.
pub struct World {
    dir: tempfile::TempDir,
    posts: Mutex<BTreeMap<u8, Post>>,
    random: AtomicU64,
    /// How far the servers' clocks are ahead, in nanoseconds.
    passed: AtomicI64,
    /// Servers do not reach each other.
    pub parted: AtomicBool,
    /// Names of all calls, in order.
    pub calls: Mutex<Vec<(u8, &'static str)>>,
    /// How often a realm was looked up.
    pub located: AtomicU64,
    /// Nothing that servers say unasked arrives.
    pub deaf: AtomicBool,
    /// How far the clients' clocks are ahead, in seconds.
    pub ahead: AtomicU64,
    /// How long the machines have slept, in seconds.
    pub asleep: AtomicU64,
}

struct ServerEnv(Arc<World>, ServerId);
struct ClientEnv(Arc<World>);

impl World {
    /// Servers 1 to `count` with a root volume `/` on all, and a volume `home` mounted in it.
    pub fn new(count: u8) -> Arc<World> {
        let world = Arc::new(World {
            dir: tempfile::tempdir().unwrap(),
            posts: Mutex::default(),
            random: AtomicU64::new(1),
            passed: AtomicI64::new(0),
            parted: AtomicBool::new(false),
            calls: Mutex::default(),
            located: AtomicU64::new(0),
            deaf: AtomicBool::new(false),
            ahead: AtomicU64::new(0),
            asleep: AtomicU64::new(0),
        });
        let info = |id: u8| wire::ServerInfo {
            id: id.into(),
            name: format!("srv{id}"),
            endpoints: vec![wire::Endpoint { host: "host".into(), port: id.into(), peer_only: false }],
        };
        let mut realm = setup::realm(REALM, (1..=count).map(info).collect(), Rights::ALL).unwrap();
        let root = *realm.volumes.keys().next().unwrap();
        setup::add_volume(&mut realm, "home", Rights::ALL);
        let mount = setup::mount(root, "home", "home", 1);
        for id in 1..=count {
            let records = std::slice::from_ref(&mount);
            setup::create(&world.server_dir(id), ServerId(id), &realm, records, Durability::Process, 0)
                .unwrap();
            world.boot(id);
        }
        world
    }

    fn server_dir(&self, id: u8) -> PathBuf {
        let dir = self.dir.path().join(format!("server{id}"));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Starts a server.
    pub fn boot(self: &Arc<World>, id: u8) {
        let config =
            ServerConfig { durability: Durability::Process, ..ServerConfig::new(self.server_dir(id)) };
        let env = Arc::new(ServerEnv(self.clone(), ServerId(id)));
        let server = Server::open(config, env).unwrap();
        self.posts.lock().unwrap().insert(id, Post { server: Some(server), weather: Weather::Fine });
    }

    /// Ends a server as a crash would.
    pub fn kill(&self, id: u8) {
        let server = {
            let mut posts = self.posts.lock().unwrap();
            let post = posts.get_mut(&id).unwrap();
            post.weather = Weather::Closed;
            post.server.take()
        };
        server.unwrap().stop();
    }

    pub fn weather(&self, id: u8, weather: Weather) {
        self.posts.lock().unwrap().get_mut(&id).unwrap().weather = weather;
    }

    /// The servers' clocks go on by so much.
    pub fn pass(&self, time: Duration) {
        self.passed.fetch_add(time.as_nanos() as i64, Ordering::Relaxed);
    }

    /// A server that runs.
    pub fn server(&self, id: u8) -> Arc<Server> {
        self.posts.lock().unwrap()[&id].server.clone().expect("it runs")
    }

    fn at(&self, id: u8) -> std::result::Result<(Arc<Server>, Weather), CallError> {
        let posts = self.posts.lock().unwrap();
        let post = posts.get(&id).ok_or_else(|| CallError::Unreachable("nobody".into()))?;
        match (&post.server, post.weather) {
            (_, Weather::Closed) | (None, _) => Err(CallError::Unreachable("closed".into())),
            (Some(server), weather) => Ok((server.clone(), weather)),
        }
    }

    /// How many calls of this name were made since the last time it was asked.
    pub fn counted(&self, name: &str) -> usize {
        let mut calls = self.calls.lock().unwrap();
        let count = calls.iter().filter(|(_, call)| *call == name).count();
        calls.retain(|(_, call)| *call != name);
        count
    }

    /// A cache manager on `name`'s disk.
    pub fn client(self: &Arc<World>, name: &str) -> Client {
        self.client_with(name, VenusConfig::default())
    }

    pub fn client_with(self: &Arc<World>, name: &str, config: VenusConfig) -> Client {
        self.client_over(name, config, |disk| Arc::new(disk))
    }

    /// The same, on what somebody makes of its disk.
    pub fn client_over(
        self: &Arc<World>,
        name: &str,
        config: VenusConfig,
        over: impl FnOnce(DiskContainers) -> Arc<dyn Containers>,
    ) -> Client {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let containers = DiskContainers::open(&dir.join("containers"), &dir.join("spool")).unwrap();
        let database = Database::File(dir.join("db"));
        let config = match config.host.is_empty() {
            true => VenusConfig { host: name.to_owned(), ..config },
            false => config,
        };
        let env = Arc::new(ClientEnv(self.clone()));
        Client { venus: Venus::start(config, env, over(containers), database).unwrap(), dir, me: ME }
    }
}

impl World {
    /// The cache manager that starts from the disk of `client` as it is now, as after a kill -9.
    pub fn crashed(self: &Arc<World>, client: &Client, name: &str) -> Client {
        self.crashed_dir(client, name);
        self.client(name)
    }

    /// The disk of `client` as it is now.
    pub fn crashed_dir(&self, client: &Client, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        copy(&client.dir, &dir);
        dir
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

fn random(world: &World) -> u64 {
    // Never 0 or 1, and never twice.
    blake3::hash(&world.random.fetch_add(1, Ordering::Relaxed).to_le_bytes()).as_bytes()[..8]
        .try_into()
        .map(u64::from_le_bytes)
        .unwrap()
}

#[allow(clippy::disallowed_methods, reason = "an arbitrary but growing time for files")]
pub fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64
}

fn name(request: &wire::Request) -> &'static str {
    use wire::request::Body as B;
    match request.body.as_ref().unwrap() {
        B::GetAttr(_) => "getattr",
        B::Fetch(_) => "fetch",
        B::FetchMany(_) => "fetchmany",
        B::ReadDir(_) => "readdir",
        B::Apply(_) => "apply",
        B::Upload(_) => "upload",
        B::Resolve(_) => "resolve",
        B::ValidateVolumes(_) => "validatevolumes",
        B::ValidateObjects(_) => "validateobjects",
        _ => "other",
    }
}

impl coda_server::env::Env for ServerEnv {
    fn call_peer(
        &self,
        to: &wire::ServerInfo,
        request: wire::Request,
        bulk: Bytes,
        _silence: Duration,
    ) -> BoxFuture<'static, std::result::Result<(wire::Response, Bytes), PeerError>> {
        let (world, me, to) = (self.0.clone(), self.1, to.id as u8);
        Box::pin(async move {
            let closed = |error: CallError| PeerError::Unreachable(ServerId(to), error.to_string());
            if world.parted.load(Ordering::Relaxed) {
                return Err(PeerError::Unreachable(ServerId(to), "parted".into()));
            }
            world.at(me.0).map_err(closed)?;
            let (server, _) = world.at(to).map_err(closed)?;
            Ok(server.call(Identity::Server(me), request, bulk).await)
        })
    }
    fn now(&self) -> i64 {
        now() + self.0.passed.load(Ordering::Relaxed)
    }
    fn random(&self) -> u64 {
        random(&self.0)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

impl Env for ClientEnv {
    fn call(
        &self,
        to: &Endpoint,
        request: wire::Request,
        bulk: Bytes,
        _priority: Priority,
        silence: Duration,
    ) -> BoxFuture<'static, std::result::Result<Answer, CallError>> {
        let (world, id) = (self.0.clone(), to.port as u8);
        Box::pin(async move {
            let call = name(&request);
            world.calls.lock().unwrap().push((id, call));
            let (server, weather) = world.at(id)?;
            if weather == Weather::Hung || (weather == Weather::HangsOnApply && call == "apply") {
                tokio::time::sleep(silence).await;
                return Err(CallError::Silent);
            }
            if let Weather::Crawls(time) = weather
                && call == "upload"
            {
                tokio::time::sleep(time).await;
            }
            let (response, bulk) = server.call(Identity::Client, request, bulk).await;
            match weather {
                Weather::LosesAnswers(left) if call == "apply" => {
                    let next = if left > 1 { Weather::LosesAnswers(left - 1) } else { Weather::Fine };
                    world.weather(id, next);
                    Err(CallError::Unreachable("the connection broke".into()))
                }
                _ => Ok(Answer { response, bulk }),
            }
        })
    }

    fn session(
        &self,
        to: &Endpoint,
        hello: wire::Hello,
        silence: Duration,
    ) -> BoxFuture<'static, std::result::Result<Session, CallError>> {
        let (world, id) = (self.0.clone(), to.port as u8);
        Box::pin(async move {
            let (server, weather) = world.at(id)?;
            if weather == Weather::Hung {
                tokio::time::sleep(silence).await;
                return Err(CallError::Silent);
            }
            let (welcome, source) = server.hello(Identity::Client, hello);
            let source = source.ok_or_else(|| CallError::Malformed("no source".into()))?;
            let session = welcome.session;
            let stream = Stream { source, server, session, world };
            Ok((welcome, Box::new(stream) as Box<dyn SessionStream>))
        })
    }

    fn locate(&self, realm: &str) -> BoxFuture<'static, std::result::Result<Vec<Endpoint>, String>> {
        self.0.located.fetch_add(1, Ordering::Relaxed);
        let known = realm == REALM;
        let realm = realm.to_owned();
        let ids: Vec<u8> = self.0.posts.lock().unwrap().keys().copied().collect();
        let endpoint = move |id: u8| Endpoint { realm: realm.clone(), host: "host".into(), port: id.into() };
        Box::pin(async move { Ok(if known { ids.into_iter().map(endpoint).collect() } else { Vec::new() }) })
    }

    fn now(&self) -> i64 {
        now() + self.0.ahead.load(Ordering::Relaxed) as i64 * 1_000_000_000
    }
    fn random(&self) -> u64 {
        random(&self.0)
    }
    fn asleep(&self) -> Duration {
        Duration::from_secs(self.0.asleep.load(Ordering::Relaxed))
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

struct Stream {
    source: Box<dyn EventSource>,
    server: Arc<Server>,
    session: u64,
    world: Arc<World>,
}

impl SessionStream for Stream {
    fn next(&mut self) -> BoxFuture<'_, std::result::Result<wire::Event, CallError>> {
        Box::pin(async {
            let mut event = self.source.next().await;
            while self.world.deaf.load(Ordering::Relaxed) {
                event = match event {
                    Some(_) => self.source.next().await,
                    None => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        None
                    }
                };
            }
            event.ok_or_else(|| CallError::Unreachable("the server ended it".into()))
        })
    }
    fn say(&mut self, word: wire::ClientWord) -> BoxFuture<'_, std::result::Result<(), CallError>> {
        self.server.said(self.session, word);
        Box::pin(async { Ok(()) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.server.lost(self.session);
    }
}

pub const READ: OpenMode = OpenMode { read: true, write: false, truncate: false };
pub const WRITE: OpenMode = OpenMode { read: false, write: true, truncate: false };

/// A cache manager with paths.
pub struct Client {
    pub venus: Arc<Venus>,
    pub dir: PathBuf,
    /// Whose operations these are.
    pub me: Caller,
}

impl Client {
    /// Another user of the same machine.
    pub fn user(&self, uid: u32) -> Client {
        Client { venus: self.venus.clone(), dir: self.dir.clone(), me: Caller { uid, gid: uid, ..self.me } }
    }

    /// Waits until everything is sent.
    pub async fn settled(&self) {
        for _ in 0..200 {
            if self.pending() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("{} records are never sent: {:?}", self.pending(), self.venus.events().listen(100).0);
    }

    /// The attributes of a path below the realm.
    pub async fn stat(&self, path: &str) -> Result<Attr> {
        let mut attr = self.venus.lookup(self.me, self.venus.root(), REALM.as_bytes()).await?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            attr = self.venus.lookup(self.me, attr.id, name.as_bytes()).await?;
        }
        Ok(attr)
    }

    /// The directory of a path, and its last name.
    pub async fn place<'a>(&self, path: &'a str) -> Result<(ObjectId, &'a [u8])> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.stat(dir).await?.id, name.as_bytes()))
    }

    pub async fn open(&self, path: &str, mode: OpenMode) -> Result<Opened> {
        let (dir, name) = self.place(path).await?;
        match self.venus.lookup(self.me, dir, name).await {
            Err(Error::NotFound(_)) if mode.write => {
                self.venus.create(self.me, dir, name, 0o644, mode, true).await
            }
            Ok(attr) => self.venus.open(self.me, attr.id, mode).await,
            Err(error) => Err(error),
        }
    }

    pub async fn close(&self, opened: Opened) -> Result<()> {
        let flushed = self.venus.flush(self.me, opened.handle).await;
        let released = self.venus.release(opened.handle).await;
        flushed.and(released)
    }

    pub async fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let opened = self.open(path, OpenMode { truncate: true, ..WRITE }).await?;
        opened.container.write_at(0, contents.as_ref()).unwrap();
        self.close(opened).await
    }

    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let opened = self.open(path, READ).await?;
        let mut contents = vec![0; opened.container.length().unwrap() as usize];
        opened.container.read_at(0, &mut contents).unwrap();
        self.close(opened).await?;
        Ok(contents)
    }

    pub async fn read(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8(self.bytes(path).await?).unwrap())
    }

    pub async fn mkdir(&self, path: &str) -> Result<Attr> {
        let (dir, name) = self.place(path).await?;
        self.venus.mkdir(self.me, dir, name, 0o755).await
    }

    pub async fn ls(&self, path: &str) -> Result<Vec<String>> {
        let dir = self.stat(path).await?.id;
        let lines = self.venus.readdir(self.me, dir).await?;
        Ok(lines.iter().map(|line| String::from_utf8(line.name.clone()).unwrap()).collect())
    }

    pub async fn unlink(&self, path: &str) -> Result<()> {
        let (dir, name) = self.place(path).await?;
        self.venus.unlink(self.me, dir, name).await
    }

    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.place(from).await?, self.place(to).await?);
        self.venus.rename(self.me, from, to, RenameMode::Replace).await
    }

    pub async fn chmod(&self, path: &str, mode: u32) -> Result<Attr> {
        let id = self.stat(path).await?.id;
        let change = AttrChange { mode: Some(mode), ..AttrChange::default() };
        self.venus.setattr(self.me, id, change, None).await
    }

    /// Records in the log, of all volumes.
    pub fn pending(&self) -> usize {
        self.venus.core.cache.store(|store| store.log()).unwrap().len()
    }

    pub fn spooled(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.dir.join("spool")).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }
}
