//! What waits is sent, chunk by chunk, until nothing is left or nothing gets on.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use coda_proto::{
    APPLY_BYTES, APPLY_RECORDS, Code, Fid, INLINE_LIMIT, Record, Refusal, ServerId,
    planted::{Bug, planted},
    wire,
};
use tokio::time::Instant;

use super::{
    Failure, Outbox, Pending, State,
    users::Lane,
    verdict::{Said, Verdict, said, verdict},
};
use crate::{
    cache::validity::Mark,
    cml::{Entry, Limits, Remedy, To, Why, chunk, pause, piece, remedy, to},
    env::Priority,
    ops::{Core, is_disconnected, locked},
    replica::Group,
    store::{Change, Edit},
};

/// Attempts while members say "not now", with doubling pauses: about six seconds.
const PATIENCE: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts after a change of the membership.
const GROUPS: u32 = 4;
/// Where nobody says that a server is back, it is tried all the same.
const AWAY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(1);
/// What one chunk carries.
const LIMITS: Limits = Limits { records: APPLY_RECORDS, bytes: APPLY_BYTES / 2, contents: 64 << 20 };

/// A record on its way.
pub(super) struct Sending {
    pub log: u64,
    /// Whose it is.
    pub uid: u32,
    pub record: Record,
    pub exclusive: bool,
    pub container: Option<u64>,
    pub logged: bool,
    /// Bytes on the wire.
    pub size: usize,
}

/// What became of a chunk.
pub(super) enum End {
    /// Members hold it.
    Done { answers: Vec<(ServerId, Said)>, missed: Vec<ServerId>, everywhere: bool, mark: Mark },
    /// Nobody could be reached.
    Away,
    /// Members are busy.
    Later,
    /// Those before this one may go, and this one has to be looked at alone.
    Refused(usize),
    /// This is how they failed, who all asked.
    Failed(Failure),
    /// The only record, which is logged, was refused. `all`: by every member of the group.
    NotTaken { refusal: Refusal, all: bool },
}

impl Core {
    /// Sends what is on a lane, unless somebody is at it.
    pub(super) fn run(&self, outbox: &Arc<Outbox>, state: &mut State, lane: Lane) {
        if !std::mem::replace(&mut state.lane(lane).running, true) {
            let (core, outbox) = (self.me(), outbox.clone());
            self.spawn(async move { core.pump(&outbox, lane).await });
        }
    }

    /// The same for all lanes on which there is something.
    pub(super) fn run_all(&self, outbox: &Arc<Outbox>, state: &mut State) {
        state.busy().into_iter().for_each(|lane| self.run(outbox, state, lane));
    }

    /// Something that touched these objects is over, or has to wait: whoever has something that was built on it, or
    /// made it, looks at it.
    pub(super) fn wake(
        &self,
        outbox: &Arc<Outbox>,
        state: &mut State,
        touched: impl IntoIterator<Item = Fid>,
    ) {
        let next = touched.into_iter().filter_map(|fid| state.first_about(fid));
        let logged = next.filter(|pending| pending.logged);
        let lanes: BTreeSet<Lane> = logged.map(|pending| Lane::Of(pending.entry.uid)).collect();
        lanes.into_iter().for_each(|lane| self.run(outbox, state, lane));
    }

    async fn pump(&self, outbox: &Arc<Outbox>, lane: Lane) {
        while let Some(batch) = self.next_batch(outbox, lane) {
            let (batch, end) = self.send(outbox, batch).await;
            let touched: BTreeSet<Fid> =
                batch.iter().flat_map(|sending| sending.record.op.touches()).collect();
            match end {
                End::Done { answers, missed, everywhere, mark } => {
                    locked(&outbox.state).lane(lane).delays = 0;
                    self.done(outbox, batch, answers, &missed, everywhere, mark);
                }
                End::Away => self.away(outbox, lane).await,
                End::Later => self.later(outbox, lane),
                // All or nothing: those before it go on, and it is tried alone.
                End::Refused(index) => locked(&outbox.state).lane(lane).limit = Some(index.max(1)),
                End::Failed(failure) => self.fail(outbox, batch, failure),
                End::NotTaken { refusal, all } => {
                    self.not_taken(outbox, lane, &batch[0], refusal, all).await;
                }
            }
            let mut state = locked(&outbox.state);
            state.lane(lane).flying.clear();
            self.wake(outbox, &mut state, touched);
        }
    }

