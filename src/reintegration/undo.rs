//! A mutation that asked did not come about; or nobody could be asked, and it is logged instead.

use std::collections::BTreeSet;

use coda_proto::{Code, Dot, Fid};

use super::{Failure, Outbox, Pending, State, pump::Sending, users::Lane};
use crate::{
    ops::{Core, locked},
    store::Edit,
};

impl Core {
    /// Nobody holds the records: the cache goes back, and what was built on them begins again.
    pub(super) fn fail(&self, outbox: &Outbox, failed: Vec<Sending>, failure: Failure) {
        let logs = failed.iter().map(|sending| sending.log).collect();
        let undone = {
            let mut state = locked(&outbox.state);
            let undone = self.undo_all(outbox, &mut state, &logs, &failure);
            if matches!(&failure, Failure::Stale(refusal) if refusal.code == Code::Retired) {
                // It was silent for so long that the servers take nothing of it any more.
                failed.iter().for_each(|sending| state.disown(sending.record.dot.author));
            }
            undone
        };
        answer(undone);
    }

    /// Under the lock: nothing may be built on what is half undone.
    fn undo_all(
        &self,
        outbox: &Outbox,
        state: &mut State,
        logs: &BTreeSet<u64>,
        failure: &Failure,
    ) -> Vec<(Pending, Failure)> {
        let mut touched: BTreeSet<Fid> = BTreeSet::new();
        let mut doomed = Vec::new();
        // What is logged is never built on what asks.
        for log in &state.asks {
            let pending = &state.queue[log];
            if logs.contains(log) || pending.entry.touches.iter().any(|fid| touched.contains(fid)) {
                touched.extend(pending.entry.touches.iter());
                doomed.push(*log);
            }
        }
        let mut undone = Vec::new();
        for log in doomed.into_iter().rev() {
            let Some(pending) = state.remove(log) else { continue };
            self.undo(outbox, state, &pending);
            let failure = if logs.contains(&log) { failure.clone() } else { Failure::Again };
            undone.push((pending, failure));
        }
        undone
    }

    /// Takes the cache back to before a mutation. One that somebody may hold all the same is counted as
    /// written by this author.
    fn undo(&self, outbox: &Outbox, state: &mut State, pending: &Pending) {
        let Some(waiting) = &pending.waiting else {
            // What is logged is never built on what may be refused.
            tracing::error!(dot = %pending.entry.dot, "a logged mutation is not undone");
            return;
        };
        if !pending.maybe {
            state.user(pending.entry.uid).writer.unwrote(pending.entry.dot, &waiting.before);
        }
        let mut change = waiting.undo.clone();
        change.push(Edit::Unlog(pending.entry.log));
        if let Err(error) = self.cache.commit(&change) {
            tracing::error!(%error, "a mutation that failed could not be undone");
        }
        for fid in &pending.entry.touches {
            let id = outbox.object(*fid);
            let _ = self.cache.demote(id);
            self.cache.unpin(id);
        }
        self.discard_replaced(&waiting.undo);
    }

    /// Nobody could be asked: what asked is logged and acknowledged, but for what can only be made while
    /// connected.
    pub(super) fn log_all(&self, outbox: &Outbox) {
        let mut state = locked(&outbox.state);
        let connected = |p: &&Pending| p.waiting.as_ref().is_some_and(|w| w.connected);
        let never: BTreeSet<u64> = state.of_lane(Lane::Asks).filter(connected).map(|p| p.entry.log).collect();
        let undone = self.undo_all(outbox, &mut state, &never, &Failure::Away);
        let mut answers = Vec::new();
        for log in state.asks.clone() {
            answers.extend(self.log_one(outbox, &mut state, log));
        }
        drop(state);
        for (waiting, dot) in answers {
            let _ = waiting.reply.send(Ok(dot));
        }
        answer(undone);
    }

    /// A record is logged, also if it asked. Answers who waits for it, and with what.
    pub(super) fn log_one(
        &self,
        outbox: &Outbox,
        state: &mut State,
        log: u64,
    ) -> Option<(Box<super::Waiting>, Dot)> {
        let asked = state.asks.contains(&log);
        let pending = state.log_instead(log)?;
        if asked {
            let touched = pending.entry.touches.iter().map(|fid| outbox.object(*fid));
            self.cache.note_unsent(touched.clone());
            touched.for_each(|id| self.cache.unpin(id));
        }
        let waiting = pending.waiting.take()?;
        self.keep_contents(waiting.container);
        self.discard_replaced(&waiting.undo);
        Some((waiting, pending.entry.dot))
    }
}

fn answer(undone: Vec<(Pending, Failure)>) {
    for (pending, failure) in undone {
        if let Some(waiting) = pending.waiting {
            let super::Waiting { _held, reply, .. } = *waiting;
            drop(_held);
            let _ = reply.send(Err(failure));
        }
    }
}
