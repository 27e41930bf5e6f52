//! What a checkpoint's list says was removed or renamed: done again where what it is about is still there.
//!
//! What was made while apart is in the archive, under the name that it had in the end: its own removals and renames are
//! left out. Nothing that is there is replaced by a rename, and only empty directories go.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt, fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use coda_proto::control::unescape;

use super::below;

/// One removal or rename, below the directory of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Remove(PathBuf),
    RemoveDirectory(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl fmt::Display for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Remove(path) => write!(to, "remove  {}", path.display()),
            Step::RemoveDirectory(path) => write!(to, "rmdir   {}", path.display()),
            Step::Rename(from, into) => write!(to, "rename  {} to {}", from.display(), into.display()),
        }
    }
}

/// The steps of a list, in its order, and how many of its lines cannot be followed because they name nothing surely.
pub fn steps(list: &str, dir: &Path) -> (Vec<Step>, usize) {
    let mut made: BTreeSet<Vec<u8>> = BTreeSet::new();
    let (mut steps, mut unclear) = (Vec::new(), 0);
    for line in list.lines() {
        let Some((verb, rest)) = line.split_once('\t') else { continue };
        let place = |path: &[u8]| below(dir, path);
        match verb {
            "Create" | "Mkdir" => {
                made.insert(unescape(rest));
            }
            "Symlink" => {
                let name = rest.split(" (--> ").next().unwrap_or(rest);
                made.insert(unescape(name));
            }
            "Remove" | "Rmdir" => {
                let path = unescape(rest);
                if made.remove(&path) {
                    continue;
                }
                match (place(&path), verb) {
                    (Some(path), "Remove") => steps.push(Step::Remove(path)),
                    (Some(path), _) => steps.push(Step::RemoveDirectory(path)),
                    (None, _) => unclear += 1,
                }
            }
            "Rename" => {
                let mut parts = rest.strip_suffix(')').unwrap_or_default().split(" (to: ");
                let (Some(from), Some(into), None) = (parts.next(), parts.next(), parts.next()) else {
                    unclear += 1;
                    continue;
                };
                let (from, into) = (unescape(from), unescape(into));
                if made.remove(&from) {
                    made.insert(into);
                    continue;
                }
                match (place(&from), place(&into)) {
                    (Some(from), Some(into)) => steps.push(Step::Rename(from, into)),
                    _ => unclear += 1,
                }
            }
            _ => {}
        }
    }
    (steps, unclear)
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was done.
    Now,
    /// There is nothing left to do.
    Before,
    /// Something stands in its way.
    Not,
}

impl Step {
    /// Whether there is something to do, as far as can be seen.
    pub fn is_open(&self) -> bool {
        let (Step::Remove(path) | Step::RemoveDirectory(path) | Step::Rename(path, _)) = self;
        fs::symlink_metadata(path).is_ok()
    }

    pub fn follow(&self) -> io::Result<Done> {
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let outcome = match self {
            Step::Remove(path) => match fs::symlink_metadata(path) {
                Ok(there) if there.is_dir() => return Ok(Done::Not),
                _ => fs::remove_file(path),
            },
            Step::RemoveDirectory(path) => fs::remove_dir(path),
            Step::Rename(from, into) => match (fs::symlink_metadata(from), fs::symlink_metadata(into)) {
                (Err(error), _) if gone(&error) => return Ok(Done::Before),
                (_, Ok(_)) => return Ok(Done::Not),
                _ => {
                    into.parent().map_or(Ok(()), fs::create_dir_all)?;
                    fs::rename(from, into)
                }
            },
        };
        match outcome {
            Ok(()) => Ok(Done::Now),
            Err(error) if gone(&error) => Ok(Done::Before),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(Done::Not),
            Err(error) => Err(error),
        }
    }
}

/// The list that a checkpoint wrote beside its archive.
pub fn list_beside(archive: &Path) -> PathBuf {
    let mut name = OsString::from_vec(archive.file_stem().unwrap_or_default().as_encoded_bytes().to_vec());
    name.push(".cml");
    archive.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_and_removed_or_renamed_while_apart_concerns_nobody_else() {
        let list = "Create\tnew\nRename\tnew (to: newer)\nRemove\tnewer\nRemove\told\nMkdir\td\nRmdir\td\nRmdir\te\n\
                    Rename\ta (to: b\\\\c)\nRename\tx (to: y (to: z)\nRemove\t../up\nStore\tf (length = 5)\nnonsense\n";
        let at = |name: &str| PathBuf::from("/coda/r").join(name);
        assert_eq!(
            steps(list, Path::new("/coda/r")),
            (
                vec![
                    Step::Remove(at("old")),
                    Step::RemoveDirectory(at("e")),
                    Step::Rename(at("a"), at("b\\c")),
                ],
                2
            )
        );
    }
}
