//! Where a demonstration lives: its state, its mount point, its control socket.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::fuse::{
    mount::is_privileged,
    point::{self, Hand},
};

/// A socket's name is longer nowhere (`sun_path`, with its final zero).
const SOCKET_LIMIT: usize = 107;

/// The directories of a demonstration.
#[derive(Debug)]
pub struct Place {
    state: PathBuf,
    mount: PathBuf,
    socket: PathBuf,
    temporary: bool,
    made_mount: bool,
}

impl Place {
    /// Makes what is missing. Without `state` it is temporary; without `mount` it is /coda for root and a
    /// directory of its own for others.
    pub fn prepare(state: Option<&Path>, mount: Option<&Path>) -> anyhow::Result<Place> {
        let (state, temporary) = match state {
            Some(state) => (made(state)?.0, false),
            None => (own_directory(&std::env::temp_dir())?, true),
        };
        // Not below the state: that is removed with everything in it.
        let mount = match mount {
            Some(mount) => mount.to_owned(),
            None if is_privileged() => PathBuf::from("/coda"),
            None => state.with_file_name(beside(&state)),
        };
        let mount = std::path::absolute(mount)?;
        point::clear_stale(&mount, &Hand::here()).context("the mount point (--mount DIR names another)")?;
        let (mount, made_mount) = made(&mount)?;
        let socket = socket(&state, "");
        Ok(Place { state, mount, socket, temporary, made_mount })
    }

    /// Where a second client lives: in the same state, mounted beside the first.
    pub fn second(&self) -> anyhow::Result<Place> {
        let mut mount = self.mount.clone().into_os_string();
        mount.push("-2");
        let mount = PathBuf::from(mount);
        point::clear_stale(&mount, &Hand::here())?;
        let (mount, made_mount) = made(&mount)?;
        let state = made(&self.state.join("second"))?.0;
        let socket = socket(&state, "-2");
        Ok(Place { state, mount, socket, temporary: false, made_mount })
    }

    /// Where servers and venus keep what they have.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where the tree is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether nothing is kept.
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Removes what was made and is not to be kept. Nothing may be mounted any more: never would a mounted
    /// tree be emptied, because only an empty mount point is removed.
    pub fn leave(&self) {
        if self.made_mount {
            let _ = fs::remove_dir(&self.mount);
        }
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.state)
        {
            tracing::warn!(state = %self.state.display(), %error, "the temporary state could not be removed");
        }
    }
}

/// The control socket: in the state, or where that makes a path too long for a socket, among temporary files.
fn socket(state: &Path, which: &str) -> PathBuf {
    let socket = state.join("venus.sock");
    match socket.as_os_str().as_bytes().len() > SOCKET_LIMIT {
        true => std::env::temp_dir().join(format!("coda-demo-{}{which}.sock", std::process::id())),
        false => socket,
    }
}

/// A directory, made if it is missing; its absolute name, and whether it was made.
fn made(path: &Path) -> anyhow::Result<(PathBuf, bool)> {
    let name = || path.display().to_string();
    let path = std::path::absolute(path)?;
    // A dead mount is there, whatever asking it says.
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        fs::create_dir_all(&path).with_context(name)?;
        return Ok((path.canonicalize().with_context(name)?, true));
    }
    Ok((path.canonicalize().unwrap_or(path), false))
}

/// A new directory that nobody else may enter.
fn own_directory(above: &Path) -> anyhow::Result<PathBuf> {
    let name = above.join(format!("coda-demo-{}-{:08x}", std::process::id(), getrandom::u32().unwrap_or(0)));
    fs::DirBuilder::new().mode(0o700).create(&name).with_context(|| name.display().to_string())?;
    Ok(name.canonicalize()?)
}

fn beside(state: &Path) -> String {
    let name = state.file_name().map_or("coda".into(), |name| name.to_string_lossy());
    format!("{name}.mount")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_place_leaves_nothing_behind_and_a_kept_one_its_state() {
        let room = tempfile::tempdir().unwrap();
        let mount = room.path().join("m");
        let place = Place::prepare(None, Some(&mount)).unwrap();
        let state = place.state().to_owned();
        fs::write(state.join("x"), "").unwrap();
        assert!(mount.is_dir() && place.is_temporary());
        place.leave();
        assert!(!mount.exists() && !state.exists());

        let kept = room.path().join("kept");
        let place = Place::prepare(Some(&kept), Some(&mount)).unwrap();
        place.leave();
        assert!(kept.is_dir() && !mount.exists());
    }

    #[test]
    fn a_state_with_a_very_long_name_still_has_a_socket() {
        let room = tempfile::tempdir().unwrap();
        let long = room.path().join("n".repeat(120));
        let place = Place::prepare(Some(&long), Some(&room.path().join("m"))).unwrap();
        assert!(place.socket().as_os_str().len() <= SOCKET_LIMIT);
    }
}
