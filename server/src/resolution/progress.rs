//! How far a replica that joins has come, and how fast it may.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use coda_proto::wire;
use tokio::time::Instant;

/// Counts what a joining replica hears and fetches.
#[derive(Default)]
pub(crate) struct Progress {
    objects_total: AtomicU64,
    bytes_total: AtomicU64,
    joined: AtomicU64,
    /// Objects whose contents are here and that are not joined yet.
    fetched: AtomicU64,
    bytes: AtomicU64,
    began: Mutex<Option<Instant>>,
    pace: Pace,
}

impl Progress {
    /// A peer says how much there is to hear from now on.
    pub(super) fn expect(&self, objects: u64, bytes: u64) {
        self.began.lock().expect("never held across a panic").get_or_insert_with(Instant::now);
        self.objects_total.fetch_max(self.joined.load(Relaxed) + objects, Relaxed);
        self.bytes_total.fetch_max(self.bytes.load(Relaxed) + bytes, Relaxed);
    }

    /// The contents of one object are here.
    pub(super) fn fetched(&self) {
        self.fetched.fetch_add(1, Relaxed);
    }

    /// Objects are joined; they are counted as such from now on.
    pub(super) fn joined(&self, objects: usize) {
        self.joined.fetch_add(objects as u64, Relaxed);
        self.fetched.store(0, Relaxed);
    }

    /// Bytes of contents came. Waits as long as `rate` (bytes per second, 0: any) wants before the next.
    pub(super) async fn bytes(&self, count: u64, rate: u64) {
        self.bytes.fetch_add(count, Relaxed);
        self.pace.rate.store(rate, Relaxed);
        if let Some(until) = self.pace.take(count, rate, Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// What people are told.
    pub(crate) fn report(&self) -> wire::SyncProgress {
        let began = *self.began.lock().expect("never held across a panic");
        let objects_total = self.objects_total.load(Relaxed);
        let done = self.joined.load(Relaxed) + self.fetched.load(Relaxed);
        wire::SyncProgress {
            objects_done: done.min(objects_total),
            objects_total,
            bytes_done: self.bytes.load(Relaxed),
            bytes_total: self.bytes_total.load(Relaxed).max(self.bytes.load(Relaxed)),
            elapsed: began.map_or(0, |began| began.elapsed().as_nanos() as i64),
            rate: self.pace.rate.load(Relaxed),
        }
    }
}

/// When the next piece may be asked for.
#[derive(Default)]
struct Pace {
    rate: AtomicU64,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// After a piece of `count` bytes: until when to wait.
    fn take(&self, count: u64, rate: u64, now: Instant) -> Option<Instant> {
        if rate == 0 {
            return None;
        }
        let mut next = self.next.lock().expect("never held across a panic");
        let from = next.map_or(now, |next| next.max(now));
        let until = from + Duration::from_secs_f64(count as f64 / rate as f64);
        *next = Some(until);
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_over_many_pieces_and_by_many_hands() {
        let progress = Progress::default();
        let start = Instant::now();
        for _ in 0..10 {
            tokio::join!(progress.bytes(500, 1000), progress.bytes(500, 1000));
        }
        assert_eq!(start.elapsed().as_secs(), 10);
        progress.bytes(1 << 40, 0).await;
        assert_eq!(start.elapsed().as_secs(), 10, "without a rate nobody waits");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_shrinks_as_objects_come() {
        let progress = Progress::default();
        progress.expect(10, 1000);
        progress.fetched();
        progress.bytes(300, 0).await;
        assert_eq!((progress.report().objects_done, progress.report().bytes_done), (1, 300));
        progress.joined(4);
        progress.expect(6, 700);
        let report = progress.report();
        assert_eq!((report.objects_done, report.objects_total, report.bytes_total), (4, 10, 1000));
    }
}
