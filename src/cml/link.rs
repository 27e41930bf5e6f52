//! Whether the line to a volume's servers is weak, from what was measured. It takes several measurements to
//! change one's mind, and a line is strong again only well above what made it weak.

use std::time::Duration;

/// What makes a line weak. It is strong again where it is twice as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weak {
    /// Fewer bytes a second.
    pub bandwidth: u64,
    /// Longer round trips.
    pub round_trip: Duration,
}

impl Default for Weak {
    fn default() -> Weak {
        Weak { bandwidth: 50 << 10, round_trip: Duration::from_millis(800) }
    }
}

/// Measurements in a row that change one's mind.
const SURE: u32 = 3;
/// Shorter transfers say nothing of bandwidth.
const TELLING: u64 = 8 * 1024;

/// What is known of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    bandwidth: Option<u64>,
    round_trip: Option<Duration>,
    weak: bool,
    otherwise: u32,
}

impl Link {
    /// A transfer of so many bytes took so long. Answers whether the line changed.
    pub fn transferred(&mut self, bytes: u64, took: Duration, weak: &Weak) -> bool {
        if bytes < TELLING || took.is_zero() {
            return false;
        }
        let sample = (bytes as f64 / took.as_secs_f64()) as u64;
        self.bandwidth = Some(self.bandwidth.map_or(sample, |old| old / 2 + sample / 2));
        self.judge(weak)
    }

    /// A short question was answered after so long. Answers whether the line changed.
    pub fn answered(&mut self, took: Duration, weak: &Weak) -> bool {
        self.round_trip = Some(self.round_trip.map_or(took, |old| old * 3 / 4 + took / 4));
        self.judge(weak)
    }

    /// Whether it is weak.
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// Bytes a second, once anything was transferred.
    pub fn bandwidth(&self) -> Option<u64> {
        self.bandwidth
    }

    fn judge(&mut self, edge: &Weak) -> bool {
        let (slow, narrow) = match self.weak {
            false => (edge.round_trip, edge.bandwidth),
            true => (edge.round_trip / 2, edge.bandwidth.saturating_mul(2)),
        };
        let weak = self.round_trip.is_some_and(|trip| trip > slow)
            || self.bandwidth.is_some_and(|bandwidth| bandwidth < narrow);
        self.otherwise = if weak == self.weak { 0 } else { self.otherwise + 1 };
        let changes = self.otherwise >= SURE;
        if changes {
            (self.weak, self.otherwise) = (weak, 0);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const EDGE: Weak = Weak { bandwidth: 50 << 10, round_trip: Duration::from_millis(800) };

    #[test]
    fn one_slow_answer_does_not_make_a_line_weak_and_three_do() {
        let mut link = Link::default();
        assert!(!link.transferred(20_000, SECOND, &EDGE));
        assert!(!link.transferred(1_000_000, SECOND, &EDGE), "it was a moment's trouble");
        assert!(!link.is_weak());
        let mut link = Link::default();
        let changed: Vec<bool> = (0..4).map(|_| link.transferred(20_000, SECOND, &EDGE)).collect();
        assert_eq!(changed, [false, false, true, false]);
        assert!(link.is_weak());
    }

    #[test]
    fn a_line_on_the_edge_stays_what_it_is() {
        let mut link = Link::default();
        for _ in 0..5 {
            link.transferred(40_000, SECOND, &EDGE);
        }
        assert!(link.is_weak());
        for _ in 0..50 {
            link.transferred(80_000, SECOND, &EDGE);
        }
        assert!(link.is_weak(), "better, and not yet good");
        for _ in 0..10 {
            link.transferred(400_000, SECOND, &EDGE);
        }
        assert!(!link.is_weak());
        for _ in 0..50 {
            link.transferred(60_000, SECOND, &EDGE);
        }
        assert!(!link.is_weak(), "worse, and not yet bad");
    }

    #[test]
    fn long_round_trips_make_it_weak_too_and_short_transfers_say_nothing() {
        let mut link = Link::default();
        for _ in 0..9 {
            link.transferred(100, SECOND, &EDGE);
        }
        assert_eq!(link, Link::default());
        for _ in 0..5 {
            link.answered(SECOND, &EDGE);
        }
        assert!(link.is_weak());
        for _ in 0..20 {
            link.answered(SECOND / 10, &EDGE);
        }
        assert!(!link.is_weak());
    }

    #[test]
    fn what_is_weak_is_what_people_say_it_is() {
        let mut link = Link::default();
        let never = Weak { bandwidth: 0, round_trip: Duration::MAX };
        for _ in 0..9 {
            link.transferred(9_000, SECOND, &never);
            link.answered(5 * SECOND, &never);
        }
        assert!(!link.is_weak());
        let choosy = Weak { bandwidth: 1 << 30, ..never };
        for _ in 0..3 {
            link.transferred(1_000_000, SECOND / 100, &choosy);
        }
        assert!(link.is_weak());
    }
}
