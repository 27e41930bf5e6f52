//! How long a start takes when there is much to find: servers with many files, and a cache full of them.

use std::{path::Path, process::Command, time::Instant};

use anyhow::ensure;

/// The name in `--only`.
pub const NAME: &str = "start";
/// One line for people.
pub const ABOUT: &str =
    "start of two servers and venus with 100,000 files, of which venus caches as many as it may";

/// Fills a realm that is kept, stops it, and times its next start until a command runs in it.
#[allow(clippy::disallowed_methods)] // measuring is what this program does
pub fn measure(venus: &Path, quick: bool, json: bool) -> anyhow::Result<()> {
    let files = if quick { 500 } else { 100_000 };
    let state = tempfile::tempdir()?;
    let demo = |command: &str| -> anyhow::Result<f64> {
        let begun = Instant::now();
        let status = Command::new(venus)
            .args(["demo", "--servers", "2", "--state"])
            .arg(state.path())
            .args(["--exec", command])
            .stdout(std::process::Stdio::null())
            .status()?;
        ensure!(status.success(), "`{command}` failed in the demonstration ({status})");
        Ok(begun.elapsed().as_secs_f64())
    };
    demo("true")?;
    let empty = demo("true")?;
    demo(&format!(
        "i=0; while [ $i -lt {files} ]; do d=many/$((i / 1000)); mkdir -p $d; \
         j=0; while [ $j -lt 1000 ] && [ $i -lt {files} ]; do echo $i > $d/$j; j=$((j + 1)); i=$((i + 1)); done; done"
    ))?;
    let full = demo("true")?;
    if json {
        println!("{}", serde_json::json!({ "name": NAME, "files": files, "empty": empty, "full": full }));
    } else {
        println!("{NAME:<18} start and stop take {full:.2} s with {files} files, {empty:.2} s with none");
    }
    Ok(())
}
