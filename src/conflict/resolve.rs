//! Makes a choice between contents true: a Store of the chosen ones, on a base that covers those it decides
//! between and no others. A replica that is away learns it when it comes back, and brings none of them back.

use std::sync::Arc;

use bytes::Bytes;
use coda_proto::{Contents, Dot, INLINE_LIMIT, Kind, Op, Past, Rights, Sibling};

use super::{Choice, choice, versions::distinct};
use crate::{
    cache::{self, Reserved},
    cml::Manner,
    env::{Container, Priority},
    error::Error,
    ops::{Core, Result, Scratch, names::updated},
    reintegration::{Failure, Seen},
    store::{Data, Edit},
    venus::face::ObjectId,
};

/// What becomes of a file's versions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Keep {
    /// One of them is all that is left.
    Chosen(Choice),
    /// These contents replace all of them: a container, whose time is kept. They were made of these versions; if
    /// that is said, and there are others meanwhile, nothing is done.
    Given { container: u64, mtime: i64, of: Vec<Dot> },
    /// One goes, the others stay.
    Without(Dot),
}

/// What was decided.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decided {
    /// The contents that the name has now.
    pub kept: Sibling,
    /// How many versions went.
    pub dropped: usize,
}

/// Contents to be stored, and what is left behind by storing them.
struct Wanted {
    /// One of the versions, else a container.
    version: Option<Sibling>,
    base: Past,
    dropped: usize,
}

/// A past that includes all of `past` but these.
fn without(past: &Past, dots: impl Iterator<Item = Dot>) -> Past {
    let kept: Vec<Dot> = dots.collect();
    let cut = |entry: Dot| {
        let below = kept.iter().filter(|dot| dot.author == entry.author).map(|dot| dot.seq - 1).min();
        Dot::new(entry.author, below.map_or(entry.seq, |below| below.min(entry.seq)))
    };
    past.entries().map(cut).filter(|dot| dot.seq > 0).collect()
}

fn wanted(
    siblings: &[Sibling],
    past: &Past,
    keep: &Keep,
    is_ours: impl Fn(coda_proto::Author) -> bool,
) -> std::result::Result<Wanted, choice::Unclear> {
    let versions = distinct(siblings);
    let all = |version: Option<Sibling>, dropped| Wanted { version, base: past.clone(), dropped };
    match keep {
        Keep::Chosen(choice) => {
            let chosen = choice::choose(&versions, choice, is_ours)?.clone();
            Ok(all(Some(chosen), versions.len() - 1))
        }
        Keep::Given { .. } => Ok(all(None, versions.len())),
        Keep::Without(dot) => {
            let gone = siblings.iter().find(|sibling| sibling.dot == *dot).ok_or(choice::Unclear::Gone)?;
            let mut left = versions.iter().filter(|version| version.hash != gone.hash);
            let kept = (*left.next().ok_or(choice::Unclear::Gone)?).clone();
            let stays = siblings.iter().filter(|s| s.hash != gone.hash && s.hash != kept.hash);
            let base = without(past, stays.map(|sibling| sibling.dot));
            Ok(Wanted { version: Some(kept), base, dropped: 1 })
        }
    }
}

/// A container with contents of a file.
pub(super) struct Source<'a> {
    pub name: u64,
    pub container: Arc<dyn Container>,
    pub length: u64,
    pub hash: [u8; 32],
    pub mtime: i64,
    /// What keeps it until a row names it; none where one does already.
    pub scratch: Option<(Scratch<'a>, Reserved)>,
}

impl Core {
    /// Decides between the versions of a file.
    pub(crate) async fn decide(&self, uid: u32, id: ObjectId, keep: Keep) -> Result<Decided> {
        let name = id.fid.to_string();
        let decided = self.retried(id, name.as_bytes(), || self.decide_once(uid, id, &keep)).await?;
        self.say("conflict", format!("Resolved {}, {} version(s) gone", id.fid, decided.dropped));
        if !self.cache.view(id)?.is_some_and(|view| view.row.status.in_conflict()) {
            self.forget_base(id)?;
        }
        // The kernel did not ask for this itself.
        self.cache.forget_object(id, true);
        Ok(decided)
    }

