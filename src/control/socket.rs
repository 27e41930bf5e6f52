//! The socket itself: its place, who is let in, how many at once.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{net::UnixListener, sync::Semaphore};

use super::{Manager, Owners, conversation};

/// Tools that talk at the same time, at most; further ones wait in the kernel's queue.
const TOOLS: usize = 64;

/// A bound control socket; its name goes away with it.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// Binds the socket. A name that a dead venus left is taken over; a living venus' is refused.
pub fn bind(path: &Path) -> io::Result<Control> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                let what = format!("{}: another venus answers there", path.display());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    // Anybody may knock: who it is, the kernel says.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(Control { listener, path: path.to_owned() })
}

impl Control {
    /// Serves until dropped.
    pub async fn serve<M: Manager>(self, manager: Arc<M>, owners: Owners, mountpoint: PathBuf) {
        let places = Arc::new(Semaphore::new(TOOLS));
        let mountpoint: Arc<str> = mountpoint.display().to_string().into();
        let mut talks = tokio::task::JoinSet::new();
        loop {
            let place = places.clone().acquire_owned().await.expect("never closed");
            while talks.try_join_next().is_some() {}
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: those who talk now will free some.
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (manager, mountpoint) = (manager.clone(), mountpoint.clone());
            talks.spawn(async move {
                if let Err(error) = conversation::talk(stream, &*manager, owners, &mountpoint).await {
                    tracing::debug!(%error, "a tool was dropped");
                }
                drop(place);
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
