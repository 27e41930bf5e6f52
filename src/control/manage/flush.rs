//! Forgetting cached copies: what is below goes first, and what is in use stays and is named.

use std::collections::BTreeSet;

use coda_proto::control::{Failure, FailureKind, Flushed, Kept};

use super::wrong;
use crate::{
    control::failure::failure,
    error::Error,
    venus::{
        Venus,
        face::{Caller, ObjectId},
    },
};

/// Objects that stayed and are named, at most.
const NAMED: usize = 100;
/// Processes that are named for one object, at most.
const HOLDERS: usize = 5;

impl Venus {
    /// Forgets an object and what is below it. Where its volume lives is looked up again in any case.
    pub(super) async fn flush_object(&self, who: Caller, path: &str) -> Result<Flushed, Failure> {
        let roots = match path.starts_with('/') {
            true => {
                let id = self.find(who, path).await?;
                let link = self.place(who, path).await?.map(|place| place.link);
                [Some(id), link].into_iter().flatten().collect::<BTreeSet<_>>()
            }
            false => BTreeSet::from([self.mounted_volume(path)?]),
        };
        let flushed = self.below(roots.iter().copied()).and_then(|doomed| self.flush(doomed));
        for root in &roots {
            self.look_up_again(*root);
        }
        flushed.map_err(|error| failure(path, &error))
    }

    /// Forgets whatever of a volume can be forgotten.
    pub(super) async fn flush_volume(&self, who: Caller, path: &str) -> Result<Flushed, Failure> {
        let id = match path.starts_with('/') {
            true => self.find(who, path).await?,
            false => self.mounted_volume(path)?,
        };
        let all = self.core.cache.store(|store| store.of_volume(id.realm, id.fid.volume));
        let flushed = all.and_then(|all| self.flush(all.into_iter().map(|(id, _)| id).collect()));
        self.look_up_again(id);
        flushed.map_err(|error| failure(path, &error))
    }

    /// Forgets whatever can be forgotten.
    pub(super) fn flush_cache(&self) -> Result<Flushed, Failure> {
        let all = self.core.cache.store(|store| {
            let mut all = BTreeSet::new();
            for (realm, volume) in store.volumes()? {
                all.extend(store.of_volume(realm, volume)?.into_iter().map(|(id, _)| id));
            }
            Ok(all)
        });
        all.and_then(|all| self.flush(all)).map_err(|error| failure("the cache", &error))
    }

    fn mounted_volume(&self, name: &str) -> Result<ObjectId, Failure> {
        self.volume_named(name).ok_or_else(|| {
            wrong(name, FailureKind::NotFound, "neither a path here nor a volume that was met")
        })
    }

    fn look_up_again(&self, id: ObjectId) {
        if let Ok(realm) = self.core.realm_name(id.realm)
            && id.realm != 0
        {
            self.core.peers.forget_volume(&realm, id.fid.volume);
            self.core.cache.void(id.realm, Some(id.fid.volume));
        }
    }

    /// Objects and whatever is cached below them, mounted volumes included.
    fn below(&self, roots: impl Iterator<Item = ObjectId>) -> Result<BTreeSet<ObjectId>, Error> {
        let mut found: BTreeSet<ObjectId> = BTreeSet::new();
        let mut open: Vec<ObjectId> = roots.collect();
        while let Some(id) = open.pop() {
            if !found.insert(id) {
                continue;
            }
            open.extend(self.core.cache.store(|store| store.children(id))?);
            open.extend(self.core.covered_by(id));
        }
        Ok(found)
    }

    fn flush(&self, mut doomed: BTreeSet<ObjectId>) -> Result<Flushed, Error> {
        let mut flushed = Flushed::default();
        let mut kept = Vec::new();
        let mut progress = true;
        // A directory may go once nothing below it is cached any more.
        while std::mem::take(&mut progress) {
            for id in std::mem::take(&mut doomed) {
                if !self.core.cache.store(|store| store.children(id))?.is_empty() {
                    doomed.insert(id);
                    continue;
                }
                // Named while its parents are still here.
                let path = self.path_of(id).unwrap_or_else(|| id.fid.to_string());
                self.core.cache.forget_object(id, true);
                match self.core.cache.flush(id)? {
                    Ok(()) => {
                        flushed.objects += 1;
                        progress = true;
                    }
                    Err(why) => kept.push((id, path, why)),
                }
            }
        }
        for id in doomed.iter().chain(kept.iter().map(|(id, ..)| id)) {
            self.core.cache.demote(*id)?;
        }
        kept.truncate(NAMED);
        let named = |(_, path, why): (ObjectId, String, &str)| Kept { why: reason(&path, why), path };
        flushed.kept = kept.into_iter().map(named).collect();
        Ok(flushed)
    }
}

/// Why it stays, with the processes that have it open where they can be seen.
fn reason(path: &str, why: &str) -> String {
    match holders(path).as_slice() {
        [] => why.to_owned(),
        pids => format!("{why} (by process {})", pids.join(", ")),
    }
}

/// Processes that have this path open. Those of other users can be seen by root only.
fn holders(path: &str) -> Vec<String> {
    let path = coda_proto::control::unescape(path);
    let path = std::path::Path::new(std::ffi::OsStr::new(std::str::from_utf8(&path).unwrap_or("")));
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let holds = |pid: &String| {
        pid.bytes().all(|byte| byte.is_ascii_digit())
            && std::fs::read_dir(format!("/proc/{pid}/fd"))
                .is_ok_and(|open| open.flatten().any(|fd| fd.path().read_link().is_ok_and(|to| to == path)))
    };
    numbers.filter(holds).take(HOLDERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_a_file_open_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("held");
        let text = path.display().to_string();
        assert_eq!(reason(&text, "it is open"), "it is open");
        let _held = std::fs::File::create(&path).unwrap();
        assert_eq!(reason(&text, "it is open"), format!("it is open (by process {})", std::process::id()));
    }
}
