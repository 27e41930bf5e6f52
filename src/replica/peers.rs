//! [`Peers`] itself: what it holds, and what everything in it goes through: one call, one fact.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{ServerId, watch, wire};
use futures::FutureExt;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    AskError, Known, Liveness, PeerEvent, PeersConfig,
    error::fact,
    flight::Flight,
    learn::RealmState,
    liveness::{Change, Fact},
    locate::VolumeFlight,
    server::{Server, SessionState, locked},
};
use crate::{
    env::{Answer, BoxFuture, CallError, Env, Priority},
    error::Error,
    realm::KnownRealm,
    volume::VolumeKey,
};

/// Answers longer than this say more about the line than about the server.
const SMALL: usize = 64 * 1024;
/// A closed connection may only mean that the server restarted; so long may a new one take.
const SECOND_TRY: Duration = Duration::from_secs(1);
/// A dead server that somebody wants is probed no more often than this.
pub(super) const WANTED_EVERY: Duration = Duration::from_secs(4);

/// All servers of all realms.
pub struct Peers {
    pub(super) me: Weak<Peers>,
    pub(super) env: Arc<dyn Env>,
    pub(super) config: PeersConfig,
    events: mpsc::UnboundedSender<PeerEvent>,
    pub(super) realms: Mutex<BTreeMap<String, Arc<Realm>>>,
    /// People disconnected everything, servers not yet met included.
    pub(super) apart: AtomicBool,
}

/// One realm. Nothing here is shared with another one.
pub(super) struct Realm {
    pub name: Arc<str>,
    pub state: Mutex<RealmState>,
    pub learning: Flight<Result<(), Error>>,
    pub asking: Mutex<BTreeMap<VolumeKey, Arc<VolumeFlight>>>,
}

impl Realm {
    pub fn servers(&self) -> Vec<Arc<Server>> {
        locked(&self.state).servers.values().cloned().collect()
    }

    pub fn server(&self, id: ServerId) -> Option<Arc<Server>> {
        locked(&self.state).servers.get(&id).cloned()
    }
}

impl Peers {
    /// Begins with what an earlier run knew. Sends nothing before it is asked something.
    pub fn new(
        env: Arc<dyn Env>,
        config: PeersConfig,
        known: Known,
        events: mpsc::UnboundedSender<PeerEvent>,
    ) -> Arc<Peers> {
        let realm = |(name, known): (String, KnownRealm)| {
            let realm = Realm::new(&name, RealmState::from_disk(&name, known));
            (name, Arc::new(realm))
        };
        let realms = known.realms.into_iter().map(realm).collect();
        Arc::new_cyclic(|me| Peers {
            me: me.clone(),
            env,
            config,
            events,
            realms: Mutex::new(realms),
            apart: AtomicBool::new(false),
        })
    }

    /// What is worth keeping on disk. [`PeerEvent::Known`] says when it changed.
    pub fn known(&self) -> Known {
        let mut known = Known::default();
        for (name, realm) in locked(&self.realms).iter() {
            if let Some(realm) = &locked(&realm.state).known {
                known.realms.insert(name.clone(), realm.clone());
            }
        }
        known
    }

    pub(super) fn tell(&self, event: PeerEvent) {
        // Nobody listens while everything is being torn down.
        let _ = self.events.send(event);
    }

    pub(super) fn find_realm(&self, realm: &str) -> Option<Arc<Realm>> {
        locked(&self.realms).get(realm).cloned()
    }

    pub(super) fn find_server(&self, realm: &str, id: ServerId) -> Option<Arc<Server>> {
        self.find_realm(realm)?.server(id)
    }

    pub(super) fn all_servers(&self) -> Vec<Arc<Server>> {
        let realms: Vec<_> = locked(&self.realms).values().cloned().collect();
        realms.iter().flat_map(|realm| realm.servers()).collect()
    }

    pub(super) fn is_apart(&self) -> bool {
        self.apart.load(Ordering::Relaxed)
    }

    /// Takes a fact about a server into account: everything that follows from it begins here.
    pub(super) fn learnt(&self, server: &Arc<Server>, fact: Fact) {
        let (realm, id) = (server.realm.to_string(), server.id);
        server.learn(fact, Instant::now(), |change| match change {
            Change::None => {}
            Change::Met => self.tell(PeerEvent::Up { realm, server: id, away: false }),
            Change::Up => self.tell(PeerEvent::Up { realm, server: id, away: true }),
            Change::Asked => self.tell(PeerEvent::Lost { realm, server: id }),
            Change::Down => {
                self.drop_session(server);
                self.tell(PeerEvent::Down { realm: realm.clone(), server: id });
                // It may have moved.
                if fact != Fact::Disconnect {
                    self.refresh_realm(&realm);
                }
            }
        });
        if server.begin_watch() {
            let (me, server) = (self.me.clone(), server.clone());
            self.env.spawn(Box::pin(super::probe::watch_over(me, server)));
        }
    }

