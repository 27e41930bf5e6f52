//! One path for all mutations of a volume: logged and applied here in one transaction, then sent to all
//! members, then off the log.
//!
//! One Apply is under way at a time; what is submitted meanwhile travels in the next one together. A
//! directory is unlocked as soon as the change of one of its names is logged, so the next may be built on
//! it; all else that a mutation touches stays locked until its fate is known. When one fails, those built
//! on it are undone before it, last first, and begin again: what undoes them is exact.
//!
//! The author is drawn at every start, and again where a mutation's base lacks an earlier one of our own:
//! a past that names only the last of an author's updates would claim to include the one that is missing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use coda_proto::{
    APPLY_BYTES, APPLY_RECORDS, Author, Base, Code, Contents, Dot, Fid, Op, Past, Record, Refusal, ServerId,
    Status, VolumeId,
    planted::{Bug, planted},
    wire,
};
use tokio::sync::oneshot;

use super::{
    Core, Result, locked,
    verdict::{Said, Verdict, said, verdict},
};
use crate::{
    cache::{Held, seal::Stamps, validity::Mark},
    error::Error,
    replica::Group,
    store::{Change, Edit, LogRow},
    venus::face::ObjectId,
};

/// Objects of which an author's last update is remembered, before another author is drawn.
const OWN_LIMIT: usize = 200_000;
/// Attempts while members say "not now", with doubling pauses: about six seconds.
const PATIENCE: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts after a change of the membership.
const GROUPS: u32 = 4;

/// The mutations of a volume that are not done.
pub struct Outbox {
    realm: u32,
    volume: VolumeId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    author: Option<Author>,
    seq: u64,
    count: u32,
    /// The last update of each object by this author.
    own: HashMap<Fid, u64>,
    /// Left over from an earlier run: sent first.
    left: VecDeque<Pending>,
    queue: VecDeque<Pending>,
    /// So many of the next are sent one by one, since one of them is refused.
    single: usize,
    running: bool,
}

struct Pending {
    log: u64,
    record: Record,
    exclusive: bool,
    undo: Change,
    /// `own` before this.
    before: Vec<(Fid, Option<u64>)>,
    mark: Mark,
    /// Somebody may hold it, although nobody said so.
    maybe: bool,
    _held: Option<Held>,
    reply: Option<oneshot::Sender<Fate>>,
}

/// How a mutation ended.
type Fate = std::result::Result<Dot, Failure>;

/// What a mutation is made with.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Its name.
    pub dot: Dot,
    /// Its Lamport time.
    pub lamport: u64,
    /// The clock.
    pub time: i64,
    /// The fid of a file or symbolic link that it makes.
    pub file: Fid,
    /// The fid of a directory that it makes.
    pub directory: Fid,
}

/// An object that a mutation touches, as its author saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub fid: Fid,
    /// What it included.
    pub past: Past,
    /// The highest Lamport time in it.
    pub lamport: u64,
}

impl Seen {
    /// An object as it is cached.
    pub fn of(status: &Status) -> Seen {
        Seen { fid: status.fid, past: status.past.clone(), lamport: status.lamport }
    }
}

/// Why a mutation is not done. It is undone here.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Something else on which it was built is not done: build it anew.
    Again,
    /// The members have something else than it was based on: look again.
    Stale(Refusal),
    /// No.
    Refused(Refusal),
    /// The contents were not there.
    NoUpload,
    /// Nobody answered.
    Away,
    /// It went wrong here.
    Here(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Here(error)
    }
}

impl Failure {
    /// What it means for an operation on `what`.
    pub fn about(self, what: &str) -> Error {
        match self {
            Failure::Stale(refusal) if refusal.code == Code::Gone => Error::refused(what, &refusal),
            Failure::Stale(_) | Failure::NoUpload | Failure::Again => Error::Busy(what.to_owned()),
            Failure::Refused(refusal) => Error::refused(what, &refusal),
            Failure::Away => Error::Disconnected(what.to_owned()),
            Failure::Here(error) => error,
        }
    }
}

