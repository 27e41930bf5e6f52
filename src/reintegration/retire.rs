//! Authors come and go. One that will never send anything again is retired, so that pasts stay short; one that the
//! servers have retired although it has something to send gives it to another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use coda_proto::{Author, Fid, Record, Refusal, wire};
use tokio::time::Instant;

use super::{Hold, Outbox, Pending, State, author::Writer, pump::Sending, users::Lane};
use crate::{
    cml::{Entry, Reissue, Why, any_may_be_held, pause},
    ops::{Core, Result, locked},
    store::{Change, Edit, LogRow, Row},
};

/// Authors of one call, at most.
const AT_ONCE: usize = 1000;

impl Core {
    /// Everything of a user is sent: the authors that were drawn for them before the present one are retired.
    pub(super) fn retire_former(&self, outbox: &Arc<Outbox>, uid: u32) {
        {
            let mut state = locked(&outbox.state);
            let user = state.user(uid);
            if !user.is_idle() || std::mem::replace(&mut user.succeeded, true) {
                return;
            }
        }
        let (core, outbox) = (self.me(), outbox.clone());
        self.spawn(async move {
            if !core.retire(&outbox, Some(uid), false).await {
                locked(&outbox.state).user(uid).succeeded = false;
            }
        });
    }

    /// Somebody of a realm is in reach: the authors of whoever has nothing to send are retired there, also where they
    /// were drawn in a run that did not end well, and their user never writes again.
    pub(crate) fn retire_earlier(&self, realm: u32) -> Result<()> {
        for (volume, uid) in self.cache.store(|store| store.writers(realm))? {
            self.retire_former(&self.outbox(realm, volume), uid.unwrap_or(self.settings.owner));
        }
        Ok(())
    }

    /// An orderly end: where everything is sent, nobody writes any more.
    pub(crate) async fn retire_all(&self) {
        let outboxes: Vec<_> = locked(&self.outboxes).values().cloned().collect();
        let all = outboxes.iter().map(|outbox| async move {
            // Where nobody is there, the next start does it.
            if self.is_reachable(outbox.root()).await {
                self.retire(outbox, None, true).await;
            }
        });
        futures::future::join_all(all).await;
    }

    /// Retires authors of a volume, one user's or everybody's, of which nothing is in the log. Answers whether that
    /// is done.
    async fn retire(&self, outbox: &Outbox, of: Option<u32>, present: bool) -> bool {
        let chosen = {
            let mut state = locked(&outbox.state);
            let drawn = self.cache.store(|store| store.authors(outbox.realm, outbox.volume));
            let Ok(drawn) = drawn else { return false };
            let used: BTreeSet<Author> = state.queue.values().map(|p| p.entry.dot.author).collect();
            if present {
                // Whatever comes after all is written by another.
                let idle = state.users.values_mut().filter(|user| user.is_idle());
                idle.for_each(|user| user.writer = Writer::default());
            }
            let is_meant = |uid: Option<u32>| of.is_none_or(|of| of == uid.unwrap_or(self.settings.owner));
            let meant = drawn.into_iter().filter(|(_, uid)| is_meant(*uid)).map(|(author, _)| author);
            let over = meant.filter(|author| !state.writes(*author) && !used.contains(author));
            over.take(AT_ONCE).collect::<Vec<Author>>()
        };
        if chosen.is_empty() {
            return true;
        }
        let Ok((realm, group)) = self.group(outbox.root()).await else { return false };
        let body = wire::request::Body::Retire(wire::Retire {
            volume: outbox.volume.0,
            authors: chosen.iter().map(|author| author.0).collect(),
            ask: false,
        });
        // One of them is enough: they tell each other.
        let told = self.peers.ask_all(&realm, &group, body, Bytes::new()).await;
        let done = told.iter().any(|(_, answer)| {
            let body = answer.as_ref().ok().and_then(|answer| answer.response.body.as_ref());
            matches!(body, Some(wire::response::Body::Retired(_)))
        });
        if done {
            let retired = chosen.iter().map(|author| Edit::Retired(author.0)).collect();
            return self.cache.commit(&Change { edits: retired }).is_ok();
        }
        false
    }