    /// The records that go next on a lane, `None` where nothing does: then nobody runs there any more.
    fn next_batch(&self, outbox: &Arc<Outbox>, lane: Lane) -> Option<Vec<Sending>> {
        let mut state = locked(&outbox.state);
        let now = Instant::now();
        self.guard(outbox, &mut state, lane);
        let limits = Limits {
            records: state.lane(lane).limit.take().unwrap_or(LIMITS.records),
            contents: state.mode.chunk_bytes(state.link.bandwidth()).unwrap_or(LIMITS.contents),
            bytes: self
                .settings
                .trickle
                .map_or(LIMITS.bytes, |limit| LIMITS.bytes.min(piece(limit) as usize)),
        };
        let goes = |entry: &Entry| {
            let pending = &state.queue[&entry.log];
            let held = state.held.get(&entry.log).is_some_and(|hold| hold.until > now)
                || (pending.logged && (!state.is_ripe(pending, now) || state.is_metered(entry)))
                || (pending.logged && state.needs_approval(entry));
            let is_ours = match lane {
                Lane::Asks => !pending.logged,
                // Little of somebody else's goes along; for much of it whoever did it has to wait himself.
                Lane::Of(uid) => {
                    pending.logged && (entry.uid == uid || entry.contents <= INLINE_LIMIT as u64)
                }
            };
            is_ours && !held && !state.flies(entry.log)
        };
        let chosen = match state.lanes[&lane].away_until.is_some_and(|until| until > now) {
            true => Default::default(),
            false => {
                let own = state.of_lane(lane).map(|pending| &pending.entry);
                chunk(own, |entry| state.right_before(entry), goes, limits)
            }
        };
        let mut batch = Vec::with_capacity(chosen.records.len());
        for log in &chosen.records {
            match self.sending(&state, *log) {
                Ok(Some(sending)) => batch.push(sending),
                Ok(None) => tracing::error!(log, "a record is not in the log"),
                Err(error) => {
                    tracing::error!(log, %error, "a record of the log cannot be read");
                    break;
                }
            }
        }
        if batch.is_empty() {
            state.lane(lane).running = false;
            self.answer_logged(&mut state, lane);
            self.set_alarm(outbox, &mut state, lane, now);
            return None;
        }
        state.lane(lane).flying = batch.iter().map(|sending| sending.log).collect();
        Some(batch)
    }

    fn sending(&self, state: &State, log: u64) -> crate::ops::Result<Option<Sending>> {
        let Some(pending) = state.queue.get(&log) else { return Ok(None) };
        let (uid, size) = (pending.entry.uid, pending.entry.size);
        if let Some(waiting) = &pending.waiting {
            let (record, container) = (waiting.record.clone(), waiting.container);
            let exclusive = waiting.exclusive && !pending.logged;
            return Ok(Some(Sending {
                log,
                uid,
                record,
                exclusive,
                container,
                logged: pending.logged,
                size,
            }));
        }
        let row = self.cache.store(|store| store.logged(log))?;
        Ok(row.map(|row| {
            let record = Record { logged: !planted(Bug::AsksFromLog), ..row.record };
            Sending { log, uid, record, exclusive: false, container: row.container, logged: true, size }
        }))
    }

    /// Sends a chunk until it is known what becomes of it. Answers of which of its records.
    async fn send(&self, outbox: &Outbox, mut batch: Vec<Sending>) -> (Vec<Sending>, End) {
        let end = self.send_some(outbox, &mut batch).await;
        (batch, end)
    }