impl State {
    /// Draws another author where this one must not write on these bases.
    fn author(&mut self, bases: &[Seen], random: impl Fn() -> u64) -> (Author, bool) {
        let lacks_own = |author: Author| {
            !planted(Bug::WritesWithoutOwn)
                && bases
                    .iter()
                    .any(|seen| self.own.get(&seen.fid).is_some_and(|seq| seen.past.seq(author) < *seq))
        };
        match self.author {
            Some(author)
                if !lacks_own(author) && self.own.len() < OWN_LIMIT && self.count < u32::MAX / 2 - 1 =>
            {
                (author, false)
            }
            _ => {
                let author = loop {
                    match random() {
                        // 1 is whoever made the volumes' roots.
                        0 | 1 => {}
                        drawn => break Author(drawn),
                    }
                };
                self.author = Some(author);
                (self.seq, self.count) = (0, 0);
                self.own.clear();
                (author, true)
            }
        }
    }
}

impl Core {
    fn outbox(&self, realm: u32, volume: VolumeId) -> Arc<Outbox> {
        let make = || Arc::new(Outbox { realm, volume, state: Mutex::default() });
        locked(&self.outboxes).entry((realm, volume)).or_insert_with(make).clone()
    }

    /// The bits of a new author.
    fn drawn(&self) -> u64 {
        let kept = || self.cache.store(|store| store.kept("instance")).ok().flatten()?.first_chunk().copied();
        match planted(Bug::ReusesStoreIds) {
            true => kept().map_or(2, u64::from_le_bytes),
            false => self.env.random(),
        }
    }

    /// Makes a mutation: `make` turns its stamp into what it does there and here. Ends when its fate is
    /// known. The mutation goes on if the caller does not wait.
    pub(crate) async fn submit(
        &self,
        held: Held,
        of: ObjectId,
        bases: Vec<Seen>,
        exclusive: bool,
        make: impl FnOnce(&Stamp) -> (Op, Change),
    ) -> std::result::Result<Dot, Failure> {
        let outbox = self.outbox(of.realm, of.fid.volume);
        let answer = self.enqueue(&outbox, held, bases, exclusive, make)?;
        answer.await.unwrap_or_else(|_| Err(Failure::Here(Error::Busy(of.fid.to_string()))))
    }

    fn enqueue(
        &self,
        outbox: &Arc<Outbox>,
        mut held: Held,
        bases: Vec<Seen>,
        exclusive: bool,
        make: impl FnOnce(&Stamp) -> (Op, Change),
    ) -> std::result::Result<oneshot::Receiver<Fate>, Failure> {
        let mut state = locked(&outbox.state);
        for seen in bases.iter().filter(|seen| seen.fid.is_directory()) {
            // What it was built on may have been undone since it was looked at.
            let now = self.cache.view(ObjectId { realm: outbox.realm, fid: seen.fid })?;
            if now.is_none_or(|now| now.row.status.past != seen.past) {
                return Err(Failure::Again);
            }
        }
        let (author, is_new) = state.author(&bases, || self.drawn());
        state.seq += 1;
        let count = state.count + 1;
        let stamp = Stamp {
            dot: Dot::new(author, state.seq),
            lamport: bases.iter().map(|seen| seen.lamport).max().unwrap_or(0) + 1,
            time: self.env.now(),
            file: Fid::file(outbox.volume, author, count),
            directory: Fid::directory(outbox.volume, author, count),
        };
        let (op, mut change) = make(&stamp);
        state.count += u32::from(op.creates().is_some());
        let record = Record {
            dot: stamp.dot,
            lamport: stamp.lamport,
            time: stamp.time,
            bases: bases.into_iter().map(|seen| Base { fid: seen.fid, past: seen.past }).collect(),
            logged: false,
            op,
        };
        if is_new {
            change.push(Edit::Author(author.0, outbox.realm, outbox.volume.0));
        }
        let realm = outbox.realm;
        let logged = record.clone();
        let (log, undo) = self
            .cache
            .commit_undoable(change, move |id| Edit::Log(LogRow { id, realm, exclusive, record: logged }))?;
        let touched = record.op.touches();
        let before = touched.iter().map(|fid| (*fid, state.own.insert(*fid, stamp.dot.seq))).collect();
        for fid in &touched {
            self.cache.pin(ObjectId { realm, fid: *fid })?;
        }
        let mark = self.cache.mark(realm, outbox.volume);
        let parents = parents(&record.op);
        held.release(&parents.map(|fid| ObjectId { realm, fid }));
        let (reply, answer) = oneshot::channel();
        let pending = Pending {
            log,
            record,
            exclusive,
            undo,
            before,
            mark,
            maybe: false,
            _held: Some(held),
            reply: Some(reply),
        };
        state.queue.push_back(pending);
        self.run(outbox, &mut state);
        Ok(answer)
    }

