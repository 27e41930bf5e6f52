//! The other ways to show a file in conflict: Coda's dangling link, and a directory of its versions.
//!
//! With `conflict_view=link` the name shows a symbolic link to nowhere, `@VOLUME.VNODE.UNIQUE@REALM.`, which no
//! program takes for the file by mistake. *Expanded*, in either view, it shows a directory in which each
//! version has the label by which it is told apart; collapsed, what it showed before. Both are objects that
//! exist on this machine only.

use std::sync::Arc;

use coda_proto::{Author, Dot, Entry, Kind, Past, Rights, Status};

use super::versions::{MadeUp, is_version, labelled};
use crate::{
    cache::View,
    config::ConflictView,
    error::Error,
    ops::{Core, Result, locked},
    store::{Change, Edit, Row},
    venus::face::ObjectId,
};

/// What a name of a file in conflict shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// The file, versions beside it.
    File,
    /// A link to nowhere.
    Link,
    /// A directory of versions.
    Directory,
}

/// The name under which expanded files are kept.
const KEPT: &str = "expanded";

/// What an object of venus' own has in common with the file it stands for.
fn stand_in(of: &Status, id: ObjectId, kind: Kind) -> Status {
    Status {
        fid: id.fid,
        kind,
        length: 0,
        mode: 0o444,
        nlink: 1,
        // It never changes its version: what it shows is worked out whenever it is looked at.
        past: Past::of(Dot::new(Author(1), 1)),
        siblings: Vec::new(),
        my_rights: Rights(of.my_rights.0 & (Rights::READ.0 | Rights::LOOKUP.0)),
        any_rights: Rights(of.any_rights.0 & (Rights::READ.0 | Rights::LOOKUP.0)),
        promised: false,
        lamport: 0,
        xattrs: Vec::new(),
        marked: true,
        ..of.clone()
    }
}

impl Core {
    /// What the name of a file shows.
    pub(crate) fn shows(&self, file: ObjectId, status: &Status) -> Shows {
        match status.kind == Kind::File && status.in_conflict() && !is_version(file) {
            false => Shows::File,
            true if locked(&self.expanded).contains(&file) => Shows::Directory,
            true if self.conflict_view == ConflictView::Link => Shows::Link,
            true => Shows::File,
        }
    }

    /// The object that a name of this file shows.
    pub(crate) fn shown_for(&self, file: ObjectId, status: &Status) -> ObjectId {
        match self.shows(file, status) {
            Shows::File => file,
            Shows::Link => self.stand_in_for(file, MadeUp::Link(file)),
            Shows::Directory => self.stand_in_for(file, MadeUp::Expanded(file)),
        }
    }

    /// The link to nowhere that stands for a file.
    pub(super) fn link_view(&self, id: ObjectId, file: &View) -> Result<View> {
        let realm = self.realm_name(id.realm)?;
        let target = format!("@{}@{realm}.", file.id.fid).into_bytes();
        let length = target.len() as u64;
        let status = Status { target, length, owner: 0, ..stand_in(&file.row.status, id, Kind::Symlink) };
        self.put_made_up(id, Row::new(status), Vec::new())
    }

    /// The directory of a file's versions.
    pub(super) fn directory_view(&self, id: ObjectId, file: &View) -> Result<View> {
        let versions = labelled(&file.row.status.siblings);
        let entry = |(sibling, label): &(&coda_proto::Sibling, String)| Entry {
            name: label.clone().into_bytes(),
            fid: self.version_id(file.id, sibling.dot).fid,
            kind: Kind::File,
            dot: sibling.dot,
        };
        let mut entries: Vec<Entry> = versions.iter().map(entry).collect();
        entries.sort();
        let status = Status {
            length: entries.len() as u64,
            mode: 0o555,
            nlink: 2,
            ..stand_in(&file.row.status, id, Kind::Directory)
        };
        self.put_made_up(id, Row { complete: true, ..Row::new(status) }, entries)
    }

    fn put_made_up(&self, id: ObjectId, row: Row, entries: Vec<Entry>) -> Result<View> {
        let held = self.cache.view(id)?;
        if held.as_ref().is_none_or(|held| held.row.status != row.status)
            || self.cache.store(|store| store.entries(id))? != entries
        {
            if held.is_none() {
                self.cache.room_for(1)?;
            }
            let mut change = Change::of(Edit::Clear(id));
            change.edits.extend(entries.into_iter().map(|entry| Edit::Bind(id, entry)));
            change.push(Edit::Put(id, Arc::new(row)));
            self.cache.commit(&change)?;
        }
        self.cache.view(id)?.ok_or(Error::Gone(id.fid))
    }

    /// Shows a file in conflict as a directory of its versions.
    pub(crate) async fn expand(&self, file: ObjectId) -> Result<()> {
        let view = self.current(file).await?;
        if !view.row.status.in_conflict() {
            return Err(Error::Invalid(format!("{} is not in conflict", file.fid)));
        }
        if !locked(&self.expanded).insert(file) {
            return Err(Error::Exists(format!("{} is expanded already", file.fid)));
        }
        self.expansion_changed(file, &view)
    }

    /// Ends that.
    pub(crate) async fn collapse(&self, file: ObjectId) -> Result<()> {
        if !locked(&self.expanded).remove(&file) {
            return Err(Error::Invalid(format!("{} is not expanded", file.fid)));
        }
        let view = self.current(file).await?;
        self.expansion_changed(file, &view)
    }

    fn expansion_changed(&self, file: ObjectId, view: &View) -> Result<()> {
        let keys: Vec<u8> = locked(&self.expanded).iter().flat_map(|id| crate::fid::key(*id)).collect();
        self.cache.store(|store| store.keep(KEPT, &keys))?;
        let dir = ObjectId { realm: file.realm, fid: view.row.status.parent };
        if let Some(name) = self.cache.store(|store| store.name_in(dir, file.fid))? {
            self.cache.forget_name(dir, &name);
        }
        self.cache.forget_object(dir, true);
        Ok(())
    }
}

/// The files that were expanded when the last run ended.
pub(crate) fn expanded(store: &crate::store::Store) -> Result<std::collections::BTreeSet<ObjectId>> {
    let kept = store.kept(KEPT)?.unwrap_or_default();
    Ok(kept.chunks(crate::fid::KEY).filter_map(crate::fid::from_key).collect())
}
