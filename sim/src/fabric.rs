//! Where calls meet servers: who is up at which host, and what a caller sees of a host that is down.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{
    Record, ServerId, VolumeId,
    service::{Identity, Service},
    wire,
};
use coda_server::Server;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{chance::Chance, ledger::Ledger, net::Net, process::Process, trace::Trace};

/// Name of the only realm.
pub const REALM: &str = "sim.example";
/// Nanoseconds since 1970 at the beginning of every world.
const BEGINNING: i64 = 1_700_000_000_000_000_000;

/// What all doors share. Clones share it.
#[derive(Clone)]
pub struct Fabric {
    /// The network.
    pub net: Net,
    /// What happens is said here.
    pub trace: Trace,
    /// Draws that belong to nobody in particular.
    pub chance: Chance,
    /// Every mutation that reached a server.
    pub ledger: Ledger,
    hosts: Arc<Mutex<BTreeMap<String, Host>>>,
}

/// A server that is up.
#[derive(Clone)]
pub struct Up {
    /// Its process.
    pub process: Arc<Process>,
    /// What it answers.
    pub service: Arc<dyn Service>,
    /// The same, to be looked into.
    pub server: Arc<Server>,
}

#[derive(Clone)]
enum Host {
    Up(Up),
    /// The process is dead. `closed`: its port says so; otherwise nothing comes back.
    Down {
        closed: bool,
    },
}

/// Why a call brought no answer.
#[derive(Debug)]
pub enum Failure {
    /// A closed port, or a connection that ended.
    Unreachable(String),
    /// No sign of life.
    Silent,
}

/// The host of a server.
pub fn host(server: ServerId) -> String {
    format!("s{server}")
}

impl Fabric {
    /// Hosts without servers yet.
    pub fn new(chance: Chance, trace: Trace) -> Fabric {
        let net = Net::new(chance.fork(), trace.clone());
        Fabric { net, trace, chance, ledger: Ledger::default(), hosts: Arc::default() }
    }

    /// A server is up at its host.
    pub fn up(&self, host: &str, up: Up) {
        self.hosts().insert(host.to_owned(), Host::Up(up));
    }

    /// The server of a host is gone.
    pub fn down(&self, host: &str, closed: bool) {
        self.hosts().insert(host.to_owned(), Host::Down { closed });
    }

    /// The server at a host, if it is up.
    pub fn server(&self, host: &str) -> Option<Up> {
        match self.hosts().get(host) {
            Some(Host::Up(up)) if up.process.is_alive() => Some(up.clone()),
            _ => None,
        }
    }

    /// The wall clock, as right as a host's is.
    pub fn now(&self, wrong_by: i64) -> i64 {
        BEGINNING + self.trace.time().as_nanos() as i64 + wrong_by
    }

    /// Whether somebody at that host says that no server is there.
    pub fn closed(&self, host: &str) -> bool {
        match self.hosts().get(host) {
            Some(Host::Up(up)) => !up.process.is_alive(),
            Some(Host::Down { closed }) => *closed,
            None => true,
        }
    }

