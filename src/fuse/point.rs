//! Mount points: what covers a directory, what an earlier venus left there, and who is inside.
//!
//! A killed venus leaves its mount behind. Everything below it answers ENOTCONN, which is good: nobody
//! reaches the directory underneath by mistake. The next start must take it away, or cover it.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{ffi::OsStrExt, ffi::OsStringExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{helper, mount::is_privileged};

/// What `mount` and `df` show as the source.
pub const SOURCE: &str = "venus";
/// What they show as the type, behind `fuse.`.
pub const SUBTYPE: &str = "coda";

/// Dead mounts on one directory are never more than this.
const MAX_LAYERS: usize = 64;

/// A living file system answers within this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// By whose hand mounts come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hand {
    /// Our own: we are privileged.
    Own,
    /// The program that the fuse3 package brings for ordinary users.
    Fusermount,
    /// A helper at this socket.
    Helper(PathBuf),
}

impl Hand {
    /// That of this process, without a helper.
    pub fn here() -> Hand {
        match is_privileged() {
            true => Hand::Own,
            false => Hand::Fusermount,
        }
    }
}

/// Whether a mount could be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// It is gone.
    Gone,
    /// Processes are inside.
    Busy,
}

/// One line of the kernel's mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    at: PathBuf,
    kind: String,
    source: String,
    /// User and group whose mount it is, where it is one user's.
    owner: Option<(u32, u32)>,
}

impl Line {
    fn is_ours(&self) -> bool {
        self.kind == format!("fuse.{SUBTYPE}") && self.source == SOURCE
    }
}

/// What stands at a place, uppermost.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Nothing,
    Ours,
    /// Somebody else's, of this kind: it is not ours to take away.
    Others(String),
}

/// What stands at `at`, as a mount table says.
fn standing(lines: &[Line], at: &Path) -> Standing {
    match lines.iter().rev().find(|line| line.at == at) {
        None => Standing::Nothing,
        Some(line) if line.is_ours() => Standing::Ours,
        Some(line) => Standing::Others(line.kind.clone()),
    }
}

/// The name by which the mount table knows a place, also where a dead mount covers it or one that keeps us out.
pub fn known_as(at: &Path) -> PathBuf {
    let whole = fs::canonicalize(at).ok();
    whole
        .or_else(|| Some(fs::canonicalize(at.parent()?).ok()?.join(at.file_name()?)))
        .unwrap_or_else(|| at.to_owned())
}

/// Takes away what earlier lives of venus left at `at`, or above it. A living venus there is an error.
///
/// One dead mount directly at `at` stays for the privileged, who can mount over it: until the new mount
/// stands nobody may reach the directory underneath.
pub fn clear_stale(at: &Path, hand: &Hand) -> io::Result<()> {
    clear(at, hand, usize::from(*hand != Hand::Fusermount))
}

/// Takes away all that earlier lives of venus left at `at`, or above it.
pub fn clear_all(at: &Path, hand: &Hand) -> io::Result<()> {
    clear(at, hand, 0)
}

fn clear(at: &Path, hand: &Hand, keep: usize) -> io::Result<()> {
    for _ in 0..MAX_LAYERS {
        let lines = mounts()?;
        let covering: Vec<&Line> = lines.iter().filter(|line| at.starts_with(&line.at)).collect();
        let Some(top) = covering.iter().rev().find(|line| line.is_ours()) else { return Ok(()) };
        if is_alive(top) {
            let text = format!("{}: a venus is mounted there already, and it lives", top.at.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        let layers = covering.iter().filter(|line| line.at == top.at && line.is_ours()).count();
        if top.at == at && layers == keep && covering.last() == Some(top) {
            return Ok(());
        }
        tracing::info!(at = %top.at.display(), "an earlier venus left its mount behind; it is cleared");
        detach(&top.at, hand)?;
    }
    Err(io::Error::other(format!("{}: too many dead mounts", at.display())))
}

/// Whether a mounted file system answers. A dead one says so; a hung one says nothing.
fn is_alive(line: &Line) -> bool {
    let (said, hears) = mpsc::channel();
    let (at, owner) = (line.at.clone(), line.owner);
    let asked = thread::Builder::new().name("stat".into()).spawn(move || {
        // Opened, because attributes that the kernel remembers it tells also of a dead one.
        let refused = |at: &Path| File::open(at).err().and_then(|error| error.raw_os_error());
        let mut error = refused(&at);
        if let (Some(libc::EACCES), Some((user, group))) = (error, owner) {
            // One user's mount keeps root out, dead or alive.
            become_user(user, group);
            error = refused(&at);
        }
        let _ = said.send(error != Some(libc::ENOTCONN));
    });
    // Hung is not dead: what hangs may come back and must not be covered.
    asked.is_err() || hears.recv_timeout(ANSWERS_WITHIN).unwrap_or(true)
}

/// This thread acts as another user from now on, where it may. The C library would change all threads; the calls
/// of the kernel change one.
fn become_user(user: u32, group: u32) {
    // SAFETY: plain system calls on numbers.
    unsafe {
        libc::syscall(libc::SYS_setresgid, group, group, group);
        libc::syscall(libc::SYS_setresuid, user, user, user);
    }
}

/// Unmounts unless somebody is inside.
pub fn leave(at: &Path, hand: &Hand) -> io::Result<Cover> {
    match hand {
        Hand::Own => {
            return match umount(at, 0) {
                Ok(cover) => Ok(cover),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EBUSY) => Ok(Cover::Busy),
                    Some(libc::EINVAL) => Ok(Cover::Gone),
                    _ => Err(error),
                },
            };
        }
        Hand::Helper(socket) => return helper::leave(socket),
        Hand::Fusermount => {}
    }
    if fusermount(at, false)? {
        return Ok(Cover::Gone);
    }
    let there = mounts()?.iter().any(|line| line.at == at && line.is_ours());
    Ok(if there { Cover::Busy } else { Cover::Gone })
}

