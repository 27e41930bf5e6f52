//! Who is here, and what each was promised.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coda_proto::{
    Fid, ServerId, VolumeId,
    planted::{Bug, planted},
    service::EventSource,
    wire,
};
use tokio::time::Instant;

use super::events::{Events, Outstanding, Source};

/// How long a client may take to acknowledge a break before it is fenced.
const FENCE: Duration = Duration::from_secs(5);
/// A client slower than this to acknowledge gets no promises for a while.
const SLOW: Duration = Duration::from_secs(1);
/// For this long.
const PENANCE: Duration = Duration::from_secs(60);
/// A peer that was not heard from for so long has come back when it is.
const RETURNED: Duration = Duration::from_secs(10);
/// A client that has not heard from us for 30 s believes no promise: one whose stream broke earlier than
/// this, and who called nothing since, need not be waited for.
const DISBELIEF: Duration = Duration::from_secs(45);
/// A session whose stream has been gone for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// Promises of one session; beyond, objects are served without.
const PROMISES: usize = 1_000_000;

/// The session that made a change, and the objects that it named.
pub type Maker<'a> = (u64, &'a BTreeSet<Fid>);
/// No client made it.
pub const NOBODY: Maker<'static> = (0, &BTreeSet::new());

/// What a promise is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// An object.
    Object(Fid),
    /// Anything of a volume.
    Volume(VolumeId),
}

/// Everybody who has said Hello.
pub struct Sessions {
    inner: Mutex<Inner>,
    /// As many as may be here; beyond, those whose stream broke longest ago are forgotten.
    limit: usize,
    broken: AtomicU64,
    fenced: AtomicU64,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) sessions: BTreeMap<u64, Session>,
    holders: BTreeMap<Key, BTreeSet<u64>>,
    peers: BTreeMap<ServerId, Instant>,
}

pub(super) struct Session {
    instance: Vec<u8>,
    pub(super) events: Events,
    pub(super) generation: u64,
    promises: BTreeSet<Key>,
    slow_until: Option<Instant>,
    /// When its stream broke, unless it has another.
    lost_at: Option<Instant>,
    /// When it last called.
    called_at: Instant,
}

impl Session {
    /// Whether the client cannot believe in any promise any more.
    fn disbelieves(&self, now: Instant) -> bool {
        self.lost_at.is_some_and(|lost| now.duration_since(lost.max(self.called_at)) > DISBELIEF)
    }
}

/// What a Hello asks for.
pub struct Greeting<'a> {
    /// Names the client's store.
    pub instance: &'a [u8],
    /// The session to go on with; 0: a new one.
    pub resume: u64,
    /// The last event seen of it.
    pub last_seq: u64,
    /// Number of a new session.
    pub fresh: u64,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions::new(usize::MAX)
    }
}

impl Sessions {
    /// At most so many.
    pub fn new(limit: usize) -> Sessions {
        let (broken, fenced) = (AtomicU64::new(0), AtomicU64::new(0));
        Sessions { inner: Mutex::default(), limit, broken, fenced }
    }

    /// Promises broken, and sessions fenced, since the start.
    pub fn totals(&self) -> (u64, u64) {
        (self.broken.load(Ordering::Relaxed), self.fenced.load(Ordering::Relaxed))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("never held across a panic")
    }

