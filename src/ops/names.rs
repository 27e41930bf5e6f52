//! Operations on names: create, mkdir, symlink, link, unlink, rmdir, rename.
//!
//! Each looks first without locks, takes the locks of all objects it touches in one order, looks again,
//! and submits one record. When the members turn out to have something else, it looks once more.

use std::sync::Arc;

use coda_proto::{Dot, Entry, Fid, Kind, Op, Past, Rights, Status, check_name};

use super::{Core, Result, locked, path::text};
use crate::{
    cache::View,
    conflict::{Choice, Keep, names, versions::Named},
    env::Priority,
    error::Error,
    fid::CODA,
    reintegration::{Failure, Seen, Stamp},
    store::{Change, Data, Edit, Row},
    venus::face::{Attr, Caller, ObjectId, RenameMode},
};

/// Attempts when the members have something else than what is cached.
const ATTEMPTS: usize = 3;
/// Attempts when an earlier mutation, on which this one was built, did not come about.
const AGAIN: usize = 64;

/// An object that is about to be made.
pub(crate) struct Birth<'a> {
    pub kind: Kind,
    pub mode: u32,
    pub owner: u32,
    pub target: &'a [u8],
    /// One member must agree before the others are asked.
    pub exclusive: bool,
    /// An empty container for what whoever makes the file is about to write.
    pub container: Option<u64>,
}

fn check(dir: ObjectId, name: &[u8]) -> Result<()> {
    if dir.realm == 0 {
        return Err(Error::ReadOnly("/coda".into()));
    }
    if name.len() > coda_proto::name::NAME_LIMIT {
        return Err(Error::NameTooLong(text(name)));
    }
    check_name(name).map_err(|_| Error::BadName(text(name)))
}

pub(crate) fn right(view: &View, right: Rights, name: &[u8]) -> Result<()> {
    match view.row.status.my_rights.has(right) {
        true => Ok(()),
        false => Err(Error::Access(text(name))),
    }
}

/// A row with one more update of ours in it.
pub(crate) fn updated(row: &Row, stamp: &Stamp, change: impl FnOnce(&mut Status)) -> Arc<Row> {
    let mut row = row.clone();
    row.status.past.add(stamp.dot);
    row.status.lamport = row.status.lamport.max(stamp.lamport);
    row.status.ctime = row.status.ctime.max(stamp.changed);
    change(&mut row.status);
    Arc::new(row)
}

/// A directory with one entry more or less.
pub(crate) fn with_entries(row: &Row, stamp: &Stamp, entries: i64, subdirectories: i64) -> Arc<Row> {
    updated(row, stamp, |status| {
        status.length = status.length.saturating_add_signed(entries);
        status.nlink = status.nlink.saturating_add_signed(subdirectories as i32);
        status.mtime = stamp.time;
    })
}

/// An object with one name less: it leaves with the last.
fn unlinked(id: ObjectId, row: &Row, stamp: &Stamp) -> Edit {
    match row.status.kind == Kind::Directory || row.status.nlink <= 1 {
        true => Edit::Drop(id),
        false => Edit::Put(id, updated(row, stamp, |status| status.nlink -= 1)),
    }
}