/// Takes the mount out of the tree at once, whoever is inside.
pub fn detach(at: &Path, hand: &Hand) -> io::Result<()> {
    match hand {
        Hand::Own => return umount(at, libc::MNT_DETACH).map(drop),
        Hand::Helper(socket) => return helper::detach(socket),
        Hand::Fusermount => {}
    }
    match fusermount(at, true)? {
        true => Ok(()),
        false => Err(io::Error::other(format!("{}: fusermount3 could not detach it", at.display()))),
    }
}

/// Takes away the uppermost mount at a place, if it is a venus'.
fn umount(at: &Path, flags: libc::c_int) -> io::Result<Cover> {
    match standing(&mounts()?, at) {
        Standing::Nothing => return Ok(Cover::Gone),
        Standing::Ours => {}
        Standing::Others(kind) => {
            let text = format!("{}: covered by a mount of type {kind}, which is no venus'", at.display());
            return Err(io::Error::other(text));
        }
    }
    let flags = flags | libc::UMOUNT_NOFOLLOW;
    let target = std::ffi::CString::new(at.as_os_str().as_bytes())?;
    // SAFETY: a plain system call on a string that lives through it.
    match unsafe { libc::umount2(target.as_ptr(), flags) } {
        0 => Ok(Cover::Gone),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a call of the kernel again for as long as signals interrupt it.
pub(super) fn unless_interrupted(mut call: impl FnMut() -> isize) -> isize {
    loop {
        let answer = call();
        if answer >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return answer;
        }
    }
}

fn fusermount(at: &Path, lazily: bool) -> io::Result<bool> {
    let mut command = Command::new("fusermount3");
    command.args(["-u", "-q"]);
    if lazily {
        command.arg("-z");
    }
    command.arg("--").arg(at).stdin(std::process::Stdio::null());
    command.output().map(|output| output.status.success()).map_err(|error| {
        io::Error::new(error.kind(), format!("fusermount3 (package fuse3) is needed to unmount: {error}"))
    })
}

/// Processes with a working directory, a root, an open file or a mapping below `at`: number and name.
pub fn inside(at: &Path) -> Vec<(u32, String)> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found: Vec<(u32, String)> = processes
        .flatten()
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            uses(&process.path(), at).then(|| (pid, name(&process.path())))
        })
        .collect();
    found.sort();
    found
}

fn name(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).map_or_else(|_| "?".into(), |name| name.trim_end().to_owned())
}

/// Links are read, not followed: asking the file system that is about to go would be asking ourselves.
fn uses(process: &Path, at: &Path) -> bool {
    let below = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(at));
    let files = || fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|file| file.path());
    let mapped = || {
        let maps = fs::read(process.join("maps")).unwrap_or_default();
        let lines: Vec<&[u8]> = maps.split(|byte| *byte == b'\n').collect();
        lines.into_iter().any(|line| {
            let path = line.iter().position(|byte| *byte == b'/').map(|start| &line[start..]);
            path.is_some_and(|path| Path::new(std::ffi::OsStr::from_bytes(path)).starts_with(at))
        })
    };
    below(process.join("cwd")) || below(process.join("root")) || files().any(below) || mapped()
}

/// The directory underneath a mount.
pub struct Below {
    directory: Option<File>,
    mode: u32,
}

