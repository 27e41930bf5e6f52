//! `cfs salvage`: gets what no server has out of a cache directory on which no venus runs any more.
//!
//! cfs knows nothing of caches, so `venus salvage` does it: this finds the program and runs it.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process,
};

use coda_proto::control::{Failure, FailureKind};
use serde_json::json;

use super::Command;
use crate::exit::Exit;

/// Where it goes unless somebody says otherwise.
const USUAL: &str = "salvaged";

pub const COMMAND: Command = Command {
    name: "salvage",
    short: &[],
    usage: "cfs salvage <cachedir> [dir]",
    about: "copies every file that no server has out of a cache into dir (./salvaged); needs no server and no venus",
    run: |talk, args| {
        let words = args.rest(1, 2)?;
        let from = talk.here().join(&words[0]);
        let to = talk.here().join(words.get(1).map_or(OsStr::new(USUAL), |to| to));
        let own = env::current_exe().ok();
        let path = env::var_os("PATH").unwrap_or_default();
        let Some(venus) = program(own.as_deref(), &path) else {
            return Err(Failure {
                kind: FailureKind::NotFound,
                what: "venus".into(),
                why: "the program is neither beside cfs nor in PATH".into(),
                next: format!("where it is, run `venus salvage {} {}`", from.display(), to.display()),
            }
            .into());
        };
        let mut run = process::Command::new(&venus);
        run.arg("salvage").arg(&from).arg(&to);
        // In JSON mode standard output belongs to the script.
        let ran = match talk.json {
            true => run.stderr(process::Stdio::inherit()).output().map(|output| {
                talk.say(&String::from_utf8_lossy(&output.stdout));
                output.status
            }),
            false => run.status(),
        };
        match ran {
            Ok(status) => {
                talk.tell(None, &json!({ "to": to.display().to_string(), "whole": status.success() }));
                if !status.success() {
                    // It has said why.
                    talk.ends_as(Exit::Failed);
                }
                Ok(())
            }
            Err(error) => Err(Failure {
                kind: FailureKind::Io,
                what: venus.display().to_string(),
                why: error.to_string(),
                next: String::new(),
            }
            .into()),
        }
    },
};

/// The venus that belongs to this cfs: the one beside it, else the first in PATH.
fn program(own: Option<&Path>, path: &OsStr) -> Option<PathBuf> {
    let beside = own.and_then(Path::parent).map(Path::to_owned);
    beside.into_iter().chain(env::split_paths(path)).map(|dir| dir.join("venus")).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fake::{Fake, run};

    #[test]
    fn the_venus_beside_cfs_is_preferred_to_one_in_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for place in ["own", "other"] {
            fs::create_dir(at(place)).unwrap();
        }
        let path = env::join_paths([at("nowhere"), at("other")]).unwrap();
        assert_eq!(program(Some(&at("own/cfs")), &path), None);
        fs::write(at("other/venus"), "").unwrap();
        assert_eq!(program(Some(&at("own/cfs")), &path), Some(at("other/venus")));
        fs::write(at("own/venus"), "").unwrap();
        assert_eq!(program(Some(&at("own/cfs")), &path), Some(at("own/venus")));
    }

    #[test]
    fn it_wants_a_directory() {
        assert_eq!(run(&mut Fake::world(), "salvage", "").code, 255);
    }
}
