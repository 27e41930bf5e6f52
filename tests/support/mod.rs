//! What tests on real mounts share.

#![allow(dead_code)]

use std::time::Duration;

/// Whether this machine mounts FUSE file systems. A test that cannot run says so; with
/// `CODA_REQUIRE_MOUNT=1` that is a failure.
pub fn can_mount() -> bool {
    let device = std::path::Path::new("/dev/fuse").exists();
    // The helper of ordinary users opens the device for them.
    let opens = || std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    // SAFETY: reads a number and cannot fail.
    let possible = device && (opens() || unsafe { libc::geteuid() } != 0);
    if !possible {
        assert!(
            std::env::var_os("CODA_REQUIRE_MOUNT").is_none_or(|value| value != "1"),
            "/dev/fuse is missing, and CODA_REQUIRE_MOUNT=1 wants the mount tests to run"
        );
        eprintln!("skipped: /dev/fuse is missing");
    }
    possible
}

/// Waits until something holds.
pub fn soon(what: &str, holds: impl FnMut() -> bool) {
    within(Duration::from_secs(10), what, holds);
}

/// Waits until something holds, at most `limit`.
#[allow(clippy::disallowed_methods)] // A test of real processes lives in real time.
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
