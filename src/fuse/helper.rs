//! A helper that mounts, so that venus itself needs no privilege at all.
//!
//! systemd runs `venus mount-helper` as root for each connection to a socket that only venus' user may open. The
//! place and whose mount it is are on the helper's command line: who connects can have exactly that mount made,
//! and taken away.
//!
//! ```text
//!  venus           helper
//!  M ───────────>  clears what an earlier venus left, mounts       <── + and the device, or - and why not
//!  L ───────────>  unmounts unless somebody is inside              <── + gone, b busy, or - and why not
//!  D ───────────>  takes the mount out of the tree                 <── + or - and why not
//! ```
//!
//! Nothing is lost with a helper that is missing, refuses, or dies in the middle: venus says which it was and does not
//! start. A device that nobody took is closed by the kernel, and the mount that it leaves is cleared by the next M.

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::Path,
    time::Duration,
};

use super::{
    mount::{Options, mount_directly, receive},
    point::{self, Cover, Hand},
};

const MOUNT: u8 = b'M';
const LEAVE: u8 = b'L';
const DETACH: u8 = b'D';
const DONE: u8 = b'+';
const BUSY: u8 = b'b';
const REFUSED: u8 = b'-';

/// A helper that is there answers within this time: it looks whether an earlier venus lives.
const PATIENCE: Duration = Duration::from_secs(30);

/// One question: whom it is put to, and for how long it waits.
struct Question<'a> {
    socket: &'a Path,
    patience: Duration,
}

impl Question<'_> {
    fn to(socket: &Path) -> Question<'_> {
        Question { socket, patience: PATIENCE }
    }

    /// The answer: a byte, and the device that may come with it.
    fn ask(&self, what: u8) -> io::Result<(u8, Option<OwnedFd>)> {
        let mut stream = UnixStream::connect(self.socket).map_err(|error| self.named(&error))?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.write_all(&[what]).map_err(|error| self.named(&error))?;
        match receive(&stream).map_err(|error| self.named(&error))? {
            (REFUSED, _) => {
                let mut text = String::new();
                let _ = stream.read_to_string(&mut text);
                Err(io::Error::other(format!("the mount helper: {}", text.trim())))
            }
            answer => Ok(answer),
        }
    }

    fn named(&self, error: &io::Error) -> io::Error {
        let what = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "it ended without an answer".to_owned()
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("no answer within {} s", self.patience.as_secs())
            }
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("the mount helper at {}: {what}", self.socket.display()))
    }

    fn mount(&self) -> io::Result<OwnedFd> {
        match self.ask(MOUNT)? {
            (DONE, Some(device)) => Ok(device),
            _ => Err(self.nonsense()),
        }
    }

    fn leave(&self) -> io::Result<Cover> {
        match self.ask(LEAVE)?.0 {
            DONE => Ok(Cover::Gone),
            BUSY => Ok(Cover::Busy),
            _ => Err(self.nonsense()),
        }
    }

    fn detach(&self) -> io::Result<()> {
        match self.ask(DETACH)?.0 {
            DONE => Ok(()),
            _ => Err(self.nonsense()),
        }
    }

    fn nonsense(&self) -> io::Error {
        io::Error::other(format!("the mount helper at {} answers nonsense", self.socket.display()))
    }
}

/// Has the helper mount. Answers the device.
pub fn mount(socket: &Path) -> io::Result<OwnedFd> {
    Question::to(socket).mount()
}

/// Has the helper unmount unless somebody is inside.
pub fn leave(socket: &Path) -> io::Result<Cover> {
    Question::to(socket).leave()
}

/// Has the helper take the mount out of the tree.
pub fn detach(socket: &Path) -> io::Result<()> {
    Question::to(socket).detach()
}

/// Answers one question of venus, with the privilege of this process.
pub fn serve(mut stream: UnixStream, options: &Options) -> io::Result<()> {
    let options = &Options { at: point::known_as(&options.at), ..options.clone() };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut what = [0];
    stream.read_exact(&mut what)?;
    let answer = match what[0] {
        MOUNT => made(options).map(|device| (DONE, Some(device))),
        LEAVE => point::leave(&options.at, &Hand::Own).and_then(|cover| match cover {
            Cover::Gone => uncovered(&options.at).map(|()| (DONE, None)),
            Cover::Busy => Ok((BUSY, None)),
        }),
        DETACH => {
            let gone = point::detach(&options.at, &Hand::Own).and_then(|()| uncovered(&options.at));
            gone.map(|()| (DONE, None))
        }
        other => Err(io::Error::other(format!("{other:#x} is nothing that this helper does"))),
    };
    match answer {
        Ok((byte, device)) => {
            if let Err(error) = send(&stream, byte, device.as_ref()) {
                // Nobody would answer what is asked of it.
                if device.is_some() {
                    let _ = point::detach(&options.at, &Hand::Own);
                }
                return Err(error);
            }
        }
        Err(error) => stream.write_all(format!("-{error}").as_bytes())?,
    }
    stream.shutdown(Shutdown::Write)
}

