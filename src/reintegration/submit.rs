//! A mutation begins.

use std::sync::Arc;

use coda_proto::{
    Base, Contents, Dot, Fid, Op, Record,
    planted::{Bug, planted},
};
use tokio::{sync::oneshot, time::timeout};

use super::{Failure, Fate, Outbox, Pending, Seen, Stamp, State, Waiting};
use crate::{
    cache::Held,
    cml::{Entry, Facts, Manner, Way, way},
    error::Error,
    ops::{Core, locked},
    store::{Change, Edit, LogRow},
    venus::face::ObjectId,
};

impl Core {
    /// The bits of a new author.
    fn drawn(&self) -> u64 {
        let kept = || self.cache.store(|store| store.kept("instance")).ok().flatten()?.first_chunk().copied();
        match planted(Bug::ReusesStoreIds) {
            true => kept().map_or(2, u64::from_le_bytes),
            false => self.env.random(),
        }
    }

    /// Makes a mutation: `make` turns its stamp into what it does there and here. Ends when it is
    /// acknowledged: its fate is known, or it is logged. It goes on if the caller does not wait.
    pub(crate) async fn submit(
        &self,
        held: Held,
        of: ObjectId,
        bases: Vec<Seen>,
        manner: impl Into<Manner>,
        make: impl FnOnce(&Stamp) -> (Op, Change),
    ) -> std::result::Result<Dot, Failure> {
        self.submit_with(held, of, bases, manner.into(), None, make).await
    }

    /// The same of a Store whose contents are too long for its record.
    pub(crate) async fn submit_store(
        &self,
        held: Held,
        of: ObjectId,
        base: Seen,
        container: u64,
        make: impl FnOnce(&Stamp) -> (Op, Change),
    ) -> std::result::Result<Dot, Failure> {
        self.submit_with(held, of, vec![base], Manner::Plain, Some(container), make).await
    }

    async fn submit_with(
        &self,
        held: Held,
        of: ObjectId,
        bases: Vec<Seen>,
        manner: Manner,
        container: Option<u64>,
        make: impl FnOnce(&Stamp) -> (Op, Change),
    ) -> std::result::Result<Dot, Failure> {
        let outbox = self.outbox(of.realm, of.fid.volume);
        let reachable = self.is_reachable(of).await;
        let answer = self.enqueue(&outbox, held, bases, (manner, reachable, container), make)?;
        match answer {
            Answer::Now(dot) => Ok(dot),
            Answer::Later(mut answer, logged) => {
                let fate = match logged {
                    None => answer.await,
                    Some(log) => match timeout(self.settings.patience, &mut answer).await {
                        Ok(fate) => fate,
                        Err(_) => {
                            // It is acknowledged as it is, unless something else was said meanwhile.
                            locked(&outbox.state).answer(log);
                            answer.await
                        }
                    },
                };
                fate.unwrap_or_else(|_| Err(Failure::Here(Error::Busy(of.fid.to_string()))))
            }
        }
    }

    /// Whether some member of an object's volume may be called, as far as is known. Where that cannot be
    /// told without going wrong, the mutation is to find out how.
    pub(crate) async fn is_reachable(&self, of: ObjectId) -> bool {
        match self.group(of).await {
            Ok((realm, group)) => !self.peers.live(&realm, &group).is_empty(),
            Err(error) => !crate::ops::is_disconnected(&error),
        }
    }

    /// Whether a mutation of an object's volume would only be logged now: then nothing need be brought to
    /// the servers ahead of it.
    pub(crate) async fn is_apart(&self, of: ObjectId) -> bool {
        let reachable = self.is_reachable(of).await;
        let outbox = self.outbox(of.realm, of.fid.volume);
        let way = way(Manner::Plain, facts(&locked(&outbox.state), reachable));
        way != Way::Ask
    }

