//! How fast the log may go where people set a limit: what is sent behind their backs leaves them the rest of the
//! line.

use std::time::Duration;

use tokio::time::Instant;

/// A piece that is sent at once lasts no longer than this at the limit, and is no shorter than [`LEAST`].
const PIECE: Duration = Duration::from_millis(250);
const LEAST: u64 = 4 << 10;

/// When the next bytes may go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    free: Option<Instant>,
}

impl Pace {
    /// When these bytes may begin, at so many a second. They take their time of the line from then on.
    pub fn begins(&mut self, now: Instant, bytes: u64, limit: u64) -> Instant {
        let begins = self.free.map_or(now, |free| free.max(now));
        self.free = Some(begins + Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64));
        begins
    }
}

/// How long a piece may be.
pub fn piece(limit: u64) -> u64 {
    (limit / (1_000 / PIECE.as_millis() as u64)).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_piece_waits_for_those_before_it_and_pauses_are_not_saved_up() {
        let (mut pace, second) = (Pace::default(), Duration::from_secs(1));
        let began = Instant::now();
        assert_eq!(pace.begins(began, 1_000, 1_000), began);
        assert_eq!(pace.begins(began, 500, 1_000), began + second);
        assert_eq!(pace.begins(began, 500, 1_000), began + second * 3 / 2);
        let later = began + 60 * second;
        assert_eq!(pace.begins(later, 1_000, 1_000), later);
        assert_eq!(pace.begins(later, 1_000, 1_000), later + second);
        assert_eq!((piece(100_000), piece(10)), (25_000, 4_096));
    }
}
