//! Where log lines go: to the standard error, and into `srv/SrvLog` of the server's directory. Errors stand in
//! `srv/SrvErr`, too. A file that has grown begins anew; what it held is kept once, as `SrvLog-1`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of one file, about.
const LIMIT: u64 = 16 << 20;

/// A file that begins anew when it has grown.
struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl Log {
    fn open(path: PathBuf, limit: u64) -> io::Result<Log> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Log { path, file, size, limit })
    }

    fn add(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > self.limit {
            let mut old = self.path.clone().into_os_string();
            old.push("-1");
            fs::rename(&self.path, old)?;
            *self = Log::open(self.path.clone(), self.limit)?;
        }
        self.size += line.len() as u64;
        self.file.write_all(line)
    }
}

static FILES: OnceLock<Mutex<(Log, Log)>> = OnceLock::new();

/// From now on log lines go into the files of this directory, too.
pub fn begin(dir: &Path) -> io::Result<()> {
    let srv = dir.join("srv");
    fs::create_dir_all(&srv)?;
    let logs = (Log::open(srv.join("SrvLog"), LIMIT)?, Log::open(srv.join("SrvErr"), LIMIT)?);
    let _ = FILES.set(Mutex::new(logs));
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
            let mut files = files.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            // A disk that is full must not stop the server from saying so on the standard error.
            let _ = files.0.add(line);
            if self.error {
                let _ = files.1.add(line);
            }
        }
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_has_grown_begins_anew_and_its_former_lines_are_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("SrvLog");
        let mut log = Log::open(path.clone(), 20).unwrap();
        for line in 0..10 {
            log.add(format!("line {line} of it\n").as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 8 of it\nline 9 of it\n");
        assert_eq!(fs::read_to_string(dir.path().join("SrvLog-1")).unwrap(), "line 6 of it\nline 7 of it\n");
        // A start goes on where the last one ended.
        let mut log = Log::open(path, 20).unwrap();
        log.add(b"10\n").unwrap();
        assert!(fs::read_to_string(dir.path().join("SrvLog")).unwrap().ends_with("10\n"));
    }
}
