//! One server of a realm, as we see it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coda_proto::{Dot, ServerId, VolumeId, watch, wire};
use tokio::{sync::Notify, time::Instant};

use super::{
    cop2::Queue,
    error::AskError,
    flight::Flight,
    latency::Latency,
    liveness::{Change, Fact, Liveness, step},
};
use crate::{env::Endpoint, realm::KnownServer};

/// Locks what no holder leaves half changed.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The session with a server. Each opening has a number, so that a task that is late cannot touch the
/// session that came after its own.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionState {
    /// None.
    Absent,
    /// Hello is under way.
    Opening(u64),
    /// The session's number on the wire.
    Open(u64, u64),
    /// Hello failed; the next caller tries again.
    Failed(u64, AskError),
}

impl SessionState {
    /// Which opening this belongs to.
    pub fn opening(&self) -> Option<u64> {
        match self {
            SessionState::Absent => None,
            SessionState::Opening(n) | SessionState::Open(n, _) | SessionState::Failed(n, _) => Some(*n),
        }
    }

    /// Its number on the wire, if it is open.
    pub fn number(&self) -> Option<u64> {
        match self {
            SessionState::Open(_, session) => Some(*session),
            _ => None,
        }
    }
}

/// One server.
pub struct Server {
    /// Its realm.
    pub realm: Arc<str>,
    /// Its number there.
    pub id: ServerId,
    state: Mutex<State>,
    /// Whether it lives. Callers watch it, so that they end with the server.
    pub liveness: watch::Sender<Liveness>,
    /// The session with it.
    pub session: watch::Sender<SessionState>,
    /// Wakes its watcher: probe now.
    pub wake: Notify,
    /// The second try before a server with a closed port is believed dead.
    pub second_try: Flight<bool>,
}

struct State {
    name: String,
    endpoints: Vec<Endpoint>,
    latency: Latency,
    suspect: bool,
    openings: u64,
    heard: Option<Instant>,
    probed: Option<Instant>,
    watched: bool,
    news: bool,
    cop2: Queue,
}

impl Server {
    /// A server never talked to.
    pub fn new(realm: Arc<str>, id: ServerId, known: &KnownServer, liveness: Liveness) -> Server {
        let state = State {
            name: known.name.clone(),
            endpoints: known.endpoints(&realm),
            latency: Latency::default(),
            suspect: false,
            openings: 0,
            heard: None,
            probed: None,
            watched: false,
            news: false,
            cop2: Queue::default(),
        };
        Server {
            realm,
            id,
            state: Mutex::new(state),
            liveness: watch::Sender::new(liveness),
            session: watch::Sender::new(SessionState::Absent),
            wake: Notify::new(),
            second_try: Flight::default(),
        }
    }

    /// The realm told where it is now. The endpoint in use stays first while it is named.
    pub fn relocate(&self, known: &KnownServer) {
        let mut endpoints = known.endpoints(&self.realm);
        let mut state = locked(&self.state);
        if let Some(at) = endpoints.iter().position(|e| Some(e) == state.endpoints.first()) {
            endpoints.swap(0, at);
        }
        state.name = known.name.clone();
        state.endpoints = endpoints;
    }

    /// Its name, or else its host.
    pub fn name(&self) -> String {
        let state = locked(&self.state);
        match state.endpoints.first() {
            Some(endpoint) if state.name.is_empty() => endpoint.host.clone(),
            _ => state.name.clone(),
        }
    }

    /// Whether people mean this server: by name, host, `host:port` or number.
    pub fn goes_by(&self, name: &str) -> bool {
        let state = locked(&self.state);
        let hosted = |e: &Endpoint| e.host == name || format!("{}:{}", e.host, e.port) == name;
        state.name == name || self.id.to_string() == name || state.endpoints.iter().any(hosted)
    }

