//! How volumes are to be treated: set by people, kept, and found out from the line.

use std::time::Duration;

use coda_proto::VolumeId;
use tokio::time::Instant;

use super::{
    Outbox, Pending, State,
    users::{Lane, User},
};
use crate::{
    cml::{Entry, FEW, Mode},
    ops::{Core, Result, locked},
    venus::face::ObjectId,
};

impl State {
    /// Whether mutations are logged, whoever can be reached.
    pub fn logs(&self) -> bool {
        self.mode.write_disconnected || ((self.link.is_weak() || self.metered) && !self.mode.strong)
    }

    /// Whether somebody has to ask for a record to be sent, because the line costs money.
    pub fn is_metered(&self, entry: &Entry) -> bool {
        self.metered && !self.mode.strong && entry.log > self.forced
    }

    /// Whether a record has been in the log for long enough.
    pub fn is_ripe(&self, pending: &Pending, now: Instant) -> bool {
        pending.entry.log <= self.forced || self.mode.is_ripe(now.saturating_duration_since(pending.since))
    }

    /// Whether somebody has to approve of a record first.
    pub fn needs_approval(&self, entry: &Entry) -> bool {
        let of = self.users.get(&entry.uid);
        entry.removes() && of.is_some_and(|user| user.guarded && entry.log > user.approved)
    }
}

impl Core {
    fn kept_as(outbox: &Outbox) -> String {
        format!("mode/{}/{}", outbox.realm, outbox.volume)
    }

    /// How a volume is to be treated.
    pub fn mode(&self, realm: u32, volume: VolumeId) -> Mode {
        locked(&self.outbox(realm, volume).state).mode
    }

    /// What was set in an earlier run.
    pub(super) fn kept_mode(&self, outbox: &Outbox) -> Mode {
        let kept = self.cache.store(|store| store.kept(&Core::kept_as(outbox))).ok().flatten();
        kept.and_then(|kept| serde_json::from_slice(&kept).ok()).unwrap_or_default()
    }

    /// Sets it.
    pub fn set_mode(&self, realm: u32, volume: VolumeId, set: impl FnOnce(&mut Mode)) -> Result<()> {
        let outbox = self.outbox(realm, volume);
        let mut state = locked(&outbox.state);
        let mut mode = state.mode;
        set(&mut mode);
        let kept = serde_json::to_vec(&mode)
            .map_err(|error| crate::error::Error::Io("a volume's mode".into(), error.to_string()))?;
        self.cache.store(|store| store.keep(&Core::kept_as(&outbox), &kept))?;
        state.mode = mode;
        self.run_all(&outbox, &mut state);
        Ok(())
    }

    /// Sends what is in a volume's log now, however young it is.
    pub fn force(&self, realm: u32, volume: VolumeId) {
        let outbox = self.outbox(realm, volume);
        let mut state = locked(&outbox.state);
        state.forced = state.queue.keys().next_back().copied().unwrap_or(0);
        self.nudge(&outbox, &mut state);
    }

    /// Whether somebody's removals wait for approval.
    pub fn needs_approval(&self, realm: u32, volume: VolumeId) -> bool {
        let outbox = self.outbox(realm, volume);
        let state = locked(&outbox.state);
        state.users.values().any(|user| user.guarded)
    }

    /// What waits for approval may go, of one user or of all. Answers how many records that are.
    pub fn approve(&self, realm: u32, volume: VolumeId, of: Option<u32>) -> u64 {
        let outbox = self.outbox(realm, volume);
        let mut state = locked(&outbox.state);
        let is_meant = |uid: &u32| of.is_none_or(|of| of == *uid);
        let waits = |entry: &Entry| is_meant(&entry.uid) && state.needs_approval(entry);
        let approved = state.queue.values().filter(|pending| waits(&pending.entry)).count();
        let last = state.queue.keys().next_back().copied().unwrap_or(0);
        for (_, user) in state.users.iter_mut().filter(|(uid, _)| is_meant(uid)) {
            user.approve(last);
        }
        self.nudge(&outbox, &mut state);
        approved as u64
    }

    /// Looks whether what is in the logs would remove too much: in the one of a lane, and in those of others, of
    /// which something may go along, where they have grown.
    pub(super) fn guard(&self, outbox: &Outbox, state: &mut State, lane: Lane) {
        for uid in state.take_unweighed(lane) {
            self.weigh(outbox, state.user(uid));
        }
    }

    fn weigh(&self, outbox: &Outbox, user: &mut User) {
        let removes = user.removals.len() as u64;
        let objects = match removes > FEW {
            true => self.cache.store(|store| store.count(outbox.realm, outbox.volume)).unwrap_or(0),
            false => 0,
        };
        let guarded = self.settings.guard.objects_to(removes, objects);
        if guarded && !std::mem::replace(&mut user.guarded, guarded) {
            self.say(
                "reintegration",
                format!("{removes} names would be removed: look at `cfs pending`, then `cfs approve`"),
            );
        }
        user.guarded = guarded;
    }

    /// A transfer to the servers of an object's volume ended. Where the line became another, people are told.
    pub(crate) fn note_transfer(&self, id: ObjectId, bytes: u64, took: Duration) {
        if !self.settings.adaptive {
            return;
        }
        let outbox = self.outbox(id.realm, id.fid.volume);
        let mut state = locked(&outbox.state);
        let changed = state.link.transferred(bytes, took, &self.settings.weak);
        self.tell_link(&outbox, &state, changed);
    }

    /// Somebody's questions to the servers of a volume are answered after so long.
    pub(super) fn answered(&self, outbox: &Outbox, took: Duration) {
        let mut state = locked(&outbox.state);
        let changed = state.link.answered(took, &self.settings.weak);
        self.tell_link(outbox, &state, changed);
    }

    /// Waits until so many bytes may be sent behind people's backs.
    pub(crate) async fn paced(&self, bytes: u64) {
        let Some(limit) = self.settings.trickle else { return };
        let begins = locked(&self.pace).begins(Instant::now(), bytes, limit);
        tokio::time::sleep_until(begins).await;
    }

    fn tell_link(&self, outbox: &Outbox, state: &State, changed: bool) {
        if changed {
            let word = if state.link.is_weak() { "weakly" } else { "strongly" };
            self.say("volstate", format!("volume {} is {word} connected", outbox.volume));
        }
    }
}
