//! Where the log goes.

use std::{fs, path::Path};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Begins the log: `filter` in tracing's words (`CODA_LOG` goes over it), to `file` or standard error.
pub fn begin(filter: &str, file: Option<&Path>) -> anyhow::Result<()> {
    let filter = std::env::var("CODA_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(&filter).with_context(|| format!("log={filter}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    let begun = match file {
        Some(path) => {
            let name = || path.display().to_string();
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).with_context(name)?;
            }
            let file = fs::File::options().create(true).append(true).open(path).with_context(name)?;
            log.with_ansi(false).with_writer(file).try_init()
        }
        None => log.with_writer(std::io::stderr).try_init(),
    };
    begun.map_err(|error| anyhow::anyhow!("the log cannot begin: {error}"))
}
