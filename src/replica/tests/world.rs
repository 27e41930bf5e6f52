//! An honest fake of the world: servers as small state machines on tokio's paused clock. They can be
//! stopped, killed, restarted, slowed or made to talk nonsense, and remember what they were asked.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{Code, Refusal, ServerId, VolumeId, wire};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use crate::{
    env::{Answer, BoxFuture, CallError, Endpoint, Env, Priority, Session, SessionStream},
    replica::{Ack, Group, Known, PeerEvent, Peers, PeersConfig, VolumeKey, ask::Body, server::locked},
};

/// How a host behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Well,
    /// SIGSTOP, or every packet dropped: nothing comes back before that ends.
    Stopped,
    /// Nobody listens.
    Closed,
    /// Well-framed answers to questions nobody asked.
    Nonsense,
}

/// One server.
pub struct Host {
    pub id: u32,
    pub realm: String,
    pub mode: watch::Sender<Mode>,
    pub inner: Mutex<Inner>,
}

#[derive(Default)]
pub struct Inner {
    pub delay: Duration,
    pub fetch_delay: Duration,
    pub hello_delay: Duration,
    /// The session of the last call that had one.
    pub last_session: u64,
    pub boot: u64,
    pub sessions: BTreeMap<u64, ServerSession>,
    pub next_session: u64,
    /// Bodies of all requests, in order.
    pub asked: Vec<&'static str>,
    pub cop2: Vec<wire::Cop2>,
    pub said: Vec<wire::ClientWord>,
    pub refuse: Option<wire::Refusal>,
    /// Hello is answered, but in the name of this one.
    pub impostor: Option<u32>,
    pub resumes: bool,
    pub deaf: bool,
}

#[derive(Default)]
pub struct ServerSession {
    pub events: VecDeque<wire::Event>,
    pub seq: u64,
    pub wake: Option<mpsc::UnboundedSender<wire::Event>>,
}

pub struct World {
    pub hosts: Mutex<BTreeMap<String, Arc<Host>>>,
    pub realms: Mutex<BTreeMap<String, RealmFake>>,
    pub packets: Mutex<u64>,
    chance: Mutex<u64>,
}

pub struct RealmFake {
    pub roots: Vec<String>,
    pub config: u64,
    pub servers: Vec<(u32, String)>,
    pub group: wire::VolumeInfo,
    pub locates: bool,
}

pub const VOLUME: u32 = 0x7f00_0001;

impl World {
    /// A realm whose servers 1..=n are hosts `REALM-1`.. and all hold the volume `root`.
    pub fn new() -> Arc<World> {
        Arc::new(World {
            hosts: Default::default(),
            realms: Default::default(),
            packets: Mutex::new(0),
            chance: Mutex::new(0x1234_5678_9abc_def1),
        })
    }

    pub fn with_realm(self: Arc<World>, realm: &str, servers: u32) -> Arc<World> {
        let host = |id: u32| format!("{realm}-{id}");
        for id in 1..=servers {
            let inner = Inner {
                delay: Duration::from_millis(1),
                boot: 1,
                next_session: u64::from(id) * 1000,
                resumes: true,
                ..Default::default()
            };
            let mode = watch::Sender::new(Mode::Well);
            let server = Host { id, realm: realm.into(), mode, inner: Mutex::new(inner) };
            locked(&self.hosts).insert(host(id), Arc::new(server));
        }
        let fake = RealmFake {
            roots: (1..=servers).map(host).collect(),
            config: 1,
            servers: (1..=servers).map(|id| (id, host(id))).collect(),
            group: group_of(1, &(1..=servers).collect::<Vec<_>>()),
            locates: true,
        };
        locked(&self.realms).insert(realm.into(), fake);
        self
    }

    pub fn host(&self, name: &str) -> Arc<Host> {
        locked(&self.hosts).get(name).expect("a host of this world").clone()
    }

    pub fn set(&self, host: &str, mode: Mode) {
        self.host(host).mode.send_replace(mode);
    }

    /// Kill -9 and start again: sessions are forgotten, connections broken.
    pub fn restart(&self, host: &str) {
        self.set(host, Mode::Closed);
        {
            let host = self.host(host);
            let mut inner = locked(&host.inner);
            inner.boot += 1;
            inner.sessions.clear();
        }
        self.set(host, Mode::Well);
    }

