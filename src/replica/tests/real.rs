//! The same with real servers: real stores and sessions, and no network between them and us.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{
    Author, Base, Dot, Fid, Op, Record, Rights, ServerId, Status, VolumeId,
    service::{EventSource, Identity, Service},
    wire,
};
use coda_server::{Durability, Server, ServerConfig, env::PeerError, setup};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use crate::{
    callback::Ack,
    env::{Answer, BoxFuture, CallError, Endpoint, Env, Priority, Session, SessionStream},
    replica::{Group, Known, PeerEvent, Peers, PeersConfig, VolumeKey, ask::Body, server::locked},
};

const SECOND: Duration = Duration::from_secs(1);
const REALM: &str = "test.example";

/// What a server needs: no peers, and numbers that do not repeat.
struct Alone(AtomicU64);

fn chance(count: &AtomicU64) -> u64 {
    count.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl coda_server::env::Env for Alone {
    fn call_peer(
        &self,
        to: &wire::ServerInfo,
        _: wire::Request,
        _: Bytes,
        _: Duration,
    ) -> BoxFuture<'static, Result<(wire::Response, Bytes), PeerError>> {
        let to = ServerId(to.id as u8);
        Box::pin(async move { Err(PeerError::Unreachable(to, "alone".into())) })
    }
    fn now(&self) -> i64 {
        1
    }
    fn random(&self) -> u64 {
        chance(&self.0)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// Servers by host name; `None` while one is down.
struct Place {
    dirs: BTreeMap<String, tempfile::TempDir>,
    up: Mutex<BTreeMap<String, Arc<Server>>>,
    /// Changes whenever connections break.
    breaks: watch::Sender<u64>,
    count: AtomicU64,
}

impl Place {
    fn new(servers: u32) -> Arc<Place> {
        let info = |id: u32| wire::ServerInfo {
            id,
            name: format!("s{id}"),
            endpoints: vec![wire::Endpoint { host: format!("s{id}"), port: 2432, peer_only: false }],
        };
        let realm = setup::realm(REALM, (1..=servers).map(info).collect(), Rights::ALL).unwrap();
        let mut dirs = BTreeMap::new();
        for id in 1..=servers {
            let dir = tempfile::tempdir().unwrap();
            let own = ServerId(id as u8);
            setup::create(dir.path(), own, &realm, &[], Durability::Process, 0).unwrap();
            dirs.insert(format!("s{id}"), dir);
        }
        let place = Place {
            dirs,
            up: Mutex::default(),
            breaks: watch::Sender::new(0),
            count: AtomicU64::new(1 << 20),
        };
        let place = Arc::new(place);
        place.dirs.keys().for_each(|host| place.start(host));
        place
    }

    fn start(&self, host: &str) {
        let dir: PathBuf = self.dirs[host].path().into();
        let config = ServerConfig { durability: Durability::Process, ..ServerConfig::new(dir) };
        let env = Alone(AtomicU64::new(self.count.fetch_add(1 << 16, Ordering::Relaxed)));
        locked(&self.up).insert(host.into(), Server::open(config, Arc::new(env)).unwrap());
    }

    fn stop(&self, host: &str) {
        let server = locked(&self.up).remove(host);
        if let Some(server) = server {
            server.stop();
        }
        self.break_connections();
    }

    fn break_connections(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    fn server(&self, host: &str) -> Result<Arc<Server>, CallError> {
        let server = locked(&self.up).get(host).cloned();
        server.ok_or_else(|| CallError::Unreachable("nobody listens".into()))
    }
}

struct Net(Arc<Place>);

impl Env for Net {
    fn call(
        &self,
        to: &Endpoint,
        request: wire::Request,
        bulk: Bytes,
        _: Priority,
        silence: Duration,
    ) -> BoxFuture<'static, Result<Answer, CallError>> {
        let (place, host) = (self.0.clone(), to.host.clone());
        Box::pin(async move {
            sleep(Duration::from_millis(1)).await;
            let call = place.server(&host)?.call(Identity::Client, request, bulk);
            let answered = tokio::time::timeout(silence, call).await;
            let (response, bulk) = answered.map_err(|_| CallError::Silent)?;
            Ok(Answer { response, bulk })
        })
    }

    fn session(
        &self,
        to: &Endpoint,
        hello: wire::Hello,
        _: Duration,
    ) -> BoxFuture<'static, Result<Session, CallError>> {
        let (place, host) = (self.0.clone(), to.host.clone());
        Box::pin(async move {
            sleep(Duration::from_millis(1)).await;
            let server = place.server(&host)?;
            let (welcome, source) = server.hello(Identity::Client, hello);
            let source = source.ok_or_else(|| CallError::Malformed(format!("{welcome:?}")))?;
            let breaks = place.breaks.subscribe();
            let stream = Stream { server, session: welcome.session, source, breaks };
            Ok((welcome, Box::new(stream) as Box<dyn SessionStream>))
        })
    }

    fn locate(&self, realm: &str) -> BoxFuture<'static, Result<Vec<Endpoint>, String>> {
        let endpoint = |host: &String| Endpoint { realm: REALM.into(), host: host.clone(), port: 2432 };
        let found = if realm == REALM { self.0.dirs.keys().map(endpoint).collect() } else { Vec::new() };
        Box::pin(async move { Ok(found) })
    }

    fn now(&self) -> i64 {
        1
    }
    fn random(&self) -> u64 {
        chance(&self.0.count)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

struct Stream {
    server: Arc<Server>,
    session: u64,
    source: Box<dyn EventSource>,
    breaks: watch::Receiver<u64>,
}

impl SessionStream for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<wire::Event, CallError>> {
        Box::pin(async move {
            let broken = || CallError::Unreachable("the connection broke".into());
            tokio::select! {
                biased;
                _ = self.breaks.changed() => Err(broken()),
                event = self.source.next() => event.ok_or_else(broken),
            }
        })
    }

    fn say(&mut self, word: wire::ClientWord) -> BoxFuture<'_, Result<(), CallError>> {
        self.server.said(self.session, word);
        Box::pin(async { Ok(()) })
    }
}

