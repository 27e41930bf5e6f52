//! What happened in a world, line by line, with its simulated time. Two runs of a seed must agree in the
//! digest; the lines are kept only when somebody wants to read them.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

/// The trace of a world. Clones share it.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    begun: Instant,
    hasher: u64,
    count: u64,
    print: bool,
    tail: std::collections::VecDeque<String>,
}

/// Lines that are kept for a report.
const TAIL: usize = 4_000;

impl Trace {
    /// An empty trace that begins now. `print`: each line is shown as it happens.
    pub fn new(print: bool) -> Trace {
        Trace(Arc::new(Mutex::new(Inner {
            begun: Instant::now(),
            hasher: 0xcbf2_9ce4_8422_2325,
            count: 0,
            print,
            tail: Default::default(),
        })))
    }

    /// Simulated time since the beginning.
    pub fn time(&self) -> Duration {
        self.inner().begun.elapsed()
    }

    /// Something happened.
    pub fn say(&self, what: fmt::Arguments<'_>) {
        let mut inner = self.inner();
        let line = format!("{:>12.6} {what}", inner.begun.elapsed().as_secs_f64());
        for byte in line.bytes() {
            inner.hasher = (inner.hasher ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        inner.count += 1;
        if inner.print {
            println!("{line}");
        }
        if inner.tail.len() == TAIL {
            inner.tail.pop_front();
        }
        inner.tail.push_back(line);
    }

    /// Number of lines, and a digest of all of them.
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.count, inner.hasher)
    }

    /// The last lines.
    pub fn tail(&self) -> Vec<String> {
        self.inner().tail.iter().cloned().collect()
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder panics")
    }
}