    /// Begins or resumes a session: its number, whether it was resumed, and its events. `None`: there is
    /// no room for another.
    pub fn greet(self: &Arc<Self>, greeting: Greeting<'_>) -> Option<(u64, bool, Box<dyn EventSource>)> {
        let now = Instant::now();
        let mut inner = self.lock();
        let old = |session: &Session| session.lost_at.is_some_and(|at| now.duration_since(at) > FORGOTTEN);
        let forgotten = inner.sessions.iter().filter(|(_, session)| old(session)).map(|(id, _)| *id);
        for session in forgotten.collect::<Vec<_>>() {
            inner.forget(session);
        }
        if let Some(session) = inner.sessions.get_mut(&greeting.resume)
            && session.instance == greeting.instance
            && session.events.reaches(greeting.last_seq)
        {
            session.generation += 1;
            session.events.wake.notify_waiters();
            session.events.ack(greeting.last_seq, now);
            (session.lost_at, session.called_at) = (None, now);
            let source = Source {
                sessions: self.clone(),
                session: greeting.resume,
                generation: session.generation,
                seen: greeting.last_seq,
            };
            return Some((greeting.resume, true, Box::new(source)));
        }
        // A client that starts again believes no promise of its earlier sessions.
        let earlier = inner.sessions.iter().filter(|(_, session)| session.instance == greeting.instance);
        for session in earlier.map(|(id, _)| *id).collect::<Vec<_>>() {
            inner.forget(session);
        }
        while inner.sessions.len() >= self.limit {
            let gone = inner.sessions.iter().filter_map(|(id, session)| Some((session.lost_at?, *id)));
            let (_, longest) = gone.min()?;
            inner.forget(longest);
        }
        let session = Session {
            instance: greeting.instance.to_vec(),
            events: Events::new(),
            generation: 1,
            promises: BTreeSet::new(),
            slow_until: None,
            lost_at: None,
            called_at: now,
        };
        inner.sessions.insert(greeting.fresh, session);
        let source = Source { sessions: self.clone(), session: greeting.fresh, generation: 1, seen: 0 };
        Some((greeting.fresh, false, Box::new(source)))
    }

    /// Whether a session is alive.
    pub fn knows(&self, session: u64) -> bool {
        self.lock().sessions.contains_key(&session)
    }

    /// The same, on a call of it.
    pub fn heard(&self, session: u64) -> bool {
        match self.lock().sessions.get_mut(&session) {
            Some(session) => {
                session.called_at = Instant::now();
                true
            }
            None => false,
        }
    }

    /// Its stream broke.
    pub fn lost(&self, session: u64) {
        if let Some(session) = self.lock().sessions.get_mut(&session) {
            session.lost_at = Some(Instant::now());
        }
    }

    /// The client behind a session.
    pub fn instance(&self, session: u64) -> Option<Vec<u8>> {
        self.lock().sessions.get(&session).map(|session| session.instance.clone())
    }

    /// Ends a session.
    pub fn end(&self, session: u64) {
        self.lock().forget(session);
    }

    /// Ends all of them.
    pub fn end_all(&self) {
        let mut inner = self.lock();
        for session in inner.sessions.keys().copied().collect::<Vec<_>>() {
            inner.forget(session);
        }
    }

    /// Takes an acknowledgement or a ping.
    pub fn said(&self, session: u64, word: wire::ClientWord) {
        let now = Instant::now();
        let mut inner = self.lock();
        let Some(session) = inner.sessions.get_mut(&session) else { return };
        if session.events.ack(word.ack, now) > SLOW {
            session.slow_until = Some(now + PENANCE);
        }
        if word.ping {
            session.events.ping();
        }
    }

    /// Promises to tell `session` before any of `keys` changes. To be called before the state is read that
    /// the promise is about: a change in between then breaks it.
    pub fn promise(&self, session: u64, keys: impl IntoIterator<Item = Key>) -> bool {
        let now = Instant::now();
        let inner = &mut *self.lock();
        let Some(state) = inner.sessions.get_mut(&session) else { return false };
        if state.slow_until.is_some_and(|until| now < until) || state.promises.len() >= PROMISES {
            return false;
        }
        for key in keys {
            if state.promises.insert(key) {
                inner.holders.entry(key).or_default().insert(session);
            }
        }
        true
    }

