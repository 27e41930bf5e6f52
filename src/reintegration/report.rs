//! What is pending, since when, how much, and why it waits.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use coda_proto::{Fid, Op, Record, VolumeId};
use tokio::time::Instant;

use super::{Outbox, State, users::User};
use crate::{
    cml::{Entry, Mode, VolumeMode, Why, volume_mode},
    ops::{Core, Result, locked},
    venus::face::ObjectId,
};

/// What is pending of one volume.
#[derive(Clone, Debug)]
pub struct VolumeReport {
    /// The volume.
    pub root: ObjectId,
    /// What it is.
    pub state: VolumeMode,
    /// How it is to be treated.
    pub mode: Mode,
    /// Its line is weak.
    pub weak: bool,
    /// Records.
    pub records: u64,
    /// Bytes of contents.
    pub bytes: u64,
    /// Seconds since the oldest was made.
    pub oldest: u64,
    /// Seconds until all is sent, where that can be told.
    pub left: Option<u64>,
    /// Why records wait, each reason once.
    pub reasons: Vec<String>,
    /// Whose they are: records and bytes of each local user who has any.
    pub users: Vec<(u32, u64, u64)>,
    /// The first of them.
    pub lines: Vec<Line>,
}

/// One record.
#[derive(Clone, Debug)]
pub struct Line {
    /// The local user whose it is.
    pub uid: u32,
    /// What it does, in a word.
    pub verb: &'static str,
    /// The object.
    pub id: ObjectId,
    /// Its name in the record, where it has one; and the directory that names it.
    pub name: Option<(ObjectId, Vec<u8>)>,
    /// Bytes of contents.
    pub bytes: u64,
    /// Seconds since it was made.
    pub age: u64,
    /// Why it waits; empty: it is next.
    pub why: String,
}

impl Core {
    /// What is pending of each volume in the log, with up to `most` records each.
    pub async fn report(&self, only: Option<(u32, VolumeId)>, most: usize) -> Result<Vec<VolumeReport>> {
        let mut outboxes: Vec<_> = locked(&self.outboxes).iter().map(|(key, o)| (*key, o.clone())).collect();
        outboxes.sort_by_key(|(key, _)| *key);
        let mut reports = Vec::new();
        for (key, outbox) in outboxes {
            if only.is_some_and(|only| only != key) {
                continue;
            }
            let reachable = self.is_reachable(outbox.root()).await;
            reports.push(self.report_of(&outbox, reachable, most)?);
        }
        Ok(reports)
    }

    /// Volumes that have, or had, something in the log.
    pub fn logs(&self) -> Vec<(u32, VolumeId)> {
        let mut logs: Vec<_> = locked(&self.outboxes).keys().copied().collect();
        logs.sort();
        logs
    }

    /// Why what is pending of a volume waits, each reason once.
    pub fn reasons(&self, realm: u32, volume: VolumeId, reachable: bool) -> Vec<String> {
        let state = self.outbox(realm, volume);
        let state = locked(&state.state);
        reasons(&whys(&state, reachable))
    }

    /// Bytes a second that the line to a volume's servers carries, as far as anything was measured.
    pub fn bandwidth(&self, realm: u32, volume: VolumeId) -> Option<u64> {
        let outbox = locked(&self.outboxes).get(&(realm, volume)).cloned()?;
        let state = locked(&outbox.state);
        state.link.bandwidth()
    }

    /// Whether something of a volume waits for nothing but the servers' answer.
    pub fn is_sending(&self, realm: u32, volume: VolumeId) -> bool {
        let Some(outbox) = locked(&self.outboxes).get(&(realm, volume)).cloned() else { return false };
        let state = locked(&outbox.state);
        is_sending(&state, Instant::now())
    }

    /// What a volume is.
    pub fn volume_mode(&self, realm: u32, volume: VolumeId, reachable: bool) -> VolumeMode {
        let outbox = self.outbox(realm, volume);
        let state = locked(&outbox.state);
        volume_mode(reachable, state.logs(), state.queue.len() - state.asks.len())
    }

    fn report_of(&self, outbox: &Outbox, reachable: bool, most: usize) -> Result<VolumeReport> {
        let now = self.env.now();
        let age = |time: i64| u64::try_from(now.saturating_sub(time) / 1_000_000_000).unwrap_or(0);
        let state = locked(&outbox.state);
        let whys = whys(&state, reachable);
        let reasons = reasons(&whys);
        let bytes = state.contents;
        let first: Vec<_> = state
            .queue
            .values()
            .take(most)
            .map(|pending| {
                let why = whys.get(&pending.entry.log).cloned().unwrap_or_default();
                let Entry { log, uid, verb, contents, time, .. } = pending.entry;
                (log, uid, verb, contents, age(time), why)
            })
            .collect();
        let left = state.link.bandwidth().filter(|bandwidth| reachable && *bandwidth > 0);
        let report = VolumeReport {
            root: outbox.root(),
            state: volume_mode(reachable, state.logs(), state.queue.len()),
            mode: state.mode,
            weak: state.link.is_weak(),
            records: state.queue.len() as u64,
            bytes,
            oldest: state.queue.values().next().map_or(0, |pending| age(pending.entry.time)),
            left: left.map(|bandwidth| bytes / bandwidth),
            reasons,
            users: users(&state),
            lines: Vec::new(),
        };
        drop(state);
        // Whoever changes something meanwhile does not wait for the disk.
        let mut lines = Vec::with_capacity(first.len());
        for (log, uid, verb, bytes, age, why) in first {
            // One that members took a moment ago is off the log already.
            let Some(row) = self.cache.store(|store| store.logged(log))? else { continue };
            let (fid, name) = subject(&row.record);
            let name = name.map(|(dir, name)| (outbox.object(dir), name));
            lines.push(Line { uid, verb, id: outbox.object(fid), name, bytes, age, why });
        }
        Ok(VolumeReport { lines, ..report })
    }
}

