//! Real time, which a trial lives in.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Waits until something holds, at most `limit`; then says what did not.
#[allow(clippy::disallowed_methods)] // Real processes live in real time.
pub fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() >= limit {
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A stretch of real time.
pub struct Stretch(Instant);

impl Stretch {
    /// Begins now.
    #[allow(clippy::disallowed_methods)] // As above.
    pub fn begin() -> Stretch {
        Stretch(Instant::now())
    }

    /// How long it is by now.
    pub fn length(&self) -> Duration {
        self.0.elapsed()
    }
}
