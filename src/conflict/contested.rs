//! Several objects of one name: one keeps it, the others go or get names of their own.

use coda_proto::{Author, Dot, Entry, Kind, Sibling, Status};

use super::{Choice, choice, names, versions::distinct};
use crate::{
    error::Error,
    ops::{
        Core, Removal, Result,
        path::{self, text},
    },
    store::Undo,
    venus::face::{Caller, ObjectId, RenameMode},
};

/// What becomes of a contested name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    /// The chosen one keeps it. Other files go; directories never do, they get names of their own.
    Chosen(Choice),
    /// All stay, all but the one that shows under names of their own.
    Both,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settled {
    /// Files that went.
    pub removed: usize,
    /// Objects that have other names now, and these.
    pub renamed: Vec<Vec<u8>>,
}

/// A name of its own for a version: `NAME.HOST-TIME`, with what tells a file's kind at its end.
pub(crate) fn own_name(name: &[u8], label: &str) -> Vec<u8> {
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0 && name.len() - at <= 8);
    let (stem, end) = name.split_at(dot.unwrap_or(name.len()));
    let room = coda_proto::name::NAME_LIMIT.saturating_sub(label.len() + 1 + end.len());
    [&stem[..stem.len().min(room)], b".", label.as_bytes(), end].concat()
}

impl Core {
    /// Decides who keeps a name that several objects have.
    pub(crate) async fn decide_name(
        &self,
        who: Caller,
        dir: ObjectId,
        name: &[u8],
        fate: &Fate,
    ) -> Result<Settled> {
        self.directory(dir).await?;
        let bound = self.cache.named(dir, name)?;
        let mut statuses = Vec::new();
        for entry in &bound {
            let view = self.current(ObjectId { realm: dir.realm, fid: entry.fid }).await?;
            statuses.push(view.row.status.clone());
        }
        let keeper = match fate {
            Fate::Both => bound.first().map(|entry| entry.fid),
            Fate::Chosen(choice) => Some(self.keeper(&statuses, choice)?),
        };
        let mut settled = Settled::default();
        for (entry, status) in bound.iter().zip(&statuses).filter(|(entry, _)| Some(entry.fid) != keeper) {
            let (shown, label) = self.shown_as(dir, entry)?;
            if *fate == Fate::Both || status.kind == Kind::Directory {
                let own = own_name(name, &label);
                self.rename(who, (dir, &shown), (dir, &own), RenameMode::NoReplace).await?;
                settled.renamed.push(own);
                continue;
            }
            if status.kind == Kind::File {
                self.keep_removed(dir, name, status).await?;
            }
            self.remove(who.uid, dir, &shown, Removal::File).await?;
            settled.removed += 1;
        }
        self.say("conflict", format!("Resolved {} of {}", text(name), dir.fid));
        self.cache.forget_name(dir, name);
        self.cache.forget_object(dir, true);
        Ok(settled)
    }

    /// The object that a choice means.
    fn keeper(&self, statuses: &[Status], choice: &Choice) -> Result<coda_proto::Fid> {
        let birth = |status: &Status| Dot::new(Author(status.fid.unique), status.fid.vnode.into());
        let made: Vec<Sibling> = (statuses.iter())
            .map(|status| Sibling {
                dot: birth(status),
                length: status.length,
                hash: [0; 32],
                mtime: status.mtime,
                host: status.host.clone(),
            })
            .collect();
        let mut ours = std::collections::BTreeSet::new();
        for one in &made {
            if self.cache.store(|store| store.drew(one.dot.author))? {
                ours.insert(one.dot.author);
            }
        }
        let versions: Vec<&Sibling> = made.iter().collect();
        let chosen = choice::choose(&versions, choice, |author| ours.contains(&author))
            .map_err(|unclear| Error::Unclear(unclear.to_string()))?;
        let found = statuses.iter().find(|status| birth(status) == chosen.dot);
        Ok(found.expect("the choice is among them").fid)
    }

    /// The name under which one of several objects shows now, and its label.
    fn shown_as(&self, dir: ObjectId, entry: &Entry) -> Result<(Vec<u8>, String)> {
        let bound = self.cache.named(dir, &entry.name)?;
        let fids: Vec<_> = bound.iter().map(|entry| entry.fid).collect();
        let labels = path::labels_of(&fids, |fid| self.made(dir.realm, fid));
        let at = fids.iter().position(|fid| *fid == entry.fid);
        let at = at.ok_or_else(|| Error::NotFound(text(&entry.name)))?;
        let shown = match at {
            0 => entry.name.clone(),
            at => names::beside(&entry.name, &labels[at]),
        };
        Ok((shown, labels[at].clone()))
    }

    /// Keeps the contents of a file that a decision is about to remove.
    async fn keep_removed(&self, dir: ObjectId, name: &[u8], status: &Status) -> Result<()> {
        let id = ObjectId { realm: dir.realm, fid: status.fid };
        let view = self.current(id).await?;
        let mut aside = Vec::new();
        for sibling in distinct(&view.row.status.siblings) {
            aside.extend(self.aside(id, &view, sibling).await?);
        }
        if aside.is_empty() {
            return Ok(());
        }
        let (time, past) = (self.env.now(), status.past.clone());
        let undo = Undo { id: 0, time, object: dir, past, name: name.to_vec(), dropped: Vec::new() };
        self.keep_undo(undo, aside).map(drop)
    }

    /// Gives every version of a file but the one that shows a file of its own. Answers their names.
    pub(crate) async fn keep_both(&self, who: Caller, id: ObjectId) -> Result<Vec<Vec<u8>>> {
        let view = self.current(id).await?;
        if !view.row.status.in_conflict() {
            return Err(Error::Invalid(format!("{} is not in conflict", id.fid)));
        }
        let dir = ObjectId { realm: id.realm, fid: view.row.status.parent };
        self.directory(dir).await?;
        let name = self.cache.store(|store| store.name_in(dir, id.fid))?.ok_or(Error::Gone(id.fid))?;
        let mut made = Vec::new();
        for (sibling, label) in super::versions::labelled(&view.row.status.siblings).into_iter().skip(1) {
            let source = self.source(id, &view, sibling).await?;
            let own = own_name(&name, &label);
            self.make_file(who, dir, &own, &source.container, source.length).await?;
            made.push(own);
        }
        let shown = view.row.shown().ok_or(Error::Gone(id.fid))?;
        self.decide(who.uid, id, super::Keep::Chosen(Choice::Version(shown))).await?;
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_its_own_keeps_what_tells_a_files_kind() {
        let own = |name: &str| String::from_utf8(own_name(name.as_bytes(), "h-1")).unwrap();
        assert_eq!(own("notes.txt"), "notes.h-1.txt");
        assert_eq!(own("Makefile"), "Makefile.h-1");
        assert_eq!(own(".bashrc"), ".bashrc.h-1");
        assert_eq!(own("a.long-word-that-is-no-kind"), "a.long-word-that-is-no-kind.h-1");
        assert!(own_name(&[b'x'; 255], "h-1").len() <= 255);
    }
}
