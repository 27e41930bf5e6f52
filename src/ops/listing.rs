//! Directories are fetched whole, page by page, from one member; pages of two versions never mix.

use std::collections::BTreeSet;

use coda_proto::{Entry, Fid, Rights, ServerId, Status, wire};

use super::{Core, Result, path, unexpected};
use crate::{
    cache::View,
    conflict::{versions::is_version, view::Shows},
    env::Priority,
    error::Error,
    fid::CODA,
    replica::Group,
    store::{Change, Edit, Row},
    venus::face::{Caller, DirLine, Listing, NodeKind, ObjectId},
};

/// Entries of one page.
const PAGE: u32 = 4096;
/// Entries of which it is looked whether they have several versions; of more, the servers are asked which have.
const LOOKED_AT: usize = if cfg!(test) { 64 } else { 4096 };
/// Objects asked for at once.
const AT_ONCE: usize = 256;
/// Attempts to read a directory that changes meanwhile.
const ATTEMPTS: usize = 5;

impl Core {
    /// A directory with all its entries in the store.
    pub(crate) async fn directory(&self, dir: ObjectId) -> Result<View> {
        let view = self.current(dir).await?;
        if view.row.status.kind != coda_proto::Kind::Directory {
            return Err(Error::NotDirectory(dir.fid.to_string()));
        }
        if view.row.complete {
            return Ok(view);
        }
        let _held = self.cache.locks.hold([dir]).await;
        match self.directory_held(dir).await {
            // Whoever holds what was seen of it is away: what was listed before can still be read.
            Err(error @ (Error::Busy(_) | Error::Disconnected(_) | Error::RealmAway(..))) => {
                self.as_listed(dir)?.ok_or(error)
            }
            result => result,
        }
    }

    /// A directory with the names of an older version, if there are any.
    fn as_listed(&self, dir: ObjectId) -> Result<Option<View>> {
        match self.cache.store(|store| store.entries(dir))?.is_empty() {
            true => Ok(None),
            false => self.cache.view(dir),
        }
    }

    /// The same, for a caller that holds the directory's lock.
    pub(crate) async fn directory_held(&self, dir: ObjectId) -> Result<View> {
        for _ in 0..ATTEMPTS {
            let view = self.current_held(dir, Vec::new()).await?;
            if view.row.status.kind != coda_proto::Kind::Directory {
                return Err(Error::NotDirectory(dir.fid.to_string()));
            }
            if view.row.complete {
                return Ok(view);
            }
            self.may_fetch(dir)?;
            let (realm, group) = self.group(dir).await?;
            if let Some((status, entries)) = self.read_pages(dir, &realm, &group).await? {
                self.install_listing(dir, status, entries)?;
            }
        }
        Err(Error::Busy(dir.fid.to_string()))
    }

