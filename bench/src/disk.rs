//! How many times a second the disk makes a small append durable: the ceiling of anything that answers durably.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// Appends and syncs for half a second.
#[allow(clippy::disallowed_methods)] // measuring is what this program does
pub fn syncs_per_second(dir: &Path) -> anyhow::Result<f64> {
    let path = dir.join("coda-bench-sync");
    let mut file = File::create(&path)?;
    let begun = Instant::now();
    let mut count = 0u32;
    while begun.elapsed() < Duration::from_millis(500) {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}
