//! What happens inside venus, for people's eyes: the last hundred events, and each as it happens.
//!
//! Telling never waits. A listener that does not keep up loses events and learns how many.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use coda_proto::control::Event;
use tokio::sync::broadcast;

use crate::counts::Counts;

/// Events that are kept for those who come later.
pub const KEPT: usize = 100;
/// Events that may wait for one listener.
const QUEUE: usize = 256;

/// The stream of events.
pub struct Events {
    /// How often what happened.
    pub counts: Counts,
    kept: Mutex<Kept>,
    live: broadcast::Sender<Event>,
}

#[derive(Default)]
struct Kept {
    last: VecDeque<Event>,
    seq: u64,
}

impl Default for Events {
    fn default() -> Events {
        Events { counts: Counts::default(), kept: Mutex::default(), live: broadcast::channel(QUEUE).0 }
    }
}

impl Events {
    /// Tells an event: its class and its text, at `now` (nanoseconds since 1970).
    pub fn tell(&self, now: i64, class: &str, text: impl Into<String>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.seq += 1;
        let event = Event { seq: kept.seq, time: now, class: class.to_owned(), text: text.into() };
        if kept.last.len() == KEPT {
            kept.last.pop_front();
        }
        kept.last.push_back(event.clone());
        // Sent under the lock, so that everybody sees them in order; nobody listening is no error.
        let _ = self.live.send(event);
    }

    /// The last `recent` events, oldest first, and a receiver of all that follow them, without a gap.
    pub fn listen(&self, recent: usize) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = kept.last.len().saturating_sub(recent);
        (kept.last.iter().skip(skip).cloned().collect(), self.live.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_are_kept_in_order() {
        let events = Events::default();
        (0..250).for_each(|n| events.tell(n, "fetch", format!("Fetch {n}")));
        let (kept, _) = events.listen(usize::MAX);
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept.iter().map(|event| event.seq).collect::<Vec<_>>(), (151..=250).collect::<Vec<_>>());
        assert_eq!(events.listen(2).0[0].text, "Fetch 248");
    }

    #[test]
    fn a_listener_gets_what_follows_without_a_gap() {
        let events = Events::default();
        events.tell(1, "connection", "unreachable srv1");
        let (past, mut live) = events.listen(10);
        events.tell(2, "connection", "up srv1");
        assert_eq!(past.len(), 1);
        assert_eq!(live.try_recv().unwrap().seq, 2);
    }

    #[test]
    fn telling_never_waits_for_a_slow_listener_and_it_learns_what_it_lost() {
        let events = Events::default();
        let (_, mut slow) = events.listen(0);
        (0..1000).for_each(|n| events.tell(n, "cache", "Replace"));
        assert_eq!(slow.try_recv(), Err(broadcast::error::TryRecvError::Lagged(1000 - QUEUE as u64)));
        assert_eq!(slow.try_recv().unwrap().seq, 1000 - QUEUE as u64 + 1);
    }
}