    async fn decide_once(
        &self,
        uid: u32,
        id: ObjectId,
        keep: &Keep,
    ) -> std::result::Result<Decided, Failure> {
        let held = self.cache.locks.hold([id]).await;
        let view = self.current_held(id, Vec::new()).await?;
        let status = &view.row.status;
        if status.kind != Kind::File || !status.in_conflict() || view.gone {
            return Err(Error::Invalid(format!("{} is not in conflict", id.fid)).into());
        }
        if !status.my_rights.has(Rights::WRITE) {
            return Err(Error::Access(id.fid.to_string()).into());
        }
        if view.open.as_ref().is_some_and(|file| file.state().writers > 0 || file.state().unsaved) {
            return Err(Error::Busy(format!("{} is open for writing", id.fid)).into());
        }
        if let Keep::Given { of, .. } = keep
            && !of.is_empty()
            && (of.len() != status.siblings.len() || status.siblings.iter().any(|s| !of.contains(&s.dot)))
        {
            return Err(Error::Unclear("its versions changed meanwhile".into()).into());
        }
        let mut ours = std::collections::BTreeSet::new();
        for sibling in &status.siblings {
            if self.cache.store(|store| store.drew(sibling.dot.author))? {
                ours.insert(sibling.dot.author);
            }
        }
        let chosen = wanted(&status.siblings, &status.past, keep, |author| ours.contains(&author));
        let Wanted { version, base, dropped } =
            chosen.map_err(|unclear| Error::Unclear(unclear.to_string()))?;
        let source = match (&version, keep) {
            (Some(sibling), _) => match self.source(id, &view, sibling).await? {
                // What another row names stays that row's own.
                read if read.scratch.is_none() && view.row.data.is_none_or(|d| d.container != read.name) => {
                    self.given(id, read.name, read.mtime)?
                }
                source => source,
            },
            (None, Keep::Given { container, mtime, .. }) => self.given(id, *container, *mtime)?,
            (None, _) => return Err(Error::Invalid(id.fid.to_string()).into()),
        };
        let (stays, only) = match keep {
            Keep::Without(dot) => (None, status.siblings.iter().find(|s| s.dot == *dot).map(|s| s.hash)),
            _ => (version.as_ref().map(|version| version.hash), None),
        };
        // First what may fail: a decision that is noted is one that was made.
        let contents = self.contents_of(id, status.parent, &source).await?;
        let undo = self.keep_dropped(id, &view, stays, only).await?;
        let seen = Seen { past: base.clone(), ..Seen::of(status) };
        let (length, hash, mtime, container) = (source.length, source.hash, source.mtime, source.name);
        let mut kept = None;
        let submitted = self.submit(uid, held, id, vec![seen], Manner::Connected, |stamp| {
            let sibling = Sibling { dot: stamp.dot, length, hash, mtime, host: stamp.host.clone() };
            kept = Some(sibling.clone());
            let row = updated(&view.row, stamp, |status| {
                status.siblings.retain(|old| !base.covers(old.dot));
                status.siblings.insert(0, sibling);
                status.length = length;
                status.mtime = mtime;
            });
            let mut row = (*row).clone();
            row.version += 1;
            row.data = Some(Data { container, dot: Some(stamp.dot), length });
            let op = Op::Store { fid: id.fid, length, hash, mtime, contents, mode: None };
            (op, crate::store::Change::of(Edit::Put(id, Arc::new(row))))
        });
        if let Err(failure) = submitted.await {
            self.drop_undo_of(undo)?;
            return Err(failure);
        }
        if view.open.as_ref().is_some_and(|file| file.name != container) {
            // Whoever has the old contents open goes on reading them.
            self.cache.set_open(id, None)?;
        }
        let kept = kept.expect("a record was made");
        Ok(Decided { kept, dropped })
    }

