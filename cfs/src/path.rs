//! From what was typed to the absolute path that venus understands.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use coda_proto::control::escape;

/// The absolute path of `typed`, without following its last name.
///
/// A path that starts at the mount point is only tidied, so that nothing touches the file system: a broken
/// realm must not hold up a question about it. Any other may lead there through a link, so its directory
/// is resolved.
pub fn absolute(typed: &OsStr, here: &Path, mountpoint: &Path) -> PathBuf {
    let tidy = tidied(&here.join(typed));
    if tidy.starts_with(mountpoint) {
        return tidy;
    }
    let resolved = tidy.parent().and_then(|parent| parent.canonicalize().ok());
    match (resolved, tidy.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => tidy,
    }
}

/// For a message to venus.
pub fn text(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// Without `.`, `..` and double slashes.
fn tidied(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(tidy.pop()),
            Component::CurDir => {}
            other => tidy.push(other),
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_the_mount_point_never_touch_the_disk() {
        let absolute = |typed: &str| absolute(typed.as_ref(), "/coda/r/d".as_ref(), "/coda".as_ref());
        assert_eq!(absolute("f"), PathBuf::from("/coda/r/d/f"));
        assert_eq!(absolute("../e/./f/"), PathBuf::from("/coda/r/e/f"));
        assert_eq!(absolute("/coda//r"), PathBuf::from("/coda/r"));
        assert_eq!(absolute("."), PathBuf::from("/coda/r/d"));
    }

    #[test]
    fn a_link_outside_leads_into_the_mount_but_the_last_name_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir(dir.join("coda")).unwrap();
        std::os::unix::fs::symlink(dir.join("coda"), dir.join("work")).unwrap();
        let mountpoint = dir.join("coda");
        assert_eq!(absolute("work/f".as_ref(), &dir, &mountpoint), mountpoint.join("f"));
        assert_eq!(absolute("work".as_ref(), &dir, &mountpoint), dir.join("work"));
    }
}