    /// One call from a host to a server. The server goes on with it whatever becomes of the caller.
    pub async fn call(
        &self,
        from: &str,
        who: Identity,
        to: &str,
        mut request: wire::Request,
        bulk: Bytes,
        silence: Duration,
    ) -> Result<(wire::Response, Bytes), Failure> {
        let label = label(&request);
        let limit = Instant::now() + silence;
        timeout_at(limit, self.net.travel(from, to)).await.map_err(|_| Failure::Silent)?;
        let Some(server) = self.server(to) else { return Err(self.nobody(from, to, limit).await) };
        self.trace.say(format_args!("{from} -> {to} {label}"));
        self.mislay_cop2(&server, who, &mut request);
        if let Some(later) = self.net.duplicate() {
            self.again(&server, who, request.clone(), bulk.clone(), later);
        }
        let (sender, mut receiver) = oneshot::channel();
        let work = self.noted(&server, who, request, bulk);
        server.process.spawn(Box::pin(async move {
            // The caller may be gone.
            let _ = sender.send(work.await);
        }));
        // While it works, the server says so every now and then.
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut receiver => match answer {
                    Ok(answer) => break answer,
                    Err(_) => return Err(self.nobody(from, to, Instant::now() + silence).await),
                },
                () = tokio::time::sleep(silence) => {
                    if self.net.is_cut(to, from) || self.net.is_cut(from, to) {
                        return Err(Failure::Silent);
                    }
                }
            }
        };
        tokio::time::timeout(silence, self.net.travel(to, from)).await.map_err(|_| Failure::Silent)?;
        self.trace.say(format_args!("{from} <- {to} {label}: {}", outcome(&answer.0)));
        Ok(answer)
    }

    /// A request that arrives a second time; nobody waits for the answer.
    fn again(&self, server: &Up, who: Identity, request: wire::Request, bulk: Bytes, later: Duration) {
        // Only mutations must bear it: a transport repeats nothing, a client repeats what it logged.
        if !matches!(request.body, Some(wire::request::Body::Apply(_))) {
            return;
        }
        let (trace, label) = (self.trace.clone(), label(&request));
        let work = self.noted(server, who, request, bulk);
        server.process.spawn(Box::pin(async move {
            tokio::time::sleep(later).await;
            trace.say(format_args!("a late copy arrives: {label}"));
            work.await;
        }));
    }

    /// What a server makes of a request. Mutations enter the ledger.
    fn noted(
        &self,
        server: &Up,
        who: Identity,
        request: wire::Request,
        bulk: Bytes,
    ) -> impl Future<Output = (wire::Response, Bytes)> + Send + use<> {
        let (service, ledger) = (Arc::clone(&server.service), self.ledger.clone());
        let holder = Arc::clone(&server.server);
        async move {
            let apply = match &request.body {
                Some(wire::request::Body::Apply(apply)) => Some(apply.clone()),
                _ => None,
            };
            apply.iter().for_each(|apply| ledger.asked(apply));
            let late = apply.as_ref().and_then(|apply| late(&holder, apply));
            let answer = service.call(who, request, bulk).await;
            if matches!(answer.0.body, Some(wire::response::Body::Applied(_))) {
                apply.iter().for_each(|apply| ledger.applied(apply));
                late.into_iter().for_each(|what| ledger.complain(what));
            }
            answer
        }
    }

    /// Word that all members hold something is lost, comes later than it should, or comes again, where the weather
    /// repeats messages.
    fn mislay_cop2(&self, server: &Up, who: Identity, request: &mut wire::Request) {
        let Some(later) = self.net.duplicate().filter(|_| !request.cop2.is_empty()) else { return };
        let cop2 = match self.chance.permille(500) {
            true => std::mem::take(&mut request.cop2),
            false => request.cop2.clone(),
        };
        if self.chance.permille(300) {
            self.trace.say(format_args!("word of {} mutations is lost", cop2.len()));
            return;
        }
        let body = Some(wire::request::Body::Cop2Only(wire::Cop2Only {}));
        let late = wire::Request { session: request.session, cop2, body, ..Default::default() };
        let (trace, service) = (self.trace.clone(), Arc::clone(&server.service));
        server.process.spawn(Box::pin(async move {
            tokio::time::sleep(later).await;
            trace.say(format_args!("late word of {} mutations", late.cop2.len()));
            service.call(who, late, Bytes::new()).await;
        }));
    }

    /// What a caller sees of a host without a server.
    async fn nobody(&self, from: &str, to: &str, limit: Instant) -> Failure {
        if self.closed(to) && tokio::time::timeout_at(limit, self.net.travel(to, from)).await.is_ok() {
            return Failure::Unreachable(format!("{to}: port closed"));
        }
        tokio::time::sleep_until(limit).await;
        Failure::Silent
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<String, Host>> {
        self.hosts.lock().expect("no holder panics")
    }
}

/// What must not be taken: a record of an author that this server has retired, and that it does not hold.
fn late(server: &Server, apply: &wire::Apply) -> Option<String> {
    let volume = server.volume(VolumeId(apply.volume)).ok()?;
    let records = apply.records.iter().filter_map(|record| Record::try_from(record.clone()).ok());
    let records: Vec<Record> = records.collect();
    let late = volume.read(|view| {
        for record in records {
            let mut held = false;
            for fid in record.op.touches() {
                held |= view.past(fid)?.is_some_and(|past| past.covers(record.dot));
            }
            if !held && view.retired(record.dot.author)?.is_some() {
                return Ok(Some(record.dot));
            }
        }
        Ok(None)
    });
    let dot = late.ok()??;
    Some(format!("server {} takes {dot}, whose author it has retired", server.id()))
}

/// A request in a few words.
pub fn label(request: &wire::Request) -> String {
    use wire::request::Body;
    match &request.body {
        Some(Body::Apply(apply)) => {
            let dots: Vec<String> = apply.records.iter().map(record).collect();
            format!("apply {}", dots.join(", "))
        }
        Some(body) => {
            let shown = format!("{body:?}");
            shown.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
        }
        None => "nothing".into(),
    }
}

fn record(record: &wire::Record) -> String {
    let dot = record.dot.as_ref().map(|dot| format!("{:x}.{}", dot.author, dot.seq)).unwrap_or_default();
    let op = format!("{:?}", record.op);
    let name = op.trim_start_matches("Some(").split('(').next().unwrap_or_default();
    format!("{dot} {name}")
}

/// A path of a server's disk without the directory of this run, which another run does not have.
fn below_the_room(detail: &str) -> &str {
    let disk = detail.starts_with('/').then(|| detail.find("/server-")).flatten();
    &detail[disk.unwrap_or(0)..]
}

fn outcome(response: &wire::Response) -> String {
    match &response.body {
        Some(wire::response::Body::Refusal(refusal)) => {
            format!(
                "refused ({}: {})",
                wire::Code::try_from(refusal.code).map_or("?", |c| c.as_str_name()),
                below_the_room(&refusal.detail)
            )
        }
        Some(_) => "ok".into(),
        None => "nothing".into(),
    }
}
