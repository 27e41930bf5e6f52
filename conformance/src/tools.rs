//! The test suites: programs from the crate registry, installed once into a folder of ours.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};

/// What is installed: the name of the package, of its program and of the part that needs it, and the version.
const TOOLS: [(&str, &str); 2] = [("pjdfstest", "0.2.2"), ("fsx", "0.3.2")];

/// Installs what `wanted` parts need and the folder lacks.
pub fn install(folder: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    for (name, version) in TOOLS.iter().filter(|(name, _)| wanted(name)) {
        let mark = folder.join(format!("{name}-{version}.installed"));
        if mark.exists() && folder.join("bin").join(name).exists() {
            continue;
        }
        println!("installing {name} {version}");
        let status = Command::new("cargo")
            .args(["install", "--quiet", "--locked", "--debug", "--force", "--root"])
            .arg(folder)
            .arg("--target-dir")
            .arg(folder.join("build"))
            .arg(format!("{name}@{version}"))
            // The settings of whoever runs us are for the project's own code.
            .env_remove("RUSTFLAGS")
            .status()
            .context("cargo install")?;
        ensure!(status.success(), "could not install {name} {version}");
        std::fs::write(mark, "")?;
    }
    Ok(())
}
