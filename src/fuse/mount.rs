//! Mounting a manager, and taking the mount away again.
//!
//! A privileged venus mounts by itself; an ordinary user's goes through `fusermount3`, or through a helper (`helper`).

use std::{
    ffi::CString,
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use fuser::{BackgroundSession, Config, Session, SessionACL};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    adapter::Adapter,
    desk::Desk,
    directory::OpenDirs,
    file::OpenFiles,
    helper,
    inode::Inodes,
    meter::Meter,
    notifier::{self, Ear, Waves},
    point::{self, Cover, Hand},
};
use crate::venus::face::Face;

const DEVICE: &str = "/dev/fuse";

/// Threads that read requests.
const MAX_THREADS: usize = 4;

/// How to mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where.
    pub at: PathBuf,
    /// Whose mount it is: everybody else is kept out by the kernel. Only the privileged may name another
    /// user than themselves.
    pub owner: Option<(u32, u32)>,
    /// All users see the mount. What one saw is then not believed for another.
    pub shared: bool,
    /// Lets the kernel use containers by itself where it can.
    pub passthrough: bool,
    /// The socket of a helper that mounts for us. It decides where, and whose mount it is.
    pub helper: Option<PathBuf>,
}

impl Options {
    /// By whose hand the mount comes and goes.
    fn hand(&self) -> Hand {
        match &self.helper {
            Some(socket) => Hand::Helper(socket.clone()),
            None => Hand::here(),
        }
    }

    /// The default: for the user who runs venus, as fast as the kernel allows.
    pub fn at(at: impl Into<PathBuf>) -> Options {
        Options { at: at.into(), owner: None, shared: false, passthrough: true, helper: None }
    }
}

/// A mounted manager. Dropping it does not unmount; [`Mounted::unmount`] does.
pub struct Mounted {
    at: PathBuf,
    hand: Hand,
    session: BackgroundSession,
    below: point::Below,
    meter: Arc<Meter>,
}

/// How the mount went away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Nobody was inside.
    Clean,
    /// Processes were inside: the mount is gone from the tree, and they keep what they had for as long as
    /// venus lives.
    Detached {
        /// Who they are: process and name.
        inside: Vec<(u32, String)>,
    },
}

/// Mounts `face`. What is left of an earlier venus at this place is cleared.
pub fn mount<F: Face>(face: Arc<F>, runtime: Handle, options: &Options) -> io::Result<Mounted> {
    let options = &Options { at: point::known_as(&options.at), ..options.clone() };
    let (privileged, hand) = (is_privileged(), options.hand());
    if options.helper.is_none() {
        point::clear_stale(&options.at, &hand)?;
    }
    let mut below = point::Below::open(&options.at, &hand)?;

    let (own, own_forgets) = mpsc::unbounded_channel();
    let inodes = Arc::new(Inodes::new(face.root()));
    let waves = Arc::new(Waves::default());
    let forgets = face.forgets();
    let meter = Arc::new(Meter::default());
    let desk = Arc::new(Desk {
        face,
        runtime: runtime.clone(),
        inodes: inodes.clone(),
        files: OpenFiles::default(),
        dirs: OpenDirs::default(),
        waves: waves.clone(),
        forgets: own,
        one_user: !options.shared,
        passthrough: AtomicBool::new(options.passthrough),
        epochs: AtomicBool::new(false),
        fallback: Once::new(),
        meter: meter.clone(),
    });
    if options.passthrough && !privileged {
        desk.fall_back(&"venus is not privileged");
    }

    let config = config();
    let adapter = Adapter { desk: desk.clone() };
    let device = match &hand {
        Hand::Own => mount_directly(options)?,
        Hand::Fusermount => mount_by_fusermount(options)?,
        Hand::Helper(socket) => helper::mount(socket)?,
    };
    let stands = || {
        // The kernel keeps other users out; the library would compare with the wrong owner.
        let session = Session::from_fd(adapter, device, SessionACL::All, config)?;
        below.guard()?;
        let ear = Ear::new(notifier::duplicate(&session)?, session.notifier());
        desk.epochs.store(ear.knows_epochs(), Ordering::Relaxed);
        let listening = notifier::run(ear, inodes, waves, forgets, own_forgets);
        thread::Builder::new().name("notifier".into()).spawn(move || runtime.block_on(listening))?;
        session.spawn()
    };
    // Whatever fails from here on leaves no mount that nobody serves.
    let session = stands().inspect_err(|_| {
        let _ = point::detach(&options.at, &hand);
    })?;
    Ok(Mounted { at: options.at.clone(), hand, session, below, meter })
}

impl Mounted {
    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// How long requests take.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Whether the mount is gone, by whoever's hand.
    pub fn has_ended(&self) -> bool {
        self.session.guard.is_finished()
    }

