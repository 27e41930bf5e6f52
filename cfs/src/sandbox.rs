//! Where a merge tool runs: in a directory of its own with copies, for a limited time, and without a way to write
//! anywhere else.
//!
//! The kernel's Landlock sees to the last. It keeps the tool and what it starts from opening anything for writing,
//! making, removing or cutting it outside of that directory; devices, `/dev/null` and the terminal among them, can be
//! written. Where a kernel knows no Landlock the tool runs with the rights of whoever calls it, and that is said.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// How often it is looked whether the tool is done.
const EVERY: Duration = Duration::from_millis(20);

/// A directory with copies, which goes when it was used.
pub struct Sandbox {
    dir: PathBuf,
}

/// How a tool ended.
pub enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It took too long.
    TimedOut,
}

impl Sandbox {
    /// An empty one.
    pub fn new() -> io::Result<Sandbox> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("coda-merge-{}-{count}", process::id()));
        DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Sandbox { dir: dir.canonicalize()? })
    }

    /// A copy of a file in it, which may be written whatever the file was.
    pub fn copy(&self, from: &Path, name: &OsStr) -> io::Result<PathBuf> {
        let to = self.dir.join(name);
        let mut own = File::options().write(true).create_new(true).mode(0o600).open(&to)?;
        io::copy(&mut File::open(from)?, &mut own)?;
        own.flush()?;
        Ok(to)
    }

    /// Runs a program in it with these words and variables. `unconfined` is called where it can write elsewhere.
    pub fn run(
        &self,
        tool: &OsStr,
        words: &[PathBuf],
        variables: &[(&str, OsString)],
        limit: Duration,
        unconfined: &mut dyn FnMut(),
    ) -> io::Result<End> {
        let rules = rules(&self.dir).unwrap_or_default();
        if rules.is_none() {
            unconfined();
        }
        let mut command = Command::new(tool);
        command.args(words).envs(variables.iter().cloned()).env("TMPDIR", &self.dir).current_dir(&self.dir);
        if let Some(rules) = rules {
            // SAFETY: between fork and exec there are two system calls and nothing else.
            unsafe {
                command.pre_exec(move || restrict(&rules));
            }
        }
        let mut child = command.spawn()?;
        let began = now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(End::Exited(status));
            }
            if began.elapsed() >= limit {
                child.kill()?;
                child.wait()?;
                return Ok(End::TimedOut);
            }
            std::thread::sleep(EVERY);
        }
    }

    /// What the tool left under a name: a file, not a link to one.
    pub fn result(&self, name: &Path) -> io::Result<PathBuf> {
        match fs::symlink_metadata(name)?.is_file() {
            true => Ok(name.to_owned()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "the result is no file")),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[allow(clippy::disallowed_methods, reason = "a program that waits needs a clock")]
fn now() -> Instant {
    Instant::now()
}

// Landlock, as linux/landlock.h has it.
const WRITE_FILE: u64 = 1 << 1;
/// Removing and making whatever there is: bits 4 to 12.
const CHANGE: u64 = 0x1ff0;
/// Moving between directories, since version 2.
const REFER: u64 = 1 << 13;
/// Since version 3.
const TRUNCATE: u64 = 1 << 14;
const VERSION: libc::c_uint = 1;
const PATH_BENEATH: libc::c_int = 1;

#[repr(C)]
struct Ruleset {
    handled: u64,
}

#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// What the kernel's Landlock knows to forbid; none where there is no Landlock.
fn forbidden() -> Option<u64> {
    // SAFETY: with this flag the call reads no memory of ours.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Ruleset>(), 0usize, VERSION)
    };
    match version {
        ..1 => None,
        1 => Some(WRITE_FILE | CHANGE),
        2 => Some(WRITE_FILE | CHANGE | REFER),
        3.. => Some(WRITE_FILE | CHANGE | REFER | TRUNCATE),
    }
}

/// Rules that allow changes below `dir`, and writing to devices. None where the kernel knows no such rules.
fn rules(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let Some(handled) = forbidden() else { return Ok(None) };
    let ruleset = Ruleset { handled };
    // SAFETY: the structure lives through the call, and its size is given.
    let made = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &ruleset, size_of::<Ruleset>(), 0 as libc::c_uint)
    };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let rules = unsafe { OwnedFd::from_raw_fd(made as i32) };
    let devices = (Path::new("/dev"), handled & (WRITE_FILE | TRUNCATE));
    for (place, allowed) in [(dir, handled), devices] {
        let parent = File::options().read(true).custom_flags(libc::O_PATH).open(place)?;
        let beneath = Beneath { allowed, parent: parent.as_raw_fd() };
        // SAFETY: the structure and the descriptor in it live through the call.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                rules.as_raw_fd(),
                PATH_BENEATH,
                &beneath,
                0 as libc::c_uint,
            )
        };
        if added < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(Some(rules))
}

/// Holds this process to the rules, and whatever it becomes.
fn restrict(rules: &OwnedFd) -> io::Result<()> {
    let one: libc::c_ulong = 1;
    // SAFETY: two system calls that touch no memory of ours.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0 as libc::c_uint) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let tool = dir.join("tool");
        fs::write(&tool, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        tool
    }

    #[test]
    fn a_tool_works_on_copies_and_writes_nowhere_else() {
        let room = tempfile::tempdir().unwrap();
        let other = room.path().join("tree");
        fs::write(&other, "untouched").unwrap();
        fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        let sandbox = Sandbox::new().unwrap();
        let copy = sandbox.copy(&other, OsStr::new("ours")).unwrap();
        let tool = script(
            room.path(),
            "echo more >> ours || exit 3; cat \"$OTHER\" > /dev/null || exit 4
             (echo no > \"$OTHER\") 2> /dev/null; rm -f \"$OTHER\" 2> /dev/null
             (echo no > \"$OTHER.new\") 2> /dev/null; mv ours moved && mv moved ours",
        );
        let mut confined = true;
        let variables = [("OTHER", other.clone().into_os_string())];
        let end =
            sandbox.run(tool.as_os_str(), &[], &variables, Duration::from_secs(20), &mut || confined = false);
        assert!(matches!(end.unwrap(), End::Exited(status) if status.success()));
        assert_eq!(fs::read_to_string(sandbox.result(&copy).unwrap()).unwrap(), "untouchedmore\n");
        if confined {
            assert_eq!(fs::read_to_string(&other).unwrap(), "untouched");
            assert!(!room.path().join("tree.new").exists());
        }
        let dir = sandbox.dir.clone();
        drop(sandbox);
        assert!(!dir.exists());
    }

    #[test]
    fn a_tool_that_takes_too_long_is_ended_and_a_link_is_no_result() {
        let room = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::new().unwrap();
        let tool = script(room.path(), "ln -s /etc/passwd result; exec sleep 60");
        let end = sandbox.run(tool.as_os_str(), &[], &[], Duration::from_millis(300), &mut || {});
        assert!(matches!(end.unwrap(), End::TimedOut));
        assert!(sandbox.result(&sandbox.dir.join("result")).is_err());
    }
}
