//! Somebody who writes, and remembers what was promised.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::fd::IntoRawFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::draw::Draw;

/// What a name may hold: nothing, these bytes, or (after a plain write that failed) their beginning.
#[derive(Clone, Debug, PartialEq)]
enum Hold {
    Nothing,
    Bytes(Vec<u8>),
    Beginning(Vec<u8>),
}

impl Hold {
    fn allows(&self, found: Option<&[u8]>) -> bool {
        match (self, found) {
            (Hold::Nothing, None) => true,
            (Hold::Bytes(bytes), Some(found)) => bytes == found,
            (Hold::Beginning(bytes), Some(found)) => bytes.starts_with(found),
            _ => false,
        }
    }
}

/// What was promised about every name: one thing after a success, several after failures.
#[derive(Default)]
pub struct Promises {
    names: BTreeMap<String, Vec<Hold>>,
    /// Operations that succeeded, and that failed.
    pub done: u64,
    pub failed: u64,
}

impl Promises {
    fn settle(&mut self, name: &str, result: &io::Result<()>, hold: Hold) {
        let held = self.names.entry(name.to_owned()).or_insert_with(|| vec![Hold::Nothing]);
        match result {
            Ok(()) => {
                *held = vec![hold];
                self.done += 1;
            }
            Err(_) => {
                held.push(hold);
                self.failed += 1;
            }
        }
    }

    /// What is wrong in `dir`: promised names that hold something else, names nobody made.
    pub fn broken(&self, dir: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, held) in &self.names {
            let found = match fs::read(dir.join(name)) {
                Ok(bytes) => Some(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => {
                    wrong.push(format!("{name}: {error}"));
                    continue;
                }
            };
            if !held.iter().any(|hold| hold.allows(found.as_deref())) {
                let shown =
                    found.map(|bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned());
                wrong.push(format!(
                    "{}/{name}: {shown:?} is there; promised: {}",
                    dir.display(),
                    brief(held)
                ));
            }
        }
        match fs::read_dir(dir) {
            Ok(entries) => {
                let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
                wrong
                    .extend(names.filter(|name| !self.knows(name)).map(|name| format!("nobody made {name}")));
            }
            Err(error) => wrong.push(format!("{}: {error}", dir.display())),
        }
        wrong
    }

    fn knows(&self, name: &str) -> bool {
        self.names.contains_key(name) || name.starts_with("fresh-")
    }
}

fn brief(held: &[Hold]) -> String {
    let one = |hold: &Hold| match hold {
        Hold::Nothing => "nothing".to_owned(),
        Hold::Bytes(bytes) => format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(20)])),
        Hold::Beginning(bytes) => {
            format!("a beginning of {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(20)]))
        }
    };
    held.iter().map(one).collect::<Vec<_>>().join(" or ")
}

/// Writes in a directory of its own until told to stop.
pub fn write(dir: PathBuf, seed: u64, stop: Arc<AtomicBool>) -> Promises {
    let mut draw = Draw::new(seed);
    let mut promises = Promises::default();
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let number = draw.below(12);
        let bytes = format!("{number} {count}\n").repeat(1 + draw.below(3_000)).into_bytes();
        let failed = match draw.below(10) {
            0..=4 => {
                let (name, fresh) = (format!("saved{number}"), dir.join(format!("fresh-{number}")));
                let result = whole(&fresh, &bytes).and_then(|()| fs::rename(&fresh, dir.join(&name)));
                promises.settle(&name, &result, Hold::Bytes(bytes));
                result.is_err()
            }
            5..=8 => {
                let name = format!("plain{number}");
                let result = whole(&dir.join(&name), &bytes);
                let hold = if result.is_ok() { Hold::Bytes(bytes) } else { Hold::Beginning(bytes) };
                promises.settle(&name, &result, hold);
                result.is_err()
            }
            _ => {
                let name = format!("{}{number}", if draw.below(2) == 0 { "plain" } else { "saved" });
                let result = match fs::remove_file(dir.join(&name)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other,
                };
                promises.settle(&name, &result, Hold::Nothing);
                result.is_err()
            }
        };
        std::thread::sleep(Duration::from_millis(if failed { 100 } else { 2 }));
    }
    promises
}

/// Writes a file and closes it, with what close says.
pub fn whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    // SAFETY: the descriptor was ours alone, and nobody uses it afterwards.
    if unsafe { libc::close(file.into_raw_fd()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