    fn run(&self, outbox: &Arc<Outbox>, state: &mut State) {
        if !std::mem::replace(&mut state.running, true) {
            let (core, outbox) = (self.me(), outbox.clone());
            self.spawn(async move { core.pump(&outbox).await });
        }
    }

    /// Sends what waits until nothing does.
    async fn pump(&self, outbox: &Arc<Outbox>) {
        loop {
            let (batch, is_left) = {
                let mut state = locked(&outbox.state);
                let is_left = !state.left.is_empty();
                let alone = state.single > 0;
                state.single = state.single.saturating_sub(1);
                let batch = take_batch(if is_left { &mut state.left } else { &mut state.queue }, alone);
                if batch.is_empty() {
                    state.running = false;
                    return;
                }
                (batch, is_left)
            };
            let away = self.send(outbox, batch).await;
            if is_left && !away.is_empty() {
                // Nothing new may overtake what an earlier run left. It waits for a server to come back.
                let waiting: Vec<Pending> = {
                    let mut state = locked(&outbox.state);
                    away.into_iter().rev().for_each(|pending| state.left.push_front(pending));
                    state.queue.drain(..).collect()
                };
                self.fail(outbox, waiting, Failure::Away);
                let mut state = locked(&outbox.state);
                if state.queue.is_empty() {
                    state.running = false;
                    return;
                }
            }
        }
    }

    /// Sends a batch. Answers those left from an earlier run for which nobody answered.
    async fn send(&self, outbox: &Arc<Outbox>, mut batch: Vec<Pending>) -> Vec<Pending> {
        let root = ObjectId { realm: outbox.realm, fid: Fid::root(outbox.volume) };
        let (mut pauses, mut groups, mut uploads) = (0, 0, 0);
        loop {
            let (realm, group) = match self.group(root).await {
                Ok(found) => found,
                Err(error) if super::is_disconnected(&error) => return self.away(outbox, batch),
                Err(error) => {
                    self.fail(outbox, batch, Failure::Here(error));
                    return Vec::new();
                }
            };
            let answers = self.apply(&realm, &group, &batch).await;
            let silent = answers.iter().any(|(_, said)| *said == Said::Silent);
            batch.iter_mut().for_each(|pending| pending.maybe |= silent);
            let refused = answers.iter().any(|(_, said)| matches!(said, Said::Refused(_)));
            if batch.len() > 1 && refused {
                // All or nothing: find out one by one which of them it is.
                let mut state = locked(&outbox.state);
                state.single = batch.len();
                for pending in batch.into_iter().rev() {
                    match pending.reply.is_some() {
                        true => state.queue.push_front(pending),
                        false => state.left.push_front(pending),
                    }
                }
                return Vec::new();
            }
            let failure = match verdict(&answers) {
                Verdict::Done { missed, everywhere } => {
                    self.done(outbox, batch, answers, &missed, everywhere);
                    return Vec::new();
                }
                Verdict::NewGroup if groups < GROUPS => {
                    groups += 1;
                    self.peers.forget_volume(&realm, outbox.volume);
                    continue;
                }
                Verdict::Later if pauses < PATIENCE => {
                    tokio::time::sleep(PAUSE * 2u32.pow(pauses)).await;
                    pauses += 1;
                    continue;
                }
                Verdict::Away => return self.away(outbox, batch),
                Verdict::NoUpload if uploads == 0 && self.upload_again(outbox, &mut batch).await => {
                    uploads += 1;
                    continue;
                }
                Verdict::Stale(refusal) => Failure::Stale(refusal),
                Verdict::Refused(refusal) => Failure::Refused(refusal),
                Verdict::NoUpload => Failure::NoUpload,
                _ => Failure::Refused(Refusal::new(Code::Busy, "the servers are busy")),
            };
            self.fail(outbox, batch, failure);
            return Vec::new();
        }
    }