    fn enqueue(
        &self,
        outbox: &Arc<Outbox>,
        mut held: Held,
        bases: Vec<Seen>,
        (manner, reachable, container): (Manner, bool, Option<u64>),
        make: impl FnOnce(&Stamp) -> (Op, Change),
    ) -> std::result::Result<Answer, Failure> {
        let mut state = locked(&outbox.state);
        for seen in bases.iter().filter(|seen| seen.fid.is_directory()) {
            // What it was built on may have been undone since it was looked at.
            let now = self.cache.view(outbox.object(seen.fid))?;
            if now.is_none_or(|now| now.row.status.past != seen.past) {
                return Err(Failure::Again);
            }
        }
        let logged = match way(manner, facts(&state, reachable)) {
            Way::Ask => None,
            Way::LogAndWait => Some(true),
            Way::Log => Some(false),
            Way::Away => return Err(Failure::Away),
            Way::Later => {
                let what = "changes made while apart are still being sent";
                return Err(Failure::Here(Error::Busy(what.into())));
            }
        };
        if logged.is_some() && state.queue.len() as u64 >= self.settings.records {
            let what = "the log of changes that are not sent yet";
            return Err(Failure::Here(Error::NoSpace(what.into())));
        }
        let (author, is_new) = state.writer.author(&bases, || self.drawn());
        let dot = state.writer.next(author);
        let count = state.writer.count();
        let stamp = Stamp {
            dot,
            lamport: bases.iter().map(|seen| seen.lamport).max().unwrap_or(0) + 1,
            time: self.env.now(),
            host: self.host.clone(),
            file: Fid::file(outbox.volume, author, count),
            directory: Fid::directory(outbox.volume, author, count),
        };
        let (op, mut change) = make(&stamp);
        if op.creates().is_some() {
            state.writer.made();
        }
        let mut record = Record {
            dot: stamp.dot,
            lamport: stamp.lamport,
            time: stamp.time,
            bases: bases.into_iter().map(|seen| Base { fid: seen.fid, past: seen.past }).collect(),
            logged: logged.is_some(),
            host: stamp.host,
            op,
        };
        if is_new {
            state.succeeded = false;
            change.push(Edit::Author(author.0, outbox.realm, outbox.volume.0));
        }
        if let Op::Store { length, .. } = &record.op
            && logged.is_some()
            && state.contents + length > self.settings.bytes
        {
            if is_new {
                // An author is noted with its first record, or never used.
                state.writer = Default::default();
            }
            let what = "the log of changes that are not sent yet";
            return Err(Failure::Here(Error::NoSpace(what.into())));
        }
        let exclusive = manner == Manner::Exclusive;
        let touched = record.op.touches();
        let saved = match logged {
            Some(_) => {
                let saved = self.optimise(outbox, &state, &record, &mut change)?;
                let Some(left) = saved.left().cloned() else {
                    // It takes back what nobody else has heard of: nothing is left to be told.
                    let before = state.writer.wrote(&touched, stamp.dot);
                    drop(before);
                    let undo = self.cache.commit_folded(change)?;
                    self.note_folded(outbox, &mut state, &saved);
                    self.note_unsynced(None);
                    self.discard_replaced(&undo);
                    return Ok(Answer::Now(dot));
                };
                record = left;
                Some(saved)
            }
            None => None,
        };
        let row = LogRow {
            id: 0,
            realm: outbox.realm,
            exclusive,
            record: record.clone(),
            container,
            // What asks is sent at once.
            sent: logged.is_none(),
        };
        let (log, undo) = self.cache.commit_undoable(change, move |id| Edit::Log(LogRow { id, ..row }))?;
        let before = state.writer.wrote(&touched, stamp.dot);
        let touched = record.op.touches();
        if let Some(saved) = &saved {
            self.note_folded(outbox, &mut state, saved);
        }
        let inline = matches!(&record.op, Op::Store { contents: Contents::Inline(_), .. });
        let mut pending = Pending {
            entry: Entry::new(log, &record, inline),
            logged: logged.is_some(),
            sent: logged.is_none(),
            maybe: false,
            waiting: None,
            since: tokio::time::Instant::now(),
        };
        let ids = touched.iter().map(|fid| outbox.object(*fid));
        if logged.is_some() {
            self.note_unsynced(container);
        }
        match logged {
            None => ids.into_iter().try_for_each(|id| self.cache.pin(id))?,
            Some(_) => self.cache.note_unsent(ids),
        }
        let answer = match logged {
            Some(false) => {
                self.discard_replaced(&undo);
                Answer::Now(dot)
            }
            _ => {
                held.release(&parents(&record.op).map(|fid| outbox.object(fid)));
                let (reply, answer) = oneshot::channel();
                let connected = manner == Manner::Connected;
                let waiting =
                    Waiting { record, exclusive, connected, container, undo, before, _held: held, reply };
                pending.waiting = Some(Box::new(waiting));
                Answer::Later(answer, logged.is_some().then_some(log))
            }
        };
        state.insert(pending);
        if reachable {
            self.run(outbox, &mut state);
        }
        Ok(answer)
    }

    /// Containers that a mutation took out of the cache, once it cannot be undone any more.
    pub(super) fn discard_replaced(&self, undo: &Change) {
        for edit in &undo.edits {
            if let Edit::Put(_, row) = edit
                && let Some(data) = row.data
            {
                self.cache.discard(data.container);
            }
        }
    }
}

enum Answer {
    Now(Dot),
    /// What it is waited for; and its place, where it is logged whatever comes.
    Later(oneshot::Receiver<Fate>, Option<u64>),
}

fn facts(state: &State, reachable: bool) -> Facts {
    Facts {
        asking: state.asking,
        logged: state.queue.len() - state.asking,
        reachable,
        write_disconnected: state.logs(),
        strong: state.mode.strong,
    }
}

/// The directories whose names an operation changes.
fn parents(op: &Op) -> [Fid; 2] {
    match op {
        Op::Create { parent, .. }
        | Op::MakeDir { parent, .. }
        | Op::Symlink { parent, .. }
        | Op::Link { parent, .. }
        | Op::Remove { parent, .. }
        | Op::RemoveDir { parent, .. } => [*parent; 2],
        Op::Rename { from, to, .. } => [*from, *to],
        // The object itself stays locked: no such volume.
        Op::Store { fid, .. }
        | Op::SetAttr { fid, .. }
        | Op::SetXattr { fid, .. }
        | Op::SetAcl { fid, .. }
        | Op::SetQuota { fid, .. } => [Fid { vnode: 0, ..*fid }; 2],
    }
}
