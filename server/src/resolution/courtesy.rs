//! A replica that is being filled gives way to clients: nobody waits for it, and somebody waits for them.
//!
//! While clients change the volume, here or at the member that is asked, each step is followed by a rest twice as
//! long as the step was, and little is joined at a time. They all want the same processors, and the same disk.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Clients that came so recently are taken to go on.
const RECENT: Duration = Duration::from_millis(500);
/// How many times as long as a step the rest is, and how long at most.
const REST: u32 = 2;
const LONGEST: Duration = Duration::from_millis(300);
/// Objects joined in one transaction, without clients and with them.
const ALONE: usize = 500;
const AMONG_CLIENTS: usize = 32;

/// Who is about, and whether this replica has to care.
#[derive(Default)]
pub(crate) struct Courtesy {
    filling: AtomicBool,
    /// When a client last changed something here, and when a peer last said so of its own.
    here: Mutex<Option<Instant>>,
    there: Mutex<Option<Instant>>,
}

fn note(place: &Mutex<Option<Instant>>) {
    *place.lock().expect("never held across a panic") = Some(Instant::now());
}

fn is_recent(place: &Mutex<Option<Instant>>) -> bool {
    place.lock().expect("never held across a panic").is_some_and(|at| at.elapsed() < RECENT)
}

impl Courtesy {
    /// A client wants to change something.
    pub(crate) fn client_came(&self) {
        note(&self.here);
    }

    /// Whether clients change the volume here.
    pub(crate) fn has_clients(&self) -> bool {
        is_recent(&self.here)
    }

    /// Clients change the volume at a peer.
    pub(super) fn peer_has_clients(&self) {
        note(&self.there);
    }

    /// Whether this replica is being filled, from now on.
    pub(super) fn fills(&self, filling: bool) {
        self.filling.store(filling, Relaxed);
    }

    /// Whether this replica is being filled.
    pub(super) fn is_filling(&self) -> bool {
        self.filling.load(Relaxed)
    }

    /// Whether a replica that is being filled should be slow.
    pub(super) fn gives_way(&self) -> bool {
        self.is_filling() && (is_recent(&self.here) || is_recent(&self.there))
    }

    /// How many objects a replica that is being filled joins in one transaction.
    pub(super) fn at_once(&self) -> usize {
        if self.gives_way() { AMONG_CLIENTS } else { ALONE }
    }

    /// After a step: lets clients go first.
    pub(super) async fn rest(&self, took: Duration) {
        if self.gives_way() {
            tokio::time::sleep((took * REST).min(LONGEST)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_filled_rests_only_while_clients_are_about() {
        let courtesy = Courtesy::default();
        let step = Duration::from_millis(10);
        let rest = async || {
            let begun = Instant::now();
            courtesy.rest(step).await;
            begun.elapsed()
        };
        courtesy.client_came();
        assert_eq!(rest().await, Duration::ZERO, "one that serves is not slowed");
        courtesy.fills(true);
        assert_eq!(rest().await, 2 * step);
        assert_eq!(courtesy.at_once(), AMONG_CLIENTS);
        tokio::time::advance(RECENT).await;
        assert_eq!((rest().await, courtesy.at_once()), (Duration::ZERO, ALONE));
        courtesy.peer_has_clients();
        assert_eq!(rest().await, 2 * step);
        assert!(!courtesy.has_clients(), "what a peer says is not passed on as one's own");
    }
}