fn users(state: &State) -> Vec<(u32, u64, u64)> {
    let records = |user: &User| (user.logs.len() + user.asking) as u64;
    let all = state.users.iter().map(|(uid, user)| (*uid, records(user), user.contents));
    all.filter(|(_, records, _)| *records > 0).collect()
}

fn reasons(whys: &HashMap<u64, String>) -> Vec<String> {
    let mut reasons: Vec<String> = whys.values().cloned().collect();
    reasons.sort();
    reasons.dedup();
    reasons
}

/// Why each record waits that does.
fn whys(state: &State, reachable: bool) -> HashMap<u64, String> {
    let now = Instant::now();
    let mut blocked: HashMap<Fid, u64> = HashMap::new();
    let mut whys = HashMap::new();
    for (log, pending) in &state.queue {
        let entry = &pending.entry;
        let behind = entry.touches.iter().find_map(|fid| blocked.get(fid)).copied();
        let hold = state.held.get(log);
        let why = match (hold, behind) {
            _ if !reachable => "no server can be reached".to_owned(),
            (Some(hold), _) if hold.detail.is_empty() => hold.why.text().to_owned(),
            (Some(hold), _) => format!("{} ({})", hold.why.text(), hold.detail),
            (None, Some(_)) => "it depends on one that waits".to_owned(),
            // Whoever asks waits for nothing of this.
            (None, None) if !pending.logged => String::new(),
            (None, None) if state.needs_approval(entry) => Why::Approval.text().to_owned(),
            (None, None) if state.is_metered(entry) => Why::Metered.text().to_owned(),
            (None, None) if !state.is_ripe(pending, now) => {
                let left = Duration::from_secs(state.mode.age).saturating_sub(now - pending.since);
                format!("it is kept for {} s more", left.as_secs())
            }
            (None, None) => String::new(),
        };
        if why.is_empty() {
            continue;
        }
        if reachable {
            blocked.extend(entry.touches.iter().map(|fid| (*fid, *log)));
        }
        whys.insert(*log, why);
    }
    whys
}

/// Whether some record is under way, or will be without anything else happening. What was held and is to be tried again now
/// is, too.
fn is_sending(state: &State, now: Instant) -> bool {
    let mut blocked: HashSet<Fid> = HashSet::new();
    state.queue.iter().any(|(log, pending)| {
        let entry = &pending.entry;
        let waits = state.held.get(log).is_some_and(|hold| hold.until > now)
            || entry.touches.iter().any(|fid| blocked.contains(fid))
            || pending.logged
                && (state.needs_approval(entry) || state.is_metered(entry) || !state.is_ripe(pending, now));
        if waits {
            blocked.extend(entry.touches.iter().copied());
        }
        !waits || state.flies(*log)
    })
}

/// The object that a record is about, and the name it gives or takes.
fn subject(record: &Record) -> (Fid, Option<(Fid, Vec<u8>)>) {
    match &record.op {
        Op::Create { parent, name, fid, .. }
        | Op::MakeDir { parent, name, fid, .. }
        | Op::Symlink { parent, name, fid, .. }
        | Op::Link { parent, name, fid }
        | Op::Remove { parent, name, fid }
        | Op::RemoveDir { parent, name, fid } => (*fid, Some((*parent, name.clone()))),
        Op::Rename { to, to_name, fid, .. } => (*fid, Some((*to, to_name.clone()))),
        Op::Store { fid, .. }
        | Op::SetAttr { fid, .. }
        | Op::SetXattr { fid, .. }
        | Op::SetAcl { fid, .. }
        | Op::SetQuota { fid, .. } => (*fid, None),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::users::tests::removal, *};

    #[test]
    fn only_what_is_logged_waits_for_approval() {
        let mut state = State::default();
        state.insert(removal(1, 8, false));
        state.insert(removal(2, 9, true));
        for uid in [8, 9] {
            state.user(uid).guarded = true;
        }
        // It is built on the other, and that does not wait.
        let whys = whys(&state, true);
        assert_eq!(whys.get(&1), None);
        assert_eq!(whys[&2], Why::Approval.text());
    }
}
