//! A realm in one process: servers on real stores, clients that call them through the Service trait.

#![allow(dead_code)] // Each test file uses a part.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{
    Author, Base, Code, Contents, Dot, Fid, Op, Past, Record, Refusal, Rights, ServerId, Status, VolumeId,
    merge::Head,
    service::{EventSource, Identity, Service},
    wire::{self, request, response::Body},
};
use coda_server::{
    CrashHook, Durability, Server, ServerConfig,
    env::{BoxFuture, Env, PeerError},
    setup,
};

/// A world with a clock that stands still and no network.
pub struct Alone(AtomicU64);

impl Env for Alone {
    fn call_peer(
        &self,
        to: &wire::ServerInfo,
        _: wire::Request,
        _: Bytes,
        _: Duration,
    ) -> BoxFuture<'static, Result<(wire::Response, Bytes), PeerError>> {
        let to = ServerId::new(to.id).expect("only servers of the realm are called");
        Box::pin(async move { Err(PeerError::Unreachable(to, "there is no network".into())) })
    }
    fn now(&self) -> i64 {
        1_700_000_000_000_000_000
    }
    fn random(&self) -> u64 {
        // Any sequence without repetition will do.
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

pub fn env() -> Arc<dyn Env> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Arc::new(Alone(AtomicU64::new(NEXT.fetch_add(1, Ordering::Relaxed) << 32)))
}

pub fn server_info(id: u32) -> wire::ServerInfo {
    let endpoint = wire::Endpoint { host: "127.0.0.1".into(), port: 2432, peer_only: false };
    wire::ServerInfo { id, name: format!("server{id}"), endpoints: vec![endpoint] }
}

/// One server, with the volumes `/` (mounting home) and `home`.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub home: VolumeId,
    pub root: VolumeId,
}

