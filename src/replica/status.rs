//! What people and tools see of the servers, and what they may order.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use coda_proto::ServerId;
use futures::future::join_all;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Liveness, Peers,
    liveness::Fact,
    probe::PROBE_SILENCE,
    server::{Server, SessionState},
};
use crate::env::Priority;

/// One server, for `cfs checkservers` and `cfs status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// Its realm.
    pub realm: String,
    /// Its number there.
    pub id: u8,
    /// Its name, as the realm tells it; no name service is asked.
    pub name: String,
    /// `host:port` of the endpoint in use.
    pub address: String,
    /// `unknown`, `up`, `dead` or `disconnected`.
    pub state: &'static str,
    /// Whether it may break promises to us.
    pub session: bool,
    /// Mean answer time in microseconds, once known.
    pub latency_us: Option<u64>,
    /// Seconds since it was last heard from, in this run.
    pub heard_s: Option<u64>,
}

impl Peers {
    /// All servers, by realm and number.
    pub fn status(&self) -> Vec<ServerStatus> {
        self.all_servers().iter().map(shown).collect()
    }

    /// The name of a server, for people.
    pub fn server_name(&self, realm: &str, id: ServerId) -> String {
        self.find_server(realm, id).map_or_else(|| format!("server {id}"), |server| server.name())
    }

    /// Probes servers now and waits for how it ends: those named (by name, host or number), or all.
    /// Answers how they are then, and which names meant nobody.
    pub async fn check(&self, names: &[String]) -> (Vec<ServerStatus>, Vec<String>) {
        let (servers, strangers) = self.named(names);
        join_all(servers.iter().map(|server| async move {
            let silence = match server.liveness() {
                Liveness::Disconnected => return,
                // People wait, and there is nothing new in its silence.
                Liveness::Dead => PROBE_SILENCE.min(self.config.rpc_timeout),
                Liveness::Unknown | Liveness::Up => self.config.rpc_timeout,
            };
            server.probing(Instant::now());
            let fact = self.probe_endpoints(server, silence).await;
            self.learnt(server, fact);
        }))
        .await;
        (servers.iter().map(shown).collect(), strangers)
    }

    /// The network changed, or the machine slept: the dead may be within reach again, and the living may
    /// have given us up.
    pub fn probe_now(&self) {
        for server in self.all_servers() {
            server.news();
            let open = server.session.borrow().number();
            if let (Some(session), Some(me)) = (open, self.me.upgrade()) {
                self.env.spawn(Box::pin(async move { me.verify_session(&server, session).await }));
            }
        }
    }

    /// The machine has slept, or stood still, for so long that servers may have gone on without us: what they
    /// promised is void, and all of them are looked for.
    pub fn woke(&self) {
        self.env.woke();
        for server in self.all_servers() {
            let open = server.session.borrow().number();
            open.into_iter().for_each(|session| self.lose_session(&server, session));
            server.news();
        }
    }

    /// Asks a server whether it still knows our session.
    async fn verify_session(&self, server: &Arc<Server>, session: u64) {
        let body = Some(super::ask::Body::Probe(Default::default()));
        let request = coda_proto::wire::Request { session, body, ..Default::default() };
        let answer = self.call(server, request, bytes::Bytes::new(), Priority::Foreground).await;
        if let Ok(answer) = answer
            && let Some(coda_proto::wire::response::Body::Probe(probe)) = answer.response.body
            && !probe.session_known
        {
            self.lose_session(server, session);
        }
    }

    /// Talks to these servers (all, also those not yet met, when none is named) no more. Answers the names
    /// that meant nobody.
    pub fn disconnect(&self, names: &[String]) -> Vec<String> {
        if names.is_empty() {
            self.apart.store(true, Ordering::Relaxed);
        }
        let (servers, strangers) = self.named(names);
        servers.iter().for_each(|server| self.learnt(server, Fact::Disconnect));
        strangers
    }

    /// Talks to these servers (all, when none is named) again.
    pub fn reconnect(&self, names: &[String]) -> Vec<String> {
        if names.is_empty() {
            self.apart.store(false, Ordering::Relaxed);
        }
        let (servers, strangers) = self.named(names);
        for server in servers {
            let was = server.liveness();
            self.learnt(&server, Fact::Reconnect);
            match was {
                // Up is announced once it answers, so that what waits for it goes on by itself.
                Liveness::Disconnected => server.wake.notify_one(),
                _ => server.wanted(Instant::now(), Duration::ZERO),
            }
        }
        strangers
    }

    /// Says what is still to be said, for an orderly end.
    pub async fn close(&self) {
        let servers = self.all_servers();
        join_all(servers.iter().map(|server| async move {
            let open = matches!(*server.session.borrow(), SessionState::Open(..));
            if !open || !server.liveness().callable() {
                return;
            }
            let farewell = async {
                self.send_cop2(server).await;
                let body = super::ask::Body::GoodBye(Default::default());
                self.ask_server(server, body, bytes::Bytes::new(), Priority::Foreground).await
            };
            // An end must not wait for who does not answer.
            let _ = tokio::time::timeout(super::latency::GRACE_LIMIT, farewell).await;
            self.drop_session(server);
        }))
        .await;
    }

    fn named(&self, names: &[String]) -> (Vec<Arc<Server>>, Vec<String>) {
        let all = self.all_servers();
        let meant = |server: &&Arc<Server>| names.is_empty() || names.iter().any(|name| server.goes_by(name));
        let strangers = names.iter().filter(|name| !all.iter().any(|server| server.goes_by(name)));
        (all.iter().filter(meant).cloned().collect(), strangers.cloned().collect())
    }
}

fn shown(server: &Arc<Server>) -> ServerStatus {
    let (latency, heard) = server.signs();
    let address = server.endpoints().first().map(|e| format!("{}:{}", e.host, e.port));
    ServerStatus {
        realm: server.realm.to_string(),
        id: server.id.0,
        name: server.name(),
        address: address.unwrap_or_default(),
        state: match server.liveness() {
            Liveness::Unknown => "unknown",
            Liveness::Up => "up",
            Liveness::Dead => "dead",
            Liveness::Disconnected => "disconnected",
        },
        session: matches!(*server.session.borrow(), SessionState::Open(..)),
        latency_us: latency.map(|mean| mean.as_micros() as u64),
        heard_s: heard.map(|at| at.elapsed().as_secs()),
    }
}
