//! What is pending, given up by hand; and what is pending, to be kept elsewhere.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use coda_proto::{Contents, Fid, Op, VolumeId, control::escape};

use super::{Outbox, author::Writer};
use crate::{
    cml::Forgotten,
    error::Error,
    ops::{Core, Result, locked},
    store::{Change, Edit, LogRow, Row},
};

/// An object made or written while apart, to be kept elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Relative to the volume's root.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Modification time.
    pub mtime: i64,
    /// What it is.
    pub what: KeptAs,
}

/// What is kept of it.
#[derive(Clone, Debug, PartialEq)]
pub enum KeptAs {
    /// A directory.
    Directory,
    /// A symbolic link.
    Link(Vec<u8>),
    /// Short contents.
    Bytes(Bytes),
    /// Contents in this container.
    Container(u64, u64),
}

/// What a volume's log comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// Objects, in the order of the log.
    pub kept: Vec<Kept>,
    /// One line for each record.
    pub lines: Vec<String>,
}

impl Core {
    /// Gives up whatever is in a volume's log: what it touched is fetched again. Answers how many records.
    pub async fn purge(&self, realm: u32, volume: VolumeId) -> Result<u64> {
        let outbox = self.outbox(realm, volume);
        let mut state = locked(&outbox.state);
        if !state.flying.is_empty() || state.asking > 0 {
            return Err(Error::Busy("the log is being sent".into()));
        }
        let rows: Vec<LogRow> = {
            let logs: Vec<u64> = state.queue.keys().rev().copied().collect();
            let read = logs.into_iter().map(|log| self.cache.store(|store| store.logged(log)));
            read.filter_map(Result::transpose).collect::<Result<_>>()?
        };
        let mut change = Change::default();
        let mut touched: BTreeSet<Fid> = BTreeSet::new();
        for row in &rows {
            change.push(Edit::Unlog(row.id));
            touched.extend(row.record.op.touches());
        }
        for fid in &touched {
            let id = outbox.object(*fid);
            let Some(view) = self.cache.view(id)?.filter(|view| !view.gone) else { continue };
            if view.open.is_none() {
                change.push(Edit::Drop(id));
                continue;
            }
            // Whoever has it open keeps what he has; its version is what it was before.
            let mut row: Row = (*view.row).clone();
            for record in rows.iter().map(|row| &row.record) {
                let before = record.base(*fid).seq(record.dot.author);
                let forgotten = Forgotten { fid: *fid, dot: record.dot, before };
                if let Some(past) = forgotten.out_of(&row.status.past) {
                    row.status.past = past;
                }
            }
            change.push(Edit::Put(id, Arc::new(row)));
        }
        for fid in &touched {
            let _ = self.cache.demote(outbox.object(*fid));
        }
        self.cache.commit(&change)?;
        for row in &rows {
            state.held.remove(&row.id);
            if state.remove(row.id).is_some() {
                self.cache.note_sent(row.record.op.touches().into_iter().map(|fid| outbox.object(fid)));
            }
            row.container.into_iter().for_each(|container| self.cache.discard(container));
        }
        state.writer = Writer::default();
        self.say("reintegration", format!("{} changes of volume {volume} were given up", rows.len()));
        Ok(rows.len() as u64)
    }

    /// What is pending of a volume, to be written down elsewhere. `None` where nothing is.
    pub fn checkpoint(&self, realm: u32, volume: VolumeId) -> Result<Option<Checkpoint>> {
        let outbox = self.outbox(realm, volume);
        let logs: Vec<u64> = locked(&outbox.state).queue.keys().copied().collect();
        let mut checkpoint = Checkpoint::default();
        let mut seen: BTreeSet<Fid> = BTreeSet::new();
        // The last Store of a file counts, so from the end.
        for log in logs.iter().rev() {
            let Some(row) = self.cache.store(|store| store.logged(*log))? else { continue };
            checkpoint.lines.push(self.line(&outbox, &row));
            if let Some(kept) = self.kept(&outbox, &row, &mut seen) {
                checkpoint.kept.push(kept);
            }
        }
        checkpoint.kept.reverse();
        checkpoint.lines.reverse();
        Ok((!logs.is_empty()).then_some(checkpoint))
    }

