//! A new record makes others of the log needless: what is decided in `cml`, done in one transaction with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coda_proto::{Dot, Fid, Record};

use super::{Outbox, State, author::Writer};
use crate::{
    cml::{Earlier, Entry, Folded, Forgotten, cancel, fold, subject},
    ops::{Core, Result},
    store::{Change, Edit, LogRow, Row},
};

/// What the log does not hold any more once a change is made.
#[derive(Default)]
pub(super) struct Saved {
    folded: Folded,
    containers: Vec<u64>,
}

impl Core {
    /// Folds the log around a user's new record, which is about to be logged: what is left of the record, and in
    /// `change` what becomes of the others. What another user did is as good as sent: nothing is folded across it.
    pub(super) fn optimise(
        &self,
        outbox: &Outbox,
        state: &State,
        uid: u32,
        record: &Record,
        change: &mut Change,
    ) -> Result<Saved> {
        let Some(subject) = subject(&record.op) else { return Ok(Saved::kept(record)) };
        let about = state.about(subject);
        if about.is_empty() || (subject.is_directory() && !state.is_alone(subject, &about)) {
            return Ok(Saved::kept(record));
        }
        let mut rows = BTreeMap::new();
        for log in &about {
            if let Some(row) = self.cache.store(|store| store.logged(*log))? {
                rows.insert(*log, row);
            }
        }
        let earlier: Vec<Earlier> = rows
            .iter()
            .map(|(log, row)| {
                let pending = &state.queue[log];
                let sent = pending.sent || state.flies(*log) || pending.entry.uid != uid;
                Earlier { log: *log, op: &row.record.op, sent }
            })
            .collect();
        let gone = outbox.object(subject);
        let last_name = change.edits.iter().any(|edit| matches!(edit, Edit::Drop(id) if *id == gone));
        let plan = cancel(&earlier, &record.op, last_name);
        if plan.steps.is_empty() && plan.new.as_ref() == Some(&record.op) {
            return Ok(Saved::kept(record));
        }
        let read = |log| match rows.get(&log) {
            Some(row) => Ok(row.record.clone()),
            None => self.record_of(log),
        };
        let folded = fold(plan, record, read, |fid, log| state.behind(fid, log))?;
        self.put_folded(outbox, &folded, change)?;
        let containers = folded.gone.iter().filter_map(|log| rows.get(log)?.container).collect();
        Ok(Saved { folded, containers })
    }

    /// A record of the log.
    pub(super) fn record_of(&self, log: u64) -> Result<Record> {
        let row = self.cache.store(|store| store.logged(log))?;
        let lost = || crate::error::Error::Io("the log".into(), format!("record {log} is not there"));
        row.map(|row| row.record).ok_or_else(lost)
    }

    /// Writes what changes of the log, and takes what never was out of what is cached.
    pub(super) fn put_folded(&self, outbox: &Outbox, folded: &Folded, change: &mut Change) -> Result<()> {
        change.edits.extend(folded.gone.iter().map(|log| Edit::Unlog(*log)));
        for (log, record) in &folded.changed {
            if let Some(row) = self.cache.store(|store| store.logged(*log))? {
                change.push(Edit::Log(LogRow { record: record.clone(), ..row }));
            }
        }
        for forgotten in &folded.forgotten {
            self.forget(outbox, forgotten, change)?;
        }
        Ok(())
    }

    fn forget(&self, outbox: &Outbox, forgotten: &Forgotten, change: &mut Change) -> Result<()> {
        let id = outbox.object(forgotten.fid);
        let row = change.edits.iter_mut().rev().find_map(|edit| match edit {
            Edit::Put(put, row) if *put == id => Some(row),
            _ => None,
        });
        if let Some(row) = row {
            if let Some(past) = forgotten.out_of(&row.status.past) {
                Arc::make_mut(row).status.past = past;
            }
            return Ok(());
        }
        if change.edits.iter().any(|edit| matches!(edit, Edit::Drop(dropped) if *dropped == id)) {
            return Ok(());
        }
        let Some(view) = self.cache.view(id)?.filter(|view| !view.gone) else { return Ok(()) };
        if let Some(past) = forgotten.out_of(&view.row.status.past) {
            let mut row: Row = (*view.row).clone();
            row.status.past = past;
            change.push(Edit::Put(id, Arc::new(row)));
        }
        Ok(())
    }

    /// The log is what the change made it.
    pub(super) fn note_folded(&self, outbox: &Outbox, state: &mut State, saved: &Saved) {
        for log in &saved.folded.gone {
            state.held.remove(log);
            if let Some(pending) = state.remove(*log) {
                self.cache.note_sent(pending.entry.touches.iter().map(|fid| outbox.object(*fid)));
                self.answer_over(pending);
            }
        }
        for (log, record) in &saved.folded.changed {
            let Some(mut pending) = state.remove(*log) else { continue };
            self.cache.note_sent(pending.entry.touches.iter().map(|fid| outbox.object(*fid)));
            self.cache.note_unsent(record.op.touches().into_iter().map(|fid| outbox.object(fid)));
            let size = pending.entry.size;
            pending.entry = Entry::new(*log, pending.entry.uid, record, false);
            pending.entry.size = pending.entry.size.max(size);
            state.insert(pending);
        }
        state.forget(&saved.folded.forgotten);
        saved.containers.iter().for_each(|container| self.cache.discard(*container));
    }
}

impl Saved {
    /// Nothing changes but that there is one record more.
    fn kept(record: &Record) -> Saved {
        Saved { folded: Folded { new: Some(record.clone()), ..Folded::default() }, containers: Vec::new() }
    }

    /// Objects that something touched which is not to be.
    pub fn touched(&self) -> BTreeSet<Fid> {
        self.folded.forgotten.iter().map(|forgotten| forgotten.fid).collect()
    }

    /// What is left of the new record.
    pub fn left(&self) -> Option<&Record> {
        self.folded.new.as_ref()
    }
}

impl Writer {
    /// Updates that never were are not its own.
    pub fn forget(&mut self, forgotten: &[Forgotten]) {
        for Forgotten { fid, dot, before } in forgotten {
            let Dot { author, seq } = *dot;
            self.unwrite(*fid, author, seq, *before);
        }
    }
}

impl State {
    /// Updates that never were are nobody's own.
    pub fn forget(&mut self, forgotten: &[Forgotten]) {
        self.users.values_mut().for_each(|user| user.writer.forget(forgotten));
    }

    /// Records that touch an object, oldest first.
    pub fn about(&self, fid: Fid) -> Vec<u64> {
        self.by_object.get(&fid).map(|logs| logs.iter().copied().collect()).unwrap_or_default()
    }

    /// Records behind one that touch an object, oldest first.
    pub fn behind(&self, fid: Fid, log: u64) -> Vec<u64> {
        let behind = self.by_object.get(&fid).map(|logs| logs.range(log + 1..).copied().collect());
        behind.unwrap_or_default()
    }

    /// Whether these records are about a directory, rather than about something in it.
    fn is_alone(&self, dir: Fid, about: &[u64]) -> bool {
        about.iter().all(|log| {
            let entry = &self.queue[log].entry;
            // Of what a record touches, the directories whose names it changes come first.
            entry.creates == Some(dir) || entry.touches.len() == 1 || entry.touches[0] != dir
        })
    }
}
