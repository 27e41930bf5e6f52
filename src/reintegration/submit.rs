//! A mutation begins.

use std::sync::Arc;

use coda_proto::{
    Base, Contents, Dot, Fid, Op, Record,
    planted::{Bug, planted},
};
use tokio::{sync::oneshot, time::timeout};

use super::{Failure, Fate, Outbox, Pending, Seen, Stamp, State, Waiting, users::Lane};
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

    /// Makes a mutation for a local user: `make` turns its stamp into what it does there and here. Ends when it is
    /// acknowledged: its fate is known, or it is logged. It goes on if the caller does not wait.
    pub(crate) async fn submit(
        &self,
        uid: u32,
        held: Held,
        of: ObjectId,
        bases: Vec<Seen>,
        manner: impl Into<Manner>,
        make: impl FnOnce(&Stamp) -> (Op, Change),
    ) -> std::result::Result<Dot, Failure> {
        let how = How { uid, manner: manner.into(), container: None, ..How::default() };
        self.submit_with(how, held, of, bases, make).await
    }

    /// The same of a Store whose contents are too long for its record.
    pub(crate) async fn submit_store(
        &self,
        uid: u32,
        held: Held,
        of: ObjectId,
        base: Seen,
        container: u64,
        make: impl FnOnce(&Stamp) -> (Op, Change),
    ) -> std::result::Result<Dot, Failure> {
        let how = How { uid, container: Some(container), ..How::default() };
        self.submit_with(how, held, of, vec![base], make).await
    }

    async fn submit_with(
        &self,
        how: How,
        held: Held,
        of: ObjectId,
        bases: Vec<Seen>,
        make: impl FnOnce(&Stamp) -> (Op, Change),
    ) -> std::result::Result<Dot, Failure> {
        let outbox = self.outbox(of.realm, of.fid.volume);
        let nudges = locked(&outbox.state).nudges;
        let how = How { reachable: self.is_reachable(of).await, apart: self.rehearses(), nudges, ..how };
        let on: Vec<Fid> = bases.iter().map(|seen| seen.fid).collect();
        let answer = self.enqueue(&outbox, how, held, bases, make)?;
        match answer {
            Answer::Now(dot) => Ok(dot),
            Answer::Wait => {
                outbox.wait(how, &on).await;
                Err(Failure::Again)
            }
            Answer::Later(mut answer, logged) => {
                let fate = match logged {
                    None => answer.await,
                    Some(log) => match timeout(self.settings.patience, &mut answer).await {
                        Ok(fate) => fate,
                        Err(_) => {
                            // It is acknowledged as it is, unless something else was said meanwhile.
                            let undo = locked(&outbox.state).answer(log);
                            undo.into_iter().for_each(|undo| self.discard_replaced(&undo));
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

    /// Whether a user's mutation of these objects, of one volume, would only be logged now: then nothing need be
    /// brought to the servers ahead of it.
    pub(crate) async fn is_apart(&self, uid: u32, of: &[ObjectId]) -> bool {
        let reachable = !self.rehearses() && self.is_reachable(of[0]).await;
        let outbox = self.outbox(of[0].realm, of[0].fid.volume);
        let on = of.iter().map(|id| id.fid);
        let way = way(Manner::Plain, facts(&locked(&outbox.state), uid, on, reachable));
        way != Way::Ask
    }

    pub(super) fn enqueue(
        &self,
        outbox: &Arc<Outbox>,
        How { uid, manner, container, reachable, apart, nudges }: How,
        mut held: Held,
        bases: Vec<Seen>,
        make: impl FnOnce(&Stamp) -> (Op, Change),
    ) -> std::result::Result<Answer, Failure> {
        let mut state = locked(&outbox.state);
        // Whoever came up while that was found out has sent what there was, and nobody tells of it again.
        let reachable = reachable || state.nudges != nudges;
        for seen in bases.iter().filter(|seen| seen.fid.is_directory()) {
            // What it was built on may have been undone since it was looked at.
            let now = self.cache.view(outbox.object(seen.fid))?;
            if now.is_none_or(|now| now.row.status.past != seen.past) {
                return Err(Failure::Again);
            }
        }
        let on = bases.iter().map(|seen| seen.fid);
        let logged = match way(manner, facts(&state, uid, on, reachable && !apart)) {
            Way::Ask => None,
            Way::LogAndWait => Some(true),
            Way::Log => Some(false),
            Way::Away => return Err(Failure::Away),
            Way::Wait => return Ok(Answer::Wait),
            Way::Later => {
                let what = "changes made while apart are still being sent";
                return Err(Failure::Here(Error::Busy(what.into())));
            }
        };
        let user = state.user(uid);
        if logged.is_some() && user.logs.len() as u64 >= self.settings.records {
            let what = "the log of changes that are not sent yet";
            return Err(Failure::Here(Error::NoSpace(what.into())));
        }
        let (author, is_new) = user.writer.author(&bases, || self.drawn());
        let dot = user.writer.next(author);
        let count = user.writer.count();
        let time = self.env.now();
        let stamp = Stamp {
            dot,
            lamport: bases.iter().map(|seen| seen.lamport).max().unwrap_or(0) + 1,
            time,
            changed: changed(&bases, time),
            host: self.host.clone(),
            file: Fid::file(outbox.volume, author, count),
            directory: Fid::directory(outbox.volume, author, count),
        };
        let (op, mut change) = make(&stamp);
        if op.creates().is_some() {
            user.writer.made();
        }
        let mut record = Record {
            dot: stamp.dot,
            lamport: stamp.lamport,
            time: stamp.time,
            changed: stamp.changed,
            bases: bases.into_iter().map(|seen| Base { fid: seen.fid, past: seen.past }).collect(),
            logged: logged.is_some(),
            host: stamp.host,
            op,
        };
        if is_new {
            user.succeeded = false;
            change.push(Edit::Author(author.0, outbox.realm, outbox.volume.0, uid));
        }
        if let Op::Store { length, .. } = &record.op
            && logged.is_some()
            && user.contents + length > self.settings.bytes
        {
            let what = "the log of changes that are not sent yet";
            return Err(Failure::Here(Error::NoSpace(what.into())));
        }
        let exclusive = manner == Manner::Exclusive;
        let touched = record.op.touches();
        let saved = match logged {
            Some(_) => {
                let saved = self.optimise(outbox, &state, uid, &record, &mut change)?;
                let Some(left) = saved.left().cloned() else {
                    // It takes back what nobody else has heard of: nothing is left to be told.
                    let undo = self.cache.commit_folded(change)?;
                    let writer = &mut state.user(uid).writer;
                    writer.noted();
                    drop(writer.wrote(&touched, stamp.dot));
                    self.note_folded(outbox, &mut state, &saved);
                    self.note_unsynced(None);
                    self.discard_replaced(&undo);
                    if reachable {
                        // Somebody else's may have been built on what is gone.
                        self.wake(outbox, &mut state, saved.touched());
                    }
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
            uid: Some(uid),
            exclusive,
            record: record.clone(),
            container,
            // What asks is sent at once.
            sent: logged.is_none(),
        };
        let (log, undo) = self.cache.commit_undoable(change, move |id| Edit::Log(LogRow { id, ..row }))?;
        let writer = &mut state.user(uid).writer;
        writer.noted();
        let before = writer.wrote(&touched, stamp.dot);
        let touched = record.op.touches();
        if let Some(saved) = &saved {
            self.note_folded(outbox, &mut state, saved);
        }
        let inline = matches!(&record.op, Op::Store { contents: Contents::Inline(_), .. });
        let mut pending = Pending {
            entry: Entry::new(log, uid, &record, inline),
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
            let lane = if logged.is_some() { Lane::Of(uid) } else { Lane::Asks };
            self.run(outbox, &mut state, lane);
            saved.into_iter().for_each(|saved| self.wake(outbox, &mut state, saved.touched()));
        } else if logged.is_some() {
            self.look_again_later(outbox, &mut state, Lane::Of(uid));
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

impl Outbox {
    /// Waits until a mutation that is built on these objects has a way. Other records may end until then, many of them.
    async fn wait(&self, how: How, on: &[Fid]) {
        let ended = locked(&self.state).ended.clone();
        loop {
            // What ends meanwhile is not missed.
            let mut ended = std::pin::pin!(ended.notified());
            ended.as_mut().enable();
            let facts = facts(&locked(&self.state), how.uid, on.iter().copied(), how.reachable);
            if way(how.manner, facts) != Way::Wait {
                return;
            }
            ended.await;
        }
    }
}

/// How a mutation is made.
#[derive(Clone, Copy, Default)]
pub(super) struct How {
    /// For whom.
    pub uid: u32,
    pub manner: Manner,
    /// Where the contents of a Store are.
    pub container: Option<u64>,
    /// Some member may be called.
    pub reachable: bool,
    /// It is made as if none could be.
    pub apart: bool,
    /// How often all that waits had been told to go when that was asked.
    pub nudges: u64,
}

pub(super) enum Answer {
    Now(Dot),
    /// Nothing is done: something else has to end first.
    Wait,
    /// What it is waited for; and its place, where it is logged whatever comes.
    Later(oneshot::Receiver<Fate>, Option<u64>),
}

/// When what these objects are now changes: `now`, and after whatever was seen of them.
fn changed(bases: &[Seen], now: i64) -> i64 {
    let at = bases.iter().find_map(|seen| seen.written).unwrap_or(now);
    bases.iter().map(|seen| seen.changed.saturating_add(1)).fold(at, i64::max)
}

/// What there is to know for a user's mutation that is built on these objects.
fn facts(state: &State, uid: u32, on: impl Iterator<Item = Fid>, reachable: bool) -> Facts {
    let user = state.users.get(&uid);
    // Whatever is pending of one object is all logged, or all asks.
    let on: Vec<bool> = on.filter_map(|fid| state.last_about(fid)).map(|pending| pending.logged).collect();
    Facts {
        asking: user.map_or(0, |user| user.asking),
        logged: user.map_or(0, |user| user.logs.len()),
        on_asking: on.contains(&false),
        on_logged: on.contains(&true),
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
