//! Where log lines go: to the standard error, and into `srv/SrvLog` of the server's directory. Errors stand in
//! `srv/SrvErr`, too.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::OnceLock,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

struct Files {
    log: File,
    errors: File,
}

static FILES: OnceLock<Files> = OnceLock::new();

/// From now on log lines go into the files of this directory, too.
pub fn begin(dir: &Path) -> io::Result<()> {
    let srv = dir.join("srv");
    fs::create_dir_all(&srv)?;
    let open = |name: &str| OpenOptions::new().create(true).append(true).open(srv.join(name));
    let _ = FILES.set(Files { log: open("SrvLog")?, errors: open("SrvErr")? });
    Ok(())
}

/// Makes a writer for each line.
pub struct Logs;

/// Writes one line wherever it belongs.
pub struct Line {
    error: bool,
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line { error: false }
    }
    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line {
        Line { error: *about.level() == Level::ERROR }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(files) = FILES.get() {
            // A disk that is full must not stop the server from saying so on the standard error.
            let _ = (&files.log).write_all(line);
            if self.error {
                let _ = (&files.errors).write_all(line);
            }
        }
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
