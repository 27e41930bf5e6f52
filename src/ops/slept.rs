//! A machine that slept, or stood still: servers went on without us, and nobody has told us what they did.

use std::{sync::Weak, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::Core;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// A gap that voids promises. Servers wait five seconds for who does not acknowledge, and then go on.
const GAP: Duration = Duration::from_secs(3);

/// How long nobody here was awake between two looks: what the machine slept, and what the second came too late.
fn gap(slept: Duration, late: Duration) -> Option<Duration> {
    Some(slept + late).filter(|gap| *gap >= GAP)
}

/// Looks whether the machine slept, for as long as there is a manager.
pub(crate) async fn watch(core: Weak<Core>) {
    let Some(mut asleep) = core.upgrade().map(|core| core.env.asleep()) else { return };
    loop {
        let due = Instant::now() + LOOK;
        sleep_until(due).await;
        let Some(core) = core.upgrade() else { return };
        let now = core.env.asleep();
        if let Some(gap) = gap(now.saturating_sub(asleep), Instant::now().duration_since(due)) {
            core.woke(gap);
        }
        asleep = now;
    }
}

impl Core {
    /// Nobody here was awake for so long.
    pub(crate) fn woke(&self, gap: Duration) {
        tracing::info!(seconds = gap.as_secs(), "the machine has slept, or stood still");
        // At once, and not only when the end of each session is heard of.
        for (realm, _) in self.realms() {
            self.cache.void(realm, |_| true);
        }
        self.peers.woke();
        self.drain(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_no_gap_and_sleeping_counts_like_standing_still() {
        let second = Duration::from_secs(1);
        assert_eq!(gap(Duration::ZERO, second / 10), None);
        assert_eq!(gap(second, second), None);
        assert_eq!(gap(3600 * second, Duration::ZERO), Some(3600 * second));
        assert_eq!(gap(Duration::ZERO, 8 * second), Some(8 * second));
        assert_eq!(gap(2 * second, 2 * second), Some(4 * second));
    }
}