    fn kept(&self, outbox: &Outbox, row: &LogRow, seen: &mut BTreeSet<Fid>) -> Option<Kept> {
        let (fid, what) = match &row.record.op {
            Op::Store { fid, length, contents, .. } => {
                let what = match (row.container, contents) {
                    (Some(container), _) => KeptAs::Container(container, *length),
                    (None, Contents::Inline(bytes)) => KeptAs::Bytes(bytes.clone()),
                    (None, Contents::Uploaded(_)) => return None,
                };
                (*fid, what)
            }
            Op::Create { fid, .. } => (*fid, KeptAs::Bytes(Bytes::new())),
            Op::MakeDir { fid, .. } => (*fid, KeptAs::Directory),
            Op::Symlink { fid, target, .. } => (*fid, KeptAs::Link(target.clone())),
            _ => return None,
        };
        if !seen.insert(fid) {
            return None;
        }
        let path = self.path_in(outbox, fid)?;
        let status = self.cache.view(outbox.object(fid)).ok().flatten()?.row.status.clone();
        Some(Kept { path, mode: status.mode & 0o777, mtime: status.mtime, what })
    }

    /// Where an object is, relative to its volume's root.
    fn path_in(&self, outbox: &Outbox, fid: Fid) -> Option<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = fid;
        while !at.is_root() {
            let view = self.cache.view(outbox.object(at)).ok()??;
            let dir = outbox.object(view.row.status.parent);
            names.push(self.cache.store(|store| store.name_in(dir, at)).ok()??);
            at = dir.fid;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }

    /// One record in the words of old.
    fn line(&self, outbox: &Outbox, row: &LogRow) -> String {
        // One line each, whatever somebody has put into a name; `cfs replay` reads them again.
        let text = |name: &[u8]| escape(name).replace('\n', "\\x0a");
        let path = |fid: Fid| match self.path_in(outbox, fid) {
            Some(path) => text(&path),
            None => "???".to_owned(),
        };
        let in_dir = |dir: &Fid, name: &[u8]| match dir.is_root() {
            true => text(name),
            false => format!("{}/{}", path(*dir), text(name)),
        };
        match &row.record.op {
            Op::Store { fid, length, .. } => format!("Store\t{} (length = {length})", path(*fid)),
            Op::SetAttr { fid, mode: Some(mode), .. } => format!("Chmod\t{} (mode = {mode:o})", path(*fid)),
            Op::SetAttr { fid, owner: Some(owner), .. } => format!("Chown\t{} (owner = {owner})", path(*fid)),
            Op::SetAttr { fid, .. } => format!("Utime\t{}", path(*fid)),
            Op::SetXattr { fid, name, .. } => format!("Xattr\t{} ({})", path(*fid), text(name)),
            Op::Create { parent, name, .. } => format!("Create\t{}", in_dir(parent, name)),
            Op::MakeDir { parent, name, .. } => format!("Mkdir\t{}", in_dir(parent, name)),
            Op::Symlink { parent, name, target, .. } => {
                format!("Symlink\t{} (--> {})", in_dir(parent, name), text(target))
            }
            Op::Link { parent, name, fid } => format!("Link\t{} to {}", path(*fid), in_dir(parent, name)),
            Op::Remove { parent, name, .. } => format!("Remove\t{}", in_dir(parent, name)),
            Op::RemoveDir { parent, name, .. } => format!("Rmdir\t{}", in_dir(parent, name)),
            Op::Rename { from, from_name, to, to_name, .. } => {
                format!("Rename\t{} (to: {})", in_dir(from, from_name), in_dir(to, to_name))
            }
            Op::SetAcl { fid, .. } => format!("Acl\t{}", path(*fid)),
            Op::SetQuota { fid, .. } => format!("Quota\t{}", path(*fid)),
        }
    }
}