/// A cache manager that keeps nothing.
struct Client {
    peers: Arc<Peers>,
    events: mpsc::UnboundedReceiver<PeerEvent>,
    group: Group,
    author: Author,
    seq: u64,
}

impl Client {
    async fn new(place: &Arc<Place>, name: u8) -> Client {
        let (sender, events) = mpsc::unbounded_channel();
        let net = Arc::new(Net(place.clone()));
        let peers = Peers::new(net, PeersConfig::new([name; 16]), Known::default(), sender);
        let group = peers.volume(REALM, VolumeKey::Name(String::new())).await.unwrap();
        Client { peers, events, group, author: Author(u64::from(name) << 32), seq: 0 }
    }

    fn root(&self) -> Fid {
        Fid::root(self.group.id)
    }

    /// The root as every member shows it, with promises.
    async fn look(&self) -> Vec<Status> {
        let fids = vec![self.root().into()];
        let body = Body::GetAttr(wire::GetAttr { volume: self.group.id.0, fids });
        let gathered = self.peers.ask_most(REALM, &self.group, body, Priority::Foreground).await;
        assert!(gathered.missing.is_empty());
        let status = |answer: Answer| match answer.response.body {
            Some(wire::response::Body::Attributes(mut found)) => {
                Status::try_from(found.statuses.remove(0)).unwrap()
            }
            other => panic!("{other:?}"),
        };
        gathered.told.into_iter().filter_map(|(_, answer)| answer.ok().map(status)).collect()
    }

    /// Makes a directory at every member: how many took it, and how long it took.
    async fn mkdir(&mut self, name: &str) -> (usize, Duration) {
        let seen = self.look().await.remove(0);
        self.seq += 1;
        let parent = self.root();
        let fid = Fid::directory(self.group.id, self.author, self.seq as u32);
        let record = Record {
            dot: Dot::new(self.author, self.seq),
            lamport: seen.lamport + 1,
            time: 1,
            changed: 1,
            bases: vec![Base { fid: parent, past: seen.past }],
            logged: false,
            host: String::new(),
            op: Op::MakeDir { parent, name: name.into(), fid, mode: 0o755, owner: 1 },
        };
        let (volume, epoch) = (self.group.id.0, self.group.epoch);
        let body = Body::Apply(wire::Apply { volume, epoch, records: vec![(&record).into()] });
        let began = Instant::now();
        let told = self.peers.ask_all(REALM, &self.group, body, Bytes::new()).await;
        (told.iter().filter(|(_, answer)| answer.is_ok()).count(), began.elapsed())
    }

    async fn next_break(&mut self) -> Ack {
        loop {
            if let PeerEvent::Broken { ack, .. } = self.events.recv().await.unwrap() {
                return ack;
            }
        }
    }

    /// What was told that is neither a break nor new knowledge.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            match event {
                PeerEvent::Lost { server, .. } => told.push(format!("lost {server}")),
                PeerEvent::Up { server, .. } => told.push(format!("up {server}")),
                PeerEvent::Down { server, .. } => told.push(format!("down {server}")),
                PeerEvent::GroupChanged { group, .. } => told.push(format!("group {}", group.epoch)),
                PeerEvent::Broken { ack, .. } => ack.done(),
                PeerEvent::Known => {}
            }
        }
        told.sort();
        told
    }
}

