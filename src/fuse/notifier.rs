//! Telling the kernel what to forget.
//!
//! A thread of its own, holding no lock, and sending only what takes none in the kernel that a request of
//! ours may hold. Invalidating a single name does: it waits for the directory, which a `create` that waits
//! for a server keeps locked; and a venus that is killed while its thread waits there never ends, because
//! the request it would have to answer never does. So there are two messages. `inval_inode` drops attributes
//! and pages. *Epoch* makes the kernel look all names up again, at their next use: cheap, since what has not
//! changed is answered from the cache.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, RwLock},
};

use fuser::{INodeNo, Notifier};
use tokio::sync::mpsc::UnboundedReceiver;

use super::inode::Inodes;
use crate::venus::face::{Forget, ObjectId};

const NOTIFY_INC_EPOCH: u32 = 8;

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
        ear.epochs = ear.send(NOTIFY_INC_EPOCH).is_ok();
        ear
    }

    /// Whether the kernel can be told to look up all names again. Without it names may not be believed long.
    pub fn knows_epochs(&self) -> bool {
        self.epochs
    }

    /// Begins an epoch. Where the kernel knows none, names live for a moment only.
    fn epoch(&self) -> io::Result<()> {
        if self.epochs { self.send(NOTIFY_INC_EPOCH) } else { Ok(()) }
    }

    /// A message without a body: length, code, and the zero that tells it from a reply.
    fn send(&self, code: u32) -> io::Result<()> {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&16_u32.to_ne_bytes());
        header[4..8].copy_from_slice(&code.to_ne_bytes());
        (&self.device).write_all(&header)
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
    let mut manager_lives = true;
    loop {
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
        };
        let mut batch: Vec<Forget> = first.into_iter().collect();
        while let Ok(forget) = forgets.try_recv() {
            batch.push(forget);
        }
        while let Ok(forget) = own.try_recv() {
            batch.push(forget);
        }
        if !batch.is_empty() {
            *waves.write().expect("no panic while the waves are locked") += 1;
            tell(&ear, &inodes, &batch);
        }
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
            Forget::Name { dir, .. } => {
                all_names = true;
                // The listing, too, at the next open of the directory.
                inodes.changed(*dir, true);
                Ok(())
            }
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
