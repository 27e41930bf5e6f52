//! What is logged, line by line, in fields.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use serde_json::Value;

/// What this thread logs from now on.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub fn begin() -> (Lines, tracing::subscriber::DefaultGuard) {
        // Where nobody listens, a place that logs is found uninteresting, and by another thread at any time.
        let deaf = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
        let _ = tracing::subscriber::set_global_default(deaf);
        let lines = Lines::default();
        let to = lines.clone();
        let log = tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO);
        let log = log.with_writer(move || to.clone()).finish();
        (lines, tracing::subscriber::set_default(log))
    }

    /// The fields of each line with these words.
    pub fn of(&self, words: &str) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let fields = lines.map(|line| line["fields"].clone());
        fields
            .filter(|fields| fields["message"].as_str().is_some_and(|message| message.contains(words)))
            .collect()
    }
}
