//! The events of one session, and how they reach its client.

use std::{collections::VecDeque, sync::Arc};

use coda_proto::{
    Fid,
    service::{BoxFuture, EventSource},
    watch, wire,
};
use tokio::{sync::Notify, time::Instant};

use super::registry::Sessions;

/// Events kept for a session that may resume.
pub const RING: usize = 10_000;

/// One session's events, numbered from 1.
pub(super) struct Events {
    ring: VecDeque<(wire::Event, Instant)>,
    last: u64,
    acked: watch::Sender<u64>,
    pings: u32,
    pub(super) wake: Arc<Notify>,
}

impl Events {
    pub(super) fn new() -> Events {
        Events {
            ring: VecDeque::new(),
            last: 0,
            acked: watch::Sender::new(0),
            pings: 0,
            wake: Arc::new(Notify::new()),
        }
    }

    pub(super) fn push(&mut self, body: wire::event::Body, now: Instant) -> u64 {
        self.last += 1;
        self.ring.push_back((wire::Event { seq: self.last, body: Some(body) }, now));
        if self.ring.len() > RING {
            self.ring.pop_front();
        }
        self.wake.notify_waiters();
        self.last
    }

    pub(super) fn ping(&mut self) {
        self.pings += 1;
        self.wake.notify_waiters();
    }

    /// Takes an acknowledgement; says how long the slowest newly acknowledged event took.
    pub(super) fn ack(&mut self, seq: u64, now: Instant) -> std::time::Duration {
        let before = *self.acked.borrow();
        let seq = seq.min(self.last);
        if seq <= before {
            return std::time::Duration::ZERO;
        }
        let newly = self.ring.iter().filter(|(event, _)| event.seq > before && event.seq <= seq);
        let slowest = newly.map(|(_, sent)| now.duration_since(*sent)).max().unwrap_or_default();
        self.acked.send_replace(seq);
        slowest
    }

    /// Whether a client that has seen `seq` can be told everything since.
    pub(super) fn reaches(&self, seq: u64) -> bool {
        let first = self.ring.front().map_or(self.last + 1, |(event, _)| event.seq);
        seq <= self.last && seq + 1 >= first
    }

    fn after(&mut self, seq: u64) -> Option<wire::Event> {
        if self.pings > 0 {
            self.pings -= 1;
            return Some(wire::Event { seq: 0, body: Some(wire::event::Body::Ping(true)) });
        }
        let first = self.ring.front()?.0.seq;
        let index = usize::try_from((seq + 1).saturating_sub(first)).ok()?;
        self.ring.get(index).map(|(event, _)| event.clone())
    }

    /// The last unacknowledged break of any of `fids`.
    pub(super) fn unacknowledged(&self, fids: &dyn Fn(Fid) -> bool) -> Option<Outstanding> {
        let acked = *self.acked.borrow();
        let (event, sent) = self.ring.iter().rev().take_while(|(event, _)| event.seq > acked).find(
            |(event, _)| match &event.body {
                Some(wire::event::Body::Break(broken)) => {
                    broken.fids.iter().any(|fid| Fid::try_from(*fid).is_ok_and(fids))
                }
                _ => false,
            },
        )?;
        Some(Outstanding { session: 0, seq: event.seq, sent: *sent, acked: self.acked.subscribe() })
    }
}

/// A break on its way.
pub struct Outstanding {
    pub(super) session: u64,
    pub(super) seq: u64,
    pub(super) sent: Instant,
    pub(super) acked: watch::Receiver<u64>,
}

/// Hands the events of one session to whoever carries them.
pub(super) struct Source {
    pub(super) sessions: Arc<Sessions>,
    pub(super) session: u64,
    pub(super) generation: u64,
    pub(super) seen: u64,
}

impl EventSource for Source {
    fn next(&mut self) -> BoxFuture<'_, Option<wire::Event>> {
        Box::pin(async move {
            loop {
                let wake = {
                    let mut inner = self.sessions.lock();
                    let session = inner.sessions.get_mut(&self.session)?;
                    if session.generation != self.generation {
                        return None;
                    }
                    if !session.events.reaches(self.seen) {
                        // Events that this client has not seen are no longer kept: its promises are void.
                        inner.forget(self.session);
                        return None;
                    }
                    if let Some(event) = session.events.after(self.seen) {
                        self.seen = self.seen.max(event.seq);
                        return Some(event);
                    }
                    // Registered before the lock is released: nothing pushed later is missed.
                    session.events.wake.clone().notified_owned()
                };
                wake.await;
            }
        })
    }
}