fn made(options: &Options) -> io::Result<OwnedFd> {
    point::clear_stale(&options.at, &Hand::Own)?;
    let mut below = point::Below::open(&options.at, &Hand::Own)?;
    let device = mount_directly(options)?;
    // Nobody would answer what is asked of it.
    below.guard().inspect_err(|_| drop(point::detach(&options.at, &Hand::Own)))?;
    Ok(device)
}

/// Nothing covers the directory any more: what earlier lives of venus left below goes too, and it was made read-only
/// while it was covered.
fn uncovered(at: &Path) -> io::Result<()> {
    point::clear_all(at, &Hand::Own)?;
    let mode = fs::metadata(at)?.permissions().mode();
    fs::set_permissions(at, fs::Permissions::from_mode(mode | 0o200))
}

/// Sends a byte, and a descriptor along with it.
fn send(socket: &UnixStream, byte: u8, device: Option<&OwnedFd>) -> io::Result<()> {
    let mut bytes = [byte];
    let mut room = [0_u64; 8];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid header; every pointer put into it lives through the call, and the room for the
    // control message is larger than one descriptor needs.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&mut part, 1);
        if let Some(device) = device {
            message.msg_control = room.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) as _;
            let control = libc::CMSG_FIRSTHDR(&message);
            ((*control).cmsg_level, (*control).cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
            (*control).cmsg_len = libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as _;
            libc::CMSG_DATA(control).cast::<libc::c_int>().write_unaligned(device.as_raw_fd());
        }
        point::unless_interrupted(|| libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL))
    };
    match sent {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The connection that systemd hands to the helper as its standard input.
pub fn connection() -> io::Result<UnixStream> {
    // SAFETY: the descriptor is this process' own copy, and nothing else reads it.
    let stream = unsafe { UnixStream::from_raw_fd(0) };
    // Fails on whatever is no socket.
    stream.peer_addr()?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::net::UnixListener, thread, thread::JoinHandle};

    use super::*;

    /// A helper that is asked once. Answers what it was asked.
    #[allow(clippy::disallowed_methods)] // The other side of a socket that blocks.
    fn helper(socket: &Path, answer: impl FnOnce(UnixStream) + Send + 'static) -> JoinHandle<u8> {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut what = [0];
            stream.read_exact(&mut what).unwrap();
            answer(stream);
            what[0]
        })
    }

    fn room() -> (tempfile::TempDir, std::path::PathBuf) {
        let room = tempfile::tempdir().unwrap();
        let socket = room.path().join("mount.sock");
        (room, socket)
    }

    #[test]
    fn the_device_comes_with_the_answer_and_is_the_one_that_was_sent() {
        let (room, socket) = room();
        let path = room.path().join("device");
        fs::write(&path, "the device").unwrap();
        let device = OwnedFd::from(File::open(&path).unwrap());
        let helper = helper(&socket, move |stream| send(&stream, DONE, Some(&device)).unwrap());
        let mut text = String::new();
        File::from(mount(&socket).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), helper.join().unwrap()), ("the device", MOUNT));
    }

    #[test]
    fn a_helper_that_is_not_there_is_named() {
        let (_room, socket) = room();
        let why = mount(&socket).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::NotFound);
        assert!(why.to_string().contains("mount.sock"), "{why}");
    }

    #[test]
    fn what_a_helper_says_that_refuses_is_passed_on() {
        let (_room, socket) = room();
        let helper = helper(&socket, |mut stream| stream.write_all(b"-/coda: not empty").unwrap());
        assert_eq!(detach(&socket).unwrap_err().to_string(), "the mount helper: /coda: not empty");
        assert_eq!(helper.join().unwrap(), DETACH);
    }

    #[test]
    fn a_helper_that_dies_before_it_answers_is_an_error_at_once() {
        let (_room, socket) = room();
        let helper = helper(&socket, drop);
        let why = leave(&socket).unwrap_err().to_string();
        assert!(why.ends_with("it ended without an answer"), "{why}");
        assert_eq!(helper.join().unwrap(), LEAVE);
    }

    #[test]
    fn a_helper_that_says_nothing_is_waited_for_no_longer_than_that() {
        let (_room, socket) = room();
        let listener = UnixListener::bind(&socket).unwrap();
        let question = Question { socket: &socket, patience: Duration::from_millis(20) };
        let why = question.mount().unwrap_err();
        assert!(why.to_string().contains("no answer within"), "{why}");
        drop(listener);
    }

    #[test]
    fn a_helper_that_says_yes_and_hands_over_nothing_is_not_believed() {
        let (_room, socket) = room();
        let helper = helper(&socket, |stream| send(&stream, DONE, None).unwrap());
        assert!(mount(&socket).unwrap_err().to_string().contains("nonsense"));
        helper.join().unwrap();
    }

    #[test]
    fn a_helper_does_nothing_that_it_was_not_made_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut ours = ours;
        ours.write_all(b"x").unwrap();
        serve(theirs, &Options::at("/nowhere")).unwrap();
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "-0x78 is nothing that this helper does");
    }
}
