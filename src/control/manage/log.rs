//! The log as people see and treat it: what is pending, how volumes are to be treated, what is given up.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use coda_proto::{
    VolumeId,
    control::{Failure, FailureKind, PendingRecord, PendingUser, PendingVolume, escape},
};

use super::{
    tar::{Archive, Kind},
    wrong,
};
use crate::{
    cml::Mode,
    control::failure::failure,
    env::Container,
    reintegration::{Checkpoint, KeptAs, Line, VolumeReport},
    venus::{
        Venus,
        face::{Caller, ObjectId},
    },
};

/// Records that are named, at most.
const NAMED: usize = 1000;
/// Seconds of `cfs writedisconnect` without numbers, as ever.
const AGE: u64 = 60;
const TIME: u64 = 30;

impl Venus {
    pub(super) async fn set_modes(
        &self,
        who: Caller,
        paths: &[String],
        set: impl Fn(&mut Mode),
    ) -> Result<(), Failure> {
        for (realm, volume) in self.groups_of(who, paths).await?.into_keys() {
            let done = self.core.set_mode(realm, volume, &set);
            done.map_err(|error| failure("the volume", &error))?;
        }
        Ok(())
    }

    pub(super) async fn write_disconnect(
        &self,
        who: Caller,
        paths: &[String],
        age: Option<u64>,
        time: Option<u64>,
    ) -> Result<(), Failure> {
        let neither = age.is_none() && time.is_none();
        self.set_modes(who, paths, |mode| {
            mode.write_disconnected = true;
            mode.age = age.unwrap_or(if neither { AGE } else { mode.age });
            mode.time = time.unwrap_or(if neither { TIME } else { mode.time });
        })
        .await
    }

    pub(super) async fn pending(
        &self,
        who: Caller,
        path: Option<&str>,
    ) -> Result<Vec<PendingVolume>, Failure> {
        let only = match path {
            Some(path) => {
                let id = self.find(who, path).await?;
                Some((id.realm, id.fid.volume))
            }
            None => None,
        };
        let reports = self.core.report(only, NAMED).await;
        let reports = reports.map_err(|error| failure(path.unwrap_or("the log"), &error))?;
        let mut open: BTreeMap<(u32, VolumeId), Vec<ObjectId>> = BTreeMap::new();
        for id in self.core.cache.unstored() {
            open.entry((id.realm, id.fid.volume)).or_default().push(id);
        }
        let mut all = Vec::new();
        for report in reports {
            let written = open.remove(&(report.root.realm, report.root.fid.volume)).unwrap_or_default();
            if report.records > 0 || only.is_some() || !written.is_empty() {
                let open = self.paths_of(written.into_iter());
                all.push(PendingVolume { open, ..self.shown(report) });
            }
        }
        // Those that never had anything in the log.
        for ((realm, volume), written) in open {
            if only.is_none_or(|only| only == (realm, volume)) {
                let root = ObjectId { realm, fid: coda_proto::Fid::root(volume) };
                let name = self.path_of(root).unwrap_or_else(|| volume.to_string());
                let open = self.paths_of(written.into_iter());
                all.push(PendingVolume { volume: name, open, ..PendingVolume::default() });
            }
        }
        Ok(all)
    }

    fn shown(&self, report: VolumeReport) -> PendingVolume {
        let of_user = |(uid, records, bytes): &(u32, u64, u64)| PendingUser {
            uid: *uid,
            records: *records,
            bytes: *bytes,
        };
        let line = |line: &Line| PendingRecord {
            uid: line.uid,
            verb: line.verb.into(),
            path: self.path_of_line(line),
            bytes: line.bytes,
            seconds: line.age,
            why: line.why.clone(),
        };
        PendingVolume {
            volume: self.path_of(report.root).unwrap_or_else(|| report.root.fid.volume.to_string()),
            mode: report.state.text().into(),
            records: report.records,
            bytes: report.bytes,
            oldest_seconds: report.oldest,
            left_seconds: report.left,
            reasons: report.reasons,
            open: Vec::new(),
            users: report.users.iter().map(of_user).collect(),
            lines: report.lines.iter().map(line).collect(),
        }
    }

    /// Where it is now, or was when it was made.
    fn path_of_line(&self, line: &Line) -> String {
        if let Some((dir, name)) = &line.name
            && let Some(above) = self.path_of(*dir)
        {
            return format!("{above}/{}", escape(name));
        }
        self.path_of(line.id).unwrap_or_else(|| line.id.fid.to_string())
    }

