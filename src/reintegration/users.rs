//! Whose the mutations of a volume are: each local user has an author and a log of their own, and it is sent on a
//! lane of its own.
//!
//! The logs of a volume's users are kept in one order, since records of one can be built on those of another: then
//! they are sent in that order, and in no other case does anybody wait for anybody else. What asks is nobody's log:
//! it has a lane for itself, whoever asks.

use std::collections::BTreeSet;

use coda_proto::{Author, Fid};
use tokio::time::Instant;

use super::{Pending, State, author::Writer};
use crate::cml::Entry;

/// One user's part in a volume.
#[derive(Default)]
pub(super) struct User {
    pub writer: Writer,
    /// The user's log, by place.
    pub logs: BTreeSet<u64>,
    /// Those of it for which somebody may wait.
    pub waited: BTreeSet<u64>,
    /// Records that ask.
    pub asking: usize,
    /// Bytes of contents of all these.
    pub contents: u64,
    /// The authors before the present one are retired, or being retired.
    pub succeeded: bool,
    /// The log would remove much, and removals behind this place have not been approved.
    pub guarded: bool,
    pub approved: u64,
    /// Records of the log that take something away, and were not approved.
    pub removals: BTreeSet<u64>,
    /// There are more of these than when that was looked at.
    pub grew: bool,
}

impl User {
    fn log(&mut self, entry: &Entry) {
        self.logs.insert(entry.log);
        if entry.removes() && entry.log > self.approved {
            self.grew |= self.removals.insert(entry.log);
        }
    }

    /// Whatever the log holds up to this place may go.
    pub fn approve(&mut self, last: u64) {
        (self.approved, self.guarded) = (last, false);
        self.removals = self.removals.split_off(&(last + 1));
    }

    /// Nothing of theirs is under way.
    pub fn is_idle(&self) -> bool {
        self.logs.is_empty() && self.asking == 0
    }
}

/// What is sent one Apply after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// What asks.
    Asks,
    /// A user's log.
    Of(u32),
}

/// How a lane gets on.
#[derive(Default)]
pub(super) struct Progress {
    pub running: bool,
    /// Records that are being sent.
    pub flying: BTreeSet<u64>,
    /// The next Apply carries so many at most, since one behind them is refused.
    pub limit: Option<usize>,
    /// Nothing can be sent now: no attempt before somebody can be reached, or this is over.
    pub away_until: Option<Instant>,
    /// How often in a row the members could not take anything.
    pub delays: u32,
    /// The next time at which somebody looks again.
    pub alarm: Option<Instant>,
}

impl State {
    /// A record more.
    pub fn insert(&mut self, pending: Pending) {
        let (log, uid) = (pending.entry.log, pending.entry.uid);
        let user = self.users.entry(uid).or_default();
        user.contents += pending.entry.contents;
        match pending.logged {
            true => {
                user.log(&pending.entry);
                if pending.waiting.is_some() {
                    user.waited.insert(log);
                }
            }
            false => {
                user.asking += 1;
                self.asks.insert(log);
            }
        }
        self.contents += pending.entry.contents;
        for fid in &pending.entry.touches {
            self.by_object.entry(*fid).or_default().insert(log);
        }
        self.queue.insert(log, pending);
    }

    /// A record less.
    pub fn remove(&mut self, log: u64) -> Option<Pending> {
        let pending = self.queue.remove(&log)?;
        self.ended.notify_waiters();
        let user = self.users.entry(pending.entry.uid).or_default();
        user.contents -= pending.entry.contents;
        match pending.logged {
            true => {
                user.logs.remove(&log);
                user.removals.remove(&log);
                user.waited.remove(&log);
            }
            false => {
                user.asking -= 1;
                self.asks.remove(&log);
            }
        }
        self.contents -= pending.entry.contents;
        for fid in &pending.entry.touches {
            if let Some(logs) = self.by_object.get_mut(fid) {
                logs.remove(&log);
                if logs.is_empty() {
                    self.by_object.remove(fid);
                }
            }
        }
        Some(pending)
    }

    /// What asked is logged instead.
    pub fn log_instead(&mut self, log: u64) -> Option<&mut Pending> {
        let pending = self.queue.get_mut(&log)?;
        if !std::mem::replace(&mut pending.logged, true) {
            let user = self.users.entry(pending.entry.uid).or_default();
            user.asking -= 1;
            user.log(&pending.entry);
            self.asks.remove(&log);
            self.ended.notify_waiters();
        }
        Some(pending)
    }

    pub fn user(&mut self, uid: u32) -> &mut User {
        self.users.entry(uid).or_default()
    }

    pub fn lane(&mut self, lane: Lane) -> &mut Progress {
        self.lanes.entry(lane).or_default()
    }