    async fn send_some(&self, outbox: &Outbox, batch: &mut Vec<Sending>) -> End {
        let (mut pauses, mut groups, mut uploaded, mut to_all) = (0, 0, false, false);
        let asks = batch.iter().any(|sending| !sending.logged);
        loop {
            let (realm, group) = match self.group(outbox.root()).await {
                Ok(found) => found,
                Err(error) if is_disconnected(&error) => return End::Away,
                Err(error) if asks => return End::Failed(Failure::Here(error)),
                Err(error) => {
                    tracing::warn!(%error, "the log cannot be sent");
                    return End::Later;
                }
            };
            if self.settings.adaptive
                && let Some(took) = self.peers.round_trip(&realm, &group)
            {
                self.answered(outbox, took);
            }
            let to = match asks || to_all {
                true => To::All,
                false => self.recipients(outbox, &realm, &group),
            };
            if !std::mem::replace(&mut uploaded, true)
                && let Err((index, failure)) = self.upload_all(outbox, batch, to).await
            {
                match failure {
                    Failure::Away => return End::Away,
                    // What comes before it goes first.
                    _ if index > 0 => batch.truncate(index),
                    _ if batch.len() > 1 => return End::Refused(0),
                    Failure::Refused(refusal) => return End::NotTaken { refusal, all: false },
                    failure => {
                        let refusal = Refusal::new(Code::Upload, format!("{failure:?}"));
                        return End::NotTaken { refusal, all: false };
                    }
                }
            }
            if let Err(error) = self.note_sending(outbox, batch) {
                tracing::error!(%error, "nothing is sent that cannot be noted");
                return End::Later;
            }
            if !waited_for(outbox, batch) {
                let bytes: usize = batch.iter().map(|sending| sending.size).sum();
                let copies = if to == To::All { group.members.len() } else { 1 };
                self.paced((bytes * copies) as u64).await;
            }
            let mark = self.cache.mark(outbox.realm, outbox.volume);
            let answers = self.apply(&realm, &group, batch, to).await;
            if answers.iter().any(|(_, said)| *said == Said::Silent) {
                self.doubt(outbox, batch);
            }
            let all = answers.len() == group.members.len() && answers.iter().all(is_final);
            let busy = || Refusal::new(Code::Busy, "the servers are busy");
            let verdict = verdict(&answers);
            if to != To::All && !matches!(verdict, Verdict::Done { .. } | Verdict::Away | Verdict::Later) {
                // Others may know better than the one that was asked.
                (to_all, uploaded) = (true, false);
                continue;
            }
            return match verdict {
                Verdict::Done { missed, everywhere } => {
                    let everywhere = everywhere && to == To::All;
                    End::Done { answers, missed, everywhere, mark }
                }
                Verdict::Away => End::Away,
                Verdict::NewGroup if groups < GROUPS => {
                    groups += 1;
                    self.peers.forget_volume(&realm, outbox.volume);
                    continue;
                }
                Verdict::Later if asks && pauses < PATIENCE => {
                    tokio::time::sleep(PAUSE * 2u32.pow(pauses)).await;
                    pauses += 1;
                    continue;
                }
                Verdict::Later | Verdict::NewGroup if asks => End::Failed(Failure::Refused(busy())),
                Verdict::Later | Verdict::NewGroup => End::Later,
                _ if batch.len() > 1 => End::Refused(first_refused(&answers).min(batch.len() - 1)),
                Verdict::Stale(refusal) if asks => End::Failed(Failure::Stale(refusal)),
                Verdict::Refused(refusal) if asks => End::Failed(Failure::Refused(refusal)),
                Verdict::NoUpload if asks => End::Failed(Failure::NoUpload),
                Verdict::Stale(refusal) | Verdict::Refused(refusal) => End::NotTaken { refusal, all },
                Verdict::NoUpload => {
                    let refusal = Refusal::new(Code::Upload, "its contents did not arrive");
                    End::NotTaken { refusal, all }
                }
            };
        }
    }

    /// Some member may hold these, although nobody said so.
    fn doubt(&self, outbox: &Outbox, batch: &[Sending]) {
        let mut state = locked(&outbox.state);
        for sending in batch {
            if let Some(pending) = state.queue.get_mut(&sending.log) {
                pending.maybe = true;
            }
        }
    }

