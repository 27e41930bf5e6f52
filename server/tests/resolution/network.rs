//! Servers that call each other through a network which can be cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{
    Fid, Kind, Rights, ServerId, VolumeId,
    service::{Identity, Service},
    wire::{self, request, response::Body},
};
use coda_server::{
    Durability, Limits, Server, ServerConfig,
    env::{BoxFuture, Env, PeerError},
    location::Realm,
    setup,
    store::{fsck, replica_dir},
};

use crate::world::server_info;

#[derive(Default)]
struct Wires {
    servers: BTreeMap<ServerId, Arc<Server>>,
    cut: BTreeSet<(ServerId, ServerId)>,
    calls: u64,
    /// Objects that travelled in answers.
    objects: u64,
    /// How far the wall clock has come since the beginning, in nanoseconds.
    passed: i64,
}

/// What one server sees of the network.
struct Host {
    me: ServerId,
    wires: Arc<Mutex<Wires>>,
    chance: AtomicU64,
}

impl Env for Host {
    fn call_peer(
        &self,
        to: &wire::ServerInfo,
        request: wire::Request,
        bulk: Bytes,
        _silence: Duration,
    ) -> BoxFuture<'static, Result<(wire::Response, Bytes), PeerError>> {
        let (me, wires) = (self.me, self.wires.clone());
        let to = ServerId::new(to.id).expect("only servers of the realm are called");
        Box::pin(async move {
            let reach = |wires: &Mutex<Wires>| {
                let mut wires = wires.lock().unwrap();
                wires.calls += 1;
                match wires.cut.contains(&(me, to)) {
                    true => None,
                    false => wires.servers.get(&to).cloned(),
                }
            };
            tokio::time::sleep(Duration::from_millis(3)).await;
            let silent = || PeerError::Unreachable(to, "silent".into());
            let server = reach(&wires).ok_or_else(silent)?;
            let answer = server.call(Identity::Server(me), request, bulk).await;
            if let Some(Body::Met(met)) = &answer.0.body {
                wires.lock().unwrap().objects += met.objects.len() as u64;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
            // The answer may be lost as well as the question.
            reach(&wires).map(|_| answer).ok_or_else(silent)
        })
    }
    fn now(&self) -> i64 {
        1_700_000_000_000_000_000 + self.wires.lock().unwrap().passed
    }
    fn random(&self) -> u64 {
        self.chance.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 4
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// Servers 1 to `count`, each with a replica of `home`.
pub struct Cluster {
    dirs: BTreeMap<ServerId, tempfile::TempDir>,
    pub realm: Realm,
    pub home: VolumeId,
    wires: Arc<Mutex<Wires>>,
    starts: u64,
    limits: Limits,
}

impl Cluster {
    pub fn new(count: u8) -> Cluster {
        Cluster::limited(count, Limits::default())
    }

    pub fn limited(count: u8, limits: Limits) -> Cluster {
        let infos = (1..=count).map(|id| server_info(id.into())).collect();
        let mut realm = setup::realm("test.example", infos, Rights::ALL).unwrap();
        let home = setup::add_volume(&mut realm, "home", Rights::ALL);
        let (dirs, wires) = (BTreeMap::new(), Arc::default());
        let mut cluster = Cluster { dirs, home, wires, starts: 0, realm, limits };
        for id in (1..=count).map(ServerId) {
            let dir = tempfile::tempdir().unwrap();
            setup::create(dir.path(), id, &cluster.realm, &[], Durability::Process, 0).unwrap();
            cluster.dirs.insert(id, dir);
            cluster.start(id);
        }
        cluster
    }

    /// A further server of the realm, without a replica of anything.
    pub fn add_server(&mut self, id: u8) {
        self.realm.config += 1;
        self.realm.servers.insert(ServerId(id), server_info(id.into()));
        for old in self.ids() {
            self.server(old.0).adopt(self.realm.clone()).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        setup::create(dir.path(), ServerId(id), &self.realm, &[], Durability::Process, 0).unwrap();
        self.dirs.insert(ServerId(id), dir);
        self.start(ServerId(id));
    }

    pub fn ids(&self) -> Vec<ServerId> {
        self.dirs.keys().copied().collect()
    }

    pub fn server(&self, id: u8) -> Arc<Server> {
        self.wires.lock().unwrap().servers.get(&ServerId(id)).cloned().expect("it runs")
    }

    pub fn runs(&self, id: ServerId) -> bool {
        self.wires.lock().unwrap().servers.contains_key(&id)
    }

    pub fn start(&mut self, id: ServerId) {
        self.starts += 1;
        let chance = (u64::from(id.0) << 32) | (self.starts << 16);
        let env = Arc::new(Host { me: id, wires: self.wires.clone(), chance: AtomicU64::new(chance) });
        let config = ServerConfig {
            durability: Durability::Process,
            limits: self.limits,
            ..ServerConfig::new(self.dirs[&id].path())
        };
        let server = Server::open(config, env).unwrap();
        self.wires.lock().unwrap().servers.insert(id, server);
    }

    pub fn stop(&mut self, id: ServerId) {
        let server = self.wires.lock().unwrap().servers.remove(&id);
        server.expect("it runs").stop();
    }

    /// Everything this server holds of `home` is lost with its disk.
    pub fn lose_disk(&mut self, id: ServerId) {
        let replica = self.realm.replica_at(self.home, id).unwrap().replica;
        let path: PathBuf = replica_dir(self.dirs[&id].path(), replica);
        std::fs::remove_dir_all(path).unwrap();
    }

    /// A copy of this server's disk, for `restore`. The server is not running.
    pub fn copy_disk(&self, id: ServerId) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(self.dirs[&id].path(), copy.path());
        copy
    }

    /// Puts an old copy of its disk back. The server is not running.
    pub fn restore(&mut self, id: ServerId, copy: tempfile::TempDir) {
        self.dirs.insert(id, copy);
    }

    pub fn cut(&self, one: u8, other: u8) {
        let (one, other) = (ServerId(one), ServerId(other));
        self.wires.lock().unwrap().cut.extend([(one, other), (other, one)]);
    }

    /// What `from` says does not reach `to`.
    pub fn cut_one_way(&self, from: u8, to: u8) {
        self.wires.lock().unwrap().cut.insert((ServerId(from), ServerId(to)));
    }

    /// Server `from` asks `to` this; the answer is of no interest.
    pub async fn ask(&self, from: u8, to: u8, meet: wire::Meet) {
        let request = wire::Request { body: Some(request::Body::Meet(meet)), ..Default::default() };
        drop(self.server(to).call(Identity::Server(ServerId(from)), request, Bytes::new()).await);
    }

    pub fn dir(&self, id: ServerId) -> PathBuf {
        self.dirs[&id].path().to_owned()
    }

    /// Nothing of `id` goes out or comes in.
    pub fn cut_off(&self, id: u8) {
        self.ids().into_iter().filter(|other| other.0 != id).for_each(|other| self.cut(id, other.0));
    }

    pub fn heal(&self) {
        self.wires.lock().unwrap().cut.clear();
    }

    pub fn calls(&self) -> u64 {
        self.wires.lock().unwrap().calls
    }

    /// The wall clock goes on by so much.
    pub fn pass(&self, time: Duration) {
        self.wires.lock().unwrap().passed += time.as_nanos() as i64;
    }

    /// Tombstones and objects of a replica.
    pub fn rows(&self, id: u8) -> (u64, u64) {
        let volume = self.server(id).volume(self.home).unwrap();
        volume.read(|view| Ok((view.tombstones()?, view.objects()?))).unwrap()
    }

    pub fn objects(&self) -> u64 {
        self.wires.lock().unwrap().objects
    }

    /// The whole state of a replica of `home`, as a peer would hear it.
    pub async fn state(&self, id: u8) -> Vec<wire::ObjectState> {
        self.told(id).await.unwrap_or_else(|refused| panic!("{refused}"))
    }

    /// The same, or why it says nothing.
    async fn told(&self, id: u8) -> Result<Vec<wire::ObjectState>, String> {
        let mut meet = wire::Meet { volume: self.home.0, ..Default::default() };
        let mut objects = Vec::new();
        loop {
            let body = Some(request::Body::Meet(meet.clone()));
            let request = wire::Request { body, ..Default::default() };
            let (response, _) = self.server(id).call(Identity::Admin, request, Bytes::new()).await;
            let Some(Body::Met(met)) = response.body else { return Err(format!("{response:?}")) };
            (meet.incarnation, meet.since) = (met.incarnation, met.upto);
            objects.extend(met.objects);
            if met.last {
                let key = |o: &wire::ObjectState| o.fid.map(|fid| (fid.vnode, fid.unique));
                objects.sort_by_key(key);
                objects.dedup_by_key(|o| key(o));
                return Ok(objects);
            }
        }
    }

    /// Why not all running members hold the same, bytes included.
    pub async fn difference(&self) -> Option<String> {
        let running: Vec<u8> = self.ids().into_iter().filter(|id| self.runs(*id)).map(|id| id.0).collect();
        let first = self.state(running[0]).await;
        for id in &running[1..] {
            // A member that was added a moment ago holds nothing yet.
            let other = match self.told(*id).await {
                Ok(other) => other,
                Err(refused) => return Some(format!("{id} says {refused}")),
            };
            if let Some((a, b)) = first.iter().zip(&other).find(|(a, b)| a != b) {
                return Some(format!("at {}: {a:?}\nat {id}: {b:?}", running[0]));
            }
            if first.len() != other.len() {
                return Some(format!("{} objects at {}, {} at {id}", first.len(), running[0], other.len()));
            }
        }
        for id in &running {
            if let Some(why) = self.missing_bytes(*id, &first) {
                return Some(why);
            }
        }
        None
    }

    fn missing_bytes(&self, id: u8, objects: &[wire::ObjectState]) -> Option<String> {
        let volume = self.server(id).volume(self.home).unwrap();
        for object in objects {
            let fid: Fid = object.fid.unwrap().try_into().unwrap();
            let found = volume.read(|view| {
                let shown = view.bindings_of(fid)?.iter().any(|place| place.shown);
                let head = view.head(fid)?.filter(|head| shown && head.kind == Kind::File);
                let siblings = head.map(|head| view.contents_shown(&head)).transpose()?.unwrap_or_default();
                for sibling in siblings {
                    if view.content(fid, sibling.dot)?.is_none_or(|held| held.hash != sibling.hash) {
                        return Ok(Some(format!("{id} lacks the contents {} of {fid}", sibling.dot)));
                    }
                }
                Ok(None)
            });
            if let Some(why) = found.unwrap() {
                return Some(why);
            }
        }
        None
    }

    /// How long it takes until all members are equal, by themselves.
    pub async fn settle(&self, at_most: Duration) -> Duration {
        let start = tokio::time::Instant::now();
        loop {
            let Some(difference) = self.difference().await else { return start.elapsed() };
            assert!(start.elapsed() < at_most, "after {at_most:?}: {difference}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Stops everything and looks at the stores.
    pub fn check_stores(mut self) {
        for id in self.ids() {
            if self.runs(id) {
                self.stop(id);
            }
            let findings = fsck::check(self.dirs[&id].path()).unwrap();
            assert!(findings.is_empty(), "{findings:#?}");
        }
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}
