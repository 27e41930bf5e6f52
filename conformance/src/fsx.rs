//! fsx: random reads, writes, truncations and mappings of one file, each read verified.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, bail};

/// All kinds of operations that both sides have. `punch_hole` and `posix_fallocate` stay in: a mount that
/// cannot do them must say so at once, and ours can.
const CONFIGURATION: &str = "flen = 262144\n\
    [weights]\nread = 10.0\nwrite = 10.0\nmapread = 10.0\nmapwrite = 10.0\ntruncate = 5.0\nclose_open = 1.0\n\
    fsync = 0.2\nfdatasync = 0.2\ninvalidate = 1.0\nsendfile = 2.0\nposix_fadvise = 1.0\n\
    copy_file_range = 2.0\nposix_fallocate = 2.0\npunch_hole = 2.0\n";

/// Runs fsx on a file in `dir`; answers the file's bytes at the end.
pub fn run(tools: &Path, dir: &Path, seed: u64, operations: u64) -> anyhow::Result<Vec<u8>> {
    let scratch = tempfile::tempdir()?;
    let config = scratch.path().join("fsx.toml");
    fs::write(&config, CONFIGURATION)?;
    let file = dir.join(format!("fsx-{seed}"));
    let output = Command::new(tools.join("bin/fsx"))
        .arg("-f")
        .arg(&config)
        .args(["-N", &operations.to_string(), "-S", &seed.to_string(), "-P"])
        .arg(scratch.path())
        .arg(&file)
        .output()
        .context("fsx")?;
    if !output.status.success() {
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(25)..].join("\n  ");
        bail!("fsx with seed {seed} in {} failed ({}):\n  {tail}", dir.display(), output.status);
    }
    let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
    fs::remove_file(&file)?;
    Ok(bytes)
}