    /// From now on some member may have these.
    fn note_sending(&self, outbox: &Outbox, batch: &[Sending]) -> crate::ops::Result<()> {
        let new: Vec<u64> = {
            let mut state = locked(&outbox.state);
            let is_new = |log: &u64| {
                state.queue.get_mut(log).is_some_and(|pending| !std::mem::replace(&mut pending.sent, true))
            };
            batch.iter().map(|sending| sending.log).filter(is_new).collect()
        };
        match new.is_empty() {
            true => Ok(()),
            false => self.cache.commit(&Change::of(Edit::Sent(new))),
        }
    }

    /// Who gets a chunk that nobody waits for.
    fn recipients(&self, outbox: &Outbox, realm: &str, group: &Group) -> To {
        let live = self.peers.answer_times(realm, group);
        let mut state = locked(&outbox.state);
        let to = to(state.link.is_weak() && !state.mode.strong, state.relay, &live);
        state.relay = match to {
            To::All => None,
            To::One(server) => Some(server),
        };
        to
    }

    async fn apply(&self, realm: &str, group: &Group, batch: &[Sending], to: To) -> Vec<(ServerId, Said)> {
        let body = wire::request::Body::Apply(wire::Apply {
            volume: group.id.0,
            epoch: group.epoch,
            records: batch.iter().map(|sending| (&sending.record).into()).collect(),
        });
        if let To::One(server) = to {
            let told = self.peers.ask_one(realm, server, body, Bytes::new(), Priority::Background).await;
            return vec![(server, said(told))];
        }
        let told = match batch.iter().any(|sending| sending.exclusive) {
            true => self.peers.ask_first_then_all(realm, group, body, Bytes::new()).await,
            false => self.peers.ask_all(realm, group, body, Bytes::new()).await,
        };
        told.into_iter().map(|(server, outcome)| (server, said(outcome))).collect()
    }

    /// Whoever waits for a log that is not being sent waits no longer.
    fn answer_logged(&self, state: &mut State, lane: Lane) {
        let Lane::Of(uid) = lane else { return };
        for log in std::mem::take(&mut state.user(uid).waited) {
            let undo = state.answer(log);
            undo.into_iter().for_each(|undo| self.discard_replaced(&undo));
        }
    }

    /// Looks again when a wait is over. `now`: when it was decided that nothing goes. What ripens after that has an alarm.
    fn set_alarm(&self, outbox: &Arc<Outbox>, state: &mut State, lane: Lane, now: Instant) {
        let next = match state.lanes[&lane].away_until {
            Some(until) => Some(until).filter(|_| state.of_lane(lane).next().is_some()),
            None => {
                let of_lane = |log: &u64| match lane {
                    Lane::Asks => state.asks.contains(log),
                    Lane::Of(uid) => state.users.get(&uid).is_some_and(|user| user.logs.contains(log)),
                };
                let held = state.held.iter().filter(|(log, _)| of_lane(log)).map(|(_, hold)| hold.until);
                let ripe = state.of_lane(lane).find(|pending| pending.logged && !state.is_ripe(pending, now));
                let ripe = ripe.map(|pending| pending.since + Duration::from_secs(state.mode.age));
                // What has waited long enough and does not go waits for something else, whose end is told.
                held.chain(ripe).filter(|next| *next > now).min()
            }
        };
        if let Some(next) = next {
            self.look_again(outbox, state, lane, now, next);
        }
    }

    /// A record was logged, and nobody can be reached. It is tried all the same after a while, if nobody says before that
    /// somebody can.
    pub(super) fn look_again_later(&self, outbox: &Arc<Outbox>, state: &mut State, lane: Lane) {
        let now = Instant::now();
        if !state.lane(lane).running {
            self.look_again(outbox, state, lane, now, now + AWAY);
        }
    }

    fn look_again(&self, outbox: &Arc<Outbox>, state: &mut State, lane: Lane, now: Instant, next: Instant) {
        let progress = state.lane(lane);
        if progress.alarm.is_some_and(|alarm| alarm <= next && alarm > now) {
            return;
        }
        progress.alarm = Some(next);
        let (me, outbox) = (self.weak(), outbox.clone());
        self.spawn(async move {
            tokio::time::sleep_until(next).await;
            let Some(core) = me.upgrade() else { return };
            let mut state = locked(&outbox.state);
            let progress = state.lane(lane);
            if progress.alarm == Some(next) {
                progress.alarm = None;
                progress.away_until = None;
                core.run(&outbox, &mut state, lane);
            }
        });
    }