    /// The server says this to every session.
    pub fn announce(&self, host: &str, body: wire::event::Body) {
        let host = self.host(host);
        for session in locked(&host.inner).sessions.values_mut() {
            session.seq += 1;
            let event = wire::Event { seq: session.seq, body: Some(body.clone()) };
            session.events.push_back(event.clone());
            if let Some(wake) = &session.wake {
                let _ = wake.send(event);
            }
        }
    }

    /// Breaks the streams of a host's sessions; the sessions live on.
    pub fn break_streams(&self, host: &str) {
        let host = self.host(host);
        locked(&host.inner).sessions.values_mut().for_each(|session| session.wake = None);
    }

    pub fn packets(&self) -> u64 {
        *locked(&self.packets)
    }

    pub fn asked(&self, host: &str) -> Vec<&'static str> {
        locked(&self.host(host).inner).asked.clone()
    }

    pub fn change_group(&self, realm: &str, epoch: u64, servers: &[u32]) {
        locked(&self.realms).get_mut(realm).expect("a realm of this world").group = group_of(epoch, servers);
    }
}

pub fn group_of(epoch: u64, servers: &[u32]) -> wire::VolumeInfo {
    let member = |server: &u32| wire::Member {
        slot: server - 1,
        replica: server << 24 | 1,
        server: *server,
        state: wire::MemberState::MemberActive.into(),
    };
    wire::VolumeInfo { id: VOLUME, name: "root".into(), epoch, members: servers.iter().map(member).collect() }
}

fn kind(body: &Option<Body>) -> &'static str {
    match body {
        Some(Body::GetRealm(_)) => "GetRealm",
        Some(Body::GetRootVolume(_)) => "GetRootVolume",
        Some(Body::GetVolume(_)) => "GetVolume",
        Some(Body::Probe(_)) => "Probe",
        Some(Body::Fetch(_)) => "Fetch",
        Some(Body::Apply(_)) => "Apply",
        Some(Body::Cop2Only(_)) => "Cop2Only",
        Some(Body::GoodBye(_)) => "GoodBye",
        _ => "other",
    }
}

fn refusal(code: Code) -> wire::response::Body {
    wire::response::Body::Refusal(Refusal::new(code, "by the fake").into())
}

impl Host {
    fn answer(&self, world: &World, request: wire::Request) -> wire::response::Body {
        use wire::response::Body as R;
        let realms = locked(&world.realms);
        let realm = &realms[&self.realm];
        let mut inner = locked(&self.inner);
        inner.cop2.extend(request.cop2);
        let known = inner.sessions.contains_key(&request.session);
        let body = match request.body.expect("requests have bodies") {
            Body::Probe(_) => {
                let (server, boot) = (self.id, inner.boot);
                return R::Probe(wire::ProbeAnswer {
                    server,
                    boot,
                    session_known: known,
                    ..Default::default()
                });
            }
            Body::GetRealm(_) => {
                let info = |(id, host): &(u32, String)| wire::ServerInfo {
                    id: *id,
                    name: format!("{host}.name"),
                    endpoints: vec![wire::Endpoint { host: host.clone(), port: 2432, peer_only: false }],
                };
                let servers = realm.servers.iter().map(info).collect();
                let (name, config) = (self.realm.clone(), realm.config);
                return R::Realm(wire::Realm { name, config, servers, scm: 1 });
            }
            Body::GetRootVolume(_) => return R::RootVolume(wire::RootVolume { name: "root".into() }),
            Body::GetVolume(wire::GetVolume { name, id }) => {
                let found = name == realm.group.name || (name.is_empty() && [0, VOLUME].contains(&id));
                return if found { R::Volume(realm.group.clone()) } else { refusal(Code::NoVolume) };
            }
            _ if !known => return refusal(Code::UnknownSession),
            body => body,
        };
        if let Some(refusal) = &inner.refuse {
            return R::Refusal(refusal.clone());
        }
        match body {
            Body::Apply(apply) if apply.epoch != realm.group.epoch => {
                let info = Some(realm.group.clone());
                R::Refusal(Refusal { info, ..Refusal::new(Code::StaleEpoch, "by the fake") }.into())
            }
            Body::Apply(_) => R::Applied(wire::Applied::default()),
            Body::Fetch(_) => R::Fetched(wire::Fetched::default()),
            _ => R::Done(wire::Done {}),
        }
    }

