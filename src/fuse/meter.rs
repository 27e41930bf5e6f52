//! How long requests of the kernel take, and which are waited for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use coda_net::metrics::Page;
use tokio::time::Instant;

/// Upper ends of what is told apart, in microseconds and as Prometheus writes them.
const BUCKETS: [(u64, &str); 8] = [
    (100, "0.0001"),
    (1_000, "0.001"),
    (10_000, "0.01"),
    (100_000, "0.1"),
    (1_000_000, "1"),
    (5_000_000, "5"),
    (15_000_000, "15"),
    (u64::MAX, "+Inf"),
];

/// Parts of what is waited for. Requests take them in turn, so that those that are under way at the same time seldom
/// meet.
const PARTS: usize = 16;

/// Requests since the mount.
#[derive(Default)]
pub struct Meter {
    took: [AtomicU64; BUCKETS.len()],
    microseconds: AtomicU64,
    next: AtomicU64,
    waiting: [Waiting; PARTS],
}

/// Since when requests wait, by their numbers. Each on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Waiting(Mutex<BTreeMap<u64, Instant>>);

impl Waiting {
    fn since(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request, until it is answered.
pub struct Metered {
    meter: Arc<Meter>,
    number: u64,
    began: Instant,
}

impl Meter {
    /// A request came. It counts as waiting until the answer is dropped.
    pub fn begin(self: &Arc<Meter>) -> Metered {
        let began = Instant::now();
        let number = self.next.fetch_add(1, Relaxed);
        self.part(number).since().insert(number, began);
        Metered { meter: self.clone(), number, began }
    }

    fn part(&self, number: u64) -> &Waiting {
        &self.waiting[number as usize % PARTS]
    }

    fn end(&self, number: u64, took: Duration) {
        self.part(number).since().remove(&number);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(upto, _)| took <= *upto).expect("the last one takes all");
        self.took[bucket].fetch_add(1, Relaxed);
        self.microseconds.fetch_add(took, Relaxed);
    }

    /// Writes the numbers.
    pub fn write(&self, page: &mut Page) {
        let name = "coda_fuse_op_seconds";
        page.family(name, "histogram", "How long the kernel's requests take.");
        let mut count = 0;
        for (took, (_, end)) in self.took.iter().zip(BUCKETS) {
            count += took.load(Relaxed);
            page.sample("coda_fuse_op_seconds_bucket", &[("le", end)], count);
        }
        let seconds = self.microseconds.load(Relaxed) as f64 / 1e6;
        page.sample("coda_fuse_op_seconds_sum", &[], seconds);
        page.sample("coda_fuse_op_seconds_count", &[], count);
        let (mut waiting, mut oldest) = (0, None::<Instant>);
        for part in &self.waiting {
            let since = part.since();
            waiting += since.len();
            // Numbers grow with time.
            oldest = oldest.into_iter().chain(since.values().next().copied()).min();
        }
        page.gauge("coda_fuse_inflight", "Requests of the kernel that are not answered yet.", waiting);
        page.gauge(
            "coda_fuse_oldest_inflight_seconds",
            "How long the oldest of them has waited.",
            oldest.map_or(0.0, |oldest| oldest.elapsed().as_secs_f64()),
        );
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.meter.end(self.number, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(meter: &Meter) -> String {
        let mut page = Page::new();
        meter.write(&mut page);
        page.into_text()
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_that_wait_the_oldest_is_found() {
        let meter = Arc::new(Meter::default());
        let mut waiting = Vec::new();
        for _ in 0..3 * PARTS {
            waiting.push(meter.begin());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        drop(waiting.drain(..PARTS + 5));
        let now = text(&meter);
        let left = 2 * PARTS - 5;
        assert!(now.contains(&format!("coda_fuse_inflight {left}\n")), "{now}");
        assert!(now.contains(&format!("coda_fuse_oldest_inflight_seconds {left}\n")), "{now}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_until_it_is_answered_and_is_counted_then() {
        let meter = Arc::new(Meter::default());
        let (first, second) = (meter.begin(), meter.begin());
        tokio::time::advance(Duration::from_millis(20)).await;
        drop(second);
        tokio::time::advance(Duration::from_secs(2)).await;
        let now = text(&meter);
        for line in [
            "coda_fuse_inflight 1",
            "coda_fuse_oldest_inflight_seconds 2.02",
            "coda_fuse_op_seconds_bucket{le=\"0.01\"} 0",
            "coda_fuse_op_seconds_bucket{le=\"0.1\"} 1",
            "coda_fuse_op_seconds_bucket{le=\"+Inf\"} 1",
            "coda_fuse_op_seconds_sum 0.02",
        ] {
            assert!(now.lines().any(|found| found == line), "{line}\nis not in\n{now}");
        }
        drop(first);
        let now = text(&meter);
        assert!(
            now.contains("coda_fuse_inflight 0\n") && now.contains("coda_fuse_op_seconds_count 2\n"),
            "{now}"
        );
        assert!(now.contains("coda_fuse_oldest_inflight_seconds 0\n"), "{now}");
    }
}
