//! Members hold the records: they are off the log.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use coda_proto::{Fid, Past, ServerId, Status};

use tokio::time::Instant;

use super::{Hold, Outbox, Pending, pump::Sending, verdict::Said};
use crate::{
    cache::{seal::Stamps, validity::Mark},
    cml::{Why, pause},
    ops::{Core, locked},
    store::{Change, Edit, Row},
};

impl Core {
    /// At least one member holds the records: they are off the log, and the cache takes the members' word
    /// for what the touched objects are now.
    pub(super) fn done(
        &self,
        outbox: &Arc<Outbox>,
        batch: Vec<Sending>,
        answers: Vec<(ServerId, Said)>,
        missed: &[ServerId],
        everywhere: bool,
        mark: Mark,
    ) {
        let members = answers.len() - missed.len();
        let silent =
            |server: &ServerId| answers.iter().any(|(other, said)| other == server && *said == Said::Silent);
        // One member passes it on to the others, who are not asked to resolve: they meet by themselves.
        let passed_on = !everywhere && missed.is_empty();
        let lagging = missed.iter().any(|server| !silent(server));
        let mut shown: HashMap<Fid, Vec<Status>> = HashMap::new();
        let mut stamps = Stamps::new();
        for (server, said) in answers.into_iter() {
            if let Said::Applied(statuses, change) = said {
                if let Some((before, after)) = change {
                    self.cache.advance((outbox.realm, outbox.volume), server, (before, after));
                    stamps.insert(server, after);
                }
                statuses.into_iter().for_each(|status| shown.entry(status.fid).or_default().push(status));
            }
        }
        // What each object includes after the last record of the batch that touches it.
        let mut expected: BTreeMap<Fid, Past> = BTreeMap::new();
        for sending in &batch {
            for fid in sending.record.op.touches() {
                let mut past = sending.record.base(fid);
                past.add(sending.record.dot);
                expected.insert(fid, past);
                let view = self.cache.view(outbox.object(fid));
                if let Ok(Some(file)) = view.map(|view| view.and_then(|view| view.open)) {
                    // Contents written over this one include our own update, whatever others did since.
                    file.state().seen.add(sending.record.dot);
                }
            }
        }
        let tainted = self.untainted(outbox, &expected, &batch);
        let (mut valid, mut doubted) = (Vec::new(), Vec::new());
        let committed = self.cache.decide(|rows| {
            let mut change = Change::default();
            change.edits.extend(batch.iter().map(|sending| Edit::Unlog(sending.log)));
            for (fid, past) in &expected {
                let id = outbox.object(*fid);
                let Some(row) = rows(id) else { continue };
                let statuses = shown.get(fid).map(Vec::as_slice).unwrap_or_default();
                let is_last = row.status.past == *past;
                if let Some(status) = statuses.iter().find(|status| status.past == *past)
                    && is_last
                {
                    change.push(Edit::Put(id, Arc::new(row.confirmed(status.clone()))));
                }
                if tainted.contains(fid) {
                    change.push(Edit::Put(id, Arc::new(Row { complete: false, ..(*row).clone() })));
                }
                let same = statuses.len() == members && statuses.iter().all(|status| status.past == *past);
                let promised = statuses.iter().all(|status| status.promised);
                match same && promised && !lagging && !passed_on && !tainted.contains(fid) {
                    true if is_last => valid.push((id, past.clone())),
                    // More of ours is on its way, and will say.
                    true => {}
                    false => doubted.push(id),
                }
            }
            (change, ())
        });
        if let Err(error) = committed {
            tracing::error!(%error, "sent records could not be taken off the log; they will be sent again");
            for fid in expected.keys() {
                let _ = self.cache.demote(outbox.object(*fid));
            }
            locked(&outbox.state).tainted.extend(tainted);
            self.keep_pending(outbox, &batch, &error.to_string());
            return;
        }
        if lagging {
            expected.keys().for_each(|fid| self.request_resolve(outbox.object(*fid)));
        }
        for (id, past) in valid {
            if !matches!(self.cache.believe(id, mark, &past, &stamps), Ok(true)) {
                doubted.push(id);
            }
        }
        for id in doubted {
            let _ = self.cache.demote(id);
        }
        self.keep_seal(outbox.realm, outbox.volume);
        tracing::debug!(records = batch.len(), everywhere, "applied");
        let whose: BTreeSet<u32> = batch.iter().map(|sending| sending.uid).collect();
        for sending in batch {
            self.off(outbox, sending);
        }
        whose.into_iter().for_each(|uid| self.retire_former(outbox, uid));
    }

    /// Members hold the records, and the log does, too: they stay there, and are sent again until it can be noted. Members
    /// skip what they have.
    fn keep_pending(&self, outbox: &Arc<Outbox>, batch: &[Sending], detail: &str) {
        let mut answers = Vec::new();
        let mut state = locked(&outbox.state);
        for sending in batch {
            answers.extend(self.log_one(outbox, &mut state, sending.log));
            let attempts = state.held.get(&sending.log).map_or(0, |hold| hold.attempts + 1);
            let until = Instant::now() + pause(attempts);
            let hold = Hold { why: Why::Here, detail: detail.to_owned(), attempts, until };
            state.held.insert(sending.log, hold);
        }
        // What asked is the matter of a log's lane now.
        self.run_all(outbox, &mut state);
        drop(state);
        for (waiting, dot) in answers {
            let _ = waiting.reply.send(Ok(dot));
        }
    }

    /// A record is off the log: nothing of it holds the cache any longer.
    pub(super) fn off(&self, outbox: &Outbox, sending: Sending) {
        let pending = {
            let mut state = locked(&outbox.state);
            state.held.remove(&sending.log);
            state.remove(sending.log)
        };
        let Some(pending) = pending else { return };
        let touched = pending.entry.touches.iter().map(|fid| outbox.object(*fid));
        match pending.logged {
            true => self.cache.note_sent(touched),
            false => touched.for_each(|id| self.cache.unpin(id)),
        }
        sending.container.into_iter().for_each(|container| self.cache.discard(container));
        self.answer_over(pending);
    }

    /// A record is over, and what it replaced is of no more use.
    pub(super) fn answer_over(&self, pending: Pending) {
        if let Some(waiting) = pending.waiting {
            self.discard_replaced(&waiting.undo);
            let _ = waiting.reply.send(Ok(pending.entry.dot));
        }
    }

    /// Directories whose listing shows something that was given up, and of which nothing else is pending.
    fn untainted(&self, outbox: &Outbox, expected: &BTreeMap<Fid, Past>, batch: &[Sending]) -> Vec<Fid> {
        let mut state = locked(&outbox.state);
        if state.tainted.is_empty() {
            return Vec::new();
        }
        let in_batch = |log: &u64| batch.iter().any(|sending| sending.log == *log);
        let pends = |fid: &Fid| state.queue.iter().any(|(log, p)| !in_batch(log) && p.entry.touches(*fid));
        let clean: Vec<Fid> =
            expected.keys().filter(|fid| state.tainted.contains(*fid) && !pends(fid)).copied().collect();
        state.tainted.retain(|fid| !clean.contains(fid));
        clean
    }
}