    /// Whose logs are to be weighed before a lane goes on: its own, and those of others that would remove more than when
    /// they were, since something of them may go along. What asks takes nothing of any log along, and looks at none.
    pub fn take_unweighed(&mut self, lane: Lane) -> Vec<u32> {
        if lane == Lane::Asks {
            return Vec::new();
        }
        let all = self.users.iter_mut();
        all.filter_map(|(uid, user)| {
            (std::mem::take(&mut user.grew) || lane == Lane::Of(*uid)).then_some(*uid)
        })
        .collect()
    }

    /// Lanes that have something to send, sooner or later.
    pub fn busy(&self) -> Vec<Lane> {
        let asks = (!self.asks.is_empty()).then_some(Lane::Asks);
        let logs = self.users.iter().filter(|(_, user)| !user.logs.is_empty());
        asks.into_iter().chain(logs.map(|(uid, _)| Lane::Of(*uid))).collect()
    }

    /// The records of a lane, oldest first.
    pub fn of_lane(&self, lane: Lane) -> impl Iterator<Item = &Pending> {
        let logs = match lane {
            Lane::Asks => Some(&self.asks),
            Lane::Of(uid) => self.users.get(&uid).map(|user| &user.logs),
        };
        logs.into_iter().flatten().map(move |log| &self.queue[log])
    }

    /// Whether a record is being sent, on whatever lane.
    pub fn flies(&self, log: u64) -> bool {
        self.lanes.values().any(|lane| lane.flying.contains(&log))
    }

    /// Whether an author is some user's present one.
    pub fn writes(&self, author: Author) -> bool {
        self.users.values().any(|user| user.writer.present() == Some(author))
    }

    /// Whoever writes as this author is to draw another.
    pub fn disown(&mut self, author: Author) {
        for user in self.users.values_mut().filter(|user| user.writer.present() == Some(author)) {
            user.writer = Writer::default();
            user.succeeded = false;
        }
    }

    /// The first record that touches an object.
    pub fn first_about(&self, fid: Fid) -> Option<&Pending> {
        let first = self.by_object.get(&fid)?.first()?;
        self.queue.get(first)
    }

    /// The last record that touches an object.
    pub fn last_about(&self, fid: Fid) -> Option<&Pending> {
        let last = self.by_object.get(&fid)?.last()?;
        self.queue.get(last)
    }

    /// Of each object that a record touches, the record right before it.
    pub fn right_before(&self, entry: &Entry) -> Vec<&Entry> {
        let before = |fid: &Fid| self.by_object.get(fid)?.range(..entry.log).next_back();
        entry.touches.iter().filter_map(before).map(|log| &self.queue[log].entry).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use coda_proto::{Op, Record, VolumeId};

    use super::*;

    const DIR: Fid = Fid { volume: VolumeId(7), vnode: 1, unique: 1 };

    /// A user's removal.
    pub fn removal(log: u64, uid: u32, logged: bool) -> Pending {
        let fid = Fid { vnode: 2 * log as u32, unique: 5, ..DIR };
        let op = Op::Remove { parent: DIR, name: log.to_string().into_bytes(), fid };
        let dot = coda_proto::Dot::new(Author(5), log);
        let record = Record {
            dot,
            lamport: 1,
            time: 0,
            changed: 0,
            bases: Vec::new(),
            logged,
            host: String::new(),
            op,
        };
        let entry = Entry::new(log, uid, &record, false);
        Pending { entry, logged, sent: false, maybe: false, waiting: None, since: Instant::now() }
    }

    #[test]
    fn whoever_asks_does_not_make_a_log_look_as_if_it_had_been_weighed() {
        let mut state = State::default();
        (1..=3).for_each(|log| state.insert(removal(log, 8, true)));
        assert!(state.take_unweighed(Lane::Asks).is_empty());
        // Something of it may go along with what another user did.
        assert_eq!(state.take_unweighed(Lane::Of(7)), [8]);
        assert!(state.take_unweighed(Lane::Of(7)).is_empty(), "it is as it was");
        assert_eq!(state.take_unweighed(Lane::Of(8)), [8]);
    }

    #[test]
    fn what_asked_and_is_logged_now_is_weighed_whatever_was_logged_after_it() {
        let mut state = State::default();
        (1..=2).for_each(|log| state.insert(removal(log, 8, false)));
        state.insert(removal(3, 8, true));
        assert_eq!(state.take_unweighed(Lane::Of(7)), [8]);
        (1..=2).for_each(|log| assert!(state.log_instead(log).is_some()));
        assert_eq!(state.take_unweighed(Lane::Of(7)), [8]);
        assert_eq!(state.user(8).removals.len(), 3);
        state.user(8).approve(2);
        assert_eq!(state.user(8).removals.len(), 1);
    }
}