    /// Where to reach it, best first.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        locked(&self.state).endpoints.clone()
    }

    /// This endpoint works: it is tried first from now on.
    pub fn prefer(&self, endpoint: &Endpoint) {
        let mut state = locked(&self.state);
        if let Some(at) = state.endpoints.iter().position(|e| e == endpoint) {
            state.endpoints.swap(0, at);
        }
    }

    /// What we believe of it.
    pub fn liveness(&self) -> Liveness {
        *self.liveness.borrow()
    }

    /// Takes a fact into account and tells of the change, changes of one server in their order. Whoever
    /// waits for the server sees the result at once.
    pub fn learn(&self, fact: Fact, now: Instant, tell: impl FnOnce(Change)) {
        if fact == Fact::Answered {
            let mut state = locked(&self.state);
            state.heard = Some(now);
            state.suspect = false;
        }
        self.liveness.send_if_modified(|liveness| {
            let (before, (after, change)) = (*liveness, step(*liveness, fact));
            *liveness = after;
            if change != Change::None {
                tell(change);
            }
            before != after
        });
    }

    /// An answer took so long.
    pub fn answered_in(&self, sample: Duration) {
        locked(&self.state).latency.observe(sample);
    }

    /// A reader lost patience: others are preferred until it answers.
    pub fn suspect(&self) {
        locked(&self.state).suspect = true;
    }

    /// How long a reader waits for it alone.
    pub fn grace(&self) -> Duration {
        locked(&self.state).latency.grace()
    }

    /// Readers ask the smallest first.
    pub fn rank(&self) -> (bool, u32) {
        let state = locked(&self.state);
        (state.suspect, state.latency.class())
    }

    /// Mean answer time, and when it was last heard from.
    pub fn signs(&self) -> (Option<Duration>, Option<Instant>) {
        let state = locked(&self.state);
        (state.latency.mean(), state.heard)
    }

    /// The number of the next opening of a session.
    pub fn next_opening(&self) -> u64 {
        let mut state = locked(&self.state);
        state.openings += 1;
        state.openings
    }

    /// True once: the caller starts its watcher.
    pub fn begin_watch(&self) -> bool {
        !std::mem::replace(&mut locked(&self.state).watched, true)
    }

    /// A probe begins now.
    pub fn probing(&self, now: Instant) {
        locked(&self.state).probed = Some(now);
    }

    /// Somebody wants a server believed dead: worth a probe, if the last one is a while ago.
    pub fn wanted(&self, now: Instant, every: Duration) {
        let due = locked(&self.state).probed.is_none_or(|at| now.duration_since(at) >= every);
        if due && self.liveness() == Liveness::Dead {
            self.wake.notify_one();
        }
    }

    /// There is reason to believe that it can be reached again: a dead one is probed at once, and often at first.
    pub fn news(&self) {
        locked(&self.state).news = true;
        self.wanted(Instant::now(), Duration::ZERO);
    }

    /// Whether there was, since this was last asked.
    pub fn take_news(&self) -> bool {
        std::mem::take(&mut locked(&self.state).news)
    }

    /// Something was heard that says nothing about how soon it answers calls.
    pub fn hear(&self, now: Instant) {
        locked(&self.state).heard = Some(now);
    }

    /// Every member of the epoch holds these dots. True: the caller sees to it that they are sent.
    pub fn queue_cop2(&self, volume: VolumeId, epoch: u64, dots: &[Dot]) -> bool {
        locked(&self.state).cop2.push(volume, epoch, dots)
    }

    /// What rides along on the next call.
    pub fn take_cop2(&self) -> Vec<wire::Cop2> {
        locked(&self.state).cop2.ride()
    }

    /// Whether nothing is queued.
    pub fn cop2_is_empty(&self) -> bool {
        locked(&self.state).cop2.is_empty()
    }

    /// Whether whoever sees to the queue has done so: nothing is queued, and the next one begins anew.
    pub fn cop2_is_done(&self) -> bool {
        locked(&self.state).cop2.is_done()
    }
}
