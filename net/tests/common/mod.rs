//! A small service for the tests: it echoes, waits, and tells events.
#![allow(dead_code)] // Each test file uses its part.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use coda_net::{Authority, Credentials, Dialer, Listener, Target, Trust};
use coda_proto::{
    ServerId,
    service::{BoxFuture, EventSource, Identity, Service},
    wire::{self, request, response},
};
use tokio::sync::mpsc;

pub const REALM: &str = "test.example";
pub const SILENCE: Duration = Duration::from_secs(15);

#[derive(Default)]
pub struct Echo {
    pub calls: AtomicU64,
    pub callers: Mutex<Vec<Identity>>,
    pub said: Mutex<Vec<(u64, wire::ClientWord)>>,
    pub lost: Mutex<Vec<u64>>,
    events: Mutex<Option<mpsc::UnboundedSender<wire::Event>>>,
}

impl Echo {
    /// Sends an event to the session that is open; `None` ends it.
    pub fn tell(&self, event: Option<wire::Event>) {
        let mut events = self.events.lock().unwrap();
        match event {
            Some(event) => events.as_ref().unwrap().send(event).unwrap(),
            None => *events = None,
        }
    }
}

struct Source(mpsc::UnboundedReceiver<wire::Event>);
impl EventSource for Source {
    fn next(&mut self) -> BoxFuture<'_, Option<wire::Event>> {
        Box::pin(self.0.recv())
    }
}

impl Service for Echo {
    /// `Fetch` answers `length` bytes after `offset` ms; `ReadDir` long names; a root volume's answer names the bulk that came.
    fn call(
        &self,
        who: Identity,
        request: wire::Request,
        bulk: Bytes,
    ) -> BoxFuture<'static, (wire::Response, Bytes)> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.callers.lock().unwrap().push(who);
        Box::pin(async move {
            let (body, bulk) = match request.body {
                Some(request::Body::Fetch(fetch)) => {
                    assert_ne!(fetch.length, 666, "a planted failure");
                    tokio::time::sleep(Duration::from_millis(fetch.offset)).await;
                    let bytes = Bytes::from(vec![7; fetch.length as usize]);
                    (response::Body::Fetched(wire::Fetched::default()), bytes)
                }
                Some(request::Body::ReadDir(read)) => {
                    let entry = wire::Entry { name: vec![7; 255].into(), ..Default::default() };
                    let entries = vec![entry; if read.limit == 0 { 10_000 } else { read.limit as usize }];
                    (response::Body::DirPage(wire::DirPage { entries, ..Default::default() }), Bytes::new())
                }
                Some(request::Body::GetVolume(volume)) => {
                    (response::Body::RootVolume(wire::RootVolume { name: volume.name }), Bytes::new())
                }
                _ => {
                    let name = blake3(&bulk);
                    (response::Body::RootVolume(wire::RootVolume { name }), bulk)
                }
            };
            (wire::Response { bulk: 0, body: Some(body) }, bulk)
        })
    }

    fn hello(&self, _: Identity, hello: wire::Hello) -> (wire::Welcome, Option<Box<dyn EventSource>>) {
        if hello.protocol != 1 {
            let refusal = wire::Refusal { detail: "another protocol".into(), ..Default::default() };
            return (wire::Welcome { refusal: Some(refusal), ..Default::default() }, None);
        }
        let (tell, events) = mpsc::unbounded_channel();
        *self.events.lock().unwrap() = Some(tell);
        (wire::Welcome { session: 42, ..Default::default() }, Some(Box::new(Source(events))))
    }

    fn said(&self, session: u64, word: wire::ClientWord) {
        self.said.lock().unwrap().push((session, word));
    }

    fn lost(&self, session: u64) {
        self.lost.lock().unwrap().push(session);
    }
}

/// Some digest that tells contents apart.
pub fn blake3(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[allow(clippy::disallowed_methods)] // Servers compare callers' certificates with their clock.
pub fn now() -> SystemTime {
    SystemTime::now()
}

pub fn authority() -> Authority {
    Authority::create(REALM, now()).unwrap()
}

pub fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub struct World {
    pub authority: Authority,
    pub echo: Arc<Echo>,
    pub listener: Listener,
    pub dialer: Dialer,
    pub target: Target,
}

impl World {
    pub fn target_address(&self) -> SocketAddr {
        self.listener.local_addr()
    }
}

/// A server with the id 3 and a client that has its authority pinned.
pub fn world() -> World {
    let authority = authority();
    let echo = Arc::new(Echo::default());
    let credentials = authority.issue_server(ServerId(3), now()).unwrap();
    let listener = Listener::bind(anywhere(), &credentials, echo.clone()).unwrap();
    let target = target(listener.local_addr());
    World { dialer: dialer(&authority, None), authority, echo, listener, target }
}

pub fn dialer(authority: &Authority, credentials: Option<Credentials>) -> Dialer {
    let trust = Trust::pinned_only();
    trust.pin(authority.realm(), authority.certificate().clone());
    Dialer::new(Arc::new(trust), credentials).unwrap()
}

pub fn target(address: SocketAddr) -> Target {
    Target { realm: REALM.into(), host: address.ip().to_string(), port: address.port(), server: None }
}

pub fn request(body: request::Body) -> wire::Request {
    wire::Request { body: Some(body), ..Default::default() }
}

/// Answers `length` bytes after a while.
pub fn fetch(length: u32, after: Duration) -> wire::Request {
    let fetch = wire::Fetch { length, offset: after.as_millis() as u64, ..Default::default() };
    request(request::Body::Fetch(fetch))
}

/// Answers the same bulk, and its digest.
pub fn echo() -> wire::Request {
    request(request::Body::GetRootVolume(wire::GetRootVolume {}))
}

pub fn named(name: &str) -> wire::Request {
    request(request::Body::GetVolume(wire::GetVolume { name: name.into(), id: 0 }))
}

pub fn name_in(response: &wire::Response) -> &str {
    match &response.body {
        Some(response::Body::RootVolume(root)) => &root.name,
        other => panic!("{other:?}"),
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