    /// The contents of a Store that an earlier run left are no longer at the servers: brings them there
    /// once more, if they are still what the record says. Answers whether they are there.
    async fn upload_again(&self, outbox: &Outbox, batch: &mut [Pending]) -> bool {
        let [Pending { record, reply: None, .. }] = batch else { return false };
        let Op::Store { fid, length, hash, contents, .. } = &mut record.op else { return false };
        let id = ObjectId { realm: outbox.realm, fid: *fid };
        let Ok(Some(view)) = self.cache.view(id) else { return false };
        let Some(data) = view.row.data.filter(|data| data.dot == Some(record.dot)) else { return false };
        let Ok(container) = self.cache.containers.open(data.container) else { return false };
        if !super::restart::digest(&*container).is_ok_and(|digest| digest == (*length, *hash)) {
            return false;
        }
        match self.upload(id, view.row.status.parent, &*container, (*length, *hash)).await {
            Ok(handle) => {
                *contents = Contents::Uploaded(handle);
                true
            }
            Err(_) => false,
        }
    }

    async fn apply(&self, realm: &str, group: &Group, batch: &[Pending]) -> Vec<(ServerId, Said)> {
        let body = wire::request::Body::Apply(wire::Apply {
            volume: group.id.0,
            epoch: group.epoch,
            records: batch.iter().map(|pending| (&pending.record).into()).collect(),
        });
        let bulk = bytes::Bytes::new();
        let told = match batch.iter().any(|pending| pending.exclusive) {
            true => self.peers.ask_first_then_all(realm, group, body, bulk).await,
            false => self.peers.ask_all(realm, group, body, bulk).await,
        };
        told.into_iter().map(|(server, outcome)| (server, said(outcome))).collect()
    }

    /// Nobody answered: what is new fails, what is left from an earlier run is kept.
    fn away(&self, outbox: &Arc<Outbox>, batch: Vec<Pending>) -> Vec<Pending> {
        let (new, left): (Vec<_>, Vec<_>) = batch.into_iter().partition(|pending| pending.reply.is_some());
        self.fail(outbox, new, Failure::Away);
        left
    }

    /// At least one member holds the records: they are off the log, and the cache takes the members' word
    /// for what the touched objects are now.
    fn done(
        &self,
        outbox: &Outbox,
        batch: Vec<Pending>,
        answers: Vec<(ServerId, Said)>,
        missed: &[ServerId],
        everywhere: bool,
    ) {
        let members = answers.len() - missed.len();
        let silent =
            |server: &ServerId| answers.iter().any(|(other, said)| other == server && *said == Said::Silent);
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
        let mut expected: BTreeMap<Fid, (Past, Mark)> = BTreeMap::new();
        for pending in &batch {
            for fid in pending.record.op.touches() {
                let mut past = pending.record.base(fid);
                past.add(pending.record.dot);
                expected.insert(fid, (past, pending.mark));
                let view = self.cache.view(ObjectId { realm: outbox.realm, fid });
                if let Ok(Some(file)) = view.map(|view| view.and_then(|view| view.open)) {
                    // Contents written over this one include our own update, whatever others did since.
                    file.state().seen.add(pending.record.dot);
                }
            }
        }
        let (mut valid, mut doubted) = (Vec::new(), Vec::new());
        let committed = self.cache.decide(|rows| {
            let mut change = Change::default();
            change.edits.extend(batch.iter().map(|pending| Edit::Unlog(pending.log)));
            for (fid, (past, mark)) in &expected {
                let id = ObjectId { realm: outbox.realm, fid: *fid };
                let Some(row) = rows(id) else { continue };
                let statuses = shown.get(fid).map(Vec::as_slice).unwrap_or_default();
                let is_last = row.status.past == *past;
                if let Some(status) = statuses.iter().find(|status| status.past == *past)
                    && is_last
                {
                    change.push(Edit::Put(id, Arc::new(row.confirmed(status.clone()))));
                }
                let same = statuses.len() == members && statuses.iter().all(|status| status.past == *past);
                let promised = statuses.iter().all(|status| status.promised);
                match same && promised && !lagging {
                    true if is_last => valid.push((id, *mark, past.clone())),
                    // More of ours is on its way, and will say.
                    true => {}
                    false => doubted.push(id),
                }
            }
            (change, ())
        });
        if let Err(error) = committed {
            tracing::error!(%error, "sent records could not be taken off the log; they will be sent again");
        }
        if lagging {
            expected.keys().for_each(|fid| self.request_resolve(ObjectId { realm: outbox.realm, fid: *fid }));
        }
        for (id, mark, past) in valid {
            if !matches!(self.cache.believe(id, mark, &past, &stamps), Ok(true)) {
                doubted.push(id);
            }
        }
        for id in doubted {
            let _ = self.cache.demote(id);
        }
        self.keep_seal(outbox.realm, outbox.volume);
        tracing::debug!(records = batch.len(), everywhere, "applied");
        for pending in batch {
            let dot = pending.record.dot;
            self.settle(outbox, &pending.record, &pending.undo);
            drop(pending._held);
            if let Some(reply) = pending.reply {
                let _ = reply.send(Ok(dot));
            }
        }
    }