    /// Nobody could be reached: whatever can be logged is.
    async fn away(&self, outbox: &Arc<Outbox>, lane: Lane) {
        // Somebody may have come back while others were waited for.
        let pause = if self.is_reachable(outbox.root()).await { SOON } else { AWAY };
        if lane == Lane::Asks {
            self.log_all(outbox);
        }
        let mut state = locked(&outbox.state);
        let until = Instant::now() + pause;
        // It is the same for every log. What asks finds out for itself.
        for lane in state.busy().into_iter().filter(|lane| *lane != Lane::Asks) {
            state.lane(lane).away_until = Some(until);
        }
        // What asked is looked at again when that is over.
        self.run_all(outbox, &mut state);
    }

    /// The members cannot take what is on a lane now.
    fn later(&self, outbox: &Outbox, lane: Lane) {
        let mut state = locked(&outbox.state);
        let progress = state.lane(lane);
        progress.away_until = Some(Instant::now() + pause(progress.delays));
        progress.delays += 1;
    }

    /// Sends what waits, of a realm or of all; also what waits for its time.
    pub(crate) fn drain(&self, realm: Option<u32>) {
        let outboxes: Vec<_> = locked(&self.outboxes).values().cloned().collect();
        for outbox in outboxes.iter().filter(|outbox| realm.is_none_or(|realm| outbox.realm == realm)) {
            self.nudge(outbox, &mut locked(&outbox.state));
        }
    }

    /// Sends what waits for its time now.
    pub(super) fn nudge(&self, outbox: &Arc<Outbox>, state: &mut State) {
        state.nudges += 1;
        state.lanes.values_mut().for_each(|lane| lane.away_until = None);
        state.held.values_mut().for_each(|hold| hold.until = Instant::now());
        self.run_all(outbox, state);
    }

    /// A file is no longer being written: what waits for that may go.
    pub(crate) fn written(&self, realm: u32, volume: coda_proto::VolumeId) {
        let Some(outbox) = locked(&self.outboxes).get(&(realm, volume)).cloned() else { return };
        let mut state = locked(&outbox.state);
        let mut some = false;
        for hold in state.held.values_mut().filter(|hold| hold.why == Why::Contents) {
            hold.until = Instant::now();
            some = true;
        }
        if some {
            self.run_all(&outbox, &mut state);
        }
    }
}

/// Whether somebody waits for some of these.
fn waited_for(outbox: &Outbox, batch: &[Sending]) -> bool {
    let state = locked(&outbox.state);
    batch.iter().any(|sending| state.queue.get(&sending.log).is_some_and(|pending| pending.waiting.is_some()))
}

/// Whether a member says no, and will say so again.
fn is_final((_, said): &(ServerId, Said)) -> bool {
    let final_ = |code| matches!(remedy(code, true), Remedy::GiveUp | Remedy::Reissue);
    matches!(said, Said::Refused(refusal) if final_(refusal.code))
}

/// What is logged is acknowledged, sent or not. Answers what would have undone it.
fn answer(pending: &mut Pending) -> Option<Change> {
    let waiting = pending.waiting.take_if(|_| pending.logged)?;
    let _ = waiting.reply.send(Ok(pending.entry.dot));
    Some(waiting.undo)
}

impl State {
    /// A logged record's caller waits no longer.
    pub(super) fn answer(&mut self, log: u64) -> Option<Change> {
        self.queue.get_mut(&log).and_then(answer)
    }
}

/// The first record that some member refused.
fn first_refused(answers: &[(ServerId, Said)]) -> usize {
    let index = |(_, said): &(ServerId, Said)| match said {
        Said::Refused(refusal) => Some(refusal.index),
        _ => None,
    };
    answers.iter().filter_map(index).min().unwrap_or(0) as usize
}
