//! A logged record that the servers do not take: it waits, and only what depends on it with it; or there
//! is nothing left that it could change, and its contents are kept aside.

use std::sync::Arc;

use coda_proto::{Code, Op, Record, Refusal};
use tokio::time::Instant;

use super::{Hold, Outbox, pump::Sending};
use crate::{
    cml::{Remedy, Why, follows, pause, rebased, remedy},
    env::Priority,
    ops::{Core, locked, path::text},
    store::{Change, Edit, LogRow, Row},
    venus::face::ObjectId,
};

impl Core {
    pub(super) async fn not_taken(
        &self,
        outbox: &Arc<Outbox>,
        sending: &Sending,
        refusal: Refusal,
        all: bool,
    ) {
        let code = refusal.code;
        match remedy(code, all) {
            Remedy::Wait(Why::Contents) if self.is_worthless(outbox, sending) => {
                self.give_up_record(outbox, sending, &refusal);
            }
            Remedy::Wait(why) => {
                if code == Code::NeedsResolve {
                    let blamed = refusal.blame.unwrap_or(sending.record.op.touches()[0]);
                    self.resolve(outbox.object(blamed), Priority::Background).await;
                }
                self.hold(outbox, sending, why, refusal);
            }
            Remedy::GiveUp => self.give_up_record(outbox, sending, &refusal),
        }
    }

    fn hold(&self, outbox: &Outbox, sending: &Sending, why: Why, refusal: Refusal) {
        let mut state = locked(&outbox.state);
        let attempts = state.held.get(&sending.log).map_or(0, |hold| hold.attempts + 1);
        let hold = Hold { why, detail: refusal.detail, attempts, until: Instant::now() + pause(attempts) };
        if attempts == 0 {
            let verb = sending.record.op.verb();
            tracing::warn!(dot = %sending.record.dot, verb, detail = %hold.detail, "not taken yet");
            if !why.passes() {
                self.say("reintegration", format!("{verb} waits: {} ({})", why.text(), hold.detail));
            }
        }
        state.held.insert(sending.log, hold);
    }

    /// Whether the contents of a Store can never be sent: they are not what the record says, and nobody is
    /// writing them.
    fn is_worthless(&self, outbox: &Outbox, sending: &Sending) -> bool {
        let (Op::Store { fid, length, hash, .. }, Some(container)) = (&sending.record.op, sending.container)
        else {
            return false;
        };
        let view = self.cache.view(outbox.object(*fid)).ok().flatten();
        let written = view.and_then(|view| view.open).is_some_and(|file| {
            let writers = file.state().writers;
            file.name == container && (writers > 0 || file.changed())
        });
        let whole = || {
            let found = self.cache.containers.open(container).and_then(|c| crate::ops::digest(&*c));
            found.is_ok_and(|found| found == (*length, *hash))
        };
        !written && !whole()
    }