    /// All pages of one version; `None` where it changed between two pages.
    async fn read_pages(
        &self,
        dir: ObjectId,
        realm: &str,
        group: &Group,
    ) -> Result<Option<(Status, Vec<Entry>)>> {
        let mut at: Option<ServerId> = None;
        let mut first: Option<Status> = None;
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let last = entries.last();
            let body = wire::request::Body::ReadDir(wire::ReadDir {
                fid: Some(dir.fid.into()),
                after: last.map(|entry| entry.name.clone().into()).unwrap_or_default(),
                after_unique: last.map_or(0, |entry| entry.fid.unique),
                after_vnode: last.map_or(0, |entry| entry.fid.vnode),
                limit: PAGE,
            });
            let answer = match at {
                None => {
                    let (server, answer) = self.ask_any(dir, realm, group, body).await?;
                    at = Some(server);
                    answer
                }
                Some(server) => {
                    let asked = self
                        .peers
                        .ask_one(realm, server, body, bytes::Bytes::new(), Priority::Foreground)
                        .await;
                    match asked {
                        Ok(answer) => answer,
                        // It died in the middle: begin again at another.
                        Err(error) if super::is_away(&error) => return Ok(None),
                        Err(error) => return Err(error.about(&dir.fid.to_string())),
                    }
                }
            };
            let Some(wire::response::Body::DirPage(page)) = answer.response.body else {
                return unexpected(dir);
            };
            let bad = |error: coda_proto::Malformed| Error::BadAnswer(dir.fid.to_string(), error.to_string());
            let status: Status = coda_proto::id::required(page.status, "page").map_err(bad)?;
            let before = entries.len();
            for entry in page.entries {
                entries.push(entry.try_into().map_err(bad)?);
            }
            match &first {
                Some(first) if first.past != status.past => return Ok(None),
                Some(_) => {}
                None => first = Some(status),
            }
            if page.last {
                return Ok(first.map(|status| (status, entries)));
            }
            if entries.len() == before {
                return Err(Error::BadAnswer(
                    dir.fid.to_string(),
                    "an empty page that is not the last".into(),
                ));
            }
        }
    }

    fn install_listing(&self, dir: ObjectId, status: Status, entries: Vec<Entry>) -> Result<()> {
        let past = status.past.clone();
        if !self.learn_along(dir, status)? {
            // This member lacks what we have: another, once it has been resolved.
            self.request_resolve(dir);
            return self.lend_listing(dir, entries);
        }
        self.cache.decide(|rows| {
            let row = rows(dir).filter(|row| row.status.past == past);
            let Some(row) = row else { return (Change::default(), ()) };
            let mut change = Change::of(Edit::Clear(dir));
            change.edits.extend(entries.into_iter().map(|entry| Edit::Bind(dir, entry)));
            change.push(Edit::Put(dir, std::sync::Arc::new(Row { complete: true, ..(*row).clone() })));
            (change, ())
        })
    }

    /// Older names than those of the version that was seen are better than none, until that one can be had.
    fn lend_listing(&self, dir: ObjectId, entries: Vec<Entry>) -> Result<()> {
        if !self.cache.store(|store| store.entries(dir))?.is_empty() {
            return Ok(());
        }
        self.cache.decide(|rows| {
            let mut change = Change::default();
            if rows(dir).is_some_and(|row| !row.complete) {
                change.edits.extend(entries.into_iter().map(|entry| Edit::Bind(dir, entry)));
            }
            (change, ())
        })
    }

    /// All lines of a directory but `.` and `..`.
    pub(crate) async fn readdir(&self, _who: Caller, dir: ObjectId) -> Result<Listing> {
        if dir == CODA {
            return Ok(self.list_realms().into());
        }
        let view = self.directory(dir).await?;
        if !view.row.status.my_rights.has(Rights::LOOKUP) {
            return Err(Error::Access(dir.fid.to_string()));
        }
        let entries = self.cache.store(|store| store.entries(dir))?;
        self.know(dir, &entries).await;
        let undecided: BTreeSet<Fid> = match entries.len() > LOOKED_AT && !is_version(dir) {
            true => self.undecided_in(dir).await?.into_iter().collect(),
            false => BTreeSet::new(),
        };
        let shown = path::shown(entries, |fid| self.made(dir.realm, fid));
        let mut lines = Vec::with_capacity(shown.len());
        for (index, (name, entry)) in shown.into_iter().enumerate() {
            let id = ObjectId { realm: dir.realm, fid: entry.fid };
            let looked_at = index < LOOKED_AT || undecided.contains(&entry.fid);
            let (id, kind) = match entry.kind {
                coda_proto::Kind::File => (id, NodeKind::File),
                coda_proto::Kind::Directory => (id, NodeKind::Directory),
                coda_proto::Kind::Symlink => match self.mounted_quickly(dir, &name, id).await {
                    Some(root) => (root, NodeKind::Directory),
                    None => (id, NodeKind::Symlink),
                },
            };
            let (id, kind) = match entry.kind {
                coda_proto::Kind::File if looked_at => self.line_of(id)?,
                _ => (id, kind),
            };
            let beside = match entry.kind {
                coda_proto::Kind::File if looked_at && kind == NodeKind::File => {
                    // Whoever keeps the listing hears of what would change it.
                    self.cache.tell(id);
                    self.versions_beside(id, &name)?
                }
                _ => Vec::new(),
            };
            lines.push(DirLine { name, id, kind });
            lines.extend(beside.into_iter().map(|(name, id)| DirLine { name, id, kind: NodeKind::File }));
        }
        Ok(lines.into())
    }

    /// What a listing shows of a file.
    fn line_of(&self, id: ObjectId) -> Result<(ObjectId, NodeKind)> {
        let Some(view) = self.cache.view(id)? else { return Ok((id, NodeKind::File)) };
        let kind = match self.shows(id, &view.row.status) {
            Shows::File => NodeKind::File,
            Shows::Link => NodeKind::Symlink,
            Shows::Directory => NodeKind::Directory,
        };
        Ok((self.shown_for(id, &view.row.status), kind))
    }

    /// Brings in what a listing needs beyond names: which symbolic links are mount points, and which files
    /// have several versions. What cannot be had is listed by what is cached.
    pub(crate) async fn know(&self, dir: ObjectId, entries: &[Entry]) {
        if is_version(dir) {
            return;
        }
        let id = |entry: &Entry| ObjectId { realm: dir.realm, fid: entry.fid };
        let contested: BTreeSet<&[u8]> = (entries.windows(2))
            .filter(|pair| pair[0].name == pair[1].name)
            .map(|pair| pair[0].name.as_slice())
            .collect();
        let wanted = |entry: &&Entry| match (entry.kind, self.cache.view(id(entry))) {
            (_, Ok(None)) if contested.contains(entry.name.as_slice()) => true,
            (coda_proto::Kind::Symlink, Ok(None)) => true,
            (coda_proto::Kind::File, Ok(view)) => {
                view.is_none_or(|view| !view.stands() && view.open.is_none())
            }
            _ => false,
        };
        let unknown: Vec<_> = entries.iter().take(LOOKED_AT).filter(wanted).map(id).collect();
        for some in unknown.chunks(AT_ONCE) {
            if some.len() as u64 > self.cache.space().objects_free {
                return;
            }
            let along = some[1..].iter().map(|id| id.fid).collect();
            let _held = self.cache.locks.hold([some[0]]).await;
            match self.refresh(some[0], along).await {
                Ok(()) | Err(Error::Gone(_)) => {}
                Err(_) => return,
            }
        }
    }
}
