//! When a peer last showed a sign of life.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// The time of the last sign of life, shared by whoever sees one and whoever waits for one.
#[derive(Clone)]
pub(crate) struct Life {
    last: Arc<Mutex<Instant>>,
    /// To whom each sign counts too.
    also: Option<Arc<Mutex<Instant>>>,
    /// Bytes that moved.
    moved: Arc<AtomicU64>,
}

/// A wait that ends so much too late did not wait: this process stood still, or the machine slept.
const LATE: Duration = Duration::from_secs(1);
/// What was said meanwhile is heard within this time.
const HEARING: Duration = Duration::from_secs(3);

/// How often a wait looks at another's life.
const LOOK: Duration = Duration::from_secs(1);

impl Life {
    /// Alive now.
    pub fn new() -> Life {
        Life { last: Arc::new(Mutex::new(Instant::now())), also: None, moved: Arc::default() }
    }

    /// The same life, whose signs are signs of `other` too.
    pub fn with(&self, other: &Life) -> Life {
        Life { last: self.last.clone(), also: Some(other.last.clone()), moved: self.moved.clone() }
    }

    /// A sign was seen.
    pub fn shown(&self) {
        self.shown_at(Instant::now());
    }

    /// Bytes came, or were taken: that is a sign, too.
    pub fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Relaxed);
        self.shown();
    }

    /// How many did so far.
    pub fn bytes(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// When the last one was.
    pub fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes every sign of `other` for one of ours, for as long as it is polled.
    pub async fn follow(&self, other: &Life) {
        loop {
            self.shown_at(other.last());
            sleep_until(Instant::now() + LOOK).await;
        }
    }

    fn shown_at(&self, when: Instant) {
        for life in [Some(&self.last), self.also.as_ref()].into_iter().flatten() {
            let mut last = life.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (*last).max(when);
        }
    }

    /// Ends when none was seen for `silence`. Nobody is silent for as long as nobody here listens: who stood still first
    /// hears what was said meanwhile.
    pub async fn silent_for(&self, silence: Duration) {
        let mut heard = None;
        loop {
            let end = (self.last() + silence).max(heard.unwrap_or_else(|| self.last()));
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
            let now = Instant::now();
            if now.duration_since(end) >= LATE {
                heard = Some(now + HEARING);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_sign() {
        let (life, start) = (Life::new(), Instant::now());
        let sign = life.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(9)).await;
            sign.shown();
        });
        life.silent_for(Duration::from_secs(15)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(24));
    }

    #[tokio::test(start_paused = true)]
    async fn who_stood_still_hears_first_what_was_said_meanwhile() {
        let second = Duration::from_secs(1);
        for speaks in [false, true] {
            let life = Life::new();
            let sign = life.clone();
            let silence = tokio::spawn(async move { life.silent_for(15 * second).await });
            tokio::task::yield_now().await;
            tokio::time::advance(60 * second).await;
            let woke = Instant::now();
            tokio::time::sleep(2 * second).await;
            assert!(!silence.is_finished());
            if speaks {
                sign.shown();
            }
            silence.await.unwrap();
            assert_eq!(woke.elapsed(), if speaks { 17 * second } else { 3 * second });
        }
    }
}