    /// Every member says that the author of a record is retired, and none holds the record: it is issued again by
    /// a new one, with all that the same author left in the log.
    pub(super) fn reissue(&self, outbox: &Outbox, lane: Lane, sending: &Sending, refusal: Refusal) {
        let mut state = locked(&outbox.state);
        let author = sending.record.dot.author;
        if let Some(pending) = state.queue.get_mut(&sending.log) {
            pending.maybe = false;
        }
        // Where another of them may have arrived, that is to be known first: then it keeps its name.
        let elsewhere = |log: u64| {
            let mut lanes = state.lanes.iter().filter(|(other, _)| **other != lane);
            lanes.any(|(_, progress)| progress.flying.contains(&log))
        };
        let doubts = |pending: &Pending| pending.maybe || elsewhere(pending.entry.log);
        let entries = state.queue.values().map(|pending| (&pending.entry, doubts(pending)));
        let unclear = any_may_be_held(author, entries);
        let done = match unclear {
            true => Ok(()),
            false => self.issue_again(outbox, &mut state, author, sending.uid),
        };
        if let Err(error) = &done {
            tracing::error!(%error, "the records of a retired author could not be issued again");
        }
        if unclear || done.is_err() {
            let attempts = state.held.get(&sending.log).map_or(0, |hold| hold.attempts + 1);
            let until = Instant::now() + pause(attempts);
            let hold = Hold { why: Why::Busy, detail: refusal.detail, attempts, until };
            state.held.insert(sending.log, hold);
        }
    }

    fn issue_again(&self, outbox: &Outbox, state: &mut State, author: Author, uid: u32) -> Result<()> {
        let of = |pending: &&Pending| pending.entry.dot.author == author;
        let waiting: BTreeSet<u64> = state.queue.values().filter(of).map(|p| p.entry.dot.seq).collect();
        let count = waiting.len();
        let to = Author(self.env.random().max(2));
        let mut reissue = Reissue::new(author, to, waiting);
        let mut change = Change::of(Edit::Author(to.0, outbox.realm, outbox.volume.0, uid));
        let mut records: BTreeMap<u64, Record> = BTreeMap::new();
        let mut touched: BTreeSet<Fid> = BTreeSet::new();
        for log in state.queue.keys() {
            let Some(row) = self.cache.store(|store| store.logged(*log))? else { continue };
            if row.record.dot.author == author {
                touched.extend(row.record.op.touches());
            }
            if let Some(record) = reissue.record(&row.record) {
                records.insert(*log, record.clone());
                change.push(Edit::Log(LogRow { record, sent: false, ..row }));
            }
        }
        let mut open = Vec::new();
        for fid in touched {
            let Some(view) = self.cache.view(outbox.object(fid))? else { continue };
            open.extend(view.open.clone().map(|file| (fid, file)));
            if view.gone {
                continue;
            }
            let mut row: Row = (*view.row).clone();
            if let Some(past) = reissue.past(fid, &row.status.past) {
                row.status.past = past;
            }
            row.status.siblings.iter_mut().for_each(|sibling| sibling.dot = reissue.dot(sibling.dot));
            if let Some(data) = &mut row.data {
                data.dot = data.dot.map(|dot| reissue.dot(dot));
            }
            if row != *view.row {
                change.push(Edit::Put(outbox.object(fid), Arc::new(row)));
            }
        }
        for seq in reissue.waiting() {
            change.push(Edit::Reissue { from: author.0, to: to.0, seq });
        }
        self.cache.commit(&change)?;
        for (fid, file) in open {
            let mut open = file.state();
            if let Some(past) = reissue.past(fid, &open.seen) {
                open.seen = past;
            }
        }
        for (log, record) in records {
            let Some(mut pending) = state.remove(log) else { continue };
            let size = pending.entry.size;
            pending.entry = Entry::new(log, pending.entry.uid, &record, false);
            pending.entry.size = pending.entry.size.max(size);
            (pending.sent, pending.maybe) = (false, false);
            if let Some(waiting) = &mut pending.waiting {
                waiting.record = Record { logged: waiting.record.logged, ..record };
            }
            state.insert(pending);
            state.held.remove(&log);
        }
        state.user(uid).succeeded = false;
        state.disown(author);
        tracing::warn!(%author, records = count, "retired by the servers: its records are issued again");
        self.say("reintegration", format!("{count} changes that waited for very long are sent anew"));
        Ok(())
    }
}
