//! What is pending, given up by hand; and what is pending, to be kept elsewhere.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use coda_proto::{Contents, Dot, Fid, Op, VolumeId, control::escape};

use super::{Outbox, Pending, State, author::Writer, users::Lane};
use crate::{
    cml::Unmade,
    error::Error,
    ops::{Core, Result, locked},
    store::{Change, Edit, LogRow},
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

impl State {
    /// What can be given up of one user or of all, newest first; and how many have to stay, since something else is
    /// pending of what they made.
    fn purgeable(&self, of: Option<u32>) -> (Vec<u64>, usize) {
        let mut needed: HashSet<Fid> = HashSet::new();
        let (mut gone, mut stay) = (Vec::new(), 0);
        for (log, Pending { entry, logged, .. }) in self.queue.iter().rev() {
            let is_meant = *logged && of.is_none_or(|of| of == entry.uid);
            let is_needed = entry.creates.is_some_and(|fid| needed.contains(&fid));
            if is_meant && !is_needed {
                gone.push(*log);
                continue;
            }
            stay += usize::from(is_meant);
            needed.extend(entry.touches.iter());
        }
        (gone, stay)
    }
}

/// What takes away the name that an operation gave.
fn unbound(outbox: &Outbox, op: &Op) -> Option<Edit> {
    match op {
        Op::Create { parent, name, fid, .. }
        | Op::MakeDir { parent, name, fid, .. }
        | Op::Symlink { parent, name, fid, .. }
        | Op::Link { parent, name, fid } => Some(Edit::Unbind(outbox.object(*parent), name.clone(), *fid)),
        _ => None,
    }
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
    /// Gives up what is in a volume's log, of one user or of all: what it touched is fetched again. What made an
    /// object of which something else is pending stays. Answers how many records are gone.
    pub async fn purge(&self, realm: u32, volume: VolumeId, of: Option<u32>) -> Result<u64> {
        let outbox = self.outbox(realm, volume);
        let mut state = locked(&outbox.state);
        let (gone, stay) = state.purgeable(of);
        let asks = state.of_lane(Lane::Asks).any(|p| of.is_none_or(|of| of == p.entry.uid));
        if asks || gone.iter().any(|log| state.flies(*log)) {
            return Err(Error::Busy("the log is being sent".into()));
        }
        let read = gone.iter().map(|log| self.cache.store(|store| store.logged(*log)));
        let rows: Vec<LogRow> = read.filter_map(Result::transpose).collect::<Result<_>>()?;
        let gone: BTreeSet<u64> = gone.into_iter().collect();
        let mut change = Change::default();
        let mut touched: BTreeSet<Fid> = BTreeSet::new();
        for row in &rows {
            change.push(Edit::Unlog(row.id));
            touched.extend(row.record.op.touches());
        }
        // Newest first.
        let unmade = Unmade::of(rows.iter().rev().map(|row| &row.record));
        let behind: BTreeSet<u64> = touched.iter().flat_map(|fid| state.about(*fid)).collect();
        for log in behind.difference(&gone) {
            if let Some(row) = self.cache.store(|store| store.logged(*log))?
                && let Some(record) = unmade.record(&row.record)
            {
                change.push(Edit::Log(LogRow { record, ..row }));
            }
        }
        let dots: BTreeSet<Dot> = rows.iter().map(|row| row.record.dot).collect();
        let made: BTreeSet<Fid> = rows.iter().filter_map(|row| row.record.op.creates()).collect();
        let mut tainted = Vec::new();
        for fid in &touched {
            let id = outbox.object(*fid);
            let Some(view) = self.cache.view(id)?.filter(|view| !view.gone) else { continue };
            let still = state.about(*fid).iter().any(|log| !gone.contains(log));
            // What others have below a directory stays within reach; its listing is fetched again.
            let others = of.is_some() && fid.is_directory() && !made.contains(fid);
            if !still && !others && view.open.is_none() {
                change.push(Edit::Drop(id));
                continue;
            }
            // Whoever has it open keeps what he has; its version is what it was before.
            let mut row = (*view.row).clone();
            if let Some(past) = unmade.past(*fid, &row.status.past) {
                row.status.past = past;
            }
            let shown = row.data.and_then(|data| data.dot);
            if view.open.is_none() && shown.is_some_and(|dot| dots.contains(&dot)) {
                row.data = None;
            }
            if still || others {
                row.complete = false;
                tainted.extend(still.then_some(*fid));
            }
            change.push(Edit::Put(id, Arc::new(row)));
        }
        change.edits.extend(rows.iter().filter_map(|row| unbound(&outbox, &row.record.op)));
        for fid in &touched {
            let _ = self.cache.demote(outbox.object(*fid));
        }
        self.cache.commit(&change)?;
        state.tainted.extend(tainted);
        for row in &rows {
            state.held.remove(&row.id);
            if let Some(pending) = state.remove(row.id) {
                self.cache.note_sent(row.record.op.touches().into_iter().map(|fid| outbox.object(fid)));
                self.answer_over(pending);
            }
            row.container.into_iter().for_each(|container| self.cache.discard(container));
        }
        for (_, user) in state.users.iter_mut().filter(|(uid, _)| of.is_none_or(|of| of == **uid)) {
            user.writer = Writer::default();
        }
        self.say("reintegration", format!("{} changes of volume {volume} were given up", rows.len()));
        if stay > 0 {
            self.say("reintegration", format!("{stay} stay: what others did is built on them"));
        }
        // What others did may have waited for these.
        self.run_all(&outbox, &mut state);
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