impl Place {
    pub fn new(any: Rights) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let mut realm = setup::realm("test.example", vec![server_info(1)], any).unwrap();
        let root = *realm.volumes.keys().next().unwrap();
        let home = setup::add_volume(&mut realm, "home", any);
        let records = [setup::mount(root, "home", "home", 1)];
        setup::create(dir.path(), ServerId(1), &realm, &records, Durability::Process, 0).unwrap();
        Place { dir, home, root }
    }

    pub fn config(&self) -> ServerConfig {
        ServerConfig { durability: Durability::Process, ..ServerConfig::new(self.dir.path()) }
    }

    pub fn open(&self) -> Arc<Server> {
        Server::open(self.config(), env()).unwrap()
    }

    pub fn open_with(&self, crash: CrashHook) -> Arc<Server> {
        Server::open(ServerConfig { crash: Some(crash), ..self.config() }, env()).unwrap()
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

/// A cache manager, or an administrator: one author with a session.
pub struct Client {
    pub server: Arc<Server>,
    pub who: Identity,
    pub session: u64,
    /// In a mutex only so that a client may be shared between tasks.
    pub events: Mutex<Option<Box<dyn EventSource>>>,
    pub author: Author,
    pub volume: VolumeId,
    pub epoch: u64,
    pub seq: u64,
    pub vnode: u32,
    pub instance: u8,
}

impl Client {
    pub fn new(server: &Arc<Server>, volume: VolumeId, name: u8) -> Client {
        static AUTHORS: AtomicU64 = AtomicU64::new(7);
        let author = Author(u64::from(name) << 40 | AUTHORS.fetch_add(1, Ordering::Relaxed));
        let mut client = Client {
            server: server.clone(),
            who: Identity::Client,
            session: 0,
            events: Mutex::new(None),
            author,
            volume,
            epoch: 1,
            seq: 0,
            vnode: 0,
            instance: name,
        };
        client.hello(0, 0);
        client
    }

    pub fn admin(server: &Arc<Server>, volume: VolumeId) -> Client {
        let mut client = Client::new(server, volume, 200);
        client.who = Identity::Admin;
        client
    }

    /// Says Hello; answers whether the session goes on.
    pub fn hello(&mut self, resume: u64, last_seq: u64) -> bool {
        let (welcome, events) = self.server.hello(
            self.who,
            wire::Hello {
                protocol: 1,
                instance: vec![self.instance; 16].into(),
                resume,
                last_seq,
                ..Default::default()
            },
        );
        assert_eq!(welcome.refusal, None);
        (self.session, self.events) = (welcome.session, Mutex::new(events));
        welcome.resumed
    }

    pub async fn call_with(&self, body: request::Body, bulk: Bytes) -> Result<(Body, Bytes), Refusal> {
        let request = wire::Request {
            session: self.session,
            bulk: bulk.len() as u32,
            cop2: Vec::new(),
            body: Some(body),
        };
        let (response, bulk) = self.server.call(self.who, request, bulk).await;
        assert_eq!(response.bulk as usize, bulk.len());
        match response.body.unwrap() {
            Body::Refusal(refusal) => Err(refusal.try_into().unwrap()),
            body => Ok((body, bulk)),
        }
    }

    pub async fn call(&self, body: request::Body) -> Result<Body, Refusal> {
        Ok(self.call_with(body, Bytes::new()).await?.0)
    }

    pub async fn apply(&self, records: &[Record]) -> Result<wire::Applied, Refusal> {
        let records = records.iter().map(Into::into).collect();
        let apply = wire::Apply { volume: self.volume.0, epoch: self.epoch, records };
        match self.call(request::Body::Apply(apply)).await? {
            Body::Applied(applied) => Ok(applied),
            other => panic!("{other:?}"),
        }
    }

    pub async fn status(&self, fid: Fid) -> Option<Status> {
        let get = wire::GetAttr { volume: self.volume.0, fids: vec![fid.into()] };
        match self.call(request::Body::GetAttr(get)).await.unwrap() {
            Body::Attributes(attributes) => {
                attributes.statuses.into_iter().next().map(|status| status.try_into().unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn past(&self, fid: Fid) -> Past {
        self.status(fid).await.expect("it exists").past
    }

    pub fn root(&self) -> Fid {
        Fid::root(self.volume)
    }

    pub fn fresh_file(&mut self) -> Fid {
        self.vnode += 1;
        Fid::file(self.volume, self.author, self.vnode)
    }

    pub fn fresh_directory(&mut self) -> Fid {
        self.vnode += 1;
        Fid::directory(self.volume, self.author, self.vnode)
    }

    /// A record with the bases as the server has them now.
    pub async fn record(&mut self, op: Op) -> Record {
        let mut bases = Vec::new();
        let mut lamport = 0;
        for fid in op.touches().into_iter().filter(|fid| Some(*fid) != op.creates()) {
            if let Some(status) = self.status(fid).await {
                lamport = lamport.max(status.lamport);
                bases.push(Base { fid, past: status.past });
            }
        }
        self.seq += 1;
        Record {
            dot: Dot::new(self.author, self.seq),
            lamport: lamport + 1,
            time: 5,
            changed: 5,
            bases,
            logged: false,
            host: String::new(),
            op,
        }
    }

    pub async fn run(&mut self, op: Op) -> Result<wire::Applied, Refusal> {
        let record = self.record(op).await;
        self.apply(&[record]).await
    }

    pub async fn mkdir(&mut self, parent: Fid, name: &str) -> Result<Fid, Refusal> {
        let fid = self.fresh_directory();
        let name = name.as_bytes().to_vec();
        self.run(Op::MakeDir { parent, name, fid, mode: 0o755, owner: 1000 }).await?;
        Ok(fid)
    }

    pub async fn create(&mut self, parent: Fid, name: &str) -> Result<Fid, Refusal> {
        let fid = self.fresh_file();
        let name = name.as_bytes().to_vec();
        self.run(Op::Create { parent, name, fid, mode: 0o644, owner: 1000 }).await?;
        Ok(fid)
    }

    pub async fn store(&mut self, fid: Fid, bytes: &[u8]) -> Result<wire::Applied, Refusal> {
        let op = store_inline(fid, bytes);
        self.run(op).await
    }

    pub async fn remove(&mut self, parent: Fid, name: &str, fid: Fid) -> Result<wire::Applied, Refusal> {
        self.run(Op::Remove { parent, name: name.as_bytes().to_vec(), fid }).await
    }

    pub async fn fetch(&self, fid: Fid, offset: u64, length: u32) -> Result<Bytes, Refusal> {
        let fetch = wire::Fetch { fid: Some(fid.into()), dot: None, offset, length, holes: false };
        Ok(self.call_with(request::Body::Fetch(fetch), Bytes::new()).await?.1)
    }

    pub async fn upload(
        &self,
        handle: [u8; 16],
        bytes: &[u8],
        offset: usize,
        piece: usize,
    ) -> Result<wire::Uploaded, Refusal> {
        let upload = wire::Upload {
            volume: self.volume.0,
            handle: handle.to_vec().into(),
            directory: Some(self.root().into()),
            offset: offset as u64,
            length: bytes.len() as u64,
            hash: blake3::hash(bytes).as_bytes().to_vec().into(),
            zeros: 0,
        };
        let end = bytes.len().min(offset + piece);
        let bulk = Bytes::copy_from_slice(&bytes[offset.min(end)..end]);
        match self.call_with(request::Body::Upload(upload), bulk).await?.0 {
            Body::Uploaded(uploaded) => Ok(uploaded),
            other => panic!("{other:?}"),
        }
    }

    pub async fn names(&self, dir: Fid) -> Vec<String> {
        let entries = self.list(dir, 10_000).await;
        entries.into_iter().map(|entry| String::from_utf8(entry.name.to_vec()).unwrap()).collect()
    }

    pub async fn list(&self, dir: Fid, limit: u32) -> Vec<wire::Entry> {
        let mut entries: Vec<wire::Entry> = Vec::new();
        loop {
            let last = entries.last().cloned().unwrap_or_default();
            let read = wire::ReadDir {
                fid: Some(dir.into()),
                after: last.name,
                after_unique: last.fid.map_or(0, |fid| fid.unique),
                after_vnode: last.fid.map_or(0, |fid| fid.vnode),
                limit,
            };
            match self.call(request::Body::ReadDir(read)).await.unwrap() {
                Body::DirPage(page) => {
                    entries.extend(page.entries);
                    if page.last {
                        return entries;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn events(&mut self) -> &mut Box<dyn EventSource> {
        self.events.get_mut().unwrap().as_mut().expect("it said Hello")
    }

    /// From now on, acknowledges whatever comes.
    pub fn attend(&mut self) {
        let mut events = self.events.get_mut().unwrap().take().expect("it said Hello");
        let (server, session) = (self.server.clone(), self.session);
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                server.said(session, wire::ClientWord { ack: event.seq, ping: false });
            }
        });
    }

    /// The next break this client is told of, acknowledged.
    pub async fn broken(&mut self) -> Vec<Fid> {
        loop {
            let event = self.events().next().await.expect("the session lives");
            self.server.said(self.session, wire::ClientWord { ack: event.seq, ping: false });
            if let Some(wire::event::Body::Break(broken)) = event.body {
                return broken.fids.into_iter().map(|fid| fid.try_into().unwrap()).collect();
            }
        }
    }
}

pub fn store_inline(fid: Fid, bytes: &[u8]) -> Op {
    Op::Store {
        fid,
        length: bytes.len() as u64,
        hash: *blake3::hash(bytes).as_bytes(),
        mtime: 6,
        contents: Contents::Inline(Bytes::copy_from_slice(bytes)),
        mode: None,
    }
}

pub fn store_uploaded(fid: Fid, bytes: &[u8], handle: [u8; 16]) -> Op {
    Op::Store {
        fid,
        length: bytes.len() as u64,
        hash: *blake3::hash(bytes).as_bytes(),
        mtime: 6,
        contents: Contents::Uploaded(handle),
        mode: None,
    }
}

/// The code of a refusal; fails the test where there is none.
pub fn code<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> Code {
    answer.expect_err("it is to be refused").code
}

/// Fails the test if the store of a stopped server is not sound.
pub fn assert_sound(place: &Place) {
    let findings = coda_server::store::fsck::check(&place.path()).unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// What a head says, for tests that look below the service.
pub fn head(server: &Server, fid: Fid) -> Option<Head> {
    server.volume(fid.volume).unwrap().read(|view| Ok(view.head(fid)?)).unwrap()
}
