//! The doors of a client in the world, but for its containers (`disk`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{
    ServerId,
    service::{EventSource, Identity, Service},
    wire,
};
use tokio::sync::mpsc;
use venus::env::{Answer, BoxFuture, CallError, Endpoint, Env, Priority, Session, SessionStream};

use crate::{
    chance::Chance,
    fabric::{Fabric, Failure, REALM, host},
    process::Process,
};

/// What one life of a client sees of the world.
pub struct ClientEnv {
    /// Everything that is shared.
    pub fabric: Fabric,
    /// Its host.
    pub host: String,
    /// The servers that the realms file names.
    pub servers: Vec<ServerId>,
    /// Its tasks.
    pub process: Arc<Process>,
    /// Its chance.
    pub chance: Chance,
    /// How wrong its clock is, in nanoseconds; it may be set while it runs.
    pub wrong_by: Arc<AtomicI64>,
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> CallError {
        match failure {
            Failure::Unreachable(why) => CallError::Unreachable(why),
            Failure::Silent => CallError::Silent,
        }
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
    ) -> BoxFuture<'static, Result<Answer, CallError>> {
        let (fabric, me, to) = (self.fabric.clone(), self.host.clone(), to.host.clone());
        Box::pin(async move {
            let (response, bulk) = fabric.call(&me, Identity::Client, &to, request, bulk, silence).await?;
            Ok(Answer { response, bulk })
        })
    }

    fn session(
        &self,
        to: &Endpoint,
        hello: wire::Hello,
        silence: Duration,
    ) -> BoxFuture<'static, Result<Session, CallError>> {
        let (fabric, me, to) = (self.fabric.clone(), self.host.clone(), to.host.clone());
        Box::pin(open(fabric, me, to, hello, silence))
    }

    fn locate(&self, realm: &str) -> BoxFuture<'static, Result<Vec<Endpoint>, String>> {
        let known = realm == REALM;
        let mut endpoints: Vec<Endpoint> = self
            .servers
            .iter()
            .filter(|_| known)
            .map(|server| Endpoint { realm: realm.to_owned(), host: host(*server), port: 2432 })
            .collect();
        self.chance.shuffle(&mut endpoints);
        Box::pin(async move { Ok(endpoints) })
    }

    fn now(&self) -> i64 {
        self.fabric.now(self.wrong_by.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        self.chance.next()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.process.spawn(task);
    }
}

/// A session: two pumps carry events and words, in order, until either side dies or the connection does.
async fn open(
    fabric: Fabric,
    me: String,
    to: String,
    hello: wire::Hello,
    silence: Duration,
) -> Result<Session, CallError> {
    let travelled = tokio::time::timeout(silence, fabric.net.travel(&me, &to)).await;
    travelled.map_err(|_| CallError::Silent)?;
    let Some(server) = fabric.server(&to) else {
        if !fabric.closed(&to) {
            tokio::time::sleep(silence).await;
            return Err(CallError::Silent);
        }
        return Err(CallError::Unreachable(format!("{to}: port closed")));
    };
    let (welcome, source) = server.service.hello(Identity::Client, hello);
    fabric.trace.say(format_args!("{me} -> {to} hello: session {:x}", welcome.session));
    let (events, from_server) = mpsc::unbounded_channel();
    let (to_server, words) = mpsc::unbounded_channel();
    if let Some(source) = source {
        let link =
            Link { fabric: fabric.clone(), client: me.clone(), server: to.clone(), session: welcome.session };
        let service = Arc::clone(&server.service);
        server.process.spawn(Box::pin(pump_events(link.clone(), source, events)));
        server.process.spawn(Box::pin(pump_words(link, service, words)));
    }
    let travelled = tokio::time::timeout(silence, fabric.net.travel(&to, &me)).await;
    travelled.map_err(|_| CallError::Silent)?;
    let stream = Stream { from_server, to_server };
    Ok((welcome, Box::new(stream)))
}

#[derive(Clone)]
struct Link {
    fabric: Fabric,
    client: String,
    server: String,
    session: u64,
}

impl Link {
    /// Ends when the connection has been useless for as long as connections bear it.
    async fn breaks(&self) {
        while !self.fabric.net.is_dead(&self.client, &self.server) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn pump_events(
    link: Link,
    mut source: Box<dyn EventSource>,
    events: mpsc::UnboundedSender<wire::Event>,
) {
    let flow = async {
        while let Some(event) = source.next().await {
            link.fabric.net.travel(&link.server, &link.client).await;
            link.fabric.trace.say(format_args!("{} <- {} event {}", link.client, link.server, shown(&event)));
            if events.send(event).is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = flow => {}
        () = link.breaks() => {}
        () = events.closed() => {}
    }
}

async fn pump_words(
    link: Link,
    service: Arc<dyn Service>,
    mut words: mpsc::UnboundedReceiver<wire::ClientWord>,
) {
    let flow = async {
        while let Some(word) = words.recv().await {
            link.fabric.net.travel(&link.client, &link.server).await;
            service.said(link.session, word);
        }
        link.fabric.net.travel(&link.client, &link.server).await;
    };
    tokio::select! {
        biased;
        () = flow => {}
        () = link.breaks() => {}
    }
    link.fabric.trace.say(format_args!("{} lost session {:x}", link.server, link.session));
    service.lost(link.session);
}

fn shown(event: &wire::Event) -> String {
    use wire::event::Body;
    match &event.body {
        Some(Body::Break(broken)) => format!("{}: break of {} objects", event.seq, broken.fids.len()),
        Some(body) => format!("{}: {}", event.seq, format!("{body:?}").split('(').next().unwrap_or_default()),
        None => format!("{}: nothing", event.seq),
    }
}

struct Stream {
    from_server: mpsc::UnboundedReceiver<wire::Event>,
    to_server: mpsc::UnboundedSender<wire::ClientWord>,
}

impl SessionStream for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<wire::Event, CallError>> {
        Box::pin(async move {
            match self.from_server.recv().await {
                Some(event) => Ok(event),
                None => Err(CallError::Unreachable("the session's stream ended".into())),
            }
        })
    }

    fn say(&mut self, word: wire::ClientWord) -> BoxFuture<'_, Result<(), CallError>> {
        let said = self.to_server.send(word);
        Box::pin(async move { said.map_err(|_| CallError::Unreachable("the session's stream ended".into())) })
    }
}