    /// The contents of one version: those that are cached, or fetched now.
    pub(super) async fn source(
        &self,
        id: ObjectId,
        view: &cache::View,
        sibling: &Sibling,
    ) -> Result<Source<'_>> {
        let Sibling { length, hash, mtime, .. } = *sibling;
        let read = self.cache.view(self.version_id(id, sibling.dot))?.and_then(|view| view.row.data);
        let mut cached = view.row.data.into_iter().chain(read);
        let cached = cached.find(|data| data.dot == Some(sibling.dot));
        if let Some(data) = cached
            && let Ok(container) = self.cache.containers.open(data.container)
        {
            return Ok(Source { name: data.container, container, length, hash, mtime, scratch: None });
        }
        let fetched = self.fetched(id, sibling).await?;
        let (scratch, room) = fetched.ok_or_else(|| Error::Busy(format!("{}: it changed", id.fid)))?;
        let (name, container) = (scratch.name, scratch.container.clone());
        Ok(Source { name, container, length, hash, mtime, scratch: Some((scratch, room)) })
    }

    /// A copy of a container that somebody else made.
    pub(super) fn given(&self, id: ObjectId, from: u64, mtime: i64) -> Result<Source<'_>> {
        let failed = |error| cache::io(id.fid, error);
        let given = self.cache.containers.open(from).map_err(failed)?;
        let (length, hash) = crate::ops::digest(&*given).map_err(failed)?;
        let room = self.cache.reserve(id, length)?;
        let mut scratch = self.scratch()?;
        scratch.container = self.cache.containers.copy(from, scratch.name).map_err(failed)?;
        let (name, container) = (scratch.name, scratch.container.clone());
        Ok(Source { name, container, length, hash, mtime, scratch: Some((scratch, room)) })
    }

    pub(super) async fn contents_of(
        &self,
        id: ObjectId,
        directory: coda_proto::Fid,
        source: &Source<'_>,
    ) -> std::result::Result<Contents, Failure> {
        if source.length > INLINE_LIMIT as u64 {
            let what = (source.length, source.hash);
            let mut handle = [0; 16];
            handle[..8].copy_from_slice(&self.env.random().to_le_bytes());
            handle[8..].copy_from_slice(&self.env.random().to_le_bytes());
            self.upload(id, directory, &*source.container, what, handle, Priority::Foreground).await?;
            return Ok(Contents::Uploaded(handle));
        }
        let mut bytes = vec![0; source.length as usize];
        let read = source.container.read_at(0, &mut bytes).map_err(|error| cache::io(id.fid, error))?;
        match read as u64 == source.length && blake3::hash(&bytes).as_bytes() == &source.hash {
            true => Ok(Contents::Inline(Bytes::from(bytes))),
            false => Err(Error::Io(id.fid.to_string(), "the cached contents are damaged".into()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use coda_proto::Author;

    use super::*;

    fn dot(author: u64, seq: u64) -> Dot {
        Dot::new(Author(author), seq)
    }

    fn sibling(author: u64, seq: u64) -> Sibling {
        Sibling { dot: dot(author, seq), length: 0, hash: [author as u8; 32], mtime: 0, host: String::new() }
    }

    #[test]
    fn a_choice_covers_all_versions_in_its_base() {
        let past: Past = [dot(1, 4), dot(2, 2), dot(3, 1)].into_iter().collect();
        let siblings = [sibling(1, 4), sibling(2, 2)];
        let keep = Keep::Chosen(Choice::Version(dot(2, 2)));
        let wanted = wanted(&siblings, &past, &keep, |_| false).unwrap();
        assert_eq!((wanted.base, wanted.dropped), (past, 1));
        assert_eq!(wanted.version.unwrap().dot, dot(2, 2));
    }

    #[test]
    fn removing_one_of_three_leaves_the_third_out_of_the_base() {
        let past: Past = [dot(1, 4), dot(2, 2), dot(3, 1), dot(9, 9)].into_iter().collect();
        let siblings = [sibling(1, 4), sibling(2, 2), sibling(3, 1)];
        let wanted = wanted(&siblings, &past, &Keep::Without(dot(1, 4)), |_| false).unwrap();
        assert_eq!(wanted.version.unwrap().dot, dot(2, 2));
        assert!(
            wanted.base.covers(dot(1, 4)) && wanted.base.covers(dot(2, 2)) && wanted.base.covers(dot(9, 9))
        );
        assert!(!wanted.base.covers(dot(3, 1)));
    }

    #[test]
    fn removing_one_of_two_decides() {
        let past: Past = [dot(1, 4), dot(2, 2)].into_iter().collect();
        let siblings = [sibling(1, 4), sibling(2, 2)];
        let wanted = wanted(&siblings, &past, &Keep::Without(dot(2, 2)), |_| false).unwrap();
        assert_eq!((wanted.version.unwrap().dot, wanted.base), (dot(1, 4), past));
    }
}