impl Core {
    /// Tries what `attempt` does again after the members and the cache have been brought together.
    pub(crate) async fn retried<T, F>(
        &self,
        of: ObjectId,
        what: &[u8],
        mut attempt: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, Failure>>,
    {
        let (mut left, mut again) = (ATTEMPTS, AGAIN);
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(Failure::Again) if again > 0 => {
                    again -= 1;
                    continue;
                }
                Err(Failure::Stale(refusal)) if left > 1 => {
                    let blamed = refusal.blame.map_or(of, |fid| ObjectId { realm: of.realm, fid });
                    self.resolve(blamed, Priority::Foreground).await;
                    for id in [of, blamed] {
                        self.cache.demote(id)?;
                    }
                }
                Err(Failure::NoUpload) if left > 1 => {}
                Err(failure) => return Err(failure.about(&text(what))),
            }
            left -= 1;
        }
    }

    /// Makes an object under a new name.
    pub(crate) async fn make(&self, dir: ObjectId, name: &[u8], birth: Birth<'_>) -> Result<View> {
        check(dir, name)?;
        self.not_a_version(dir, name).await?;
        let birth = &birth;
        let child = self.retried(dir, name, || self.make_once(dir, name, birth)).await?;
        self.cache.view(child)?.ok_or(Error::Gone(child.fid))
    }

    async fn make_once(
        &self,
        dir: ObjectId,
        name: &[u8],
        birth: &Birth<'_>,
    ) -> std::result::Result<ObjectId, Failure> {
        let held = self.cache.locks.hold([dir]).await;
        let parent = self.directory_held(dir).await?;
        right(&parent, Rights::INSERT, name)?;
        if self.entry(dir, name)?.is_some() {
            return Err(Error::Exists(text(name)).into());
        }
        self.cache.room_for(1)?;
        let is_dir = birth.kind == Kind::Directory;
        let (owner, mode) = (birth.owner, birth.mode);
        let mut child = dir;
        self.submit(owner, held, dir, vec![Seen::of(&parent.row.status)], birth.exclusive, |stamp| {
            let fid = if is_dir { stamp.directory } else { stamp.file };
            child.fid = fid;
            let op_name = name.to_vec();
            let op = match birth.kind {
                Kind::File => Op::Create { parent: dir.fid, name: op_name, fid, mode, owner },
                Kind::Directory => Op::MakeDir { parent: dir.fid, name: op_name, fid, mode, owner },
                Kind::Symlink => Op::Symlink {
                    parent: dir.fid,
                    name: op_name,
                    fid,
                    target: birth.target.to_vec(),
                    mode,
                    owner,
                },
            };
            let mut change = Change::default();
            change.push(bind(dir, name, fid, birth.kind, stamp.dot));
            let status = newborn(&parent.row.status, fid, birth, stamp);
            let data = birth.container.map(|container| Data { container, dot: None, length: 0 });
            let row = Row { complete: is_dir, data, writing: data.is_some(), ..Row::new(status) };
            change.push(Edit::Put(child, Arc::new(row)));
            change.push(Edit::Put(dir, with_entries(&parent.row, stamp, 1, i64::from(is_dir))));
            (op, change)
        })
        .await?;
        Ok(child)
    }

    /// Makes a directory.
    pub(crate) async fn mkdir(&self, who: Caller, dir: ObjectId, name: &[u8], mode: u32) -> Result<Attr> {
        let birth = Birth {
            kind: Kind::Directory,
            mode: mode & 0o1777,
            owner: who.uid,
            target: b"",
            exclusive: true,
            container: None,
        };
        Ok(self.attr(&self.make(dir, name, birth).await?, who))
    }

    /// Makes a symbolic link.
    pub(crate) async fn symlink(
        &self,
        who: Caller,
        dir: ObjectId,
        name: &[u8],
        target: &[u8],
    ) -> Result<Attr> {
        self.make_link(who, dir, name, target, 0o777).await
    }

    /// Makes a symbolic link with these permission bits: 0644 make it a mount point.
    pub(crate) async fn make_link(
        &self,
        who: Caller,
        dir: ObjectId,
        name: &[u8],
        target: &[u8],
        mode: u32,
    ) -> Result<Attr> {
        if target.len() > coda_proto::name::TARGET_LIMIT {
            return Err(Error::NameTooLong(text(name)));
        }
        let birth =
            Birth { kind: Kind::Symlink, mode, owner: who.uid, target, exclusive: false, container: None };
        Ok(self.attr(&self.make(dir, name, birth).await?, who))
    }

    /// Gives a file one more name in its directory.
    pub(crate) async fn link(&self, who: Caller, id: ObjectId, dir: ObjectId, name: &[u8]) -> Result<Attr> {
        check(dir, name)?;
        self.not_a_version(dir, name).await?;
        self.retried(dir, name, || self.link_once(who.uid, id, dir, name)).await?;
        Ok(self.attr(&self.current(id).await?, who))
    }

    async fn link_once(
        &self,
        uid: u32,
        id: ObjectId,
        dir: ObjectId,
        name: &[u8],
    ) -> std::result::Result<Dot, Failure> {
        let held = self.cache.locks.hold([dir, id]).await;
        let parent = self.directory_held(dir).await?;
        let child = self.current_held(id, Vec::new()).await?;
        right(&parent, Rights::INSERT, name)?;
        if child.row.status.kind == Kind::Directory {
            return Err(Error::IsDirectory(text(name)).into());
        }
        if child.gone {
            return Err(Error::NotFound(text(name)).into());
        }
        let here = id.realm == dir.realm && self.cache.store(|store| store.name_in(dir, id.fid))?.is_some();
        if !here {
            return Err(Error::CrossDirectory(text(name)).into());
        }
        if self.entry(dir, name)?.is_some() {
            return Err(Error::Exists(text(name)).into());
        }
        let bases = vec![Seen::of(&parent.row.status), Seen::of(&child.row.status)];
        self.submit(uid, held, dir, bases, true, |stamp| {
            let mut change = Change::of(bind(dir, name, id.fid, child.row.status.kind, stamp.dot));
            change.push(Edit::Put(id, updated(&child.row, stamp, |status| status.nlink += 1)));
            change.push(Edit::Put(dir, with_entries(&parent.row, stamp, 1, 0)));
            (Op::Link { parent: dir.fid, name: name.to_vec(), fid: id.fid }, change)
        })
        .await
    }

    /// Removes a name of a file or symbolic link.
    pub(crate) async fn unlink(&self, who: Caller, dir: ObjectId, name: &[u8]) -> Result<()> {
        self.remove(who.uid, dir, name, Removal::File).await
    }

    /// Removes an empty directory.
    pub(crate) async fn rmdir(&self, who: Caller, dir: ObjectId, name: &[u8]) -> Result<()> {
        self.remove(who.uid, dir, name, Removal::Directory).await
    }

    /// Removes a name.
    pub(crate) async fn remove(&self, uid: u32, dir: ObjectId, name: &[u8], what: Removal) -> Result<()> {
        check(dir, name)?;
        match self.retried(dir, name, || self.remove_once(uid, dir, name, what)).await {
            // Of a file with several versions, the one goes that the name shows.
            Err(Error::Undecided(_)) if what == Removal::File => self.remove_version(uid, dir, name).await,
            Err(Error::NotFound(_)) if names::split(name).is_some() && what == Removal::File => {
                self.remove_version(uid, dir, name).await
            }
            outcome => outcome.map(drop),
        }
    }

    /// Removes one of several versions of a file: by its own name, or the one that the plain name shows.
    async fn remove_version(&self, uid: u32, dir: ObjectId, name: &[u8]) -> Result<()> {
        if let Some(entry) = self.entry(dir, name)? {
            let file = ObjectId { realm: dir.realm, fid: entry.fid };
            let view = self.current(file).await?;
            let shown = view.row.shown().ok_or_else(|| Error::NotFound(text(name)))?;
            return self.decide(uid, file, Keep::Without(shown)).await.map(drop);
        }
        match self.version_named(dir, name).await? {
            Some(Named::Other(_, of)) => self.decide(uid, of.file, Keep::Without(of.dot)).await.map(drop),
            Some(Named::Base(_, file)) => {
                self.forget_base(file)?;
                self.cache.forget_object(dir, true);
                Ok(())
            }
            Some(Named::Shown(file)) => {
                let plain = self.cache.store(|store| store.name_in(dir, file.fid))?;
                let plain = plain.ok_or_else(|| Error::NotFound(text(name)))?;
                Box::pin(self.remove(uid, dir, &plain, Removal::File)).await
            }
            None => Err(Error::NotFound(text(name))),
        }
    }

    /// A name that shows a version cannot be given to something else.
    async fn not_a_version(&self, dir: ObjectId, name: &[u8]) -> Result<()> {
        if names::split(name).is_none() {
            return Ok(());
        }
        self.directory(dir).await?;
        match self.version_named(dir, name).await? {
            Some(Named::Other(..) | Named::Base(..)) => Err(Error::Exists(text(name))),
            _ => Ok(()),
        }
    }

    async fn remove_once(
        &self,
        uid: u32,
        dir: ObjectId,
        name: &[u8],
        what: Removal,
    ) -> std::result::Result<Dot, Failure> {
        let entry = self.bound(dir, name).await?;
        let id = ObjectId { realm: dir.realm, fid: entry.fid };
        let held = self.cache.locks.hold([dir, id]).await;
        let parent = self.directory_held(dir).await?;
        right(&parent, Rights::DELETE, name)?;
        let still = self.entry(dir, name)?.ok_or_else(|| Error::NotFound(text(name)))?;
        if still.fid != entry.fid {
            return Err(Error::Busy(text(name)).into());
        }
        let child = self.current_held(id, Vec::new()).await?;
        let status = &child.row.status;
        let is_dir = status.kind == Kind::Directory;
        if status.in_conflict() && !child.gone {
            return Err(Error::Undecided(text(name)).into());
        }
        match what {
            Removal::File | Removal::Mount if is_dir => return Err(Error::IsDirectory(text(name)).into()),
            Removal::Directory if self.is_mount(status) => {
                return Err(Error::Busy(format!("{} is a mount point", text(name))).into());
            }
            Removal::File if self.is_covered(id) => {
                return Err(Error::IsDirectory(text(name)).into());
            }
            Removal::Mount if !self.is_mount(status) => {
                return Err(Error::Invalid(format!("{} is not a mount point", text(name))).into());
            }
            Removal::Directory if !is_dir => return Err(Error::NotDirectory(text(name)).into()),
            _ => {}
        }
        if is_dir && !self.is_known_empty(uid, id, &[dir, id]).await? {
            return Err(Error::NotEmpty(text(name)).into());
        }
        let bases = vec![Seen::of(&parent.row.status), Seen::of(status)];
        let bound = entry.name.clone();
        let dot = self
            .submit(uid, held, dir, bases, false, |stamp| {
                let mut change = Change::of(Edit::Unbind(dir, bound.clone(), id.fid));
                change.push(unlinked(id, &child.row, stamp));
                change.push(Edit::Put(dir, with_entries(&parent.row, stamp, -1, -i64::from(is_dir))));
                let (parent, name, fid) = (dir.fid, bound, id.fid);
                let op = match is_dir {
                    true => Op::RemoveDir { parent, name, fid },
                    false => Op::Remove { parent, name, fid },
                };
                (op, change)
            })
            .await?;
        if what == Removal::Mount {
            locked(&self.mounts).uncover(id);
        }
        Ok(dot)
    }

    fn is_covered(&self, link: ObjectId) -> bool {
        locked(&self.mounts).covers(link)
    }

    /// What a name is bound to.
    async fn bound(&self, dir: ObjectId, name: &[u8]) -> Result<Entry> {
        self.directory(dir).await?;
        self.entry_known(dir, name).await?.ok_or_else(|| Error::NotFound(text(name)))
    }

    /// Moves a name.
    pub(crate) async fn rename(
        &self,
        who: Caller,
        from: (ObjectId, &[u8]),
        to: (ObjectId, &[u8]),
        mode: RenameMode,
    ) -> Result<()> {
        check(from.0, from.1)?;
        check(to.0, to.1)?;
        if from.0.realm != to.0.realm || from.0.fid.volume != to.0.fid.volume {
            return Err(Error::CrossDirectory(text(from.1)));
        }
        self.not_a_version(to.0, to.1).await?;
        match self.retried(from.0, from.1, || self.rename_once(who.uid, from, to, mode)).await {
            Err(Error::NotFound(_)) if names::split(from.1).is_some() => {
                self.take_version(who.uid, from, to).await
            }
            outcome => outcome,
        }
    }

    /// A version that is renamed to the plain name is the one that people want. To any other name it can
    /// only be copied.
    async fn take_version(&self, uid: u32, from: (ObjectId, &[u8]), to: (ObjectId, &[u8])) -> Result<()> {
        let Some(Named::Other(_, of)) = self.version_named(from.0, from.1).await? else {
            return Err(Error::NotFound(text(from.1)));
        };
        match self.entry(to.0, to.1)? {
            Some(entry) if from.0 == to.0 && entry.fid == of.file.fid => {
                self.decide(uid, of.file, Keep::Chosen(Choice::Version(of.dot))).await.map(drop)
            }
            _ => Err(Error::CrossDirectory(text(from.1))),
        }
    }

    async fn rename_once(
        &self,
        uid: u32,
        (from, from_name): (ObjectId, &[u8]),
        (to, to_name): (ObjectId, &[u8]),
        mode: RenameMode,
    ) -> std::result::Result<(), Failure> {
        let entry = self.bound(from, from_name).await?;
        self.directory(to).await?;
        let taken = self.entry(to, to_name)?;
        let in_realm = |fid| ObjectId { realm: from.realm, fid };
        let id = in_realm(entry.fid);
        let replaced = taken.as_ref().map(|entry| in_realm(entry.fid));
        let held = self.cache.locks.hold([from, to, id].into_iter().chain(replaced)).await;
        let source = self.directory_held(from).await?;
        let target = self.directory_held(to).await?;
        right(&source, Rights::DELETE, from_name)?;
        right(&target, Rights::INSERT, to_name)?;
        let same = |now: &Option<Entry>, then: Option<Fid>| now.as_ref().map(|entry| entry.fid) == then;
        if !same(&self.entry(from, from_name)?, Some(entry.fid))
            || !same(&self.entry(to, to_name)?, taken.as_ref().map(|entry| entry.fid))
        {
            return Err(Error::Busy(text(from_name)).into());
        }
        let moved = self.current_held(id, Vec::new()).await?;
        let is_dir = moved.row.status.kind == Kind::Directory;
        if is_dir && self.is_below(to, id).await? {
            return Err(Error::Loop(text(to_name)).into());
        }
        let over = match (&taken, replaced) {
            (Some(_), Some(_)) if mode == RenameMode::NoReplace => {
                return Err(Error::Exists(text(to_name)).into());
            }
            // Two names of one file: nothing happens, says POSIX.
            (Some(_), Some(over)) if over == id => return Ok(()),
            (Some(taken), Some(over)) => {
                right(&target, Rights::DELETE, to_name)?;
                let view = self.current_held(over, Vec::new()).await?;
                match (is_dir, view.row.status.kind == Kind::Directory) {
                    (true, false) => return Err(Error::NotDirectory(text(to_name)).into()),
                    (false, true) => return Err(Error::IsDirectory(text(to_name)).into()),
                    (true, true) if !self.is_known_empty(uid, over, &[from, to, id, over]).await? => {
                        return Err(Error::NotEmpty(text(to_name)).into());
                    }
                    _ if view.row.status.in_conflict() => return Err(Error::Undecided(text(to_name)).into()),
                    _ if self.is_covered(over) => return Err(Error::Busy(text(to_name)).into()),
                    _ => Some((taken.clone(), view)),
                }
            }
            _ => None,
        };
        let mut bases = vec![Seen::of(&source.row.status)];
        bases.extend((to != from).then(|| Seen::of(&target.row.status)));
        bases.push(Seen::of(&moved.row.status));
        bases.extend(over.as_ref().map(|(_, view)| Seen::of(&view.row.status)));
        let bound_name = entry.name.clone();
        let exclusive = mode == RenameMode::NoReplace;
        self.submit(uid, held, from, bases, exclusive, |stamp| {
            let mut change = Change::of(Edit::Unbind(from, bound_name.clone(), id.fid));
            if let Some((taken, view)) = &over {
                change.push(Edit::Unbind(to, taken.name.clone(), taken.fid));
                change.push(unlinked(view.id, &view.row, stamp));
            }
            let new_name = taken.as_ref().map_or(to_name, |taken| &taken.name);
            change.push(bind(to, new_name, id.fid, moved.row.status.kind, stamp.dot));
            change.push(Edit::Put(id, updated(&moved.row, stamp, |status| status.parent = to.fid)));
            let (gone, gone_dirs) = match &over {
                Some((_, view)) => (1, i64::from(view.row.status.kind == Kind::Directory)),
                None => (0, 0),
            };
            let dirs = i64::from(is_dir);
            if from == to {
                change.push(Edit::Put(from, with_entries(&source.row, stamp, -gone, -gone_dirs)));
            } else {
                change.push(Edit::Put(from, with_entries(&source.row, stamp, -1, -dirs)));
                change.push(Edit::Put(to, with_entries(&target.row, stamp, 1 - gone, dirs - gone_dirs)));
            }
            let op = Op::Rename {
                from: from.fid,
                from_name: bound_name,
                to: to.fid,
                to_name: new_name.to_vec(),
                fid: id.fid,
                replaced: over.as_ref().map(|(taken, _)| taken.fid),
            };
            (op, change)
        })
        .await?;
        locked(&self.mounts).moved(id, to, to_name);
        Ok(())
    }

    /// Whether nothing is in a directory, as far as it has to be known: servers that are asked know better,
    /// and a record that is logged they do not refuse for that.
    async fn is_known_empty(&self, uid: u32, dir: ObjectId, touched: &[ObjectId]) -> Result<bool> {
        if self.is_apart(uid, touched).await {
            self.directory_held(dir).await?;
        }
        self.cache.store(|store| store.is_empty(dir))
    }

    /// Whether `dir` is `above` or lies below it.
    async fn is_below(&self, mut dir: ObjectId, above: ObjectId) -> Result<bool> {
        loop {
            if dir == above {
                return Ok(true);
            }
            if dir.fid.is_root() || dir == CODA {
                return Ok(false);
            }
            let Some(view) = self.cache.view(dir)? else {
                // The servers check too.
                return Ok(false);
            };
            dir = ObjectId { realm: dir.realm, fid: view.row.status.parent };
        }
    }
}

/// What kind of name is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Removal {
    File,
    Directory,
    Mount,
}

pub(crate) fn bind(dir: ObjectId, name: &[u8], fid: Fid, kind: Kind, dot: Dot) -> Edit {
    Edit::Bind(dir, Entry { name: name.to_vec(), fid, kind, dot })
}

fn newborn(parent: &Status, fid: Fid, birth: &Birth, stamp: &Stamp) -> Status {
    Status {
        fid,
        kind: birth.kind,
        length: if birth.kind == Kind::Symlink { birth.target.len() as u64 } else { 0 },
        mode: birth.mode,
        owner: birth.owner,
        group: 0,
        mtime: stamp.time,
        nlink: if birth.kind == Kind::Directory { 2 } else { 1 },
        parent: parent.fid,
        past: Past::of(stamp.dot),
        siblings: Vec::new(),
        target: birth.target.to_vec(),
        my_rights: parent.my_rights,
        any_rights: parent.any_rights,
        promised: false,
        lamport: stamp.lamport,
        xattrs: Vec::new(),
        marked: false,
        host: stamp.host.clone(),
        made: stamp.time,
        ctime: stamp.changed,
        atime: None,
    }
}

/// Whether a refusal says that a name is taken.
pub(crate) fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Exists(_))
}
