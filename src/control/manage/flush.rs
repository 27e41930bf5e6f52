//! Forgetting cached copies: what is below goes first, and what is in use stays and is named.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::ffi::OsStrExt,
    time::Duration,
};

use coda_proto::control::{Failure, FailureKind, Flushed, Kept, unescape};

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
/// How long processes are looked at.
const LOOKING: Duration = Duration::from_secs(1);

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
        Ok(with_holders(flushed.map_err(|error| failure(path, &error))?).await)
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
        Ok(with_holders(flushed.map_err(|error| failure(path, &error))?).await)
    }

    /// Forgets whatever can be forgotten.
    pub(super) async fn flush_cache(&self) -> Result<Flushed, Failure> {
        let all = self.core.cache.store(|store| {
            let mut all = BTreeSet::new();
            for (realm, volume) in store.volumes()? {
                all.extend(store.of_volume(realm, volume)?.into_iter().map(|(id, _)| id));
            }
            Ok(all)
        });
        let flushed = all.and_then(|all| self.flush(all));
        Ok(with_holders(flushed.map_err(|error| failure("the cache", &error))?).await)
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
            self.core.cache.void(id.realm, |volume| volume == id.fid.volume);
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
        let named = |(_, path, why): (ObjectId, String, &str)| Kept { path, why: why.to_owned() };
        flushed.kept = kept.into_iter().map(named).collect();
        Ok(flushed)
    }
}

/// Adds the processes that have what stayed open, where they can be seen. Nothing waits for them: looking
/// at a process that is stuck may get stuck too.
async fn with_holders(mut flushed: Flushed) -> Flushed {
    if flushed.kept.is_empty() {
        return flushed;
    }
    let paths: Vec<String> = flushed.kept.iter().map(|kept| kept.path.clone()).collect();
    let looked = tokio::time::timeout(LOOKING, tokio::task::spawn_blocking(move || holders(&paths)));
    if let Ok(Ok(mut holders)) = looked.await {
        for kept in &mut flushed.kept {
            if let Some(pids) = holders.remove(&kept.path) {
                kept.why = format!("{} (by process {})", kept.why, pids.join(", "));
            }
        }
    }
    flushed
}

/// Processes that have these paths open. Those of other users can be seen by root only.
fn holders(paths: &[String]) -> BTreeMap<String, Vec<String>> {
    let wanted: BTreeMap<Vec<u8>, &String> = paths.iter().map(|path| (unescape(path), path)).collect();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for pid in numbers.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let files: BTreeSet<_> = open.flatten().filter_map(|fd| fd.path().read_link().ok()).collect();
        for path in files.iter().filter_map(|file| wanted.get(file.as_os_str().as_bytes())) {
            let pids = found.entry((*path).clone()).or_default();
            if pids.len() < HOLDERS {
                pids.push(pid.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_has_a_file_open_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("held").display().to_string();
        let kept = Flushed { objects: 0, kept: vec![Kept { path: path.clone(), why: "it is open".into() }] };
        assert_eq!(with_holders(kept.clone()).await, kept);
        let _held = std::fs::File::create(&path).unwrap();
        let why = &with_holders(kept).await.kept[0].why;
        assert_eq!(*why, format!("it is open (by process {})", std::process::id()));
    }
}