    /// Takes a record off the log that no member holds or will. Later ones no longer name it, and its
    /// contents are put where people find them.
    fn give_up_record(&self, outbox: &Outbox, sending: &Sending, refusal: &Refusal) {
        let (record, verb) = (&sending.record, sending.record.op.verb());
        tracing::warn!(dot = %record.dot, verb, %refusal, "given up");
        self.say("conflict", format!("{verb} was refused: {}", refusal.detail));
        let mut state = locked(&outbox.state);
        let Some(pending) = state.queue.get(&sending.log) else { return };
        let mut change = Change::of(Edit::Unlog(sending.log));
        let later: Vec<u64> = (state.queue.values())
            .filter(|other| follows(&pending.entry, &other.entry))
            .map(|other| other.entry.log)
            .collect();
        for log in &later {
            match self.cache.store(|store| store.logged(*log)) {
                Ok(Some(row)) => {
                    let rest = rebased(record, &row.record);
                    change.edits.extend(rest.map(|record| Edit::Log(LogRow { record, ..row })));
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, log, "a record of the log cannot be read"),
            }
        }
        if let Op::Store { fid, .. } = record.op {
            let superseded = state.queue.values().any(|other| {
                other.entry.log > sending.log && other.entry.verb == verb && other.entry.touches(fid)
            });
            if !superseded {
                self.set_contents_aside(outbox.object(fid), sending);
            }
        }
        for fid in record.op.touches() {
            let id = outbox.object(fid);
            if later.iter().any(|log| state.queue[log].entry.touches(fid)) {
                state.tainted.insert(fid);
                continue;
            }
            let open = self.cache.view(id).ok().flatten().is_some_and(|view| view.open.is_some());
            match (fid.is_directory(), open) {
                // What is below it stays reachable; its listing is fetched again.
                (true, _) | (_, true) => self.forget_listing(id, record, &mut change),
                (false, false) => change.push(Edit::Drop(id)),
            }
        }
        if let Err(error) = self.cache.commit(&change) {
            tracing::error!(%error, "a refused record stays in the log");
            return;
        }
        let later_waiting = later.into_iter().filter_map(|log| {
            let pending = state.queue.get_mut(&log)?;
            let waiting = pending.waiting.take()?;
            Some((waiting, pending.entry.dot))
        });
        let answers: Vec<_> = later_waiting.collect();
        drop(state);
        for (waiting, dot) in answers {
            let _ = waiting.reply.send(Ok(dot));
        }
        let touched = record.op.touches();
        let gone = Sending { record: record.clone(), ..*sending };
        self.off(outbox, gone);
        for fid in touched {
            let _ = self.cache.demote(outbox.object(fid));
        }
    }

    /// A row without what a given-up record did: it is learnt again, whatever it included.
    fn forget_listing(&self, id: ObjectId, record: &Record, change: &mut Change) {
        if let Ok(Some(view)) = self.cache.view(id) {
            let mut row = Row { complete: false, ..(*view.row).clone() };
            row.status.past = record.base(id.fid);
            change.push(Edit::Put(id, Arc::new(row)));
        }
    }

    fn set_contents_aside(&self, id: ObjectId, sending: &Sending) {
        let Ok(Some(view)) = self.cache.view(id) else { return };
        if view.open.as_ref().is_some_and(|file| file.state().writers > 0) {
            // Whoever writes it stores it again.
            return;
        }
        let Some(container) = sending.container.or(view.row.data.map(|data| data.container)) else { return };
        // A copy: whoever reads it goes on reading.
        let copied = self.cache.container_name().and_then(|copy| {
            let done = self.cache.containers.copy(container, copy);
            done.map(|_| copy).map_err(|error| crate::cache::io(id.fid, error))
        });
        match copied {
            Ok(copy) => self.spool(id, copy),
            Err(error) => tracing::error!(fid = %id.fid, container, %error, "contents could not be spooled"),
        }
    }

    /// Moves contents that no server has to where people find them, and says where.
    pub(crate) fn spool(&self, id: ObjectId, container: u64) {
        let realm = self.realm_name(id.realm).map(|name| name.to_string()).unwrap_or_default();
        let name = self.cache.view(id).ok().flatten().and_then(|view| {
            let dir = ObjectId { realm: id.realm, fid: view.row.status.parent };
            self.cache.store(|store| store.name_in(dir, id.fid)).ok().flatten()
        });
        let name = name.map_or_else(|| id.fid.to_string(), |name| text(&name));
        match self.cache.containers.spool(container, &format!("{realm}-{name}")) {
            Ok(place) => {
                tracing::warn!(%realm, fid = %id.fid, %place, "contents that no server has were kept");
                self.say("store", format!("Failed to store {name}@{realm}; its contents are in {place}"));
            }
            Err(error) => {
                tracing::error!(%realm, fid = %id.fid, container, %error, "contents could not be spooled");
            }
        }
    }
}