    pub(super) async fn approve(&self, who: Caller, paths: &[String]) -> Result<u64, Failure> {
        let volumes = self.groups_of(who, paths).await?;
        // Whose mount it is answers for all that is done on it, everybody else for what he did.
        let of = (who.uid != 0 && who.uid != self.config().owner).then_some(who.uid);
        Ok(volumes.into_keys().map(|(realm, volume)| self.core.approve(realm, volume, of)).sum())
    }

    /// Gives up what the caller did, or what all did.
    pub(super) async fn purge(&self, who: Caller, path: &str, all: bool) -> Result<u64, Failure> {
        let id = self.find(who, path).await?;
        let of = (!all).then_some(who.uid);
        self.core.purge(id.realm, id.fid.volume, of).await.map_err(|error| failure(path, &error))
    }

    pub(super) async fn checkpoint(
        &self,
        who: Caller,
        path: Option<&str>,
        dir: Option<&str>,
    ) -> Result<Vec<String>, Failure> {
        let only = match path {
            Some(path) => {
                let id = self.find(who, path).await?;
                Some((id.realm, id.fid.volume))
            }
            None => None,
        };
        let dir = dir.map_or_else(|| self.config().checkpoints.clone(), PathBuf::from);
        let unwritten =
            |error: std::io::Error| wrong(&dir.display().to_string(), FailureKind::Io, error.to_string());
        if dir.starts_with(&self.config().mountpoint) {
            return Err(wrong(
                &dir.display().to_string(),
                FailureKind::Invalid,
                "lies in what it is to save",
            ));
        }
        let mut files = Vec::new();
        for (realm, volume) in self.core.logs() {
            if only.is_some_and(|only| only != (realm, volume)) {
                continue;
            }
            let found = self.core.checkpoint(realm, volume).map_err(|error| failure("the log", &error))?;
            if let Some(checkpoint) = found {
                let root = ObjectId { realm, fid: coda_proto::Fid::root(volume) };
                let realm = self.core.realm_name(realm).map_err(|error| failure("the log", &error))?;
                let name = format!("{realm}_{}", self.volume_name(root)).replace(['/', ':', '|', '@'], "_");
                files.extend(self.write(who, &dir, &name, &checkpoint).map_err(unwritten)?);
            }
        }
        match files.is_empty() {
            true => Err(wrong(path.unwrap_or("the log"), FailureKind::NotFound, "nothing is pending")),
            false => Ok(files),
        }
    }

    /// An archive and a list, for their owner only. Earlier ones stay beside them.
    fn write(
        &self,
        who: Caller,
        dir: &Path,
        name: &str,
        checkpoint: &Checkpoint,
    ) -> std::io::Result<[String; 2]> {
        std::fs::create_dir_all(dir)?;
        let place = |end: &str| dir.join(format!("{name}.{end}"));
        let create = |path: &Path| {
            let mut old = path.as_os_str().to_owned();
            old.push(".old");
            match std::fs::rename(path, old) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            // Whoever is not root owns it already.
            let _ = std::os::unix::fs::fchown(&file, Some(who.uid), Some(who.gid));
            Ok(file)
        };
        let (archive, list) = (place("tar"), place("cml"));
        let mut tar = Archive::new(BufWriter::new(create(&archive)?));
        for kept in &checkpoint.kept {
            let mut add =
                |kind, contents: &mut dyn Read| tar.add(&kept.path, kept.mode, kept.mtime, kind, contents);
            match &kept.what {
                KeptAs::Directory => add(Kind::Directory, &mut std::io::empty())?,
                KeptAs::Link(target) => add(Kind::Link(target), &mut std::io::empty())?,
                KeptAs::Bytes(bytes) => add(Kind::File(bytes.len() as u64), &mut &bytes[..])?,
                KeptAs::Container(container, length) => {
                    let container = self.core.cache.containers.open(*container)?;
                    add(Kind::File(*length), &mut Contents { container, offset: 0 })?;
                }
            }
        }
        tar.end()?.into_inner()?.sync_all()?;
        let lines = checkpoint.lines.join("\n") + "\n";
        create(&list)?.write_all(lines.as_bytes())?;
        Ok([archive, list].map(|path| path.display().to_string()))
    }
}

/// A container, read from its beginning.
struct Contents {
    container: Arc<dyn Container>,
    offset: u64,
}

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.container.read_at(self.offset, buffer)?;
        self.offset += read as u64;
        Ok(read)
    }
}
