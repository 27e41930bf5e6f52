//! Files are fetched whole, in pieces, several at once, and verified.
//!
//! A piece names the Store that made it, so pieces of two versions never mix, and each may come from
//! another member. Opening one small file of a directory after another brings in the next few hundred in one go,
//! and those after them while these are being read.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use coda_proto::{Code, Dot, Fid, Kind, Sibling, Status, wire};
use futures::{StreamExt, stream};

use super::{Core, Result, locked, unexpected};
use crate::{
    cache::{self, Reserved, View},
    env::{Container, Priority},
    error::Error,
    replica::{AskError, Group},
    store::{Change, Data, Edit, Row},
    venus::face::ObjectId,
};

/// Bytes of one piece.
const PIECE: u64 = 1 << 20;
/// Pieces asked for at once.
const IN_FLIGHT: usize = 4;
/// Attempts to fetch a file that changes meanwhile.
const ATTEMPTS: usize = 5;
/// What is said of a file of which the servers hold that it is, and none holds what is in it.
const NOWHERE: &str = "none of its servers has its contents: they had been given up, as it was removed, when it got this \
     name; remove the name, or store the file anew";
/// Files up to this size are brought in along with their siblings.
const SMALL: u64 = 64 * 1024;
/// Bytes and files brought in along, at most.
const ALONG_BYTES: u64 = 2 << 20;
const ALONG_FILES: i64 = 256;
/// Directories whose misses are counted.
const DIRECTORIES: usize = 256;

/// Part of a file.
enum Piece {
    Bytes(Bytes),
    /// So many zeros: a hole.
    Zeros(u64),
}

/// How often contents of a directory's files were missing lately.
#[derive(Default)]
pub(crate) struct Misses {
    count: u32,
    /// Whoever opens this file gets that far: what follows the name is brought in, too.
    ahead: Option<(Fid, Vec<u8>)>,
}

/// A container that is removed unless it is kept.
pub(crate) struct Scratch<'a> {
    core: &'a Core,
    pub name: u64,
    pub container: Arc<dyn Container>,
    kept: bool,
}

impl Scratch<'_> {
    /// The container has an owner now.
    pub fn keep(mut self) -> (u64, Arc<dyn Container>) {
        self.kept = true;
        (self.name, self.container.clone())
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.core.cache.discard(self.name);
        }
    }
}