    /// Ends the session, if it is (still) this one, and with it every promise.
    pub(super) fn lose_session(&self, server: &Server, only: u64) {
        server.session.send_if_modified(|state| {
            let ends = matches!(state, SessionState::Open(_, session) if *session == only);
            if ends {
                *state = SessionState::Absent;
                self.tell(PeerEvent::Lost { realm: server.realm.to_string(), server: server.id });
            }
            ends
        });
    }

    /// Ends whatever session there is with a server that is no longer called.
    pub(super) fn drop_session(&self, server: &Server) {
        server.session.send_if_modified(|state| {
            let ends = matches!(state, SessionState::Open(..) | SessionState::Opening(_));
            if ends {
                *state = SessionState::Absent;
            }
            ends
        });
    }

    /// One call to a server that is believed to live. Ends with the server, whoever finds its death; a
    /// connection that broke is tried once more before that.
    pub(super) async fn call(
        &self,
        server: &Arc<Server>,
        request: wire::Request,
        bulk: Bytes,
        priority: Priority,
    ) -> Result<Answer, AskError> {
        let mut again = true;
        loop {
            let outcome = self.call_once(server, request.clone(), bulk.clone(), priority).await;
            match outcome {
                Err(CallError::Unreachable(_)) if again && self.answers_after_all(server).await => {
                    again = false;
                }
                outcome => {
                    // Whoever died meanwhile by another caller's finding gains nothing by ours.
                    if server.liveness().callable() {
                        self.learnt(server, fact(&outcome));
                    }
                    return outcome.map_err(AskError::from);
                }
            }
        }
    }

    async fn call_once(
        &self,
        server: &Arc<Server>,
        request: wire::Request,
        bulk: Bytes,
        priority: Priority,
    ) -> Result<Answer, CallError> {
        let liveness = server.liveness.subscribe();
        let away = || CallError::Unreachable(format!("server {} is {:?}", server.id, server.liveness()));
        let to = match server.endpoints().into_iter().next() {
            Some(to) if server.liveness().callable() => to,
            _ => return Err(away()),
        };
        let began = Instant::now();
        let small = bulk.len() <= SMALL && !matches!(request.body, Some(wire::request::Body::Apply(_)));
        let answer = tokio::select! {
            biased;
            answer = self.env.call(&to, request, bulk, priority, self.config.rpc_timeout) => answer,
            () = not_callable(liveness) => return Err(away()),
        };
        if let Ok(answer) = &answer
            && small
            && answer.bulk.len() <= SMALL
        {
            server.answered_in(began.elapsed());
        }
        answer
    }

    /// Whether a server whose connection broke answers on a new one. All callers share one try.
    async fn answers_after_all(&self, server: &Arc<Server>) -> bool {
        if !server.liveness().callable() {
            return false;
        }
        let Some(me) = self.me.upgrade() else { return false };
        let subject = server.clone();
        let probe = async move {
            let silence = SECOND_TRY.min(me.config.rpc_timeout);
            timeout(silence, me.probe_endpoints(&subject, silence))
                .await
                .is_ok_and(|fact| fact == Fact::Answered)
        };
        server.second_try.join(&*self.env, probe).await
    }

    /// One probe, at whatever endpoint answers first.
    pub(super) fn probe_endpoints(
        &self,
        server: &Arc<Server>,
        silence: Duration,
    ) -> BoxFuture<'static, Fact> {
        let attempts = (server.endpoints().into_iter())
            .map(|to| {
                let body = wire::request::Body::Probe(wire::Probe {});
                let request = wire::Request { body: Some(body), ..Default::default() };
                let (env, server) = (self.env.clone(), server.clone());
                super::race::Attempt {
                    patience: super::race::for_a_while(super::latency::GRACE_LIMIT.min(silence / 4)),
                    run: Box::pin(async move {
                        let answer =
                            env.call(&to, request, Bytes::new(), Priority::Background, silence).await;
                        match probe_fact(&server, &answer) {
                            Fact::Answered => {
                                server.prefer(&to);
                                Ok(())
                            }
                            fact => Err(fact),
                        }
                    }),
                    overdue: Box::new(|| {}),
                }
            })
            .collect();
        super::race::race(attempts)
            .map(|outcome| match outcome {
                Ok(_) => Fact::Answered,
                Err(facts) => facts.last().copied().unwrap_or(Fact::Unreachable),
            })
            .boxed()
    }
}

/// What a probe's end says. An answer by another server is none of this one.
fn probe_fact(server: &Server, answer: &Result<Answer, CallError>) -> Fact {
    match answer {
        Ok(answer) => match &answer.response.body {
            Some(wire::response::Body::Probe(probe)) if probe.server != u32::from(server.id.0) => {
                Fact::Unreachable
            }
            _ => Fact::Answered,
        },
        Err(_) => fact(answer),
    }
}

/// Returns once calls to the server make no sense any more.
pub(super) async fn not_callable(mut liveness: watch::Receiver<Liveness>) {
    // The sender lives in the server, which the caller holds.
    let _ = liveness.wait_for(|liveness| !liveness.callable()).await;
}