impl Below {
    /// Looks at the directory before it is covered. It must be empty: what is in it would be hidden.
    pub fn open(at: &Path, hand: &Hand) -> io::Result<Below> {
        if matches!(hand, Hand::Helper(_)) {
            // It looks after that, too: the directory is not ours.
            return Ok(Below { directory: None, mode: 0 });
        }
        if mounts()?.iter().any(|line| line.at == at && line.is_ours()) {
            // Covered by a dead mount, over which the privileged mount.
            return Ok(Below { directory: None, mode: 0 });
        }
        let directory = File::open(at)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", at.display())))?;
        if fs::read_dir(at)?.next().is_some() {
            let text = format!("{}: not empty; what is in it would be hidden by the mount", at.display());
            return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, text));
        }
        let mode = directory.metadata()?.permissions().mode() & 0o7777;
        // An earlier venus guarded it and was killed; the helper mounts only on what its user may write.
        let mode = if mode & 0o222 == 0 { mode | 0o200 } else { mode };
        if *hand == Hand::Fusermount {
            directory.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(Below { directory: Some(directory), mode })
    }

    /// Makes it read-only while it is covered: should the mount go, writes by mistake fail.
    pub fn guard(&mut self) -> io::Result<()> {
        match &self.directory {
            Some(directory) => directory.set_permissions(Permissions::from_mode(self.mode & !0o222)),
            None => Ok(()),
        }
    }

    /// Makes it what it was.
    pub fn restore(&self) {
        if let Some(directory) = &self.directory {
            let _ = directory.set_permissions(Permissions::from_mode(self.mode));
        }
    }
}

/// The kernel's mount table, lowest layer first.
fn mounts() -> io::Result<Vec<Line>> {
    Ok(fs::read("/proc/self/mountinfo")?.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// ```text
/// 36 35 98:0 /root /at rw,noatime optional:1 ... - type source options
/// ```
fn parse(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = unescape(fields.nth(4)?);
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = String::from_utf8_lossy(fields.next()?).into_owned();
    let options = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    let number = |name: &str| options.split(',').find_map(|word| word.strip_prefix(name)?.parse().ok());
    let owner = number("user_id=").zip(number("group_id="));
    Some(Line { at: PathBuf::from(std::ffi::OsString::from_vec(at)), kind, source, owner })
}

/// Spaces and the like are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'\\').then(|| tail.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read_with_its_escapes() {
        let line = parse(
            br"36 35 0:42 / /mnt/my\040coda rw,nosuid shared:1 - fuse.coda venus rw,user_id=7,group_id=8",
        )
        .unwrap();
        assert_eq!(line.at, Path::new("/mnt/my coda"));
        assert_eq!(line.owner, Some((7, 8)));
        assert!(line.is_ours());
    }

    #[test]
    fn a_line_without_optional_fields_is_read_too() {
        let line = parse(b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw").unwrap();
        assert_eq!((line.at.as_path(), line.kind.as_str()), (Path::new("/"), "ext4"));
        assert!(!line.is_ours());
    }

    #[test]
    fn only_what_a_venus_mounted_is_taken_away() {
        let line = |at: &str, kind: &str, source: &str| Line {
            at: at.into(),
            kind: kind.into(),
            source: source.into(),
            owner: None,
        };
        let (ours, tmpfs) = (line("/coda", "fuse.coda", "venus"), line("/coda", "tmpfs", "tmpfs"));
        let at = Path::new("/coda");
        assert_eq!(standing(&[line("/", "ext4", "/dev/vda")], at), Standing::Nothing);
        assert_eq!(standing(&[tmpfs.clone(), ours.clone()], at), Standing::Ours);
        assert_eq!(standing(&[ours.clone(), tmpfs], at), Standing::Others("tmpfs".into()));
        assert_eq!(standing(&[line("/coda", "fuse.coda", "x")], at), Standing::Others("fuse.coda".into()));
        assert_eq!(standing(&[ours], Path::new("/coda/below")), Standing::Nothing);
    }

    #[test]
    fn a_place_is_known_by_the_name_behind_its_links() {
        let room = tempfile::tempdir().unwrap();
        let (real, link) = (room.path().canonicalize().unwrap().join("real"), room.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(known_as(&link), real);
        assert_eq!(known_as(&link.join("../real/.")), real);
        assert_eq!(known_as(&link.join("missing")), real.join("missing"));
    }

    #[test]
    fn a_call_that_a_signal_interrupts_is_made_again() {
        // SAFETY: the thread's own errno.
        let fails_with = |why| unsafe { *libc::__errno_location() = why };
        let mut calls = 0;
        let mut call = || {
            calls += 1;
            fails_with(if calls < 3 { libc::EINTR } else { libc::EBADF });
            if calls == 5 { 7 } else { -1 }
        };
        assert_eq!(unless_interrupted(&mut call), -1);
        fails_with(libc::EINTR);
        assert_eq!(unless_interrupted(|| 7), 7);
        assert_eq!(calls, 3);
    }

    #[test]
    fn this_process_is_found_where_it_is() {
        let here = std::env::current_dir().unwrap();
        assert!(inside(&here).iter().any(|(pid, _)| *pid == std::process::id()));
    }
}