    fn hello(&self, hello: &wire::Hello) -> (wire::Welcome, mpsc::UnboundedReceiver<wire::Event>) {
        let mut inner = locked(&self.inner);
        let (sender, receiver) = mpsc::unbounded_channel();
        let resumed = inner.resumes && inner.sessions.contains_key(&hello.resume);
        let number = if resumed { hello.resume } else { inner.next_session + 1 };
        inner.next_session = inner.next_session.max(number);
        let session = inner.sessions.entry(number).or_default();
        for event in session.events.iter().filter(|event| event.seq > hello.last_seq) {
            let _ = sender.send(event.clone());
        }
        session.wake = Some(sender);
        let server = inner.impostor.unwrap_or(self.id);
        let welcome = wire::Welcome {
            protocol: 1,
            session: number,
            resumed,
            server,
            boot: inner.boot,
            ..Default::default()
        };
        (welcome, receiver)
    }

    /// Waits until the host works on a packet that comes now.
    async fn reached(&self, silence: Duration) -> Result<Mode, CallError> {
        let closed = || Err(CallError::Unreachable("closed".into()));
        let mut mode = self.mode.subscribe();
        let moves = mode.wait_for(|mode| *mode != Mode::Stopped);
        let now = match timeout(silence, moves).await {
            Ok(mode) => *mode.expect("hosts outlive calls"),
            Err(_) => return Err(CallError::Silent),
        };
        if now == Mode::Closed {
            return closed();
        }
        let delay = locked(&self.inner).delay;
        sleep(delay).await;
        let after = *self.mode.borrow();
        match after {
            Mode::Closed => closed(),
            Mode::Stopped => Box::pin(self.reached(silence)).await,
            mode => Ok(mode),
        }
    }
}

impl Env for Net {
    fn call(
        &self,
        to: &Endpoint,
        request: wire::Request,
        _bulk: Bytes,
        _priority: Priority,
        silence: Duration,
    ) -> BoxFuture<'static, Result<Answer, CallError>> {
        let (world, to) = (self.0.clone(), to.clone());
        Box::pin(async move {
            *locked(&world.packets) += 1;
            let Some(host) = locked(&world.hosts).get(&to.host).cloned() else {
                return Err(CallError::Unreachable("no such host".into()));
            };
            {
                let mut inner = locked(&host.inner);
                inner.asked.push(kind(&request.body));
                if request.session != 0 {
                    inner.last_session = request.session;
                }
            }
            if matches!(request.body, Some(Body::Fetch(_))) {
                let delay = locked(&host.inner).fetch_delay;
                sleep(delay).await;
            }
            let body = match host.reached(silence).await? {
                Mode::Nonsense => wire::response::Body::Done(wire::Done {}),
                _ => host.answer(&world, request),
            };
            Ok(Answer { response: wire::Response { bulk: 0, body: Some(body) }, bulk: Bytes::new() })
        })
    }

    fn session(
        &self,
        to: &Endpoint,
        hello: wire::Hello,
        silence: Duration,
    ) -> BoxFuture<'static, Result<Session, CallError>> {
        let (world, to) = (self.0.clone(), to.clone());
        Box::pin(async move {
            *locked(&world.packets) += 1;
            let Some(host) = locked(&world.hosts).get(&to.host).cloned() else {
                return Err(CallError::Unreachable("no such host".into()));
            };
            locked(&host.inner).asked.push("Hello");
            if host.reached(silence).await? == Mode::Nonsense {
                return Err(CallError::Malformed("not a Welcome".into()));
            }
            let delay = locked(&host.inner).hello_delay;
            sleep(delay).await;
            let (welcome, events) = host.hello(&hello);
            let stream: Box<dyn SessionStream> = Box::new(FakeStream { host, events });
            Ok((welcome, stream))
        })
    }

    fn locate(&self, realm: &str) -> BoxFuture<'static, Result<Vec<Endpoint>, String>> {
        let (world, realm) = (self.0.clone(), realm.to_owned());
        Box::pin(async move {
            let realms = locked(&world.realms);
            let Some(fake) = realms.get(&realm) else { return Ok(Vec::new()) };
            if !fake.locates {
                return Err("nobody answers".into());
            }
            let endpoint = |host: &String| Endpoint { realm: realm.clone(), host: host.clone(), port: 2432 };
            Ok(fake.roots.iter().map(endpoint).collect())
        })
    }

    fn now(&self) -> i64 {
        0
    }

    fn random(&self) -> u64 {
        let mut chance = locked(&self.0.chance);
        *chance ^= *chance << 13;
        *chance ^= *chance >> 7;
        *chance ^= *chance << 17;
        *chance
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// The world as one client sees it.
pub struct Net(pub Arc<World>);

struct FakeStream {
    host: Arc<Host>,
    events: mpsc::UnboundedReceiver<wire::Event>,
}

impl SessionStream for FakeStream {
    fn next(&mut self) -> BoxFuture<'_, Result<wire::Event, CallError>> {
        Box::pin(async move {
            let broken = || CallError::Unreachable("the stream broke".into());
            let (mut closes, mut stops) = (self.host.mode.subscribe(), self.host.mode.subscribe());
            // A stopped host sends nothing; what it would have sent waits.
            let event = async {
                let _ = stops.wait_for(|mode| *mode != Mode::Stopped).await.map(|mode| *mode);
                self.events.recv().await
            };
            tokio::select! {
                biased;
                _ = closes.wait_for(|mode| *mode == Mode::Closed) => Err(broken()),
                event = event => event.ok_or_else(broken),
            }
        })
    }

    fn say(&mut self, word: wire::ClientWord) -> BoxFuture<'_, Result<(), CallError>> {
        Box::pin(async move {
            let mut inner = locked(&self.host.inner);
            inner.said.push(word);
            let pong = wire::Event { seq: 0, body: Some(wire::event::Body::Ping(true)) };
            if word.ping && !inner.deaf {
                for session in inner.sessions.values() {
                    session.wake.as_ref().map(|wake| wake.send(pong.clone()));
                }
            }
            Ok(())
        })
    }
}