#[tokio::test(start_paused = true)]
async fn a_mutation_returns_when_every_member_has_it_and_every_holder_knows() {
    let place = Place::new(2);
    let (mut writer, mut reader) = (Client::new(&place, 1).await, Client::new(&place, 2).await);
    assert_eq!(reader.group.members.len(), 2);
    assert!(reader.look().await.iter().all(|status| status.promised));
    let write = tokio::spawn(async move { (writer.mkdir("a").await, writer) });
    let (first, second) = (reader.next_break().await, reader.next_break().await);
    sleep(SECOND).await;
    assert!(!write.is_finished(), "the holder has not marked its cache");
    first.done();
    second.done();
    let ((taken, _), _writer) = write.await.unwrap();
    assert_eq!(taken, 2);
    let looks = reader.look().await;
    assert_eq!(looks[0].past, looks[1].past);
    assert_eq!(looks[0].length, 1);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_does_not_acknowledge_is_fenced_and_learns_it() {
    let place = Place::new(2);
    let (mut writer, mut reader) = (Client::new(&place, 1).await, Client::new(&place, 2).await);
    reader.look().await;
    reader.told();
    let (taken, time) = writer.mkdir("a").await;
    assert_eq!(taken, 2);
    assert!(time >= 5 * SECOND && time < 6 * SECOND, "{time:?}");
    assert_eq!(reader.look().await[0].length, 1);
    let told = reader.told();
    assert_eq!(told, ["lost 1", "lost 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_resumed_and_brings_the_break_it_held() {
    let place = Place::new(1);
    let (mut writer, mut reader) = (Client::new(&place, 1).await, Client::new(&place, 2).await);
    reader.look().await;
    writer.look().await;
    reader.told();
    place.break_connections();
    let write = tokio::spawn(async move { writer.mkdir("a").await });
    reader.next_break().await.done();
    assert_eq!(write.await.unwrap().0, 1);
    assert!(reader.told().is_empty(), "nothing was lost");
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_kept_by_pings() {
    let place = Place::new(1);
    let mut client = Client::new(&place, 1).await;
    client.look().await;
    client.told();
    sleep(600 * SECOND).await;
    assert!(client.told().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restarted_server_is_greeted_anew_and_a_dead_one_comes_back() {
    let place = Place::new(2);
    let mut client = Client::new(&place, 1).await;
    client.mkdir("a").await;
    client.told();
    place.stop("s2");
    place.start("s2");
    assert_eq!(client.mkdir("b").await.0, 2);
    sleep(SECOND).await;
    assert_eq!(client.told(), ["lost 2"]);
    place.stop("s2");
    let (taken, time) = client.mkdir("c").await;
    assert_eq!(taken, 1);
    assert!(time < SECOND, "{time:?}");
    assert_eq!(client.told(), ["down 2"]);
    place.start("s2");
    sleep(5 * SECOND).await;
    assert_eq!(client.told(), ["up 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_survivor_that_hears_from_a_returning_server_tells_its_clients() {
    let place = Place::new(2);
    let mut client = Client::new(&place, 1).await;
    client.mkdir("a").await;
    place.stop("s2");
    client.mkdir("b").await;
    // Long enough for the pauses between probes to have grown.
    sleep(300 * SECOND).await;
    client.told();
    place.start("s2");
    let body = Some(Body::Probe(wire::Probe {}));
    let request = wire::Request { body, ..Default::default() };
    place.server("s1").unwrap().call(Identity::Server(ServerId(2)), request, Bytes::new()).await;
    sleep(SECOND).await;
    assert_eq!(client.told(), ["up 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_tells_of_a_changed_group() {
    let place = Place::new(3);
    let mut client = Client::new(&place, 1).await;
    client.mkdir("a").await;
    client.told();
    for host in ["s1", "s2", "s3"] {
        let server = place.server(host).unwrap();
        let mut realm = (*server.realm()).clone();
        realm.config += 1;
        let volume = realm.volumes.get_mut(&VolumeId(client.group.id.0)).unwrap();
        volume.info.epoch += 1;
        volume.info.members.retain(|member| member.server != 3);
        server.adopt(realm).unwrap();
    }
    sleep(SECOND).await;
    assert_eq!(client.told(), ["group 2"]);
    client.group = client.peers.volume(REALM, VolumeKey::Id(client.group.id)).await.unwrap();
    assert_eq!(client.group.members.len(), 2);
    assert_eq!(client.mkdir("b").await.0, 2);
}