    /// A mutation's fate is known: nothing of it holds the cache any longer.
    fn settle(&self, outbox: &Outbox, record: &Record, undo: &Change) {
        for fid in record.op.touches() {
            self.cache.unpin(ObjectId { realm: outbox.realm, fid });
        }
        for edit in &undo.edits {
            if let Edit::Put(_, row) = edit
                && let Some(data) = row.data
            {
                self.cache.discard(data.container);
            }
        }
    }

    /// Nobody holds the records: the cache goes back, and what was built on them begins again.
    fn fail(&self, outbox: &Outbox, failed: Vec<Pending>, failure: Failure) {
        let (new, left): (Vec<_>, Vec<_>) = failed.into_iter().partition(|pending| pending.reply.is_some());
        for pending in left {
            self.drop_left(outbox, pending.log, pending.record, &failure);
        }
        // Under the lock: nothing may be built on what is half undone.
        let mut state = locked(&outbox.state);
        let mut touched: BTreeSet<Fid> = new.iter().flat_map(|pending| pending.record.op.touches()).collect();
        let (mut built_on, mut rest) = (Vec::new(), VecDeque::new());
        for pending in std::mem::take(&mut state.queue) {
            let touches = pending.record.op.touches();
            match touches.iter().any(|fid| touched.contains(fid)) {
                true => {
                    touched.extend(touches);
                    built_on.push(pending);
                }
                false => rest.push_back(pending),
            }
        }
        state.queue = rest;
        let again = built_on.into_iter().rev().map(|pending| (pending, Failure::Again));
        let mut replies = Vec::new();
        for (pending, failure) in again.chain(new.into_iter().rev().map(|p| (p, failure.clone()))) {
            self.undo(outbox, &mut state, &pending);
            replies.push((pending, failure));
        }
        drop(state);
        for (pending, failure) in replies {
            drop(pending._held);
            if let Some(reply) = pending.reply {
                let _ = reply.send(Err(failure));
            }
        }
    }

    /// Takes the cache back to before a mutation. One that somebody may hold all the same is counted as
    /// written by this author.
    fn undo(&self, outbox: &Outbox, state: &mut State, pending: &Pending) {
        if !pending.maybe && state.author == Some(pending.record.dot.author) {
            for (fid, seq) in &pending.before {
                match seq {
                    Some(seq) => state.own.insert(*fid, *seq),
                    None => state.own.remove(fid),
                };
            }
        }
        let mut change = pending.undo.clone();
        change.push(Edit::Unlog(pending.log));
        if let Err(error) = self.cache.commit(&change) {
            tracing::error!(%error, "a mutation that failed could not be undone");
        }
        for fid in pending.record.op.touches() {
            let _ = self.cache.demote(ObjectId { realm: outbox.realm, fid });
        }
        self.settle(outbox, &pending.record, &pending.undo);
    }

    /// The members refuse what an earlier run left, and nobody waits for it: what it touched is fetched
    /// again, and contents that are nowhere else are kept where people find them.
    fn drop_left(&self, outbox: &Outbox, log: u64, record: Record, failure: &Failure) {
        tracing::warn!(dot = %record.dot, verb = record.op.verb(), ?failure, "left over, and refused");
        self.say("conflict", format!("{} of an earlier run was refused: {failure:?}", record.op.verb()));
        let mut change = Change::of(Edit::Unlog(log));
        for fid in record.op.touches() {
            let id = ObjectId { realm: outbox.realm, fid };
            self.cache.unpin(id);
            if let Op::Store { .. } = record.op
                && let Ok(Some(view)) = self.cache.view(id)
                && let Some(data) = view.row.data
                && view.open.is_none()
            {
                self.spool(id, data.container);
            }
            change.push(Edit::Drop(id));
        }
        if let Err(error) = self.cache.commit(&change) {
            tracing::error!(%error, "a refused record stays in the log");
        }
    }