    /// Takes the mount away, patiently for `patience`; then from the tree only, naming who is inside.
    pub fn unmount(self, patience: Duration) -> io::Result<Farewell> {
        let mut left = patience;
        let step = Duration::from_millis(50);
        let farewell = loop {
            if self.has_ended() {
                break Farewell::Clean;
            }
            match point::leave(&self.at, &self.hand)? {
                Cover::Gone => break Farewell::Clean,
                Cover::Busy if left.is_zero() => {
                    // We ourselves hold the directory underneath.
                    let mut inside = point::inside(&self.at);
                    inside.retain(|(pid, _)| *pid != std::process::id());
                    point::detach(&self.at, &self.hand)?;
                    break Farewell::Detached { inside };
                }
                Cover::Busy => {
                    left = left.saturating_sub(step);
                    thread::sleep(step);
                }
            }
        };
        // What an earlier venus left below kept the directory underneath out of reach; not needed any more. (A helper
        // has seen to that by itself.)
        if !matches!(self.hand, Hand::Helper(_)) {
            point::clear_all(&self.at, &self.hand)?;
        }
        self.below.restore();
        if farewell == Farewell::Clean {
            // A clean end is an end of the session, too; then every answer has been given.
            let _ = self.session.join();
        } else {
            // Its threads serve those inside until the process ends.
            std::mem::forget(self.session);
        }
        Ok(farewell)
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    config.n_threads = Some(cores.min(MAX_THREADS));
    // A descriptor per thread, where the device may be opened by everybody, as it usually may.
    config.clone_fd = OpenOptions::new().read(true).write(true).open(DEVICE).is_ok();
    config
}

/// Mounts without a helper, as the privileged may, for whichever user.
///
/// It may be mounted over the dead mount of an earlier venus: that one keeps the directory underneath out of
/// reach, so that not even between two lives of venus anybody writes into it by mistake.
pub(super) fn mount_directly(options: &Options) -> io::Result<OwnedFd> {
    let device =
        OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|error| named(DEVICE, &error))?;
    // SAFETY: these two cannot fail and touch nothing.
    let (uid, gid) = options.owner.unwrap_or(unsafe { (libc::getuid(), libc::getgid()) });
    let mut data = format!("fd={},rootmode=40755,user_id={uid},group_id={gid}", device.as_raw_fd());
    if options.shared {
        data.push_str(",allow_other");
    }
    let kind = CString::new(format!("fuse.{}", point::SUBTYPE))?;
    let (source, data) = (CString::new(point::SOURCE)?, CString::new(data)?);
    let target = CString::new(options.at.as_os_str().as_bytes())?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOATIME;
    // SAFETY: all five point to strings that live through the call.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    if result < 0 {
        return Err(named(options.at.display(), &io::Error::last_os_error()));
    }
    Ok(OwnedFd::from(device))
}

/// Mounts through the helper of the fuse3 package, as ordinary users may. It is told a socket over which it
/// hands back the device.
fn mount_by_fusermount(options: &Options) -> io::Result<OwnedFd> {
    let mut words = format!("fsname={},subtype={},nosuid,nodev,noatime", point::SOURCE, point::SUBTYPE);
    if options.shared {
        words.push_str(",allow_other");
    }
    let (ours, theirs) = UnixStream::pair()?;
    let number = theirs.as_raw_fd();
    let mut helper = Command::new("fusermount3");
    helper.args(["-o", &words, "--"]).arg(&options.at).env("_FUSE_COMMFD", number.to_string());
    helper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only an async-signal-safe call is made.
    unsafe {
        helper.pre_exec(move || match libc::fcntl(number, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let missing =
        |error| io::Error::other(format!("fusermount3 (package fuse3) is needed to mount: {error}"));
    let helper = helper.spawn().map_err(missing)?;
    drop(theirs);
    let device = receive(&ours)
        .and_then(|(_, device)| device.ok_or_else(|| io::Error::other("fusermount3 handed back no device")));
    let output = helper.wait_with_output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    device
}

/// Receives a byte, and the descriptor that may come with it.
pub(super) fn receive(socket: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut byte = [0_u8; 1];
    let mut room = [0_u64; 8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: all zeros is a valid header; every pointer put into it lives through the call, and the lengths
    // are theirs. The control message is read only if the kernel says that it wrote one, of this type.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&mut part, 1);
        (message.msg_control, message.msg_controllen) = (room.as_mut_ptr().cast(), size_of_val(&room));
        let received = || libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
        match point::unless_interrupted(received) {
            ..0 => return Err(io::Error::last_os_error()),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
        let control = libc::CMSG_FIRSTHDR(&message);
        let rights = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        if control.is_null() || ((*control).cmsg_level, (*control).cmsg_type) != rights {
            return Ok((byte[0], None));
        }
        let device = libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned();
        Ok((byte[0], Some(OwnedFd::from_raw_fd(device))))
    }
}

fn named(what: impl std::fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("mounting at {what}: {error}"))
}

/// Whether this process may mount and register containers with the kernel (CAP_SYS_ADMIN).
pub fn is_privileged() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.is_some_and(|set| u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & CAP_SYS_ADMIN != 0))
}
