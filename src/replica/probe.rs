//! Watching over one server: the dead are probed with growing pauses, the silent now and then.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    liveness::{Fact, Liveness},
    peers::Peers,
    server::Server,
};

/// The longest pause between probes of a dead server.
const PAUSE_LIMIT: Duration = Duration::from_secs(60);
/// A server that lives but was not heard from for so long is probed.
const SILENT_FOR: Duration = Duration::from_secs(150);
/// After so many probes in vain the realm is asked where the server is now.
const LOOK_AGAIN: u32 = 4;
/// A probe of a dead server waits no longer than this.
pub(super) const PROBE_SILENCE: Duration = Duration::from_secs(5);

/// How long to wait before the next probe. `None`: until something changes.
fn pause(liveness: Liveness, failures: u32, heard: Duration) -> Option<Duration> {
    match liveness {
        Liveness::Dead => Some(Duration::from_secs(1 << failures.min(6)).min(PAUSE_LIMIT)),
        Liveness::Up => Some(SILENT_FOR.saturating_sub(heard)),
        Liveness::Unknown | Liveness::Disconnected => None,
    }
}

/// Watches over a server as long as there is anybody to watch for.
pub(super) async fn watch_over(peers: Weak<Peers>, server: Arc<Server>) {
    let mut liveness = server.liveness.subscribe();
    let mut failures = 0;
    loop {
        let now = *liveness.borrow_and_update();
        let heard = server.signs().1.map_or(Duration::ZERO, |at| at.elapsed());
        let due = async {
            match pause(now, failures, heard) {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = server.wake.notified() => {}
            changed = liveness.changed() => {
                if changed.is_err() { return }
                failures = 0;
                continue;
            }
            () = due => {}
        }
        if server.take_news() {
            failures = 0;
        }
        let Some(strong) = peers.upgrade() else { return };
        let silence = match server.liveness() {
            Liveness::Disconnected => continue,
            Liveness::Up if server.signs().1.is_some_and(|at| at.elapsed() < SILENT_FOR) => continue,
            Liveness::Up | Liveness::Unknown => strong.config.rpc_timeout,
            Liveness::Dead => PROBE_SILENCE.min(strong.config.rpc_timeout),
        };
        server.probing(Instant::now());
        let probe = strong.probe_endpoints(&server, silence);
        drop(strong);
        let fact = tokio::select! {
            biased;
            fact = probe => fact,
            // News of the server: what is under way may wait for a packet lost long ago.
            () = server.wake.notified() => {
                server.wake.notify_one();
                continue;
            }
        };
        let Some(strong) = peers.upgrade() else { return };
        if fact != Fact::Answered {
            failures += 1;
            if failures % LOOK_AGAIN == 0 {
                strong.refresh_realm(&server.realm);
            }
        }
        strong.learnt(&server, fact);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_the_living_are_left_alone() {
        let seconds = |failures| pause(Liveness::Dead, failures, Duration::ZERO).map(|pause| pause.as_secs());
        let expected = [1, 2, 4, 8, 16, 32, 60, 60];
        for (failures, expected) in expected.into_iter().enumerate() {
            assert_eq!(seconds(failures as u32), Some(expected));
        }
        assert_eq!(pause(Liveness::Up, 3, Duration::from_secs(100)), Some(Duration::from_secs(50)));
        assert_eq!(pause(Liveness::Up, 0, Duration::from_secs(500)), Some(Duration::ZERO));
        assert_eq!(pause(Liveness::Disconnected, 0, Duration::ZERO), None);
    }
}
