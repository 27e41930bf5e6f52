//! A logged record that the servers do not take: it waits, and only what depends on it with it; or there
//! is nothing left that it could change, and its contents are kept aside.

use std::sync::Arc;

use coda_proto::{Code, Contents, Op, Refusal};
use tokio::time::Instant;

use super::{Hold, Outbox, pump::Sending, users::Lane};
use crate::{
    cml::{Remedy, Why, pause, remedy, without},
    env::Priority,
    ops::{Core, locked, path::text},
    store::{Change, Edit, Row},
    venus::face::ObjectId,
};

impl Core {
    pub(super) async fn not_taken(
        &self,
        outbox: &Arc<Outbox>,
        lane: Lane,
        sending: &Sending,
        refusal: Refusal,
        all: bool,
    ) {
        let code = refusal.code;
        self.events.counts.not_taken(code);
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
            Remedy::Reissue => {
                self.reissue(outbox, lane, sending, refusal);
                // Also what others built on it has changed.
                self.run_all(outbox, &mut locked(&outbox.state));
            }
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
        if let Op::Store { fid, contents, .. } = &record.op {
            let superseded = {
                let state = locked(&outbox.state);
                state.queue.values().any(|other| {
                    other.entry.log > sending.log && other.entry.verb == verb && other.entry.touches(*fid)
                })
            };
            // Before it leaves the log: a crash may leave it twice, and never not at all. It takes as long as the file is
            // long, so nobody waits for it.
            if !superseded {
                self.set_contents_aside(outbox.object(*fid), sending, contents);
            }
        }
        let mut state = locked(&outbox.state);
        let touched = record.op.touches();
        let behind: Vec<u64> = touched.iter().flat_map(|fid| state.behind(*fid, sending.log)).collect();
        let folded =
            without(sending.log, record, |log| self.record_of(log), |fid, log| state.behind(fid, log));
        let folded = match folded {
            Ok(folded) => folded,
            Err(error) => {
                tracing::error!(%error, "a refused record stays in the log");
                return;
            }
        };
        let mut change = Change::default();
        if let Err(error) = self.put_folded(outbox, &folded, &mut change) {
            tracing::error!(%error, "a refused record stays in the log");
            return;
        }
        for fid in touched {
            let id = outbox.object(fid);
            if behind.iter().any(|log| state.queue[log].entry.touches(fid)) {
                state.tainted.insert(fid);
                continue;
            }
            let open = self.cache.view(id).ok().flatten().is_some_and(|view| view.open.is_some());
            match (fid.is_directory(), open) {
                // What is below it stays reachable; its listing is fetched again.
                (true, _) | (_, true) => self.forget_listing(id, &mut change),
                (false, false) => change.push(Edit::Drop(id)),
            }
        }
        if let Err(error) = self.cache.commit(&change) {
            tracing::error!(%error, "a refused record stays in the log");
            return;
        }
        state.forget(&folded.forgotten);
        drop(state);
        let touched = record.op.touches();
        self.off(outbox, Sending { record: record.clone(), ..*sending });
        for fid in touched {
            let _ = self.cache.demote(outbox.object(fid));
        }
    }

    /// The listing that a given-up record changed is learnt again.
    fn forget_listing(&self, id: ObjectId, change: &mut Change) {
        let put = change.edits.iter_mut().rev().find_map(|edit| match edit {
            Edit::Put(put, row) if *put == id => Some(row),
            _ => None,
        });
        match put {
            Some(row) => Arc::make_mut(row).complete = false,
            None => {
                if let Ok(Some(view)) = self.cache.view(id) {
                    change.push(Edit::Put(id, Arc::new(Row { complete: false, ..(*view.row).clone() })));
                }
            }
        }
    }

    /// Puts the contents of a Store that nobody takes where people find them, whatever is known of its file by now. Also
    /// where somebody has it open: its close may have been answered, and nothing be stored again.
    fn set_contents_aside(&self, id: ObjectId, sending: &Sending, contents: &Contents) {
        let shown = self.cache.view(id).ok().flatten().and_then(|view| view.row.data);
        let held = sending.container.or(shown.map(|data| data.container));
        let lies_in = if matches!(contents, Contents::Inline(_)) { sending.container } else { held };
        let realm = self.realm_field(id.realm);
        // A copy: whoever reads it goes on reading.
        match (self.copied(id, lies_in, contents), held) {
            (Ok(Some(copy)), _) => self.spool(id, copy.keep().0),
            (Ok(None), _) => {}
            (Err(error), Some(container)) => {
                // There may be no room for a copy: then it is moved, and whoever reads it next fetches it again.
                tracing::warn!(realm, fid = %id.fid, container, %error, "no copy for the spool");
                self.spool(id, container);
            }
            (Err(error), None) => {
                tracing::error!(realm, fid = %id.fid, %error, "contents could not be spooled");
            }
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