impl Core {
    /// A new empty container.
    pub(crate) fn scratch(&self) -> Result<Scratch<'_>> {
        let name = self.cache.container_name()?;
        let container = self.cache.containers.create(name).map_err(|error| {
            self.cache.discard(name);
            cache::io("a container", error)
        })?;
        Ok(Scratch { core: self, name, container, kept: false })
    }

    /// A file with the contents that show, for a caller that holds its lock.
    pub(crate) async fn contents_held(&self, id: ObjectId) -> Result<View> {
        let mut lacking = Vec::new();
        for attempt in 0..ATTEMPTS {
            let view = self.current_held(id, Vec::new()).await?;
            if view.row.has_contents() || view.gone {
                return Ok(view);
            }
            let Some(sibling) = view.row.status.siblings.first().cloned() else {
                self.install(id, &view, self.scratch()?, 0)?;
                continue;
            };
            if view.unsent
                && let Some((scratch, length)) = self.contents_from_log(&view)?
            {
                self.install(id, &view, scratch, length)?;
                continue;
            }
            self.may_fetch(id)?;
            if attempt == 0 {
                self.fetch_along(id, &view).await;
                if self.cache.view(id)?.is_some_and(|view| view.row.has_contents()) {
                    continue;
                }
            }
            if !self.fetch(id, &view, &sibling).await? {
                // The version is no longer there: ask what is.
                self.cache.demote(id)?;
                lacking.push(sibling.dot);
            }
        }
        Err(self.lacks(id, &lacking).await)
    }

    /// Why a file cannot be read whose versions were asked for in vain. All the time the same one, and every member could
    /// be asked: then it is nowhere.
    async fn lacks(&self, id: ObjectId, versions: &[Dot]) -> Error {
        let (realm, group) = match self.group(id).await {
            Ok(group) => group,
            Err(error) => return error,
        };
        let all = self.peers.live(&realm, &group).len() == group.members.len();
        let same = versions.len() == ATTEMPTS && versions.windows(2).all(|two| two[0] == two[1]);
        match all && same {
            true => Error::Io(self.shown(id), NOWHERE.to_owned()),
            false => Error::Busy(id.fid.to_string()),
        }
    }

    /// Fetches one version; answers false where the members no longer have it.
    async fn fetch(&self, id: ObjectId, view: &View, sibling: &Sibling) -> Result<bool> {
        let Some((scratch, _room)) = self.fetched(id, sibling).await? else { return Ok(false) };
        self.install(id, view, scratch, sibling.length)?;
        Ok(true)
    }

    /// One version of a file in a container of its own; `None` where the members no longer have it.
    pub(crate) async fn fetched(
        &self,
        id: ObjectId,
        sibling: &Sibling,
    ) -> Result<Option<(Scratch<'_>, Reserved)>> {
        let (realm, group) = self.group(id).await?;
        let room = self.cache.reserve(id, sibling.length)?;
        let scratch = self.scratch()?;
        let mut hasher = blake3::Hasher::new();
        let starts = (0..sibling.length).step_by(PIECE as usize);
        let mut pieces = stream::iter(starts.map(|offset| {
            let length = PIECE.min(sibling.length - offset);
            self.piece(id, &realm, &group, sibling, offset, length)
        }))
        .buffered(IN_FLIGHT);
        let (mut offset, mut zeros) = (0, Vec::new());
        while let Some(piece) = pieces.next().await {
            let failed = |error| cache::io(id.fid, error);
            match piece? {
                None => return Ok(None),
                Some(Piece::Bytes(bytes)) => {
                    hasher.update(&bytes);
                    scratch.container.write_at(offset, &bytes).map_err(failed)?;
                    offset += bytes.len() as u64;
                }
                Some(Piece::Zeros(count)) => {
                    zeros.resize(PIECE as usize, 0);
                    hasher.update(&zeros[..count as usize]);
                    offset += count;
                    scratch.container.set_length(offset).map_err(failed)?;
                }
            }
        }
        if *hasher.finalize().as_bytes() != sibling.hash {
            return Err(Error::BadAnswer(id.fid.to_string(), "contents do not match their hash".into()));
        }
        drop(pieces);
        self.say("fetch", format!("Fetched {}, {} bytes", self.shown(id), sibling.length));
        Ok(Some((scratch, room)))
    }

    /// One piece, from whichever member gives it; `None` where the version is gone.
    async fn piece(
        &self,
        id: ObjectId,
        realm: &str,
        group: &Group,
        sibling: &Sibling,
        offset: u64,
        length: u64,
    ) -> Result<Option<Piece>> {
        let body = wire::request::Body::Fetch(wire::Fetch {
            fid: Some(self.served(id).fid.into()),
            dot: Some(sibling.dot.into()),
            offset,
            length: length as u32,
            holes: true,
        });
        let any = self.peers.ask_any(realm, group, body.clone(), Bytes::new(), Priority::Foreground).await;
        let answer = match any {
            Ok((_, answer)) => Some(answer),
            Err(AskError::Refused(refusal)) if is_other_version(refusal.code) => {
                // This member may be behind or ahead; another may still have these bytes.
                self.piece_elsewhere(realm, group, &body).await
            }
            Err(error) => return Err(error.about(&id.fid.to_string())),
        };
        let Some(answer) = answer else { return Ok(None) };
        match answer.response.body {
            Some(wire::response::Body::Fetched(_)) if answer.bulk.len() as u64 == length => {
                Ok(Some(Piece::Bytes(answer.bulk)))
            }
            Some(wire::response::Body::Fetched(fetched))
                if fetched.zeros == length && answer.bulk.is_empty() =>
            {
                Ok(Some(Piece::Zeros(length)))
            }
            Some(wire::response::Body::Fetched(_)) => Ok(None),
            _ => unexpected(id),
        }
    }

    async fn piece_elsewhere(
        &self,
        realm: &str,
        group: &Group,
        body: &wire::request::Body,
    ) -> Option<crate::env::Answer> {
        for server in self.peers.live(realm, group) {
            let asked =
                self.peers.ask_one(realm, server, body.clone(), Bytes::new(), Priority::Foreground).await;
            if let Ok(answer) = asked {
                return Some(answer);
            }
        }
        None
    }

    /// Makes a container the contents of the version that `view` shows.
    fn install(&self, id: ObjectId, view: &View, scratch: Scratch, length: u64) -> Result<()> {
        let dot = view.row.shown();
        let now = self.cache.view(id)?.ok_or(Error::Gone(id.fid))?;
        let data = Some(Data { container: scratch.name, dot, length });
        let row = Row { data, writing: false, ..(*now.row).clone() };
        self.cache.commit(&Change::of(Edit::Put(id, Arc::new(row))))?;
        scratch.keep();
        let old = now.row.data.map(|data| data.container);
        if let Some(old) = old
            && now.open.as_ref().is_none_or(|file| file.name != old)
        {
            self.cache.discard(old);
        }
        self.cache.set_open(id, None)
    }

    /// Brings in small files of the same directory, `id` among them, once a second one is missing.
    async fn fetch_along(&self, id: ObjectId, view: &View) {
        let dir = ObjectId { realm: id.realm, fid: view.row.status.parent };
        if view.row.status.length > SMALL || !self.misses_again(dir) {
            return;
        }
        if let Err(error) = self.fetch_many(id, dir).await {
            tracing::debug!(realm = self.realm_field(id.realm), fid = %id.fid, %error, "siblings were not brought in");
        }
    }

    fn misses_again(&self, dir: ObjectId) -> bool {
        let mut prefetching = locked(&self.prefetching);
        if prefetching.len() >= DIRECTORIES {
            prefetching.clear();
        }
        let misses = prefetching.entry(dir).or_default();
        misses.count += 1;
        misses.count > 1
    }

    /// A file that is here is being opened. If it was brought in along, its reader goes through the directory:
    /// what comes after that is fetched meanwhile.
    pub(super) fn read_on(&self, id: ObjectId, view: &View) {
        let dir = ObjectId { realm: id.realm, fid: view.row.status.parent };
        let ahead = match locked(&self.prefetching).get_mut(&dir) {
            Some(misses) => misses.ahead.take_if(|(fid, _)| *fid == id.fid),
            None => None,
        };
        let Some((_, name)) = ahead else { return };
        if self.may_fetch(id).is_err() {
            return;
        }
        let core = self.me();
        self.spawn(async move {
            if let Err(error) = core.fetch_after(dir, &name, None).await {
                tracing::debug!(realm = core.realm_field(dir.realm), fid = %dir.fid, %error, "what follows was not brought in");
            }
        });
    }

    async fn fetch_many(&self, id: ObjectId, dir: ObjectId) -> Result<()> {
        let Some(name) = self.cache.store(|store| store.name_in(dir, id.fid))? else { return Ok(()) };
        self.fetch_after(dir, &name, Some(id)).await
    }

    /// Brings in small files of a directory from a name on; one of them is for a caller that holds its lock.
    async fn fetch_after(&self, dir: ObjectId, name: &[u8], first: Option<ObjectId>) -> Result<()> {
        let id = first.unwrap_or(dir);
        let entries = self.cache.store(|store| store.entries_after(dir, name, ALONG_FILES))?;
        let mut fids: Vec<Fid> = first.iter().map(|id| id.fid).collect();
        fids.extend(entries.iter().filter(|e| e.kind == Kind::File && e.fid != id.fid).map(|e| e.fid));
        let mut wanted = Vec::new();
        let mut held = HashMap::new();
        let mut bytes = 0;
        for fid in fids {
            let other = ObjectId { realm: id.realm, fid };
            let view = self.cache.view(other)?;
            let length = match &view {
                Some(view)
                    if view.row.has_contents() || view.open.is_some() || view.row.status.in_conflict() =>
                {
                    continue;
                }
                Some(view) => view.row.status.length,
                None => 0,
            };
            if length > SMALL || bytes + length > ALONG_BYTES {
                continue;
            }
            if other != id {
                match self.cache.locks.try_hold(other) {
                    Some(lock) => drop(held.insert(other, lock)),
                    None => continue,
                }
            }
            bytes += length;
            wanted.push(fid);
        }
        if wanted.len() < 2 || self.cache.space().objects_free < wanted.len() as u64 {
            return Ok(());
        }
        let (realm, group) = self.group(id).await?;
        let _room = self.cache.reserve(id, ALONG_BYTES)?;
        let body = wire::request::Body::FetchMany(wire::FetchMany {
            volume: id.fid.volume.0,
            fids: wanted.iter().map(|fid| (*fid).into()).collect(),
            at_most: ALONG_BYTES as u32,
        });
        let (_, answer) = self.ask_any(id, &realm, &group, body).await?;
        let Some(wire::response::Body::FetchedMany(many)) = answer.response.body else {
            return unexpected(id);
        };
        let mut bulk = answer.bulk;
        let (mut change, mut scratches, mut old) = (Change::default(), Vec::new(), Vec::new());
        for (status, has_contents) in many.statuses.into_iter().zip(many.contents) {
            let bad = |why: String| Error::BadAnswer(id.fid.to_string(), why);
            let status = Status::try_from(status).map_err(|error| bad(error.to_string()))?;
            if !has_contents {
                continue;
            }
            if status.length > bulk.len() as u64 {
                return Err(bad("fewer bytes than promised".into()));
            }
            let contents = bulk.split_to(status.length as usize);
            let other = ObjectId { realm: id.realm, fid: status.fid };
            if (other == id || held.contains_key(&other))
                && let Some((row, scratch)) = self.row_along(other, status, contents)?
            {
                old.extend(row.0);
                change.push(Edit::Put(other, Arc::new(row.1)));
                scratches.push(scratch);
            }
        }
        self.cache.commit(&change)?;
        scratches.into_iter().for_each(|scratch| drop(scratch.keep()));
        old.into_iter().for_each(|container| self.cache.discard(container));
        let last = wanted.last().and_then(|last| entries.iter().find(|entry| entry.fid == *last));
        let next = wanted.iter().find(|fid| **fid != id.fid);
        if let (Some(next), Some(last)) = (next, last)
            && (entries.len() as i64 == ALONG_FILES || entries.last().is_some_and(|end| end.fid != last.fid))
            && let Some(misses) = locked(&self.prefetching).get_mut(&dir)
        {
            misses.ahead = Some((*next, last.name.clone()));
        }
        Ok(())
    }

    /// A row with contents that came along, in a container; and the container that it had before. One member's
    /// word is no promise: whether it is the latest version is asked when it is wanted.
    fn row_along(&self, id: ObjectId, status: Status, contents: Bytes) -> Result<Option<Along<'_>>> {
        let Some(sibling) = status.siblings.first().cloned() else { return Ok(None) };
        if *blake3::hash(&contents).as_bytes() != sibling.hash || status.in_conflict() {
            return Ok(None);
        }
        let row = match self.cache.view(id)? {
            Some(view) if view.row.shown() != Some(sibling.dot) => return Ok(None),
            Some(view) if view.row.has_contents() || view.open.is_some() => return Ok(None),
            Some(view) => (*view.row).clone(),
            None => Row::new(Status { promised: false, ..status }),
        };
        let scratch = self.scratch()?;
        scratch.container.write_at(0, &contents).map_err(|error| cache::io(id.fid, error))?;
        let old = row.data.map(|data| data.container);
        let data =
            Some(Data { container: scratch.name, dot: Some(sibling.dot), length: contents.len() as u64 });
        Ok(Some(((old, Row { data, writing: false, ..row }), scratch)))
    }
}

/// A row whose contents lie in a scratch container, and the container that it had before.
type Along<'a> = ((Option<u64>, Row), Scratch<'a>);

fn is_other_version(code: Code) -> bool {
    matches!(code, Code::Gone | Code::NeedsResolve | Code::NoEntry | Code::Invalid)
}