/// One client of the world, with what it was told.
pub struct Client {
    pub peers: Arc<Peers>,
    pub events: mpsc::UnboundedReceiver<PeerEvent>,
}

impl Client {
    pub fn new(world: &Arc<World>) -> Client {
        Client::with(world, Known::default())
    }

    pub fn with(world: &Arc<World>, known: Known) -> Client {
        let (sender, events) = mpsc::unbounded_channel();
        let config = PeersConfig::new([7; 16]);
        Client { peers: Peers::new(Arc::new(Net(world.clone())), config, known, sender), events }
    }

    pub async fn group(&self, realm: &str) -> Group {
        self.peers.volume(realm, VolumeKey::Name("root".into())).await.unwrap()
    }

    /// Everything told so far, as short words; acknowledges breaks.
    pub fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            told.push(match event {
                PeerEvent::Broken { server, fids, ack, .. } => {
                    ack.done();
                    format!("broken {} by {server}", fids.len())
                }
                PeerEvent::Lost { server, .. } => format!("lost {server}"),
                PeerEvent::Up { server, .. } => format!("up {server}"),
                PeerEvent::Down { server, .. } => format!("down {server}"),
                PeerEvent::GroupChanged { group, .. } => format!("group {}", group.epoch),
                PeerEvent::Known => continue,
            });
        }
        told
    }

    /// The next break.
    pub async fn next_break(&mut self) -> Ack {
        loop {
            if let PeerEvent::Broken { ack, .. } = self.events.recv().await.expect("peers live") {
                return ack;
            }
        }
    }

    pub fn state(&self, id: u32) -> &'static str {
        let status = self.peers.status();
        status.iter().find(|server| u32::from(server.id) == id).expect("a known server").state
    }

    /// One mutation: how many members took it, and how long it took.
    pub async fn mutate(&self, realm: &str, group: &Group) -> (usize, Duration) {
        let began = Instant::now();
        let told = self.peers.ask_all(realm, group, apply(group), Bytes::new()).await;
        (told.iter().filter(|(_, answer)| answer.is_ok()).count(), began.elapsed())
    }

    /// One read: who answered, and how long it took.
    pub async fn read(&self, realm: &str, group: &Group) -> (ServerId, Duration) {
        let began = Instant::now();
        let body = Body::Fetch(wire::Fetch::default());
        let answer = self.peers.ask_any(realm, group, body, Bytes::new(), Priority::Foreground).await;
        (answer.unwrap().0, began.elapsed())
    }
}

pub fn apply(group: &Group) -> Body {
    let dot = Some(wire::Dot { author: 5, seq: 1 });
    let record = wire::Record { dot, ..Default::default() };
    Body::Apply(wire::Apply { volume: group.id.0, epoch: group.epoch, records: vec![record] })
}

pub fn volume() -> VolumeId {
    VolumeId(VOLUME)
}