    /// Tells everybody who was promised something about `fids`; who made the change, of what it did not name.
    pub fn break_promises(&self, volume: VolumeId, fids: &BTreeSet<Fid>, (maker, known): Maker<'_>) {
        if fids.is_empty() || (planted(Bug::LosesBreak) && fids.iter().any(|fid| fid.vnode % 8 == 4)) {
            return;
        }
        let now = Instant::now();
        let inner = &mut *self.lock();
        let mut broken: BTreeMap<u64, BTreeSet<Fid>> = BTreeMap::new();
        for fid in fids {
            for holder in inner.holders.get(&Key::Object(*fid)).into_iter().flatten() {
                broken.entry(*holder).or_default().insert(*fid);
            }
        }
        for holder in inner.holders.get(&Key::Volume(volume)).into_iter().flatten() {
            broken.entry(*holder).or_default().extend(fids);
        }
        if let Some(news) = broken.get_mut(&maker) {
            news.retain(|fid| !known.contains(fid));
            if news.is_empty() {
                broken.remove(&maker);
            }
        }
        for (holder, fids) in broken {
            if inner.sessions.get(&holder).is_some_and(|session| session.disbelieves(now)) {
                inner.forget(holder);
                continue;
            }
            let keys = fids.iter().map(|fid| Key::Object(*fid)).chain([Key::Volume(volume)]);
            for key in keys {
                let Some(session) = inner.sessions.get_mut(&holder) else { break };
                if session.promises.remove(&key) {
                    inner.drop_holder(key, holder);
                }
            }
            if let Some(session) = inner.sessions.get_mut(&holder) {
                self.broken.fetch_add(fids.len() as u64, Ordering::Relaxed);
                let fids = fids.into_iter().map(Into::into).collect();
                session.events.push(wire::event::Body::Break(wire::Break { fids }), now);
            }
        }
    }

    /// Breaks of any of `fids` that others have not acknowledged, whichever mutation sent them.
    pub fn outstanding(&self, fids: &BTreeSet<Fid>, except: u64) -> Vec<Outstanding> {
        let inner = self.lock();
        let others = inner.sessions.iter().filter(|(id, _)| **id != except);
        others
            .filter_map(|(id, session)| {
                let outstanding = session.events.unacknowledged(&|fid| fids.contains(&fid))?;
                Some(Outstanding { session: *id, ..outstanding })
            })
            .collect()
    }

    /// Waits until each is acknowledged or its session is no more; fences those that take too long.
    pub async fn acknowledged(&self, outstanding: Vec<Outstanding>) {
        for Outstanding { session, seq, sent, mut acked } in outstanding {
            let acknowledged = acked.wait_for(|acked| *acked >= seq);
            if tokio::time::timeout_at(sent + FENCE, acknowledged).await.is_err() {
                tracing::info!(session, "fenced: a break was not acknowledged");
                self.fenced.fetch_add(1, Ordering::Relaxed);
                self.end(session);
            }
        }
    }

    /// Tells everybody something.
    pub fn announce(&self, body: &wire::event::Body) {
        let now = Instant::now();
        for session in self.lock().sessions.values_mut() {
            session.events.push(body.clone(), now);
        }
    }

    /// A peer was heard from. If it was away, every client is told that it is back: they believe it dead,
    /// and probe it less and less. Told too often, it costs a client nothing.
    pub fn peer_heard(&self, peer: ServerId) {
        let now = Instant::now();
        let before = self.lock().peers.insert(peer, now);
        if before.is_none_or(|at| now.duration_since(at) >= RETURNED) {
            self.announce(&wire::event::Body::ServerUp(wire::ServerUp { server: peer.0.into() }));
        }
    }

    /// How many sessions and promises there are.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.sessions.len(), inner.sessions.values().map(|session| session.promises.len()).sum())
    }
}

impl Inner {
    pub(super) fn forget(&mut self, id: u64) {
        let Some(session) = self.sessions.remove(&id) else { return };
        for key in session.promises {
            self.drop_holder(key, id);
        }
        session.events.wake.notify_waiters();
    }

    fn drop_holder(&mut self, key: Key, session: u64) {
        if let Some(holders) = self.holders.get_mut(&key) {
            holders.remove(&session);
            if holders.is_empty() {
                self.holders.remove(&key);
            }
        }
    }
}
