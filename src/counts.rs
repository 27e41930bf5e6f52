//! What is counted since venus was started, for those who watch it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use coda_proto::Code;
use tokio::time::Instant;

/// For so long a count that had to look at the whole cache is good enough.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// The counts.
#[derive(Default)]
pub struct Counts {
    breaks: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
    conflicts: Mutex<Option<(Instant, u64)>>,
}

impl Counts {
    /// Servers broke promises about so many objects.
    pub fn promises_broken(&self, count: usize) {
        self.breaks.fetch_add(count as u64, Relaxed);
    }

    /// How many that were.
    pub fn breaks(&self) -> u64 {
        self.breaks.load(Relaxed)
    }

    /// Servers did not take a logged record.
    pub fn not_taken(&self, code: Code) {
        let reason = code.as_str_name().trim_start_matches("CODE_").to_lowercase();
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// How often that was, by reason.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many objects are in conflict, if somebody has looked lately.
    pub fn conflicts(&self) -> Option<u64> {
        let found = *self.conflicts.lock().unwrap_or_else(PoisonError::into_inner);
        found.filter(|(at, _)| at.elapsed() < GOOD_FOR).map(|(_, count)| count)
    }

    /// Somebody has looked.
    pub fn conflicts_found(&self, count: u64) {
        *self.conflicts.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_count_of_conflicts_is_good_for_a_minute() {
        let counts = Counts::default();
        assert_eq!(counts.conflicts(), None);
        counts.conflicts_found(3);
        assert_eq!(counts.conflicts(), Some(3));
        tokio::time::advance(GOOD_FOR).await;
        assert_eq!(counts.conflicts(), None);
    }
}
