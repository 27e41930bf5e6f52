//! How long a server's answers take, and so how long a reader waits before it asks another one too.

use std::time::Duration;

/// A reader waits no longer than this for its first choice alone.
pub const GRACE_LIMIT: Duration = Duration::from_secs(1);
/// Nor less: answering twice costs more than a little patience.
const GRACE_LEAST: Duration = Duration::from_millis(50);

/// A running estimate of answer times: mean and deviation, as TCP estimates round trips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    estimate: Option<(Duration, Duration)>,
}

impl Latency {
    /// Takes one answer's time into account.
    pub fn observe(&mut self, sample: Duration) {
        self.estimate = Some(match self.estimate {
            None => (sample, sample / 2),
            Some((mean, deviation)) => {
                let off = sample.abs_diff(mean);
                (mean * 7 / 8 + sample / 8, deviation * 3 / 4 + off / 4)
            }
        });
    }

    /// The mean, once anything was observed.
    pub fn mean(&self) -> Option<Duration> {
        self.estimate.map(|(mean, _)| mean)
    }

    /// How long to wait for this server before another is asked too.
    pub fn grace(&self) -> Duration {
        match self.estimate {
            None => GRACE_LIMIT,
            Some((mean, deviation)) => (mean + 4 * deviation).clamp(GRACE_LEAST, GRACE_LIMIT),
        }
    }

    /// Servers are compared by this: coarse, so that jitter does not make readers change sides.
    pub fn class(&self) -> u32 {
        let millis = self.mean().map_or(0, |mean| mean.as_millis() as u64);
        u64::BITS - (millis / 4).leading_zeros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples: &[u64]) -> Latency {
        let mut latency = Latency::default();
        samples.iter().for_each(|ms| latency.observe(Duration::from_millis(*ms)));
        latency
    }

    #[test]
    fn grace_follows_what_was_observed_and_never_exceeds_a_second() {
        assert_eq!(after(&[]).grace(), GRACE_LIMIT);
        assert_eq!(after(&[1; 20]).grace(), GRACE_LEAST);
        let steady = after(&[100; 20]).grace();
        assert!(steady >= Duration::from_millis(100) && steady < Duration::from_millis(150), "{steady:?}");
        assert!(after(&[100, 300, 100, 300, 100, 300]).grace() > Duration::from_millis(300));
        assert_eq!(after(&[60_000]).grace(), GRACE_LIMIT);
    }

    #[test]
    fn jitter_changes_no_class_but_distance_does() {
        assert_eq!(after(&[0]).class(), after(&[3]).class());
        assert!(after(&[2]).class() < after(&[40]).class());
        assert!(after(&[40]).class() < after(&[300]).class());
    }
}
