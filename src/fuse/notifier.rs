//! Telling the kernel what to forget.
//!
//! A thread of its own, holding no lock: the kernel may make it wait for a directory that is busy with a
//! request of ours. Three messages exist. `inval_inode` drops attributes and pages. *Expire* makes the
//! kernel look one name up again (dropping the name outright would take the ground from under processes
//! whose working directory it is). *Epoch* makes it look up all names again: it serves changed directories,
//! whose names the kernel remembers and we do not, and files whose new version needs a new number.

use std::{
    fs::File,
    io::{self, IoSlice, Write},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, RwLock},
    time::Duration,
};

use fuser::{INodeNo, Notifier};
use tokio::sync::mpsc::UnboundedReceiver;

use super::inode::Inodes;
use crate::venus::face::{Forget, ObjectId};

const NOTIFY_INVAL_ENTRY: u32 = 3;
const NOTIFY_INC_EPOCH: u32 = 8;
const EXPIRE_ONLY: u32 = 1;

/// A look-up that was under way while its name expired may have renewed it just after.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Counts the waves of forgetting. Whoever answers the kernel holds the read side: an answer that began in
/// an earlier wave may not be believed for long, and none is written while a wave begins.
pub type Waves = RwLock<u64>;

/// The kernel's ear.
pub struct Ear {
    device: File,
    notifier: Notifier,
    epochs: bool,
}

impl Ear {
    /// Speaks to the kernel through a duplicate of the session's descriptor.
    pub fn new(device: OwnedFd, notifier: Notifier) -> Ear {
        let mut ear = Ear { device: File::from(device), notifier, epochs: true };
        ear.epochs = ear.send(NOTIFY_INC_EPOCH, &[]).is_ok();
        ear
    }

    /// Whether the kernel can be told to look up all names again. Without it names may not be believed long.
    pub fn knows_epochs(&self) -> bool {
        self.epochs
    }

    fn epoch(&self) -> io::Result<()> {
        if self.epochs { self.send(NOTIFY_INC_EPOCH, &[]) } else { Ok(()) }
    }

    fn expire(&self, dir: u64, name: &[u8]) -> io::Result<()> {
        let length = u32::try_from(name.len()).map_err(io::Error::other)?;
        let mut body = Vec::with_capacity(17 + name.len());
        body.extend_from_slice(&dir.to_ne_bytes());
        body.extend_from_slice(&length.to_ne_bytes());
        body.extend_from_slice(&EXPIRE_ONLY.to_ne_bytes());
        body.extend_from_slice(name);
        body.push(0);
        self.send(NOTIFY_INVAL_ENTRY, &body)
    }

    /// One message: length, code, and the zero that tells it from a reply.
    fn send(&self, code: u32, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(16 + body.len()).map_err(io::Error::other)?;
        let mut header = [0; 16];
        header[..4].copy_from_slice(&length.to_ne_bytes());
        header[4..8].copy_from_slice(&code.to_ne_bytes());
        (&self.device).write_vectored(&[IoSlice::new(&header), IoSlice::new(body)]).map(|_| ())
    }
}

/// Passes on what must be forgotten until `own`, the adapter's side, is closed.
pub async fn run(
    ear: Ear,
    inodes: Arc<Inodes>,
    waves: Arc<Waves>,
    mut forgets: UnboundedReceiver<Forget>,
    mut own: UnboundedReceiver<Forget>,
) {
    let mut again = Vec::new();
    let mut manager_lives = true;
    loop {
        let mut batch = std::mem::take(&mut again);
        let first = tokio::select! {
            biased;
            forget = own.recv() => match forget {
                Some(forget) => Some(forget),
                None => return,
            },
            forget = forgets.recv(), if manager_lives => {
                manager_lives = forget.is_some();
                forget
            }
            () = tokio::time::sleep(AGAIN_AFTER), if !batch.is_empty() => None,
        };
        let repeats = batch.len();
        batch.extend(first);
        while let Ok(forget) = forgets.try_recv() {
            batch.push(forget);
        }
        while let Ok(forget) = own.try_recv() {
            batch.push(forget);
        }
        if batch.len() > repeats {
            *waves.write().expect("no panic while the waves are locked") += 1;
        }
        tell(&ear, &inodes, &batch);
        again = batch.drain(repeats..).filter(|forget| matches!(forget, Forget::Name { .. })).collect();
    }
}

fn tell(ear: &Ear, inodes: &Inodes, batch: &[Forget]) {
    let mut all_names = false;
    for forget in batch {
        let told = match forget {
            Forget::Object { id, data } => {
                all_names |= *data && is_directory(*id);
                match inodes.changed(*id, *data) {
                    Some((ino, behind)) => {
                        all_names |= behind;
                        // Pages of contents that are open stay: they belong to the old version.
                        let (offset, length) = if *data && !behind { (0, 0) } else { (-1, 0) };
                        ear.notifier.inval_inode(INodeNo(ino), offset, length)
                    }
                    None => Ok(()),
                }
            }
            Forget::Name { dir, name } => ear.expire(inodes.number(*dir), name),
        };
        // The kernel had forgotten already, or the mount is gone.
        if let Err(error) = told
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(?forget, %error, "the kernel would not forget");
        }
    }
    if all_names && let Err(error) = ear.epoch() {
        tracing::debug!(%error, "the kernel would not begin an epoch");
    }
}

fn is_directory(id: ObjectId) -> bool {
    // What venus makes up has no fid of a kind, and is a directory.
    id.realm == 0 || id.fid.is_directory()
}

/// A duplicate of a session's descriptor.
pub fn duplicate(session: impl AsFd) -> io::Result<OwnedFd> {
    session.as_fd().try_clone_to_owned()
}