    /// Moves contents that no server has to where people find them, and says where.
    pub(crate) fn spool(&self, id: ObjectId, container: u64) {
        let realm = self.realm_name(id.realm).map(|name| name.to_string()).unwrap_or_default();
        let name = self.cache.view(id).ok().flatten().and_then(|view| {
            let dir = ObjectId { realm: id.realm, fid: view.row.status.parent };
            self.cache.store(|store| store.name_in(dir, id.fid)).ok().flatten()
        });
        let name = name.map_or_else(|| id.fid.to_string(), |name| super::path::text(&name));
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

    /// Takes up what an earlier run left in the log.
    pub(crate) fn take_up(&self) -> Result<()> {
        for row in self.cache.store(|store| store.log())? {
            let touched = row.record.op.touches();
            let outbox = self.outbox(row.realm, touched[0].volume);
            for fid in touched {
                self.cache.pin(ObjectId { realm: row.realm, fid })?;
            }
            let pending = Pending {
                log: row.id,
                record: row.record,
                exclusive: row.exclusive,
                undo: Change::default(),
                before: Vec::new(),
                mark: self.cache.mark(row.realm, outbox.volume),
                maybe: true,
                _held: None,
                reply: None,
            };
            locked(&outbox.state).left.push_back(pending);
        }
        Ok(())
    }

    /// Sends what an earlier run left, of a realm or of all.
    pub(crate) fn drain(&self, realm: Option<u32>) {
        let outboxes: Vec<_> = locked(&self.outboxes).values().cloned().collect();
        for outbox in outboxes.iter().filter(|outbox| realm.is_none_or(|realm| outbox.realm == realm)) {
            let mut state = locked(&outbox.state);
            if !state.left.is_empty() {
                self.run(outbox, &mut state);
            }
        }
    }

    /// How many mutations of a volume are not done, and their bytes.
    pub fn pending(&self, realm: u32, volume: VolumeId) -> (u64, u64) {
        let Some(outbox) = locked(&self.outboxes).get(&(realm, volume)).cloned() else { return (0, 0) };
        let state = locked(&outbox.state);
        let all = state.left.iter().chain(&state.queue);
        let bytes = |pending: &Pending| match &pending.record.op {
            Op::Store { length, .. } => *length,
            _ => 0,
        };
        all.fold((0, 0), |(count, sum), pending| (count + 1, sum + bytes(pending)))
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

/// As many as fit into one Apply.
fn take_batch(queue: &mut VecDeque<Pending>, alone: bool) -> Vec<Pending> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while let Some(next) = queue.front() {
        bytes += prost::Message::encoded_len(&wire::Record::from(&next.record)) + 8;
        let full = bytes > APPLY_BYTES / 2 || batch.len() == APPLY_RECORDS;
        if !batch.is_empty() && (full || alone) {
            break;
        }
        batch.extend(queue.pop_front());
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(vnode: u32, dots: &[(u64, u64)]) -> Seen {
        let past = dots.iter().map(|(author, seq)| Dot::new(Author(*author), *seq)).collect();
        Seen { fid: Fid { volume: VolumeId(1), vnode, unique: 1 }, past, lamport: 0 }
    }

    #[test]
    fn an_author_never_writes_on_a_base_that_lacks_its_own_last_update() {
        let mut state = State::default();
        let draw = || 7;
        assert_eq!(state.author(&[seen(1, &[])], draw), (Author(7), true));
        state.own.insert(seen(1, &[]).fid, 3);
        assert_eq!(state.author(&[seen(1, &[(7, 3)])], draw), (Author(7), false));
        assert_eq!(state.author(&[seen(3, &[])], draw), (Author(7), false));
        assert_eq!(state.author(&[seen(1, &[(7, 2)])], || 9), (Author(9), true));
        assert!(state.own.is_empty());
    }
}
